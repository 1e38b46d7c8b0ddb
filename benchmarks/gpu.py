"""memlib on a GPU, beside what a user would pick there instead; ``make gpu`` runs it.

    python -m benchmarks.gpu                      measure, and record after each part
    python -m benchmarks.gpu --plan               only say what would be measured
    python -m benchmarks.gpu --device cpu --toy   the same code over toy sizes, to see that it runs

Every way takes its turn within a cell, each call is timed by the device's own clock (events,
waited for), and medians are compared. A cell for which no time is left says so.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

import torch

from benchmarks.on_device import (
    Cell,
    Row,
    Where,
    beside_transformers,
    decoding,
    learning,
    reads,
    searches,
    steps,
)
from experiments import records

SECONDS = 170.0  # for all parts


class Part(NamedTuple):
    """Something measured: its cells, toy cells for a CPU, and how a cell is measured."""

    what: str
    cells: list[Cell]
    toys: list[Cell]
    measure: Callable[[Cell, Where], Row]


def grid(**sizes: tuple[Any, ...]) -> list[Cell]:
    """Return cells, one of each place of the sizes: ``grid(a=(1, 2), b=(3, 4))`` has two."""
    return [dict(zip(sizes, row, strict=True)) for row in zip(*sizes.values(), strict=True)]


def machines(**sizes: Any) -> list[Cell]:
    """Return cells of both machines for each batch."""
    batches = sizes.pop("batches")
    return [{"machine": m, "batch": b} | sizes for m in ("NTM", "DNC") for b in batches]


COPY = {"slots": 128, "width": 20}
TINY = {"slots": 8, "width": 4}
GPT = {"vocab": 32_000, "width": 1024, "heads": 16, "layers": 4}
TOY = {"vocab": 11, "width": 8, "heads": 2, "layers": 1}

PARTS = {
    "attend": Part(
        "attend beside the formula, PyTorch's attention and each of its kernels",
        grid(
            batch=(1, 1, 8, 64, 1, 8, 64),
            queries=(1, 64, 64, 64, 1, 64, 1024),
            slots=(1 << 20, 1 << 20, 1 << 17, 1 << 14, 1 << 20, 1 << 17, 1 << 12),
            dtype=("float32", "float32", "float32", "float32", "bfloat16", "bfloat16", "bfloat16"),
        ),
        grid(batch=(1, 2), queries=(1, 4), slots=(64, 64), dtype=("float32", "bfloat16")),
        reads,
    ),
    "search": Part(
        "exact search beside one product of matrices and a top-k of all scores",
        grid(queries=(1, 64, 1024), slots=(1 << 20,) * 3, k=(32,) * 3, dtype=("float32",) * 3),
        grid(queries=(3,), slots=(5000,), k=(2,), dtype=("float32",)),
        searches,
    ),
    "learning": Part(
        "forward and backward over a sequence, on the device and on the CPU",
        machines(batches=(16, 64), steps=41, **COPY),
        machines(batches=(2,), steps=3, **TINY),
        learning,
    ),
    "transformers": Part(
        "a token of an attention layer beside Llama's and its caches",
        grid(size=("Llama 3 8B",) * 2, batch=(1, 8), tokens=(8192, 8192), slots=(8320, 8320)),
        grid(size=("small",), batch=(1,), tokens=(8,), slots=(16,)),
        beside_transformers,
    ),
    "steps": Part(
        "a step of a machine: eager, compiled into a CUDA graph, and on the CPU",
        machines(batches=(16,), read_heads=1, **COPY),
        machines(batches=(2,), read_heads=1, **TINY),
        steps,
    ),
    "decoding": Part(
        "a token of a decoder: eager and compiled into a CUDA graph",
        [GPT | {"batch": b, "tokens": 1024, "slots": 2048, "dtype": "bfloat16"} for b in (1, 8)],
        [TOY | {"batch": 2, "tokens": 4, "slots": 32, "dtype": "float32"}],
        decoding,
    ),
}  # fmt: skip


def plan() -> Iterator[str]:
    """Say what is measured, a line a cell."""
    for name, part in PARTS.items():
        yield f"{name}: {part.what}"
        for cell in part.cells:
            yield "    " + ", ".join(f"{key} {value}" for key, value in cell.items())


@torch.no_grad()
def run(
    device: str = "cuda",
    *,
    toy: bool = False,
    seconds: float = SECONDS,
    keep: Callable[[dict[str, Any]], object] = lambda figures: None,
) -> dict[str, Any]:
    """Measure part by part for about so many seconds, and `keep` what there is after each.

    Raises:
        SystemExit: there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu measures on a CUDA device, and there is none here")
    start = time.perf_counter()
    where = Where(device, *((0.02, 5) if toy else ()))
    figures: dict[str, Any] = {"card": card(device), "parts": {}}
    for name, part in PARTS.items():
        rows = figures["parts"][name] = []
        for cell in part.toys if toy else part.cells:
            if time.perf_counter() - start > seconds:
                outcome: Row = {"skipped": f"no time was left of {seconds:g} s"}
            else:
                outcome = measured(part, cell, where)
            rows.append(cell | outcome)
            print(f"{time.perf_counter() - start:6.1f} s  {name}: {rows[-1]}", flush=True)
        figures["ratios"] = ratios(figures["parts"])
        keep(figures)
    return figures


def measured(part: Part, cell: Cell, where: Where) -> Row:
    """Measure a cell; what fails leaves its reason, and the others their numbers."""
    torch.compiler.reset()
    try:
        return part.measure(cell, where)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {str(error)[:500]}"}
    finally:
        if where.device == "cuda":
            torch.cuda.empty_cache()


def ratios(parts: Mapping[str, list[Row]]) -> dict[str, float]:
    """Return the geometric mean of each ratio over the cells of its part."""
    found: dict[str, list[float]] = {}
    for name, rows in parts.items():
        for row in rows:
            for key, value in row.items():
                if "/" in key:
                    found.setdefault(f"{name}: {key}", []).append(value)
    return {key: round(geometric_mean(values), 3) for key, values in found.items()}


def card(device: str) -> dict[str, Any]:
    """Return the name of the card, and what drives it."""
    if device != "cuda":
        return {"name": "none: a toy run on the CPU"}
    about = torch.cuda.get_device_properties(0)
    return {
        "name": about.name,
        "capability": f"{about.major}.{about.minor}",
        "GiB": round(about.total_memory / 2**30, 1),
        "multiprocessors": about.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def report(figures: dict[str, Any]) -> str:
    """Return the ratios, and what could not be measured."""
    lines = [f"on {figures['card']['name']}:"]
    lines += [f"    {name}: {value}" for name, value in figures["ratios"].items()]
    for name, rows in figures["parts"].items():
        for row in rows:
            lines += [f"    {name} {w}: {row[w]}" for w in ("skipped", "failed") if w in row]
    return "\n".join(lines)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toy", action="store_true", help="small sizes")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="about how long")
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="of the record")
    parser.add_argument("--plan", action="store_true", help="only say what would be measured")
    asked = parser.parse_args()
    if asked.plan:
        print("\n".join(plan()))
        return

    def keep(figures: dict[str, Any]) -> None:
        command = "python -m benchmarks gpu"
        records.save("benchmark_gpu", figures, command=command, folder=asked.results)

    figures = run(asked.device, toy=asked.toy, seconds=asked.seconds, keep=keep)
    print(report(figures))
    if any("failed" in row for rows in figures["parts"].values() for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
