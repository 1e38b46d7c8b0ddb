"""Dynamic n-grams: bits whose statistics change with every sequence."""

import math

import torch
from torch import Generator, Tensor

from memlib import _checks as checks
from memlib.tasks.batch import Batch


def ngrams(
    batch_size: int,
    *,
    length: int = 200,
    order: int = 6,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Batch:
    r"""Predict each next bit of a source drawn anew for each row.

    After the same order - 1 bits a row draws a 1 with the same probability, one of
    :math:`2^{order - 1}` that are Beta(1/2, 1/2); its first order - 1 bits are fair.

    Args:
        batch_size: number of rows B.
        length: bits of a row.
        order: n of the n-gram.
        generator: the source of chance, on the CPU.
        device: where the batch goes.
        dtype: of inputs and targets.

    Returns:
        A `Batch` with one input, the previous bit as -1 or 1 (0 before the first), and one
        output; every step counts.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size below 1.

    Source:
        Graves, Wayne, Danihelka 2014, section 4.4.

    Example:
        >>> from memlib import tasks
        >>> batch = tasks.ngrams(2)
        >>> batch.inputs.shape, bool(batch.mask.all())
        (torch.Size([2, 200, 1]), True)
    """
    batch_size = checks.integer("batch_size", batch_size, 0)
    length = checks.integer("length", length, 1)
    order = checks.integer("order", order, 1, 20)
    contexts = 2 ** (order - 1)
    uniform = torch.rand(batch_size, contexts, generator=generator)
    chances = (uniform * (math.pi / 2)).sin().square()  # Beta(1/2, 1/2) is the arcsine law
    draws = torch.rand(batch_size, length, generator=generator)
    bits = draws < 0.5
    context = torch.zeros(batch_size, dtype=torch.long)
    for t in range(length):
        if t >= order - 1:
            bits[:, t] = draws[:, t] < chances.gather(1, context.unsqueeze(-1)).squeeze(-1)
        context = (2 * context + bits[:, t]) % contexts
    targets = bits.float().unsqueeze(-1)
    inputs = torch.cat((torch.zeros_like(targets[:, :1]), 2 * targets[:, :-1] - 1), dim=1)
    mask = torch.ones(batch_size, length, dtype=torch.bool)
    return Batch(inputs, targets, mask, torch.full((batch_size,), length)).to(device, dtype)


def optimal_bits(targets: Tensor, order: int = 6) -> Tensor:
    r"""Return what the best estimator pays: :math:`P(1) = (N_1 + 1/2) / (N_1 + N_0 + 1)`.

    :math:`N_1` and :math:`N_0` count the ones and zeros seen so far after the same order - 1
    bits. The first order - 1 bits cost one bit each.

    Args:
        targets: (B, T, 1), 0 or 1, from `ngrams`.
        order: n of the n-gram.

    Returns:
        Costs (B,) in bits.

    Raises:
        TypeError: targets no floating-point tensor, or order no integer.
        ValueError: shapes that do not fit.

    Source:
        Graves, Wayne, Danihelka 2014, section 4.4, eq. 10 (after Murphy 2012).

    Example:
        >>> import torch
        >>> from memlib.tasks import optimal_bits
        >>> optimal_bits(torch.ones(1, 2, 1), order=1).exp2()  # 1 / (1/2 * 3/4)
        tensor([2.6667])
    """
    checks.tensor("targets", targets)
    checks.shape("targets", targets, "(B, T, 1)")
    order = checks.integer("order", order, 1, 20)
    batch, length, _ = targets.shape
    bits = targets[..., 0] > 0.5
    contexts = 2 ** (order - 1)
    counts = targets.new_full((batch, contexts, 2), 0.5)  # N_0 + 1/2, N_1 + 1/2
    cost = targets.new_full((batch,), float(min(order - 1, length)))
    context = torch.zeros(batch, dtype=torch.long, device=targets.device)
    rows = torch.arange(batch, device=targets.device)
    for t in range(length):
        bit = bits[:, t].long()
        if t >= order - 1:
            seen = counts[rows, context]  # (B, 2)
            cost -= (seen[rows, bit] / seen.sum(-1)).log2()
            counts[rows, context, bit] += 1
        context = (2 * context + bit) % contexts
    return cost
