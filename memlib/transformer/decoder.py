"""A small Transformer for sequences of tokens: layers that mix them, and `FeedForward`."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar  # which torch brings

from memlib import _checks as checks
from memlib.attention.scores import _similarity
from memlib.transformer.blocks import _Block, _look_at, _settle
from memlib.transformer.cache import KVCache
from memlib.transformer.layers import SCALE, MemoryAttention, Positions
from memlib.transformer.positions import _are_tokens
from memlib.transformer.segments import SegmentMemory

M = TypeVar("M", bound=Sequence[Any] | Tensor | None, default=Tensor | None)
MakeLayer = Callable[..., nn.Module]


class Decoder(nn.Module):
    r"""A Transformer that predicts each next token from those before it.

    Token embeddings; L blocks :math:`x \leftarrow x + \text{attention}(\text{norm}(x))`,
    :math:`x \leftarrow x + \text{feed-forward}(\text{norm}(x))`; the logits are dot products of
    the normed x with the token embeddings. What it remembers from call to call is chosen by the
    caller:

    ================== =============================================================
    memory             made by, and kept from the text before
    ================== =============================================================
    None               nothing
    `KVCache`          `cache`: keys and values, one cache a layer, changed in place
    `SegmentMemory`    `segment_memory`: the last inputs of each layer
    a tensor (B, K, D) `memory_tokens`: K vectors that the model writes itself
    ================== =============================================================

    Another layer may stand in the place of attention, in all blocks or in some: a module that is
    called as `MemoryAttention` is, ``layer(x, memory, mask=mask)``, and returns outputs and the
    memory after. Its memory is made by its own `cache` or `segment_memory`, else `initial_state`.

    With memory tokens, a call runs over the K tokens as they were, the text, and the K tokens
    again; what comes out at the latter is the memory after. A window counts them too. Gradients
    flow through them from segment to segment until they are detached.

    Args:
        vocab_size: number V of tokens.
        width: width D.
        layers: number of blocks L.
        heads: number of query heads H.
        kv_heads: number of key/value heads; H when None.
        positions: "rotary", "learned" or "none", see `MemoryAttention`, as the next two.
        window: how many tokens a query reads.
        length: positions in the tables of learned positions.
        slots: of each feed-forward memory; 4 D when None, and 0 leaves them out.
        memory_tokens: number K of memory tokens.
        layer: what makes the layer of a block, called with width, heads, device and dtype; of
            several each has its turn. None is `MemoryAttention` with the options above.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: a size is no integer, the dtype not real, or a layer no module.
        ValueError: see `MemoryAttention`; no layer at all.

    Source:
        Vaswani et al. 2017 (arXiv 1706.03762), as in GPT-2 with the norm first, without biases
        and dropout; segments: Dai et al. 2019 (arXiv 1901.02860); memory tokens: Bulatov,
        Kuratov, Burtsev 2022, section 3.2 (arXiv 2207.06881).

    Example:
        >>> import torch
        >>> from memlib import Decoder
        >>> model = Decoder(vocab_size=50, width=16, layers=2, heads=2)
        >>> tokens = torch.randint(50, (1, 12))
        >>> cache = model.cache(batch_size=1, slots=12)
        >>> with torch.no_grad():
        ...     whole, _ = model(tokens)
        ...     first, cache = model(tokens[:, :11], cache)
        ...     last, cache = model(tokens[:, 11:], cache)  # goes on where it stopped
        >>> torch.allclose(torch.cat((first, last), dim=1), whole, atol=1e-5)
        True

        Prompts of different lengths, padded at the left, go on together until each is done; what
        follows is what follows each of them alone:

        >>> tokens = torch.tensor([[7, 3, 9, 4], [0, 0, 0, 5]])
        >>> mask = torch.tensor([[True, True, True, True], [False, False, False, True]])
        >>> cache, end, going = model.cache(batch_size=2, slots=10), 0, torch.tensor(True)
        >>> with torch.no_grad():
        ...     logits, cache = model(tokens, cache, mask=mask)
        ...     for _ in range(6):
        ...         new = logits[:, -1:].argmax(-1)  # (B, 1)
        ...         going = going & (new != end)
        ...         logits, cache = model(new, cache, mask=going)  # a row that is done gets none
        ...         tokens, mask = torch.cat((tokens, new), 1), torch.cat((mask, going), 1)
        ...     text = tokens[1:][mask[1:]]
        ...     alone = model(text.unsqueeze(0))[0].argmax(-1)
        >>> torch.equal(alone[0, :-1], text[1:])
        True

        A window in every other block:

        >>> from functools import partial
        >>> from memlib import MemoryAttention
        >>> near = partial(MemoryAttention, window=8)
        >>> model = Decoder(50, 16, layers=4, heads=2, layer=(near, None))
        >>> [layer.window for layer in model.attention]
        [8, None, 8, None]
    """

    def __init__(
        self,
        vocab_size: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 1,
        *,
        kv_heads: int | None = None,
        positions: Positions = "rotary",
        window: int | None = None,
        length: int = 1024,
        slots: int | None = None,
        memory_tokens: int = 0,
        layer: MakeLayer | Sequence[MakeLayer | None] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        vocab_size = checks.integer("vocab_size", vocab_size, 1)
        width = checks.integer("width", width, 1)
        layers = checks.integer("layers", layers, 1)
        memory_tokens = checks.integer("memory_tokens", memory_tokens, 0)
        slots = 4 * width if slots is None else slots
        slots = checks.integer("slots", slots, 0)
        like = torch.empty(0, device=device, dtype=dtype)
        checks.tensor("dtype", like)
        factory: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        options: dict[str, Any] = {"positions": positions, "window": window, "length": length}
        self.embedding = nn.Parameter(like.new_empty(vocab_size, width))
        self.tokens = nn.Parameter(like.new_empty(memory_tokens, width)) if memory_tokens else None
        makers = (layer,) if layer is None or callable(layer) else tuple(layer)
        if not makers:
            raise ValueError("layer must be what makes a layer, or several of them; got none")
        self.blocks = nn.ModuleList()
        for make in islice(cycle(makers), layers):
            make = make or partial(MemoryAttention, kv_heads=kv_heads, **options)
            made = make(width, heads, **factory)
            if not isinstance(made, nn.Module):
                raise TypeError(f"layer must make a torch.nn.Module; got {type(made).__name__}")
            self.blocks.append(_Block(made, width, slots, **factory))
        self.norm = nn.LayerNorm(width, **factory)
        self._reset_tokens()

    def reset_parameters(self) -> None:
        """Draw new parameters."""
        for module in self.modules():
            if module is not self and callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        self._reset_tokens()

    def cache(self, batch_size: int = 1, slots: int | None = None) -> tuple[KVCache, ...]:
        """Return an empty `KVCache` for each layer, see `MemoryAttention.cache`.

        For a layer that has none it is the layer's `initial_state`.
        """
        return self._memories("cache", batch_size, slots)

    def segment_memory(self, batch_size: int = 1, slots: int = 64) -> tuple[SegmentMemory, ...]:
        """Return an empty `SegmentMemory` for each layer, of the last `slots` inputs.

        For a layer that has none it is the layer's `initial_state`.
        """
        return self._memories("segment_memory", batch_size, slots)

    def memory_tokens(self, batch_size: int = 1) -> Tensor:
        """Return the learned memory tokens before the first segment, (B, K, D).

        Raises:
            TypeError: a size is no integer.
            ValueError: a negative size, or a model without memory tokens.
        """
        batch_size = checks.integer("batch_size", batch_size, 0)
        if self.tokens is None:
            raise ValueError("memory_tokens of the model must be at least 1; got 0")
        return self.tokens.expand(batch_size, -1, -1).clone()

    @overload
    def forward(
        self, tokens: Tensor, memory: M = ..., *, lengths: Tensor | None = ...,
        mask: Tensor | None = ..., need_weights: Literal[False] = ...,
    ) -> tuple[Tensor, M]: ...  # fmt: skip

    @overload
    def forward(
        self, tokens: Tensor, memory: M = ..., *, lengths: Tensor | None = ...,
        mask: Tensor | None = ..., need_weights: Literal[True],
    ) -> tuple[Tensor, M, list[Tensor]]: ...  # fmt: skip

    @overload
    def forward(
        self,
        tokens: Tensor,
        memory: M = ...,
        *,
        lengths: Tensor | None = ...,
        mask: Tensor | None = ...,
        need_weights: bool,
    ) -> tuple[Tensor, M] | tuple[Tensor, M, list[Tensor]]: ...

    def forward(
        self,
        tokens: Tensor,
        memory: Any = None,
        *,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Any, ...]:
        """Predict each next token, and remember these.

        Args:
            tokens: (B, T) integers in [0, V).
            memory: what came before, from `cache`, `segment_memory` or `memory_tokens`, or what
                the call before returned. None is nothing, or the learned memory tokens.
            lengths: (B,) integers in [0, T]; row b has ``lengths[b]`` tokens, then padding.
            mask: (B, T) bool instead, True = a token, False = padding, wherever it lies. What
                padding holds is not looked at; it takes no position and no slot.
            need_weights: return where each layer looked too.

        Returns:
            Logits (B, T, V), 0 at padding, and the memory after, of the same kind; with
            `need_weights` also a list of each layer's weights, see `MemoryAttention.forward`.

        Accuracy: float32 2e-6, bfloat16 1e-1, float16 1e-2, of the largest result, times its
        condition.

        Raises:
            TypeError: tokens are no integer tensor, or a memory of another kind.
            ValueError: wrong shapes, a token outside [0, V), or what a layer refuses. After an
                error every cache is as it was.
        """
        checks.integers("tokens", tokens)
        checks.shape("tokens", tokens, "(B, T)")
        checks.together(**{"the parameters": self.embedding, "tokens": tokens})
        mask = _are_tokens(lengths, mask, tokens.shape[0], tokens.shape[1], tokens)
        padding = None if mask is None else ~mask
        if padding is not None:
            tokens = tokens.masked_fill(padding, 0)
        vocab_size = len(self.embedding)
        if checks.anywhere((tokens < 0) | (tokens >= vocab_size)):
            low, high = int(tokens.min()), int(tokens.max())
            raise ValueError(f"tokens must be in [0, {vocab_size}); got {low} to {high}")
        x = self.embedding[tokens]
        if padding is not None:
            x = x.masked_fill(padding.unsqueeze(-1), 0)
        if self.tokens is None:
            layers = self._a_layer(memory)
        else:
            memory, layers = self._checked_tokens(x, memory), self._a_layer(None)
            x = torch.cat((memory, x, memory), dim=1)
            if mask is not None:
                around = mask.new_ones(memory.shape[:2])
                mask = torch.cat((around, mask, around), dim=1)
        pending = [_look_at(*one, x, mask) for one in zip(self.attention, layers, strict=True)]
        looks = []
        for i, block in enumerate(self.blocks):
            x, pending[i], weights = block(x, pending[i], mask, need_weights)
            looks.append(weights)
        x = self.norm(x)
        if self.tokens is not None:
            count = len(self.tokens)
            _, x, memory = x.split((count, tokens.shape[1], count), dim=1)
        logits = _similarity(x, self.embedding, "dot")
        if padding is not None:
            logits = logits.masked_fill(padding.unsqueeze(-1), 0)
        checks.finite(logits, embedding=self.embedding, **_numbers(memory))
        if self.tokens is None and memory is not None:
            memory = tuple(map(_settle, self.attention, pending))
        return (logits, memory, looks) if need_weights else (logits, memory)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module says that it returns Any

    @property
    def attention(self) -> list[Any]:
        """The layers that mix tokens, `MemoryAttention` unless others were asked for."""
        return [block.attention for block in self.blocks]

    def _memories(self, name: str, batch_size: int, slots: int | None) -> tuple[Any, ...]:
        """Return of each layer what its method of this name makes, or else its initial state."""
        return tuple(
            getattr(layer, name)(batch_size, slots)
            if hasattr(layer, name)
            else layer.initial_state(batch_size)
            for layer in self.attention
        )

    def _a_layer(self, memory: object) -> Sequence[Any]:
        """Return a memory for each layer."""
        if memory is None:
            return [None] * len(self.blocks)
        if not isinstance(memory, list | tuple) or len(memory) != len(self.blocks):
            got = type(memory).__name__
            got += f" of {len(memory)}" if isinstance(memory, list | tuple) else ""
            raise TypeError(f"memory must be a tuple of {len(self.blocks)}, one a layer; got {got}")
        return memory

    def _checked_tokens(self, x: Tensor, memory: Tensor | None) -> Tensor:
        if memory is None:
            return self.memory_tokens(x.shape[0])
        checks.tensor("memory", memory)
        sizes = dict(zip("BKD", (x.shape[0], *self.memory_tokens().shape[1:]), strict=True))
        checks.shape("memory", memory, "(B, K, D)", **sizes)
        checks.alike(**{"the parameters": self.embedding, "memory": memory})
        return memory

    def _reset_tokens(self) -> None:
        for parameter in (self.embedding, self.tokens):
            if parameter is not None:
                nn.init.normal_(parameter, std=SCALE)


def _numbers(memory: Any) -> dict[str, Tensor]:
    """Return the tensors of a memory that a result may be off by, by their names."""
    if isinstance(memory, Tensor):
        return {"memory": memory}
    parts = {f"memory[{i}]": part for i, part in enumerate(memory or ())}
    inputs = {f"{n}.inputs": m.inputs for n, m in parts.items() if isinstance(m, SegmentMemory)}
    return inputs | {name: part for name, part in parts.items() if isinstance(part, Tensor)}
