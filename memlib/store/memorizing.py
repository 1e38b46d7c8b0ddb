"""Attention with a store: a layer that reads the text at hand and the nearest of all before."""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from memlib import _checks as checks
from memlib._files import plain
from memlib.content import _keep_strength, _shown
from memlib.store.store import Store
from memlib.transformer.entering import _check_finite
from memlib.transformer.layers import MemoryAttention
from memlib.transformer.positions import _are_tokens, _rotate, _take, _tokens_first, _visible
from memlib.transformer.segments import SegmentMemory


class Recollection(NamedTuple):
    """What a `MemorizingAttention` has behind it.

    `copy.copy` shares the store, `copy.deepcopy` does not. `torch.load` with ``weights_only``
    refuses it: keep the segment as named tensors, and the store by its `save`. `torch.func.vmap`
    and `torch.export` refuse a call that adds to it.

    Attributes:
        segment: the inputs of the segment before, which the layer reads as its own; a new one
            comes out of every call.
        store: keys and values of all segments before, a row for each key/value head of each
            batch row; changed in place.
    """

    segment: SegmentMemory
    store: Store


@plain
class Looks(NamedTuple):
    """Where a `MemorizingAttention` looked.

    Attributes:
        near: (B, H, T, N + T), weights over the segment before and this one.
        ids: (B, H, T, K), pairs of the store, -1 for none.
        far: (B, H, T, K), their weights.
    """

    near: Tensor
    ids: Tensor
    far: Tensor


