"""Run a part of a record again with the code of today, and compare.

A unit is one run of a group (see `experiments.check`), the cheapest that another code made, or
that of ``--seed``: it stands for its group. Its numbers must agree in every digit, what took time
aside. On another processor or with another PyTorch they may differ by rounding that training has
blown up: then each figure must lie within the spread of the runs recorded with other seeds,
widened by itself on both sides. A benchmark is run three times: no recorded time may lie further
from the middle of the three than twice what any of them does from its own.

What agrees is stamped with today's key. Without ``--unit`` and ``--all`` units are those of stale
groups, the cheapest first; benchmarks, which need a machine at rest, only where they are named.
"""

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import check, keys, records
from experiments.check import Group

ASIDE = {  # where, when and how long; `key` and `codes` tell the code, not the numbers
    "codes", "command", "date", "key", "machine", "runs", "seconds", "seconds_examining",
    "seconds_per_byte", "solved_seconds", "verified", "versions",
}  # fmt: skip
REPEATS = 3  # of a benchmark
ABLATED = "ntm_copy_ablation"  # a record of machines that another experiment trains


@dataclass(frozen=True)
class Unit:
    """One run of a group.

    Attributes:
        group: that it stands for.
        name: which of them.
        recorded: its numbers.
        commands: that make them again, without the paths.
        seconds: it took, as recorded; None where that was not.
    """

    group: Group
    name: str
    recorded: Any
    commands: tuple[str, ...]
    seconds: float | None

    @property
    def title(self) -> str:
        """What it is called."""
        return f"{self.group.title} [{self.name}]" if self.name else self.group.title

    @property
    def elsewhere(self) -> bool:
        """Whether it was recorded with another processor or PyTorch."""
        here, run = records.origin(self.group.maker), self.group.runs[0]
        if self.recorded in self.group.runs:  # a file of many, of several machines perhaps
            run = self.recorded
        places = (run["machine"]["processor"], run["versions"]["torch"])
        return places != (here["machine"]["processor"], here["versions"]["torch"])


def unit_of(group: Group, seed: int | None, folder: Path) -> Unit | None:
    """Return the unit of a group, None if it has no run of that seed."""
    record = group.runs[0]
    if "models" in record:
        return _of_models(group, seed)
    if group.file == ABLATED:
        return _of_ablation(group, folder)
    if "figures" in record:
        return Unit(group, "", record["figures"], (record["command"],) * REPEATS, None)
    runs = [run for run in group.runs if seed in (None, run["seed"])]
    today = keys.today(group.maker)  # whose runs say nothing of those of another code
    run = min(runs, key=lambda run: (run["key"] == today, run["seconds"]), default=None)
    if run is None:
        return None
    name = " ".join(f"{n}={run[n]}" for n in ("size", "rate", "seed") if n in run)
    return Unit(group, name, run, (run["command"],), run["seconds"])


def _of_models(group: Group, seed: int | None) -> Unit | None:
    """Return the cheapest start of all models of a bAbI record."""
    (record,) = group.runs
    starts = [start for model in record["models"] for start in model["restarts"]]
    start = min(
        (start for start in starts if seed in (None, start["seed"])),
        key=lambda start: start["seconds"],
        default=None,
    )
    if start is None:
        return None
    words, name = ["--restarts", "1", "--seed", str(start["seed"])], f"seed={start['seed']}"
    if not record["joint"]:
        (task,) = start["train_error"]
        words, name = [*words, "--tasks", task], f"task={task} {name}"
    command = f"{record['command']} {shlex.join(words)}"  # of equal options the last one counts
    return Unit(group, name, start, (command,), start["seconds"])


def _of_ablation(group: Group, folder: Path) -> Unit:
    """Return the machines of the first seed, which have to be trained."""
    (record,) = group.runs
    figures = [one for one in record["figures"] if one["seed"] == 0]
    trained = [
        run
        for run in json.loads((folder / "ntm_copy.json").read_text())["runs"]
        if (run["model"], run["seed"]) == ("ntm", 0) and run["variant"] in ("", "walk=0.0")
    ]
    commands = (*(run["command"] for run in trained), f"{record['command']} --seeds 1")
    return Unit(group, "seed=0", figures, commands, sum(run["seconds"] for run in trained))


