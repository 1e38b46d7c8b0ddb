"""The folder of a durable store: made, claimed by its one writer, and read."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from memlib.store import records
from memlib.store.log import Log, begin
from memlib.store.pairs import Ints
from memlib.store.records import DROP, NEXT
from memlib.store.store import OPTIONS, Store


def options(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the store is made with, which must be what is asked for."""
    found: dict[str, Any] = records.read_about(folder)["options"]
    for name in ("dtype", "value_dtype"):
        found[name] = getattr(torch, found[name])
    for name, wanted in asked.items():
        if name in ("backend", "device", "effort"):
            found[name] = wanted if wanted is not None else found.get(name)
        elif wanted not in (None, found.get(name)):
            got = found.get(name)
            raise ValueError(f"{name} of {folder.name} must be {wanted}; got {got}")
    return found


def told(found: Log, rows: int) -> tuple[Ints, Ints, Ints]:
    """Return of each place its row and id, -1 for what went, and of each row the next id."""
    row, ids = np.zeros(found.end, np.int64), np.full(found.end, -1)
    records, following = found.records, np.zeros(rows, np.int64)
    puts, drops = found.puts, records[records["kind"] == DROP]
    place = _spread(puts["place"], puts["count"])
    row[place] = np.repeat(puts["row"], puts["count"])
    ids[place] = _spread(puts["id"], puts["count"])
    ids[_spread(drops["place"], drops["count"])] = -1
    if found.lost:  # that an older version went may be among what is lost: the last one counts
        held = np.flatnonzero(ids >= 0)
        last = {(r, i): p for p, r, i in zip(held, row[held], ids[held], strict=True)}
        ids[np.setdiff1d(held, list(last.values()))] = -1
    np.maximum.at(following, puts["row"], puts["id"] + puts["count"])
    nexts = records[records["kind"] == NEXT]
    np.maximum.at(following, nexts["row"], nexts["id"])
    return row, ids, following


def _spread(first: Ints, count: Ints) -> Ints:
    """Return first, first + 1, ... of each, so many."""
    start: Ints = np.repeat(first - (count.cumsum() - count), count)
    return start + np.arange(len(start))


def sizes(store: Store) -> tuple[int, int]:
    """Return the bytes of a key and of a value."""
    keys, values = (x.shape[-1] * x.element_size() for x in (store.keys, store.values))
    return keys, values


def mapped(path: Path, like: Tensor, slots: int) -> Tensor:
    """Map a file as (1, slots, ·); 0 where it is too short. What is changed stays in memory."""
    width = like.shape[-1]
    there = min(slots, path.stat().st_size // (width * like.element_size()))
    mapped = torch.from_file(str(path), shared=False, size=there * width, dtype=like.dtype)
    mapped = mapped.view(1, there, width)
    return mapped if there == slots else F.pad(mapped, (0, 0, 0, slots - there))


def made(folder: Path, options: Mapping[str, Any]) -> Store:
    """Return the empty store that a new folder is to hold."""
    given = {name: value for name, value in options.items() if value is not None}
    if "width" not in given:
        raise ValueError(f"width must be given for the new store {folder.name}; got None")
    return Store(**given)


def create(folder: Path, history: bool, options: Mapping[str, Any]) -> None:
    """Make the files of an empty store."""
    store = made(folder, options)
    about = {name: getattr(store, name) for name in OPTIONS} | {"batch_size": len(store.ids)}
    kinds = {"dtype": store.keys.dtype, "value_dtype": store.values.dtype}
    about |= {name: str(kind).removeprefix("torch.") for name, kind in kinds.items()}
    begin(folder, 1)
    records.write_about(folder, {"generation": 1, "history": history, "options": about})


def change(found: Log, **what: Any) -> None:
    """Say that the store is something else from now on."""
    about = found.about | what
    if about != found.about:
        records.write_about(found.folder, about)
        found.about = about


def claim(folder: Path) -> int:
    """Become the one that may write.

    Raises:
        BlockingIOError: there is another one.
        OSError: the folder cannot be written, or the system knows no such locks.
    """
    if sys.platform == "win32":
        raise OSError("writing a durable store needs file locks of POSIX, which Windows has not")
    import fcntl  # which Windows has not, either

    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / "writer", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise BlockingIOError(
            f"{folder.name} must have one writer, and is open for writing already; readonly=True "
            "opens it beside that one"
        ) from error
    return file
