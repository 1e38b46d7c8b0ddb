"""What a Transformer keeps of its text, as keys and values, and what of it a query may read.

The memory is a list of tokens, each at a position of the text; a query may read what lies at its
own position or before it, and with a window only the last few positions.
"""

from typing import Any

import torch
from torch import Tensor, nn

from memlib import _checks as checks


class KVCache(nn.Module):
    r"""Keys and values of the tokens so far, changed in place.

    Every buffer has its final size from the start, so that a compiled step serves every length.
    Writing a token is `memlib.write` with one-hot weights and erase 1, without the copy.

    ====== ================================= ==================================
    ring   token of position p lies in slot  when all slots are taken
    ====== ================================= ==================================
    no     p                                 `extend` refuses
    yes    p mod N                           the oldest token is overwritten
    ====== ================================= ==================================

    Args:
        batch_size: number of rows B, each with a length of its own.
        heads: number of key/value heads G.
        slots: number of tokens N that a row can hold.
        width: width M of a key.
        value_width: width V of a value; that of a key when None.
        ring: a sliding window of the last N tokens instead of a capacity.
        device: of the buffers.
        dtype: of the keys and values.

    Attributes:
        keys: (B, G, N, M).
        values: (B, G, N, V).
        lengths: (B,) int64, the tokens that each row has seen.

    Raises:
        TypeError: a size is no integer, or the dtype not real.
        ValueError: a size below 1.

    Source:
        Shazeer 2019, section 2.4 (arXiv 1911.02150), for incremental decoding; ring: Jiang et al.
        2023, section 2 (arXiv 2310.06825).

    Note:
        Gradients flow through the tokens of one call and never into those of earlier calls.
        It has no parameters: `DistributedDataParallel` finds nothing to do and refuses it alone.
        It is changed in place, and `torch.func.vmap` refuses that; `torch.export` takes it as a
        part of a module. `copy.copy` shares its buffers, as of any module.

    Example:
        >>> import torch
        >>> from memlib import KVCache, attend
        >>> cache = KVCache(batch_size=1, heads=1, slots=8, width=2)
        >>> for token in torch.eye(2):
        ...     keys, values, mask = cache.extend(*token.expand(2, 1, 1, 1, 2))
        >>> attend(100 * keys, keys, values, mask=mask).round()
        tensor([[[[1., 0.],
                  [0., 1.]]]])
        >>> cache.lengths, cache.nbytes
        (tensor([2]), 136)
    """

    keys: Tensor
    values: Tensor
    lengths: Tensor

    def __init__(
        self,
        batch_size: int,
        heads: int,
        slots: int,
        width: int,
        *,
        value_width: int | None = None,
        ring: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        value_width = width if value_width is None else value_width
        checks.integer("batch_size", batch_size, 0)
        sizes = {"heads": heads, "slots": slots, "width": width, "value_width": value_width}
        for name, size in sizes.items():
            checks.integer(name, size, 1)
        self.slots, self.ring = slots, ring
        keys = torch.zeros(batch_size, heads, slots, width, device=device, dtype=dtype)
        checks.tensor("dtype", keys)
        self.register_buffer("keys", keys)
        self.register_buffer("values", keys.new_zeros(batch_size, heads, slots, value_width))
        self.register_buffer("lengths", keys.new_zeros(batch_size, dtype=torch.long))
        self._known = [0, 0, 0, 0]  # which lengths, in which version, have what bounds

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(self, state)
        self._known = [0, 0, 0, 0]  # of a tensor that is another one here

    def reset_parameters(self) -> None:
        """Forget all tokens; it is also what `torch.nn.utils.skip_init` leaves to be done."""
        for buffer in self.buffers():
            buffer.zero_()

    @property
    def nbytes(self) -> int:
        """Bytes of :math:`B G N (M + V)` numbers and B lengths, however full it is."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def extend(
        self, keys: Tensor, values: Tensor, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append tokens and return what they may read: all before them, and each itself.

        Args:
            keys: (B, G, T, M).
            values: (B, G, T, V).
            lengths: (B,) int64 in [0, T]; row b appends only its first ``lengths[b]`` tokens.

        Returns:
            Keys (B, G, N', M), values (B, G, N', V), and a mask (B or 1, 1, T, N') or None, as
            `memlib.attend` takes them; N' depends on how full the cache is, except while
            compiling. They may share memory with the cache: use them before the next call.

        Raises:
            TypeError: wrong dtypes.
            ValueError: wrong shapes; lengths outside [0, T]; NaN or infinity; too few free slots
                (not looked at while compiling, where a full row keeps what it has). After an
                error the cache is as it was.
        """
        if lengths is None and (held := self._step(keys, values)):
            return held
        checks.tensor("keys", keys)
        checks.tensor("values", values)
        batch, heads, _, width = self.keys.shape
        checks.shape("keys", keys, "(B, G, T, M)", B=batch, G=heads, M=width)
        tokens, width = keys.shape[2], self.values.shape[-1]
        checks.shape("values", values, "(B, G, T, V)", B=batch, G=heads, T=tokens, V=width)
        checks.alike(**{"the cache": self.keys, "keys": keys, "values": values})
        if lengths is not None:
            _check_lengths(lengths, batch, tokens, self.lengths)
            late = _late(lengths, tokens)[:, None, :, None]
            keys, values = keys.masked_fill(late, 0), values.masked_fill(late, 0)
        _check_finite(keys, values, keys=keys, values=values)
        self._check_room(tokens, lengths)
        readable = self._join(keys, values, lengths)
        self._commit(keys, values, lengths)
        return readable

    def crop(self, lengths: int | Tensor) -> None:
        """Forget the newest tokens of rows with more than `lengths`, a number or (B,) int64.

        Raises:
            TypeError: lengths are no integer and no int64 tensor.
            ValueError: a wrong shape, a negative length, or a full ring, where what would have to
                be readable again may be gone; 0 always works.
        """
        if isinstance(lengths, Tensor):
            _check_lengths(lengths, self.lengths.shape[0], None, self.lengths)
        else:
            checks.integer("lengths", lengths, 0)
            lengths = torch.full_like(self.lengths, lengths)
        lost = (lengths < self.lengths) & (lengths > 0) & (self.lengths >= self.slots)
        if self.ring and checks.anywhere(lost):
            row = int(lost.nonzero()[0])
            raise ValueError(
                f"lengths must be 0 or at least {int(self.lengths[row])} in row {row}, whose ring "
                f"of {self.slots} slots is full; got {int(lengths[row])}"
            )
        self.lengths.copy_(self.lengths.minimum(lengths))

    def reorder(self, rows: Tensor) -> None:
        """Let row b go on as row ``rows[b]`` was, for beam search; rows are (B,) int64.

        Raises:
            TypeError: rows are no int64 tensor.
            ValueError: a wrong shape, or a row outside [0, B).
        """
        batch = self.lengths.shape[0]
        _check_lengths(rows, batch, batch - 1, self.lengths, "rows", "B - 1")
        for buffer in (self.keys, self.values, self.lengths):
            buffer.copy_(buffer.index_select(0, rows))

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        batch, heads, slots, width = self.keys.shape
        return (
            f"{batch}, heads={heads}, slots={slots}, width={width}, "
            f"value_width={self.values.shape[-1]}, ring={self.ring}"
        )

    def _step(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, None] | None:
        """Append a token a row if there is nothing else to check or to mask; None if there is.

        Nearly every step of decoding ends here. The careful way of `extend` would take as long
        as the read of 1 k tokens in a small layer.
        """
        bounds, held_keys, held_values = self._bounds(), self.keys, self.values
        batch, heads, slots, width = held_keys.shape
        if not (
            bounds
            and bounds[0] == bounds[1]
            and (bounds[0] < slots or self.ring)
            and isinstance(keys, Tensor)
            and isinstance(values, Tensor)
            and keys.shape == (batch, heads, 1, width)
            and values.shape == (batch, heads, 1, held_values.shape[3])
            and keys.dtype == values.dtype == held_keys.dtype
            and keys.device == values.device == held_keys.device
            and keys.layout == values.layout == held_keys.layout
            and not keys.requires_grad
            and not values.requires_grad
            and _finite(keys, values)
        ):
            return None
        after = bounds[0] + 1
        where = bounds[0] % slots, 0, min(after, slots)
        readable = _put(held_keys, keys, *where), _put(held_values, values, *where), None
        self._remember(self.lengths.add_(1), after, after)
        return readable

    # What the layer calls, having checked its arguments: _join, and _commit once all went well.
    # Until then the lengths are as they were, and nothing that may still be read has changed.

    def _positions(self, tokens: int) -> Tensor:
        """Return the positions of the next tokens, (B, T), or (1, T) if all rows agree."""
        bounds, device = self._bounds(), self.lengths.device
        if bounds and bounds[0] == bounds[1]:
            return torch.arange(bounds[0], bounds[0] + tokens, device=device).unsqueeze(0)
        return self.lengths.unsqueeze(-1) + torch.arange(tokens, device=device)

    def _join(
        self, keys: Tensor, values: Tensor, lengths: Tensor | None, window: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the keys and values that new tokens may read, and the mask."""
        tokens, bounds = keys.shape[2], self._bounds()
        window = self.slots if self.ring and window is None else window
        in_place = self._in_place(keys, values)
        low, high = bounds or (0, self.slots)
        stop = min(high + in_place, self.slots)
        agree = bounds is not None and low == high and (not in_place or lengths is None)
        if in_place and agree and (not self.ring or stop <= (window or stop)):
            start = 0 if self.ring or window is None else max(0, stop - window)
            where = low % self.slots, start, stop - start
            return _put(self.keys, keys, *where), _put(self.values, values, *where), None
        if in_place:
            self._store(keys, values, lengths)
        # the slots with tokens that the window of any row reaches
        start = 0 if self.ring or window is None else max(0, low + 1 - window)
        held = self.keys[:, :, start:stop], self.values[:, :, start:stop]

        position = self._positions(tokens)
        filled = self._after(tokens, lengths) if in_place else self.lengths
        places = torch.arange(start, stop, device=filled.device)
        places = _held(filled[:1] if agree else filled, places, self.slots)
        if in_place:
            return *held, _visible(position, places, window)
        if stop > start:
            keys, values = (torch.cat(x, dim=2) for x in zip(held, (keys, values), strict=True))
        places = torch.cat((places, position.expand(len(places), -1)), dim=1)
        return keys, values, _visible(position, places, window)

    def _commit(self, keys: Tensor, values: Tensor, lengths: Tensor | None) -> None:
        """Make the tokens part of the memory."""
        if not self._in_place(keys, values):
            self._store(keys, values, lengths)
        tokens = keys.shape[2]
        if lengths is None and (bounds := self._bounds()):
            self._remember(self.lengths.add_(tokens), bounds[0] + tokens, bounds[1] + tokens)
        else:
            self.lengths.copy_(self._after(tokens, lengths))

    def _in_place(self, keys: Tensor, values: Tensor) -> bool:
        """Whether a token is first stored, then read: one alone, without a gradient."""
        tracked = torch.is_grad_enabled() and (keys.requires_grad or values.requires_grad)
        return keys.shape[2] == 1 and not tracked

    def _after(self, tokens: int, lengths: Tensor | None) -> Tensor:
        after = self.lengths + (tokens if lengths is None else lengths)
        return after if self.ring else after.clamp(max=self.slots)

    def _store(self, keys: Tensor, values: Tensor, lengths: Tensor | None) -> None:
        """Put tokens into their slots: as many distinct ones as there are new tokens, or all."""
        tokens, bounds = keys.shape[2], self._bounds()
        if bounds and bounds[0] == bounds[1] and lengths is None:
            start = bounds[0] % self.slots
            if start + tokens <= self.slots:  # side by side in every row
                self.keys[:, :, start : start + tokens] = keys.detach()
                self.values[:, :, start : start + tokens] = values.detach()
                return
        count = self._after(tokens, lengths) - self.lengths  # (B,), those that fit
        t = torch.arange(min(tokens, self.slots), device=count.device).unsqueeze(0)
        if tokens > self.slots:  # of a ring only the last N stay
            t = t + (count.unsqueeze(-1) - self.slots).clamp(min=0)
            keys, values = (x.gather(2, _wide(t, x)) for x in (keys, values))
        slot = (self.lengths.unsqueeze(-1) + t) % self.slots  # (B, T)
        for buffer, new in ((self.keys, keys), (self.values, values)):
            index, new = _wide(slot, buffer), new.detach().to(buffer.dtype)
            if lengths is not None or bounds is None:  # what is not new is put back
                kept = (t >= count.unsqueeze(-1))[:, None, :, None]
                new = torch.where(kept, buffer.gather(2, index), new)
            buffer.scatter_(2, index, new)

    def _bounds(self) -> tuple[int, int] | None:
        """Return the least and the largest length; None while compiling and on meta.

        They are kept beside the tensor, so that a decoding step need not wait for the device;
        its version tells whether it was changed by anything but `_commit`.
        """
        lengths = self.lengths
        if torch.compiler.is_compiling() or lengths.is_meta:
            return None
        owner, version, low, high = self._known
        if lengths.is_inference() or owner != id(lengths) or version != lengths._version:
            low, high = (int(x) for x in lengths.aminmax()) if lengths.numel() else (0, 0)
            self._remember(lengths, low, high)
        return low, high

    def _remember(self, lengths: Tensor, low: int, high: int) -> None:
        if not lengths.is_inference():  # which has no version
            self._known[:] = id(lengths), lengths._version, low, high

    def _check_room(self, tokens: int, lengths: Tensor | None) -> None:
        if self.ring or not (bounds := self._bounds()) or bounds[1] + tokens <= self.slots:
            return
        free = self.slots - self.lengths
        new = torch.full_like(free, tokens) if lengths is None else lengths
        if checks.anywhere(new > free):
            row = int((new > free).nonzero()[0])
            raise ValueError(
                f"new tokens must fit in the free slots, {int(free[row])} of {self.slots} in row "
                f"{row}; got {int(new[row])}"
            )


def _visible(queries: Tensor, slots: Tensor, window: int | None) -> Tensor:
    """Which slots each query may read, by their positions: (B, T), (B, N) -> (B, 1, T, N)."""
    age = queries.unsqueeze(-1) - slots.unsqueeze(-2)
    mask = (age >= 0) & (slots >= 0).unsqueeze(-2)
    return (mask if window is None else mask & (age < window)).unsqueeze(1)


def _held(lengths: Tensor, slot: Tensor, slots: int) -> Tensor:
    """Return the position of the token in each slot, below 0 for none: (B,), (N,) -> (B, N)."""
    last = lengths.unsqueeze(-1) - 1
    return last - (last - slot) % slots


def _late(lengths: Tensor, tokens: int) -> Tensor:
    """Which tokens are padding, (B, T)."""
    return torch.arange(tokens, device=lengths.device) >= lengths.unsqueeze(-1)


def _wide(index: Tensor, like: Tensor) -> Tensor:
    """(B, T) -> (B, G, T, M)."""
    return index[:, None, :, None].expand(-1, like.shape[1], -1, like.shape[-1])


def _put(held: Tensor, new: Tensor, slot: int, start: int, size: int) -> Tensor:
    """Store a token of every row in this slot; return `size` slots from `start` on."""
    held.narrow(2, slot, 1).copy_(new)
    return held.narrow(2, start, size)


def _finite(keys: Tensor, values: Tensor) -> bool:
    """Whether nothing is NaN or infinite and no sum overflows; True where none may look."""
    total = keys.sum() + values.sum()
    return not checks.anywhere(total - total != 0)


def _check_finite(keys: Tensor, values: Tensor, /, **inputs: Tensor) -> None:
    """Refuse NaN and infinity in what is about to be stored."""
    if not _finite(keys, values):
        checks.finite((keys * 0).sum() + (values * 0).sum(), **inputs)


def _check_lengths(
    lengths: object,
    batch: int,
    most: int | None,
    like: Tensor,
    name: str = "lengths",
    limit: str = "T",
) -> None:
    if not isinstance(lengths, Tensor) or lengths.dtype != torch.long:
        got = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(f"{name} must be an int64 tensor; got {got}")
    checks.shape(name, lengths, "(B,)", B=batch)
    if lengths.device != like.device:
        raise ValueError(f"{name} must be on device {like.device}; got {lengths.device}")
    if most is None:
        most, limit = torch.iinfo(torch.long).max, ""
    wrong = (lengths < 0) | (lengths > most)
    if checks.anywhere(wrong):
        rule = f"in [0, {limit} = {most}]" if limit else "at least 0"
        raise ValueError(f"{name} must be {rule}; got {int(lengths[wrong][0])}")
