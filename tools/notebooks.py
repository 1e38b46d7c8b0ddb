"""Executes notebooks: each in a process of its own, under watch, as many at once as fit.

What a notebook costs is told, and judged where the budgets are asked for by name: `BUDGETS=enforce`
in CI. A person's build goes on; it stops only a notebook that hangs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import guard
import psutil
import surroundings

from experiments.progress import tqdm

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "tools"
SECONDS = {"ntm": 65.0}  # of CPU, for the kernel and all that it starts
ANY_SECONDS = 45.0
MEGABYTES = 2000.0
MINUTES = "NOTEBOOK_MINUTES"  # of wall time, after which a notebook is said to hang


def seconds(name: str) -> float:
    """The budget of a notebook."""
    return SECONDS.get(name, ANY_SECONDS)


@dataclass(frozen=True)
class Cost:
    """What a notebook took."""

    cpu: float
    wall: float
    megabytes: float

    def over(self, name: str) -> list[str]:
        """Which budgets of that notebook it goes beyond."""
        faults = []
        if self.cpu > seconds(name):
            faults.append(f"{self.cpu:.0f} s of CPU; the budget is {seconds(name):.0f} s")
        if self.megabytes > MEGABYTES:
            faults.append(f"{self.megabytes:.0f} MB; the budget is {MEGABYTES:.0f} MB")
        return faults

    def __str__(self) -> str:
        return f"{self.cpu:.0f} s of CPU, {self.wall:.0f} s, {self.megabytes:.0f} MB"


@dataclass(frozen=True)
class Failure:
    """Why a notebook did not come to its end."""

    section: str
    cell: str
    error: str
    log: Path

    def told(self, name: str) -> str:
        """At most five lines, for a person."""
        return (
            f"book/{name}.ipynb failed\n"
            f"  section: {self.section} (cell {self.cell})\n"
            f"  {self.error}\n"
            f"  all that it said: {self.log}"
        )


@dataclass
class Run:
    """One notebook under way; `end` says how it went once the process is done."""

    name: str  # from book/ on, without suffix
    path: Path  # executed in place
    scratch: Path
    process: subprocess.Popen[bytes] = field(init=False)
    began: float = field(init=False, default_factory=time.monotonic)
    megabytes: float = 0.0
    hung: bool = False

    def __post_init__(self) -> None:
        self.log, self.state_file = (
            self.scratch / "logs" / f"{self.name}.{kind}" for kind in ("log", "state")
        )
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.state_file.unlink(missing_ok=True)
        settings = {
            "NOTEBOOK_STATE": str(self.state_file),
            "PYTHONPATH": os.pathsep.join(map(str, (TOOLS / "offline", TOOLS, ROOT))),
        }
        command = [
            *guard.without_network(),
            *(sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(ROOT)),
            *("-q", "-p", "cells", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *("--nbmake", "--overwrite", "--nbmake-timeout", str(2 * int(patience()) + 60)),
            str(self.path),
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=surroundings.clean(self.scratch / "settings") | settings,
            )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.name} (cell {self.state().get('cell', 0) + 1})"

    def state(self) -> dict[str, Any]:
        """What the plugin wrote last."""
        return json.loads(self.state_file.read_text()) if self.state_file.exists() else {}

    def ended(self) -> bool:
        """Whether it is done; watches its memory and its patience meanwhile."""
        if self.process.poll() is not None:
            return True
        kernels = _below(self.process.pid)
        self.megabytes = max(self.megabytes, sum(map(_resident, kernels)) / 1e6)
        if time.monotonic() - self.began > patience():
            self.hung = True
            self.stop()
        return False

    def stop(self) -> None:
        """Ends it and all that it started."""
        for process in (*_below(self.process.pid), self.process):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()

    def end(self) -> tuple[Cost, Failure | None]:
        """What it cost, and why it failed, if it did."""
        wall = time.monotonic() - self.began
        cost = Cost(self.state().get("cpu", 0.0), wall, self.megabytes)
        return cost, self.failure() if self.process.returncode else None

    def failure(self) -> Failure:
        """Which cell failed, in which section, and how."""
        cells = json.loads(self.path.read_text(encoding="utf-8"))["cells"]
        failed = [i for i, c in enumerate(cells) if any(map(_is_error, c.get("outputs", ())))]
        at = failed[-1] if failed else self.state().get("cell", 0)
        if self.hung:
            error = (
                f"it hangs: stopped after {patience() / 60:g} minutes; "
                f"{MINUTES}={patience() / 20:g} make book would wait longer"
            )
        elif failed:
            told = next(filter(_is_error, cells[at]["outputs"]))
            error = f"{told['ename']}: {told['evalue']}".strip().splitlines()[0]
        else:  # the kernel died, or it never began
            said = re.sub(r"\x1b\[[\d;]*m", "", self.log.read_text("utf-8", errors="replace"))
            errors = re.findall(r"Kernel died.*|^(?:E +)?[\w.]+(?:Error|Exception): .*", said, re.M)
            error = (errors or ["the kernel ended before the notebook did"])[-1]
        text = "\n".join("".join(c["source"]) for c in cells[: at + 1] if c["cell_type"][0] == "m")
        headings = re.findall(r"^#+ +(.+)$", text, flags=re.M)
        cell = cells[at].get("id", f"number {at + 1}")
        return Failure((headings or ["the beginning"])[-1], cell, error[:200], self.log)


def _is_error(output: dict[str, Any]) -> bool:
    return output.get("output_type") == "error"


def _below(process: int) -> list[psutil.Process]:
    try:
        return psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def patience() -> float:
    """Seconds of wall time before a notebook is said to hang."""
    text = os.environ.get(MINUTES, "20")
    try:
        return 60 * float(text)
    except ValueError:
        raise SystemExit(f"{MINUTES} must be a number of minutes; got {text!r}") from None


def room(running: list[Run]) -> bool:
    """Whether one more fits beside these: a core for each, and memory up to its budget."""
    if not running:
        return True
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    promised = sum(max(0.0, MEGABYTES - run.megabytes) for run in running)
    free = psutil.virtual_memory().available / 1e6 - promised
    return len(running) < (cores or 1) and free > 2 * MEGABYTES


def execute(
    paths: dict[str, Path], scratch: Path, done: Callable[[str, Cost, Failure | None], None]
) -> None:
    """Executes notebooks in place, in this order, and calls `done` as each one ends."""
    waiting, running = list(paths.items()), list[Run]()
    form = "{desc}: {n_fmt} of {total_fmt} done |{bar}| {elapsed}{postfix}"
    bar = tqdm(desc="notebooks", total=len(paths), disable=None, bar_format=form)
    try:
        while waiting or running:
            while waiting and room(running):
                running.append(Run(*waiting.pop(0), scratch))
            time.sleep(0.2)
            for run in [run for run in running if run.ended()]:
                running.remove(run)
                cost, failure = run.end()
                ending = "failed" if failure else "done"
                tqdm.write(f"{run.name}: {ending}, {cost}", file=sys.stdout)
                done(run.name, cost, failure)
                bar.update()
            bar.set_postfix_str(", ".join(map(str, running)), refresh=False)
    finally:
        for run in running:  # Ctrl-C
            run.stop()
        bar.close()
