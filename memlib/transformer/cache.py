"""What a Transformer keeps of its text, as keys and values; a query reads what lies before it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memlib import _checks as checks
from memlib.transformer.entering import _check_finite, _Entering
from memlib.transformer.positions import _are_tokens, _check_lengths, _take
from memlib.transformer.slots import _best, _held


class KVCache(_Entering):
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

    A token keeps its position, the number of tokens that its row had seen before it, where `keep`
    moves tokens together; the slots of those it drops are free again.

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
        positions: (B, N) int64, where in its row each slot's token stands; -1 for an empty slot.
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
        part of a module. `copy.copy` shares its buffers, as of any module. Made in
        `torch.inference_mode`, it can be changed there alone.

    Example:
        >>> import torch
        >>> from memlib import KVCache, attend
        >>> cache = KVCache(batch_size=2, heads=1, slots=4, width=2)
        >>> x = torch.eye(2).expand(2, 1, -1, -1)
        >>> mask = torch.tensor([[True, True], [False, True]])  # the second row has one token
        >>> keys, values, readable = cache.extend(x, x, mask=mask)
        >>> attend(100 * x, keys, values, mask=readable)[0, 0, 1].round()
        tensor([0., 1.])
        >>> cache.positions, cache.lengths, cache.nbytes
        (tensor([[ 0,  1, -1, -1],
                [ 0, -1, -1, -1]]), tensor([2, 1]), 208)
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
