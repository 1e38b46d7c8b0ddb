"""The same read by a score that is no dot product: the slots pass by in blocks.

The softmax is kept as it grows (Milakov and Gimelshein 2018, arXiv 1805.02867, algorithm 3).
Where scores in float32 tell which slots count, only theirs are made with all digits.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib import _checks as checks
from memlib.attention.distance import EVEN, FEW, blocks, wide
from memlib.attention.streaming import _is_shared, _once, _with_queries

NEGLIGIBLE = -87.0  # logarithm of a weight that is nothing beside the greatest
NOTHING = 2e-38  # a little more than that weight
ENOUGH = 1e-5  # an error of all scores that no read shows
SIFTED = 8  # blocks at once, where few numbers are looked at twice
SPARSE = 64  # one group of scores in so many is soon made anew


def attend_by(
    score: Callable[[Tensor, Tensor, Tensor], Tensor],
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    strength: float | Tensor,
    mask: Tensor | None = None,
    rough: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, float]] | None = None,
) -> Tensor:
    """softmax(score) v by a score: (B, L, M), (B, n, M), strength (B, L) -> (B, L, n).

    `rough` gives scores in float32 sooner, and how far they are off at most. They decide which
    scores are needed exactly.
    """
    lead = checks.broadcast(query.shape[:-2], keys.shape[:-2], values.shape[:-2])
    shape = (*lead, query.shape[-2], values.shape[-1])
    if 0 in (*shape, keys.shape[-2]):
        return (query @ keys.mT).softmax(dim=-1) @ values
    if not isinstance(strength, Tensor):
        strength = torch.full_like(wide(query[..., 0]), strength)
    strength = strength.unsqueeze(-1).expand(*lead, query.shape[-2], 1)
    if _is_shared(keys, values, mask):
        query, strength = (x.expand(*lead, *x.shape[-2:]) for x in (query, strength))
        query, strength = (x.reshape(1, -1, x.shape[-1]) for x in (query, strength))
        keys, values = (x.reshape(1, *x.shape[-2:]) for x in (keys, values))
        mask = None if mask is None else mask.reshape(1, 1, -1)
    else:
        query, strength, keys, values = (
            x.expand(*lead, *x.shape[-2:]).reshape(-1, *x.shape[-2:])
            for x in (query, strength, keys, values)
        )
        if mask is not None:
            mask = _with_queries(mask, lead)
            if mask.shape[:-2].numel() > 1:
                mask = mask.expand(*lead, *mask.shape[-2:])
            mask = mask.reshape(-1, *mask.shape[-2:])
    streamed: Any = _Streamed.apply
    value: Tensor = streamed(score, rough, query, keys, values, strength, mask)
    return value.reshape(shape)


class _Streamed(torch.autograd.Function):
    """(B, L, M), (B, N, M), (B, N, V), (B, L, 1), (B or 1, L or 1, N) -> (B, L, V), by blocks."""

    @staticmethod
    def forward(
        ctx: Any, score: Any, rough: Any, query: Tensor, keys: Tensor, values: Tensor,
        strength: Tensor, mask: Tensor | None,
    ) -> Tensor:  # fmt: skip
        kind = torch.promote_types(values.dtype, torch.float32)
        total = wide(query[..., :1]) * 0  # (B, L, 1)
        highest, read = total - torch.inf, values.new_zeros(*query.shape[:-1], values.shape[-1])
        read = read.to(kind)
        for part in _blocks(query, keys, values, SIFTED if rough else 1):
            some = query, keys[:, part], strength, None if mask is None else mask[..., part]
            before, found = highest, None
            if rough is not None:
                found = _sift(score, rough, *some, highest, keys.shape[1])
                rough = rough if found else None  # most scores are this close: so is the rest
            logs, highest = found or _below_highest(_scores(score, *some), highest)  # (B, L, n)
            weights = _exp(logs.to(kind))
            kept = (before - _unless_none(highest)).exp()
            total = total * kept + weights.sum(-1, keepdim=True)
            read = (read * kept.to(kind)).add_(_weigh(weights, values[:, part].to(kind)))
        read = read / total.masked_fill(total == 0, 1).to(kind)  # what may read nothing stays 0
        log_sum = (highest + total.log()).masked_fill(total == 0, torch.inf)
        ctx.save_for_backward(query, keys, values, strength, mask, read, log_sum)
        ctx.score = score
        return read.to(values.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, values, strength, mask, read, log_sum = ctx.saved_tensors
        needs = [ctx.needs_input_grad[i] for i in (2, 3, 5)]
        with torch.no_grad():
            rows = grad.to(read.dtype)
            drift = (rows * read).sum(-1, keepdim=True)
            for_scored, for_values = [], []
            for part in _blocks(query, keys, values):
                some = values[:, part].to(read.dtype)
                with torch.enable_grad():
                    q, k, s = leaves = [
                        x.detach().requires_grad_(need)
                        for x, need in zip((query, keys[:, part], strength), needs, strict=True)
                    ]
                    scores = _scores(ctx.score, q, k, s, None if mask is None else mask[..., part])
                logs = (scores.detach() - log_sum).to(read.dtype)
                weights = _exp(logs)
                pull = weights * (rows @ some.mT - drift)
                for_scored.append(_gradients(scores, leaves, pull.to(scores.dtype)))
                for_values.append(weights.mT @ rows)
            for_query, for_keys, for_strength = zip(*for_scored, strict=True)
            grads = (
                sum(for_query) if needs[0] else None,
                torch.cat(for_keys, dim=1) if needs[1] else None,
                torch.cat(for_values, dim=1).to(values.dtype),
                sum(for_strength) if needs[2] else None,
            )
        return None, None, *_once(grads, grad, query, keys, values, strength), None


def _blocks(query: Tensor, keys: Tensor, values: Tensor, times: int = 1) -> Iterator[slice]:
    """Cut the slots so that the scores of a block, or its values anew, are not too many."""
    widest = max(query.shape[-2], values.shape[-1] // 16)
    return blocks(keys.shape[-2], keys.shape[:-2].numel() * widest, times)


def _sift(
    score: Any, rough: Any, query: Tensor, keys: Tensor, strength: Tensor, mask: Tensor | None,
    highest: Tensor, slots: int,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """Return the scores below the highest, exact where a weight shows it; None if most are."""
    scores, error = rough(query, keys, strength.squeeze(-1))
    if not error < math.inf:
        return None
    if mask is not None:
        scores.masked_fill_(~mask, -torch.inf)
    if error <= ENOUGH:
        return _below_highest(scores, highest)
    cut = math.log(slots * error / ENOUGH)  # all that is farther off counts for nothing
    least = highest.maximum(wide(scores.amax(-1, keepdim=True)) - error) - (cut + 2 * error)
    near = _beyond(
        scores, least.to(scores.dtype), scores.numel() // max(SPARSE, keys.shape[-1] // 4)
    )
    if near is None:
        return None
    row, i, slot = near
    pairs = query[row, i].unsqueeze(1), keys[row, slot].unsqueeze(1), strength[row, i]
    exact = score(*pairs).flatten()
    at = row * query.shape[-2] + i
    highest = highest.flatten().scatter_reduce(0, at, exact, "amax").view_as(highest)
    shift = _unless_none(highest)
    logs = scores.sub_(shift.to(scores.dtype))
    logs[row, i, slot] = (exact - shift[row, i, 0]).to(logs.dtype)
    return logs, highest


def _beyond(scores: Tensor, least: Tensor, most: int) -> tuple[Tensor, ...] | None:
    """Return where (B, L, n) is beyond (B, L, 1), unless there are more; group by group."""
    groups = 1 if scores.shape[-1] % EVEN else EVEN  # of slots far apart, one after the other
    parts = scores.unflatten(-1, (groups, -1))
    row, i, part = found = (parts.amax(-2) > least).nonzero(as_tuple=True)
    if len(row) > most:
        return None
    inside, group = (parts[row, i, :, part] > least[row, i]).nonzero(as_tuple=True)
    row, i, part = (x[inside] for x in found)
    return row, i, group * parts.shape[-1] + part


def _below_highest(scores: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores below the highest so far, and that one."""
    highest = highest.maximum(scores.amax(-1, keepdim=True))
    return scores.sub_(_unless_none(highest).to(scores.dtype)), highest


