"""What a Transformer keeps of its text, as keys and values, and what of it a query may read.

The memory is a list of tokens, each at a position of the text; a query may read what lies at its
own position or before it, and with a window only the last few positions.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memlib import _checks as checks
from memlib.transformer.positions import _are_tokens, _check_lengths, _next, _take, _visible
from memlib.transformer.slots import (
    _best,
    _bounded,
    _Bounds,
    _ends,
    _filled,
    _held,
    _Route,
    _route,
    _taken,
)


class _New(NamedTuple):
    """Tokens on their way into a cache."""

    keys: Tensor  # (B, G, T, M)
    values: Tensor  # (B, G, T, V)
    mask: Tensor | None  # (B, T), which of them are tokens and not padding
    in_place: bool  # first stored, then read: without a gradient, and nothing is overwritten
    even: int  # the length of all rows, if it is one and all get T tokens; else -1
    where: _Route | int  # they go; a number is the first of slots side by side, alike in all rows


class KVCache(nn.Module):
    r"""Keys and values of the tokens so far, changed in place.

    Every buffer has its final size from the start, so that a compiled step serves every length.
    Writing a token is `memlib.write` with one-hot weights and erase 1, without the copy. Rows may
    be of different lengths and are on their own: padding takes no slot and no position.

    ====== ================================= ==================================
    ring   the next token goes to            when all slots are taken
    ====== ================================= ==================================
    no     the first free slot               `extend` refuses
    yes    the slot after the newest token's the oldest token is overwritten
    ====== ================================= ==================================

    A token's position is the number of tokens that its row had seen before it, wherever it lies:
    it stays what it was when `keep` moves tokens together, and the slots of those it drops are
    free again.

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
        positions: (B, N) int64, where in its row the token of each slot stands, counted from 0;
            -1 for an empty slot.
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
        (tensor([2]), 200)

        Rows of different lengths, padded at the left; the second row has one token:

        >>> cache = KVCache(batch_size=2, heads=1, slots=4, width=2)
        >>> mask = torch.tensor([[True, True], [False, True]])
        >>> keys, values, readable = cache.extend(*torch.randn(2, 2, 1, 2, 2), mask=mask)
        >>> cache.positions
        tensor([[ 0,  1, -1, -1],
                [ 0, -1, -1, -1]])
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
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
        batch_size = checks.integer("batch_size", batch_size, 0)
        heads = checks.integer("heads", heads, 1)
        slots = checks.integer("slots", slots, 1)
        width = checks.integer("width", width, 1)
        value_width = checks.integer("value_width", value_width, 1)
        self.slots, self.ring = slots, ring
        keys = torch.zeros(batch_size, heads, slots, width, device=device, dtype=dtype)
        checks.tensor("dtype", keys)
        self.register_buffer("keys", keys)
        self.register_buffer("values", keys.new_zeros(batch_size, heads, slots, value_width))
        where: dict[str, Any] = {"dtype": torch.long, "device": keys.device}
        with torch.inference_mode(False):  # in which tensors would have no version
            self.register_buffer("positions", torch.full((batch_size, slots), -1, **where))
            self.register_buffer("lengths", torch.zeros(batch_size, **where))
        self._known: list[Any] = [0, 0, 0, None]  # which tensors, in which versions, have bounds
        self._replayed = False  # whether a CUDA graph changes the lengths and not their version

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__setstate__(self, state)
        self._known = [0, 0, 0, None]  # of tensors that are others here

    def reset_parameters(self) -> None:
        """Forget all tokens; it is also what `torch.nn.utils.skip_init` leaves to be done."""
        for buffer in self.buffers():
            buffer.zero_()
        self.positions.fill_(-1)

    @property
    def nbytes(self) -> int:
        """Bytes of :math:`B G N (M + V)` numbers, B N positions and B lengths, full or not."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def extend(
        self,
        keys: Tensor,
        values: Tensor,
        *,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append tokens and return what they may read: all before them, and each itself.

        Args:
            keys: (B, G, T, M).
            values: (B, G, T, V).
            lengths: (B,) integers in [0, T]; row b appends only its first ``lengths[b]`` tokens.
            mask: (B, T) bool instead, True = a token, False = padding, wherever it lies. What
                padding holds is not looked at.

        Returns:
            Keys (B, G, N', M), values (B, G, N', V), and a mask (B or 1, 1, T, N') or None, as
            `memlib.attend` takes them; N' depends on how full the cache is, except while
            compiling. They may share memory with the cache: use them before the next call.

        Raises:
            TypeError: wrong dtypes.
            ValueError: wrong shapes; lengths outside [0, T]; lengths and a mask; NaN or infinity;
                too few free slots (not looked at while compiling, where a full row keeps what it
                has). After an error the cache is as it was.
        """
        checks.untraced()
        if lengths is None and mask is None and (held := self._step(keys, values)):
            return held
        checks.tensor("keys", keys)
        checks.tensor("values", values)
        batch, heads, _, width = self.keys.shape
        checks.shape("keys", keys, "(B, G, T, M)", B=batch, G=heads, M=width)
        tokens, width = keys.shape[2], self.values.shape[-1]
        checks.shape("values", values, "(B, G, T, V)", B=batch, G=heads, T=tokens, V=width)
        checks.alike(**{"the cache": self.keys, "keys": keys, "values": values})
        mask = _are_tokens(lengths, mask, batch, tokens, self.lengths)
        if mask is not None:
            padding = ~mask[:, None, :, None]
            keys, values = keys.masked_fill(padding, 0), values.masked_fill(padding, 0)
        _check_finite(keys, values, keys=keys, values=values)
        self._check_room(tokens, mask)
        new = self._new(keys, values, mask)
        readable = self._join(new)
        self._commit(new)
        return readable

    def crop(self, lengths: int | Tensor) -> None:
        """Forget the newest tokens of rows that saw more than `lengths`, a number or (B,) integers.

        Raises:
            TypeError: lengths are neither an integer nor a tensor of them.
            ValueError: a wrong shape, a negative length, or a ring that was full, where what would
                have to be readable again may be gone; 0 always works.
        """
        if isinstance(lengths, Tensor):
            _check_lengths(lengths, self.lengths.shape[0], None, self.lengths)
        else:
            lengths = checks.integer("lengths", lengths, 0)
            lengths = torch.full_like(self.lengths, lengths)
        lost = (lengths < self.lengths) & (lengths > 0) & (self.lengths >= self.slots)
        if self.ring and checks.anywhere(lost):
            row = int(lost.nonzero()[0])
            raise ValueError(
                f"lengths must be 0 or at least {int(self.lengths[row])} in row {row}, whose ring "
                f"of {self.slots} slots may have lost others; got {int(lengths[row])}"
            )
        self.lengths.copy_(self.lengths.minimum(lengths))
        self.positions.copy_(_held(self.positions, self.lengths))

    def keep(self, scores: Tensor, n: int) -> Tensor:
        """Forget all but the n tokens of each row with the highest scores.

        They move together, to the first slots and in the order of their positions, which stay
        what they were. Rules that give scores are in `memlib.transformer.forgetting`.

        Args:
            scores: (B, N), a number a slot, infinite ones included; of equal ones the older token
                stays. What stands at a free slot is not looked at.
            n: how many tokens stay in a row; all where it holds no more.

        Returns:
            Slots (B, n), or (B, N) if n is larger, in which the tokens were that are now in the
            first ones; ``x.gather(1, slots)`` moves along whatever else is kept a slot.

        Raises:
            TypeError: n is no integer, or scores are no tensor of floating-point numbers.
            ValueError: a wrong shape or device, NaN, or a negative n. After an error the cache is
                as it was.
        """
        n, held = self._check_scores(scores, n), _held(self.positions, self.lengths)
        batch, slots = held.shape
        if n >= slots:
            return torch.arange(slots, device=scores.device).expand(batch, -1)
        stay = _best(scores, held, n)
        for buffer in (self.keys, self.values):
            buffer.narrow(2, 0, n).copy_(_take(buffer, stay, 2))
        self.positions.copy_(F.pad(held.gather(1, stay), (0, slots - n), value=-1))
        return stay

    def reorder(self, rows: Tensor) -> None:
        """Let row b go on as row ``rows[b]`` was, for beam search; rows are (B,) integers.

        Raises:
            TypeError: rows are no tensor of integers.
            ValueError: a wrong shape, or a row outside [0, B).
        """
        batch = self.lengths.shape[0]
        _check_lengths(rows, batch, batch - 1, self.lengths, "rows", "B - 1")
        bounds = self._bounds()
        for buffer in self.buffers():
            buffer.copy_(buffer.index_select(0, rows))
        if bounds and bounds.even:
            self._remember(self.positions, self.lengths, bounds)

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
            and bounds.even
            and (bounds.gapless if self.ring else bounds.most < slots)
            and isinstance(keys, Tensor)
            and isinstance(values, Tensor)
            and keys.shape == (batch, heads, 1, width)
            and values.shape == (batch, heads, 1, held_values.shape[3])
            and keys.dtype == values.dtype == held_keys.dtype
            and keys.device == values.device == held_keys.device
            and keys.layout == values.layout == held_keys.layout
            and not keys.requires_grad
            and not values.requires_grad
            and math.isfinite(_sum(keys, values))
        ):
            return None
        where = bounds.most % slots, 0, min(bounds.most + 1, slots)
        readable = _put(held_keys, keys, *where), _put(held_values, values, *where), None
        positions, lengths = self.positions, self.lengths
        positions.narrow(1, where[0], 1).fill_(bounds.low)
        self._remember(positions, lengths.add_(1), bounds.after(1))
        return readable

    # What the layer calls, having checked its arguments: _new, _join, and _commit once all went
    # well. Until then lengths and positions are as they were, and nothing that may still be read
    # has changed.

    def _new(self, keys: Tensor, values: Tensor, mask: Tensor | None) -> _New:
        """Find out where new tokens go."""
        tokens, even, bounds = keys.shape[2], self._even(mask), self._bounds()
        graph = torch.is_grad_enabled()
        in_place = not (graph and (keys.requires_grad or values.requires_grad))
        if tokens != 1:  # a ring would overwrite what they read, a gradient wants a copy
            in_place = even < 0 and not self.ring and not graph
        first = bounds.most % self.slots if bounds else 0
        side_by_side = even >= 0 and first + tokens <= self.slots
        where: _Route | int = first if side_by_side else self._route(tokens, mask)
        return _New(keys, values, mask, in_place, even, where)

    def _join(
        self, new: _New, window: int | None = None, from_first: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the keys and values that new tokens may read, and which each of them may.

        Without a ring, each lies where its slot is, counted from the first of those returned;
        that is slot 0 if there is no window, or `from_first`.
        """
        keys, values, mask, in_place, even, where = new
        tokens, window = keys.shape[2], self.slots if self.ring and window is None else window
        least, most, gapless = (self._bounds() or _Bounds(0, 0, 0, self.slots, False))[2:]
        rows = slice(1 if even >= 0 and gapless else None)  # one may stand for all
        laid = in_place or (even < 0 and not self.ring)  # new ones are in their slots
        stop = min(most + laid * tokens, self.slots)
        # the slots with tokens that the window of any row reaches
        start = 0 if self.ring or window is None or from_first else max(0, least + 1 - window)
        if in_place and even >= 0 and (window is None or (gapless and stop - start <= window)):
            put = most % self.slots, start, stop - start
            return _put(self.keys, keys, *put), _put(self.values, values, *put), None
        queries = self._next(tokens, mask)
        if laid:
            keys, values = self._store(new)
            route = self._route(tokens, mask) if isinstance(where, int) else where
            places = route.positions[rows, start:stop]
            keys, values = keys[:, :, start:stop], values[:, :, start:stop]
            return keys, values, _visible(queries, places, window)
        places = _held(self.positions, self.lengths)[rows, start:stop]
        places = torch.cat((places, queries.expand(len(places), -1)), dim=1)
        if stop > start:
            held = self.keys[:, :, start:stop], self.values[:, :, start:stop]
            keys, values = (torch.cat(x, dim=2) for x in zip(held, (keys, values), strict=True))
        return keys, values, _visible(queries, places, window)

    def _commit(self, new: _New) -> None:
        """Make the tokens part of the memory."""
        where, even, tokens, bounds = new.where, new.even, new.keys.shape[2], self._bounds()
        if not new.in_place:
            detached = new._replace(keys=new.keys.detach(), values=new.values.detach())
            self._store(detached._replace(in_place=True))
        if isinstance(where, int):
            places = self.positions.narrow(1, where, tokens)
            places.fill_(even) if tokens == 1 else places.copy_(self._next(tokens))
            self.lengths.add_(tokens)
        else:
            self.positions.copy_(where.positions)
            self.lengths.copy_(where.lengths)
        if bounds:
            after = bounds.after(tokens)
            if new.mask is not None and not isinstance(where, int):
                after = _Bounds(*_ends(where.lengths, where.taken), bounds.gapless)
            self._remember(self.positions, self.lengths, after)

    def _store(self, new: _New) -> list[Tensor]:
        """Put keys and values into their slots, or, if not in place, into those of copies."""
        where, after = new.where, []
        for held, x in ((self.keys, new.keys), (self.values, new.values)):
            buffer = held if new.in_place else held.clone()
            if isinstance(where, int):
                buffer.narrow(2, where, x.shape[2]).copy_(x)
            else:
                slot = where.slot[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
                x = x if where.column is None else _take(x, where.column, 2)
                fresh = where.new[:, None, :, None]
                buffer.scatter_(2, slot, x.to(buffer.dtype).where(fresh, buffer.gather(2, slot)))
            after.append(buffer)
        return after

    def _route(self, tokens: int, mask: Tensor | None) -> _Route:
        return _route(self.positions, self.lengths, tokens, mask, self.ring)

    def _next(self, tokens: int, mask: Tensor | None = None) -> Tensor:
        """Return the positions of the next tokens, (B, T), or (1, T) if all rows agree."""
        if (even := self._even(mask)) < 0:
            return _next(self.lengths, tokens, mask)
        return torch.arange(even, even + tokens, device=self.lengths.device).unsqueeze(0)

    def _bounds(self) -> _Bounds | None:
        """Return what is known of all rows; None where values may not be looked at.

        It is kept beside the tensors, so that a decoding step need not wait for the device;
        their versions tell whether they were changed by anything but `_commit`.
        """
        positions, lengths = self.positions, self.lengths
        if torch.compiler.is_compiling() or lengths.is_meta:
            return None
        if checks.captured(lengths):
            self._replayed = True
            return None
        owner, version, of_positions, found = self._known
        known = owner == id(lengths) and not (self._replayed or lengths.is_inference())
        if known and version == lengths._version and of_positions == positions._version:
            bounds: _Bounds = found
            return bounds
        bounds = _bounded(positions, lengths, self.ring)
        self._remember(positions, lengths, bounds)
        return bounds

    def _remember(self, positions: Tensor, lengths: Tensor, bounds: _Bounds) -> None:
        if not lengths.is_inference():  # which has no version
            self._known[:] = id(lengths), lengths._version, positions._version, bounds

    def _check_room(self, tokens: int, mask: Tensor | None) -> None:
        if self.ring or not (bounds := self._bounds()) or bounds.most + tokens <= self.slots:
            return
        free = self.slots - _taken(_held(self.positions, self.lengths), self.ring)
        new = torch.full_like(free, tokens) if mask is None else mask.sum(-1)
        if checks.anywhere(new > free):
            row = int((new > free).nonzero()[0])
            raise ValueError(
                f"new tokens must fit in the free slots, {int(free[row])} of {self.slots} in row "
                f"{row}; got {int(new[row])}"
            )

    def _check_scores(self, scores: Tensor, n: int) -> int:
        checks.untraced()
        checks.tensor("scores", scores)
        batch, slots = self.positions.shape
        checks.shape("scores", scores, "(B, N)", B=batch, N=slots)
        checks.together(**{"the cache": self.keys, "scores": scores})
        wrong = scores.isnan() & (_held(self.positions, self.lengths) >= 0)
        if checks.anywhere(wrong):
            raise ValueError(
                f"scores must be numbers; got NaN at {tuple(wrong.nonzero()[0].tolist())}"
            )
        return checks.integer("n", n, 0)

    def _even(self, mask: Tensor | None) -> int:
        """Return the length of all rows if it is one, and all get as many tokens; else -1."""
        bounds = self._bounds()
        return bounds.low if mask is None and bounds and bounds.even else -1

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Fill in the positions, which older states lack."""
        keys, lengths = state.get(f"{prefix}keys"), state.get(f"{prefix}lengths")
        if f"{prefix}positions" not in state and keys is not None and lengths is not None:
            state[f"{prefix}positions"] = _filled(lengths, keys.shape[2])
        super()._load_from_state_dict(state, prefix, *rest)


def _put(held: Tensor, new: Tensor, slot: int, start: int, size: int) -> Tensor:
    """Store a token of every row in this slot; return `size` slots from `start` on."""
    held.narrow(2, slot, 1).copy_(new)
    return held.narrow(2, start, size)


def _sum(keys: Tensor, values: Tensor) -> Tensor:
    """A number that is finite if nothing is NaN or infinite and no sum overflows."""
    return keys.sum() + values.sum()


def _check_finite(keys: Tensor, values: Tensor, /, **inputs: Tensor) -> None:
    """Refuse NaN and infinity in what is about to be stored."""
    total = _sum(keys, values)
    if checks.anywhere(total - total):  # 0, or NaN, which is true
        checks.finite((keys * 0).sum() + (values * 0).sum(), **inputs)
