"""A layer whose memory is a small network, learned while the text is read.

It differs from those of the papers: no convolution and no activation before it, no gate on the way
out; the network has two layers at most, and no norm or residual in it.
"""

from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from memlib import _checks as checks
from memlib.attention.scores import _unit
from memlib.fast_weights.gates import split
from memlib.fast_weights.layer import EPSILON
from memlib.fast_weights.learning import NeuralState, learn
from memlib.transformer.blocks import Layer
from memlib.transformer.layers import _check_divides

GATES = (0.0, 0.0, -7.0)  # what the sigmoids of rate, momentum and forgetting are of at first
SPREAD = 2.0  # of W_1 at first; a smaller one would make the network nearly linear


class NeuralMemory(Layer):
    r"""A network f a head, which learns each token and is read: :math:`W\, \text{norm}(f_t(q_t))`.

    It goes down the loss :math:`\frac12 |f(k_t) - v_t|^2` of what it reads, with momentum, and
    forgets: :math:`S_t = \eta_t S_{t-1} - \theta_t \nabla_t`,
    :math:`W_t = (1 - \alpha_t) W_{t-1} + S_t`. The gradients of C tokens are taken at once, at the
    weights before them. Queries and keys have length 1; the gates θ, η and α are sigmoids of what
    is linear in x. What training learns is where the network begins.

    With N hidden units :math:`f(x) = W_2^T\, \text{SiLU}(W_1^T x) / \sqrt N`, without them
    :math:`f(x) = W_2^T x`, which with C = 1, η = 0 and α = 0 is the delta rule of `FastWeights`.

    It may stand in the place of attention: ``Decoder(..., layer=NeuralMemory)``.

    Args:
        width: width D of inputs and outputs.
        heads: number of networks H.
        hidden: units N; 4 M when None, and 0 for a linear network.
        key_width: numbers M of a key; D / H when None.
        value_width: numbers V of a value; D / H when None.
        rate: most that the rates θ of a chunk sum up to, so that of a token it is rate / C.
        chunk: tokens C whose gradients are taken at once, a power of two; a part of the rule.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: a size is no integer, a rate no number, or the dtype not real.
        ValueError: a size too small, heads that do not divide, a chunk that is no power of two.

    Source:
        Behrouz, Zhong, Mirrokni 2025, eq. 8 to 15 (arXiv 2501.00663); Sun et al. 2024, sections
        2.1 to 2.4 (arXiv 2407.04620), for the linear and the two-layer network and the chunks.

    Example:
        >>> import torch
        >>> from memlib import NeuralMemory
        >>> layer = NeuralMemory(width=16, heads=2, chunk=4)
        >>> x = torch.randn(1, 1, 16).expand(1, 12, 16)  # the same token again and again
        >>> y, state = layer(x)
        >>> layer.loss(x).mean(1)[0].diff().max() <= 0  # it is known better and better
        tensor(True)
        >>> more, state = layer(x, state.detach())  # goes on where it stopped
    """

    def __init__(
        self,
        width: int,
        heads: int = 1,
        *,
        hidden: int | None = None,
        key_width: int | None = None,
        value_width: int | None = None,
        rate: float = 1.0,
        chunk: int = 16,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.width = width = checks.integer("width", width, 1)
        self.heads = heads = checks.integer("heads", heads, 1)
        if key_width is None or value_width is None:
            _check_divides("heads", heads, "width", width)
        M = checks.integer("key_width", width // heads if key_width is None else key_width, 1)
        V = checks.integer("value_width", width // heads if value_width is None else value_width, 1)
        N = checks.integer("hidden", 4 * M if hidden is None else hidden, 0)
        self.rate, self.chunk = checks.number("rate", rate, 0), checks.power_of_two("chunk", chunk)
        like = torch.empty(0, device=device, dtype=dtype)
        checks.tensor("dtype", like)
        factory: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        self.query, self.key, self.value = (
            nn.Linear(width, heads * n, bias=False, **factory) for n in (M, M, V)
        )
        self.gates = nn.Linear(width, heads * len(GATES), **factory)
        self.first = nn.Parameter(like.new_empty(heads, M, N)) if N else None
        self.second = nn.Parameter(like.new_empty(heads, N or M, V))
        self.norm = nn.RMSNorm(V, eps=EPSILON, **factory)
        self.output = nn.Linear(heads * V, width, bias=False, **factory)
        self._reset_network()

    def reset_parameters(self) -> None:
        """Draw new parameters: linear layers as PyTorch does."""
        for part in (self.query, self.key, self.value, self.gates, self.norm, self.output):
            part.reset_parameters()
        self._reset_network()

    def initial_state(self, batch_size: int = 1) -> NeuralState:
        """Return the network where it begins, of at least float32, and no momentum.

        Raises:
            TypeError: the size is no integer.
            ValueError: a negative size.
        """
        batch_size = checks.integer("batch_size", batch_size, 0)
        kind = torch.promote_types(self.second.dtype, torch.float32)
        first = self.second[..., :0] if self.first is None else self.first
        both = [x.to(kind).expand(batch_size, -1, -1, -1) for x in (first, self.second)]
        return NeuralState(*both, *(torch.zeros_like(x) for x in both))

    @overload
    def forward(
        self, x: Tensor, state: NeuralState | None = ..., *, lengths: Tensor | None = ...,
        mask: Tensor | None = ..., need_weights: Literal[False] = ...,
    ) -> tuple[Tensor, NeuralState]: ...  # fmt: skip

    @overload
    def forward(
        self, x: Tensor, state: NeuralState | None = ..., *, lengths: Tensor | None = ...,
        mask: Tensor | None = ..., need_weights: Literal[True],
    ) -> tuple[Tensor, NeuralState, Tensor]: ...  # fmt: skip

    @overload
    def forward(
        self, x: Tensor, state: NeuralState | None = ..., *, lengths: Tensor | None = ...,
        mask: Tensor | None = ..., need_weights: bool,
    ) -> tuple[Tensor, NeuralState] | tuple[Tensor, NeuralState, Tensor]: ...  # fmt: skip

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        *,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Any, ...]:
        """Learn these tokens, and read after each of them.

        Args:
            x: (B, T, D), the next T tokens.
            state: where the text before has led, from the call before; None begins anew.
                Gradients flow into it: detach it where they should not. A call begins a chunk.
            lengths: (B,) integers in [0, T]; row b has ``lengths[b]`` tokens, then padding.
            mask: (B, T) bool instead, True = a token, False = padding, wherever it lies. Padding
                teaches nothing, and what it holds is not looked at.
            need_weights: return how much each unit said too.

        Returns:
            Outputs (B, T, D), and the state after. With `need_weights` also what the units of the
            second layer's slots weigh in each read, (B, H, T, N), or the queries if it is linear.
            Outputs and weights are 0 at padding.

        Accuracy: float32 2e-6, bfloat16 1e-1, float16 1e-2, of the largest result, times its
        condition.

        Raises:
            TypeError: wrong dtypes, or a state of another kind.
            ValueError: wrong shapes; lengths and a mask; NaN or infinity.
        """
        return self._run(x, state, lengths, mask, need_weights, **_named(state))

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module says that it returns Any

    def loss(
        self,
        x: Tensor,
        state: NeuralState | None = None,
        *,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of each token at the weights before its chunk, (B, H, T); 0 at padding.

        It takes what `forward` takes, and raises what that raises.
        """
        *_, loss = self._learn(x, state, self._check(x, state, lengths, mask))
        checks.finite(loss := loss.to(x.dtype), x=x, **_named(state))
        return loss

    def _step(
        self, x: Tensor, memory: NeuralState | None, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, NeuralState, Tensor | None]:
        read, memory, weights, _ = self._learn(x, memory, mask)
        y = self.output(self.norm(read.to(x.dtype)).transpose(1, 2).flatten(2))
        return y, memory, weights if need_weights else None

    def _learn(
        self, x: Tensor, state: NeuralState | None, mask: Tensor | None
    ) -> tuple[Tensor, NeuralState, Tensor, Tensor]:
        x = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0)
        query, keys, values = (split(f, x, self.heads) for f in (self.query, self.key, self.value))
        gates = split(self.gates, x, self.heads).sigmoid().split(1, dim=-1)
        names = ("rate", "momentum", "forget")
        options: dict[str, Any] = dict(zip(names, gates, strict=True))
        options |= {"rate": gates[0] * (self.rate / self.chunk), "mask": mask, "chunk": self.chunk}
        state = self.initial_state(len(x)) if state is None else state
        return learn(_unit(query), _unit(keys), values, state, **options)

    def _check_memory(self, memory: Any, x: Tensor, mask: Tensor | None) -> None:
        if memory is None:
            return
        if not isinstance(memory, NeuralState):
            raise TypeError(f"state must be a NeuralState or None; got {type(memory).__name__}")
        for name, empty in _named(self.initial_state(0)).items():
            part = _named(memory)[name]
            checks.tensor(name, part)
            sizes = dict(zip("BHMN", (len(x), *empty.shape[1:]), strict=True))
            checks.shape(name, part, "(B, H, M, N)", **sizes)
            checks.alike(**{"the initial state": empty, name: part})

    def _reset_network(self) -> None:
        with torch.no_grad():
            self.second.zero_()
            if self.first is not None:
                self.first.normal_(std=SPREAD)
            for part, at in zip(self.gates.bias.view(self.heads, -1).T, GATES, strict=True):
                part.fill_(at)

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        hidden = 0 if self.first is None else self.first.shape[-1]
        sizes = f"hidden={hidden}, rate={self.rate}, chunk={self.chunk}"
        return f"{self.width}, heads={self.heads}, {sizes}"


def _named(state: NeuralState | None) -> dict[str, Tensor]:
    """Return the tensors of a state by the names that an error calls them."""
    parts = state._asdict() if isinstance(state, NeuralState) else {}
    return {f"state.{name}": part for name, part in parts.items()}
