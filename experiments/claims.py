"""Published claims (`results/published_claims.json`) beside our records, and a verdict on each.

A claim is a number that a paper prints, or an order that it states: that one machine does better
than another. Whether it can be compared is a judgement, which stands in the claim:

- it is *not comparable* where the book does not try it, or where a difference of conditions could
  decide the outcome alone; the claim gives the reason.

The verdict on any other is computed, by one rule each:

- a number is *reached* where ours is as good, or no further off than one spread: the larger of the
  standard deviations over runs, the paper's and ours; where the source has only words, a limit in
  the claim says how they are read;
- an order is *reached* where our means differ in its direction by more than the larger spread of
  the two;
- else it is *not reached*.
"""

import json
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from experiments import check, records

CLAIMS = "published_claims"
STATES = ("current", "re-verified", "stale")  # of a record
REACHED, MISSED, APART = "reached", "not reached", "not comparable"


@dataclass(frozen=True)
class Side:
    """What we measured, from one record.

    Attributes:
        file: name of the record, without its ending.
        value: that is compared: the mean over runs, the median where some runs have none, or, where
            `best`, that of the starts with the smallest training error.
        spread: standard deviation over runs, None for a single one.
        runs: of the record, that it was taken from.
        field: of a run, that was taken.
        groups: of the record, see `experiments.check`, that these runs belong to.
        count: how many starts there were; of one network a task, those of each.
        best: whether one start of so many counts, a network each.
        mean: over all starts, where one counts and the record has it.
    """

    file: str
    value: float
    spread: float | None
    runs: list[dict[str, Any]]
    field: str
    groups: tuple[check.Group, ...]
    count: int
    best: bool = False
    mean: float | None = None

    @property
    def state(self) -> str:
        """Current, re-verified or stale: the worst of its groups."""
        return max((group.state for group in self.groups), key=STATES.index)


@dataclass(frozen=True)
class Claim:
    """One published claim, and ours beside it.

    Attributes:
        name, page, text: what `make reproduce` calls it, the chapter that repeats it, the claim.
        cite, where: key of its source in `book/references.bib`, and where in it.
        unit: of the numbers.
        published, spread: the number, None for an order; its standard deviation over runs.
        words: the claim as the source puts it, where that is no number.
        limit: as what number these words are read, where ours is one.
        sides: ours; none where the book has no number, two for an order.
        better: "less" or "more".
        why: what else is to be known.
        apart: why it is not compared, if it is not.
    """

    name: str
    page: str
    cite: str
    where: str
    text: str
    unit: str
    published: float | None
    spread: float | None
    words: str
    limit: float | None
    sides: tuple[Side, ...]
    better: str
    why: str
    apart: str

    @property
    def verdict(self) -> str:
        """Reached, not reached or not comparable, by the rule at the head of this module."""
        if self.apart or not self.sides:
            return APART
        if len(self.sides) == 2:
            one, two = self.sides
            ahead = self._gain(one.value, two.value) > _widest(one.spread, two.spread)
            return REACHED if ahead else MISSED
        (side,) = self.sides
        goal = self.limit if self.published is None else self.published
        if goal is None:
            raise ValueError(
                f"{self.name}: a claim with one number needs a published one or a limit"
            )
        short = -self._gain(side.value, goal)
        return REACHED if short <= _widest(self.spread, side.spread) else MISSED

    @property
    def said(self) -> str:
        """Why an order was not reached."""
        if self.verdict != MISSED or len(self.sides) != 2:
            return ""
        one, two = self.sides
        inside = abs(self._gain(one.value, two.value)) <= _widest(one.spread, two.spread)
        return "the difference lies within the spread" if inside else "here it is the other way"

    def _gain(self, one: float, two: float) -> float:
        return one - two if self.better == "more" else two - one


def _widest(*spreads: float | None) -> float:
    return max((s for s in spreads if s is not None), default=0.0)


def take(part: Any, path: str, separator: str = ".") -> Any:
    """Follow a path into a record: names, indices, and ``name=value`` to choose from a list.

    Example:
        >>> take({"beyond": [{"items": 6, "bits": 1.5}, {"items": 8, "bits": 2.5}]},
        ...      "beyond.items=8.bits")
        2.5
        >>> take({"curve": [1, 2, 3]}, "curve.-1")
        3
    """
    for word in path.split(separator):
        if isinstance(part, Mapping):
            part = part[word]
        elif "=" in word:
            wanted = [pair.split("=") for pair in word.split(",")]
            part = next(one for one in part if all(str(one[n]) == v for n, v in wanted))
        else:
            part = part[int(word)]
    return part


