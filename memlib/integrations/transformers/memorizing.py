"""Memorizing attention at a layer of any causal model, attached and detached."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from memlib import _checks as checks
from memlib.integrations.transformers.attached import (
    Attached,
    Read,
    check_model,
    listen,
)
from memlib.integrations.transformers.filling import parts
from memlib.store.store import Store


class MemorizingMemory(Attached, nn.Module):
    r"""A layer that also reads a store of earlier texts: :math:`g V_m + (1 - g) V_c`.

    Attached from the start: each head of the layer reads the text at hand, :math:`V_c`, as the
    model does, and the k pairs of the store nearest to its query, :math:`V_m`; a gate
    :math:`g = \sigma(b)` of each head mixes the two. `fill` reads a text and keeps the layer's
    keys and values of it. As long as nothing is kept, and after `detach`, the model is what it
    was.

    The pairs are those of the layer's own key/value heads, scored as the layer scores its text. A
    key keeps the rotary angle of its place in its own text, so a query looks at it as if both
    texts had begun together; in the paper keys of the memory have no position.

    Args:
        model: a causal language model of `transformers`.
        layer: the number of the layer, from 0.
        k: number of pairs read, K; as many as there are where the store holds fewer.
        gate: :math:`g` at first, in [0, 1], in every head.
        store: of a row for each key/value head; a new one when None, made by the first `fill`.

    Attributes:
        bias: (H,), the parameter b of the gates.

    Raises:
        TypeError: a model or store of another kind, or a number that is none.
        ValueError: no causal language model, no such layer, attention that can't be registered, or
            a number out of range; at the first read, a store that doesn't fit.

    Source:
        Wu et al. 2022, section 3.1 (arXiv 2203.08913).

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from memlib.integrations.transformers import MemorizingMemory
        >>> sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=50, intermediate_size=16, **sizes))
        >>> with MemorizingMemory(model, layer=1, k=4) as memory:
        ...     pairs = memory.fill(torch.randint(50, (1, 100)))
        ...     logits = model(torch.randint(50, (1, 8))).logits
        >>> pairs, memory.store.lengths
        (100, tensor([100, 100]))
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layer: int,
        *,
        k: int = 32,
        gate: float = 0.5,
        store: Store | None = None,
    ) -> None:
        super().__init__()
        check_model(model)
        layer = checks.integer("layer", layer, 0)
        if not (store is None or isinstance(store, Store)):
            raise TypeError(f"store must be a Store or None; got {type(store).__name__}")
        self.k, self.store = checks.integer("k", k, 1), store
        gate = checks.number("gate", gate, 0, 1)
        heads = model.config.get_text_config(decoder=True).num_attention_heads
        like = model.get_output_embeddings().weight
        bias = torch.full((heads,), gate, device=like.device).logit().to(like.dtype)
        self.bias = nn.Parameter(bias)
        self._model = [model]  # in a list, so that it is no part of this module
        self._new: list[Read] | None = None  # what the layer reads while it is filled
        self._undo = [listen(model, self._hear, layer)]

    def fill(self, ids: Tensor, mask: Tensor | None = None, *, segment: int = 512) -> int:
        """Read a text and keep the layer's keys and values of all its tokens.

        Args:
            ids: (B, T) tokens.
            mask: (B, T), 0 or False = padding.
            segment: how many tokens are read at a time; each part is a text of its own.

        Returns:
            How many pairs were added to each row of the store.

        Raises:
            TypeError: ids are no integers.
            ValueError: wrong shapes, ids outside the vocabulary, a segment below 1, or a memory
                that is detached.
        """
        self._check_attached()
        self._new, count = [], 0
        try:
            for _, real in parts(self._model[0], ids, mask, segment, overlap=0):
                read = self._new.pop()
                keys, values = (x.transpose(1, 2)[real].transpose(0, 1) for x in read[2:4])
                if self.store is None:  # (G, n, M)
                    kind: dict[str, Any] = {"device": keys.device, "dtype": keys.dtype}
                    self.store = Store(keys.shape[2], values.shape[2], batch_size=len(keys), **kind)
                self.store.add(keys, values)
                count += keys.shape[1]
        finally:
            self._new = None
        return count

    def _hear(self, read: Read) -> Tensor:
        """Mix what the store has into what a layer has read."""
        if self._new is not None:
            self._new.append(read)
            return read.output
        if self.store is None or not (held := int(self.store.lengths.max())):
            return read.output
        batch, heads, tokens, width = read.query.shape
        groups = read.keys.shape[1]
        checks.shape("keys of the store", self.store.keys, "(G, N, M)", G=groups, M=width)
        wide = read.values.shape[-1]
        checks.shape("values of the store", self.store.values, "(G, N, V)", G=groups, V=wide)
        # (B, H, T, M) -> (G, B · H / G · T, M): heads that share keys are so many queries of a row
        query = read.query.unflatten(1, (groups, -1)).transpose(0, 1).flatten(1, 3)
        strength = read.scaling * math.sqrt(width)  # of "scaled_dot", as the layer scales
        far = self.store.read(query, min(self.k, held), strength=strength)
        far = (
            far.unflatten(1, (batch, heads // groups, tokens)).permute(1, 3, 0, 2, 4).flatten(2, 3)
        )
        gate = self.bias.sigmoid().unsqueeze(-1).to(far.dtype)  # (H, 1)
        mixed: Tensor = read.output + gate * (far - read.output)  # (B, T, H, V)
        return mixed
