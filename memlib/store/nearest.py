"""Exact search: the k keys most similar to each query, and never a score for each query and slot.

A large memory is looked through block by block, and of every `GROUP` neighbouring slots only the
greatest score is kept. The k best slots lie in the k groups of greatest maximum, so that only
these are looked into again. It is the same on every device.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib.attention.scores import _power_of_two, _scores, _single

GROUP = 64  # neighbouring slots of which one score is kept
QUERIES = 64  # that look through a large memory together
PIECE = 4096  # slots compared by one product of matrices
BLOCK = {"cpu": 1 << 18}  # scores made at once: on a CPU, what the cache of a core holds
ELSEWHERE = 1 << 22
LARGE = 64  # times k groups: in a smaller memory it is quicker to sort all scores
PRODUCTS = ("dot", "scaled_dot")
FAR = "negative_squared_distance"


def nearest(
    query: Tensor, keys: Tensor, k: int, measure: str, mask: Tensor | None = None
) -> Tensor:
    """(B, L, M), (B, N, M), which slots may be found (B, N) -> slots (B, L, k).

    The most similar slot comes first; -1 stands where fewer than k may be found. Arguments are
    trusted, and gradients are not tracked.
    """
    slots = keys.shape[1]
    most = min(k, slots)
    large = slots > LARGE * GROUP * most
    step = QUERIES if large else _fitting(len(keys) * slots, keys.device)
    search = _nearest_in_large if large else _nearest
    exactly = nullcontext() if keys.is_meta else torch.autocast(keys.device.type, enabled=False)
    with torch.no_grad(), exactly:
        if measure in PRODUCTS:
            query = _lowered(query)
        found = [search(part, keys, most, measure, mask) for part in query.split(step, dim=1)]
        best = torch.cat(found, dim=1)
        if mask is not None:
            best = best.masked_fill(~mask[_rows(keys), best], -1)
    return F.pad(best, (0, k - most), value=-1)


def within(query: Tensor, keys: Tensor, distance: float) -> Tensor:
    """Return which keys (B, N, M) lie within a distance of one of the queries (B, L, M), (B, N)."""
    step = _fitting(len(keys) * max(1, query.shape[1]), keys.device)
    blocks = (_scores(query, some, FAR) for some in keys.split(step, dim=1))
    return torch.cat([(scores >= -distance * distance).any(1) for scores in blocks], dim=1)


def _lowered(query: Tensor) -> Tensor:
    """Scale each query to numbers that add up to less than 1: no product with a key overflows.

    A power of two leaves the order of its products as it is.
    """
    query = _single(query)
    query = query / _power_of_two(query)
    return query / (2 * _power_of_two(query.abs().sum(-1, keepdim=True)))


def _nearest(query: Tensor, keys: Tensor, k: int, measure: str, mask: Tensor | None) -> Tensor:
    scores = _scores(query, keys, measure)  # (B, L, N)
    if mask is not None:
        scores = scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
    return scores.topk(k).indices


def _nearest_in_large(
    query: Tensor, keys: Tensor, k: int, measure: str, mask: Tensor | None
) -> Tensor:
    maxima = torch.cat(list(_maxima(query, keys, measure, mask)), dim=-1)  # (B, L, N / GROUP)
    slots = maxima.topk(k).indices.unsqueeze(-1) * GROUP  # (B, L, k, 1)
    slots = (slots + torch.arange(GROUP, device=keys.device)).flatten(2)  # (B, L, k·GROUP)
    there = slots < keys.shape[1]  # the last group need not be whole
    slots = slots.clamp(max=keys.shape[1] - 1)
    if mask is not None:
        there &= mask[_rows(keys), slots]
    step = _fitting(len(keys) * slots.shape[-1] * keys.shape[-1], keys.device)
    scores = torch.cat(
        [
            _scores(part.unsqueeze(2), keys[_rows(keys), some], measure).squeeze(2)
            for part, some in zip(query.split(step, 1), slots.split(step, 1), strict=True)
        ],
        dim=1,
    )
    return slots.gather(-1, scores.masked_fill(~there, -torch.inf).topk(k).indices)


def _maxima(query: Tensor, keys: Tensor, measure: str, mask: Tensor | None) -> Iterator[Tensor]:
    """Yield the greatest score of each group, block by block."""
    batch, slots = keys.shape[:2]
    block = _fitting(batch * query.shape[1] * PIECE, keys.device, blocks=1) * PIECE
    even = slots // PIECE * PIECE
    for start, end in pairwise(sorted({*range(0, even, block), even, slots})):
        # many small products keep all cores busy, where one with few queries would not
        pieces = max(1, (end - start) // PIECE) if batch == 1 else 1
        some = keys[:, start:end].unflatten(1, (pieces, -1))
        scores = _scores(query.unsqueeze(1), some, measure)  # (B, pieces, L, ·)
        if mask is not None:
            hidden = ~mask[:, start:end].unflatten(1, (pieces, 1, -1))
            scores = scores.masked_fill(hidden, -torch.inf)
        if rest := -scores.shape[-1] % GROUP:
            scores = F.pad(scores, (0, rest), value=-torch.inf)
        yield scores.unflatten(-1, (-1, GROUP)).amax(-1).transpose(1, 2).flatten(2)


def _fitting(numbers: int, device: torch.device, blocks: int = 16) -> int:
    """How many times so many numbers to make at once."""
    return max(1, blocks * BLOCK.get(device.type, ELSEWHERE) // max(1, numbers))


def _rows(keys: Tensor) -> Tensor:
    return torch.arange(len(keys), device=keys.device).view(-1, 1, 1)
