"""The files of a durable store: pairs that are only ever appended, and a log of what was done.

=================== ===========================================================================
file                holds
=================== ===========================================================================
about.json          what the store is and which generation G of the other files is the valid one
G.keys, G.values    the pairs in the order in which they came, raw
G.log               records of what was done, of 64 bytes each, the last of a commit marked
G.mirror            the same records, to mend those of the log that were damaged
writer              nothing; who holds its lock may write
=================== ===========================================================================

A commit is true once its records are on the disk, and they are written after the pairs that they
tell of. So whatever ends a process, the files hold whole commits and perhaps a rest that none
tells of. What a commit tells of is never written over, and a log keeps the files of pairs open for
as long as it is held: a reader beside the writer keeps the past that it opened, also when the
writer has removed the files.
"""

import mmap
import os
import time
import weakref
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from memlib.store.pairs import Ints
from memlib.store.records import (
    ABOUT,
    DROP,
    NEXT,
    PUT,
    RECORD,
    TOLD,
    Bytes,
    Records,
    parts,
    recovered,
    side_by_side,
    sums,
    sync,
    sync_folder,
    write,
    write_about,
)

NAMES = ("keys", "values", "log", "mirror")
CHUNK = 1 << 22  # bytes of keys or values that one checksum stands for, at most


