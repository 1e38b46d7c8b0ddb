"""A small model that takes any mixer: a layer that is called like `memlib.MemoryAttention`.

Inputs come first and memory last, and the memory after comes back.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memlib import KVCache
from memlib.transformer.layers import SCALE


class ShortConvolution(nn.Module):
    r"""Mix each token with the K - 1 before it: :math:`y_t = \sum_{i < K} w_i \odot x_{t-i}`.

    It lets one token know of the one before, as a pair needs that is shown as two tokens. What it
    keeps, the last K - 1 inputs, is a memory too; no gradient flows into it.

    Args:
        width: width D.
        kernel: K; with 1 it only scales the inputs.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(kernel, width))
        nn.init.uniform_(self.weight, -(kernel**-0.5), kernel**-0.5)
        nn.init.ones_(self.weight[0])

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map (B, T, D) and the inputs before, (B, K - 1, D), to outputs and the last inputs."""
        kernel, tokens = len(self.weight), x.shape[1]
        past = x.new_zeros(len(x), kernel - 1, x.shape[-1]) if past is None else past
        both = torch.cat((past, x), dim=1)
        y = self.weight[0] * x
        for i in range(1, kernel):
            start = kernel - 1 - i
            y = torch.addcmul(y, self.weight[i], both[:, start : start + tokens])
        return y, both[:, tokens:].detach()


class _Block(nn.Module):
    """A short convolution, then a mixer, added to x."""

    def __init__(self, width: int, mixer: nn.Module, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.convolution = ShortConvolution(width, kernel)
        self.mixer = mixer

    def forward(self, x: Tensor, memory: Any = None) -> tuple[Tensor, tuple[Tensor, Any]]:
        past, memory = (None, None) if memory is None else memory
        y, past = self.convolution(self.norm(x), past)
        y, memory = self.mixer(y, memory)
        return x + y, (past, memory)


class MixerModel(nn.Module):
    r"""Token embeddings, blocks :math:`x \leftarrow x + \text{mixer}(\text{conv}(\text{norm}(x)))`.

    The logits are dot products of the normed x with the token embeddings, as in `memlib.Decoder`.

    Args:
        vocab_size: number V of tokens.
        width: width D.
        mixers: one a layer: `memlib.MemoryAttention`, `memlib.FastWeights`.
        kernel: of the short convolution before each mixer.
        memory_tokens: number K of memory tokens, as in `memlib.Decoder`; the convolution then
            runs over them too, and only they go from call to call.
    """

    def __init__(
        self,
        vocab_size: int,
        width: int,
        mixers: Iterable[nn.Module],
        *,
        kernel: int = 2,
        memory_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Parameter(SCALE * torch.randn(vocab_size, width))
        self.tokens = nn.Parameter(SCALE * torch.randn(memory_tokens, width))
        self.blocks = nn.ModuleList(_Block(width, mixer, kernel) for mixer in mixers)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, memory: Any = None, *, at: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Predict each next token.

        Args:
            tokens: (B, T) integers in [0, V).
            memory: what the call before returned, or None. A block's is a pair: the last inputs
                of its convolution, and what its mixer takes.
            at: (B, T) bool, the steps whose logits are wanted, where they are not all.

        Returns:
            Logits (B, T, V), or (..., V) of the steps wanted, and the memory after: a list of the
            blocks' memories, or the memory tokens (B, K, D) if there are any.
        """
        x = F.embedding(tokens, self.embedding)
        if count := len(self.tokens):
            start = self.tokens.expand(len(x), -1, -1) if memory is None else memory
            x, memory = torch.cat((start, x, start), dim=1), None
        memories = [None] * len(self.blocks) if memory is None else memory
        after: Any = []
        for block, part in zip(self.blocks, memories, strict=True):
            x, part = block(x, part)
            after.append(part)
        x = self.norm(x)
        if count:
            _, x, after = x.split((count, tokens.shape[1], count), dim=1)
        x = x if at is None else x[at]
        return x @ self.embedding.T, after

    @property
    def mixers(self) -> list[Any]:
        """The mixers, from the first to the last."""
        return [block.mixer for block in self.blocks]


def nbytes(memory: Any) -> int:
    """Return the bytes of all tensors of a memory, however it is nested.

    Example:
        >>> from memlib import FastWeights
        >>> state = FastWeights(width=4, key_width=3).initial_state()
        >>> nbytes([state, (state, None)]) == 2 * 3 * 4 * 4
        True
    """
    if memory is None:
        return 0
    if isinstance(memory, KVCache):  # the positions of a text follow from its length
        memory = (memory.keys, memory.values, memory.lengths)
    size: int | None = getattr(memory, "nbytes", None)  # of a tensor, a segment
    return sum(nbytes(part) for part in memory) if size is None else size
