"""One read of slots that lie on several ranks: partial softmaxes, merged by their log-sum-exp."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib import _checks as checks
from memlib.attention import streaming
from memlib.attention.blockwise import _Streamed, _unless_none
from memlib.attention.distance import is_worth_sifting, rough_nearness, wide
from memlib.attention.scores import _as_dot_product, _scores, _single, _times, _wide_scores
from memlib.attention.streaming import SLOTS_WORTH_SPLITTING, _is_shared, _Split, _with_queries
from memlib.attention.verbs import _is_steep
from memlib.store.ranks import Ranks


def recorded(*given: object) -> tuple[bool, ...]:
    """Return which gradients will be asked for: the ranks must go backward together, too."""
    grads = torch.is_grad_enabled()
    return tuple(grads and isinstance(x, Tensor) and x.requires_grad for x in given)


def entering(ranks: Ranks, strength: float | Tensor) -> float | Tensor:
    """Return a shared strength for the use of one part."""
    return ranks.enter(strength) if isinstance(strength, Tensor) else strength


def stream(
    ranks: Ranks, query: Tensor, keys: Tensor, values: Tensor, measure: str,
    strength: float | Tensor, mask: Tensor | None,
) -> Tensor:  # fmt: skip
    """(..., L, M), (..., N, M), (..., N, V) -> (..., L, V); arguments are trusted."""
    lead = checks.broadcast(query.shape[:-2], keys.shape[:-2], values.shape[:-2])
    shape = (*lead, query.shape[-2], values.shape[-1])
    if 0 in shape:
        return query.sum() * values.new_zeros(shape)
    if not keys.shape[-2]:  # an empty part is one slot that nobody may read
        keys, values = (F.pad(x, (0, 0, 0, 1)) for x in (keys, values))
        mask = torch.zeros(1, dtype=torch.bool, device=keys.device)
    if not isinstance(strength, Tensor):
        strength = torch.full_like(wide(query[..., 0]), strength)
    strength = strength.unsqueeze(-1).expand(*lead, query.shape[-2], 1)
    if mask is not None:
        mask = _with_queries(mask, lead)
    if _is_shared(keys, values, mask):  # one memory read by many is one read of many queries
        lead = torch.Size()
    query, strength, keys, values = (
        x.expand(*lead, *x.shape[-2:]).reshape(lead.numel(), -1, x.shape[-1])
        if lead else x.reshape(1, -1, x.shape[-1]) for x in (query, strength, keys, values)
    )  # fmt: skip
    if mask is not None and mask.shape[:-2].numel() > 1:
        mask = mask.expand(*lead, *mask.shape[-2:])
    mask = None if mask is None else mask.reshape(-1, *mask.shape[-2:])
    if _has_kernel(query, keys, measure, mask):
        return _by_kernel(ranks, query, keys, values, measure, strength).reshape(shape)
    score, rough = partial(_narrow_scores, measure), None
    if far := measure == "negative_squared_distance":
        rough = rough_nearness if is_worth_sifting(keys) else None
    if far or _is_steep(query, keys, measure, strength):
        score = partial(_wide_scores, measure)
    merged: Any = _Merged.apply
    value: Tensor = merged(score, rough, query, keys, values, strength, mask, ranks)
    return value.reshape(shape)


def weigh(
    ranks: Ranks, query: Tensor, keys: Tensor, values: Tensor, measure: str,
    strength: float | Tensor, mask: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the read and this rank's weights, which are made; with all derivatives."""
    scores = _scores(query, keys, measure, strength)  # (..., L, N)
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    least = scores.new_full((*scores.shape[:-1], 1), -torch.inf)
    highest = ranks.stack(torch.cat((scores.detach(), least), -1).amax(-1, keepdim=True)).amax(0)
    raised = (scores - _unless_none(highest)).exp().to(_single(values).dtype)
    total = ranks.total(raised.sum(-1, keepdim=True))
    weights = raised / ranks.enter(total.masked_fill(total == 0, 1))
    value = ranks.total(weights @ _single(values))
    return value.to(values.dtype), weights.to(query.dtype)


