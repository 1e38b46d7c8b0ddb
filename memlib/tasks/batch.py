"""What every task hands out, and how an answer is marked."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib import _checks as checks
from memlib._files import plain


@plain
class Batch(NamedTuple):
    """Sequences of bits to be predicted, for B rows of at most T steps.

    Attributes:
        inputs: (B, T, I); 0 after a row's length.
        targets: (B, T, O), 0 or 1; 0 where they do not count.
        mask: (B, T) bool, True = this step's targets count.
        lengths: (B,) int64, the steps of each row; T is the largest.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    lengths: Tensor

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> "Batch":
        """Return the same batch on a device, inputs and targets of a dtype."""
        inputs, targets = (x.to(device=device, dtype=dtype) for x in self[:2])
        return Batch(inputs, targets, self.mask.to(device), self.lengths.to(device))


def wrong_bits(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    r"""Count the wrong bits of each sequence, a logit above 0 meaning 1.

    Args:
        logits: (B, T, O).
        targets: (B, T, O), 0 or 1.
        mask: (B, T) bool, True = counts.

    Returns:
        Counts (B,), floating-point, so that they can be averaged.

    Raises:
        TypeError: no floating-point tensors, or a mask that is not bool.
        ValueError: shapes that do not fit.

    Example:
        >>> import torch
        >>> from memlib.tasks import wrong_bits
        >>> answer, right = torch.tensor([[[3.0, -3.0]]]), torch.tensor([[[1.0, 1.0]]])
        >>> wrong_bits(answer, right, torch.tensor([[True]]))
        tensor([1.])
    """
    _check(logits, targets, mask)
    wrong = ((logits > 0) != (targets > 0.5)) & mask.unsqueeze(-1)
    return wrong.sum(dim=(1, 2)).to(logits.dtype)


def bits_per_sequence(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    r"""Return the cost :math:`-\sum \log_2 p(\text{target})` of each sequence, in bits.

    Args:
        logits: (B, T, O) of the probability of a 1.
        targets: (B, T, O), 0 or 1.
        mask: (B, T) bool, True = counts.

    Returns:
        Costs (B,) in bits; a guess of one half pays one bit a target.

    Raises:
        TypeError: no floating-point tensors, or a mask that is not bool.
        ValueError: shapes that do not fit.

    Source:
        Graves, Wayne, Danihelka 2014, section 4.

    Example:
        >>> import torch
        >>> from memlib.tasks import bits_per_sequence
        >>> half = torch.zeros(1, 5, 2)
        >>> bits_per_sequence(half, half, torch.ones(1, 5, dtype=torch.bool))
        tensor([10.])
    """
    _check(logits, targets, mask)
    nats = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return nats.masked_fill(~mask.unsqueeze(-1), 0).sum(dim=(1, 2)) / math.log(2)


def _check(logits: Tensor, targets: Tensor, mask: Tensor) -> None:
    checks.tensor("logits", logits)
    checks.tensor("targets", targets)
    checks.shape("logits", logits, "(B, T, O)")
    if targets.shape != logits.shape:
        raise ValueError(
            f"targets must have the shape of logits, {tuple(logits.shape)}; "
            f"got {tuple(targets.shape)}"
        )
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a bool tensor (True = counts); got {got}")
    checks.shape("mask", mask, "(B, T)", B=logits.shape[0], T=logits.shape[1])
