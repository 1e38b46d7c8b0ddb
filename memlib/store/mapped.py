"""A store whose pairs lie in files: mapped where they can be, and compared when first read."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memlib.store import folders
from memlib.store.locks import outlasting
from memlib.store.log import Log
from memlib.store.pairs import Ints
from memlib.store.records import Bytes, Records
from memlib.store.store import Store


class Mapped(Store):
    """A `Store` over a `Log`, in which what is put is written first.

    One row in the memory of the processor is mapped: its slots are the places in the files. Several
    rows, or another device, have copies. Each piece is compared with its checksum when a pair of it
    is first read.
    """

    _log: Log
    _place: Ints  # (B, N), where in the files the pair of each slot lies; -1 for none
    _is_mapped = False  # whether slots are places in the files
    _unread: NDArray[np.bool_]  # which records' pairs were not compared yet, or are damaged

    def _take(self) -> None:
        """Take what the log tells: map the files, or read them."""
        found = self._log
        row, ids, self._next = folders.told(found, len(self.ids))
        self._unread = np.ones(len(found.puts), bool)  # which records were not compared yet
        self._held = np.bincount(row[ids >= 0], minlength=len(self.ids)).astype(np.int64)
        room = self.capacity is None or found.end <= self.capacity
        if found.end and room and len(self.ids) == 1 and self.ids.device.type == "cpu":
            self._map(ids, room=found.end // 4 + 16 if found.writable else 0)
        else:
            self._copy(row, ids)

    @outlasting
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

    # Reading

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


def _raw(x: Tensor, like: Tensor, chosen: NDArray[np.bool_]) -> Bytes:
    """Return the bytes (n, ·) of the vectors that are chosen."""
    if not chosen.any():
        return np.zeros((0, like.shape[-1] * like.element_size()), np.uint8)
    some = x.detach()[torch.from_numpy(chosen)].to("cpu", like.dtype).contiguous()
    return some.view(torch.uint8).numpy()
