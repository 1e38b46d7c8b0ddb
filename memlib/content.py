"""Content-addressable memory: a pattern is completed from a part of itself.

The modern Hopfield network is attention whose keys and values are the same patterns; the
classical one stores them as a sum of outer products. Both go downhill on an energy.
"""

import math
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from memlib import _checks as checks
from memlib.attention.distance import wide
from memlib.attention.verbs import _attend, _hide, _write


class Hopfield(nn.Module):
    r"""Modern Hopfield network: :math:`\xi' = X^T \operatorname{softmax}(\beta X \xi)`, repeated.

    One step is ``attend(query, patterns, patterns, measure="dot", strength=strength)``. The
    energy never rises from step to step.

    It takes no device, so `torch.nn.utils.skip_init` refuses it; unless its strength is learned it
    has no parameters, and `DistributedDataParallel` finds nothing to do and refuses it.

    Args:
        strength: inverse temperature :math:`\beta > 0`: small averages all patterns, large
            picks the nearest. A number, or a tensor that broadcasts to (..., L); a
            `torch.nn.Parameter` is learned, another tensor becomes a buffer.
        steps: how many updates at most.
        tolerance: a query that moved by no more than this (Euclidean distance) stays where it
            is; 0 runs all steps.

    Raises:
        TypeError: an argument is no number, nor, for strength, a floating-point tensor.
        ValueError: strength not above 0, steps below 1, negative tolerance.

    Source:
        Ramsauer et al. 2020, eq. 3 (arXiv 2008.02217).

    Example:
        >>> import torch
        >>> from memlib import Hopfield
        >>> patterns = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0]])
        >>> Hopfield(strength=9.0)(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), patterns)
        tensor([[1., 1., 1., 1.]])
    """

    strength: float | Tensor

    def __init__(
        self, strength: float | Tensor = 1.0, *, steps: int = 1, tolerance: float = 0.0
    ) -> None:
        super().__init__()
        _keep_strength(self, strength)
        _above_0(self.strength)
        self.steps = checks.integer("steps", steps, 1)
        self.tolerance = checks.number("tolerance", tolerance, low=0)

    @overload
    def forward(
        self, query: Tensor, patterns: Tensor, *, mask: Tensor | None = ...,
        need_weights: Literal[False] = ...,
    ) -> Tensor: ...  # fmt: skip

    @overload
    def forward(
        self, query: Tensor, patterns: Tensor, *, mask: Tensor | None = ...,
        need_weights: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...  # fmt: skip

    @overload
    def forward(
        self, query: Tensor, patterns: Tensor, *, mask: Tensor | None = ..., need_weights: bool
    ) -> Tensor | tuple[Tensor, Tensor]: ...

    def forward(
        self,
        query: Tensor,
        patterns: Tensor,
        *,
        mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Complete each query.

        Args:
            query: (..., L, M), where the search begins.
            patterns: (..., N, M), what is stored.
            mask: bool, True = may be retrieved; broadcasts to (..., L, N).
            need_weights: return also the weights of the last step.

        Returns:
            Retrieved patterns (..., L, M); with `need_weights` also the weights (..., L, N).

        Accuracy: float32 1e-4, bfloat16 2e-2, float16 2e-3, for one step of the sum of
        weights times sizes of values while strength times score stays below 100, and beyond
        it, or beyond a width of 128, in proportion.

        Raises:
            TypeError: wrong dtypes.
            ValueError: wrong shapes, a strength that is not above 0, or NaN.
        """
        lead = self._check(query, patterns, mask)
        patterns, _ = _hide(mask, patterns)
        state, weights = query.expand(*lead, *query.shape[-2:]), None
        resting = torch.zeros_like(state[..., :1], dtype=torch.bool)
        for step in range(self.steps):
            last = need_weights and step == self.steps - 1
            new, weights = _attend(
                state, patterns, patterns, "dot", self.strength, mask, need_weights=last
            )
            moved = torch.linalg.vector_norm(new - state, dim=-1, keepdim=True)
            state = torch.where(resting, state, new)
            resting = resting | (moved <= self.tolerance)
        checks.finite(state, query=query, patterns=patterns, strength=self.strength)
        return state if weights is None else (state, weights)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module says that it returns Any

    def energy(self, query: Tensor, patterns: Tensor, *, mask: Tensor | None = None) -> Tensor:
        r"""Return :math:`E = -\beta^{-1}\log\sum_n e^{\beta x_n\cdot\xi} + \frac12|\xi|^2 + C`.

        The constant :math:`C = \beta^{-1}\log N + \frac12\max_n |x_n|^2` makes it at least 0.

        Args:
            query: (..., L, M).
            patterns: (..., N, M).
            mask: bool, True = may be retrieved; broadcasts to (..., L, N).

        Returns:
            Energies (..., L); :math:`\frac12|\xi|^2` where nothing may be retrieved.

        Accuracy: float32 1e-5, bfloat16 8e-3, float16 1e-3, of the sum of the sizes of its terms.

        Raises:
            TypeError: wrong dtypes.
            ValueError: wrong shapes, a strength that is not above 0, or NaN.

        Source:
            Ramsauer et al. 2020, eq. 2.

        Example:
            >>> import torch
            >>> from memlib import Hopfield
            >>> net, patterns = Hopfield(2.0), torch.eye(3)
            >>> before = net.energy(patterns[:1] / 2, patterns)
            >>> bool(net.energy(net(patterns[:1] / 2, patterns), patterns) < before)
            True
        """
        self._check(query, patterns, mask)
        strength = wide(self.strength) if isinstance(self.strength, Tensor) else self.strength
        each = strength.unsqueeze(-1) if isinstance(strength, Tensor) else strength
        hidden, _ = _hide(mask, patterns)
        state, stored = wide(query), wide(hidden)  # a small difference of great numbers
        at_rest = state.square().sum(dim=-1) / 2
        scores = each * (state @ stored.mT)  # (..., L, N)
        if patterns.shape[-2] == 0:
            return at_rest.expand(scores.shape[:-1]).to(query.dtype)
        readable = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
        readable = readable.expand_as(scores)
        count = readable.sum(dim=-1)
        readable = readable | (count == 0).unsqueeze(-1)  # then it does not matter
        log_sum = scores.masked_fill(~readable, -torch.inf).logsumexp(dim=-1)
        norms = stored.square().sum(dim=-1).unsqueeze(-2).expand_as(scores)
        farthest = norms.masked_fill(~readable, 0).amax(dim=-1)
        log_count = count.clamp_min(1).to(scores.dtype).log()
        log_sum = log_sum.masked_fill(count == 0, 0)  # too large for the gradient of the quotient
        energy = ((log_count - log_sum) / strength + farthest / 2).masked_fill(
            count == 0, 0
        ) + at_rest
        energy = energy.to(query.dtype)
        checks.finite(energy, query=query, patterns=patterns, strength=strength)
        return energy

    def _check(self, query: Tensor, patterns: Tensor, mask: Tensor | None) -> torch.Size:
        """Return the common leading dimensions."""
        lead = _check(query, patterns, mask)
        checks.one_each("strength", self.strength, (*lead, query.shape[-2]), query, -math.inf)
        _above_0(self.strength)
        return lead

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        return f"strength={_shown(self.strength)}, steps={self.steps}, tolerance={self.tolerance}"


class ClassicalHopfield(nn.Module):
    r"""Classical Hopfield network: :math:`s_i \leftarrow \operatorname{sign}(\sum_j W_{ij} s_j)`.

    Patterns of entries +1 and -1 are stored in :math:`W = \frac1M \sum_n x_n x_n^T` with a zero
    diagonal, which is `memlib.write` without erase: every pattern is written with itself as its
    weights. Units are updated one after the other, so the energy never rises. Reliable up to
    about 0.138 M patterns. Not differentiable.

    It has no parameters and no device: `torch.nn.utils.skip_init` and `DistributedDataParallel`
    find nothing to do and refuse it.

    Args:
        steps: how many sweeps over all units.

    Raises:
        TypeError: steps is no integer.
        ValueError: steps below 1.

    Source:
        Hopfield 1982 (PNAS 79, 2554); capacity: Amit, Gutfreund, Sompolinsky 1985
        (Phys. Rev. Lett. 55, 1530).

    Example:
        >>> import torch
        >>> from memlib import ClassicalHopfield
        >>> patterns = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0]])
        >>> ClassicalHopfield()(torch.tensor([[1.0, 0.0, 1.0, 1.0]]), patterns)
        tensor([[1., 1., 1., 1.]])
    """

    def __init__(self, steps: int = 10) -> None:
        super().__init__()
        self.steps = checks.integer("steps", steps, 1)

    def connections(self, patterns: Tensor) -> Tensor:
        """Return the weights W between units, (..., M, M), of patterns (..., N, M).

        Accuracy: float32 1e-5, bfloat16 8e-3, float16 1e-3, of the sum of the sizes of its terms.
        """
        checks.tensor("patterns", patterns)
        checks.shape("patterns", patterns, "(..., N, M)")
        stored = (_connections(patterns) / patterns.shape[-1]).to(patterns.dtype)
        checks.finite(stored, patterns=patterns)
        return stored

    @torch.no_grad()
    def forward(self, query: Tensor, patterns: Tensor) -> Tensor:
        """Complete each query.

        Args:
            query: (..., L, M), entries +1 and -1, or 0 where unknown.
            patterns: (..., N, M), entries +1 and -1.

        Returns:
            The states (..., L, M) after all sweeps. A unit without a field keeps its value.

        Accuracy: no sign is wrong.

        Raises:
            TypeError: wrong dtypes.
            ValueError: wrong shapes or NaN.
        """
        _check(query, patterns, None)
        checks.finite(query, query=query)  # NaN has the sign 0: the result would not show it
        lead = checks.leading(query=(query, 2), patterns=(patterns, 2))
        connections = _connections(patterns)
        checks.finite(connections, patterns=patterns)
        state = wide(query).expand(*lead, *query.shape[-2:]).clone()
        for _ in range(self.steps):
            for unit in range(query.shape[-1]):
                # M times the field is a whole number, which is not rounded
                field = (state @ connections[..., unit].unsqueeze(-1))[..., 0]  # (..., L)
                state[..., unit] = torch.where(field == 0, state[..., unit], field.sign())
        return state.to(query.dtype)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module says that it returns Any

    def energy(self, query: Tensor, patterns: Tensor) -> Tensor:
        r"""Return :math:`E = -\frac12 s^T W s` for states (..., L, M); shape (..., L).

        Accuracy: float32 1e-5, bfloat16 8e-3, float16 1e-3, of the sum of the sizes of its terms.
        """
        _check(query, patterns, None)
        state = wide(query)
        energy = -((state @ _connections(patterns)) * state).sum(dim=-1) / (2 * query.shape[-1])
        energy = energy.to(query.dtype)
        checks.finite(energy, query=query, patterns=patterns)
        return energy

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        return f"steps={self.steps}"


def _connections(patterns: Tensor) -> Tensor:
    """Return M times the weights between units, in `wide` numbers."""
    patterns = wide(patterns)
    nothing = patterns.new_zeros(*patterns.shape[:-2], *2 * patterns.shape[-1:])
    stored = _write(nothing, patterns, patterns)
    return stored - torch.diag_embed(stored.diagonal(dim1=-2, dim2=-1))


def _keep_strength(module: Any, strength: float | Tensor) -> None:
    """Make it the module's own: a number as it is, a parameter as such, a tensor as a buffer."""
    if isinstance(strength, Tensor):
        checks.tensor("strength", strength)
        checks.within("strength", strength, 0)
    else:
        strength = checks.number("strength", strength, low=0)
    if isinstance(strength, Tensor) and not isinstance(strength, nn.Parameter):
        module.register_buffer("strength", strength)
    else:
        module.strength = strength


def _shown(strength: float | Tensor) -> str:
    """Return how ``print(module)`` shows it."""
    if isinstance(strength, Tensor):
        return f"{type(strength).__name__} of shape {tuple(strength.shape)}"
    return str(strength)


def _above_0(strength: float | Tensor) -> None:
    """Refuse a strength whose energy would be infinite, or no energy."""
    if isinstance(strength, Tensor) and checks.anywhere(wrong := strength <= 0):
        strength = strength[wrong][0].item()
    if not isinstance(strength, Tensor) and strength <= 0:
        raise ValueError(f"strength must be above 0; got {strength:g}")


def _check(query: Tensor, patterns: Tensor, mask: Tensor | None) -> torch.Size:
    """Return the common leading dimensions."""
    checks.tensor("query", query)
    checks.tensor("patterns", patterns)
    checks.shape("query", query, "(..., L, M)")
    checks.shape("patterns", patterns, "(..., N, M)", M=query.shape[-1])
    checks.alike(query=query, patterns=patterns)
    lead = checks.leading(query=(query, 2), patterns=(patterns, 2))
    if mask is not None:
        checks.mask(mask, (*lead, query.shape[-2], patterns.shape[-2]), query.device)
    return lead
