"""Recorded timings as ratios: the time of what a user would pick instead, over memlib's.

Each benchmark records its figures in its own form; `COMPARED` says where the times are, what they
are of, and what was changed from row to row. A ratio above 1 is memlib's lead; below 1 it loses.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from experiments import records
from experiments.claims import take


@dataclass(frozen=True)
class Compared:
    """What a benchmark compares.

    Attributes:
        rows: where its rows are, a path into the figures; empty for the figures themselves.
        ours: memlib's ways: what a row calls it -> in words.
        others: what a user would pick instead, the same.
        settings: what is changed from row to row.
        task: what is timed, in words.
        time: how a row calls the time of a way, ``{}`` in its place.
    """

    rows: str
    ours: Mapping[str, str]
    others: Mapping[str, str]
    settings: tuple[str, ...]
    task: str
    time: str = "{}_ms"


@dataclass(frozen=True)
class Timing:
    """One way of memlib's beside one other, in one setting.

    Attributes:
        setting: in words.
        ours: milliseconds.
        other: milliseconds.
    """

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
    timings: list[Timing] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """The geometric mean of the ratios."""
        return geometric_mean(timing.ratio for timing in self.timings)

    @property
    def lost(self) -> list[Timing]:
        """The settings in which memlib loses, the worst first."""
        return sorted((t for t in self.timings if t.ratio < 1), key=lambda t: t.ratio)


_DECODE = Compared(
    "rows",
    {"memlib": "`KVCache`"},
    {"dynamic": "`DynamicCache` of transformers", "static": "`StaticCache` of transformers"},
    ("part", "size", "batch", "threads", "tokens"),
    "decoding one token",
)
COMPARED = {
    "attend": (
        Compared(
            "",
            {"attend": "`attend`"},
            {
                "plain": "softmax(QKᵀ)V in two lines of torch",
                "sdpa": "torch's `scaled_dot_product_attention`",
            },
            ("batch", "queries", "slots"),
            "one read",
        ),
    ),
    "decode": (_DECODE,),
    "dnc": (
        Compared(
            "rows",
            {"memlib": "`DNC`", "compiled": "`DNC`, its step compiled"},
            {"plain": "the paper's formulas, line by line", "package": "the `dnc` package"},
            ("batch", "slots", "width", "read_heads"),
            "twenty steps, forward and backward",
        ),
    ),
    "fast_weights": (
        Compared(
            "rows",
            {"chunk 32": "`matrix_memory` in chunks"},
            {
                "loop": "a tuned loop over tokens",
                "public": "the reference code of flash-linear-attention",
            },
            ("rule", "batch"),
            "a sequence, forward and backward",
        ),
    ),
    "forget": (
        Compared(
            "rows",
            {
                "sinks": "a cache that keeps sinks and a window",
                "heavy hitters": "a cache that keeps heavy hitters",
            },
            {"full": "a cache that keeps every token"},
            ("size", "batch", "tokens"),
            "decoding one token with an eighth of the slots",
        ),
    ),
    "memn2n": (
        Compared(
            "update_ms",
            {"memlib": "`MemN2N`"},
            {"plain": "the paper's text, hop by hop"},
            (),
            "one step of training",
            "{}",
        ),
    ),
    "ntm": (
        Compared(
            "copy",
            {"ntm": "`NTM`", "compiled": "`NTM`, its step compiled"},
            {"floor": "an LSTM cell and a linear layer, with no memory at all"},
            ("batch",),
            "a copy task, forward and backward",
        ),
    ),
    "sharded": (
        Compared(
            "rows",
            {"parts": "`ShardedStore`, a process for each part"},
            {"threads": "`Store` in one process of as many threads"},
            ("processes", "read"),
            "one read of a million pairs",
        ),
    ),
}
READS = {"exact": "`Store`, exact", "ivf": "`Store`, IVF", "hnsw": "`Store`, HNSW"}
ASIDE = {  # records that compare memlib with nothing that a user would pick instead
    "before": "memlib before and after a change",
    "explore": "how the explorables feel; on the page Status",
    "import_time": "what importing takes; on the page Status",
}


def leads(folder: Path = records.RESULTS) -> Iterator[Lead]:
    """Go through all that is recorded: a lead for each pair of ways, the worst first in each."""
    for name, figures in _recorded(folder):
        found = list(_store(figures)) if name == "store" else list(_told(name, figures))
        yield from sorted(found, key=lambda lead: lead.mean)


def recorded(folder: Path = records.RESULTS) -> dict[str, dict[str, Any]]:
    """Return the records that are compared, by the name of their benchmark."""
    paths = sorted(folder.glob("benchmark_*.json"))
    found = {path.stem.removeprefix("benchmark_"): path for path in paths}
    return {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name, path in found.items()
        if name in COMPARED or name == "store"
    }


def _recorded(folder: Path) -> Iterator[tuple[str, Any]]:
    for name, record in recorded(folder).items():
        yield name, record["figures"]


def _told(name: str, figures: Any) -> Iterator[Lead]:
    for one in COMPARED[name]:
        rows = take(figures, one.rows) if one.rows else figures
        rows = rows if isinstance(rows, list) else [rows]
        for way, ours in one.ours.items():
            for peer, other in one.others.items():
                lead = Lead(name, one.task, ours, other)
                keys = one.time.format(way), one.time.format(peer)
                for row in rows:
                    if all(row.get(key) for key in keys):
                        mine, its = (float(row[key]) for key in keys)
                        lead.timings.append(Timing(_setting(row, one.settings), mine, its))
                if lead.timings:
                    yield lead


def _setting(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    words = ((name, row[name]) for name in names if name in row)
    return ", ".join(
        f"{n.replace('_', ' ')} {v:,}" if isinstance(v, int) else str(v) for n, v in words
    )


def _store(figures: Any) -> Iterator[Lead]:
    """A store's rows have a way each, and a column for each number of queries."""
    rows = [*figures["rows"], *figures["facts"]["rows"]]
    times = {(row["slots"], row["way"]): row for row in rows}
    for way, ours in READS.items():
        lead = Lead("store", "a read of the nearest 32", ours, "faiss, exact, softmax and sum")
        for (slots, other), peer in times.items():
            row = times.get((slots, way))
            if other != "faiss" or row is None:
                continue
            for queries in ("1", "8", "64"):
                setting = f"slots {slots:,}, queries {queries}"
                lead.timings.append(Timing(setting, row[f"ms_{queries}"], peer[f"ms_{queries}"]))
        if lead.timings:
            yield lead