def _unless_none(highest: Tensor) -> Tensor:
    """Return the highest score; 0 where nothing may be read."""
    return highest.masked_fill(highest == -torch.inf, 0)


def _weigh(weights: Tensor, values: Tensor) -> Tensor:
    """Return weights @ values; of few queries in parts: more cores are busy, sums are shorter."""
    if weights.shape[-2] > FEW or weights.shape[-1] % EVEN:
        return weights @ values
    weights, values = weights.unflatten(-1, (EVEN, -1)), values.unflatten(-2, (EVEN, -1))
    return (weights.transpose(-3, -2) @ values).sum(-3)


def _exp(logs: Tensor) -> Tensor:
    """Return exp in place, 0 where it is nothing: what is denormal or -inf would take long."""
    return F.threshold(logs.clamp_min_(NEGLIGIBLE).exp_(), NOTHING, 0.0, inplace=True)


def _gradients(result: Tensor, leaves: Sequence[Tensor], grad: Tensor) -> list[Tensor | None]:
    """Return the gradient of each leaf, None where none is asked for."""
    asked = [x for x in leaves if x.requires_grad]
    found = iter(torch.autograd.grad(result, asked, grad) if asked else ())
    return [next(found) if x.requires_grad else None for x in leaves]


def _scores(
    score: Any, query: Tensor, keys: Tensor, strength: Tensor, mask: Tensor | None
) -> Tensor:
    scores: Tensor = score(query, keys, strength.squeeze(-1))
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)
