"""How far each public function is from float64, at hostile scales, and machines over sequences.

The examples are those of the tests, ``tests/accuracy``, drawn with a seed. For each function and
dtype the record tells the largest error met, on the scale of its bound: where scores are large
the bound grows, and an error counts as the same part of it.
"""

import argparse
import copy
import time
from typing import Any

import torch

from experiments import command_line, records
from memlib import DNC, NTM
from tests.accuracy import campaign
from tests.accuracy.bounds import BOUNDS, GRADIENT
from tests.accuracy.draws import DTYPES

STEPS = (1, 10, 100)  # after which a machine is compared with itself in float64
COUNT = 100  # examples of each function and dtype


class BeyondError(Exception):
    """An example is further off than its bound: nothing is recorded."""


def largest(name: str, dtype: str, seed: int, count: int) -> dict[str, Any]:
    """Return the largest errors of one function in one dtype.

    Raises:
        BeyondError: one is beyond its bound.
    """
    result = gradient = 0.0
    for example in campaign.examples(name, dtype, seed, count):
        for error in campaign.judge(example):
            if error.ratio > 1:
                raise BeyondError(campaign.report(example, error))
            if error.said.startswith("gradient"):
                gradient = max(gradient, error.ratio)
            else:
                result = max(result, error.ratio)
    bound = getattr(BOUNDS[name], dtype)
    row = {"function": name, "dtype": dtype, "examples": count, "bound": bound}
    return row | {
        "error": _short(result * bound),
        "gradient_bound": GRADIENT[dtype],
        "gradient_error": _short(gradient * GRADIENT[dtype]),
    }


def deviations(kind: Any, dtype: str, seed: int) -> dict[str, Any]:
    """Return how far a machine as it is made goes from itself in float64, over a sequence."""
    torch.manual_seed(seed)
    machine = kind(4, 3, slots=16, width=8).to(DTYPES[dtype])
    exact = copy.deepcopy(machine).double()
    x = torch.randn(1, max(STEPS), 4).to(DTYPES[dtype])
    with torch.no_grad():
        off = (machine(x)[0].double() - exact(x.double())[0]).abs().amax(-1)[0]
    far = {f"after_{steps}": _short(float(off[:steps].max())) for steps in STEPS}
    return {"machine": kind.__name__, "dtype": dtype, **far}


def _short(x: float) -> float:
    return float(f"{x:.2g}")


def main(arguments: list[str]) -> int:
    """Run the campaign and record what is met; where something fails, tell it instead."""
    parser = argparse.ArgumentParser(prog="python -m experiments numbers", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=COUNT, help="examples of each")
    command_line.add_results(parser)
    command_line.add_running(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    begin, functions, failures = time.perf_counter(), [], []
    for name, dtype in campaign.each():
        try:
            row = largest(name, dtype, options.seed, options.count)
        except BeyondError as error:
            failures.append(f"{name} {dtype}: {error}")
            print(failures[-1], flush=True)
            continue
        functions.append(row)
        print(f"{name:30}{dtype:10}{row['error']:<10}{row['gradient_error']:<10}", flush=True)
    if failures:
        print(f"{len(failures)} fail: nothing is recorded")
        return 1
    machines = [deviations(kind, d, options.seed) for kind in (NTM, DNC) for d in DTYPES]
    command = f"python -m experiments numbers --seed {options.seed} --count {options.count}"
    record = {"experiment": "numbers", "seed": options.seed, "command": command}
    record |= {"seconds": round(time.perf_counter() - begin), "functions": functions}
    record |= {"sequences": machines, **records.origin(records.maker(command))}
    records.merge(options.results / "numbers.json", record, ("experiment", "seed"))
    return 0
