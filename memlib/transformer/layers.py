"""The Transformer as memory: attention reads the tokens so far, and decoding writes them.

A layer is the same function however its past comes to it: all at once, from a `KVCache`, or as
the `SegmentMemory` of the text before.
"""

from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar  # which torch brings

from memlib import _checks as checks
from memlib.attention.verbs import _attend
from memlib.transformer.blocks import Layer
from memlib.transformer.cache import KVCache
from memlib.transformer.entering import _check_finite, _New
from memlib.transformer.positions import (
    _check_lengths,
    _next,
    _rotate,
    _turn_at,
    _turns,
    _visible,
)
from memlib.transformer.segments import SegmentMemory

Positions = Literal["rotary", "learned", "none"]
LayerMemory = KVCache | SegmentMemory | None
M = TypeVar("M", bound=LayerMemory, default=None)
SCALE = 0.02  # standard deviation of what is learned for tokens and positions, as in GPT-2


class MemoryAttention(Layer):
    r"""Causal attention in H heads whose past is a memory: :math:`o_t = \sum_{i \le t} w_{ti} v_i`.

    The read is `memlib.attend`. Query head h reads the keys and values of head
    :math:`\lfloor h G / H \rfloor`.

    ========= ====================================================================================
    positions what queries and keys are made of
    ========= ====================================================================================
    rotary    :math:`R_t W x_t`, where :math:`R_t` turns the numbers i and i + M/2 by the angle
              :math:`t \cdot \mathrm{base}^{-2i/M}` (Su et al. 2021)
    learned   :math:`W (x_t + p_t)`; the values know no position (Press, Smith, Lewis 2021)
    none      :math:`W x_t`
    ========= ====================================================================================

    Args:
        width: width D of inputs and outputs.
        heads: number of query heads H.
        kv_heads: number of key/value heads G, a divisor of H; H when None.
        head_width: width M of a head; D / H when None.
        positions: "rotary", "learned" or "none".
        window: a query reads only the last `window` tokens, itself one of them.
        length: positions with a vector :math:`p_t`, if they are learned.
        base: of the rotary angles.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: a size is no integer, or the dtype not real.
        ValueError: a size below 1, heads that do not divide, an odd width with rotary positions.

    Source:
        Vaswani et al. 2017, section 3.2 (arXiv 1706.03762); Su et al. 2021, eq. 34 (arXiv
        2104.09864); Press, Smith, Lewis 2021, section 4.2 (arXiv 2012.15832); grouped heads:
        Ainslie et al. 2023 (arXiv 2305.13245); window: Beltagy et al. 2020 (arXiv 2004.05150).

    Example:
        >>> import torch
        >>> from memlib import MemoryAttention
        >>> layer = MemoryAttention(width=16, heads=4, kv_heads=2)
        >>> x = torch.randn(1, 10, 16)
        >>> whole, _ = layer(x)
        >>> cache = layer.cache(batch_size=1, slots=10)
        >>> with torch.no_grad():
        ...     first, cache = layer(x[:, :7], cache)
        ...     steps = [layer(x[:, t : t + 1], cache)[0] for t in (7, 8, 9)]
        >>> torch.allclose(torch.cat((first, *steps), dim=1), whole, atol=1e-6)
        True
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        *,
        head_width: int | None = None,
        positions: Positions = "rotary",
        window: int | None = None,
        length: int = 1024,
        base: float = 10000.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        width = checks.integer("width", width, 1)
        heads = checks.integer("heads", heads, 1)
        kv_heads = heads if kv_heads is None else kv_heads
        kv_heads = checks.integer("kv_heads", kv_heads, 1)
        _check_divides("kv_heads", kv_heads, "heads", heads)
        if head_width is None:
            _check_divides("heads", heads, "width", width)
            head_width = width // heads
        head_width = checks.integer("head_width", head_width, 1)
        checks.choice("positions", positions, ("rotary", "learned", "none"))
        if positions == "rotary" and head_width % 2:
            raise ValueError(f"head_width must be even with rotary positions; got {head_width}")
        if window is not None:
            window = checks.integer("window", window, 1)
        length = checks.integer("length", length, 1)
        base = checks.number("base", base, 1)
        like = torch.empty(0, device=device, dtype=dtype)
        checks.tensor("dtype", like)

        self.width, self.heads, self.kv_heads, self.head_width = width, heads, kv_heads, head_width
        self.positions, self.window, self.base = positions, window, base
        factory: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        self.query = nn.Linear(width, heads * head_width, bias=False, **factory)
        self.key = nn.Linear(width, kv_heads * head_width, bias=False, **factory)
        self.value = nn.Linear(width, kv_heads * head_width, bias=False, **factory)
        self.output = nn.Linear(heads * head_width, width, bias=False, **factory)
        learned = positions == "learned"
        self.table = nn.Parameter(torch.empty(length, width, **factory)) if learned else None
        self._reset_table()

    def reset_parameters(self) -> None:
        """Draw new parameters: linear layers as PyTorch does."""
        for linear in (self.query, self.key, self.value, self.output):
            linear.reset_parameters()
        self._reset_table()

    def cache(self, batch_size: int = 1, slots: int | None = None) -> KVCache:
        """Return an empty `KVCache` for this layer; a ring of `window` slots when slots is None.

        Raises:
            TypeError: a size is no integer.
            ValueError: a size below 1, or no slots for a layer without a window.
        """
        ring = slots is None
        slots = self.window if slots is None else slots
        if slots is None:
            raise ValueError("slots must be given for a layer without a window; got None")
        like = self.key.weight
        where: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        return KVCache(batch_size, self.kv_heads, slots, self.head_width, ring=ring, **where)

    def segment_memory(self, batch_size: int = 1, slots: int = 64) -> SegmentMemory:
        """Return an empty `SegmentMemory` of the last `slots` inputs.

        Raises:
            TypeError: a size is no integer.
            ValueError: a negative size.
        """
        batch_size = checks.integer("batch_size", batch_size, 0)
        slots = checks.integer("slots", slots, 0)
        like = self.key.weight
        seen = torch.zeros(batch_size, dtype=torch.long, device=like.device)
        return SegmentMemory(like.new_zeros(batch_size, slots, self.width), seen)

    @overload
    def forward(
        self, x: Tensor, memory: M = ..., *, lengths: Tensor | None = ...,
        mask: Tensor | None = ..., need_weights: Literal[False] = ...,
    ) -> tuple[Tensor, M]: ...  # fmt: skip

    @overload
    def forward(
        self, x: Tensor, memory: M = ..., *, lengths: Tensor | None = ...,
        mask: Tensor | None = ..., need_weights: Literal[True],
    ) -> tuple[Tensor, M, Tensor]: ...  # fmt: skip

    @overload
    def forward(
        self,
        x: Tensor,
        memory: M = ...,
        *,
        lengths: Tensor | None = ...,
        mask: Tensor | None = ...,
        need_weights: bool,
    ) -> tuple[Tensor, M] | tuple[Tensor, M, Tensor]: ...

    def forward(
        self,
        x: Tensor,
        memory: Any = None,
        *,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Any, ...]:
        """Read what came before, and remember these tokens.

        Args:
            x: (B, T, D), the next T tokens.
            memory: what came before: None for nothing, a `KVCache`, which is changed in place, or
                a `SegmentMemory`, which stays as it is.
            lengths: (B,) integers in [0, T]; row b has ``lengths[b]`` tokens, then padding.
            mask: (B, T) bool instead, True = a token, False = padding, wherever it lies. What
                padding holds is not looked at; it takes no position and no slot.
            need_weights: return where each query looked too.

        Returns:
            Outputs (B, T, D), 0 at padding, and the memory after, which is None, the same cache or
            a new `SegmentMemory`. With `need_weights` also the weights (B, H, T, N'), 0 at padding:
            over the slots of a `KVCache` as far as they are filled, these tokens in theirs
            (several tokens that come to a ring at once are not yet in it: they follow its slots);
            over the slots of a `SegmentMemory`, and then over x.

        Accuracy: float32 2e-6, bfloat16 1e-1, float16 1e-2, of the largest result, times its
        condition.

        Raises:
            TypeError: wrong dtypes, or a memory of another kind.
            ValueError: wrong shapes; lengths and a mask; a cache with too few free slots; a
                position beyond a learned table; NaN or infinity. After an error the cache is as it
                was.
        """
        inputs = memory.inputs if isinstance(memory, SegmentMemory) else None
        return self._run(x, memory, lengths, mask, need_weights, memory=inputs)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module says that it returns Any

    def _step(
        self, x: Tensor, memory: LayerMemory, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, _New | SegmentMemory | None, Tensor | None]:
        tokens = x.shape[1]  # padding reads nothing, and so its output is 0
        both = x = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0)
        if isinstance(memory, SegmentMemory):
            both = torch.cat((memory.inputs, x), dim=1)
            places = memory._positions(tokens, mask)
        elif isinstance(memory, KVCache):
            places = memory._next(tokens, mask)
        else:
            rows = 1 if mask is None else len(mask)
            places = _next(torch.zeros(rows, dtype=torch.long, device=x.device), tokens, mask)
        old, marks = places.shape[1] - tokens, self._marks(places, memory)

        query = self._heads(self.query, x, None if marks is None else marks[:, old:])
        keys = self._heads(self.key, both, marks)
        values = self.value(both).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        after: _New | SegmentMemory | None = None
        if isinstance(memory, KVCache):
            _check_finite(keys, values, x=x)
            after = memory._new(keys, values, mask)
            keys, values, readable = memory._join(after, self.window, from_first=need_weights)
        else:
            readable = _visible(places[:, old:], places, self.window)
        if isinstance(memory, SegmentMemory):
            after = memory._slide(both, mask)
        value, weights = self._look(query, keys, values, readable, need_weights)
        return self.output(value.transpose(1, 2).flatten(2)), after, weights

    def _marks(self, positions: Tensor, memory: LayerMemory = None) -> Tensor | None:
        """Return what queries and keys know of their positions: (1 or B, T) -> (1 or B, T, ·)."""
        if self.table is not None:
            return self.table[positions.clamp(0, len(self.table) - 1)]
        if self.positions == "none":
            return None
        # half precision would not tell large positions apart
        kind = torch.promote_types(self.key.weight.dtype, torch.float32)
        shape = self.head_width, self.base, kind
        if isinstance(memory, KVCache) and positions.numel() == 1 and (bounds := memory._bounds()):
            return _turn_at(bounds.low, positions.device, torch.is_inference_mode_enabled(), *shape)
        return _turns(positions, *shape)

    def _heads(self, linear: nn.Linear, x: Tensor, marks: Tensor | None) -> Tensor:
        """Queries or keys: (B, T, D), (1 or B, T, ·) -> (B, heads, T, M)."""
        x = x if marks is None or self.table is None else x + marks
        heads: Tensor = linear(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        return heads if marks is None or self.table is not None else _rotate(heads, marks)

    def _look(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Read; the query heads of one key/value head are so many queries of one memory."""
        tokens, shared = query.shape[2], self.heads // self.kv_heads
        query = query.unflatten(1, (self.kv_heads, shared)).flatten(2, 3)  # (B, G, H/G * T, M)
        if mask is not None and shared > 1:
            mask = mask.repeat(1, 1, shared, 1)
        value, weights = _attend(query, keys, values, mask=mask, need_weights=need_weights)
        value = value.unflatten(2, (shared, tokens)).flatten(1, 2)
        if weights is not None:
            weights = weights.unflatten(2, (shared, tokens)).flatten(1, 2)
        return value, weights

    def _settle(self, memory: LayerMemory, after: _New | SegmentMemory | None) -> LayerMemory:
        if isinstance(memory, KVCache) and isinstance(after, _New):
            memory._commit(after)
            return memory
        return after if isinstance(after, SegmentMemory) else None

    def _check_memory(self, memory: object, x: Tensor, mask: Tensor | None) -> None:
        """Refuse a memory that is not of this layer, or too full."""
        batch, tokens = x.shape[:2]
        if memory is None:
            self._check_positions(0, tokens, mask)
        elif isinstance(memory, KVCache):
            sizes = {"B": batch, "G": self.kv_heads, "N": memory.slots, "M": self.head_width}
            for name, value in (("keys", memory.keys), ("values", memory.values)):
                checks.shape(f"memory.{name}", value, "(B, G, N, M)", **sizes)
                checks.alike(**{"x": x, f"memory.{name}": value})
            if memory.ring and (self.window is None or memory.slots < self.window):
                rule = "no ring for a layer without a window"
                if self.window is not None:
                    rule = f"a ring of at least the {self.window} slots of the window"
                raise ValueError(f"memory must be {rule}; got a ring of {memory.slots} slots")
            memory._check_room(tokens, mask)
            self._check_positions(memory.lengths, tokens, mask)
        elif isinstance(memory, SegmentMemory):
            checks.tensor("memory.inputs", memory.inputs)
            checks.shape("memory.inputs", memory.inputs, "(B, N, D)", B=batch, D=self.width)
            checks.alike(**{"x": x, "memory.inputs": memory.inputs})
            _check_lengths(memory.seen, batch, None, x, "memory.seen")
            self._check_positions(memory.seen, tokens, mask)
        else:
            kind = type(memory).__name__
            raise TypeError(f"memory must be a KVCache, a SegmentMemory or None; got {kind}")

    def _check_positions(self, seen: Tensor | int, tokens: int, mask: Tensor | None) -> None:
        if self.table is None:
            return
        after, length = seen + (tokens if mask is None else mask.sum(-1)), len(self.table)
        if checks.anywhere(after > length) if isinstance(after, Tensor) else after > length:
            last = int(after.max() if isinstance(after, Tensor) else after) - 1
            raise ValueError(f"positions must be below length = {length}; got {last}")

    def _reset_table(self) -> None:
        if self.table is not None:
            nn.init.normal_(self.table, std=SCALE)

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        return (
            f"{self.width}, heads={self.heads}, kv_heads={self.kv_heads}, "
            f"head_width={self.head_width}, positions={self.positions!r}, window={self.window}"
        )


def _check_divides(name: str, value: int, of: str, whole: int) -> None:
    if whole % value:
        raise ValueError(f"{of} must be a multiple of {name}; got {of} = {whole}, {name} = {value}")
