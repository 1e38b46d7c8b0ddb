"""The kNN language model on the logits of any causal model, attached and detached."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from memlib import _checks as checks
from memlib.integrations.transformers.attached import Attached, check_model
from memlib.integrations.transformers.filling import parts
from memlib.store.knn_lm import knn_lm
from memlib.store.store import Store


class KNNMemory(Attached):
    r"""A store on a model's logits: :math:`\lambda p_{kNN} + (1 - \lambda) p_{LM}`.

    Attached from the start: all that the model predicts, in `generate`, in its loss and in
    training, is `memlib.knn_lm` of its logits, with what goes into its last layer as query. The
    logits are then log-probabilities. `fill` reads a text into the store. After `detach`, or the
    end of a `with`, the model is what it was before.

    Args:
        model: a causal language model of `transformers`.
        store: of int64 tokens, of one row, for instance a `memlib.DurableStore`; a new one with
            the measure "negative_squared_distance" when None.
        k: number of pairs read; as many as there are where the store holds fewer.
        mix: :math:`\lambda` in [0, 1].
        strength: of the read, at least 0.

    Raises:
        TypeError: a model or store of another kind, or a number that is none.
        ValueError: no causal language model; numbers out of range; a store of another width or
            of several rows; at a call with labels, a model whose loss is not made by the
            package's own ``loss_function``.

    Source:
        Khandelwal et al. 2020 (arXiv 1911.00172). There the key is what goes into the last
        feed-forward layer; here it is the last hidden state, which every model has.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from memlib.integrations.transformers import KNNMemory
        >>> sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=50, intermediate_size=16, **sizes))
        >>> text = torch.tensor([[7, 3, 9, 5]])
        >>> with KNNMemory(model, k=1, mix=0.9) as memory, torch.no_grad():
        ...     pairs = memory.fill(text)
        ...     guess = model(text[:, :3]).logits.argmax(-1)
        >>> guess  # what came next in the text
        tensor([[3, 9, 5]])
    """

    def __init__(
        self,
        model: PreTrainedModel,
        store: Store | None = None,
        *,
        k: int = 8,
        mix: float = 0.25,
        strength: float = 1.0,
    ) -> None:
        check_model(model)
        head = model.get_output_embeddings()
        if store is None:
            store = Store(
                head.weight.shape[1], 1, measure="negative_squared_distance",
                value_dtype=torch.long, device=head.weight.device, dtype=head.weight.dtype,
            )  # fmt: skip
        if not isinstance(store, Store):
            raise TypeError(f"store must be a Store; got {type(store).__name__}")
        checks.integers("values of the store", store.values)
        checks.shape(
            "keys of the store", store.keys, "(1, N, D)", **{"1": 1}, D=head.weight.shape[1]
        )
        checks.shape("values of the store", store.values, "(1, N, 1)", **{"1": 1})
        self.store, self.k = store, checks.integer("k", k, 1)
        self.mix = checks.number("mix", mix, 0, 1)
        self.strength = checks.number("strength", strength, 0)
        self._model, self._filling = model, False
        self._hidden: Any = None  # (B, T, D), what went into the last layer
        self._made: tuple[Any, Any] = (None, None)  # logits of the model, and mixed
        self._undo = [
            head.register_forward_pre_hook(self._see).remove,
            model.register_forward_hook(self._mixed).remove,
            _into_loss(model, self._mix),
        ]

    def fill(self, ids: Tensor, mask: Tensor | None = None, *, segment: int = 512) -> int:
        """Read a text into the store, a pair for every token after the first.

        Args:
            ids: (B, T) tokens.
            mask: (B, T), 0 or False = padding.
            segment: how many tokens are read at a time; each part is a text of its own.

        Returns:
            How many pairs were added.

        Raises:
            TypeError: ids are no integers.
            ValueError: wrong shapes, ids outside the vocabulary, a segment below 1, or a memory
                that is detached.
        """
        self._check_attached()
        self._filling, count = True, 0
        try:
            for part, real in parts(self._model, ids, mask, segment, overlap=1):
                told = real[:, :-1] & real[:, 1:]
                keys, tokens = self._hidden[:, :-1][told], part[:, 1:][told].to(self.store.values)
                self.store.add(keys.unsqueeze(0), tokens[None, :, None])
                count += len(keys)
        finally:
            self._filling = False
        return count

    def _see(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._hidden, self._made = inputs[0], (None, None)

    def _mix(self, logits: Tensor) -> Tensor:
        """Mix what the store has into logits; those of one call once."""
        if not (held := int(self.store.lengths[0])):
            return logits
        if logits is not self._made[0]:
            self._made = logits, knn_lm(
                logits, self._hidden.to(logits.dtype), self.store, min(self.k, held),
                mix=self.mix, strength=self.strength,
            )  # fmt: skip
        mixed: Tensor = self._made[1]
        return mixed

    def _mixed(self, model: Any, args: Any, output: Any) -> Any:
        """Change the logits that the model returns; its loss was made of them already."""
        if self._filling:
            return None
        if not hasattr(output, "logits"):
            raise ValueError(f"return_dict must be True; got a {type(output).__name__}")
        if self._made[0] is None and output.get("loss") is not None and self.store.lengths[0]:
            raise ValueError(
                f"labels must be left out where a model makes its own loss; "
                f"{type(model).__name__} does"
            )
        output.logits = self._mix(output.logits)
        self._hidden, self._made = None, (None, None)
        return output


class _MixedLoss:
    """A model's loss, with all that it adds to it, of logits that memories have mixed."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.own, self.before = model.loss_function, vars(model).get("_loss_function")
        self.mixes: list[Callable[[Tensor], Tensor]] = []

    def __call__(self, *args: Any, **given: Any) -> Any:
        logits, *rest = (given.pop("logits"), *args) if "logits" in given else args
        for mix in self.mixes:
            logits = mix(logits)
        return self.own(logits, *rest, **given)


def _into_loss(model: Any, mix: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    """Let a model make its loss of mixed logits; returns what ends it."""
    loss = vars(model).get("_loss_function")
    if not isinstance(loss, _MixedLoss):
        model.loss_function = loss = _MixedLoss(model)
    loss.mixes.append(mix)

    def end() -> None:
        loss.mixes.remove(mix)
        if not loss.mixes:
            del model._loss_function
            if loss.before is not None:
                model.loss_function = loss.before

    return end
