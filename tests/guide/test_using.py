"""*Using memlib*: its table has every memory, its conventions are README's and the docstrings'."""

from __future__ import annotations

import inspect
import re
import tomllib

import pytest
import recipes

import memlib

ROOT = recipes.ROOT
README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())  # however it is broken
PAGE = (ROOT / "book" / "using.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "book" / "recipes.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PARTS = ("Gates", "Looks", "Recollection", "KeyValueState", "NTMState", "DNCState", "NeuralState")

MADE_BY = {  # how a page speaks of those that it doesn't name
    "SegmentMemory": "segment_memory", "DurableStore": "durable=True", "KVCache": "cache",
    "Engine": "retrieve",
}  # fmt: skip


def memories() -> set[str]:
    """The public classes, but for what goes in and out of them."""
    known = {name for name in memlib.__all__ if inspect.isclass(getattr(memlib, name))}
    assert known > set(PARTS)
    return known - set(PARTS)


def rows(page: str) -> list[list[str]]:
    """The cells of the decision table."""
    table = page.partition('<a id="choose"></a>\n\n')[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return cells[2:]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def faults(page: str) -> list[str]:
    """What is wrong with the decision table."""
    table = rows(page)
    taken = [name for take, *_ in table for name in names(take)]
    found = [f"{name} is missing" for name in sorted(memories() - set(taken))]
    found += [f"{name} stands twice" for name in set(taken) if taken.count(name) > 1]
    for take, *asked in table:
        found += ["a cell is empty"] * (len(asked) != 4 or not all(asked))
        (chapter, _), (place, start) = re.findall(r"\]\(([\w.]+)(?:#([\w-]+))?\)", take)
        text = (ROOT / "book" / chapter).read_text(encoding="utf-8")
        there = (ROOT / "book" / place).read_text(encoding="utf-8")
        if start:
            there = there.partition(f'<a id="{start}"></a>\n\n###')[2].partition("<a id=")[0]
        for name in names(take):
            used = rf"\b({name}|{MADE_BY.get(name, name)})\b"
            found += [f"{name} is not in memlib"] * (name not in memlib.__all__)
            found += [f"{chapter} does not use {name}"] * (not re.search(used, text))
            found += [f"{place}#{start} does not use {name}"] * (not re.search(used, there))
    return found


def test_the_table_has_every_memory_with_its_chapter_and_a_start() -> None:
    assert faults(PAGE) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("[`DNCCell`]", "[`DNCell`]", "DNCCell is missing"),
        ("[`NTM`](ntm.ipynb)", "[`NTM`](store.ipynb)", "store.ipynb does not use NTM"),
        ("recipes.md#table", "recipes.md#lstm", "does not use Hopfield"),
        ("| what is learned in training |", "| |", "a cell is empty"),
        ("[`Store`]", "[`DurableStore`]", "DurableStore stands twice"),
    ],
)
def test_a_fault_of_the_table_is_found(old: str, new: str, fault: str) -> None:
    assert PAGE.count(old) == 1
    assert [one for one in faults(PAGE.replace(old, new)) if fault in one]


# ---- Conventions and installation ----

CONVENTIONS = re.findall(r"^(\d+)\. \*\*(.+?)\*\*((?:.|\n   )*)", PAGE, re.M)


def said(title: str) -> str:
    (text,) = (rest for _, found, rest in CONVENTIONS if found.strip(".") == title)
    return text


def test_there_are_ten_conventions() -> None:
    assert [int(number) for number, *_ in CONVENTIONS] == list(range(1, 11))
    assert all(len(text.split()) < 50 for *_, text in CONVENTIONS)


def test_leading_dimensions_are_those_that_readme_names() -> None:
    """README's list is compared with what each function takes in tests/test_properties.py."""
    listed = README.partition("The verbs (")[2].partition("take any leading dimensions")[0]
    assert set(names(said("Leading dimensions"))) == {*names(listed), "programs"}


def test_what_changes_in_place_says_so_and_nothing_else_does() -> None:
    mine = set(names(said("States")))
    listed = README.partition("are never changed (")[2].partition("alone change in place")[0]
    assert mine == set(names(listed))
    for name in memories():
        kind = getattr(memlib, name)
        first = (inspect.getdoc(kind) or "").split("\n")[0]
        assert ("in place" in first) >= (name in mine), name
        assert "in place" not in first or name in mine or name.endswith("Store"), name


def test_the_extras_are_those_of_the_project() -> None:
    table = PAGE.partition("## Install")[2].partition("On Linux")[0]
    extras = {name for group in re.findall(r'\.\[([\w,]+)\]"', table) for name in group.split(",")}
    assert extras
    assert extras <= set(PROJECT["optional-dependencies"])
    assert "with torch and numpy, and nothing else" in table
    assert sorted(re.split(r"\W", line)[0] for line in PROJECT["dependencies"]) == [
        "numpy",
        "torch",
    ]


def test_readme_leads_to_the_guide() -> None:
    assert "(book/using.md)" in README
    assert "(book/recipes.md)" in README


def test_the_recipes_are_the_fourteen_that_were_asked_for_and_more() -> None:
    assert len(recipes.pages()[ROOT / "book" / "recipes.md"]) >= 14
    parts = re.split(r"^### ", GUIDE, flags=re.M)[1:]
    for part in parts:
        title, _, text = part.partition("\n")
        assert "To mind:" in text, title
        assert part.count("```python") == 1, title
