"""Which slots of a cache new tokens go to: the token of position p to slot p mod N."""

from typing import NamedTuple

import torch
from torch import Tensor

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


def _route(
    positions: Tensor, lengths: Tensor, tokens: int, mask: Tensor | None, ring: bool
) -> _Route:
    """Find slots for new tokens; without a ring for those alone that fit."""
    slots, device = positions.shape[1], lengths.device
    after = lengths + (tokens if mask is None else mask.sum(-1))
    after = after if ring else after.clamp(max=slots)
    count = (after - lengths).unsqueeze(-1)
    token = torch.arange(min(tokens, slots), device=device).unsqueeze(0)
    if tokens > slots:
        token = token + (count - slots).clamp(min=0)
    column = token if tokens > slots else None
    if mask is not None and tokens > 1:
        column = _tokens_first(mask).gather(1, token.expand(len(mask), -1))
    position, new = lengths.unsqueeze(-1) + token, token < count
    slot, held = position % slots, _held(positions, lengths)
    held = held.scatter(1, slot, torch.where(new, position, held.gather(1, slot)))
    return _Route(column, slot, new, held, after)


def _held(positions: Tensor, lengths: Tensor) -> Tensor:
    """Return the positions (B, N) without those that the lengths (B,) do not cover, now -1."""
    return positions.masked_fill(positions >= lengths.unsqueeze(-1), -1)


def _filled(lengths: Tensor, slots: int) -> Tensor:
    """Return the positions of rows that have forgotten nothing: (B,) -> (B, N)."""
    last = lengths.unsqueeze(-1) - 1
    slot = torch.arange(slots, device=lengths.device)
    return (last - (last - slot) % slots).clamp(min=-1)
