"""Which slots of a cache new tokens go to: each to the one after the newest token's.

What a row holds lies in the order of its positions, from slot 0 on, or, where a ring is full, from
the slot of the oldest token on.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from memlib import _checks as checks
from memlib.transformer.positions import _tokens_first


class _Route(NamedTuple):
    """Where T new tokens a row go, and what the cache knows of its slots then.

    Of a ring only the last N tokens stay, so that T' is the least of T and N.
    """

    column: Tensor | None  # (B, T'), which inputs these are; None for all in their order
    slot: Tensor  # (B, T'), each another one
    new: Tensor  # (B, T'), whether a token goes there; else the slot keeps its own
    positions: Tensor  # (B, N)
    lengths: Tensor  # (B,)
    taken: Tensor  # (B,), see `_taken`


class _Bounds(NamedTuple):
    """What is known of all rows of a cache without looking at their tensors."""

    low: int  # the least and the largest length
    high: int
    least: int  # the least and the largest number of slots taken, see `_taken`
    most: int
    gapless: bool  # every row holds the last of its tokens and none before a gap

    @property
    def even(self) -> bool:
        """Whether all rows are alike but for what their slots hold."""
        return self.low == self.high and self.least == self.most

    def after(self, tokens: int) -> "_Bounds":
        """Return what is known after so many more tokens in every row."""
        low, high, least, most, gapless = self
        return _Bounds(low + tokens, high + tokens, least + tokens, most + tokens, gapless)


def _bounded(positions: Tensor, lengths: Tensor, ring: bool) -> _Bounds:
    """Look at the tensors of a cache."""
    if not lengths.numel():
        return _Bounds(0, 0, 0, 0, True)
    held = _held(positions, lengths)
    count = (held >= 0).sum(-1)
    gapless = ((held < 0) | (held >= (lengths - count).unsqueeze(-1))).all()
    return _Bounds(*_ends(lengths, _taken(held, ring)), bool(gapless))


def _ends(lengths: Tensor, taken: Tensor) -> tuple[int, int, int, int]:
    """Return the least and the largest of both, waiting for their device once."""
    ends = torch.stack((*lengths.aminmax(), *taken.aminmax()))
    low, high, least, most = ends.tolist()
    return low, high, least, most


def _route(
    positions: Tensor, lengths: Tensor, tokens: int, mask: Tensor | None, ring: bool
) -> _Route:
    """Find slots for new tokens; without a ring for those alone that fit."""
    slots, device, held = positions.shape[1], lengths.device, _held(positions, lengths)
    taken = _taken(held, ring)
    count = torch.full_like(taken, tokens) if mask is None else mask.sum(-1)
    count = count if ring else count.minimum(slots - taken)
    after, count = (lengths + count, taken + count), count.unsqueeze(-1)
    token = torch.arange(min(tokens, slots), device=device).unsqueeze(0)
    if tokens > slots:
        token = token + (count - slots).clamp(min=0)
    column = token if tokens > slots else None
    if mask is not None and tokens > 1:
        column = _tokens_first(mask).gather(1, token.expand(len(mask), -1))
    position, new = lengths.unsqueeze(-1) + token, token < count
    slot = (taken.unsqueeze(-1) + token) % slots
    held = held.scatter(1, slot, torch.where(new, position, held.gather(1, slot)))
    return _Route(column, slot, new, held, *after)


def _held(positions: Tensor, lengths: Tensor) -> Tensor:
    """Return the positions (B, N) without those that the lengths (B,) do not cover, now -1."""
    return positions.masked_fill(positions >= lengths.unsqueeze(-1), -1)


def _taken(held: Tensor, ring: bool) -> Tensor:
    """Return how many slots are taken, (B, N) -> (B,); of a full ring, N and the next slot.

    Modulo N it is the slot of the next token either way.
    """
    slots, count = held.shape[1], (held >= 0).sum(-1)
    if not ring:
        return count
    return count + torch.where(count < slots, 0, (held.argmax(-1) + 1) % slots)


def _best(scores: Tensor, held: Tensor, n: int) -> Tensor:
    """Return the slots of the n best tokens, the oldest first: (B, N), (B, N) -> (B, n).

    Of equal scores the older token is better. Where there are fewer tokens, free slots follow.
    """
    age = torch.where(held < 0, torch.iinfo(held.dtype).max, held).argsort(dim=1, stable=True)
    scores = scores.masked_fill(held < 0, -math.inf).gather(1, age)
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :n]
    return age.gather(1, best.sort(dim=1).values)


def _newest(positions: Tensor, lengths: Tensor, count: int) -> Tensor:
    """Return which slots have one of the last tokens that a row has seen, (B, N)."""
    return positions >= (lengths - count).clamp(min=0).unsqueeze(-1)


def _filled(lengths: Tensor, slots: int) -> Tensor:
    """Return the positions of rows that have forgotten nothing: (B,) -> (B, N)."""
    last = lengths.unsqueeze(-1) - 1
    slot = torch.arange(slots, device=lengths.device)
    return (last - (last - slot) % slots).clamp(min=-1)


def _by_slot(weights: Tensor, positions: Tensor, ring: bool) -> Tensor:
    """Refuse weights whose columns are not slots; returns them as numbers that can be added up."""
    batch, slots = positions.shape
    checks.tensor("weights", weights)
    checks.shape("weights", weights, "(B, H, T, N)", B=batch)
    checks.together(**{"the cache": positions, "weights": weights})
    tokens, columns = weights.shape[2:]
    if columns > slots or (ring and 1 < tokens < columns):
        raise ValueError(f"weights must have a column a slot, at most {slots}; got {columns}")
    return weights.detach().to(torch.promote_types(weights.dtype, torch.float32))
