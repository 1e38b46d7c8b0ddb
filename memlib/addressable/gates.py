"""Addressable memory: find a slot by content, then move from it by location.

The four steps of the Neural Turing Machine's addressing (Graves, Wayne, Danihelka 2014,
section 3.3, arXiv 1410.5401): content, `interpolate`, `shift`, `sharpen`. `locate` runs them
all; a `Head` computes their gates from a controller's output.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memlib import _checks as checks
from memlib._files import plain
from memlib.attention.scores import HALF, _single
from memlib.attention.verbs import _address


@plain
class Gates(NamedTuple):
    r"""What a head tells the memory, for B rows and H heads.

    Attributes:
        key: (B, H, M), the content k looked for.
        strength: (B, H), how sharply, :math:`\beta \ge 0`.
        gate: (B, H), g in [0, 1]: 1 follows the content, 0 stays where the head was.
        shift: (B, H, S), s: how much to move by each of S steps around 0; sums to 1.
        sharpening: (B, H), :math:`\gamma \ge 1`.
    """

    key: Tensor
    strength: Tensor
    gate: Tensor
    shift: Tensor
    sharpening: Tensor


def interpolate(content: Tensor, previous: Tensor, gate: float | Tensor) -> Tensor:
    r"""Blend content and previous weights: :math:`w^g = g\, w^c + (1 - g)\, w_{t-1}`.

    Args:
        content: (..., N), weights found by content.
        previous: (..., N), weights of the step before.
        gate: g in [0, 1], a number or a tensor that broadcasts to (...).

    Returns:
        Weights (..., N).

    Accuracy: float32 1e-5, bfloat16 8e-3, float16 1e-3, of every weight above 1e-6.

    Raises:
        TypeError: no floating-point tensor, or dtypes differ.
        ValueError: shapes differ, a gate outside [0, 1], or NaN.

    Source:
        Graves, Wayne, Danihelka 2014, eq. 7.

    Example:
        >>> import torch
        >>> from memlib import interpolate
        >>> interpolate(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), gate=0.25)
        tensor([0.2500, 0.7500])
    """
    _check_weights("content", content)
    checks.tensor("previous", previous)
    if previous.shape != content.shape:
        raise ValueError(
            f"previous must have the shape of content, {tuple(content.shape)}; "
            f"got {tuple(previous.shape)}"
        )
    checks.alike(content=content, previous=previous)
    gate = checks.one_each("gate", gate, content.shape[:-1], content, low=0, high=1)
    result = _rounded_once(_interpolate, content, previous, gate)
    checks.finite(result, content=content, previous=previous, gate=gate)
    return result


def shift(weights: Tensor, shift: Tensor) -> Tensor:
    r"""Move weights around a circle: :math:`\tilde w(i) = \sum_j s(j)\, w(i - j \bmod N)`.

    Args:
        weights: (..., N).
        shift: (..., S), S odd and at most N; broadcasts to the leading dimensions of weights. The
            entry in the middle stays; the one j places after it moves the weights forward by j
            slots, the one before it backward.

    Returns:
        Weights (..., N).

    Accuracy: float32 1e-5, bfloat16 8e-3, float16 1e-3, of every weight above 1e-6.

    Raises:
        TypeError: no floating-point tensor, or dtypes differ.
        ValueError: S even or above N, leading dimensions that do not fit, or NaN.

    Source:
        Graves, Wayne, Danihelka 2014, eq. 8.

    Example:
        >>> import torch
        >>> from memlib import shift
        >>> shift(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, 1.0]))  # one forward
        tensor([1., 0., 0.])
    """
    _check_weights("weights", weights)
    checks.tensor("shift", shift)
    checks.shape("shift", shift, "(..., S)")
    checks.alike(weights=weights, shift=shift)
    _check_shift(shift, weights.shape)
    result = _rounded_once(_shift, weights, shift)
    checks.finite(result, weights=weights, shift=shift)
    return result


def sharpen(weights: Tensor, sharpening: float | Tensor) -> Tensor:
    r"""Undo the blur of a shift: :math:`w(i) = \tilde w(i)^\gamma / \sum_j \tilde w(j)^\gamma`.

    Stable for every :math:`\gamma \ge 1`: weights are divided by their largest first, so the
    sum is at least 1. A weighting that is 0 everywhere stays so.

    Args:
        weights: (..., N), at least 0.
        sharpening: :math:`\gamma \ge 1`, a number or a tensor that broadcasts to (...).

    Returns:
        Weights (..., N) that sum to 1.

    Accuracy: float32 1e-4, bfloat16 8e-3, float16 1e-3, of every weight above 1e-6 while γ times
    its logarithm stays below 100.

    Raises:
        TypeError: no floating-point tensor, or dtypes differ.
        ValueError: shapes do not fit, a sharpening below 1, negative weights met, or NaN.

    Source:
        Graves, Wayne, Danihelka 2014, eq. 9.

    Example:
        >>> import torch
        >>> from memlib import sharpen
        >>> sharpen(torch.tensor([0.2, 0.4, 0.2]), 2.0)
        tensor([0.1667, 0.6667, 0.1667])
    """
    _check_weights("weights", weights)
    sharpening = checks.one_each("sharpening", sharpening, weights.shape[:-1], weights, low=1)
    result = _rounded_once(_sharpen, weights, sharpening)
    if checks.has_nan(result):  # a negative number has no broken power
        checks.within("weights", weights, 0)
        checks.finite(result, weights=weights, sharpening=sharpening)
    return result


def locate(gates: Gates, memory: Tensor, previous: Tensor) -> Tensor:
    """Turn gates into weights: content, then interpolate, shift, sharpen.

    Args:
        gates: a `Gates` for B rows and H heads; all but the key broadcast to their shapes there.
        memory: (B, N, M).
        previous: (B, H, N), the weights of the step before.

    Returns:
        Weights (B, H, N).

    Accuracy: float32 1e-4, bfloat16 8e-3, float16 1e-3, of every weight above 1e-6 while γ
    times β stays below 100, and beyond it, or beyond a width of 128, in proportion.

    Raises:
        TypeError: no floating-point tensor, or dtypes differ.
        ValueError: shapes do not fit, a gate outside its range, or NaN.

    Source:
        Graves, Wayne, Danihelka 2014, eq. 5 to 9 and figure 2.

    Example:
        >>> import torch
        >>> from memlib import Gates, locate
        >>> memory, one = torch.eye(3).unsqueeze(0), torch.ones(1, 1)
        >>> forward = torch.tensor([[[0.0, 0.0, 1.0]]])
        >>> gates = Gates(memory[:, :1], 99 * one, one, forward, one)  # find slot 0, step once
        >>> locate(gates, memory, torch.zeros(1, 1, 3)).round()
        tensor([[[0., 1., 0.]]])
    """
    if not isinstance(gates, Gates):
        raise TypeError(f"gates must be a Gates; got {type(gates).__name__}")
    key, strength, gate, step, sharpening = gates
    checks.tensor("memory", memory)
    checks.shape("memory", memory, "(B, N, M)")
    batch, slots, width = memory.shape
    checks.tensor("key", key)
    checks.shape("key", key, "(B, H, M)", B=batch, M=width)
    heads = key.shape[1]
    for name, value in (("strength", strength), ("gate", gate), ("sharpening", sharpening)):
        checks.tensor(name, value)
        checks.fits(name, value, (batch, heads), "(B, H) =")
    checks.tensor("shift", step)
    checks.shape("shift", step, "(..., S)")
    _check_shift(step, (batch, heads, slots))
    checks.tensor("previous", previous)
    checks.shape("previous", previous, "(B, H, N)", B=batch, H=heads, N=slots)
    checks.alike(memory=memory, previous=previous, **gates._asdict())
    checks.within("strength", strength, 0)
    checks.within("gate", gate, 0, 1)
    checks.within("sharpening", sharpening, 1)
    weights = _locate(gates, memory, previous)
    checks.finite(weights, memory=memory, previous=previous, **gates._asdict())
    return weights


class Head(nn.Module):
    r"""Turn a controller's output into weights, all heads at once by one linear layer.

    The linear layer's output is squashed into the ranges of the gates: the key by tanh, the
    strength by softplus, the gate by sigmoid, the shift by softmax, the sharpening by 1 +
    softplus.

    Args:
        input_size: size D of the controller's output.
        width: width M of a slot.
        heads: number of heads H.
        shifts: number of shifts S, odd; 3 allows one slot back, none, one forward.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size below 1, or an even number of shifts.

    Source:
        Graves, Wayne, Danihelka 2014, section 3.3; the squashing of the key: Collier and Beel
        2018 (arXiv 1807.08518).

    Example:
        >>> import torch
        >>> from memlib import Head
        >>> head = Head(input_size=5, width=4, heads=2)
        >>> weights = head(torch.randn(3, 5), torch.randn(3, 8, 4), torch.full((3, 2, 8), 1 / 8))
        >>> weights.shape
        torch.Size([3, 2, 8])
    """

    def __init__(
        self,
        input_size: int,
        width: int,
        heads: int = 1,
        *,
        shifts: int = 3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        input_size = checks.integer("input_size", input_size, 1)
        self.width = checks.integer("width", width, 1)
        self.heads = checks.integer("heads", heads, 1)
        self.shifts = checks.integer("shifts", shifts, 1)
        if shifts % 2 == 0:
            raise ValueError(f"shifts must be odd; got {shifts}")
        checks.tensor("dtype", torch.empty(0, device=device, dtype=dtype))
        outputs = self.heads * (self.width + 1 + 1 + self.shifts + 1)
        self.linear = nn.Linear(input_size, outputs, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw new parameters, as `torch.nn.Linear` does."""
        self.linear.reset_parameters()

    def gates(self, x: Tensor) -> Gates:
        """Return the gates that controller output x (B, D) asks for."""
        checks.tensor("x", x)
        checks.shape("x", x, "(B, D)", D=self.linear.in_features)
        checks.alike(**{"the head": self.linear.weight, "x": x})
        raw = self.linear(x).unflatten(-1, (self.heads, -1))  # (B, H, M + S + 3)
        checks.finite(raw, x=x)
        return _gates(raw, self.width)

    def forward(self, x: Tensor, memory: Tensor, previous: Tensor) -> Tensor:
        """Return weights (B, H, N).

        Args:
            x: (B, D), the controller's output.
            memory: (B, N, M).
            previous: (B, H, N), the weights of the step before.

        Accuracy: float32 2e-6, bfloat16 1e-1, float16 1e-2, of the largest result, times its
        condition.

        Raises:
            TypeError: no floating-point tensor, or dtypes differ.
            ValueError: shapes do not fit, or NaN.
        """
        return locate(self.gates(x), memory, previous)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module says that it returns Any

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        return f"width={self.width}, heads={self.heads}, shifts={self.shifts}"


