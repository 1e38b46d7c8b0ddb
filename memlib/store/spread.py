"""What the ranks of a sharded store say to one another before, while and after they do a thing.

Each verb begins with a round in which every rank checks and looks at its own part, and nothing is
changed. It fails on all ranks or on none, so that nobody waits for what will not come.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib import _checks as checks
from memlib.attention.scores import _scores, _single
from memlib.store import shards
from memlib.store.indexes import filled
from memlib.store.pairs import Ints, _chosen
from memlib.store.partial import best, entering, recorded, stream
from memlib.store.ranks import Ranks
from memlib.store.store import Store

T = TypeVar("T")


class Spread:
    """A `Store` on each rank, the `shard`, and what is known of all of them.

    Attributes:
        shard: the store of this rank.
        queries: "same" or "own", see `memlib.ShardedStore`.
    """

    shard: Store
    queries: str

    def _begin(self, ranks: Ranks, queries: str, make: Callable[[], Store]) -> None:
        """Make the shards, which must be alike."""
        self._ranks, self.queries = ranks, queries
        self.shard, kinds = ranks.agree(
            type(self).__name__, make, [queries], lambda made: [shards.kind(made) if made else 0]
        )
        if kinds.unique().numel() > 1:
            raise ValueError("shards must be alike in rows, widths, measure and dtypes")
        self._agree("open", lambda: None)

    # Rounds

    def _agree(
        self, verb: str, work: Callable[[], T], *given: object,
        part: Callable[[T | None], Sequence[int] | Ints] = lambda _: (),
    ) -> tuple[T, Ints]:  # fmt: skip
        """`Ranks.agree`; and learn what comes next in each row, and how many pairs a rank holds.

        That is learnt also where a rank failed, since the others may have done what it did not.
        """
        rows = len(self.shard.ids)

        def hear(parts: Tensor) -> None:
            each = parts.numpy()
            self._next: Ints = each[:, :rows].max(0)  # the id that comes next, (B,)
            self._held: Ints = each[:, rows : 2 * rows]  # (R, B)

        def told(done: T | None) -> list[int]:
            own = [*part(done)]  # as many numbers in every verb: a rank may have called another
            return [*self.shard._next, *self.shard._held, *own, *[0] * (max(1, rows) - len(own))]

        done, parts = self._ranks.agree(verb, work, (self.queries, *given), told, hear)
        return done, parts.numpy()[:, 2 * rows :]

    def _alike(self, *given: object) -> tuple[object, ...]:
        """Return what must be the same on every rank."""
        return given if self.queries == "same" else ()

    def _joined(
        self, verb: str, check: Callable[[], Sequence[Tensor]], *given: object
    ) -> tuple[list[Tensor], slice, list[int]]:
        """Return what all ranks give, (B, n, ...); where one's own is of it; and each rank's n.

        Args:
            verb: what is done.
            check: refuses what this rank gives, or returns it.
            *given: what is the same on every rank.
        """
        parts, counts = self._agree(
            verb, check, *given, part=lambda parts: [parts[0].shape[1] if parts else 0]
        )
        if self.queries == "same":
            return [*parts], slice(None), [parts[0].shape[1]]
        lengths = counts[:, 0].tolist()
        start = sum(lengths[: self._ranks.rank])
        own = slice(start, start + lengths[self._ranks.rank])
        return [self._ranks.join(x, lengths) for x in parts], own, lengths

    def _back(self, x: Tensor, own: slice) -> Tensor:
        """Return a rank's own of what is shared; losses of other ranks reach the rest."""
        if self.queries == "same":
            return x
        return (self._ranks.enter(x) if x.is_floating_point() else x)[:, own]

    def _collected(self, verb: str, work: Callable[[], Tensor], *given: object) -> Tensor:
        """Return the ids that the ranks found, (B, K), ascending, then -1."""
        ids, counts = self._agree(
            verb, work, *given, part=lambda ids: [0 if ids is None else ids.shape[1]]
        )
        padded = F.pad(ids, (0, int(counts.max()) - ids.shape[1]), value=-1)
        every = self._ranks.stack(padded).movedim(0, 1).flatten(1)
        return _chosen(every, every >= 0)

    # Pairs by their ids

    def _in_rows(self, ids: Tensor) -> Tensor:
        """(B, ...) -> (B, T) int64; a store of one row holds all of any ids."""
        shard = self.shard
        checks.integers("ids", ids)
        checks.alike(**{"the store's ids": shard.ids, "ids": ids.long()})
        checks.rows("ids", ids if ids.ndim < 2 else ids.flatten(1), "(B, T)", len(shard.ids))
        return ids.long().reshape(len(shard.ids), -1 if len(shard.ids) else 0)

    def _mine(self, verb: str, ids: Tensor) -> Tensor:
        """Return those of ids (B, T) that this rank holds, -1 for the rest; all must be held."""
        order = self.shard.ids.sort().values
        place = torch.searchsorted(order, ids.contiguous()).clamp(max=order.shape[1] - 1)
        here = (order.gather(1, place) == ids) & (ids >= 0)
        missing = (self._ranks.sum(here.long()) == 0) & (ids != -1)
        if missing.any():
            row, pair = (int(x) for x in missing.nonzero()[0])
            raise ValueError(f"ids must be held in their row; got {ids[row, pair]} in row {row}")
        return ids.masked_fill(~here, -1)

    # Reading

    def _asked(
        self, verb: str, query: Tensor, strength: float | Tensor
    ) -> tuple[Tensor, float | Tensor, Callable[[Tensor], Tensor], list[int]]:
        """Return the queries of all ranks, and what else is known of them.

        Returns:
            Queries and strengths; what gives one's own of a result; and how many each rank asks.
        """
        if self.queries == "same":  # checked where the work is done, in the same round
            return query, strength, lambda x: x, []
        rows = len(self.shard.ids)

        def check() -> list[Tensor]:
            found = checks.one_each(
                "strength", strength, self.shard._checked(query).shape[:-1], query, low=0
            )
            given = [query]
            if isinstance(found, Tensor):
                given.append(found.expand(query.shape[:-1]))
            return [x.flatten(0, 1).unsqueeze(0) for x in given] if rows == 1 else given

        number = "a tensor" if isinstance(strength, Tensor) else strength
        every, own, lengths = self._joined(verb, check, number, *recorded(query, strength))

        def back(x: Tensor) -> Tensor:
            return self._back(x, own).reshape(*query.shape[:-1], *x.shape[2:])

        return every[0], every[1] if len(every) > 1 else strength, back, lengths

    def _check_query(
        self, query: Tensor, k: int, strength: float | Tensor
    ) -> tuple[int, float | Tensor]:
        query = self.shard._checked(query)
        strength = checks.one_each("strength", strength, query.shape[:-1], query, low=0)
        k = checks.integer("k", k, 1)
        if k > (most := int(self._held.sum(0).max(initial=0))) > 0:
            raise ValueError(f"k must be at most the {most} pairs of the fullest row; got {k}")
        return k, strength

    def _whole(self, query: Tensor, k: int, strength: float | Tensor) -> Tensor:
        """Read all pairs."""
        query, strength, back, _ = self._asked("read", query, strength)
        shard, ranks = self.shard, self._ranks

        def work() -> tuple[Tensor, ...]:
            self._check_query(query, k, strength)
            checks.tensor("values", shard.values)
            keys, values, ids = shard._all()
            if torch.is_grad_enabled():  # what is added before backward must not change these
                keys, values = keys.clone(), values.clone()
            return keys, values, ids

        given = query, k, strength, *recorded(query, strength, shard.values)
        (keys, values, ids), _ = self._agree("read", work, *given, "whole")
        mask = filled(ids, shard._held)
        mask = mask if mask is None else mask.unsqueeze(1)
        entered = ranks.enter(query), keys, values, shard.measure, entering(ranks, strength), mask
        value = stream(ranks, *entered)
        checks.finite(value, query=query, strength=strength)
        return back(value)

    def _nearest(
        self, verb: str, query: Tensor, k: int, strength: float | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `read` reads of the k nearest of all ranks, their ids and weights."""
        query, strength, back, _ = self._asked(verb, query, strength)
        shard, ranks = self.shard, self._ranks

        def work() -> tuple[Tensor, ...]:
            self._check_query(query, k, strength)
            if verb == "read":
                checks.tensor("values", shard.values)
            keys, _, ids = shard._all()
            rows = query.reshape(1, -1, shard.width) if len(keys) == 1 else query
            slots = shard._search(rows, keys, ids, shard._held, k, shard.effort)
            slots = slots.reshape(*query.shape[:2], k)
            found = shard._at(shard.keys, slots), shard._at(shard.values, slots)
            scores = _scores(ranks.enter(query).unsqueeze(2), found[0], shard.measure).squeeze(2)
            return scores, shard._named(slots), found[1]

        given = query, k, strength, *recorded(query, strength, shard.values)
        (scores, ids, values), _ = self._agree(verb, work, *given)
        ids, weights, mine = best(ranks, scores, ids, strength)
        value = weights
        if verb == "read":
            near = _single(values)
            value = ranks.total((mine.to(near.dtype).unsqueeze(2) @ near).squeeze(2))
        checks.finite(value, query=query, strength=strength)
        return back(value.to(values.dtype)), back(ids), back(weights.to(query.dtype))