def perform(unit: Unit) -> list[Any]:
    """Run a unit again, and return what it finds: once, or each time of a benchmark."""
    with tempfile.TemporaryDirectory() as place:
        folder, found = Path(place), []
        for command in unit.commands:
            _run(unit, command, folder)
            found.append(_read(unit, folder))
        return found if len(set(unit.commands)) == 1 else found[-1:]


def _run(unit: Unit, command: str, folder: Path) -> None:
    """Run a command, its files in a folder; how it goes is told on stderr."""
    _, *words = shlex.split(command)  # what Python is, is known here
    package, threads = words[1], unit.group.runs[0]["machine"]["threads"]
    if "models" in unit.group.runs[0]:
        words += ["--out", str(folder / f"{unit.group.file}.json")]
    else:
        words += ["--results", str(folder)]
    if package == "experiments":
        words += ["--unfinished", str(folder / "unfinished")]
    environment = {**os.environ, "PYTHONPATH": str(records.ROOT), "OMP_NUM_THREADS": str(threads)}
    status = subprocess.run(
        [sys.executable, *words], cwd=records.ROOT, env=environment, stdout=subprocess.DEVNULL
    ).returncode
    if status:
        raise RuntimeError(f"{command} ended with {status}")


def _read(unit: Unit, folder: Path) -> Any:
    """Return what a unit's run has written, None if it is not yet there."""
    path = folder / f"{unit.group.file}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    if "models" in record:
        return record["models"][0]["restarts"][0]
    if "runs" in record:
        return record["runs"][0]
    return record["figures"]


def differences(recorded: Any, found: Any, name: str = "") -> list[str]:
    """Say where numbers differ from those recorded; what has come to a record since is no fault.

    Example:
        >>> differences({"seconds": 3, "curve": [1, 2]}, {"seconds": 4, "curve": [1, 3]})
        ['curve[1]: 2, now 3']
    """
    if isinstance(recorded, Mapping) and isinstance(found, Mapping):
        return [
            line
            for key in recorded.keys() - ASIDE
            for line in differences(recorded[key], found.get(key), f"{name}.{key}".lstrip("."))
        ]
    if isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        pairs = enumerate(zip(recorded, found, strict=True))
        return [line for i, pair in pairs for line in differences(*pair, f"{name}[{i}]")]
    return [] if recorded == found else [f"{name}: {recorded}, now {found}"]