# The formulas, each in one place. They trust their arguments.


def _gates(raw: Tensor, width: int) -> Gates:
    """Squash raw numbers (B, H, M + S + 3) into the ranges of the gates."""
    shifts = raw.shape[-1] - width - 3
    key, move, gate, powers = raw.split((width, shifts, 1, 2), dim=-1)
    strength, sharpening = F.softplus(powers).unbind(dim=-1)
    return Gates(
        key=key.tanh(),  # k
        strength=strength,  # β
        gate=gate[..., 0].sigmoid(),  # g
        shift=move.softmax(dim=-1),  # s
        sharpening=1 + sharpening,  # γ
    )


def _locate(gates: Gates, memory: Tensor, previous: Tensor) -> Tensor:
    if memory.dtype in HALF:  # rounded once, at the end
        wide = Gates(*(_single(gate) for gate in gates))
        return _locate(wide, _single(memory), _single(previous)).to(memory.dtype)
    content = _address(gates.key, memory, "cosine", gates.strength)  # eq. 5
    weights = _interpolate(content, previous, gates.gate)  # eq. 7
    return _sharpen(_shift(weights, gates.shift), gates.sharpening)  # eq. 8, 9


def _interpolate(content: Tensor, previous: Tensor, gate: float | Tensor) -> Tensor:
    gate = _for_slots(gate)
    if isinstance(gate, Tensor) and gate.dtype == content.dtype == previous.dtype:
        return torch.lerp(previous, content, gate)  # the same in one operation; not in autocast
    return gate * content + (1 - gate) * previous


