"""Paths through the book: their times are those of the pages, and keep what headings promise."""

from __future__ import annotations

import re

import paths
import pytest
import reading

PAGE = (reading.BOOK / paths.FILE).read_text(encoding="utf-8")
PROMISED = {"Thirty minutes": 30, "An afternoon": 4 * 60, "A week": 5 * 6 * 60}
Row = tuple[str, str]


def tables(text: str = PAGE) -> dict[str, list[list[Row]]]:
    """The tables of each path: what a row leads over, and its time."""
    parts = re.split(r"^## (.+)\n", text, flags=re.M)[1:]
    found = {}
    for name, part in zip(parts[::2], parts[1::2], strict=True):
        blocks = re.findall(r"(?:^\|.*\n)+", part, re.M)
        cells = [[line.split("|")[1:3] for line in block.splitlines()[2:]] for block in blocks]
        found[name] = [[(what.strip(), time.strip()) for what, time in rows] for rows in cells]
    return found


def minutes(time: str) -> int:
    hours, rest = re.fullmatch(r"(?:(\d+)\sh)? ?(?:(\d+)\smin)?", time).groups()  # type: ignore[union-attr]
    return 60 * int(hours or 0) + int(rest or 0)


TABLES = [(name, rows) for name, given in tables().items() for rows in given]


def test_the_times_are_written() -> None:
    assert paths.page(PAGE) == PAGE, "run `make tidy`"
    assert tables().keys() == PROMISED.keys()


@pytest.mark.parametrize(("name", "rows"), TABLES)
def test_a_table_adds_up_to_what_its_heading_promises(name: str, rows: list[Row]) -> None:
    *pages, (last, total) = rows
    assert last == "together"
    assert len(pages) >= 3
    assert sum(minutes(time) for _, time in pages) == minutes(total)
    assert 0.5 * PROMISED[name] <= minutes(total) <= PROMISED[name] + 5


def test_a_chapter_takes_what_it_says_itself() -> None:
    whole = [(what, time) for _, rows in TABLES for what, time in rows if what.endswith(".ipynb)")]
    compared = 0
    for what, time in whole:
        name = re.search(r"\((\w+)\.ipynb\)", what)[1]  # type: ignore[index]
        text = "\n".join(map(reading.source, reading.load(name)))
        if said := re.search(r"^\*\*Time:\*\* about (\d+) minutes", text, re.M):
            assert minutes(time) == int(said[1]), what
            compared += 1
    assert compared >= 5


def test_a_week_leads_over_every_chapter() -> None:
    (week,) = tables()["A week"]
    names = re.findall(r"\((\w+)\.ipynb\)", "".join(what for what, _ in week))
    chapters = [name for name in reading.order() if name != "test_your_understanding"]
    assert names == ["intro", *chapters]


def test_exercises_count_where_a_row_says_so() -> None:
    row = "[Key-value memory](key_value.ipynb)"
    text = "\n".join(map(reading.source, reading.load("key_value")))
    given = [int(time) for time in re.findall(r"Exercise \d.*?, (\d+) minutes\)", text)]
    assert len(given) >= 5
    assert paths.minutes(f"{row}, with exercises") == paths.minutes(row) + sum(given)


def test_more_to_read_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    before, load = tables(), reading.load
    more = {"cell_type": "markdown", "id": "more", "metadata": {}, "source": "word " * 3000}
    monkeypatch.setattr(reading, "load", lambda name: [more, *load(name)])
    after = tables(paths.page(PAGE))
    assert len(after["An afternoon"]) == len(before["An afternoon"])
    for then, now in zip(before["A week"][0], after["A week"][0], strict=True):
        assert minutes(now[1]) >= minutes(then[1]) + 20


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Key-value memory", "must begin with a link"),
        ("[A](map.md), up to *No such heading*", "must stop at a heading"),
        ("[A](map.md), up to *Symbols*", "must stop at a heading"),
    ],
)
def test_a_row_that_leads_nowhere_is_refused(row: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paths.minutes(row)


@pytest.mark.parametrize(("total", "said"), [(5, "5 min"), (60, "1 h"), (185, "3 h 5 min")])
def test_a_time_is_said(total: int, said: str) -> None:
    assert paths.said(total).replace(paths.THIN, " ") == said
    assert minutes(paths.said(total)) == total
