"""Say of every record whether the code of today would make it again.

Seeds of one model, variant, mixer or scheme are a group, which is

- current, where the key of each run is that of today's code;
- re-verified, where the key has changed but one run of the group was made again by the code of
  today and agreed (``python -m experiments verify``);
- stale otherwise. That is allowed only where ``results/stale.json`` names the group or its file
  with the reason; what it names and is not stale is a fault, too.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import keys, records

STALE = "stale.json"
NO_RECORDS = {STALE, "status.json"}  # and what others have published
TOLD_APART = ("setting", "mixer", "scheme", "layers", "model", "variant")  # the groups of a file


@dataclass(frozen=True)
class Group:
    """The runs of a record that one verification stands for.

    Attributes:
        file: name of the record, without its ending.
        name: of the group, empty where it is all of the file.
        runs: of a file with many, else the record itself.
    """

    file: str
    name: str
    runs: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """What it is called in the list and in ``stale.json``."""
        return f"{self.file}: {self.name}" if self.name else self.file

    @property
    def maker(self) -> str:
        """The module that makes it."""
        return records.maker(self.runs[0]["command"])

    @property
    def state(self) -> str:
        """Whether it is current, re-verified or stale."""
        today = keys.today(self.maker)
        if all(run["key"] == today for run in self.runs):
            return "current"
        stamps = (run.get("verified", {}).get("key") for run in self.runs)
        return "re-verified" if today in stamps else "stale"


def groups(folder: Path = records.RESULTS) -> Iterator[Group]:
    """Go through all that is recorded in a folder, published numbers aside."""
    for path in sorted(folder.glob("*.json")):
        if path.name in NO_RECORDS or path.name.startswith("published_"):
            continue
        record = json.loads(path.read_text())
        found: dict[str, list[dict[str, Any]]] = {}
        for run in record.get("runs", [record]):
            found.setdefault(name_of(run), []).append(run)
        yield from (Group(path.stem, name, runs) for name, runs in found.items())


def name_of(run: Mapping[str, Any]) -> str:
    """Return the name of a run's group.

    Example:
        >>> name_of({"experiment": "ntm", "model": "lstm", "variant": "", "seed": 1})
        'lstm'
        >>> name_of({"experiment": "induction", "layers": 2, "seed": 1})
        'layers=2'
    """
    words = [(name, run[name]) for name in TOLD_APART if run.get(name)]
    return " ".join(f"{n}={v}" if isinstance(v, int) else str(v) for n, v in words)


def faults(found: list[Group], reasons: Mapping[str, str]) -> list[str]:
    """Return what is wrong between the records and the reasons why some are stale."""
    stale = {group.title: group.file for group in found if group.state == "stale"}
    lines = [
        f"{title} is stale, and {STALE} does not say why"
        for title, file in stale.items()
        if not {title, file} & reasons.keys()
    ]
    known = {*stale, *stale.values()}
    there = {name for group in found for name in (group.title, group.file)}
    for name in reasons.keys() - known:
        what = "which is not stale" if name in there else "which is not there"
        lines.append(f"{STALE} names {name}, {what}")
    lines += [f"{STALE} gives no reason for {name}" for name, why in reasons.items() if not why]
    return lines


def main(arguments: list[str]) -> int:
    """List all groups, and return whether something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="of the records")
    folder = parser.parse_args(arguments).results
    listed = folder / STALE
    reasons: dict[str, str] = json.loads(listed.read_text()) if listed.exists() else {}
    found = list(groups(folder))
    for group in found:
        reason = reasons.get(group.title) or reasons.get(group.file) or "no reason given"
        told = f"  {reason}" if group.state == "stale" else ""
        print(f"{group.state:12}{group.title} ({len(group.runs)}){told}", flush=True)
    wrong = faults(found, reasons)
    for line in wrong:
        print(f"fault: {line}")
    return int(bool(wrong))
