"""Large stores: a memory larger than the model, of which a query reads the k nearest pairs."""

import os
from pathlib import Path
from typing import Any, ClassVar, Literal, overload

import torch
from torch import Tensor

from memlib import _checks as checks
from memlib.attention.scores import _single
from memlib.attention.verbs import MEASURES, Measure, _attend, _read, _readable
from memlib.store import files
from memlib.store.indexes import BACKENDS, Backend, Search, filled
from memlib.store.locks import alone
from memlib.store.nearest import within
from memlib.store.pairs import Ints, Pairs, _chosen

OPTIONS = ("width", "value_width", "capacity", "measure", "backend", "effort", "links")


class Store(Pairs):
    r"""Pairs with ids, changed in place: :math:`r = \sum_{n \in \mathcal{N}} w_n v_n`.

    :math:`\mathcal{N}` are the k slots most similar to the query, and the weights those of
    `memlib.address` over them, so that with k = N a read is `memlib.attend`. Gradients flow to
    the query, and to ``store.values`` where ``store.values.requires_grad_()`` asks for it.

    Each row is like a dict whose keys are ids that it gives out itself: 0, 1, 2 and so on, none
    twice. A row at its capacity forgets its first pairs; one that is overwritten keeps its place
    in the order. Rows never see each other. After an error the store is as it was.

    ======= ============= =====================================================================
    backend finds         how
    ======= ============= =====================================================================
    exact   the k nearest a look at every key, on any device
    flat    the k nearest the same by faiss
    hnsw    most of them  a walk over a graph of neighbours, from the `effort` best so far
    ivf     most of them  a look at the keys of `effort` clusters; there are the root of N
    ======= ============= =====================================================================

    faiss keeps the keys of each row once more, in float32 on the CPU, and does not tell apart what
    that rounds to one. Its index is built by the first search and catches up by the next. Where it
    finds too few, or squares of a row's keys overflow in float32 or vanish, the search is exact.

    Threads may share a store: they take turns, so that none sees half of what another does. (What
    is done to `keys`, `values` and `ids` themselves is not guarded.) `copy.copy`, `copy.deepcopy`,
    `pickle` and a worker process get a whole store, index and all, of their own. Into a file it
    goes by `save` and `open`; `torch.load` with ``weights_only`` refuses a pickle of it. Where
    `torch.func` transforms or `torch.export` traces a function, an exact store can be read; a
    search by faiss and a change in place are refused. What is made or filled in
    `torch.inference_mode` can be changed outside it.

    Args:
        width: width M of a key.
        value_width: width V of a value; that of a key when None.
        batch_size: number of rows B.
        capacity: number of pairs that a row can hold; None for no limit.
        measure: similarity measure, see `memlib.similarity`.
        backend: "exact", "flat", "hnsw" or "ivf".
        effort: of a search, see above; may be changed at any time.
        links: of a key with its neighbours in the graph of hnsw.
        value_dtype: of the values, int64 and int32 among them; that of the keys when None.
        device: of keys and values.
        dtype: of the keys.

    Attributes:
        keys: (B, N, M), in slots without a promised order; N grows up to the capacity.
        values: (B, N, V). Learned after ``store.values.requires_grad_()``; where N grows they are
            another tensor, so what learns them is made once all pairs are there.
        ids: (B, N) int64; -1 for an empty slot, whose key and value are 0.

    Raises:
        TypeError: a size is no integer, or a dtype neither real nor, for values, integer.
        ValueError: a size too small, an unknown measure or backend.
        ImportError: faiss is needed and not installed.

    Source:
        The read: Rae et al. 2016, section 3.1 (arXiv 1610.09027); hnsw: Malkov and Yashunin 2016
        (arXiv 1603.09320); faiss: Johnson, Douze, Jégou 2017 (arXiv 1702.08734).

    Example:
        >>> import torch
        >>> from memlib.store import Store
        >>> store = Store(width=2, value_width=1)
        >>> ids = store.add(torch.eye(2)[None], torch.tensor([[[10.0], [20.0]]]))
        >>> query = torch.tensor([[[1.0, 2.0]]])
        >>> store.read(query, k=1)
        tensor([[[20.]]])
        >>> store.delete(ids[:, 1:])
        >>> store.read(query, k=1, need_weights=True)  # value, id, weight
        (tensor([[[10.]]]), tensor([[[0]]]), tensor([[[1.]]]))
    """

    _durable: ClassVar[Any]

    def __init_subclass__(cls, durable: bool = False) -> None:
        if durable:  # which comes after this module in reading order, and is what `open` may return
            Store._durable = cls

    def __init__(
        self,
        width: int,
        value_width: int | None = None,
        *,
        batch_size: int = 1,
        capacity: int | None = None,
        measure: Measure = "scaled_dot",
        backend: Backend = "exact",
        effort: int = 64,
        links: int = 32,
        value_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        value_width = width if value_width is None else value_width
        factory = {"device": device, "dtype": dtype}
        super().__init__(batch_size, width, value_width, capacity, value_dtype, **factory)
        checks.choice("measure", measure, MEASURES)
        checks.choice("backend", backend, BACKENDS)
        self.effort = checks.integer("effort", effort, 1)
        self.links = checks.integer("links", links, 2)
        self._search = Search(backend, len(self.keys), self.width, measure, self.links)

    @property
    def measure(self) -> Measure:
        """By what is searched and weighed: that of its making."""
        return self._search.measure

    @property
    def backend(self) -> Backend:
        """What searches: that of its making."""
        return self._search.backend

    @alone
    def address(
        self, query: Tensor, k: int, *, strength: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Decide where to look: the ids of the k nearest pairs, and their weights.

        Args:
            query: (B, L, M); a store of one row serves any number of them.
            k: number of pairs, at most those of the fullest row; any if all rows are empty.
            strength: a number of at least 0, or a tensor that broadcasts to (B, L).

        Returns:
            Ids (B, L, k) int64, the most similar first, -1 where a row has fewer; and weights
            (B, L, k), which sum to 1, or are 0 where there is nothing to read.

        Accuracy: float32 1e-4, bfloat16 8e-3, float16 1e-3, of every weight above 1e-6
        while strength times score stays below 100, and beyond it, or beyond a width of 128,
        in proportion.

        Raises:
            TypeError: wrong dtypes.
            ValueError: wrong shapes, k too large, negative strength, NaN in the query.
        """
        k, strength = self._check_query(query, k, strength)
        slots, weights = self._address(query, k, strength)
        checks.finite(weights, query=query, strength=strength)
        return self._named(slots), weights.to(query.dtype)

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

    @alone
    def read(
        self,
        query: Tensor,
        k: int,
        *,
        strength: float | Tensor = 1.0,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Read the k nearest pairs: `memlib.attend` over them.

        Args:
            query: (B, L, M), see `address`.
            k: number of pairs, see `address`.
            strength: a number or a tensor, see `address`.
            need_weights: return ids and weights too.

        Returns:
            Values (B, L, V), zeros from an empty row; with `need_weights` also the ids and
            weights of `address`.

        Accuracy: float32 1e-4, bfloat16 2e-2, float16 2e-3, of the sum of weights times
        sizes of values while strength times score stays below 100, and beyond it, or beyond
        a width of 128, in proportion.

        Raises:
            TypeError: as `address`; or integer values, which have no average.
            ValueError: as `address`.
        """
        k, strength = self._check_query(query, k, strength)
        checks.tensor("values", self.values)
        if k >= self._held.max(initial=0) and not need_weights:  # no search, and no copies
            keys, values, ids = self._all()
            if torch.is_grad_enabled():  # what is added before backward must not change these
                keys, values = keys.clone(), values.clone()
            mask = filled(ids, self._held)
            mask = mask if mask is None else mask.unsqueeze(1)
            value, _ = _attend(query, keys, values, self.measure, strength, mask)
        else:
            slots, weights = self._address(query, k, strength)
            found = self._at(self.values, slots)
            value = _read(weights.unsqueeze(2), _single(found)).squeeze(2).to(found.dtype)
        checks.finite(value, query=query, strength=strength)
        return (value, self._named(slots), weights.to(query.dtype)) if need_weights else value

    @alone
    def near(self, query: Tensor, distance: float) -> Tensor:
        """Return the ids of all pairs whose key lies near one of the queries, of any backend.

        Args:
            query: (B, L, M), see `address`.
            distance: Euclidean, at least 0.

        Returns:
            Ids (B, K) int64, ascending, as many as the fullest row has; then -1.

        Raises:
            TypeError: wrong dtypes.
            ValueError: wrong shapes, a negative distance, NaN in the query.
        """
        query = self._checked(query)
        distance = float(checks.number("distance", distance, 0))
        checks.finite(query, query=query)
        keys, _, ids = self._all()
        # one row is searched by all queries at once
        rows = query.reshape(1, -1, self.width) if len(keys) == 1 else query
        close = within(rows, keys, distance)
        return _chosen(ids, close & (ids >= 0))

    @alone
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the store, with the indexes it has, to a safetensors file: whole, or not at all.

        Raises:
            OSError: the file cannot be written; what was there before is as it was.
            ImportError: safetensors is not installed.
        """
        about = {name: getattr(self, name) for name in OPTIONS} | {"ring": self._ring}
        tensors = self._tensors() | self._search.tensors(self.keys, self.ids)
        files.write(Path(path), tensors, about)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        width: int | None = None,
        backend: Backend | None = None,
        device: torch.device | str | None = None,
        durable: bool = False,
        readonly: bool = False,
        history: bool = False,
        **new: Any,
    ) -> "Store":
        """Read a store from its file, or open a folder in which a `DurableStore` lives.

        An index that cannot be read here, as one of a newer faiss, is built anew by the first
        search.

        Args:
            path: of the file, or of the folder, which is made where there is none.
            width: what it must be; None for any.
            backend: instead of the one it had.
            device: to put it on.
            durable: whether it is a folder, where every change is on the disk when its call ends.
            readonly: of a folder: beside its writer.
            history: of a folder: whether space is reclaimed only by `DurableStore.reclaim`, so
                that older versions stay. The folder keeps it for all later openings, until a writer
                sets ``store.history = False``; False here is what the folder says.
            **new: of a folder: what `Store` takes, to make a new store; of one that is there,
                what it must be.

        Raises:
            OSError: the file or folder cannot be read or written; BlockingIOError, a kind of it,
                where the folder has a writer.
            ValueError: it is no store, of another version, damaged, or not what it must be.
            ImportError: safetensors or faiss is not installed.
        """
        if durable:
            given = {"width": width, "backend": backend, "device": device} | new
            store: Store = cls._durable._open_folder(
                Path(path), readonly=readonly, history=history, **given
            )
            return store
        if readonly or history or new:
            name = next(iter(new), "readonly" if readonly else "history")
            raise TypeError(f"{name} must be given with durable=True alone")
        tensors, options = files.read(Path(path), width=width)
        ring = options.pop("ring")
        options |= {"batch_size": len(tensors["ids"]), "device": device}
        options |= {"dtype": tensors["keys"].dtype, "value_dtype": tensors["values"].dtype}
        store = cls(**options | ({"backend": backend} if backend else {}))
        store._restore(tensors, ring)
        store._search.restore(tensors, store.ids)
        return store

    def _address(self, query: Tensor, k: int, strength: float | Tensor) -> tuple[Tensor, Tensor]:
        """Return slots (B, L, k) and weights (B, L, k), those of half precision in float32."""
        slots, scores = self._scores(query, k, strength)
        return slots, scores.softmax(-1).masked_fill(slots < 0, 0)

    def _scores(self, query: Tensor, k: int, strength: float | Tensor) -> tuple[Tensor, Tensor]:
        """Return slots (B, L, k) and strength * similarity, up to a constant a query."""
        keys, _, ids = self._all()
        # one row is searched by all queries at once
        rows = query.reshape(len(keys), -1, self.width) if len(keys) == 1 else query
        effort = checks.integer("effort", self.effort, 1)
        slots = self._search(rows, keys, ids, self._held, k, effort)
        slots = slots.reshape(*query.shape[:2], k)
        if isinstance(strength, Tensor) and strength.ndim:
            strength = strength.unsqueeze(-1)
        found, mask = self._at(self.keys, slots), (slots >= 0).unsqueeze(2)
        scores, _ = _readable(query.unsqueeze(2), found, self.measure, strength, mask)
        return slots, scores.squeeze(2)

    def _named(self, slots: Tensor) -> Tensor:
        return self._at(self.ids.unsqueeze(-1), slots).squeeze(-1).masked_fill(slots < 0, -1)

    def _touch(self, row: Ints, slot: Ints) -> None:
        self._search.touch(row, slot)

    def _checked(self, query: Tensor) -> Tensor:
        checks.tensor("query", query)
        checks.rows("query", query, "(B, L, M)", len(self.ids), M=self.width)
        checks.alike(**{"the store": self.keys, "query": query})
        return query

    def _check_query(
        self, query: Tensor, k: int, strength: float | Tensor
    ) -> tuple[int, float | Tensor]:
        """Return k and strength, numbers as Python's own."""
        query = self._checked(query)
        strength = checks.one_each("strength", strength, query.shape[:-1], query, low=0)
        k = checks.integer("k", k, 1)
        if k > (most := int(self._held.max(initial=0))) > 0:
            raise ValueError(f"k must be at most the {most} pairs of the fullest row; got {k}")
        return k, strength

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in OPTIONS[1:])
        return f"Store({self.width}, {options})"
