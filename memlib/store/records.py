"""What the log of a durable store consists of: records that vouch for themselves, and bytes.

A record of 64 bytes holds a checksum of itself, so that what is torn or damaged is known for it.
All records stand in two files; one that is damaged in the one is taken from the other.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memlib._files import replacing
from memlib.store.pairs import Ints

FORMAT, VERSION = "memlib.Store", 2
ABOUT = ("about.json", "about.mirror")
PUT, DROP, NEXT = 1, 2, 3  # pairs came; pairs went; the id that comes next in a row
RECORD = np.dtype(
    [
        ("sum", "<u8"),  # of the other 56 bytes
        ("commit", "<i8"),
        ("kind", "<u2"),
        ("last", "<u2"),  # of its commit
        ("row", "<u4"),
        ("place", "<i8"),  # of the first pair, counted in pairs from the start of the files
        ("id", "<i8"),  # of the first pair; those of the others follow
        ("count", "<i8"),
        ("keys", "<u4"),  # checksums of the bytes
        ("values", "<u4"),
        ("time", "<f8"),  # seconds since 1970
    ]
)
TOLD = ("kind", "row", "place", "id", "count", "keys", "values", "time")
Records = NDArray[np.void]
Bytes = NDArray[np.uint8]


def recovered(log: Path, mirror: Path) -> tuple[Records, list[str], int]:
    """Read whole commits; also what is lost, in words, and how many records there once were.

    Raises:
        FileNotFoundError: there is neither file.
    """
    raw = [path.read_bytes() if path.exists() else b"" for path in (log, mirror)]
    if not (log.exists() or mirror.exists()):
        raise FileNotFoundError(f"there is neither {log.name} nor {mirror.name}")
    count = max(len(data) // RECORD.itemsize for data in raw)
    first, second = (
        np.frombuffer(data[: count * RECORD.itemsize].ljust(count * RECORD.itemsize, b"\0"), RECORD)
        for data in raw
    )
    good = sums(first) == first["sum"]
    records = np.where(good, first, second)
    good |= sums(second) == second["sum"]
    ends = (good & (records["last"] == 1)).nonzero()[0]
    whole = int(ends[-1]) + 1 if len(ends) else 0
    records, good = records[:whole], good[:whole]
    lost = [
        f"record {n} of {log.name} and of its mirror: it may have told of pairs that came, or went"
        for n in (~good).nonzero()[0]
    ]
    return records[good], lost, whole


def sums(records: Records) -> NDArray[np.uint64]:
    """Return a checksum of each record, of all but its own place: (n,) -> (n,)."""
    words = (
        records.view("<u8").reshape(len(records), -1) if len(records) else np.zeros((0, 8), "<u8")
    )
    total = np.full(len(records), 0x9E3779B97F4A7C15, np.uint64)
    for word in words.T[1:]:
        total = (total ^ word) * np.uint64(0xD6E8FEB86659FD93)
        total ^= total >> np.uint64(32)
    return total


# What the store is, also in two files


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Say what the store is: whole, or not at all.

    Raises:
        OSError: it cannot be written; the store is what it was. (Once the first copy is, it counts;
            who writes next mends the second.)
    """
    text = json.dumps({"format": FORMAT, "version": VERSION, **about})
    body = json.dumps({"crc32": zlib.crc32(text.encode()), "about": text})
    first, second = (folder / name for name in ABOUT)
    with replacing(first) as beside:
        beside.write_text(body)
    with suppress(OSError), replacing(second) as beside:
        beside.write_text(body)
    with suppress(OSError):  # also where the second copy failed: the old files go after this
        sync_folder(folder)


def is_there(folder: Path) -> bool:
    """Whether a store was made in a folder."""
    return any((folder / name).exists() for name in ABOUT)


def read_about(folder: Path) -> dict[str, Any]:
    """Return what the store is.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no durable store, of another version, or damaged.
    """
    found, why = [], ""
    for name in ABOUT:
        try:
            body = json.loads((folder / name).read_bytes())
            text = body["about"]
            if body["crc32"] != zlib.crc32(text.encode()):
                raise ValueError("its checksum differs")
            found.append(json.loads(text))
        except FileNotFoundError as error:
            why = why or f"there is no {error.filename and Path(error.filename).name}"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{name} is damaged: {error}"
    if not found:
        raise ValueError(f"{folder.name} must be the folder of a durable store; {why}")
    about = max(found, key=lambda about: about["generation"])
    for name, wanted in (("format", FORMAT), ("version", VERSION)):
        if about[name] != wanted:
            raise ValueError(f"{folder.name} must be of {name} {wanted}; got {about[name]}")
    return dict(about)


def write(file: int, data: Any, offset: int) -> None:
    """Write all of it."""
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def sync(file: int) -> None:
    """Return when it is on the disk."""
    getattr(os, "fdatasync", os.fsync)(file)


def sync_folder(folder: Path) -> None:
    """Let new names reach the disk, where a folder can be opened for it."""
    try:
        file = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    os.fsync(file)
    os.close(file)


def side_by_side(places: Ints) -> Iterator[tuple[int, int]]:
    """Go through places that lie side by side: the first of them and how many."""
    places = np.unique(places)
    for part in parts(np.diff(places) != 1, len(places), len(places) + 1):
        yield int(places[part.start]), part.stop - part.start


def parts(apart: NDArray[np.bool_], count: int, most: int) -> Iterator[slice]:
    """Go through so many things in parts of at most `most`, cut where two are apart."""
    cuts = [0, *(apart.nonzero()[0] + 1).tolist(), count] if count else []
    for start, stop in pairwise(cuts):
        for at in range(start, stop, most):
            yield slice(at, min(at + most, stop))
