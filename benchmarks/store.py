"""Reads of large stores: exact beside faiss, and what an approximate search saves and misses.

Points lie in clusters: a centre from N(0, I) for every hundred points, and each point is a centre
at random plus noise from N(0, I / 4). Queries are drawn like points and are none of them. A read
is `memlib.Store.read` of the 32 nearest of N pairs by the dot product, of width 64 in float32.
All ways run in turn on all threads, and medians of the time on the clock are compared. Last comes
the largest store of facts of the chapter, asked in plain English, with the chapter's own vectors.

"faiss" is what one would write without memlib: a flat index, softmax, a weighted sum. Stores that
took long to build are kept in .build and opened the next time.

A smaller trial that records nothing: ``python -m benchmarks.store --slots 1000 100000``.
"""

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import torch
from torch import Generator, Tensor

from benchmarks.ntm import timed
from memlib import teaching
from memlib.store import Store
from memlib.store.indexes import faiss

WIDTH, K, PER_CLUSTER = 64, 32, 100
SLOTS = (1_000, 10_000, 100_000, 1_000_000)
QUERIES = (1, 8, 64)
BACKENDS = ("exact", "hnsw", "ivf")
EFFORTS = {"hnsw": (32, 64, 128, 256, 512), "ivf": (1, 4, 16, 64, 256)}
WORTH_KEEPING = 5.0  # seconds that a store took to build
ROOT = Path(__file__).parent.parent
FOLDER, CHAPTER = ROOT / ".build" / "benchmarks", ROOT / "book" / "store.ipynb"

Way = Callable[[Tensor], Tensor]


