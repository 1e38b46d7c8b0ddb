"""A store in a folder: what an acknowledged write costs, and what opening does, beside SQLite.

Pairs of 64 + 64 float32 are added, `BATCHES` of them a call, each call on the disk when it ends:

======= ========================================================================================
way     what a call does
======= ========================================================================================
durable `Store.add` of a store opened with ``durable=True``
memory  `Store.add` of a plain store, which is gone with its process
sqlite  one transaction with a row a pair, keys and values as blobs (WAL, synchronous FULL)
blob    the same with one row a call, which holds all its pairs
======= ========================================================================================

Then a million pairs are opened, and all keys are put where a read can use them. Last, a store of
ten million keys and values of width 1 is written by one process, and opened and read by another;
the most memory that each had is told by its system (VmHWM of Linux, which begins anew in each
process; ru_maxrss would begin with that of the process that started it).
"""

import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memlib.store import DurableStore, Store

WIDTH, ROUNDS = 64, 5
BATCHES = {1: 300, 100: 100, 10_000: 6}  # pairs a call, and calls a round
LARGE, HUGE, PART = 1_000_000, 10_000_000, 100_000
PEAK = """
import json, re, sys, time
from pathlib import Path
import torch
from memlib.store import Store
def peak():
    found = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024
"""
WRITE = """
width, pairs, part = map(int, sys.argv[2:])
chance = torch.Generator().manual_seed(0)
store = Store.open(sys.argv[1], durable=True, width=width, value_width=1)
for _ in range(pairs // part):
    store.add(*(torch.randn(1, part, size, generator=chance) for size in (width, 1)))
store.close()
print(json.dumps({"peak bytes of the writer": peak()}))
"""
READ = """
start = time.perf_counter()
store = Store.open(sys.argv[1], durable=True, readonly=True)
opened = time.perf_counter() - start
value = store.read(torch.ones(1, 1, store.width), k=32)
first = time.perf_counter() - start - opened
start = time.perf_counter()
store.read(torch.ones(1, 1, store.width), k=32)
second = time.perf_counter() - start
print(json.dumps({"open": opened, "first read": first, "second read": second,
    "peak bytes": peak(), "pairs": len(store.ids[0])}))
"""


@contextmanager
def sqlite(path: Path, columns: str) -> Iterator[sqlite3.Connection]:
    """Open a data base with one table."""
    base = sqlite3.connect(path, isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=FULL")
    base.execute(f"CREATE TABLE IF NOT EXISTS pairs ({columns})")
    yield base
    base.close()


@contextmanager
def way(name: str, folder: Path) -> Iterator[Callable[[Tensor, Tensor], Any]]:
    """Yield what adds pairs (1, T, 64)."""
    if name == "memory":
        yield Store(WIDTH, WIDTH).add
    elif name == "durable":
        store: Any = DurableStore.open(
            folder / "store", durable=True, width=WIDTH, value_width=WIDTH
        )
        yield store.add
        store.close()
    else:
        with sqlite(folder / name, "key BLOB, value BLOB") as base:
            yield lambda keys, values: insert(base, keys, values, by_row=name == "sqlite")


def insert(base: sqlite3.Connection, keys: Tensor, values: Tensor, by_row: bool) -> None:
    """Add pairs as rows, or as one row, in one transaction."""
    parts = [x.numpy()[0] if by_row else x.numpy() for x in (keys, values)]
    rows = [(k.tobytes(), v.tobytes()) for k, v in zip(*parts, strict=True)]
    base.execute("BEGIN")
    base.executemany("INSERT INTO pairs VALUES (?, ?)", rows)
    base.execute("COMMIT")


def rates() -> list[dict[str, Any]]:
    """Return pairs a second, all ways in turn, medians of rounds."""
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for batch, calls in BATCHES.items():
            pairs = torch.randn(2, 1, batch, WIDTH)
            for name in ("durable", "memory", "sqlite", "blob"):
                with tempfile.TemporaryDirectory() as folder, way(name, Path(folder)) as add:
                    add(*pairs)
                    start = time.perf_counter()
                    for _ in range(calls):
                        add(*pairs)
                    seconds = time.perf_counter() - start
                found.setdefault((name, batch), []).append(batch * calls / seconds)
    return [
        {"way": name, "batch": batch, "pairs_a_second": round(median(every))}
        for (name, batch), every in found.items()
    ]


def openings(folder: Path) -> dict[str, float]:
    """Return the seconds until the keys of a million pairs can be read, medians of rounds."""
    store: Any = DurableStore.open(folder / "store", durable=True, width=WIDTH, value_width=WIDTH)
    with sqlite(folder / "sqlite", "key BLOB, value BLOB") as base:
        for _ in range(LARGE // PART):
            pairs = torch.randn(2, 1, PART, WIDTH)
            store.add(*pairs)
            insert(base, *pairs, by_row=True)
    store.close()
    times: dict[str, list[float]] = {"durable": [], "durable, verified": [], "sqlite": []}
    for _ in range(ROUNDS):
        start = time.perf_counter()
        store = DurableStore.open(folder / "store", durable=True)
        times["durable"].append(time.perf_counter() - start)
        store.verify()
        times["durable, verified"].append(time.perf_counter() - start)
        store.close()
        start = time.perf_counter()
        with sqlite(folder / "sqlite", "key BLOB, value BLOB") as base:
            raw = b"".join(key for (key,) in base.execute("SELECT key FROM pairs"))
            torch.from_numpy(np.frombuffer(bytearray(raw), np.float32)).view(1, -1, WIDTH)
        times["sqlite"].append(time.perf_counter() - start)
    return {name: round(median(every), 4) for name, every in times.items()}


def huge(folder: Path) -> dict[str, Any]:
    """Write ten million pairs, and open and read them, each in a process of its own."""
    sizes = str(WIDTH), str(HUGE), str(PART)
    wrote = _told(WRITE, str(folder / "huge"), *sizes)
    return _told(READ, str(folder / "huge")) | wrote


def _told(work: str, *given: str) -> dict[str, Any]:
    """Return what a new process tells."""
    command = [sys.executable, "-c", PEAK + work, *given]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    told: dict[str, Any] = json.loads(found)
    return told


def run() -> dict[str, Any]:
    """Measure all of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {"rates": rates(), "openings": openings(folder), "huge": huge(folder)}
    found |= {"width": WIDTH, "sqlite": sqlite3.sqlite_version}
    return found | {"threads": torch.get_num_threads()}


def report(found: dict[str, Any]) -> str:
    """Return the tables as text."""
    lines = [f"{'way':10}{'pairs a call':>14}{'pairs a second':>16}"]
    for row in found["rates"]:
        lines.append(f"{row['way']:10}{row['batch']:14,}{row['pairs_a_second']:16,}")
    lines.append(f"\nseconds until {LARGE:,} keys can be read:")
    lines += [f"    {name:20}{seconds:8.4f}" for name, seconds in found["openings"].items()]
    lines.append(f"\n{HUGE:,} keys of width {WIDTH}:")
    lines += [f"    {name:26}{value:16,.3f}" for name, value in found["huge"].items()]
    return "\n".join(lines)
