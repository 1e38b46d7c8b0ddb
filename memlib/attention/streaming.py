"""softmax(q kᵀ) v without the matrix of scores: the engine under `memlib.attend`.

PyTorch's scaled_dot_product_attention streams over blocks of slots, but on the CPU it shares
its work out by batch row and block of queries alone, so that few queries of a large memory keep
one core busy. Here such a read is split over the slots too: each part returns its own softmax
and log-sum-exp, and the softmax of the latter combines the parts (Milakov and Gimelshein 2018,
arXiv 1805.02867, section 3).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib import _checks as checks
from memlib.attention import gpu
from memlib.attention.distance import is_traced

QUERY_BLOCK = 32  # queries that one task of PyTorch's CPU kernel handles
SLOTS_WORTH_SPLITTING = 8192  # below this the second core costs more than it gives
VECTOR = 16  # slots that the widest vector register (AVX-512) holds

_KERNEL = "_scaled_dot_product_flash_attention_for_cpu"
_forward: Any = getattr(torch.ops.aten, _KERNEL, None)
_backward: Any = getattr(torch.ops.aten, _KERNEL + "_backward", None)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, scale: float = 1.0
) -> Tensor:
    """(..., L, M), (..., N, M), (..., N, V) -> (..., L, V); arguments are trusted."""
    lead = checks.broadcast(query.shape[:-2], keys.shape[:-2], values.shape[:-2])
    shape = (*lead, query.shape[-2], values.shape[-1])
    if 0 in (*shape, keys.shape[-2]):
        return (query @ keys.mT).softmax(dim=-1) @ values

    if _is_shared(keys, values, mask):  # one memory read by many is one read of many queries
        query = query.reshape(-1, query.shape[-1])
        keys, values = keys.flatten(0, -2), values.flatten(0, -2)
        mask, lead = None if mask is None else mask.flatten(), torch.Size()
    # SDPA is at its best in four dimensions
    query, keys, values = (_four_dimensional(x, lead) for x in (query, keys, values))
    mask = None if mask is None else _four_dimensional_mask(mask, lead)
    return _widen_and_attend(query, keys, values, mask, scale)[..., : shape[-1]].reshape(shape)


def _is_shared(keys: Tensor, values: Tensor, mask: Tensor | None) -> bool:
    rows = [keys.shape[:-2], values.shape[:-2], () if mask is None else mask.shape[:-1]]
    return all(math.prod(row) == 1 for row in rows)


def _four_dimensional(x: Tensor, lead: Sequence[int]) -> Tensor:
    x = x.expand(*lead, *x.shape[-2:])
    while x.ndim < 4:
        x = x.unsqueeze(x.ndim - 2)
    return x.flatten(0, -4)


def _four_dimensional_mask(mask: Tensor, lead: Sequence[int]) -> Tensor:
    """The same mask, no larger than it must be: SDPA makes floats of it."""
    mask = _with_queries(mask, lead)
    if mask.shape[:-3].numel() > 1:  # these become one dimension
        mask = mask.expand(*lead[:-1], *mask.shape[-3:])
    return _four_dimensional(mask, mask.shape[:-2])


def _with_queries(mask: Tensor, lead: Sequence[int]) -> Tensor:
    """The same mask with as many dimensions as the scores."""
    return mask.view(*[1] * (len(lead) + 2 - mask.ndim), *mask.shape)


def _widen_and_attend(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    if query.device.type == "cpu" and (extra := values.shape[-1] - query.shape[-1]):
        # the CPU kernel wants one width; with two, SDPA would build the scores
        query, keys = (F.pad(x, (0, max(extra, 0))) for x in (query, keys))
        values = F.pad(values, (0, max(-extra, 0)))
    # the kernel walks along the last dimension; where that has strides, SDPA would build the scores
    query, keys, values = (
        x if x.stride(-1) == 1 else x.contiguous() for x in (query, keys, values)
    )
    if _is_gpu(query):
        return gpu.attend(query, keys, values, mask, scale)
    if mask is None and (parts := _parts(query, keys)) > 1:
        split: Any = _Split.apply
        whole: Tensor = split(query, keys, values, parts, scale)
        return whole
    if mask is None and query.device.type == "cpu" and keys.shape[-2] < VECTOR:
        # over less than a vector the CPU kernel takes NaN scores for -inf; with a mask it does not
        mask = torch.ones(1, 1, 1, keys.shape[-2], dtype=torch.bool, device=query.device)
    return F.scaled_dot_product_attention(query, keys, values, mask, scale=scale)


def _is_gpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


def _parts(query: Tensor, keys: Tensor) -> int:
    """How many parts of the slots keep every core busy."""
    if query.device.type != "cpu" or _forward is None:
        return 1
    if is_traced() or torch.is_autocast_enabled("cpu"):
        return 1  # _Split has no rules for these
    if keys.shape[-2] < SLOTS_WORTH_SPLITTING:
        return 1
    tasks = query.shape[:-2].numel() * math.ceil(query.shape[-2] / QUERY_BLOCK)
    return math.ceil(torch.get_num_threads() / tasks)


class _Split(torch.autograd.Function):
    """SDPA of (B, H, L, M), (B, H, N, M), (B, H, N, M) in `parts` parts of the slots."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, values: Tensor, parts: int, scale: float
    ) -> Tensor:
        pieces = [_forward(*piece, scale=scale) for piece in _pieces(query, keys, values, parts)]
        read = torch.cat([r for r, _ in pieces], dim=1)  # (B·H, parts, L, M)
        log_sums = torch.cat([s for _, s in pieces], dim=1)  # (B·H, parts, L)
        share = log_sums.softmax(dim=1).to(read.dtype)
        result = (share.unsqueeze(-1) * read).sum(dim=1, keepdim=True)
        ctx.save_for_backward(query, keys, values, result, log_sums.logsumexp(1, keepdim=True))
        ctx.parts, ctx.scale = parts, scale
        return result.view(query.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, values, result, log_sum = ctx.saved_tensors
        with torch.no_grad():
            grad = grad.contiguous().view(result.shape)
            # given the result and log-sum of the whole, the gradient of each part is exact
            grads = [
                _backward(
                    grad.expand_as(q), q, k, v, result.expand_as(q),
                    log_sum.expand(q.shape[:-1]).contiguous(), 0.0, False, scale=ctx.scale,
                )
                for q, k, v in _pieces(query, keys, values, ctx.parts)
            ]  # fmt: skip
            grad_query = sum(g.sum(dim=1) for g, _, _ in grads).view(query.shape)
            grad_keys, grad_values = (
                torch.cat([g[i].flatten(1, 2) for g in grads], dim=1).view(keys.shape)
                for i in (1, 2)
            )
        return *_once((grad_query, grad_keys, grad_values), grad, query, keys, values), None, None


class _Once(torch.autograd.Function):
    """Gradients as they are, which refuse to be differentiated again rather than give 0."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise RuntimeError(
            "attend must be differentiated once only; for second derivatives take "
            "read(address(query, keys), values) or need_weights=True"
        )


def _once(grads: Sequence[Tensor | None], *inputs: Tensor) -> tuple[Tensor | None, ...]:
    if not torch.is_grad_enabled():  # nobody keeps the graph of these gradients
        return tuple(grads)
    once: Any = _Once.apply
    some = [x for x in grads if x is not None]
    guarded = iter(once(len(some), *some, *inputs))
    return tuple(None if x is None else next(guarded) for x in grads)


def _pieces(
    query: Tensor, keys: Tensor, values: Tensor, parts: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Cut the slots into `parts` equal parts, a dimension of heads, and what is left over."""
    query, keys, values = (x.flatten(0, 1).unsqueeze(1) for x in (query, keys, values))
    even = keys.shape[-2] // parts * parts
    pieces = []
    for start, end, count in ((0, even, parts), (even, keys.shape[-2], 1)):
        if end > start:
            k, v = (
                x[:, 0, start:end].unflatten(1, (count, -1)) for x in (keys, values)
            )  # (B·H, count, n, M)
            pieces.append((query.expand(-1, count, -1, -1), k, v))
    return pieces
