"""The tables of the pages *Benchmarks* and *Status*: ratios, machines, weights, times."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks import ratios
from book._ext.tables import SHORT, broken, counted, ordered, table, titled
from experiments import check, claims
from experiments.reproduce import rounded, shown

COMMAND = re.compile(r"python -m [\w. =-]+\w")  # code, or its hyphens become dashes

# ---- Benchmarks ----


def _lead(lead: ratios.Lead, folder: Path) -> list[str]:
    low, high = (f(timing.ratio for timing in lead.timings) for f in (min, max))
    span = f"{shown(low)} to {shown(high)}" if len(lead.timings) > 1 else ""
    ratio = f"**{shown(lead.mean)}×**" if lead.mean < 1 else f"{shown(lead.mean)}×"
    lost = f"{len(lead.lost)} of {len(lead.timings)}"
    beside = broken(lead.other, *_known(lead, ratios.recorded(folder)[lead.benchmark]["figures"]))
    return [f"{lead.ours}, {lead.task}", beside, ratio, span or "one setting", lost]


def _known(lead: ratios.Lead, figures: Any) -> list[str]:
    """What a ratio leaves out: the share of the nearest that is found, where the parts were."""
    if lead.benchmark == "sharded":
        cores, rows = counted(figures["cores"], "core"), figures["rows"]
        more = sum(row["processes"] > figures["cores"] for row in rows)
        where = f"all on one machine of {cores}, by loopback and no network"
        return [f"{where}; {more} of {len(rows)} settings have more processes than cores"]
    if lead.benchmark not in ("store", "pgvector"):
        return []
    ways = ratios.COMPARED[lead.benchmark]
    rows, told = [*figures["rows"], *figures.get("facts", {"rows": []})["rows"]], []
    for way, words in {**ways.ours, **ways.others}.items():
        found = [row["recall"] for row in rows if row["way"] == way and "recall" in row]
        if words in (lead.ours, lead.other) and min(found, default=1) < 1:
            low, high = (rounded(f(found), 3) for f in (min, max))
            effort = " at effort" + way.rpartition(" at")[2] if " at " in way else ""
            told.append(f"{words}{effort}: recall {low}" + f" to {high}" * (low != high))
    return told


def _apart(one: float, two: float) -> str:
    """Two times in milliseconds, with as many digits as tell them apart."""
    digits = next((n for n in range(3, 6) if rounded(one, n) != rounded(two, n)), 6)
    return f"{rounded(one, digits)} ms against {rounded(two, digits)}"


def loses(folder: Path) -> str:
    """Where memlib is slower: on the whole, and in single settings with their times."""
    found = [lead for lead in ratios.leads(folder) if lead.lost]
    found.sort(key=lambda lead: lead.mean)
    whole = sum(lead.mean < 1 for lead in found)
    said = (
        f"On the whole memlib is slower in {counted(whole, 'comparison')} of "
        f"{len(list(ratios.leads(folder)))}, and in single settings in "
        f"{len(found) - whole} more."
    )
    rows = []
    for lead in found:
        worst = [f"{t.setting}: {_apart(t.ours, t.other)}" for t in lead.lost[:3]]
        name, beside, ratio, _, lost = _lead(lead, folder)
        rows.append([name, beside, ratio, lost, broken(*worst)])
    head = ["memlib", "Beside", "Ratio", "Settings lost", "The worst of them"]
    return f"{said}\n\n{table(head, rows)}"


def leads(folder: Path) -> str:
    """All comparisons, the worst first."""
    found = sorted(ratios.leads(folder), key=lambda lead: lead.mean)
    head = ["memlib", "Beside", "Ratio, mean", "Lowest to highest", "Settings lost"]
    return table(head, (_lead(lead, folder) for lead in found))


def machines(folder: Path) -> str:
    """Where and with what each benchmark was measured, and whether its record is current."""
    state = {group.file: group.state for group in claims.groups(folder)}
    rows = []
    for name, record in ratios.recorded(folder).items():
        versions = ", ".join(f"{n} {v}" for n, v in record["versions"].items())
        machine = record["machine"]
        threads = counted(machine["threads"], "thread")
        rows.append(
            [
                f"`{record['command']}`",
                f"{machine['processor']}, {threads}",
                versions,
                record["date"],
                state[f"benchmark_{name}"],
            ]
        )
    return table(["Benchmark", "Machine", "Versions", "Date", "Record"], rows)


# ---- Status ----


def _status(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    return found


def versions(folder: Path) -> str:
    """With what the pages were built that were measured."""
    status = _status(folder)
    told = ", ".join(f"{name} {number}" for name, number in status["versions"].items())
    machine = status["machine"]["processor"]
    return f"Measured on {status['date']} with {told}; processor: {machine}."


def pages(folder: Path) -> str:
    """What each page takes to make, to send and to read."""
    rows = []
    measured = _status(folder)["pages"]
    for name in ordered(measured):
        page = measured[name]
        rows.append(
            [
                titled(name),
                f"{page['cpu']:.0f} s" if "cpu" in page else "not run",
                f"{page['megabytes']} MB" if "cpu" in page else "none",
                f"{page['bytes'] / 1000:,.0f} kB",
                f"{page['gzip'] / 1000:,.0f} kB",
                f"{page['minutes']} minutes" if "minutes" in page else "looked up, not read",
            ]
        )
    head = ["Page", "CPU", "Memory", "Bytes", "Compressed", "Reading time"]
    return table(head, rows, SHORT)


def explorables(folder: Path) -> str:
    """How quickly each page's explorables answer."""
    path = folder / "benchmark_explore.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    measured = record["figures"]["pages"]
    for name in ordered(measured):
        page = measured[name]
        slow = max(control["worst"] for control in page["controls"].values())
        rows.append(
            [
                titled(name),
                f"{page['median']:.1f} ms",
                f"{slow:.0f} ms",
                f"{page['start']:.0f} ms",
                f"{(page['script'] + page['data']) / 1000:,.0f} kB",
            ]
        )
    head = ["Page", "Answer, median", "Slowest answer", "Start", "Script and data"]
    browser = f"Chromium {record['figures']['browser']}, {record['machine']['processor']}"
    return f"Measured on {record['date']}: {browser}.\n\n{table(head, rows, SHORT)}"


def states(folder: Path) -> str:
    """How many groups of each record are current, re-verified or stale; then each reason why."""
    reasons = json.loads((folder / check.STALE).read_text(encoding="utf-8"))
    found: dict[str, list[check.Group]] = {}
    for group in claims.groups(folder):
        found.setdefault(group.file, []).append(group)
    rows, why = [], dict[str, dict[str, None]]()
    for name, groups in found.items():
        told = [group.state for group in groups]
        rows.append([f"`{name}`", *(str(told.count(state)) for state in claims.STATES)])
        for title in (group.title for group in groups if group.state == "stale"):
            reason = reasons.get(title) or reasons.get(name, "no reason given")
            reason = reason.partition("; one run takes")[0]  # that stands on Reproductions
            why.setdefault(COMMAND.sub(r"`\g<0>`", reason), {})[f"`{name}`"] = None
    listed = [f"- {reason}: {', '.join(names)}" for reason, names in why.items()]
    stale = ["### Why some are stale", "\n".join(listed)] if listed else []
    return "\n\n".join([table(["Record", *claims.STATES], rows, SHORT), *stale])
