"""Make one published claim again: ``make reproduce NAME=memn2n-joint``.

The cheapest run behind the claim, or that of ``--seed``, is made again by the code of today, in a
folder of its own: nothing is recorded. Told are the published number, the record and the new run
side by side, and whether the new run agrees with the recorded one. Without a name: all claims, and
what a run of each costs. The rules of the verdicts are in `experiments.claims`.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from experiments import check, claims, records, verify
from experiments.claims import Claim, Side


def shown(value: float | None, spread: float | None = None) -> str:
    """Return a number as people read it: three digits of it, or its spread beside it.

    The spread has two digits, where it has as many, and the number its decimal places.

    Example:
        >>> shown(67561), shown(12.835, 1.446), shown(11.0, 3.8), shown(27.3, 0.8)
        ('67,561', '12.8 ± 1.4', '11.0 ± 3.8', '27.3 ± 0.8')
        >>> shown(590.3, 263.1), shown(0.99992, 4.5e-05), shown(0.00016), shown(float("inf"))
        ('590 ± 263', '0.999920 ± 0.000045', '0.00016', 'never')
    """
    if value is None or not math.isfinite(value):
        return "none" if value is None else "never"
    if not spread:
        return rounded(value, 3)
    places = min(_places(spread, 2), max(map(_printed, (value, spread))))
    return f"{value:,.{places}f} ± {spread:,.{places}f}"


def rounded(value: float, digits: int) -> str:
    """Return a number to so many digits, no whole one cut, and never with an exponent.

    Example:
        >>> rounded(1234.5, 3), rounded(0.9996, 3), rounded(999.7, 3), rounded(0.000012, 1)
        ('1,234', '1', '1,000', '0.00001')
    """
    told = f"{value:,.{_places(value, digits)}f}"
    return told.rstrip("0").rstrip(".") if "." in told else told


def _places(value: float, digits: int) -> int:
    """Decimal places that show so many digits of a number."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0


def _printed(value: float) -> int:
    """Decimal places that a number has in its record."""
    return max(0, -int(Decimal(repr(value)).normalize().as_tuple().exponent))


def recorded(side: Side, unit: str) -> str:
    """Say what a record has: a mean and its spread, one start of several, or who ever got there."""
    if side.best:
        one = f"; a start {shown(side.mean, side.spread)}" if side.mean is not None else ""
        return f"{shown(side.value)} {unit}, the best of {side.count} starts by training error{one}"
    there = [x for run in side.runs if math.isfinite(x := claims.number(run, side.field))]
    if len(there) < len(side.runs):
        after = f", after {' and '.join(map(shown, there))} {unit}" if there else ""
        return f"in {len(there)} of {len(side.runs)} runs{after}"
    return f"{shown(side.value, side.spread)} {unit}"


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
    units = {one.commands: one for one in map(unit, claim.sides) if one}  # two may be one run
    seconds = sum(one.seconds or 0.0 for one in units.values())
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
    if claim.limit is not None:
        print(f"  read as    {shown(claim.limit)} {claim.unit}")
    status, made = 0, dict[tuple[str, ...], list[Any]]()
    for side in claim.sides:
        one = unit(side, seed)
        if one is None:
            print(f"{side.file} must have a run of seed {seed}; it has none", file=sys.stderr)
            return 2
        print(f"  {one.title}: {', '.join(one.commands)}", flush=True)
        if one.commands not in made:
            made[one.commands] = verify.perform(one)
        found = made[one.commands]
        old, new = (of_run(run, side.field) for run in (one.recorded, found[0]))
        agreed, wrong = verify.compare(one, found)
        print(f"  recorded   {recorded(side, claim.unit)}; {side.count} runs")
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
