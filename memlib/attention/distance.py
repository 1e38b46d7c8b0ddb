"""|q - k|² with all its digits, whatever the keys have in common.

2 q·k - |k|² - |q|² cancels: keys around 10,000 that are 1 apart have no digits left in float32.
So distances are made in float64, where the differences of float32 numbers are exact: of few
queries as differences, of many by a product of matrices around a centre of the keys, and again
as differences where even that would cancel. Blocks of keys pass by one after the other, so that
no copy of a large memory exists.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from memlib import _checks as checks

FEW = 4  # queries: up to so many, differences take less time than products
SMALL = 1 << 19  # numbers subtracted in less than a millisecond
BLOCK = 1 << 17  # numbers made at once: on a CPU, what the cache of a core holds
EVEN = 16  # a block is cut again into so many parts
SAMPLE = 64  # keys whose mean is the centre
COUNTS = 1e-6  # an error of a score that its weight would show


def squared_distance(query: Tensor, keys: Tensor, strength: float | Tensor = 0.0) -> Tensor:
    """(..., L, M), (..., N, M) -> (..., L, N), in `wide` numbers; arguments are trusted.

    Leading dimensions broadcast. The strength says what the distances will be multiplied with:
    the error of a product stays below `COUNTS`, and that of a distance below 1e-14 of the largest
    one from the centre. Gradients of every order are right.
    """
    if is_traced():
        return _by_products(wide(query), wide(keys))[0]
    apply: Any = _SquaredDistance.apply
    distance: Tensor = apply(query, keys, strength)
    return distance


def is_worth_sifting(keys: Tensor) -> bool:
    """Whether float32 would soon tell which of many keys are near."""
    return keys.device.type == "cpu" and keys.dtype != torch.float64 and keys.numel() > BLOCK


def rough_nearness(query: Tensor, keys: Tensor, strength: Tensor) -> tuple[Tensor, float]:
    """Return -strength * distance in float32, for strength (..., L), and its greatest error."""
    query, keys, worth = query.float(), keys.float(), strength.float().unsqueeze(-1)
    if query.shape[-2] <= FEW:
        distance = _by_differences(query, keys)
        most, scores = distance.amax(), distance.mul_(-worth)
    else:
        left, right, most = _factors(query, keys)
        scores = (left * -worth) @ right.mT
    return scores, float(_off(most, query.shape[-1]) * worth.amax())


def wide(x: Tensor) -> Tensor:
    """Return the same numbers in float64; in float32 on a device that has no other."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


def blocks(slots: int, numbers: int, times: int = 1) -> Iterator[slice]:
    """Cut the slots into blocks, where each slot stands for so many numbers."""
    step = max(1, times * BLOCK // max(1, numbers) // EVEN) * EVEN
    return (slice(start, start + step) for start in range(0, max(1, slots), step))


class _SquaredDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, strength: float | Tensor) -> Tensor:
        ctx.save_for_backward(query, keys)
        lead = checks.broadcast(query.shape[:-2], keys.shape[:-2])
        (queries, width), slots = query.shape[-2:], keys.shape[-2]
        rows, worth = lead.numel(), strength
        if isinstance(strength, Tensor):
            worth = wide(strength.detach()).amax() if strength.numel() else 0.0
        few = queries <= FEW or rows * queries * slots * width <= SMALL
        query = wide(query)
        parts = list(blocks(slots, rows * max(width, queries)))
        if len(parts) == 1:
            return _between(query, wide(keys), few, worth)
        result = query.new_empty(*lead, queries, slots)
        for part in parts:
            result[..., part] = _between(query, wide(keys[..., part, :]), few, worth)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        query, keys = ctx.saved_tensors
        for_query, for_keys, _ = ctx.needs_input_grad
        return (
            _pull(query, keys, grad) if for_query else None,
            _pull(keys, query, grad.mT) if for_keys else None,
            None,
        )


def _between(query: Tensor, keys: Tensor, few: bool, worth: float | Tensor) -> Tensor:
    if not few:
        distance, error = _by_products(query, keys)
        if not checks.anywhere(error * worth > COUNTS):
            return distance
    return _by_differences(query, keys)


def _by_differences(query: Tensor, keys: Tensor) -> Tensor:
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(query, keys, compute_mode=mode).square_()


def _by_products(query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return distances as products, and how far they are off at most."""
    left, right, most = _factors(query, keys)
    return (left @ right.mT).clamp_min_(0), _off(most, query.shape[-1])


def _factors(query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return two matrices whose product is |q|² + |k|² - 2 q·k, around a centre, and its size."""
    centre = _centre(keys)
    query, keys = query - centre, keys - centre
    far, near = (x.square().sum(-1, keepdim=True) for x in (query, keys))
    left = torch.cat([-2 * query, torch.ones_like(far), far], dim=-1)
    right = torch.cat([keys, near, torch.ones_like(near)], dim=-1)
    most = [x.detach().amax() if x.numel() else x.sum() for x in (far, near)]
    return left, right, most[0] + most[1]


def _off(most: Tensor, width: int) -> Tensor:
    """Return the error of a sum of so many squares, or products as large."""
    return most * (8 + width / 16) * torch.finfo(most.dtype).eps


def _centre(keys: Tensor) -> Tensor:
    """Return a mean of keys, (..., 1, M); any point is right, one among the keys is better."""
    step = max(1, keys.shape[-2] // SAMPLE)
    some = keys.detach()[..., ::step, :]
    return some.sum(-2, keepdim=True) / max(1, some.shape[-2])


def _pull(x: Tensor, others: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of x (..., L, M) by its distances from others (..., N, M)."""
    centre = _centre(wide(others))
    moved, total = wide(x) - centre, grad.sum(-1, keepdim=True)
    pulled = sum(
        grad[..., part] @ (wide(others[..., part, :]) - centre)
        for part in blocks(others.shape[-2], others.shape[:-2].numel() * others.shape[-1])
    )
    result = 2 * (moved * total - pulled)
    return result.sum_to_size(x.shape).to(x.dtype)


def is_traced() -> bool:
    """Whether a compiler, a transform of functions or a forward derivative wants plain steps."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )
