"""A store over several machines: each rank of `torch.distributed` holds a part of the pairs."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

import torch
from torch import Tensor

from memlib import _checks as checks
from memlib.store import shards
from memlib.store.changing import Changing, together
from memlib.store.ranks import Ranks
from memlib.store.store import Store

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Queries = Literal["same", "own"]


class ShardedStore(Changing):
    r"""A `Store` in parts, one on each rank, changed in place: :math:`r = \sum_i w_i r_i`.

    It has the verbs of `Store`, with the same arguments, and gives the same: the k nearest of all
    pairs (of keys equally near those with the lowest ids, where they lie on several ranks), exact
    reads by `memlib.attend_sharded`, gradients to the query and to ``shard.values``. Its ranks are
    the processes of `torch.distributed`, and every one must call the same verbs in the same order,
    and go backward together. Where there is no group, or one rank, it is its `shard`.

    ======= ====================================================================================
    queries what each rank gives
    ======= ====================================================================================
    same    the same to every call, and every rank gets the same; one loss, computed alike
            everywhere. New pairs go to the ranks that hold fewest. What differs is refused.
    own     queries, keys, values and ids of its own, as many as it likes, 0 too, and it gets what
            belongs to them. Losses differ by rank: a gradient is that of their sum. New pairs stay
            where they were given, so that nobody ever needs to hold them all.
    ======= ====================================================================================

    An id is told once in the whole store, and a pair keeps it. `capacity` is that of each shard,
    which forgets its own first pairs. A call that one rank refuses raises on every rank and changes
    nothing; one that a rank can't finish (its disk is full) raises on every rank, but is done
    on the others. Where a rank has died, the others get a ConnectionError within the timeout of the
    group, ``init_process_group(timeout=...)``; what a rank holds it can still save, as
    ``shard.save(path)``. A copy and a pickle are those of the shard, a plain `Store`; `torch.load`
    with ``weights_only`` refuses the pickle.

    Args:
        width: see `Store`.
        value_width: see `Store`.
        group: of the ranks; all processes when None.
        queries: "same" or "own", see above.
        **options: of each shard, see `Store`.

    Attributes:
        shard: the `Store` of this rank, to be read alone, saved or verified; not changed.

    Raises:
        TypeError: as `Store`.
        ValueError: as `Store`; ranks differ, or this process is in no group.

    Source:
        Rae et al. 2016, section 3.1 (arXiv 1610.09027); merging: Milakov and Gimelshein 2018,
        section 3 (arXiv 1805.02867).

    Example:
        >>> import torch
        >>> from memlib import ShardedStore  # in one process; `torchrun` starts several
        >>> store = ShardedStore(width=2, value_width=1)
        >>> ids = store.add(torch.eye(2)[None], torch.tensor([[[10.0], [20.0]]]))
        >>> store.read(torch.tensor([[[1.0, 2.0]]]), k=1)
        tensor([[[20.]]])
    """

    def __init__(
        self,
        width: int,
        value_width: int | None = None,
        *,
        group: "ProcessGroup | None" = None,
        queries: Queries = "same",
        **options: Any,
    ) -> None:
        checks.choice("queries", queries, get_args(Queries))
        self._begin(Ranks(group), queries, lambda: Store(width, value_width, **options))

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.shard,)

    def __copy__(self) -> Store:
        return self.shard.__copy__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Store:
        return self.shard.__deepcopy__(memo)

    @property
    def lengths(self) -> Tensor:
        """How many pairs each row holds on all ranks, (B,) int64."""
        held = self.shard._held if self._ranks.size == 1 else self._held.sum(0)
        return torch.from_numpy(held.copy()).to(self.shard.ids.device)

    @together
    def address(
        self, query: Tensor, k: int, *, strength: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """See `Store.address`."""
        _, ids, weights = self._nearest("address", query, k, strength)
        return ids, weights

    @overload
    def read(
        self, query: Tensor, k: int, *, strength: float | Tensor = ...,
        need_weights: Literal[False] = ...,
    ) -> Tensor: ...  # fmt: skip

    @overload
    def read(
        self, query: Tensor, k: int, *, strength: float | Tensor = ...,
        need_weights: Literal[True],
    ) -> tuple[Tensor, Tensor, Tensor]: ...  # fmt: skip

    @overload
    def read(
        self, query: Tensor, k: int, *, strength: float | Tensor = ..., need_weights: bool
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]: ...

    @together
    def read(
        self,
        query: Tensor,
        k: int,
        *,
        strength: float | Tensor = 1.0,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """See `Store.read`; a ConnectionError where a rank does not answer."""
        if not need_weights and isinstance(k, int) and k >= self._held.sum(0).max(initial=0):
            return self._whole(query, k, strength)
        value, ids, weights = self._nearest("read", query, k, strength)
        return (value, ids, weights) if need_weights else value

    @together
    def near(self, query: Tensor, distance: float) -> Tensor:
        """See `Store.near`."""
        query, _, _, lengths = self._asked("near", query, 1.0)
        asked = query.split(lengths, dim=1) if lengths else [query]
        search = partial(self.shard.near, distance=distance)
        found = [self._collected("near", partial(search, q), q, distance) for q in asked]
        return found[self._ranks.rank if lengths else 0]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write each shard to a file of its own in a folder, which any number of ranks opens.

        A file is that of a plain `Store`. The save before is replaced when this one is whole. The
        folder may be one that all ranks see, or one on each machine.

        Raises:
            OSError: it cannot be written on this rank; a ValueError on the others. The save before
                is as it was.
            ImportError: safetensors is not installed.
        """
        folder, ranks = Path(path), self._ranks
        names = ranks.tell(shards.listed(folder))
        number = shards.last(names) + 1
        file = folder / shards.name(number, ranks.rank, ranks.size)

        def write() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            self.shard.save(file)

        self._agree("save", write, number)
        for old in names[ranks.rank]:
            (folder / old).unlink(missing_ok=True)  # which another rank may see, too

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        group: "ProcessGroup | None" = None,
        queries: Queries = "same",
        durable: bool = False,
        **options: Any,
    ) -> "ShardedStore":
        """Read the last whole save from its folder, or open one in which durable shards live.

        A save of any number of ranks is dealt out to those that are here; a rank takes files that
        it sees. Of a durable store, rank r has the folder ``path/r``, a `DurableStore`, which is
        made where there is none, and one that was opened by more ranks is refused.

        Args:
            path: of the folder.
            group: see `ShardedStore`.
            queries: see `ShardedStore`.
            durable: whether every change is on the disk when its call ends.
            **options: see `Store.open`.

        Raises:
            OSError: a file or folder cannot be read or written.
            ValueError: no save in it is whole, or a shard is damaged or not what it must be.
            ImportError: safetensors or faiss is not installed.
        """
        checks.choice("queries", queries, get_args(Queries))
        folder, ranks = Path(path), Ranks(group)
        names = ranks.tell(shards.listed(folder))

        def find() -> Store | None:
            if durable:
                return shards.durable(folder, ranks, options)
            return shards.opened(folder, names, ranks, options)

        shard, _ = ranks.agree("open", find, [queries, durable])
        like = next(filter(None, ranks.tell(shards.like(shard) if shard else {})))
        store = cls.__new__(cls)
        store._begin(ranks, queries, lambda: shard or Store(**like))
        return store

    def __repr__(self) -> str:
        ranks = f"rank {self._ranks.rank} of {self._ranks.size}"
        return f"ShardedStore({ranks}, queries={self.queries!r}, shard={self.shard!r})"


def _itself(shard: Store) -> Store:
    return shard
