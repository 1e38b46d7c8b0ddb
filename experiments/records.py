"""Recorded numbers: what was measured, by which command, code and versions, and when.

The code is told by its key, see `experiments.keys`. Files named ``published_*`` are no records:
they hold what others have published.
"""

import datetime
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

import memlib
from experiments import files, keys

ROOT = keys.ROOT
RESULTS = ROOT / "results"


def save(
    name: str, figures: Any, *, command: str, seed: int | None = None, folder: Path | None = None
) -> str:
    """Write ``NAME.json`` to `results` or a folder; return its path, from the repository on."""
    record = {"figures": figures, "command": command, "seed": seed, **origin(maker(command))}
    path = (folder or RESULTS) / f"{name}.json"
    files.write(path, layout(record))
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def merge(path: Path, record: Mapping[str, Any], key: Sequence[str]) -> None:
    """Put one run's record into a file of many, in the place of the one with the same `key`.

    The file is ``{"runs": [...]}``, a line a run, in the order of their keys. Runs that end at
    the same time take turns, so none is lost.
    """

    def place(run: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(run[name] for name in key)

    path.parent.mkdir(parents=True, exist_ok=True)
    with files.lock(path.parent):
        runs = json.loads(path.read_text())["runs"] if path.exists() else []
        runs = [run for run in runs if place(run) != place(record)] + [record]
        files.write(path, layout({"runs": sorted(runs, key=place)}))


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    """Change a record in place, whoever else is writing to it."""
    with files.lock(path.parent):
        record = json.loads(path.read_text())
        how(record)
        files.write(path, layout(record))


def layout(record: Mapping[str, Any]) -> bytes:
    """Return a record as its file: a line a run, where there are many."""
    if "runs" not in record:
        return (json.dumps(record, indent=1) + "\n").encode()
    lines = [json.dumps(run, allow_nan=False) for run in record["runs"]]
    return ('{"runs": [\n' + ",\n".join(lines) + "\n]}\n").encode()


def maker(command: str) -> str:
    """Return the module that a command runs.

    Example:
        >>> maker("python -m experiments ntm --task copy")
        'experiments.ntm'
    """
    _, _, package, name, *_ = command.split()
    return f"{package}.{name}"


def origin(module: str) -> dict[str, Any]:
    """Return when, where and with what something was measured by a module of the project."""
    return {**here(), "key": keys.today(module)}


def here() -> dict[str, Any]:
    """Return the date, the versions and the machine."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "memlib": memlib.__version__,
        },
        "machine": {"processor": processor(), "threads": torch.get_num_threads()},
    }


def processor() -> str:
    """Return the processor's name and instruction set."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