def draw(slots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return keys and values (1, N, M), and queries (1, 64, M)."""
    chance = Generator().manual_seed(0)
    centres = torch.randn(slots // PER_CLUSTER, WIDTH, generator=chance)

    def points(count: int) -> Tensor:
        near = torch.randint(len(centres), (count,), generator=chance)
        return torch.randn(1, count, WIDTH, generator=chance).div_(2).add_(centres[near])

    return points(slots), torch.randn(1, slots, WIDTH, generator=chance), points(max(QUERIES))


def facts() -> tuple[Tensor, Tensor, Tensor]:
    """Return the same of the chapter's facts, made by its own cells."""
    cells = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    source = {cell["id"]: "".join(cell["source"]) for cell in cells}
    page: dict[str, Any] = {"teaching": teaching}
    with contextlib.redirect_stdout(None):
        for name in ("imports", "embed", "facts", "phrasings"):
            exec(compile(source[name], f"cell {name} of {CHAPTER.name}", "exec"), page)
    every = [fact.text for fact in page["facts"] + page["provinces"]]
    asked = torch.cat(list(page["questions"].values()))
    some = torch.randperm(len(asked), generator=Generator().manual_seed(0))[: max(QUERIES)]
    return page["embed"](every)[None], torch.zeros(1, len(every), WIDTH), asked[some][None]


def stored(backend: str, keys: Tensor, values: Tensor) -> tuple[Store, float]:
    """Return a store with its index, and the seconds it took to build, now or when it was kept."""
    path = FOLDER / f"{backend}_{keys.shape[1]}.store"
    note = path.with_suffix(".json")
    if path.exists() and note.exists():
        try:
            return Store.open(path, width=keys.shape[2]), json.loads(note.read_text())
        except ValueError:  # of another version
            path.unlink()
    store = Store(keys.shape[2], values.shape[2], measure="dot", backend=backend)
    start = time.perf_counter()
    store.add(keys, values)
    store.address(keys[:, :1], 1)  # the first search builds the index
    seconds = round(time.perf_counter() - start, 3)
    if seconds > WORTH_KEEPING:
        FOLDER.mkdir(parents=True, exist_ok=True)
        store.save(path)
        note.write_text(json.dumps(seconds))
    return store, seconds


def plain(keys: Tensor, values: Tensor) -> Way:
    """Return a read of queries (1, L, M) by faiss alone."""
    index = faiss("flat").IndexFlatIP(keys.shape[2])
    index.add(keys[0].numpy())

    def read(query: Tensor) -> Tensor:
        scores, found = (torch.from_numpy(x) for x in index.search(query[0].numpy(), K))
        return (scores.softmax(-1).unsqueeze(1) @ values[0, found]).mT.squeeze(2).unsqueeze(0)

    return read


def recall(store: Store, query: Tensor, nearest: Tensor) -> float:
    """Return the share of the nearest that the store finds."""
    found, _ = store.address(query, K)
    return round((found.unsqueeze(-1) == nearest.unsqueeze(-2)).any(-1).float().mean().item(), 4)


def size(store: Store) -> int:
    """Return the bytes of a store and its index."""
    indexes = [i.faiss.serialize_index(i.index).nbytes for i in store._search.indexes]
    return store.nbytes + sum(indexes)


def measure(
    keys: Tensor, values: Tensor, query: Tensor, budget: float, curved: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row for each way, and if asked for, one for each effort of an approximate search."""
    slots = keys.shape[1]
    built = {backend: stored(backend, keys, values) for backend in BACKENDS}
    stores = {backend: store for backend, (store, _) in built.items()}
    ways: dict[str, Way] = {
        name: lambda q, store=store: store.read(q, K) for name, store in stores.items()
    }
    ways["faiss"] = plain(keys, values)
    torch.testing.assert_close(ways["exact"](query), ways["faiss"](query), atol=1e-4, rtol=1e-4)
    nearest, _ = stores["exact"].address(query, K)

    rows: list[dict[str, Any]] = [{"slots": slots, "way": way} for way in ways]
    for queries in QUERIES:
        asked = query[:, :queries]
        runs = {name: partial(way, asked) for name, way in ways.items()}
        times = timed(runs, budget, clock=time.perf_counter)
        rows = [row | {f"ms_{queries}": times[f"{row['way']}_ms"]} for row in rows]
    for row in rows:
        if store := stores.get(row["way"]):
            row |= {"recall": recall(store, query, nearest), "bytes": size(store)}
            row |= {"build_s": built[row["way"]][1]}
    curve = []  # each search by itself, again and again
    for name, store in stores.items() if curved else ():
        for effort in EFFORTS.get(name, (0,)):
            if effort:
                store.effort = effort
            one = {"one": partial(ways[name], query[:, :1])}
            ms = timed(one, budget / 6, clock=time.perf_counter)["one_ms"]
            row = {"slots": slots, "way": name, "effort": effort, "ms_1": ms}
            curve.append(row | {"recall": recall(store, query, nearest)})
    return rows, curve


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many times faster: exact than faiss, and an approximate search than exact."""
    by_way = {row["way"]: row for row in rows}

    def faster(way: str, than: str) -> dict[str, float]:
        ms = [(q, by_way[than][f"ms_{q}"] / by_way[way][f"ms_{q}"]) for q in QUERIES]
        mean = geometric_mean(ratio for _, ratio in ms)
        return {str(q): round(ratio, 2) for q, ratio in ms} | {"mean": round(mean, 2)}

    approximate = {way: faster(way, "exact") for way in EFFORTS}
    return {"slots": rows[0]["slots"], "exact": faster("exact", "faiss"), **approximate}


@torch.no_grad()
def run(slots: Sequence[int] = SLOTS, budget: float = 4.0) -> dict[str, Any]:
    """Measure stores of so many pairs, about `budget` seconds for each number of queries."""
    threads, rows, curve = torch.get_num_threads(), [], []
    faiss("flat").omp_set_num_threads(threads)
    for count in slots:
        more, curve = measure(*draw(count), budget, curved=count == slots[-1])
        rows += more
    faster = summary(rows[-len(more) :])
    page = facts()
    torch.set_num_threads(threads)  # the page has asked for one
    faiss("flat").omp_set_num_threads(threads)
    real, _ = measure(*page, budget)
    return {
        "threads": threads, "rows": rows, "curve": curve, "faster": faster,
        "facts": {"rows": real, "faster": summary(real)},
    }  # fmt: skip


def report(figures: dict[str, Any]) -> str:
    """Return the tables."""
    names = ("slots", "way", *(f"ms_{q}" for q in QUERIES), "recall", "bytes", "build_s")
    lines = ["".join(f"{name:>11}" for name in names)]
    lines += [
        "".join(f"{row.get(n, ''):>11}" for n in names)
        for row in figures["rows"] + figures["facts"]["rows"]
    ]
    names = ("slots", "way", "effort", "ms_1", "recall")
    lines += ["", "".join(f"{name:>11}" for name in names)]
    lines += ["".join(f"{row[n]:>11}" for n in names) for row in figures["curve"]]
    than = {"exact": "faiss"}
    for faster in (figures["faster"], figures["facts"]["faster"]):
        lines += [""] + [
            f"{way:>5} at {faster['slots']:,}, times faster than {than.get(way, 'exact')}: "
            + ", ".join(f"{ratio} ({queries})" for queries, ratio in faster[way].items())
            for way in BACKENDS
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=SLOTS, metavar="N")
    parser.add_argument("--budget", type=float, default=4.0, metavar="SECONDS")
    print(report(run(**vars(parser.parse_args()))))
