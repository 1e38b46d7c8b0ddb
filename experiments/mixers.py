"""Mixers with a memory that does not grow, and a small model that takes any mixer.

`LinearAttention`, `HebbianRule` and `DeltaRule` are called like `memlib.MemoryAttention`: inputs
first, memory last, and the memory after comes back. Their memory is a matrix with a slot for each
number of a key: `memlib.write` with the key as weights, `memlib.read` with the query as weights.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memlib import KVCache, read, write
from memlib.transformer.layers import SCALE


class _MatrixMemory(nn.Module):
    """Queries and keys (B, T, M), values and outputs (B, T, D), all linear in the inputs."""

    def __init__(self, width: int, key_width: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Linear(width, key_width, bias=False) for _ in range(2))
        self.value, self.output = (nn.Linear(width, width, bias=False) for _ in range(2))


class LinearAttention(_MatrixMemory):
    r"""Attention without softmax: :math:`S_t = S_{t-1} + \phi(k_t) v_t^T`.

    The read :math:`\phi(q_t)^T S_t` is divided by :math:`\phi(q_t) \cdot \sum_{i \le t}
    \phi(k_i)`, with :math:`\phi(x) = \mathrm{elu}(x) + 1`. Values have a last number that is always
    1, so that the sum of the keys is the last column of S.

    Args:
        width: width D of inputs, values and outputs.
        key_width: width M of queries and keys, the slots of the memory.

    Source:
        Katharopoulos et al. 2020, eq. 7, 16 to 20 (arXiv 2006.16236); one head.

    Example:
        >>> layer = LinearAttention(width=4, key_width=3)
        >>> x = torch.randn(1, 6, 4)
        >>> whole, memory = layer(x)
        >>> first, half = layer(x[:, :3])
        >>> second, after = layer(x[:, 3:], half)  # goes on where it stopped
        >>> torch.allclose(torch.cat((first, second), 1), whole, atol=1e-5), memory.shape
        (True, torch.Size([1, 3, 5]))
    """

    def forward(self, x: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map (B, T, D) and a memory (B, M, D + 1) to outputs and the memory after."""
        query, keys = (F.elu(linear(x)) + 1 for linear in (self.query, self.key))  # (B, T, M)
        values = F.pad(self.value(x), (0, 1), value=1.0)  # (B, T, D + 1)
        memory = _empty(keys, values.shape[-1]) if memory is None else memory
        value, memory = _read_and_write(query, keys, values, memory)
        total = value[..., -1:] + 1e-6
        return self.output(value[..., :-1] / total), memory


class HebbianRule(_MatrixMemory):
    r"""Memory that only adds: :math:`S_t = S_{t-1} + k_t v_t^T`, read :math:`q_t^T S_t`.

    Queries and keys have length 1. What is read is not divided by a sum, but normed, to mean 0 and
    variance 1, and so is not the fainter, the more tokens have written.

    Args:
        width: width D of inputs, values and outputs.
        key_width: width M of queries and keys, the slots of the memory.

    Source:
        The "sum" rule of Schlag, Irie, Schmidhuber 2021 (arXiv 2102.11174) with the norm of Qin et
        al. 2022 (arXiv 2210.10340); one head.

    Example:
        >>> layer = HebbianRule(width=4, key_width=3)
        >>> x = torch.randn(1, 6, 4)
        >>> whole, memory = layer(x)
        >>> first, half = layer(x[:, :3])
        >>> second, after = layer(x[:, 3:], half)  # goes on where it stopped
        >>> torch.allclose(torch.cat((first, second), 1), whole, atol=1e-5), memory.shape
        (True, torch.Size([1, 3, 4]))
    """

    def __init__(self, width: int, key_width: int) -> None:
        super().__init__(width, key_width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map (B, T, D) and a memory (B, M, D) to outputs and the memory after."""
        query, keys = (F.normalize(linear(x), dim=-1) for linear in (self.query, self.key))
        memory = _empty(keys, self.value.out_features) if memory is None else memory
        value, memory = _read_and_write(query, keys, self.add(x, keys, memory), memory)
        return self.output(self.norm(value)), memory

    def add(self, x: Tensor, keys: Tensor, memory: Tensor) -> Tensor:
        """Return what each token adds at its key, (B, T, D)."""
        added: Tensor = self.value(x)
        return added


class DeltaRule(HebbianRule):
    r"""Memory that corrects itself: :math:`S_t = S_{t-1} + k_t\, \beta_t (v_t - S_{t-1}^T k_t)^T`.

    All is as in `HebbianRule`, but what is added is the error of a read with the key, times
    :math:`\beta_t = \sigma(w \cdot x_t)`.

    What the tokens of a call add, U, does not need a loop: :math:`u_t = \beta_t (v_t - S_0^T k_t -
    \sum_{i < t} (k_t \cdot k_i)\, u_i)` is a triangular system, :math:`(1 + L)\, U = \beta (V - K
    S_0)` with :math:`L_{ti} = \beta_t\, k_t \cdot k_i` below the diagonal.

    Source:
        Schlag, Irie, Schmidhuber 2021, section 4.2 (arXiv 2102.11174); without a loop: Yang et al.
        2024, section 3 (arXiv 2406.06484); one head.
    """

    def __init__(self, width: int, key_width: int) -> None:
        super().__init__(width, key_width)
        self.rate = nn.Linear(width, 1)

    def add(self, x: Tensor, keys: Tensor, memory: Tensor) -> Tensor:
        """Return what each token adds at its key, (B, T, D)."""
        rate = self.rate(x).sigmoid()  # (B, T, 1)
        overlap = rate * (keys @ keys.mT).tril(-1)  # L
        error = rate * (self.value(x) - read(keys, memory))
        added: Tensor = torch.linalg.solve_triangular(
            overlap, error, upper=False, unitriangular=True
        )
        return added


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
        mixers: one a layer: `memlib.MemoryAttention`, or one of this module.
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
        >>> _, memory = DeltaRule(width=4, key_width=3)(torch.zeros(1, 6, 4))
        >>> nbytes([memory, (memory, None)]) == 2 * 3 * 4 * 4
        True
    """
    if memory is None:
        return 0
    if isinstance(memory, KVCache):  # the positions of a text follow from its length
        memory = (memory.keys, memory.values, memory.lengths)
    size: int | None = getattr(memory, "nbytes", None)  # of a tensor, a segment
    return sum(nbytes(part) for part in memory) if size is None else size


def _read_and_write(
    query: Tensor, keys: Tensor, add: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """Read what was there and what the tokens of this call add, each up to the query; write it."""
    value = read(query, memory) + read((query @ keys.mT).tril(), add)  # weights q . k
    return value, write(memory, keys, add)


def _empty(keys: Tensor, width: int) -> Tensor:
    return keys.new_zeros(len(keys), keys.shape[-1], width)
