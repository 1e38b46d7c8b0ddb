"""A layer that reads a matrix, one a head, and writes it token by token.

It differs from those of the papers: no convolution before the queries, keys and values, no SiLU
after it, no gate on the way out. What a convolution does a layer before this one may do.
"""

from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memlib import _checks as checks
from memlib.attention.scores import _single, _unit
from memlib.fast_weights.gates import Gates, Rule, split
from memlib.fast_weights.rules import _at_tokens, _matrix_memory
from memlib.transformer.blocks import Layer
from memlib.transformer.layers import _check_divides

SCALE = 4.0  # of queries and keys at first, without which all their features are nearly 1
LEAST = 1e-30  # of all weights of a "linear" read; with less, as at padding, it is 0
EPSILON = 1e-5  # below the mean square of a read that is normed


class FastWeights(Layer):
    r"""A matrix a head, written by each token, then read: :math:`W\, \text{norm}(S_t^T q_t)`.

    The write is `memlib.matrix_memory`,
    :math:`S_t = (I - k (b \odot k)^T) D S_{t-1} + k (w \odot v)^T`. Queries, keys and values are
    linear in x, and so are the gates before their nonlinearities: b, w and β are sigmoids,
    :math:`d = \exp(-e^a\, \text{softplus}(W x + c))`.

    =========== ========= ========= ========= ===================================
    rule        erase b   write w   decay d   as in
    =========== ========= ========= ========= ===================================
    linear      none      1         none      Katharopoulos et al. 2020
    sum         none      1         none      Schlag, Irie, Schmidhuber 2021
    decayed sum none      1         a head    Mamba-2 (Dao, Gu 2024)
    delta       β         β         none      Schlag, Irie, Schmidhuber 2021
    gated delta β         β         a head    Yang, Kautz, Hatamizadeh 2024
    kda         β         β         a channel Kimi Linear 2025
    general     a channel a channel a channel Gated DeltaNet-2, 2026
    =========== ========= ========= ========= ===================================

    Queries and keys have length 1. With "linear" they are :math:`\text{elu}(s x) + 1` instead, and
    a read is divided by :math:`q \cdot \sum_i k_i`, which the matrix holds in a last column.
    What is read is normed in each head to a mean square of 1, times a learned gain a number: a sum
    grows with the text.

    It may stand in the place of attention: ``Decoder(..., layer=FastWeights)``.

    Args:
        width: width D of inputs and outputs.
        heads: number of matrices H.
        rule: of the write, one of the table.
        key_width: numbers M of a key; D / H when None.
        value_width: numbers V of a value; D / H when None.
        chunk: tokens computed at once, see `memlib.matrix_memory`.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: a size is no integer, or the dtype not real.
        ValueError: a size below 1, heads that do not divide, an unknown rule or chunk.

    Source:
        Yang, Kautz, Hatamizadeh 2024, section 3.4 (arXiv 2412.06464), for the layer; the rules,
        in their order: arXiv 2006.16236, 2102.11174, 2405.21060, 2102.11174, 2412.06464,
        2510.26692, 2605.22791; the norm: Qin et al. 2022 (arXiv 2210.10340).

    Example:
        >>> import torch
        >>> from memlib import FastWeights
        >>> layer = FastWeights(width=16, heads=2, rule="delta")
        >>> x = torch.randn(1, 10, 16)
        >>> whole, _ = layer(x)
        >>> first, state = layer(x[:, :7])
        >>> second, state = layer(x[:, 7:], state.detach())  # goes on where it stopped
        >>> torch.allclose(torch.cat((first, second), dim=1), whole, atol=1e-5), state.shape
        (True, torch.Size([1, 2, 8, 8]))
    """

    def __init__(
        self,
        width: int,
        heads: int = 1,
        *,
        rule: Rule = "gated delta",
        key_width: int | None = None,
        value_width: int | None = None,
        chunk: int = 16,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.width = width = checks.integer("width", width, 1)
        self.heads = heads = checks.integer("heads", heads, 1)
        checks.choice("rule", rule, get_args(Rule))
        if key_width is None or value_width is None:
            _check_divides("heads", heads, "width", width)
        key_width = width // heads if key_width is None else key_width
        value_width = width // heads if value_width is None else value_width
        self.key_width = checks.integer("key_width", key_width, 1)
        self.value_width = checks.integer("value_width", value_width, 1)
        self.rule, self.chunk = rule, checks.power_of_two("chunk", chunk)
        like = torch.empty(0, device=device, dtype=dtype)
        checks.tensor("dtype", like)
        factory: dict[str, Any] = {"device": like.device, "dtype": like.dtype}

        M, V = self.key_width, self.value_width
        self.query, self.key, self.value = (
            nn.Linear(width, heads * n, bias=False, **factory) for n in (M, M, V)
        )
        self.gates = Gates(rule, width, heads, M, V, **factory)
        linear = rule == "linear"
        self.scale = nn.Parameter(torch.empty(heads, 1, 1, **factory)) if linear else None  # s
        self.norm = nn.RMSNorm(self.value_width, eps=EPSILON, **factory)
        self.output = nn.Linear(heads * self.value_width, width, bias=False, **factory)
        self._reset_scale()

    def reset_parameters(self) -> None:
        """Draw new parameters: linear layers as PyTorch does."""
        for linear in (self.query, self.key, self.value, self.output):
            linear.reset_parameters()
        self.gates.reset_parameters()
        self.norm.reset_parameters()
        self._reset_scale()

    def initial_state(self, batch_size: int = 1) -> Tensor:
        """Return empty matrices (B, H, M, V), with "linear" (B, H, M, V + 1), of at least float32.

        Raises:
            TypeError: the size is no integer.
            ValueError: a negative size.
        """
        batch_size = checks.integer("batch_size", batch_size, 0)
        like = self.key.weight
        kind = torch.promote_types(like.dtype, torch.float32)
        columns = self.value_width + (self.rule == "linear")
        return like.new_zeros(batch_size, self.heads, self.key_width, columns, dtype=kind)

    @overload
    def forward(
        self, x: Tensor, state: Tensor | None = ..., *, lengths: Tensor | None = ...,
        mask: Tensor | None = ..., need_weights: Literal[False] = ...,
    ) -> tuple[Tensor, Tensor]: ...  # fmt: skip

    @overload
    def forward(
        self, x: Tensor, state: Tensor | None = ..., *, lengths: Tensor | None = ...,
        mask: Tensor | None = ..., need_weights: Literal[True],
    ) -> tuple[Tensor, Tensor, Tensor]: ...  # fmt: skip

    @overload
    def forward(
        self, x: Tensor, state: Tensor | None = ..., *, lengths: Tensor | None = ...,
        mask: Tensor | None = ..., need_weights: bool,
    ) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]: ...  # fmt: skip

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        *,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Any, ...]:
        """Write these tokens, and read after each of them.

        Args:
            x: (B, T, D), the next T tokens.
            state: the matrices so far, from `initial_state` or the call before; None is empty.
                Gradients flow into it: detach it where they should not.
            lengths: (B,) integers in [0, T]; row b has ``lengths[b]`` tokens, then padding.
            mask: (B, T) bool instead, True = a token, False = padding, wherever it lies. Padding
                changes no matrix, and what it holds is not looked at.
            need_weights: return with what the matrices were read too.

        Returns:
            Outputs (B, T, D), and the matrices after. With `need_weights` also the queries
            (B, H, T, M), which `memlib.read` takes as weights of the M slots of a matrix. Outputs
            and queries are 0 at padding.

        Accuracy: float32 2e-6, bfloat16 1e-1, float16 1e-2, of the largest result, times its
        condition.

        Raises:
            TypeError: wrong dtypes, or a state that is no tensor.
            ValueError: wrong shapes; lengths and a mask; NaN or infinity.
        """
        return self._run(x, state, lengths, mask, need_weights, state=state)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module says that it returns Any

    def _step(
        self, x: Tensor, memory: Tensor | None, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        x = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0)
        query, keys, values = (split(f, x, self.heads) for f in (self.query, self.key, self.value))
        if self.scale is not None:
            query, keys = (_feature(_single(self.scale) * z) for z in (query, keys))
            values = F.pad(values, (0, 1), value=1.0)  # so the last column is the sum of the keys
        else:
            query, keys = _unit(query), _unit(keys)
        options: dict[str, Any] = {**self.gates(x), "mask": mask, "chunk": self.chunk}
        value, memory = _matrix_memory(query, keys, values, memory, **options)
        if self.scale is not None:
            value, total = value.split((self.value_width, 1), dim=-1)
            value = value / F.threshold(total, LEAST, torch.inf)
        y = self.output(self.norm(value.to(x.dtype)).transpose(1, 2).flatten(2))
        return y, memory, _at_tokens(query, mask) if need_weights else None

    def _check_memory(self, memory: Any, x: Tensor, mask: Tensor | None) -> None:
        if memory is not None:
            checks.tensor("state", memory)
            empty = self.initial_state(0)
            sizes = dict(zip("BHMV", (len(x), *empty.shape[1:]), strict=True))
            checks.shape("state", memory, "(B, H, M, V)", **sizes)
            checks.alike(**{"the initial state": empty, "state": memory})

    def _reset_scale(self) -> None:
        if self.scale is not None:
            nn.init.constant_(self.scale, SCALE)

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        sizes = f"key_width={self.key_width}, value_width={self.value_width}"
        return f"{self.width}, heads={self.heads}, rule={self.rule!r}, {sizes}"


def _feature(x: Tensor) -> Tensor:
    r"""Return :math:`\text{elu}(x) + 1`, to all digits where it is nearly 0."""
    return F.relu(x) + x.clamp(max=0).exp()