def _shift(weights: Tensor, shift: Tensor) -> Tensor:
    reach = shift.shape[-1] // 2
    steps = range(-reach, reach + 1)
    moved = torch.stack([weights.roll(j, -1) if j else weights for j in steps], dim=-2)
    return (shift.unsqueeze(-1) * moved).sum(dim=-2)  # (..., S, N) summed over S


def _sharpen(weights: Tensor, sharpening: float | Tensor) -> Tensor:
    # w^γ / Σ w^γ = softmax(γ log w), which has nothing to divide and a cheap gradient
    empty, number = weights == 0, torch.finfo(weights.dtype)
    logs = weights.masked_fill(empty, number.tiny * number.eps).log()
    return (_for_slots(sharpening) * logs).softmax(dim=-1).masked_fill(empty, 0)


def _rounded_once(
    formula: Callable[..., Tensor], weights: Tensor, *gates: float | Tensor
) -> Tensor:
    """Return what the formula gives, of half precision computed in float32."""
    gates = tuple(_single(gate) if isinstance(gate, Tensor) else gate for gate in gates)
    return formula(_single(weights), *gates).to(weights.dtype)


def _for_slots(gate: float | Tensor) -> float | Tensor:
    return gate.unsqueeze(-1) if isinstance(gate, Tensor) else gate


def _check_shift(shift: Tensor, weights: Sequence[int]) -> None:
    """Refuse a shift (..., S) that does not fit weights of this shape (..., N)."""
    *lead, slots = weights
    steps = shift.shape[-1]
    if steps % 2 == 0 or steps > slots:
        raise ValueError(f"shift must have an odd size S of at most N = {slots}; got S = {steps}")
    checks.fits("shift", shift, (*lead, steps), "(..., S) =")


def _check_weights(name: str, weights: Tensor) -> None:
    checks.tensor(name, weights)
    checks.shape(name, weights, "(..., N)")
    if weights.shape[-1] == 0:
        raise ValueError(f"{name} must have at least one slot; got {tuple(weights.shape)}")