def side(given: Mapping[str, Any], folder: Path = records.RESULTS) -> Side:
    """Take ours from a record, as a claim says."""
    file, field = given["file"], given["field"]
    record = _load(folder / f"{file}.json")
    mine = [group for group in groups(folder) if group.file == file]
    if "models" in record:  # a network a task, or one for all, each from several starts
        starts = [start for model in record["models"] for start in model["restarts"]]
        count = len(record["models"][0]["restarts"])
        if field in record:
            single = (record["mean_of_seeds"], record["sd_of_seeds"])
            mean, spread = single if field == "mean" else (None, None)
            told = (file, record[field], spread, starts, field, tuple(mine), count)
            return Side(*told, best=True, mean=mean)
        return _summary(file, starts, field, mine)
    wanted = given.get("where", {})
    runs = [r for r in record["runs"] if all(r.get(n) == v for n, v in wanted.items())]
    if "best" in given:
        runs = _best(runs, given.get("chosen", field), given["best"])
    names = {check.name_of(run) for run in runs}
    mine = [group for group in mine if group.name in names]
    return _summary(file, runs, field, mine)


def number(run: Mapping[str, Any], field: str) -> float:
    """Return the number of one run: infinity where there is none, the mean of a list."""
    found = take(run, field)
    if isinstance(found, list):
        return statistics.fmean(found)
    return math.inf if found is None else float(found)


def _summary(
    file: str, runs: Sequence[dict[str, Any]], field: str, mine: Sequence[check.Group]
) -> Side:
    if not runs:
        raise ValueError(f"{file} must have runs of the claim; got none")
    values = [number(run, field) for run in runs]
    sure = all(map(math.isfinite, values))
    value = statistics.fmean(values) if sure else statistics.median(values)
    spread = statistics.stdev(values) if sure and len(values) > 1 else None
    return Side(file, value, spread, list(runs), field, tuple(mine), len(runs))


def _best(runs: Sequence[dict[str, Any]], field: str, by: str) -> list[dict[str, Any]]:
    """The runs with the setting whose mean is highest."""
    parts = [[run for run in runs if run[by] == value] for value in sorted({r[by] for r in runs})]
    return max(parts, key=lambda part: statistics.fmean(number(run, field) for run in part))


@cache
def groups(folder: Path = records.RESULTS) -> tuple[check.Group, ...]:
    """Return all that is recorded in a folder, read once."""
    return tuple(check.groups(folder))


@cache
def _load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def published(where: str, folder: Path = records.RESULTS) -> Any:
    """Return what stands in a published record, ``published_memn2n/1k/strong/mean``."""
    file, _, path = where.partition("/")
    return take(_load(folder / f"{file}.json"), path, "/")


def known(folder: Path = records.RESULTS) -> dict[str, Claim]:
    """Return all claims by their names."""
    return {claim.name: claim for claim in claims(folder)}


def claims(folder: Path = records.RESULTS) -> Iterator[Claim]:
    """Go through all claims, as they are listed."""
    table = _load(folder / f"{CLAIMS}.json")
    for given in table["claims"]:
        told, spread = given.get("published"), None
        if isinstance(told, str):
            told = published(told, folder)
        if isinstance(told, list):  # a row of published_dnc.json: name, mean, deviation, ...
            _, told, spread, *_ = told
        here = given.get("here", [])
        yield Claim(
            name=given["id"],
            page=given["page"],
            cite=given["cite"],
            where=given["where"],
            text=given["text"],
            unit=given.get("unit", ""),
            published=told,
            spread=spread,
            words=_filled(given.get("words", ""), folder),
            limit=given.get("limit"),
            sides=tuple(side(one, folder) for one in ([here] if "file" in here else here)),
            better=given["better"],
            why=given.get("why", ""),
            apart=_filled(
                table["reasons"].get(given.get("reason"), given.get("reason", "")), folder
            ),
        )


def _filled(words: str, folder: Path) -> str:
    """Put published numbers in the place of ``{where they stand}``."""
    return re.sub(r"\{(.+?)\}", lambda found: f"{published(found[1], folder):,}", words)


def headlines(folder: Path = records.RESULTS) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Go through the systems of the chapter on models: each, and the claim or the reason for it."""
    table = _load(folder / f"{CLAIMS}.json")
    for system in _load(folder / "published_models.json")["systems"]:
        told = table["systems"][system["id"]]
        reason = table["reasons"].get(told, "")
        yield system, "" if reason else told, reason
