"""How tokens enter a cache: stored in their slots, and what each of them may read on its way."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from memlib import _checks as checks
from memlib.transformer.known import _Known
from memlib.transformer.positions import _next, _take, _visible
from memlib.transformer.slots import _Bounds, _ends, _held, _Route, _route


class _New(NamedTuple):
    """Tokens on their way into a cache."""

    keys: Tensor  # (B, G, T, M)
    values: Tensor  # (B, G, T, V)
    mask: Tensor | None  # (B, T), which of them are tokens and not padding
    in_place: bool  # first stored, then read: without a gradient, and nothing is overwritten
    even: int  # the length of all rows, if it is one and all get T tokens; else -1
    where: _Route | int  # they go; a number is the first of slots side by side, alike in all rows


class _Entering(_Known):
    """A cache that tokens enter, one a row or many.

    What a layer calls, having checked its arguments, is `_new`, `_join`, and `_commit` once all
    went well. Until then lengths and positions are as they were, and nothing that may still be
    read has changed.
    """

    def _step(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, None] | None:
        """Append a token a row if there is nothing else to check or to mask; None if there is.

        Nearly every step of decoding ends here. The careful way of `extend` would take as long
        as the read of 1 k tokens in a small layer.
        """
        bounds, held_keys, held_values = self._bounds(), self.keys, self.values
        batch, heads, slots, width = held_keys.shape
        if not (
            bounds
            and bounds.even
            and (bounds.gapless if self.ring else bounds.most < slots)
            and isinstance(keys, Tensor)
            and isinstance(values, Tensor)
            and keys.shape == (batch, heads, 1, width)
            and values.shape == (batch, heads, 1, held_values.shape[3])
            and keys.dtype == values.dtype == held_keys.dtype
            and keys.device == values.device == held_keys.device
            and keys.layout == values.layout == held_keys.layout
            and not keys.requires_grad
            and not values.requires_grad
            and math.isfinite(_sum(keys, values))
        ):
            return None
        where = bounds.most % slots, 0, min(bounds.most + 1, slots)
        readable = _put(held_keys, keys, *where), _put(held_values, values, *where), None
        positions, lengths = self.positions, self.lengths
        positions.narrow(1, where[0], 1).fill_(bounds.low)
        self._remember(positions, lengths.add_(1), bounds.after(1))
        return readable

    def _new(self, keys: Tensor, values: Tensor, mask: Tensor | None) -> _New:
        """Find out where new tokens go."""
        tokens, even, bounds = keys.shape[2], self._even(mask), self._bounds()
        graph = torch.is_grad_enabled()
        in_place = not (graph and (keys.requires_grad or values.requires_grad))
        if tokens != 1:  # a ring would overwrite what they read, a gradient wants a copy
            in_place = even < 0 and not self.ring and not graph
        first = bounds.most % self.slots if bounds else 0
        side_by_side = even >= 0 and first + tokens <= self.slots
        where: _Route | int = first if side_by_side else self._route(tokens, mask)
        return _New(keys, values, mask, in_place, even, where)

    def _join(
        self, new: _New, window: int | None = None, from_first: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the keys and values that new tokens may read, and which each of them may.

        Without a ring, each lies where its slot is, counted from the first of those returned;
        that is slot 0 if there is no window, or `from_first`.
        """
        keys, values, mask, in_place, even, where = new
        tokens, window = keys.shape[2], self.slots if self.ring and window is None else window
        least, most, gapless = (self._bounds() or _Bounds(0, 0, 0, self.slots, False))[2:]
        rows = slice(1 if even >= 0 and gapless else None)  # one may stand for all
        laid = in_place or (even < 0 and not self.ring)  # new ones are in their slots
        stop = min(most + laid * tokens, self.slots)
        # the slots with tokens that the window of any row reaches
        start = 0 if self.ring or window is None or from_first else max(0, least + 1 - window)
        if in_place and even >= 0 and (window is None or (gapless and stop - start <= window)):
            put = most % self.slots, start, stop - start
            return _put(self.keys, keys, *put), _put(self.values, values, *put), None
        queries = self._next(tokens, mask)
        if laid:
            keys, values = self._store(new)
            route = self._route(tokens, mask) if isinstance(where, int) else where
            places = route.positions[rows, start:stop]
            keys, values = keys[:, :, start:stop], values[:, :, start:stop]
            return keys, values, _visible(queries, places, window)
        places = _held(self.positions, self.lengths)[rows, start:stop]
        places = torch.cat((places, queries.expand(len(places), -1)), dim=1)
        if stop > start:
            held = self.keys[:, :, start:stop], self.values[:, :, start:stop]
            keys, values = (torch.cat(x, dim=2) for x in zip(held, (keys, values), strict=True))
        return keys, values, _visible(queries, places, window)

    def _commit(self, new: _New) -> None:
        """Make the tokens part of the memory."""
        where, even, tokens, bounds = new.where, new.even, new.keys.shape[2], self._bounds()
        if not new.in_place:
            detached = new._replace(keys=new.keys.detach(), values=new.values.detach())
            self._store(detached._replace(in_place=True))
        if isinstance(where, int):
            places = self.positions.narrow(1, where, tokens)
            places.fill_(even) if tokens == 1 else places.copy_(self._next(tokens))
            self.lengths.add_(tokens)
        else:
            self.positions.copy_(where.positions)
            self.lengths.copy_(where.lengths)
        if bounds:
            after = bounds.after(tokens)
            if new.mask is not None and not isinstance(where, int):
                after = _Bounds(*_ends(where.lengths, where.taken), bounds.gapless)
            self._remember(self.positions, self.lengths, after)

    def _store(self, new: _New) -> list[Tensor]:
        """Put keys and values into their slots, or, if not in place, into those of copies."""
        where, after = new.where, []
        for held, x in ((self.keys, new.keys), (self.values, new.values)):
            buffer = held if new.in_place else held.clone()
            if isinstance(where, int):
                buffer.narrow(2, where, x.shape[2]).copy_(x)
            else:
                slot = where.slot[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
                x = x if where.column is None else _take(x, where.column, 2)
                fresh = where.new[:, None, :, None]
                buffer.scatter_(2, slot, x.to(buffer.dtype).where(fresh, buffer.gather(2, slot)))
            after.append(buffer)
        return after

    def _route(self, tokens: int, mask: Tensor | None) -> _Route:
        return _route(self.positions, self.lengths, tokens, mask, self.ring)

    def _next(self, tokens: int, mask: Tensor | None = None) -> Tensor:
        """Return the positions of the next tokens, (B, T), or (1, T) if all rows agree."""
        if (even := self._even(mask)) < 0:
            return _next(self.lengths, tokens, mask)
        return torch.arange(even, even + tokens, device=self.lengths.device).unsqueeze(0)


def _put(held: Tensor, new: Tensor, slot: int, start: int, size: int) -> Tensor:
    """Store a token of every row in this slot; return `size` slots from `start` on."""
    held.narrow(2, slot, 1).copy_(new)
    return held.narrow(2, start, size)


def _sum(keys: Tensor, values: Tensor) -> Tensor:
    """A number that is finite if nothing is NaN or infinite and no sum overflows."""
    return keys.sum() + values.sum()


def _check_finite(keys: Tensor, values: Tensor, /, **inputs: Tensor) -> None:
    """Refuse NaN and infinity in what is about to be stored."""
    total = _sum(keys, values)
    if checks.anywhere(total - total):  # 0, or NaN, which is true
        checks.finite((keys * 0).sum() + (values * 0).sum(), **inputs)
