"""`memlib.attend` beside the plain formula and PyTorch's own attention.

Every way of reading runs in turn within each cell, and medians are compared, so that what else
the machine does falls on all of them alike. The bound is the time to look at every key and
value once.
"""

import math
import time
from collections.abc import Callable
from statistics import geometric_mean, median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib import attend

WIDTH = 64
BATCHES = (1, 8, 64)  # batch rows times heads
QUERIES = (1, 8, 64)
SLOTS = (1 << 10, 1 << 15, 1 << 20)
LIMIT = 1 << 30  # bytes of keys and values
WORTH_COMPARING = 1e-3  # seconds: below, the cost is that of the call


def plain(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention as it is written."""
    return torch.softmax(query @ keys.mT * WIDTH**-0.5, dim=-1) @ values


def stream(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Look at every key and value once."""
    return keys.sum() + values.sum()


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "attend": attend,
    "plain": plain,
    "sdpa": F.scaled_dot_product_attention,
    "bound": stream,
}


def cells() -> list[tuple[int, int, int]]:
    """Return the (batch, queries, slots) that fit in memory."""
    grid = [(b, q, n) for n in SLOTS for b in BATCHES for q in QUERIES]
    return [(b, q, n) for b, q, n in grid if 2 * b * n * WIDTH * 4 <= LIMIT]


def run(budget: float = 3.0, fewest: int = 5, most: int = 200) -> list[dict[str, Any]]:
    """Time every way in every cell for about `budget` seconds a cell."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for batch, queries, slots in cells():
        query, keys, values = (
            torch.randn(batch, 1, length, WIDTH, generator=generator)
            for length in (queries, slots, slots)
        )
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        with torch.no_grad():
            for way in WAYS.values():  # warm up
                way(query, keys, values)
            torch.testing.assert_close(
                attend(query, keys, values), plain(query, keys, values), atol=1e-5, rtol=1e-4
            )
            begin = time.perf_counter()
            while len(seconds["bound"]) < most and (
                len(seconds["bound"]) < fewest or time.perf_counter() - begin < budget
            ):
                for name, way in WAYS.items():
                    start = time.perf_counter()
                    way(query, keys, values)
                    seconds[name].append(time.perf_counter() - start)
        medians = {name: median(times) for name, times in seconds.items()}
        row = {"batch": batch, "queries": queries, "slots": slots, "runs": len(seconds["bound"])}
        rows.append(row | {f"{name}_ms": round(1e3 * t, 4) for name, t in medians.items()})
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return how many times faster attend is, over the cells worth comparing."""
    rows = [r for r in rows if min(r["plain_ms"], r["sdpa_ms"]) > 1e3 * WORTH_COMPARING]
    if not rows:
        return {}
    better = [min(r["plain_ms"], r["sdpa_ms"]) / r["attend_ms"] for r in rows]
    return {
        "cells": len(rows),
        "than the better, geometric mean": geometric_mean(better),
        "than the better, worst cell": min(better),
        "than plain, geometric mean": geometric_mean(r["plain_ms"] / r["attend_ms"] for r in rows),
        "than sdpa, geometric mean": geometric_mean(r["sdpa_ms"] / r["attend_ms"] for r in rows),
    }


def report(rows: list[dict[str, Any]]) -> str:
    """Return the table, in milliseconds, and the summary."""
    names = ["batch", "queries", "slots", *(f"{name}_ms" for name in WAYS)]
    lines = ["  ".join(f"{name:>10}" for name in names)]
    lines += ["  ".join(f"{row[name]:>10}" for name in names) for row in rows]
    lines += [
        f"times faster {k}: {v:.2f}" if not math.isclose(v, int(v)) or v < 3 else f"{k}: {v:.0f}"
        for k, v in summary(rows).items()
    ]
    return "\n".join(lines)
