"""A cache that any causal model of the package decodes with, and that may forget."""

import copy
import weakref
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    Cache,
    get_layer_types_and_kwargs,
)

from memlib import _checks as checks
from memlib.integrations.transformers.attached import (
    Attached,
    Read,
    check_model,
    listen,
    undone,
)
from memlib.integrations.transformers.layer import MemoryLayer, Rule
from memlib.transformer.forgetting import window

FULL, SLIDING = "full_attention", "sliding_attention"


class MemoryCache(Attached, Cache):
    """Keys and values of the tokens so far, in place, for any causal model of `transformers`.

    It takes the place of the package's own caches: ``model.generate(..., cache=cache)`` and
    ``model(..., cache=cache)``. Buffers have room for more tokens than they hold, so that a step
    copies the new token and no other. A layer with a sliding window keeps that window.

    With a rule it forgets: where new tokens don't fit, all but the n tokens of each row with the
    highest scores are dropped before they come. A prompt that is longer than the slots is first
    read as a whole. A token keeps the position that it was written at.

    ============== ================================ ==========================================
    rule           what it asks for                 how it is told
    ============== ================================ ==========================================
    `window`       positions                        nothing to do
    any other      which tokens are padding         the model tells its mask
    with `total`,  the weights of all queries so    the model reads by its own "eager"
    or `weights`   far, or of the last ones         function, which gives weights
    ============== ================================ ==========================================

    But for `window`, the cache is attached to the model until `detach`, the end of its `with`, or
    the end of its own life. The weights (B, H, T, N) of a call are made at once: a long prompt is
    best read in parts, by ``prefill_chunk_size`` of `generate`.

    Args:
        model: which will decode with it.
        slots: how many tokens N a row can hold, unless one call brings more than N - n; None for
            as many as come.
        forget: a rule of `memlib.transformer.forgetting` or your own, ``forget(cache)``; it is
            told ``total`` or ``weights`` if it has a parameter of that name. None to refuse what
            does not fit.
        n: how many tokens stay when some must go, at most N - 1; N - N // 8 when None.

    Attributes:
        layers: what each layer keeps, with `keys` (B, G, N', M), `values`, `columns` (B, N'),
            where in the padded batch each slot's token stands, and `seen`, the tokens so far.

    Raises:
        TypeError: a model of another kind, or a size that is no integer.
        ValueError: no causal language model; a rule without slots, n without a rule; a size out
            of range; a rule that needs weights and a model whose attention can't be registered.

    Source:
        Window: Beltagy et al. 2020 (arXiv 2004.05150); sinks: Xiao et al. 2023 (arXiv
        2309.17453); heavy hitters: Zhang et al. 2023 (arXiv 2306.14048); looked at: Li et al. 2024
        (arXiv 2404.14469). The last two choose for each head, here one choice holds for a layer.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from memlib.integrations.transformers import MemoryCache
        >>> from memlib.transformer import sinks
        >>> sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=50, intermediate_size=16, **sizes))
        >>> with MemoryCache(model, slots=12, forget=sinks, n=8) as cache, torch.no_grad():
        ...     for token in range(20):
        ...         logits = model(torch.tensor([[token]]), cache=cache).logits
        >>> cache.layers[0].columns  # four first and the last
        tensor([[ 0,  1,  2,  3, 12, 13, 14, 15, 16, 17, 18, 19]])
        >>> cache.get_seq_length()
        20
    """

    def __init__(
        self,
        model: PreTrainedModel,
        slots: int | None = None,
        *,
        forget: Rule | None = None,
        n: int | None = None,
    ) -> None:
        check_model(model)
        if slots is not None:
            slots = checks.integer("slots", slots, 1)
        if forget is None and n is not None:
            raise ValueError(f"n must be None without a rule; got {n}")
        if forget is not None and slots is None:
            raise ValueError("slots must be a number where a rule forgets; got None")
        most = max(0, (slots or 0) - 1)  # beside which a token comes
        n = checks.integer("n", min(most, most + 1 - (most + 1) // 8) if n is None else n, 0, most)
        text = model.config.get_text_config(decoder=True)
        layers = zip(*get_layer_types_and_kwargs(text), strict=True)
        super().__init__([_layer(kind, own, slots, n, forget) for kind, own in layers])
        self.forget, self._model = forget, weakref.ref(model)
        self._undo = []
        self._attach(model)

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values that there is room for."""
        return sum(layer.nbytes for layer in self.layers if isinstance(layer, MemoryLayer))

    def __deepcopy__(self, memo: dict[int, Any]) -> "MemoryCache":
        """Return a branch that goes on by itself, with the same model."""
        new = copy.copy(self)
        new.__dict__.update(layers=copy.deepcopy(self.layers, memo), _undo=[])
        if self._undo and (model := self._model()) is not None:
            new._attach(model)
        return new

    def _attach(self, model: PreTrainedModel) -> None:
        """Ask the model for what the rule needs to know."""
        if self.forget in (None, window):
            return
        me, undo = weakref.ref(self), self._undo
        if any(isinstance(layer, MemoryLayer) and layer.wants for layer in self.layers):

            def hear(read: Read) -> Tensor:
                if (cache := me()) is not None:
                    cache._hear(read)
                return read.output

            undo.append(listen(model, hear, weights=True))

        def see(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
            if (cache := me()) is not None and any(x is cache for x in given.values()):
                cache._see(args, given)

        hook = model.base_model.register_forward_pre_hook(see, with_kwargs=True)
        undo.append(hook.remove)
        weakref.finalize(self, undone, undo).atexit = False

    def _hear(self, read: Read) -> None:
        layer = self.layers[read.module.layer_idx]
        mine = isinstance(layer, MemoryLayer) and layer.wants and layer.given() is read.keys
        if mine and read.weights is not None:
            layer.told_weights(read.weights.detach())

    def _see(self, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        """Look at the mask that comes with the next tokens."""
        mask = given.get("attention_mask")
        if len(args) > 1 or not (mask is None or (isinstance(mask, Tensor) and mask.ndim == 2)):
            got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"attention_mask must be given by name, with shape (B, T); got {got}")
        real = None if mask is None or checks.unseen(mask) or mask.all() else mask.bool()
        if real is not None and (real[:, :-1] & ~real[:, 1:]).any():
            raise ValueError("attention_mask must have its padding at the left; got it elsewhere")
        for layer in self.layers:
            if isinstance(layer, MemoryLayer):
                layer.real = real


def _layer(kind: str, own: dict[str, Any], slots: int | None, n: int, rule: Rule | None) -> Any:
    """Return what a layer of this kind keeps; the package's own where it is no list of tokens."""
    if kind == FULL:
        return MemoryLayer(slots, n, rule)
    if kind != SLIDING:
        return DYNAMIC_LAYER_TYPE_MAPPING[kind](**own)
    size = own["sliding_window"]
    if rule is not None and slots is not None and slots < size:
        return MemoryLayer(slots, n, rule, window=size)
    return MemoryLayer(size + max(64, size // 4), size - 1, window, window=size)
