"""The Neural Turing Machine on its copy task, beside the floor it stands on.

One run is forward and backward over a copy of T = 20 vectors, 41 steps. The floor is the same loop
over an LSTM cell of the same size and the output layer alone: what is above it is the memory.
The machine runs as it is, and, where there is a C++ compiler, with its step compiled. All run in
turn on one thread, and medians of its CPU time are compared: on an idle core that is the time on
the clock, and on a busy machine it leaves out the waiting.
"""

import math
import shutil
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memlib import NTM

VECTORS = 20
STEPS = 2 * VECTORS + 1
BATCHES = (1, 16, 64)
SWEEPS = {  # one of them moves, the others stay
    "slots": (32, 64, 128, 256, 512, 1024, 2048, 4096),
    "heads": (1, 2, 4, 8),  # as many read heads as write heads
    "batch": (1, 2, 4, 8, 16, 32, 64, 128, 256),
}
STAY = {"slots": 128, "heads": 1, "batch": 16}

# Another implementation at work on the same task, for scale. Measured earlier and elsewhere.
PUBLISHED = {
    "milliseconds": {"1": 55, "16": 178, "64": 618},
    "source": "loudinthecloud/pytorch-ntm (2018), copy of T = 20, forward + backward",
    "note": "measured on an idle core of another machine: compare orders of magnitude alone",
}


class Floor(nn.Module):
    """An LSTM cell that sees what the NTM's sees, reads aside, and an output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.output = nn.LSTMCell(9 + 20, 100), nn.Linear(100 + 20, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, T, 8) for x (B, T, 9)."""
        batch, steps, _ = x.shape
        reads = x.new_zeros(batch, steps, 20)
        state, hidden = None, []
        for step in torch.cat((x, reads), dim=-1).unbind(1):
            state = self.cell(step, state)
            hidden.append(state[0])
        logits: Tensor = self.output(torch.cat((torch.stack(hidden, 1), reads), dim=-1))
        return logits


def once(model: Callable[[Tensor], Any], x: Tensor, targets: Tensor) -> None:
    """Forward and backward over one batch."""
    result = model(x)
    logits = result[0] if isinstance(result, tuple) else result
    F.binary_cross_entropy_with_logits(logits, targets).backward()


def timed(
    runs: Mapping[str, Callable[[], Any]],
    budget: float,
    most: int = 100,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Any]:
    """Run everything in turn for about `budget` seconds; median milliseconds of each."""
    for run_once in runs.values():  # warm up
        run_once()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    begin, done = time.perf_counter(), 0
    while done < most and (done < 5 or time.perf_counter() - begin < budget):
        for name, run_once in runs.items():
            start = clock()
            run_once()
            seconds[name].append(clock() - start)
        done += 1
    return {f"{name}_ms": round(1e3 * median(s), 3) for name, s in seconds.items()} | {"runs": done}


def run(budget: float = 6.0) -> dict[str, Any]:
    """Time the copy task beside its floor, then a step against slots, heads and batch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {
            "threads": 1,
            "copy": copy(budget),
            "published": PUBLISHED,
            "step": {name: sweep(name, budget / 4) for name in SWEEPS},
        }
    finally:
        torch.set_num_threads(threads)


def copy(budget: float) -> list[dict[str, Any]]:
    """Return milliseconds of forward and backward over the copy task, NTM and floor."""
    torch.manual_seed(0)
    rows, ntm, floor, compiled = [], NTM(9, 8), Floor(), NTM(9, 8)
    can_compile = any(map(shutil.which, ("g++", "clang++", "c++")))
    if can_compile:
        compiled.compile(dynamic=False)
    for batch in BATCHES:
        x, y = torch.rand(batch, STEPS, 9).round(), torch.rand(batch, STEPS, 8).round()
        ways = {
            "ntm": lambda x=x, y=y: once(ntm, x, y),
            "floor": lambda x=x, y=y: once(floor, x, y),
        }
        if can_compile:
            ways["compiled"] = lambda x=x, y=y: once(compiled, x, y)
        row = {"batch": batch} | timed(ways, budget)
        row["ratio"] = round(row["ntm_ms"] / row["floor_ms"], 2)
        if can_compile:
            row["compiled_ratio"] = round(row["compiled_ms"] / row["floor_ms"], 2)
        rows.append(row)
    return rows


def sweep(name: str, budget: float, steps: int = 10) -> list[dict[str, Any]]:
    """Return milliseconds a step, forward and backward, while one size moves."""
    rows = []
    for value in SWEEPS[name]:
        size = STAY | {name: value}
        heads = {"read_heads": size["heads"], "write_heads": size["heads"]}
        ntm = NTM(9, 8, size["slots"], **heads)
        x, y = (torch.rand(size["batch"], steps, n).round() for n in (9, 8))
        figures = timed({"run": lambda m=ntm, x=x, y=y: once(m, x, y)}, budget)
        rows.append(
            size | {"step_ms": round(figures["run_ms"] / steps, 4), "runs": figures["runs"]}
        )
    return rows


def report(figures: dict[str, Any]) -> str:
    """Return the tables, in milliseconds."""
    lines = ["forward + backward on copy, T = 20, ms:"]
    names = ("batch", "NTM", "compiled", "floor", "ratio", "compiled", "published")
    lines += ["".join(f"{name:>10}" for name in names)]
    for row in figures["copy"]:
        published = figures["published"]["milliseconds"][str(row["batch"])]
        lines += [
            f"{row['batch']:>10}{row['ntm_ms']:>10.1f}{row.get('compiled_ms', math.nan):>10.1f}"
            f"{row['floor_ms']:>10.1f}{row['ratio']:>10.2f}"
            f"{row.get('compiled_ratio', math.nan):>10.2f}{published:>10}"
        ]
    lines += [f"published: {figures['published']['source']};", figures["published"]["note"]]
    for name, rows in figures["step"].items():
        lines += [f"ms a step by {name}:"]
        lines += ["  ".join(f"{row[name]}: {row['step_ms']:.3f}" for row in rows)]
    return "\n".join(lines)
