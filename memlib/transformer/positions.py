"""Where tokens stand in their text: what padding has no part in, and what masks are made from.

Positions are counted in each row, from 0 and over its tokens alone; below 0 there is none.
"""

from functools import lru_cache

import torch
from torch import Tensor

from memlib import _checks as checks
from memlib.attention.distance import wide


def _are_tokens(
    lengths: Tensor | None, mask: Tensor | None, batch: int, tokens: int, like: Tensor
) -> Tensor | None:
    """Return which inputs are tokens and not padding, (B, T); None if all of them are."""
    if mask is None:
        if lengths is None:
            return None
        _check_lengths(lengths, batch, tokens, like)
        mask = torch.arange(tokens, device=lengths.device) < lengths.unsqueeze(-1)
    elif lengths is not None:
        raise ValueError("padding must be told by lengths or by mask; got both")
    else:
        _check_mask(mask, batch, tokens, like)
    return None if checks.anywhere(mask.all()) else mask


def _next(seen: Tensor, tokens: int, mask: Tensor | None) -> Tensor:
    """Return the positions of the next tokens after so many, (B,) -> (B, T); -1 at padding."""
    if mask is None:
        return seen.unsqueeze(-1) + torch.arange(tokens, device=seen.device)
    return (seen.unsqueeze(-1) + mask.cumsum(-1) - 1).masked_fill(~mask, -1)


def _visible(queries: Tensor, slots: Tensor, window: int | None) -> Tensor:
    """Which slots each query may read, by their positions: (B, T), (B, N) -> (B, 1, T, N)."""
    age = queries.unsqueeze(-1) - slots.unsqueeze(-2)
    mask = (age >= 0) & (slots >= 0).unsqueeze(-2)
    return (mask if window is None else mask & (age < window)).unsqueeze(1)


def _tokens_first(mask: Tensor) -> Tensor:
    """Return the order in which padding comes last, tokens staying in theirs: (B, T) -> (B, T)."""
    return (~mask).byte().argsort(dim=1, stable=True)


def _take(x: Tensor, index: Tensor, dim: int = 1) -> Tensor:
    """Gather along `dim`, from each row its own: (B, ..., N, D), (B, T) -> (B, ..., T, D)."""
    shape = [1] * x.ndim
    shape[0], shape[dim] = index.shape
    return x.gather(dim, index.view(shape).expand(*x.shape[:dim], -1, *x.shape[dim + 1 :]))


def _check_lengths(
    lengths: Tensor,
    batch: int,
    most: int | None,
    like: Tensor,
    name: str = "lengths",
    limit: str = "T",
) -> None:
    checks.integers(name, lengths)
    checks.shape(name, lengths, "(B,)", B=batch)
    if lengths.device != like.device:
        raise ValueError(f"{name} must be on device {like.device}; got {lengths.device}")
    wrong = lengths < 0 if most is None else (lengths < 0) | (lengths > most)
    if checks.anywhere(wrong):
        rule = "at least 0" if most is None else f"in [0, {limit} = {most}]"
        raise ValueError(f"{name} must be {rule}; got {int(lengths[wrong][0])}")


def _check_mask(mask: object, batch: int, tokens: int, like: Tensor) -> None:
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a torch.Tensor; got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must have dtype torch.bool (True = a token); got {mask.dtype}")
    checks.shape("mask", mask, "(B, T)", B=batch, T=tokens)
    if mask.device != like.device:
        raise ValueError(f"mask must be on device {like.device}; got {mask.device}")


# What queries and keys know of their positions


def _turns(positions: Tensor, width: int, base: float, kind: torch.dtype) -> Tensor:
    """Return the cosines that numbers i and i + M/2 share, then their sines with the signs.

    Shapes: (..., T) -> (..., T, 2 M). The angles are `wide`: in float32 the cosines at
    position 5,000 would be off by 1e-4, at a million by 2e-2.
    """
    half = width // 2
    rates = base ** (wide(torch.arange(half, device=positions.device)) / -half)
    angles = wide(positions).unsqueeze(-1) * rates
    cos, sin = angles.cos().to(kind), angles.sin().to(kind)
    return torch.cat((cos, cos, -sin, sin), dim=-1)


@lru_cache(maxsize=8)
def _turn_at(
    position: int, device: torch.device, inference: bool, width: int, base: float, kind: torch.dtype
) -> Tensor:
    """`_turns` for one token, which all layers of a model ask for in a step of decoding.

    What was made in inference mode may be used in inference mode alone, so they are kept apart.
    """
    return _turns(torch.full((1, 1), position, device=device), width, base, kind)


def _rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the pairs of numbers i and i + M/2 of (B, H, T, M) by these angles."""
    cos, sin = turns.unsqueeze(1).chunk(2, dim=-1)
    wide = x.to(turns.dtype)
    return torch.addcmul(wide * cos, wide.roll(x.shape[-1] // 2, dims=-1), sin).to(x.dtype)
