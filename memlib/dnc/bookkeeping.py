"""The books that a differentiable neural computer keeps on its memory: usage, allocation, links.

They follow by fixed rules from where the heads were. See `memlib.dnc` for the machine.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib import _checks as checks
from memlib._files import plain
from memlib.attention.scores import _single


@plain
class DNCState(NamedTuple):
    """All that a DNC carries from step to step, for B rows; a new one comes out of every step.

    It is kept as named tensors, like an `memlib.NTMState`.

    Attributes:
        memory: (B, N, M).
        reads: (B, R, M), what the R read heads read last.
        weights: (B, R + W, N), where the heads were last: R read heads, then W write heads.
        usage: (B, N), how far each slot is taken, 0 free, 1 in use.
        links: (B, W, N, N): entry (i, j) says how far slot i was written right after slot j.
        precedence: (B, W, N), how far each slot was the last written.
        hidden: (B, D), the controller's hidden state; (B, 0) if it has none.
        cell: (B, D), the LSTM's cell; (B, 0) for any other controller.

    Example:
        >>> import torch
        >>> from safetensors.torch import load, save
        >>> from memlib import DNC, DNCState
        >>> dnc, x = DNC(input_size=9, output_size=8), torch.randn(1, 2, 9)
        >>> kept = save(dnc(x)[1]._asdict())  # or save_file, load_file
        >>> logits, state = dnc(x, DNCState(**load(kept)))
    """

    memory: Tensor
    reads: Tensor
    weights: Tensor
    usage: Tensor
    links: Tensor
    precedence: Tensor
    hidden: Tensor
    cell: Tensor

    def detach(self) -> "DNCState":
        """Return the same state without its history, for truncated backpropagation."""
        return DNCState(*(value.detach() for value in self))


def allocation(usage: Tensor) -> Tensor:
    r"""Find a free slot: :math:`a[\phi_j] = (1 - u[\phi_j]) \prod_{i<j} u[\phi_i]`.

    :math:`\phi` lists the slots from the least used to the most used, of equals the first one
    first. A free slot gets all the weight; with none quite free, the freest share it.

    Args:
        usage: (..., N), u in [0, 1]: 0 free, 1 in use.

    Returns:
        Weights (..., N), at least 0, summing to :math:`1 - \prod_n u_n`.

    Accuracy: float32 1e-5, bfloat16 8e-3, float16 1e-3, of every weight above 1e-6.

    Raises:
        TypeError: no floating-point tensor.
        ValueError: a usage outside [0, 1], or NaN.

    Source:
        Graves et al. 2016, Methods, "Dynamic memory allocation" (doi 10.1038/nature20101).

    Example:
        >>> import torch
        >>> from memlib import allocation
        >>> allocation(torch.tensor([1.0, 0.5, 0.8]))
        tensor([0.0000, 0.5000, 0.1000])
    """
    checks.tensor("usage", usage)
    checks.shape("usage", usage, "(..., N)")
    checks.within("usage", usage, 0, 1)
    weights = _allocation(usage)
    checks.finite(weights, usage=usage)
    return weights


# The formulas, each in one place. They trust their arguments.


def _use(usage: Tensor, weights: Tensor) -> Tensor:
    r"""Return usage (B, N) after writes (B, W, N): :math:`1 - (1 - u) \prod_h (1 - w_h)`."""
    for written in weights.unbind(dim=1):  # so that a small usage keeps its digits
        usage = torch.addcmul(usage, 1 - usage, written)
    return usage


def _allocation(usage: Tensor) -> Tensor:
    used = _single(usage)
    faint = torch.finfo(used.dtype).eps ** 2  # gives a free slot a logarithm, and a gradient
    rising, order = (used + faint).sort(dim=-1, stable=True)  # u[φ], φ
    before = rising[..., :-1].log().cumsum(dim=-1).exp()  # the product of those before each slot
    weights = (1 - rising) * F.pad(before, (1, 0), value=1)
    weights = weights - weights.detach().masked_fill(weights > 2 * faint, 0)  # but not a weight
    weights = weights.scatter(-1, order, weights)  # every entry is put in its place
    return weights if weights.dtype == usage.dtype else weights.to(usage.dtype)


def _link(links: Tensor, precedence: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`L_{ij} = (1 - w_i - w_j) L_{ij} + w_i p_j`, :math:`p = (1 - \sum w) p + w`."""
    kept = (1 - weights).unsqueeze(-1) - weights.unsqueeze(-2)
    links = torch.addcmul(kept * links, weights.unsqueeze(-1), precedence.unsqueeze(-2))
    links.diagonal(dim1=-2, dim2=-1).zero_()  # no slot comes after itself
    return links, torch.addcmul(weights, 1 - weights.sum(dim=-1, keepdim=True), precedence)
