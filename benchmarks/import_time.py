"""What ``import memlib`` adds to ``import torch``, in fresh interpreters."""

import subprocess
import sys
from statistics import median
from typing import Any

import memlib  # all of it is timed, so all of it is in the record's key

CODE = f"""
import time, torch, numpy
start = time.perf_counter()
import {memlib.__name__}
print(time.perf_counter() - start)
"""


def run(runs: int = 9) -> dict[str, Any]:
    """Import memlib in `runs` fresh interpreters, after one that warms the disk."""
    times = [
        float(subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True,
                             check=True).stdout)
        for _ in range(runs + 1)
    ][1:]  # fmt: skip
    return {"median_s": round(median(times), 4), "slowest_s": round(max(times), 4), "runs": runs}


def report(figures: dict[str, Any]) -> str:
    """Return the figures as a line."""
    return f"import memlib adds {figures['median_s']} s (slowest {figures['slowest_s']} s)"
