r"""The write of many tokens at once: chunks of a text, each a triangular system (the WY form).

Of `memlib.fast_weights.rules`, whose letters these are; C tokens make a chunk.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib.attention.verbs import _read, _write

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
    r"""The same, C tokens at once: what they add is a triangular system (the WY form).

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
        both = torch.cat((v, *found), dim=-1)
        both = torch.linalg.solve_triangular(*overlap, both, upper=False, unitriangular=True)
        v, b = both.split((v.shape[-1], k.shape[-1]), dim=-1)
    starts, adds, memory = [], [], state.flatten(0, 1)
    for key, add, erased, keep in in_turn(0, k, v, b, kept):
        starts.append(memory)
        adds.append(add if erased is None else add - _read(erased, memory))  # U
        memory = memory if keep is None else keep.mT * memory
        memory = _write(memory, key, adds[-1])  # each token a head of its own
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
        (gamma,), (since,), until, kept = _between([one], one, decay)
        products = [x @ right.mT * gamma for x in lefts]
        return products, [x * since for x in lefts], right * until, kept
    *lefts, right, kept = (x.unsqueeze(-2) for x in (*lefts, right, decay))  # C blocks of one
    products = [(x * right).sum(dim=-1, keepdim=True) for x in lefts]
    lefts = [x * kept for x in lefts]
    while right.shape[-3] > 1:
        (early, late), (first, second) = _pairs(right), _pairs(kept)
        products = [_corner(p, _pairs(x)[1], early) for p, x in zip(products, lefts, strict=True)]
        lefts = [torch.cat((x, y * first), dim=-2) for x, y in map(_pairs, lefts)]
        right = torch.cat((early * second, late), dim=-2)
        kept = first * second
    products, lefts = ([x.squeeze(-3) for x in both] for both in (products, lefts))
    return products, lefts, right.squeeze(-3), kept.squeeze(-3)


def _corner(products: Tensor, late: Tensor, early: Tensor) -> Tensor:
    """Join the products of two blocks by those of the second with the first."""
    first, second = _pairs(products)
    if early.shape[-2] > FEW:
        across = late @ early.mT
    else:
        across = (late.unsqueeze(-2) * early.unsqueeze(-3)).sum(dim=-1)
    return torch.cat((F.pad(first, (0, early.shape[-2])), torch.cat((across, second), -1)), dim=-2)


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