class MemorizingAttention(nn.Module):
    r"""Causal attention that also reads a store of all it has seen: :math:`g V_m + (1 - g) V_c`.

    Each head reads the text at hand, :math:`V_c`, by `memlib.MemoryAttention`, and the k pairs of
    a `memlib.Store` nearest to its query, :math:`V_m`; a learned gate :math:`g = \sigma(b)` of
    each head mixes the two. Then the keys and values of this text join the store, as they are:
    without gradient, and without positions, which the store does not know.

    Unlike in the paper, the gate is closed as long as the store is empty, and queries and keys
    are normed only by a store with ``measure="cosine"``.

    A call adds to its store, in place: `torch.func.vmap` and `torch.export` refuse it.

    Args:
        width: width D of inputs and outputs.
        heads: number of query heads H.
        kv_heads: number of key/value heads G, a divisor of H; H when None.
        k: number of pairs read, K.
        head_width: width M of a head; D / H when None.
        positions: "rotary" or "none", of the text at hand.
        window: how far back it is read.
        base: of the rotary angles.
        strength: of the read from the store, at least 0: a number, or a tensor that broadcasts to
            (B, H, T); a `torch.nn.Parameter` is learned, another tensor becomes a buffer.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: a size is no integer, or the dtype not real.
        ValueError: see `memlib.MemoryAttention`; k below 1, a negative strength.

    Source:
        Wu et al. 2022, section 3.1 (arXiv 2203.08913).

    Example:
        >>> import torch
        >>> from memlib.store import MemorizingAttention
        >>> layer = MemorizingAttention(width=16, heads=2, k=4)
        >>> memory = layer.memory(batch_size=1, capacity=1000)
        >>> for segment in torch.randn(3, 1, 10, 16):
        ...     y, memory = layer(segment, memory)
        >>> memory.store.lengths
        tensor([30, 30])
    """

    strength: float | Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        *,
        k: int = 32,
        head_width: int | None = None,
        positions: Literal["rotary", "none"] = "rotary",
        window: int | None = None,
        base: float = 10000.0,
        strength: float | Tensor = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.k = checks.integer("k", k, 1)
        checks.choice("positions", positions, ("rotary", "none"))
        _keep_strength(self, strength)
        shape: dict[str, Any] = {"head_width": head_width, "positions": positions}
        shape |= {"window": window, "base": base, "device": device, "dtype": dtype}
        self.local = MemoryAttention(width, heads, kv_heads, **shape)
        self.gate = nn.Parameter(self.local.key.weight.new_zeros(heads))  # b of each head

    def reset_parameters(self) -> None:
        """Draw new parameters; the gates are half open."""
        self.local.reset_parameters()
        nn.init.zeros_(self.gate)

    def memory(self, batch_size: int = 1, slots: int = 0, **options: Any) -> Recollection:
        """Return an empty memory.

        Args:
            batch_size: number of rows B.
            slots: how many inputs of the segment before are read as the layer's own.
            options: of the `memlib.Store`, such as its capacity, measure or backend.

        Raises:
            TypeError: a size is no integer.
            ValueError: a size too small.
        """
        segment = self.local.segment_memory(batch_size, slots)
        like = self.local.key.weight
        options |= {"device": like.device, "dtype": like.dtype}
        options |= {"batch_size": batch_size * self.local.kv_heads}
        return Recollection(segment, Store(self.local.head_width, **options))

    @overload
    def forward(
        self, x: Tensor, memory: Recollection | None = ..., *, lengths: Tensor | None = ...,
        mask: Tensor | None = ..., need_weights: Literal[False] = ...,
    ) -> tuple[Tensor, Recollection]: ...  # fmt: skip

    @overload
    def forward(
        self, x: Tensor, memory: Recollection | None = ..., *, lengths: Tensor | None = ...,
        mask: Tensor | None = ..., need_weights: Literal[True],
    ) -> tuple[Tensor, Recollection, Looks]: ...  # fmt: skip

    @overload
    def forward(
        self, x: Tensor, memory: Recollection | None = ..., *, lengths: Tensor | None = ...,
        mask: Tensor | None = ..., need_weights: bool,
    ) -> tuple[Tensor, Recollection] | tuple[Tensor, Recollection, Looks]: ...  # fmt: skip

    def forward(
        self,
        x: Tensor,
        memory: Recollection | None = None,
        *,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Any, ...]:
        """Read a segment and what came before, and remember it.

        Args:
            x: (B, T, D), the next T tokens.
            memory: from `memory`, or what the call before returned; an empty one when None. Its
                store is changed in place.
            lengths: (B,) integers in [0, T]; row b has ``lengths[b]`` tokens, then padding.
            mask: (B, T) bool instead, True = a token, False = padding, wherever it lies.
            need_weights: return where each head looked too.

        Returns:
            Outputs (B, T, D), 0 at padding, and the memory after; with `need_weights` also the
            `Looks`, whose K is smaller as long as the store holds fewer pairs.

        Accuracy: float32 2e-6, bfloat16 1e-1, float16 1e-2, of the largest result, times its
        condition.

        Raises:
            TypeError: wrong dtypes, or a memory of another kind.
            ValueError: wrong shapes; NaN or infinity. After an error the store is as it was.
        """
        checks.tensor("x", x)
        checks.shape("x", x, "(B, T, D)", D=self.local.width)
        checks.alike(**{"the parameters": self.gate, "x": x})
        rows = (len(x), self.local.heads, x.shape[1])
        checks.one_each("strength", self.strength, rows, x, 0)
        mask = _are_tokens(lengths, mask, x.shape[0], x.shape[1], x)
        if mask is not None:
            x = x.masked_fill(~mask.unsqueeze(-1), 0)
        segment, store = self._check_memory(memory, x)
        both = torch.cat((segment.inputs, x), dim=1)  # (B, N + T, D)
        query = self.local._heads(self.local.query, x, None)  # (B, H, T, M)
        keys = self.local._heads(self.local.key, both, None)  # (B, G, N + T, M)
        values = self.local._heads(self.local.value, both, None)
        _check_finite(keys, values, x=x, memory=segment.inputs)
        near, look = self._look(query, keys, values, segment, mask, need_weights)
        far, ids, weights = self._recall(query, store)
        if mask is not None:
            padding = ~mask[:, None, :, None]
            ids, weights = ids.masked_fill(padding, -1), weights.masked_fill(padding, 0)
        known = (ids >= 0).any(-1)  # (B, H, T)
        gate = (self.gate.sigmoid().unsqueeze(-1) * known).unsqueeze(-1)  # g
        y = self.local.output((near + gate * (far - near)).transpose(1, 2).flatten(2))
        y = y if mask is None else y.masked_fill(~mask.unsqueeze(-1), 0)
        checks.finite(y, x=x, memory=segment.inputs)

        each, new = None, [z[:, :, segment.inputs.shape[1] :].detach() for z in (keys, values)]
        if mask is not None:
            each = mask.sum(-1).repeat_interleave(self.local.kv_heads)
            new = [_take(z, _tokens_first(mask), 2) for z in new]
        store.add(*(z.flatten(0, 1) for z in new), lengths=each)
        after = Recollection(segment._slide(both, mask), store)
        return (y, after) if look is None else (y, after, Looks(look, ids, weights))

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module says that it returns Any

    def _look(
        self, query: Tensor, keys: Tensor, values: Tensor, segment: SegmentMemory,
        mask: Tensor | None, need: bool,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Read the text at hand, as `memlib.MemoryAttention` does."""
        old, places = segment.inputs.shape[1], segment._positions(query.shape[2], mask)
        if (marks := self.local._marks(places)) is not None:
            query, keys = _rotate(query, marks[:, old:]), _rotate(keys, marks)
        readable = _visible(places[:, old:], places, self.local.window)
        return self.local._look(query, keys, values, readable, need)

    def _recall(self, query: Tensor, store: Store) -> tuple[Tensor, Tensor, Tensor]:
        """Read the store; heads that share keys are so many queries of one row."""
        batch, groups, tokens = len(query), self.local.kv_heads, query.shape[2]
        strength = self.strength
        if isinstance(strength, Tensor):
            strength = self._rows(strength.expand(query.shape[:-1]))
        with store._lock:
            k = min(self.k, int(store._held.max(initial=0)) or self.k)
            looked = store.read(self._rows(query), k, strength=strength, need_weights=True)
        value, ids, weights = (
            z.unflatten(0, (batch, groups)).unflatten(2, (self._shared, tokens)).flatten(1, 2)
            for z in looked
        )
        return value, ids, weights

    def _rows(self, x: Tensor) -> Tensor:
        """(B, H, T, ...) -> (B·G, H / G · T, ...), as the store sees it."""
        batch, _, tokens, *width = x.shape
        return x.reshape(batch * self.local.kv_heads, self._shared * tokens, *width)

    def _check_memory(self, memory: object, x: Tensor) -> Recollection:
        """Refuse a memory that is not of this layer."""
        memory = self.memory(len(x)) if memory is None else memory
        if not isinstance(memory, Recollection):
            raise TypeError(f"memory must be a Recollection or None; got {type(memory).__name__}")
        for name, kind in (("segment", SegmentMemory), ("store", Store)):
            if not isinstance(part := getattr(memory, name), kind):
                got = type(part).__name__
                raise TypeError(f"memory.{name} must be a {kind.__name__}; got {got}")
        layer, store = self.local, memory.store
        layer._check_memory(memory.segment, x, None)
        sizes = {"B·G": len(x) * layer.kv_heads, "M": layer.head_width}
        checks.shape("memory.store.keys", store.keys, "(B·G, N, M)", **sizes)
        checks.shape("memory.store.values", store.values, "(B·G, N, M)", **sizes)
        checks.alike(**{"x": x, "memory.store.keys": store.keys})
        return memory

    @property
    def _shared(self) -> int:
        return self.local.heads // self.local.kv_heads

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        return f"k={self.k}, strength={_shown(self.strength)}"
