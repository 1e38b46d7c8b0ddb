"""A store in a folder: what was acknowledged is there again, however the process ended."""

import copy
import os
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memlib import _checks as checks
from memlib.store import folders, records
from memlib.store.locks import alone
from memlib.store.log import Log
from memlib.store.pairs import Ints, _chosen
from memlib.store.records import Bytes, Records
from memlib.store.store import Store

OWN = {"_log", "_give_back", "_place", "_unread", "_spared", "_is_mapped"}  # not a plain store's
DEAD = 4096  # pairs that may lie in the files though they are gone, whatever is held


class DurableStore(Store, durable=True):
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

    _log: Log
    _give_back: Callable[[], Any]  # what made this the writer
    _place: Ints  # (B, N), where in the files the pair of each slot lies; -1 for none
    _is_mapped = False  # whether slots are places in the files
    _unread: NDArray[np.bool_]  # which records' pairs were not compared yet, or are damaged
    _spared = 0  # how many pairs were gone when they could not be reclaimed

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("a DurableStore must be opened: Store.open(folder, durable=True)")

    @classmethod
    def _open_folder(
        cls, folder: Path, *, readonly: bool, history: bool, **asked: Any
    ) -> "DurableStore":
        """See `Store.open`."""
        store = cls.__new__(cls)
        if not readonly:
            store._give_back = weakref.finalize(store, os.close, folders.claim(folder))
            if not any((folder / name).exists() for name in records.ABOUT):
                folders.create(folder, bool(history), asked)
        store._read(folder, readonly, history, asked)
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
        row, ids, self._next = folders.told(found, len(self.ids))
        self._unread = np.ones(len(found.puts), bool)  # which records were not compared yet
        self._held = np.bincount(row[ids >= 0], minlength=len(self.ids)).astype(np.int64)
        room = self.capacity is None or found.end <= self.capacity
        if found.end and room and len(self.ids) == 1 and self.ids.device.type == "cpu":
            self._map(ids, room=found.end // 4 + 16 if found.writable else 0)
        else:
            self._copy(row, ids)

    def _map(self, ids: Ints, room: int) -> None:
        """Let the slots of the one row be the places in the files, with room for more pairs."""
        end, slots = len(ids), len(ids) + room
        if self._log.writable:
            slots = slots if self.capacity is None else max(end, min(slots, self.capacity))
            self._log.grow(slots)
        self.keys, self.values = (
            folders.mapped(self._log.path(name), buffer, slots)
            for name, buffer in (("keys", self.keys), ("values", self.values))
        )
        self.ids, self._place = torch.full((1, slots), -1), np.full((1, slots), -1)
        self.ids[0, :end] = torch.from_numpy(ids)
        self._place[0, :end] = np.where(ids >= 0, np.arange(end), -1)
        self._used, self._is_mapped = end, True
        self._ring = bool((ids == np.arange(end)).all() and self._next[0] == end)

    def _copy(self, row: Ints, ids: Ints) -> None:
        """Read the pairs of several rows, or of another device, into memory."""
        self._place = np.full(self.ids.shape, -1)
        self._used = int(self._held.max(initial=0))
        self._reserve(self._used)
        self._ring = not self._next.any()
        for b in range(len(self.ids)):
            place = ((row == b) & (ids >= 0)).nonzero()[0]
            self._place[b, : len(place)] = place
            self.ids[b, : len(place)] = torch.from_numpy(ids[place])
            for name, buffer in (("keys", self.keys), ("values", self.values)):
                for start in range(0, len(place), self._log.step):
                    some = place[start : start + self._log.step]
                    data = self._log.at(name, some)
                    new = torch.from_numpy(data).view(buffer.dtype).to(buffer.device)
                    buffer[b, start : start + len(some)] = new

    @alone
    def close(self) -> None:
        """Give the folder back to the next writer; the store itself can still be read."""
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
        id, row = checks.integer("id", id, 0), checks.integer("row", row, 0)
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

    def _put(self, row: Ints, slot: Ints, keys: Tensor, values: Tensor, ids: Tensor) -> None:
        names = np.broadcast_to(ids.long().cpu().numpy(), row.shape)
        new, gone = names >= 0, self._place[row, slot]
        data = _raw(keys, self.keys, new), _raw(values, self.values, new)
        first = self._log.append(*data, row[new], names[new], gone[gone >= 0])
        super()._put(row, slot, keys, values, ids)
        self._place[row, slot] = np.where(new, first + new.cumsum() - 1, -1)

    def _reserve(self, needed: int) -> None:
        slots, end = self.ids.shape[1], self._log.end
        if needed > slots and self._slots_are_places():
            self._map(self.ids[0, :end].numpy().copy(), room=needed - end + needed // 4)
            return
        super()._reserve(needed)
        self._is_mapped = self._is_mapped and self.ids.shape[1] == slots
        more = self.ids.shape[1] - self._place.shape[1]
        self._place = np.pad(self._place, ((0, 0), (0, more)), constant_values=-1)

    def _slots_are_places(self) -> bool:
        """Whether the files can be mapped anew, with more room, in the place of a copy."""
        place, order = self._place[0], np.arange(self._log.end)
        if not self._is_mapped or self.values.requires_grad or len(place) < len(order):
            return False
        place = place[: len(order)]
        return bool(((place == order) | (place < 0)).all())

    def _all(self) -> tuple[Tensor, Tensor, Tensor]:
        self._refuse(self._damaged(np.flatnonzero(self._unread)))
        return super()._all()

    def _at(self, buffer: Tensor, slots: Tensor) -> Tensor:
        if self._unread.any() and slots.numel():
            row = np.arange(len(self.ids)).reshape(-1, *[1] * (slots.ndim - 1))
            slot = slots.cpu().numpy()
            place = np.unique(self._place[row if len(self.ids) > 1 else 0, slot.clip(min=0)])
            told = self._telling(place)
            told = told[told < len(self._unread)]
            damaged = self._damaged(told[self._unread[told]])
            self._refuse(damaged & np.isin(self._place, place))
        return super()._at(buffer, slots)

    def _telling(self, place: Ints) -> Ints:
        """Return which records tell of the pairs at these places, -1 for none."""
        told = self._log.puts["place"].searchsorted(place[place >= 0], "right") - 1
        return np.flatnonzero(np.bincount(told))

    def _damaged(self, told: Ints) -> NDArray[np.bool_]:
        """Compare the pairs of some records; return the slots (B, N) whose pairs are damaged."""
        if not len(told):
            return np.zeros(self._place.shape, bool)
        puts = self._log.puts
        self._unread = np.pad(self._unread, (0, len(puts) - len(self._unread)))
        bad = [n for n in told if not self._log.is_whole(puts[n])]
        self._unread[told] = False
        self._unread[bad] = [self._told_by(puts[[n]]).any() for n in bad]  # all of it went, perhaps
        return self._told_by(puts[bad])

    def _told_by(self, puts: Records) -> NDArray[np.bool_]:
        """Return the slots (B, N) whose pairs these records tell of."""
        marked = np.zeros(self._log.end + 1, bool)
        for put in puts:
            marked[put["place"] : put["place"] + put["count"]] = True
        marked[-1] = False  # for the slots that are empty, whose place is -1
        return marked[self._place]

    def _refuse(self, damaged: NDArray[np.bool_]) -> None:
        if damaged.any():
            row, slot = (int(x[0]) for x in damaged.nonzero())
            raise ValueError(self._said(int(self.ids[row, slot]), row, int(damaged.sum())))

    def _said(self, id: int, row: int, count: int = 1) -> str:
        return (
            f"{self._log.folder.name} is damaged: {count} pairs differ from their checksums, as id "
            f"{id} of row {row}; store.delete(store.verify()) goes on with the rest"
        )

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


def _raw(x: Tensor, like: Tensor, chosen: NDArray[np.bool_]) -> Bytes:
    """Return the bytes (n, ·) of the vectors that are chosen."""
    if not chosen.any():
        return np.zeros((0, like.shape[-1] * like.element_size()), np.uint8)
    some = x.detach()[torch.from_numpy(chosen)].to("cpu", like.dtype).contiguous()
    return some.view(torch.uint8).numpy()
