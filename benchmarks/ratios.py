"""Recorded timings as ratios: the time of what a user would pick instead, over memlib's.

Each benchmark records its figures in its own form; `COMPARED` says how to come to rows of times,
what they are of, and what was changed from row to row. One that is neither there nor in `ASIDE`
fails a test. A ratio above 1 is memlib's lead; below 1 it loses.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from experiments import records


@dataclass(frozen=True)
class Compared:
    """What a benchmark compares.

    Attributes:
        rows: makes rows of its figures, each with a time ``WAY_ms`` of every way.
        ours: memlib's ways: what a row calls it -> in words.
        others: what a user would pick instead, the same.
        settings: what is changed from row to row.
        task: what is timed, in words.
    """

    rows: Callable[[Any], list[dict[str, Any]]]
    ours: Mapping[str, str]
    others: Mapping[str, str]
    settings: tuple[str, ...]
    task: str


@dataclass(frozen=True)
class Timing:
    """One way of memlib's beside one other, in one setting: the milliseconds of each."""

    setting: str
    ours: float
    other: float

    @property
    def ratio(self) -> float:
        """The other's time over ours."""
        return self.other / self.ours


@dataclass(frozen=True)
class Lead:
    """One way of memlib's beside one other, in all settings that were timed."""

    benchmark: str
    task: str
    ours: str
    other: str
    timings: list[Timing]

    @property
    def mean(self) -> float:
        """The geometric mean of the ratios."""
        return geometric_mean(timing.ratio for timing in self.timings)

    @property
    def lost(self) -> list[Timing]:
        """The settings in which memlib loses, the worst first."""
        return sorted((t for t in self.timings if t.ratio < 1), key=lambda t: t.ratio)


