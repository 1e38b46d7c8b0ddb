"""A store in a folder: what was acknowledged is there again, however the process ended."""

import copy
import os
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memlib import _checks as checks
from memlib.store import folders, records
from memlib.store.locks import alone
from memlib.store.log import Log
from memlib.store.mapped import Mapped
from memlib.store.pairs import _chosen
from memlib.store.store import Store

OWN = {"_log", "_give_back", "_place", "_unread", "_spared", "_is_mapped"}  # not a plain store's
LAST_ID = 2**63 - 1
DEAD = 4096  # pairs that may lie in the files though they are gone, whatever is held


class DurableStore(Mapped, durable=True):
    r"""A `Store` that lives in a folder: `add`, `overwrite` and `delete` are on the disk on return.

    It is made, and opened again, by ``Store.open(folder, durable=True)``. A process may be killed,
    or the machine lose its power, at any moment: what was acknowledged is there at the next
    opening, and of what was not, nothing or all of one call. One process writes (and not a child
    that it forks); any number read beside it, ``readonly=True``, each the past that it opened.

    Opening takes no time for the pairs themselves: they are mapped, and each piece of 4 MB is
    compared with its checksum when it is first read. A piece that is damaged is named by an error;
    ``store.delete(store.verify())`` goes on with the rest. Nothing is unpickled.

    What was overwritten stays in the files as an older version, and what was deleted, until
    `reclaim`. Without `history` it is called by itself where more pairs are gone than held; where
    it can't be done (the disk is full, a pair is damaged) it is tried again later. An index of
    faiss is not kept; the first search builds it anew. What is done to `keys` and `values`
    themselves is not kept either. A copy, a pickle and a worker process get a plain `Store` in
    memory; `torch.load` with ``weights_only`` refuses the pickle.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from memlib import Store
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = Store.open(folder.name, durable=True, width=2, value_width=1)
        >>> ids = store.add(torch.eye(2)[None], torch.tensor([[[10.0], [20.0]]]))
        >>> store.overwrite(ids[:, :1], torch.eye(2)[None, :1], torch.tensor([[[11.0]]]))
        >>> store.close()
        >>> again = Store.open(folder.name, durable=True)
        >>> again.get(ids)[1], [float(value) for _, _, value in again.versions(0)]
        (tensor([[[11.],
                 [20.]]]), [10.0, 11.0])
        >>> again.close()
        >>> folder.cleanup()
    """

    _give_back: Callable[[], Any]  # what made this the writer
    _spared = 0  # how many pairs were gone when they could not be reclaimed

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("a DurableStore must be opened: Store.open(folder, durable=True)")

    @classmethod
    def _open_folder(
        cls, folder: Path, *, readonly: bool, history: bool, **asked: Any
    ) -> "DurableStore":
        """See `Store.open`."""
        folder = folder.resolve()  # where it stays, wherever the process goes
        store = cls.__new__(cls)
        if readonly:
            store._read(folder, readonly, history, asked)
            return store
        if not records.is_there(folder):
            folders.made(folder, asked)  # which refuses before anything is on the disk
        store._give_back = weakref.finalize(store, os.close, folders.claim(folder))
        try:
            if not records.is_there(folder):
                folders.create(folder, bool(history), asked)
            store._read(folder, readonly, history, asked)
        except BaseException:  # which may keep the half-made store alive
            store._give_back()
            raise
        return store

    @property
    def history(self) -> bool:
        """Whether older versions stay until `reclaim` is called; the writer may set it."""
        return bool(self._log.about.get("history", False))  # which older folders do not say

    @history.setter
    @alone
    def history(self, kept: bool) -> None:
        self._check_writer()
        folders.change(self._log, history=bool(kept))

    def _read(self, folder: Path, readonly: bool, history: bool, asked: dict[str, Any]) -> None:
        options, tried = folders.options(folder, asked), None
        while True:
            about = records.read_about(folder)
            try:
                Store.__init__(self, **options)
                found = Log(folder, folders.sizes(self), about, make=not readonly)
                return self._load(found, readonly, history)
            except FileNotFoundError as error:
                if tried == about["generation"]:
                    raise ValueError(f"{folder.name} is damaged: {error}") from None
            tried = about["generation"]  # of which a writer may have taken the files away meanwhile

    def _load(self, found: Log, readonly: bool, history: bool) -> None:
        if found.lost:
            warnings.warn(f"lost of {found.folder.name}: {'; '.join(found.lost)}", stacklevel=5)
        self._log = found
        if readonly and history and not self.history:
            raise ValueError(f"history of {found.folder.name} must be True; got False")
        if not readonly:
            found.start_writing()
            found.sweep()
            if history:
                self.history = True
        self._take()

    @property
    def folder(self) -> Path:
        """Where it lives."""
        return self._log.folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @alone
    def close(self) -> None:
        """Give the folder back to the next writer; the store itself can still be read.

        So does the end of a ``with``. The files of pairs stay open for as long as the store lives.
        """
        self._log.close()
        if hasattr(self, "_give_back"):
            self._give_back()

    @alone
    def verify(self) -> Tensor:
        """Compare all pairs with their checksums; return the ids of the damaged, (B, K), or -1.

        All that is held is read from the files, each time, whatever was read or written before.
        ``store.delete(store.verify())`` goes on with the rest.
        """
        return self._ids_of(self._damaged(self._telling(self._place)))

    @alone
    def versions(self, id: int, row: int = 0) -> list[tuple[float, Tensor, Tensor]]:
        """Return all that was told under an id that is held, the oldest first, to the last.

        Returns:
            Triples of a time in seconds since 1970, a key (M,) and a value (V,).

        Raises:
            TypeError: no integers.
            ValueError: an id that is not held in the row, or a version that is damaged.
        """
        id, row = checks.integer("id", id, 0, LAST_ID), checks.integer("row", row, 0)
        if row >= len(self.ids) or not (self.ids[row] == id).any():
            raise ValueError(f"ids must be held in their row; got {id} in row {row}")
        puts = self._log.puts
        told = (puts["row"] == row) & (puts["id"] <= id) & (id < puts["id"] + puts["count"])
        return [self._version(put, id) for put in puts[told]]

    def _version(self, put: Any, id: int) -> tuple[float, Tensor, Tensor]:
        if not self._log.is_whole(put):
            raise ValueError(self._said(id, int(put["row"])))
        place = np.array([put["place"] + id - put["id"]])
        key, value = (
            torch.from_numpy(self._log.at(name, place)[0]).view(buffer.dtype)
            for name, buffer in (("keys", self.keys), ("values", self.values))
        )
        return float(put["time"]), key, value

    @alone
    def before(self, time: float) -> Tensor:
        """Return the ids of the pairs that were last told before a time, (B, K), or -1.

        None that was told at that time or later is among them. After `reclaim` one that was told
        within a second before it may be missing.

        Args:
            time: seconds since 1970, as `time.time` gives them.
        """
        puts, time = self._log.puts, checks.number("time", time, 0)
        return self._ids_of(self._told_by(puts[puts["time"] < time]))

    @alone
    def reclaim(self) -> None:
        """Write the files anew with the pairs that are held alone; older versions are gone then.

        A pair keeps the time at which it was told, rounded up to the second, but never later than
        the last that was told. All that is held is compared with its checksums first.

        Raises:
            OSError: there is no room for it; the store is as it was.
            ValueError: pairs are damaged; the store is as it was.
        """
        self._check_writer()
        self._refuse(self._damaged(self._telling(self._place)))
        ids, place, rows, first = self.ids.cpu().numpy(), self._place.copy(), [], 0
        for b in range(len(ids)):
            slot = np.flatnonzero(place[b] >= 0)
            slot = slot[ids[b, slot].argsort()]
            rows.append((place[b, slot], ids[b, slot], int(self._next[b])))
            place[b, slot] = first + np.arange(len(slot))
            first += len(slot)
        self._log, self._place = self._log.rewritten(rows), place
        self._unread, self._spared = np.zeros(0, bool), 0

    # What a store does, and what it does to the files first

    @alone
    def add(self, keys: Tensor, values: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """See `Store.add`; an OSError where it cannot be written."""
        self._check_writer()
        ids = super().add(keys, values, lengths=lengths)
        self._tidy()
        return ids

    @alone
    def overwrite(self, ids: Tensor, keys: Tensor, values: Tensor) -> None:
        """See `Store.overwrite`; an OSError where it cannot be written."""
        self._check_writer()
        super().overwrite(ids, keys, values)
        self._tidy()

    @alone
    def delete(self, ids: Tensor) -> None:
        """See `Store.delete`; an OSError where it cannot be written."""
        self._check_writer()
        super().delete(ids)
        self._tidy()

    def _tidy(self) -> None:
        held = int(self._held.sum())
        gone = self._log.end - held
        if not self.history and gone - self._spared > held + DEAD:
            try:
                self.reclaim()
            except (OSError, ValueError):  # what was called is on the disk, and does not fail
                self._spared = gone

    def _ids_of(self, slots: NDArray[np.bool_]) -> Tensor:
        return _chosen(self.ids, torch.from_numpy(slots).to(self.ids.device))

    def _check_writer(self) -> None:
        if not self._log.writable:
            raise RuntimeError(
                f"{self._log.folder.name} can only be read here: it was opened with readonly=True, "
                "or closed, or by the process that forked this one"
            )

    # Copies are plain stores in memory

    def _parts(self) -> dict[str, Any]:
        self._all()
        return {name: part for name, part in super()._parts().items() if name not in OWN}

    def __deepcopy__(self, memo: dict[int, Any]) -> Store:  # type: ignore[override]
        memo[id(self)] = plain = object.__new__(Store)
        with self._lock:
            plain._become(copy.deepcopy(self._parts(), memo))
        return plain

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _plain, (self.__getstate__(),)


def _plain(state: dict[str, Any]) -> Store:
    store: Store = object.__new__(Store)
    store.__setstate__(state)
    return store