def best(
    ranks: Ranks, scores: Tensor, ids: Tensor, strength: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the k best of each rank's k: scores and ids (B, L, k), -1 for none.

    Returns:
        Ids (B, L, k), the most similar first, of two alike the lower; their weights; and those
        weights of them that are this rank's, in the order of its own ids.
    """
    kind, k = scores.dtype, ids.shape[-1]
    named = ids.unsqueeze(-1).contiguous().view(kind).flatten(-2)  # in one message
    told = ranks.gather(torch.cat((scores, named), -1)).movedim(0, -2)  # (B, L, R, ·)
    scores = told[..., :k].flatten(-2)  # (B, L, R·k)
    # a copy, even of nothing, so that it begins at place 0
    told_ids = told[..., k:].detach().clone(memory_format=torch.contiguous_format)
    ids = told_ids.view(torch.long).flatten(-2)
    none = ids < 0
    order = ids.masked_fill(none, torch.iinfo(torch.long).max).argsort(dim=-1, stable=True)
    ranked = scores.detach().masked_fill(none, -torch.inf).gather(-1, order)
    order = order.gather(-1, ranked.argsort(dim=-1, descending=True, stable=True))[..., :k]
    ids, none = ids.gather(-1, order), none.gather(-1, order)
    scores = _times(scores.gather(-1, order), strength).masked_fill(none, -torch.inf)
    weights = scores.softmax(-1).masked_fill(none, 0)
    placed = torch.zeros_like(told[..., :k].flatten(-2)).scatter(-1, order, weights)
    return ids, weights, ranks.own(placed.unflatten(-1, (-1, k)).movedim(-2, 0))


def _narrow_scores(measure: str, query: Tensor, keys: Tensor, strength: Tensor) -> Tensor:
    return _scores(query, keys, measure, strength.to(_single(query).dtype))


def _has_kernel(query: Tensor, keys: Tensor, measure: str, mask: Tensor | None) -> bool:
    """Whether PyTorch's own kernel reads the part sooner, and tells its log-sum-exp."""
    return (
        measure != "negative_squared_distance"
        and mask is None
        and query.device.type == "cpu"
        and query.dtype in (torch.float32, torch.float64)
        and keys.shape[-2] >= SLOTS_WORTH_SPLITTING
        and streaming._forward is not None
    )


def _by_kernel(
    ranks: Ranks, query: Tensor, keys: Tensor, values: Tensor, measure: str, strength: Tensor
) -> Tensor:
    query, keys, _ = _as_dot_product(query, keys, measure, strength.squeeze(-1).to(query.dtype))
    width, value_width = query.shape[-1], values.shape[-1]
    if value_width > width:  # the kernel wants one width; to pad by nothing would be a copy
        query, keys = (F.pad(x, (0, value_width - width)) for x in (query, keys))
    elif value_width < width:
        values = F.pad(values, (0, width - value_width))
    query, keys, values = (x.contiguous().unsqueeze(1) for x in (query, keys, values))
    parts = max(1, streaming._parts(query, keys))
    split: Any = _MergedKernel.apply
    whole: Tensor = split(query, keys, values, parts, 1.0, ranks, value_width)
    return whole.squeeze(1)[..., :value_width]


# Both take the forward of one process for a part, put the whole in the place of the part's read
# and log-sum-exp, and go backward as one process does: the gradient of each part is exact then.


class _Kept:
    """What stands for the context of a function, to see what it keeps for its backward."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        self.tensors = tensors


class _Merged(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, score: Any, rough: Any, query: Tensor, keys: Tensor, values: Tensor,
        strength: Tensor, mask: Tensor | None, ranks: Ranks,
    ) -> Tensor:  # fmt: skip
        kept: Any = _Kept()
        _Streamed.forward(kept, score, rough, query, keys, values, strength, mask)
        *given, read, log_sum = kept.tensors
        read, log_sum = _merged(ranks, read, log_sum)
        ctx.save_for_backward(*given, read, log_sum)
        ctx.score = score
        return read.to(values.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *_Streamed.backward(ctx, grad), None


class _MergedKernel(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, values: Tensor, parts: int, scale: float,
        ranks: Ranks, value_width: int,
    ) -> Tensor:  # fmt: skip
        kept: Any = _Kept()
        _Split.forward(kept, query, keys, values, parts, scale)
        *given, read, log_sum = kept.tensors
        read, log_sum = _merged(ranks, read[..., :value_width], log_sum.unsqueeze(-1))
        read = F.pad(read, (0, query.shape[-1] - value_width))  # the kernel's one width
        ctx.save_for_backward(*given, read, log_sum.squeeze(-1))
        ctx.parts, ctx.scale = parts, scale
        return read.view(query.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *_Split.backward(ctx, grad), None, None


def _merged(ranks: Ranks, read: Tensor, log_sum: Tensor) -> tuple[Tensor, Tensor]:
    """Merge reads (..., V) and log-sum-exps (..., 1), which are infinite where there is nothing."""
    width, found = read.shape[-1], wide(log_sum)
    found = found.masked_fill(found == torch.inf, -torch.inf).contiguous()
    parts = ranks.stack(torch.cat((read, found.view(read.dtype)), dim=-1))  # in one message
    logs = parts[..., width:].contiguous().view(found.dtype)  # (R, ..., 1)
    highest = _unless_none(logs.amax(0))
    total = (logs - highest).exp().sum(0)
    share = (logs - highest).exp() / total.masked_fill(total == 0, 1)  # w
    whole = (share.to(read.dtype) * parts[..., :width]).sum(0)
    return whole, (highest + total.log()).masked_fill(total == 0, torch.inf).to(log_sum.dtype)
