"""How a sharded store is changed, and asked for its pairs: each rank by what it holds itself."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from memlib import _checks as checks
from memlib.store import shards
from memlib.store.spread import Spread

F = TypeVar("F", bound=Callable[..., Any])


def together(verb: F) -> F:
    """Let a verb be that of the shard where there is no other rank; threads take turns."""

    @wraps(verb)
    def call(self: Spread, *args: Any, **kwargs: Any) -> Any:
        with self.shard._lock:
            if self._ranks.size == 1:
                return getattr(self.shard, verb.__name__)(*args, **kwargs)
            return verb(self, *args, **kwargs)

    return cast(F, call)


class Changing(Spread):
    """Pairs that are added, overwritten, deleted and given back, by their ids."""

    @together
    def add(self, keys: Tensor, values: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """See `Store.add`."""
        shard, rank, rows = self.shard, self._ranks.rank, len(self.shard.ids)
        new, told = self._agree(
            "add", lambda: shard._check_pairs(keys, values, lengths),
            *self._alike(keys, values, lengths),
            part=lambda new: np.zeros(rows, int) if new is None else new,
        )  # fmt: skip
        shares = told if self.queries == "own" else shards.shares(self._held, new, self._next)
        before, mine = shares[:rank].sum(0), shares[rank]
        first = self._next + before  # the id of a row's first pair here
        begin, skip = (first, 0 * before) if self.queries == "own" else (self._next, before)
        pick = skip[:, None] + np.arange(mine.max(initial=0))
        row = torch.arange(rows).unsqueeze(1)
        pick = torch.from_numpy(pick.clip(max=max(0, keys.shape[1] - 1)))

        def change() -> None:
            shard._ring = shard._ring and bool((first == shard._next).all())
            shard._next = first.copy()
            shard.add(keys[row, pick], values[row, pick], lengths=torch.from_numpy(mine))

        self._agree("add", change)
        order = np.arange(keys.shape[1])
        ids = np.where(order < new[:, None], begin[:, None] + order, -1)
        return torch.from_numpy(ids).to(shard.ids.device)

    @together
    def overwrite(self, ids: Tensor, keys: Tensor, values: Tensor) -> None:
        """See `Store.overwrite`."""
        shard = self.shard

        def check() -> tuple[Tensor, ...]:
            shard._check_pairs(keys, values, None)
            checks.integers("ids", ids)
            checks.shape("ids", ids, "(B, T)", B=len(keys), T=keys.shape[1])
            return ids.long(), keys, values

        (ids, *pairs), _, _ = self._joined("overwrite", check, *self._alike(ids, keys, values))
        checks.differ("ids", ids, "within a row")
        mine = self._mine("overwrite", ids)
        self._agree("overwrite", lambda: shard.overwrite(mine, *pairs))

    @together
    def delete(self, ids: Tensor) -> None:
        """See `Store.delete`."""
        (every,), _, _ = self._joined("delete", lambda: [self._in_rows(ids)], *self._alike(ids))
        mine = self._mine("delete", every)
        self._agree("delete", lambda: self.shard.delete(mine))

    @together
    def get(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """See `Store.get`."""
        (every,), own, _ = self._joined("get", lambda: [self._in_rows(ids)], *self._alike(ids))
        mine = self._mine("get", every)
        pairs, _ = self._agree("get", lambda: self.shard.get(mine))
        keys, values = (self._back(self._ranks.total(x), own) for x in pairs)
        return keys.reshape(*ids.shape, keys.shape[-1]), values.reshape(
            *ids.shape, values.shape[-1]
        )
