"""How a memory is attached to a model of the package, and detached again.

The package lets anyone register an attention function under a name of its own. The function
registered here does what the model did before, then hands every read to the memories that listen,
and each may answer with another output. What it does before is one of the package's own functions,
or the model's own "eager" one where a memory wants to see the weights.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

OWN = "memlib_"  # and the name of what the model had before


class Read(NamedTuple):
    """What a layer has just read from its keys and values.

    Attributes:
        module: the attention module of the layer.
        query: (B, H, T, M), rotated where the model rotates.
        keys: (B, G, N, M), what the cache returned, or the text at hand where there is none.
        values: (B, G, N, V).
        output: (B, T, H, V), what the model makes of it.
        weights: (B, H, T, N) where a memory wants them, else what the model gives.
        scaling: what the model multiplies scores by.
    """

    module: nn.Module
    query: Tensor
    keys: Tensor
    values: Tensor
    output: Tensor
    weights: Tensor | None
    scaling: float


Listener = Callable[[Read], Tensor]  # answers with the output to go on with


class _Heard(NamedTuple):
    """Who listens to a model, and what its attention was called before."""

    before: dict[str, str]
    listeners: dict[Listener, bool]  # and whether each wants the weights


_models: WeakKeyDictionary[PreTrainedModel, _Heard] = WeakKeyDictionary()
_layers: WeakKeyDictionary[nn.Module, list[Listener]] = WeakKeyDictionary()


class Attached:
    """What a model carries until it is detached; `with` detaches at its end."""

    _undo: list[Callable[[], object]]

    def _check_attached(self) -> None:
        if not self._undo:
            raise ValueError("a memory must be attached to be filled; this one was detached")

    def detach(self) -> None:
        """Leave the model as it was before, to the bit; a second time does nothing."""
        undone(self._undo)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()


def undone(steps: list[Callable[[], object]]) -> None:
    """Undo the steps, the last one first, each once."""
    while steps:
        steps.pop()()


def check_model(model: object) -> None:
    """Refuse what is no causal language model of the package."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a PreTrainedModel; got {type(model).__name__}")
    if model.config.is_encoder_decoder or model.get_output_embeddings() is None:
        raise ValueError(f"model must be a causal language model; got {type(model).__name__}")


def attention_modules(model: PreTrainedModel) -> dict[nn.Module, int]:
    """Return the modules that read through a registered function, with the number of the layer."""
    return {
        module: module.layer_idx
        for module in model.modules()
        if isinstance(getattr(module, "layer_idx", None), int)
        and "ALL_ATTENTION_FUNCTIONS" in _own(module)
    }


def listen(
    model: PreTrainedModel, listener: Listener, layer: int | None = None, weights: bool = False
) -> Callable[[], None]:
    """Let a memory hear what a layer reads, or all layers; returns what ends it.

    Raises:
        ValueError: the model has no such layer, or its attention can't be registered.
    """
    modules = attention_modules(model)
    chosen = [module for module, number in modules.items() if layer in (None, number)]
    if modules and not chosen:
        raise ValueError(f"layer must be one of {sorted({*modules.values()})}; got {layer}")
    lacks = [
        type(m).__name__ for m in chosen if weights and "eager_attention_forward" not in _own(m)
    ]
    if not chosen or lacks or not model._can_set_attn_implementation():
        raise ValueError(
            f"model must read through the package's registered attention functions; "
            f"{type(model).__name__} does not"
        )
    heard = _models.setdefault(model, _Heard(_implementations(model), {}))
    heard.listeners[listener] = weights
    for module in chosen:
        _layers.setdefault(module, []).append(listener)
    _switch(model, heard)

    def end() -> None:
        del heard.listeners[listener]
        for module in chosen:
            _layers[module].remove(listener)
        _switch(model, heard)

    return end


def _switch(model: PreTrainedModel, heard: _Heard) -> None:
    """Give the model the attention function that its listeners need now."""
    if not heard.listeners:
        del _models[model]
        model.set_attn_implementation(heard.before)
        return
    inner = "eager" if any(heard.listeners.values()) else heard.before[""]
    name = OWN + inner
    AttentionInterface.register(name, partial(_attention, inner))
    masks = AttentionMaskInterface()
    if inner in masks:
        AttentionMaskInterface.register(name, masks[inner])
    model.set_attn_implementation(name)


def _implementations(model: PreTrainedModel) -> dict[str, str]:
    """Return the names of what a model and its parts read by, as the package takes them."""
    config = model.config
    parts = {key: getattr(config, key) for key in config.sub_configs}
    names = {key: part._attn_implementation for key, part in parts.items() if part is not None}
    return {"": config._attn_implementation} | names


def _own(module: nn.Module) -> dict[str, Any]:
    """Return the names that the model's file defines, where its own attention functions are."""
    return vars(sys.modules[type(module).__module__])


def _attention(
    inner: str, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
    /, *rest: Any, **options: Any,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Read as the model does, and let the listeners hear it."""
    own = _own(module)
    read = own["ALL_ATTENTION_FUNCTIONS"].get_interface(inner, own.get("eager_attention_forward"))
    output, weights = read(module, query, key, value, mask, *rest, **options)
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    for listener in _layers.get(module, ()):
        output = listener(Read(module, query, key, value, output, weights, scaling))
    return output, weights
