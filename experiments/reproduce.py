"""Make one published claim again: ``make reproduce NAME=memn2n-joint``.

The cheapest run behind the claim, or that of ``--seed``, is made again by the code of today, in a
folder of its own: nothing is recorded. Told are the published number, the record and the new run
side by side, and whether the new run agrees with the recorded one. Without a name: all claims, and
what a run of each costs. The rules of the verdicts are in `experiments.claims`.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping
from typing import Any

from experiments import check, claims, records, verify
from experiments.claims import Claim, Side


def shown(value: float | None, spread: float | None = None) -> str:
    """Return a number as people read it, with its spread.

    Example:
        >>> shown(67561), shown(12.835, 1.446), shown(0.00016)
        ('67,561', '12.8 ± 1.4', '0.00016')
        >>> shown(float("inf"))
        'never'
    """
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return "none" if value is None else "never"
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{digits} ± {spread:.2g}" if spread else digits


def unit(side: Side, seed: int | None = None) -> verify.Unit | None:
    """Return the run behind a number that is made again: the cheapest, or that of a seed."""
    group = side.groups[0]
    if "models" in group.runs[0]:
        return verify.unit_of(group, seed, records.RESULTS)
    runs = [run for run in side.runs if seed in (None, run["seed"])]
    run = min(runs, key=lambda run: run["seconds"], default=None)
    if run is None:
        return None
    name = " ".join(f"{n}={run[n]}" for n in ("size", "rate", "seed") if n in run)
    group = next(group for group in side.groups if group.name == check.name_of(run))
    return verify.Unit(group, name, run, (run["command"],), run["seconds"])


def of_run(run: Mapping[str, Any], field: str) -> float:
    """Return a claim's number of one run; of a start of a network, over the tasks it was asked."""
    errors: Mapping[str, float] = run.get("test_error", run.get("valid_error", {}))
    if field == "mean":
        return statistics.fmean(errors.values())
    if field == "failed":
        return sum(error > 5 for error in errors.values())
    return claims.number(run, field)


def cost(claim: Claim) -> str:
    """Say what a run of each of a claim's sides took."""
    units = [unit(side) for side in claim.sides]
    seconds = sum(one.seconds or 0.0 for one in units if one)
    return f"{seconds:,.0f} s" if units else "not run here"


def listing() -> str:
    """Return all claims, a line each: name, cost, verdict, text."""
    found = [(c.name, cost(c), c.verdict, c.text) for c in claims.claims()]
    found.sort(key=lambda row: row[1] == "not run here")
    lines = ["make reproduce NAME=...; the cost is that of one run, or one of each side", ""]
    return "\n".join(lines + [f"{n:28}{c:>13}  {v:16}{t}" for n, c, v, t in found])


def again(claim: Claim, seed: int | None) -> int:
    """Make one run of each side again, and tell; return 1 where it differs from the record."""
    print(f"{claim.name}: {claim.text} ({claim.cite}, {claim.where})")
    number = f"{shown(claim.published, claim.spread)} {claim.unit}  " if claim.published else ""
    print(f"  published  {number}{claim.words}")
    status = 0
    for side in claim.sides:
        one = unit(side, seed)
        if one is None:
            print(f"{side.file} must have a run of seed {seed}; it has none", file=sys.stderr)
            return 2
        print(f"  {one.title}: {', '.join(one.commands)}", flush=True)
        found = verify.perform(one)
        old, new = (of_run(run, side.field) for run in (one.recorded, found[0]))
        agreed, wrong = verify.compare(one, found)
        print(f"  recorded   {shown(side.value, side.spread)} {claim.unit}, {side.count} runs")
        print(f"  this run   {shown(new)}, recorded {shown(old)}: ", end="")
        print(f"agrees {agreed}" if not wrong else f"differs: {'; '.join(sorted(wrong)[:5])}")
        status |= bool(wrong)
    print(f"  verdict of the record: {claim.verdict}. {claim.apart or claim.said or claim.why}")
    return status


def main(arguments: list[str]) -> int:
    """Run what the command line asks for; return 1 where something differs, 2 for a bad name."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", help="of a claim; without it all are listed")
    parser.add_argument("--seed", type=int, help="the run of that seed instead of the cheapest")
    options = parser.parse_args(arguments)
    if options.name is None:
        print(listing())
        return 0
    found = claims.known()
    if options.name not in found:
        print(f"NAME must be one of {', '.join(found)}; got {options.name!r}", file=sys.stderr)
        return 2
    claim = found[options.name]
    if not claim.sides:
        print(f"{claim.name}: {claim.text}\n  not run here: {claim.apart}")
        return 0
    return again(claim, options.seed)
