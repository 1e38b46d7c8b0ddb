"""The tables of the page *In your own system*: what a folder costs, and what a database does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from book._ext.tables import SHORT, table

WAYS = {  # of `benchmarks.durable`
    "durable": "a durable store",
    "memory": "a store in memory",
    "sqlite": "SQLite, a row a pair",
    "blob": "SQLite, a row a call",
}


def _record(folder: Path, name: str) -> dict[str, Any] | None:
    path = folder / f"benchmark_{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _told(record: dict[str, Any], what: str) -> str:
    machine = record["machine"]["processor"]
    return f"{what}: `{record['command']}`, {record['date']}, {machine}."


def _missing(name: str) -> str:
    return f"Not measured yet: `python -m benchmarks {name}`."


def durable(folder: Path) -> str:
    """Pairs a second that are on the disk, by pairs a call; and how soon they can be read again."""
    if (record := _record(folder, "durable")) is None:
        return _missing("durable")
    found = record["figures"]
    rates = {(row["way"], row["batch"]): row["pairs_a_second"] for row in found["rates"]}
    batches = sorted({batch for _, batch in rates})
    rows = [
        [words, *(f"{rates[way, batch]:,}" for batch in batches)] for way, words in WAYS.items()
    ]
    head = ["Pairs a second", *(f"{batch:,} a call" for batch in batches)]
    soon, huge = found["openings"], found["huge"]
    said = (
        f"A million keys can be read {soon['durable']:.3f} s after the folder is opened, "
        f"{soon['durable, verified']:.2f} s with all checksums compared; from SQLite it takes "
        f"{soon['sqlite']:.2f} s. A store of {huge['pairs']:,} pairs, values of width 1, opens "
        f"in {huge['open']:.2f} s. Its first read, which compares all checksums, takes "
        f"{huge['first read']:.1f} s, the second {huge['second read']:.1f} s; the most memory that "
        f"its process has at a time is {huge['peak bytes'] / 1e9:.1f} GB."
    )
    widths = f"Keys and values of width {found['width']}"
    parts = [_told(record, widths), table(head, rows, SHORT), said, survived(folder)]
    return "\n\n".join(part for part in parts if part)


def survived(folder: Path) -> str:
    """How often a store was killed and damaged, and what came of it."""
    path = folder / "durability.json"
    if not path.exists():
        return ""
    (*_, run) = json.loads(path.read_text(encoding="utf-8"))["runs"]
    kills, damages = run["kills"], run["damages"]

    def but(wrong: int) -> str:
        return f", but for {wrong:,}" if wrong else ""

    return (
        f"Its process was killed at {kills['count']:,} random moments, among "
        f"{kills['acknowledged']:,} acknowledged calls; the power was never cut. Each time the "
        f"store held what had been acknowledged{but(kills['wrong'])}. Each of "
        f"{damages['count']:,} random damages to its files was harmless or found"
        f"{but(len(damages['wrong']))} (`{run['command']}`, {run['date']})."
    )


def pgvector(folder: Path) -> str:
    """Recall and time of each search, exact and by effort."""
    if (record := _record(folder, "pgvector")) is None:
        return _missing("pgvector")
    found = record["figures"]
    rows = [[row["way"], f"{row['recall']:.3f}", f"{row['ms']:.2f} ms"] for row in found["rows"]]
    said = (
        f"{found['pairs']:,} pairs of width {found['width']}, {found['queries']} queries at once, "
        f"k = {found['k']}; PostgreSQL {found['server']}, pgvector {found['pgvector']}"
    )
    head = ["Search", "Recall", "Time"]
    return f"{_told(record, said)}\n\n{table(head, rows, SHORT)}"
