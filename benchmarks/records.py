"""Recorded numbers: what was measured, by which command, code and versions, and when."""

import datetime
import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import numpy
import torch

import memlib

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"


def save(name: str, figures: Any, *, command: str, seed: int | None = None) -> str:
    """Write ``results/NAME.json`` and return its path relative to the repository."""
    record = {
        "figures": figures,
        "command": command,
        "seed": seed,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "memlib": memlib.__version__,
        },
        "machine": {"processor": processor(), "threads": torch.get_num_threads()},
        "code": code_hash(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return str(path.relative_to(ROOT))


def code_hash() -> str:
    """Return a hash of memlib's source (the teaching package aside)."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "memlib").glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def processor() -> str:
    """Return the processor's name and instruction set."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
