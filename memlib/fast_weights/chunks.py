r"""The write of many tokens at once: chunks of a text, each a triangular system (the WY form).

Of `memlib.fast_weights.rules`, whose letters these are; C tokens make a chunk.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib.attention.verbs import _read

FEW = 2  # tokens, whose many small products take less time as terms than as matrices


def by_chunks(
    query: Tensor,
    keys: Tensor,
    written: Tensor,
    erasing: Tensor | None,
    decay: Tensor | None,
    state: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    r"""Write and read C tokens at once: what they add, U, is a triangular system (the WY form).

    .. math:: u_t + \sum_{s<t} A_{ts} u_s = w v_t - S_0^T (\Gamma_{t0} \odot b k_t)

    with :math:`\Gamma_{ts} = \prod_{s < i \le t} d_i` and
    :math:`A_{ts} = b k_t \cdot (\Gamma_{ts} \odot k_s)`. It is solved for all chunks at once,
    before any :math:`S_0` is known.
    """
    q, k, v = (_cut(x, chunk) for x in (query, keys, written))  # (T / C, B H, C, ...)
    lefts = [q] if erasing is None else [q, _cut(erasing, chunk)]
    d = None if decay is None else _cut(decay, chunk, 1.0)
    (reach, *overlap), (q, *found), k, kept = _between(lefts, k, d)
    b = None
    if overlap:  # the diagonal of A is taken for 1, what lies above for 0
        one = torch.eye(chunk, dtype=v.dtype, device=v.device).expand_as(reach)
        solved = torch.linalg.solve_triangular(*overlap, one, upper=False, unitriangular=True)
        v, b = solved @ v, solved @ found[0]
    starts, adds, memory = [], [], state.flatten(0, 1)
    for key, add, erased, keep in in_turn(0, k.mT, v, b, kept):
        starts.append(memory)
        # a read and a write, each in one operation; the tokens are the heads of the write
        adds.append(add if erased is None else torch.baddbmm(add, erased, memory, alpha=-1))  # U
        memory = memory if keep is None else keep.mT * memory
        memory = torch.baddbmm(memory, key, adds[-1])
    reads = _read(q, torch.stack(starts)) + _read(reach, torch.stack(adds))
    rows, reads = state.shape[:2], reads.transpose(0, 1).flatten(1, 2)[:, : query.shape[2]]
    return reads.unflatten(0, rows), memory.unflatten(0, rows)


def _between(
    lefts: list[Tensor], right: Tensor, decay: Tensor | None
) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor | None]:
    r"""Join the tokens of a chunk, (..., C, M), weighed by what decays from one to the other.

    Returns, for each left l and the right r, products :math:`\sum_m l_{tm} \Gamma_{tsm} r_{sm}`
    (..., C, C), 0 for s after t; l times what is left at t of the matrix before the chunk; r times
    what is left of s after it; and what is left of the whole, (..., 1, M).

    Decays are multiplied, in blocks that join in pairs. No quotient is taken and no logarithm, so
    that none is too small, and 0 and its gradient are right as well.
    """
    if decay is None:
        return [(x @ right.mT).tril() for x in lefts], lefts, right, None
    if decay.shape[-1] < right.shape[-1]:  # all numbers of a key decay alike
        one = torch.ones_like(decay)
        gamma, since, until, kept = _joined(one.unsqueeze(-2), one, decay)
        products = [x @ right.mT * gamma.squeeze(-2) for x in lefts]
        return products, [x * since.squeeze(-2) for x in lefts], right * until, kept
    each, left, right, kept = _joined(torch.stack(lefts, dim=-2), right, decay)
    return [*each.unbind(-2)], [*left.unbind(-2)], right, kept


def _joined(left: Tensor, right: Tensor, decay: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`_between` with k lefts in one tensor, (..., C, k, M), and their products (..., C, k, C)."""
    (C, k), right, kept = left.shape[-3:-1], right.unsqueeze(-2), decay.unsqueeze(-2)
    products = (left * right).sum(dim=-1, keepdim=True)  # C blocks of one token, (..., C, k, 1)
    left = left * kept
    while right.shape[-3] > 1:
        (p1, p2), (l1, l2), (r1, r2), (k1, k2) = map(_pairs, (products, left, right, kept))
        across = F.pad(p1, (0, p1.shape[-1])), torch.cat((_products(l2, r1), p2), dim=-1)
        products = torch.cat(across, dim=-2)
        left = torch.cat((l1, l2 * k1), dim=-2)
        right = torch.cat((r1 * k2, r2), dim=-2)
        kept = k1 * k2
    products, left = (x.squeeze(-3).unflatten(-2, (C, k)) for x in (products, left))
    return products, left, right.squeeze(-3), kept.squeeze(-3)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Return all products of two blocks, (..., k n, M), (..., n, M) -> (..., k n, n)."""
    if right.shape[-2] > FEW:
        return left @ right.mT
    return (left.unsqueeze(-2) * right.unsqueeze(-3)).sum(dim=-1)


def _pairs(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the second of each pair, (..., N, n, M) -> twice (..., N / 2, n, M)."""
    first, second = blocks.unflatten(-3, (-1, 2)).unbind(-3)
    return first, second


def in_turn(dim: int, *tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Go along a dimension of all at once; of what is None, None."""
    return zip(*(repeat(None) if x is None else x.unbind(dim) for x in tensors), strict=False)


def _cut(x: Tensor, chunk: int, fill: float = 0.0) -> Tensor:
    """Cut time into chunks, filled up at the end: (B, H, T, M) -> (T / C, B H, C, M)."""
    x = F.pad(x, (0, 0, 0, -x.shape[2] % chunk), value=fill).flatten(0, 1)
    parts: Tensor = x.unflatten(1, (-1, chunk))
    return parts.transpose(0, 1).contiguous()