def _rows(figures: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = figures["rows"]
    return rows


def _queries(figures: Any) -> list[dict[str, Any]]:
    """A store's rows have a way each, and a column for each number of queries."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for row in [*figures["rows"], *figures["facts"]["rows"]]:
        for queries in (1, 8, 64):
            key = {"slots": row["slots"], "queries": queries}
            one = found.setdefault((row["slots"], queries), key)
            one[f"{row['way']}_ms"] = row[f"ms_{queries}"]
    return list(found.values())


def _batches(figures: Any) -> list[dict[str, Any]]:
    """A durable store's rows have a way each, and pairs a second: here the time of a thousand."""
    found: dict[int, dict[str, Any]] = {}
    for row in figures["rates"]:
        one = found.setdefault(row["batch"], {"batch": row["batch"]})
        one[f"{row['way']}_ms"] = 1e6 / row["pairs_a_second"]
    return list(found.values())


def _searches(figures: Any) -> list[dict[str, Any]]:
    """A database's rows have a way each: here all in one."""
    return [{f"{row['way']}_ms": row["ms"] for row in figures["rows"]}]


DYNAMIC = "`DynamicCache` of transformers"
STATIC = "`StaticCache` of transformers"
COMPARED = {
    "attend": Compared(
        list,
        {"attend": "`attend`"},
        {
            "plain": "softmax(QKᵀ)V in two lines of torch",
            "sdpa": "torch's `scaled_dot_product_attention`",
        },
        ("batch", "queries", "slots"),
        "one read",
    ),
    "decode": Compared(
        _rows,
        {"memlib": "`KVCache`"},
        {"dynamic": DYNAMIC, "static": STATIC},
        ("part", "size", "batch", "threads", "tokens"),
        "decoding one token",
    ),
    "dnc": Compared(
        _rows,
        {"memlib": "`DNC`", "compiled": "`DNC`, its step compiled"},
        {"plain": "the paper's formulas, line by line", "package": "the `dnc` package"},
        ("batch", "slots", "width", "read_heads"),
        "twenty steps, forward and backward",
    ),
    "durable": Compared(
        _batches,
        {"durable": "`Store.add`, durable"},
        {"sqlite": "SQLite, a row a pair", "blob": "SQLite, a row a call"},
        ("batch",),
        "a thousand pairs, on the disk",
    ),
    "fast_weights": Compared(
        _rows,
        {"chunk 32": "`matrix_memory` in chunks"},
        {
            "loop": "a tuned loop over tokens",
            "public": "the reference code of flash-linear-attention",
        },
        ("rule", "batch"),
        "a sequence, forward and backward",
    ),
    "forget": Compared(
        _rows,
        {
            "sinks": "a cache that keeps sinks and a window",
            "heavy hitters": "a cache that keeps heavy hitters",
        },
        {"full": "a cache that keeps every token"},
        ("size", "batch", "tokens"),
        "decoding one token with an eighth of the slots",
    ),
    "memn2n": Compared(
        lambda figures: [{f"{way}_ms": time for way, time in figures["update_ms"].items()}],
        {"memlib": "`MemN2N`"},
        {"plain": "the paper's text, hop by hop"},
        (),
        "one step of training",
    ),
    "ntm": Compared(
        lambda figures: list(figures["copy"]),
        {"ntm": "`NTM`", "compiled": "`NTM`, its step compiled"},
        {"floor": "an LSTM cell and a linear layer, with no memory at all"},
        ("batch",),
        "a copy task, forward and backward",
    ),
    "pgvector": Compared(
        _searches,
        {"memlib.Store": "`Store`, exact"},
        {
            "pgvector, exact": "PostgreSQL with pgvector, exact",
            "pgvector, HNSW at 100": "PostgreSQL with pgvector, HNSW",
        },
        (),
        "the nearest among all pairs, and the read",
    ),
    "pretrained": Compared(
        _rows,
        {"memlib": "`MemoryCache`"},
        {"dynamic": DYNAMIC, "static": STATIC},
        ("model", "batch", "tokens"),
        "decoding one token with a whole model",
    ),
    "store": Compared(
        _queries,
        {"exact": "`Store`, exact", "ivf": "`Store`, IVF", "hnsw": "`Store`, HNSW"},
        {"faiss": "faiss, exact, softmax and sum"},
        ("slots", "queries"),
        "a read of the nearest 32",
    ),
    "sharded": Compared(
        _rows,
        {"parts": "`ShardedStore`, a process for each part"},
        {"threads": "`Store` in one process of as many threads"},
        ("processes", "read"),
        "one read of a million pairs",
    ),
}
ASIDE = {  # records that compare memlib with nothing that a user would pick instead
    "before": "memlib before and after a change",
    "explore": "how the explorables feel; on the page Status",
    "import_time": "what importing takes; on the page Status",
}


def recorded(folder: Path = records.RESULTS) -> dict[str, dict[str, Any]]:
    """Return the records that are compared, by the name of their benchmark."""
    paths = {name: folder / f"benchmark_{name}.json" for name in sorted(COMPARED)}
    return {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
        if path.exists()
    }


def leads(folder: Path = records.RESULTS) -> Iterator[Lead]:
    """Go through all that is recorded: a lead for each pair of ways."""
    for name, record in recorded(folder).items():
        yield from of_figures(name, record["figures"])


def of_figures(name: str, figures: Any) -> Iterator[Lead]:
    """Go through the pairs of ways of one benchmark."""
    one = COMPARED[name]
    rows = one.rows(figures)
    for way, ours in one.ours.items():
        for peer, other in one.others.items():
            timings = list(_timings(rows, f"{way}_ms", f"{peer}_ms", one.settings))
            if timings:
                yield Lead(name, one.task, ours, other, timings)


def _timings(
    rows: list[dict[str, Any]], mine: str, its: str, settings: tuple[str, ...]
) -> Iterator[Timing]:
    for row in rows:
        if row.get(mine) and row.get(its):  # not every way was timed in every setting
            words = ((name, row[name]) for name in settings if name in row)
            said = (f"{n.replace('_', ' ')} {v:,}" if isinstance(v, int) else v for n, v in words)
            yield Timing(", ".join(said), float(row[mine]), float(row[its]))
