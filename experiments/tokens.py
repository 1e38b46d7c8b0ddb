"""What the experiments on sequences of tokens share."""

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from experiments.training import Figures


def rise_and_fall(rate: float, warm_up: int, sequences: int) -> Callable[[int], float]:
    """Return a learning rate that rises evenly, then falls to 0 along half a cosine.

    Args:
        rate: the highest.
        warm_up: sequences until there; 0 begins there.
        sequences: the budget, in which it falls.

    Example:
        >>> at = rise_and_fall(1.0, warm_up=10, sequences=110)
        >>> at(0), at(5), at(10), round(at(60), 2), at(110)
        (0.0, 0.5, 1.0, 0.5, 0.0)
    """

    def at(seen: int) -> float:
        if seen < warm_up:
            return rate * seen / warm_up
        return rate * (1 + math.cos(math.pi * (seen - warm_up) / (sequences - warm_up))) / 2

    return at


def figures(logits: Tensor, targets: Tensor) -> Figures:
    """Return the cross entropy in nats and the share of right answers: (N, V), (N,)."""
    right = (logits.argmax(dim=-1) == targets).double().mean().item()
    return {"loss": round(F.cross_entropy(logits, targets).item(), 5), "accuracy": round(right, 5)}