def numbers(figures: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Go through all numbers of what was found, but for curves and what took time."""
    if isinstance(figures, Mapping):
        for key in figures.keys() - ASIDE - {"curve", "recipe"}:
            yield from numbers(figures[key], f"{name}.{key}".lstrip("."))
    elif isinstance(figures, list):
        for i, part in enumerate(figures):
            yield from numbers(part, f"{name}[{i}]")
    elif isinstance(figures, int | float) and not isinstance(figures, bool):
        yield name, figures


def beyond_seeds(unit: Unit, found: Any) -> list[str]:
    """Say which figures lie outside the spread of the runs with other seeds, widened by itself."""
    peers = [dict(numbers(run)) for run in _peers(unit)]
    if len(peers) < 2:
        return ["recorded on another machine with one seed: there is no spread to compare with"]
    lines, now = [], dict(numbers(found))
    for name in sorted(set().union(*peers) - {"seed"}):
        seen, value = [peer[name] for peer in peers if name in peer], now.get(name)
        low, high = min(seen), max(seen)
        if value is None and len(seen) == len(peers):
            lines.append(f"{name}: none, recorded {low} to {high}")
        elif value is not None and not 2 * low - high <= value <= 2 * high - low:
            lines.append(f"{name}: {value}, recorded {low} to {high}")
    return lines


def _peers(unit: Unit) -> list[Any]:
    """Return all runs that differ from a unit by nothing but their seed."""
    run, record = unit.recorded, unit.group.runs[0]
    if "models" in record:
        groups = [model["restarts"] for model in record["models"]]
        return next(starts for starts in groups if run in starts)
    if unit.group.file == ABLATED:
        figures = record["figures"]
        seeds = dict.fromkeys(one["seed"] for one in figures)
        return [[one for one in figures if one["seed"] == seed] for seed in seeds]
    same = ("size", "rate")
    return [peer for peer in unit.group.runs if all(peer.get(n) == run.get(n) for n in same)]


def beyond_repeats(recorded: Any, repeats: list[Any]) -> list[str]:
    """Say which figures of a benchmark lie too far from those of its repeats."""
    before, now = dict(numbers(recorded)), [dict(numbers(one)) for one in repeats]
    if any(one.keys() != before.keys() for one in now):
        return ["what is measured has changed"]
    middle = {name: statistics.median(one[name] for one in now) for name in before}

    def far(name: str, value: float) -> float:
        if value == middle[name]:
            return 0.0
        return abs(math.log(value / middle[name])) if value * middle[name] > 0 else math.inf

    limit = 2 * max((far(name, one[name]) for one in now for name in one), default=0.0)
    return [
        f"{name}: {value}, now {middle[name]}"
        for name, value in before.items()
        if far(name, value) > limit
    ]


def compare(unit: Unit, found: list[Any]) -> tuple[str, list[str]]:
    """Return how a unit agrees, and where it does not."""
    if len(found) > 1:
        if unit.elsewhere:
            return "", ["timed on another machine: it can only be recorded anew"]
        return "within the spread of three repeats", beyond_repeats(unit.recorded, found)
    exact = differences(unit.recorded, found[0])
    if exact and unit.elsewhere:
        other = [line for line in exact if line.startswith("recipe")]
        return "within the spread of the seeds", [*other, *beyond_seeds(unit, found[0])]
    return "in every digit", exact


def stamp(unit: Unit, agreed: str, folder: Path) -> None:
    """Write into the record that a unit was made again; its group is no longer stale."""
    here = records.origin(unit.group.maker)
    told = {"key": here["key"], "date": here["date"], "machine": here["machine"]}
    verified = {**told, "unit": unit.name, "agreed": agreed}

    def change(record: dict[str, Any]) -> None:
        runs = record.get("runs", [])
        run = runs[runs.index(unit.recorded)] if runs else record
        run["verified"] = verified

    records.change(folder / f"{unit.group.file}.json", change)
    if (stale := folder / check.STALE).exists():
        records.change(stale, lambda reasons: reasons.pop(unit.group.title, None))


def verify(unit: Unit, folder: Path) -> bool:
    """Run a unit again, compare and stamp; say how it went."""
    print(f"{unit.title}: begins, {cost(unit)}", flush=True)
    start = time.monotonic()
    try:
        agreed, wrong = compare(unit, perform(unit))
    except RuntimeError as error:
        agreed, wrong = "", [str(error)]
    if not wrong:
        stamp(unit, agreed, folder)
    told = f"agrees {agreed}" if not wrong else f"differs: {'; '.join(sorted(wrong)[:5])}"
    print(f"{unit.title}: {told} ({time.monotonic() - start:.0f} s)", flush=True)
    return not wrong


def cost(unit: Unit) -> str:
    """Say what a unit is expected to take."""
    return "at rest" if unit.seconds is None else f"{unit.seconds:.0f} s as recorded"


def chosen(options: argparse.Namespace) -> list[Unit]:
    """Return the units that the command line asks for, the cheapest first."""
    found = []
    for group in check.groups(options.results):
        named = group.file in options.names and (not options.unit or group.name in options.unit)
        if options.names and not named:
            continue
        if not (options.unit or options.all or options.seed is not None or group.state == "stale"):
            continue
        unit = unit_of(group, options.seed, options.results)
        if unit and (unit.seconds is not None or options.names):
            found.append(unit)
    return sorted(found, key=lambda unit: (unit.seconds is None, unit.seconds or 0.0))


def main(arguments: list[str]) -> int:
    """Run what the command line asks for; return 1 where something differs or is not there."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="of a record, such as ntm_copy; all without it")
    add("--unit", action="append", help="name of a group of these, such as lstm; may be repeated")
    add("--seed", type=int, help="the run of a group, where it is not to be the cheapest")
    add("--all", action="store_true", help="what is not stale, too")
    add("--list", action="store_true", help="only say what would be run, and what it took")
    add("--budget", type=float, default=math.inf, help="seconds; what would go beyond is left")
    add("--results", type=Path, default=records.RESULTS, help="of the records")
    options = parser.parse_args(arguments)
    start, status, units = time.monotonic(), 0, chosen(options)
    if options.names and not units:
        print(f"nothing to verify in {', '.join(options.names)}", file=sys.stderr)
        return 1
    for unit in units:
        if options.list:
            print(f"{cost(unit):>20}  {unit.title}", flush=True)
        elif time.monotonic() - start + (unit.seconds or 0.0) > options.budget:
            print(f"{unit.title}: left, beyond the budget ({cost(unit)})", flush=True)
        elif not verify(unit, options.results):
            status = 1
    return status
