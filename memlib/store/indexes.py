"""Search through faiss: one index a batch row, made from what the row holds and kept up with it.

An index is never the truth about a memory, its keys are: an index may be thrown away and built
anew at any time, and says no more than in which slots to look.
"""

import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from memlib.attention.scores import ORDINARY, _is_ordinary, _is_seen, _norm, _single, _unit
from memlib.attention.verbs import Measure
from memlib.store.nearest import FAR, PRODUCTS, _lowered, nearest

Backend = Literal["exact", "flat", "hnsw", "ivf"]
BACKENDS: tuple[str, ...] = get_args(Backend)
Ints = NDArray[np.int64]

OUTGROWN = 4  # times the keys whose clusters IVF knows, and it learns new ones
SLACK = 64  # dead entries that are no reason to build anew


def faiss(backend: str) -> Any:
    """Return the module.

    Raises:
        ImportError: it is not installed.
    """
    try:
        with warnings.catch_warnings():  # the wrapper's own, on some versions of Python
            warnings.simplefilter("ignore", DeprecationWarning)
            import faiss
    except ImportError:
        message = f"the {backend} backend needs faiss: pip install 'memlib[store]'"
        raise ImportError(message) from None
    return faiss


class Search:
    """Where the k nearest lie in each row, exactly or by faiss."""

    def __init__(
        self, backend: Backend, batch_size: int, width: int, measure: Measure, links: int
    ) -> None:
        self.measure, self.backend = measure, backend
        rows = 0 if backend == "exact" else batch_size
        self.indexes = [Index(backend, width, measure, links) for _ in range(rows)]

    def __call__(
        self, query: Tensor, keys: Tensor, ids: Tensor, held: Ints, k: int, effort: int
    ) -> Tensor:
        """(B, L, M), (B, N, M), (B, N), pairs held (B,) -> slots (B, L, k), -1 for none."""
        query = query.detach().to(keys.dtype)
        if not self.indexes:
            return nearest(query, keys, k, self.measure, filled(ids, held))
        rows = zip(self.indexes, query, keys, ids, np.minimum(held, k).tolist(), strict=True)
        found = [self._in_row(*row, effort) for row in rows]
        return torch.stack([F.pad(slots, (0, k - slots.shape[1]), value=-1) for slots in found])

    def _in_row(
        self, index: "Index", query: Tensor, keys: Tensor, ids: Tensor, k: int, effort: int
    ) -> Tensor:
        if not k:  # an empty row
            return query.new_empty(len(query), 0, dtype=torch.long)
        index.update(keys, ids)
        slots = torch.from_numpy(index.search(query, k, effort)).to(query.device)
        if (slots < 0).any():  # faiss ended with too few, or such numbers are not for it
            slots = nearest(query[None], keys[None], k, self.measure, (ids >= 0)[None])[0]
        return slots

    def touch(self, row: Ints, slot: Ints) -> None:
        """Remember the slots whose pairs changed."""
        for b in np.unique(row) if self.indexes else ():
            self.indexes[b].changed.append(slot[row == b])

    def tensors(self, keys: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Return the indexes that were built, caught up with their rows."""
        made: dict[str, Tensor] = {}
        for b, index in enumerate(self.indexes):
            if index.index is not None and (ids[b] >= 0).any() and index.update(keys[b], ids[b]):
                data = index.faiss.serialize_index(index.index)
                made |= {f"{self.backend}.{b}": torch.from_numpy(data)}
                made |= {f"{self.backend}.{b}.slot": torch.from_numpy(index.slot)}
        return made

    def restore(self, tensors: Mapping[str, Tensor], ids: Tensor) -> None:
        """Go on with the indexes among `tensors`, of rows with these ids (B, N)."""
        for b, index in enumerate(self.indexes):
            name = f"{self.backend}.{b}"
            if {name, f"{name}.slot"} <= tensors.keys():
                data, slot = tensors[name].numpy(), tensors[f"{name}.slot"].numpy().copy()
                index.revive(data, slot)
                held = (ids[b] >= 0).nonzero().squeeze(1).cpu().numpy()
                if not np.array_equal(np.sort(index.slot[index.slot >= 0]), held):
                    index.index = None  # it knows other slots than those in use


def filled(ids: Tensor, held: Ints) -> Tensor | None:
    """Which slots hold a pair, (B, N) bool; None if all do."""
    return None if (held == ids.shape[1]).all() else ids >= 0


class Index:
    """A faiss index over the keys in the slots of one row.

    faiss cannot replace an entry nor, with HNSW, remove one. So the new pair of a slot gets a new
    entry and the old entry is passed over; when the dead are more than the living, the index is
    built anew.

    faiss squares keys in float32, and learning the clusters of keys whose squares overflow ends the
    process. There is no index of such keys, nor of those whose squares all vanish.

    Attributes:
        slot: (E,) which slot each entry stands for; -1 for a dead one.
        changed: slots that changed since `update`.
    """

    def __init__(self, backend: Backend, width: int, measure: Measure, links: int) -> None:
        self.faiss = faiss(backend)
        self.backend, self.width, self.measure, self.links = backend, width, measure, links
        self.index: Any = None
        self.slot: Ints = np.empty(0, np.int64)
        self.changed: list[Ints] = []

    def update(self, keys: Tensor, ids: Tensor) -> bool:
        """Catch up with the row: keys (N, M), and ids (N,), -1 for an empty slot.

        Returns whether there is an index.
        """
        if self.index is not None and not self.changed:
            return True
        held, nothing = (ids >= 0).cpu().numpy(), np.empty(0, np.int64)
        changed = np.unique(np.concatenate((*self.changed, nothing)))
        self.slot[np.isin(self.slot, changed)] = -1
        new = changed[held[changed]]
        if stale := self._is_stale(len(new), int(held.sum())):
            new, self.slot = held.nonzero()[0], nothing
        vectors = self._vectors(keys[torch.from_numpy(new).to(keys.device)])
        if not _fits(vectors, vanish=not stale):
            self.index, self.slot, self.changed = None, nothing, []
            return False
        if stale:
            self.index = self._build(vectors)
        self.index.add(vectors)
        self.restore(self.index, np.concatenate((self.slot, new)))
        return True

    def search(self, query: Tensor, k: int, effort: int) -> Ints:
        """(L, M) -> slots (L, k); -1 where the search ended with fewer, or there is no index."""
        product = self.measure in PRODUCTS
        ordinary = product and _is_seen(query) and _is_ordinary(_norm(_single(query)))
        vectors = self._vectors(_lowered(query) if product and not ordinary else query)
        if self.index is None or not (ordinary or _fits(vectors, vanish=True)):
            return np.full((len(query), k), -1)
        if self.backend == "flat":
            alive = self.alive
            if alive is None and self.measure == FAR:  # with a selector, faiss takes differences,
                alive = self.faiss.IDSelectorAll()  # which lose no digits, and no products
            options = self.faiss.SearchParameters(sel=alive)
        elif self.backend == "hnsw":
            options = self.faiss.SearchParametersHNSW(sel=self.alive, efSearch=max(effort, k))
        else:
            options = self.faiss.SearchParametersIVF(sel=self.alive, nprobe=effort)
        _, entry = self.index.search(vectors, k, params=options)
        return np.where(entry < 0, -1, self.slot[entry])

    def restore(self, index: Any, slot: Ints) -> None:
        """Go on with an index that is up to date, and the slots of its entries."""
        self.index, self.slot, self.changed, living = index, slot, [], slot >= 0
        bits = np.packbits(living, bitorder="little")
        self.alive = None if living.all() else self.faiss.IDSelectorBitmap(bits)

    def revive(self, data: Any, slot: Ints) -> None:
        """Go on with an index that was serialized; with none if it cannot be read, or is another.

        `update` then builds it anew.
        """
        self.index, self.slot = None, np.empty(0, np.int64)
        try:
            index = self.faiss.deserialize_index(data)
        except Exception:  # it says in many ways that it does not know these bytes
            return
        kinds = {"flat": "IndexFlat", "hnsw": "IndexHNSWFlat", "ivf": "IndexIVFFlat"}
        same = isinstance(index, getattr(self.faiss, kinds[self.backend]))
        found = index.d, index.metric_type, (index.ntotal,)
        if same and found == (self.width, self._metric, slot.shape):
            self.restore(index, slot)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Index":
        """Return the same index, which faiss copies itself."""
        copy = Index(self.backend, self.width, self.measure, self.links)
        if self.index is not None:
            copy.restore(self.faiss.clone_index(self.index), self.slot.copy())
        copy.changed = list(self.changed)
        return copy

    def __getstate__(self) -> dict[str, Any]:
        ours = {name: part for name, part in vars(self).items() if name not in ("faiss", "alive")}
        data = None if self.index is None else self.faiss.serialize_index(self.index)
        return ours | {"index": data}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.faiss = faiss(self.backend)
        if self.index is not None:
            self.revive(self.index, self.slot)
            self.changed = state["changed"]

    def _is_stale(self, new: int, living: int) -> bool:
        """Whether it is better to build anew than to add."""
        return (
            self.index is None
            or self.index.ntotal != len(self.slot)  # an update was interrupted
            or len(self.slot) + new > 2 * living + SLACK
            or (self.backend == "ivf" and living > OUTGROWN * self.index.nlist**2)
        )

    def _build(self, vectors: NDArray[np.float32]) -> Any:
        """Return an empty index; IVF learns its clusters, the root of N, from the vectors."""
        if self.backend == "hnsw":
            return self.faiss.IndexHNSWFlat(self.width, self.links, self._metric)
        flat = self.faiss.IndexFlat(self.width, self._metric)
        if self.backend == "flat":
            return flat
        lists = max(1, round(len(vectors) ** 0.5))
        index = self.faiss.IndexIVFFlat(flat, self.width, lists, self._metric)
        index.cp.min_points_per_centroid = 1  # few are no reason to complain
        index.train(vectors)
        return index

    @property
    def _metric(self) -> int:
        far = self.measure == FAR
        metric: int = self.faiss.METRIC_L2 if far else self.faiss.METRIC_INNER_PRODUCT
        return metric

    def _vectors(self, keys: Tensor) -> NDArray[np.float32]:
        """Return what faiss knows: float32 on the CPU, and the cosine as a dot product."""
        keys = _unit(_single(keys)) if self.measure == "cosine" else keys
        try:
            return keys.detach().to("cpu", torch.float32).contiguous().numpy()
        except RuntimeError as error:
            raise RuntimeError(
                f"the {self.backend} backend reads numbers, which are not there where torch.func "
                'transforms or torch.export traces a function, or on meta; backend="exact" can'
            ) from error


def _fits(vectors: NDArray[np.float32], vanish: bool) -> bool:
    """Whether no square of a norm overflows in float32; nor vanish all of them, unless they may."""
    if not vectors.size:
        return True
    low, high = torch.from_numpy(vectors).aminmax()
    longest = max(-low.item(), high.item()) * vectors.shape[1] ** 0.5
    return longest < ORDINARY[1] and (vanish or longest > ORDINARY[0])