class Log:
    """A generation of the files; see the module.

    Attributes:
        about: the options of the store, and the generation.
        lost: a sentence for each record that is damaged in both of its places.
        end: how many pairs the files hold, those that went later among them.

    Raises:
        FileNotFoundError: a file is missing, and `make`, which makes those of pairs, is not asked.
    """

    def __init__(
        self, folder: Path, sizes: tuple[int, int], about: dict[str, Any], make: bool = False
    ) -> None:
        self.folder, self.sizes, self.about = folder, sizes, about
        self._pairs: dict[str, int] = {}  # open until nobody holds the log, also when it is closed
        weakref.finalize(self, _close, self._pairs)
        for name in NAMES[:2]:
            flags = os.O_RDWR | os.O_CREAT if make else os.O_RDONLY
            self._pairs[name] = os.open(self.path(name), flags, 0o666)
        self.step = max(1, CHUNK // max(sizes))  # pairs that one checksum stands for, at most
        self._all, self.lost, self.length = recovered(self.path("log"), self.path("mirror"))
        self._count = len(self._all)
        self.commit = int(self._all["commit"][-1]) if self._count else 0
        self.clock = float(self._all["time"].max(initial=0))
        self.end = int((self.puts["place"] + self.puts["count"]).max(initial=0))
        self._files: dict[str, int] = {}
        self._give_back = weakref.finalize(self, _close, self._files)
        self._process = 0

    @property
    def records(self) -> Records:
        """All that are valid, in order."""
        return self._all[: self._count]

    @property
    def puts(self) -> Records:
        """The records of pairs that came."""
        found: Records = self.records[self.records["kind"] == PUT]
        return found

    @property
    def writable(self) -> bool:
        """Whether this process may append."""
        return self._process == os.getpid()

    def path(self, name: str) -> Path:
        """Return where one of the files lies."""
        return self.folder / f"{self.about['generation']}.{name}"

    def start_writing(self) -> None:
        """Cut what no commit tells of, mend the mirror, and be ready to append.

        Raises:
            OSError: the files cannot be written.
        """
        for name in NAMES:
            self._files[name] = os.open(self.path(name), os.O_RDWR | os.O_CREAT, 0o666)
        for name in ("log", "mirror"):
            file = self._files[name]
            os.ftruncate(file, self.length * RECORD.itemsize)
            if not self.lost and self.path(name).read_bytes() != self.records.tobytes():
                write(file, self.records.tobytes(), 0)
            os.fsync(file)
        sync_folder(self.folder)
        self._process = os.getpid()

    def sweep(self) -> None:
        """Mend what the store is said to be, and remove what is left of other generations."""
        paths = [self.folder / name for name in ABOUT]
        if len({path.read_bytes() if path.exists() else None for path in paths}) > 1:
            write_about(self.folder, self.about)
        for path in self.folder.glob("[0-9]*.*"):
            if path.stem != str(self.about["generation"]) and path.suffix[1:] in NAMES:
                path.unlink()

    def close(self) -> None:
        """Append no more; pairs can still be read."""
        self._give_back()
        self._process = 0

    def grow(self, pairs: int) -> None:
        """Let the files of pairs be so long at least; what was not written takes no space."""
        for name, size in zip(("keys", "values"), self.sizes, strict=True):
            if os.fstat(self._files[name]).st_size < pairs * size:
                os.ftruncate(self._files[name], pairs * size)

    def append(self, keys: Bytes, values: Bytes, row: Ints, ids: Ints, gone: Ints) -> int:
        """Write pairs, (n, bytes) each, with their rows and ids, (n,): one commit.

        The pairs at the places `gone` go with it. Returns the place of the first new one. All is
        on the disk when this returns.

        Raises:
            OSError: it could not be written; nothing is changed then.
        """
        first, told = self.end, []
        # a clock that is set back must not make the new older than the old
        self.clock = max(self.clock, time.time())
        for part in parts((np.diff(row) != 0) | (np.diff(ids) != 1), len(ids), self.step):
            about = first + part.start, int(row[part.start]), int(ids[part.start]), self.clock
            told.append(self._put(keys[part], values[part], *about))
        told += [(DROP, 0, at, 0, count, 0, 0, self.clock) for at, count in side_by_side(gone)]
        self._commit(told)
        self.end = first + len(ids)
        return first

    def _put(
        self, keys: Bytes, values: Bytes, place: int, row: int, id: int, when: float
    ) -> tuple[Any, ...]:
        """Write pairs, and return the record that tells of them."""
        for file, data in ((self._files["keys"], keys), (self._files["values"], values)):
            write(file, data.data, place * data.shape[1])
        return PUT, row, place, id, len(keys), zlib.crc32(keys.data), zlib.crc32(values.data), when

    def _commit(self, told: Sequence[tuple[Any, ...]]) -> None:
        if not told:
            return
        new = np.zeros(len(told), RECORD)
        for name, column in zip(TOLD, zip(*told, strict=True), strict=True):
            new[name] = column
        new["commit"] = self.commit + 1
        new["last"][-1] = 1
        new["sum"] = sums(new)
        if (new["kind"] == PUT).any():
            for name in ("keys", "values"):
                sync(self._files[name])
        log, mirror = self._files["log"], self._files["mirror"]
        if not os.fstat(log).st_nlink:  # what is written to it, nobody will open
            raise FileNotFoundError(f"{self.folder.name} must be there; its files were removed")
        try:
            write(log, new.tobytes(), self.length * RECORD.itemsize)
            sync(log)
        except OSError:
            os.ftruncate(log, self.length * RECORD.itemsize)
            raise
        with suppress(OSError):  # the log alone counts; who writes next mends its mirror
            write(mirror, new.tobytes(), self.length * RECORD.itemsize)
        self.commit, self.length = self.commit + 1, self.length + len(new)
        if self._count + len(new) > len(self._all):  # twice as many, so that a commit costs little
            spare = np.zeros(self._count + len(new), RECORD)
            self._all = np.concatenate((self.records, spare))
        self._all[self._count : self._count + len(new)] = new
        self._count += len(new)

    def at(self, name: str, places: Ints) -> Bytes:
        """Return bytes (n, ·) of keys or values at places (n,); 0 where the file is too short."""
        size = self.sizes[("keys", "values").index(name)]
        found = np.zeros((len(places), size), np.uint8)
        there = os.fstat(self._pairs[name]).st_size // size
        if there and len(places):
            raw = mmap.mmap(self._pairs[name], there * size, access=mmap.ACCESS_READ)
            file = np.frombuffer(raw, np.uint8).reshape(there, size)
            found[places < there] = file[places[places < there]]
        return found

    def is_whole(self, put: Any) -> bool:
        """Whether the pairs that a record of this log tells of are as they were written."""
        places = np.arange(put["place"], put["place"] + put["count"])
        names = ("keys", "values")
        return all(zlib.crc32(self.at(name, places).data) == put[name] for name in names)

    def rewritten(self, rows: Sequence[tuple[Ints, Ints, int]]) -> "Log":
        """Return a log of the next generation, in the place of this one, with some pairs alone.

        Args:
            rows: of each row the places of its pairs, their ids, and the id that comes next. The
                pairs lie in the new files in this order.

        Raises:
            OSError: it cannot be written; this log is as it was, and goes on.
        """
        about = self.about | {"generation": self.about["generation"] + 1}
        begin(self.folder, about["generation"])
        new, told = Log(self.folder, self.sizes, about), []
        puts, new.clock = self.puts, self.clock
        try:
            new.start_writing()
            for row, (places, ids, following) in enumerate(rows):
                # to the second, so that pairs that came one by one have one record; up, so that
                # none seems older than it is
                times = puts["time"][np.searchsorted(puts["place"], places, "right") - 1]
                times = np.minimum(np.ceil(times), self.clock)
                apart = (np.diff(ids) != 1) | (np.diff(times) != 0)
                for part in parts(apart, len(ids), self.step):
                    pairs = self.at("keys", places[part]), self.at("values", places[part])
                    id, when = int(ids[part.start]), float(times[part.start])
                    told.append(new._put(*pairs, new.end, row, id, when))
                    new.end += part.stop - part.start
                told.append((NEXT, row, 0, following, 0, 0, 0, self.clock))
            new._commit(told)
            write_about(self.folder, about)
        except OSError:
            new.remove()
            raise
        except BaseException:  # interrupted: perhaps the new files count already, so no more here
            self.close()
            raise
        self.remove()
        return new

    def remove(self) -> None:
        """Close the files and remove them; who has mapped them keeps what is mapped."""
        self.close()
        for name in NAMES:
            with suppress(OSError):  # who writes next removes what is left
                self.path(name).unlink()


def begin(folder: Path, generation: int) -> None:
    """Make the files of a generation, empty, whatever a process that ended has left of them."""
    for name in NAMES:
        (folder / f"{generation}.{name}").write_bytes(b"")


def _close(files: dict[str, int]) -> None:
    while files:
        os.close(files.popitem()[1])
