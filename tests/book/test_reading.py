"""A chapter is read in the time it names: prose, code in full view and figures have budgets."""

from __future__ import annotations

import re

import pytest
import reading

SHORT = ["key_value", "content", "addressable"]
CHAPTERS = [*SHORT, "ntm", "memn2n", "transformer", "fast_weights", "dnc", "models", "store"]
MINUTES = dict.fromkeys(CHAPTERS, 80) | dict.fromkeys(SHORT, 60)
WORDS, VISIBLE = 3500, 240


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_keeps_its_budgets(name: str) -> None:
    total = reading.measure(reading.parts(reading.load(name))[0])
    assert total.words <= WORDS
    assert total.visible <= VISIBLE
    assert total.minutes <= MINUTES[name]


@pytest.mark.parametrize("name", CHAPTERS)
def test_listings_fit_the_page(name: str) -> None:
    assert reading.faults(reading.load(name)) == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_time_is_computed(name: str) -> None:
    cells = reading.load(name)
    text = "\n".join(reading.source(c) for c in cells if c["cell_type"] == "markdown")
    named = re.findall(r"^\*\*Time:\*\* about (\d+) minutes", text, re.M)
    assert named == [str(reading.time(cells))], "run `make tidy`"


def cell(source: str, *tags: str) -> reading.Cell:
    kind = "markdown" if source.startswith(("#", "A word")) else "code"
    return {"cell_type": kind, "id": "a", "metadata": {"tags": list(tags)}, "source": source}


def test_what_counts() -> None:
    cells = [
        cell("# Title\n\nA word and [another](page.md) with $x + y$."),
        cell("x = 1\n\ny = 2"),
        cell("z = 3\nw = 4", "hide-input"),
        cell("fig, ax = teaching.figure()\nax.plot(x)", "hide-input"),
        cell("import memlib", "remove-cell"),
    ]
    total = reading.measure(cells)
    assert (total.words, total.visible, total.folded, total.figures) == (9, 2, 2, 1)
    assert total.minutes == pytest.approx(9 / 150 + 3 / 8 + 2)
    before, after = reading.parts([*cells, cell("## Exercises"), cell("v = 5")])
    assert (len(before), len(after)) == (5, 2)


def test_what_is_too_long_is_found() -> None:
    wide, long = "x = " + "1" * 70, "\n".join(f"x = {i}" for i in range(21))
    asserts = "assert 1\n" * 3
    found = [reading.faults([cell(text)]) for text in (wide, long, asserts, "x = 1")]
    assert [len(one) for one in found] == [1, 1, 1, 0]
    assert reading.faults([cell(wide, "hide-input")]) == []
