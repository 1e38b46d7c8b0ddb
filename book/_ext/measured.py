"""The tables of the pages *Benchmarks* and *Status*: ratios, machines, weights, times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import ratios
from book._ext.tables import SHORT, broken, counted, ordered, table, titled
from experiments import check, claims
from experiments.reproduce import shown

# ---- Benchmarks ----


def _lead(lead: ratios.Lead) -> list[str]:
    low, high = (f(timing.ratio for timing in lead.timings) for f in (min, max))
    span = f"{shown(low)} to {shown(high)}" if len(lead.timings) > 1 else ""
    ratio = f"**{shown(lead.mean)}×**" if lead.mean < 1 else f"{shown(lead.mean)}×"
    lost = f"{len(lead.lost)} of {len(lead.timings)}"
    return [f"{lead.ours}, {lead.task}", lead.other, ratio, span or "one setting", lost]


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
        worst = [f"{t.setting}: {shown(t.ours)} ms against {shown(t.other)}" for t in lead.lost[:3]]
        rows.append([*_lead(lead)[:3], _lead(lead)[4], broken(*worst)])
    head = ["memlib", "Beside", "Ratio", "Settings lost", "The worst of them"]
    return f"{said}\n\n{table(head, rows)}"


def leads(folder: Path) -> str:
    """All comparisons, the worst first."""
    found = sorted(ratios.leads(folder), key=lambda lead: lead.mean)
    head = ["memlib", "Beside", "Ratio, mean", "Lowest to highest", "Settings lost"]
    return table(head, (_lead(lead) for lead in found))


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
    """How many groups of each record are current, re-verified or stale, and why."""
    reasons = json.loads((folder / check.STALE).read_text(encoding="utf-8"))
    found: dict[str, list[check.Group]] = {}
    for group in claims.groups(folder):
        found.setdefault(group.file, []).append(group)
    rows = []
    for name, groups in found.items():
        told = [group.state for group in groups]
        stale = [g.title for g in groups if g.state == "stale"]
        why = dict.fromkeys(reasons.get(title) or reasons.get(name, "") for title in stale)
        rows.append([f"`{name}`", *(str(told.count(s)) for s in claims.STATES), "; ".join(why)])
    return table(["Record", *claims.STATES, "Why stale"], rows, SHORT)
