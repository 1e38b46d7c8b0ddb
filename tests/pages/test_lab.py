"""Notebooks in real JupyterLab in a real browser: one chapter, or all where NIGHTLY is set."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checks
import controls
import lab
import pytest
import setup_cell
from playwright.sync_api import Browser

BOOK = setup_cell.ROOT / "book"
NOTEBOOKS = [path.relative_to(BOOK).with_suffix("").as_posix() for path in setup_cell.stored()]
CHEAP = "key_value"  # it has figures, an animation, a quiz and solutions
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the book's notebooks and pages as they are stored."""
    return Path(shutil.copytree(BOOK, tmp_path_factory.mktemp("lab") / "book"))


@pytest.fixture(scope="module")
def base(browser: Browser, folder: Path) -> Iterator[str]:
    """The address of JupyterLab over that copy; where there is no browser it does not start."""
    with lab.server(folder, folder.parent) as address:
        yield address


@pytest.mark.parametrize("name", NOTEBOOKS if os.environ.get("NIGHTLY") else [CHEAP])
def test_a_notebook(browser: Browser, base: str, name: str) -> None:
    with lab.notebook(browser, base, name) as (one, ran):
        assert not checks.faults(one, lab.GATES)
        assert ran
        assert one.page.locator(".ml-quiz, .ml-player, .ml-explore").count()
        assert not controls.used(one)
        assert not checks.faults(one, lab.GATES), "after the controls were used"


# ---- The gates catch what they are for ----

PICTURE = (
    "from IPython.display import HTML\n"
    "HTML('<figure><svg role=img width=200 height=100></svg></figure>')"
)


def code(source: str, **metadata: Any) -> dict[str, Any]:
    cell = {"cell_type": "code", "execution_count": None, "outputs": [], "source": source}
    return {**cell, "metadata": metadata}


def words(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


FOLD = {"jupyter": {"source_hidden": True}}
GOOD = [
    words('# Title\n\n<a id="eq-a"></a>\n\n$$a = b \\tag{1}$$\n\nBy [(1)](#eq-a), $a$ is `{b}`.'),
    words("A [slot](notation.md#term-slot) ([Graves *et al.*, 2014](references.md#graves2014))."),
    words("<details>\n<summary>Solution</summary>\n\nIt is $b$.\n\n</details>"),
    code(PICTURE),
    code("1", tags=["hide-cell"], **FOLD),
]
PLANTED = {
    "citation": (words("So {cite:p}`a2014` say."), "{cite:p}"),
    "reference": (words("By {eq}`eq-a` it is."), "{eq}"),
    "label": (words("$$a$$ (eq-a)"), "(eq-a)"),
    "attribute": (words("[Slot]{#term-slot}"), "{#"),
    "fence": (words(":::{note}\nwell\n:::"), "':::'"),
    "undrawn formula": (words("so $$x is"), "$$"),
    "wrong formula": (words(r"$$\softmax x$$"), "formula"),
    "dead link": (words("a [slot](#term-slot)"), "dead link: #term-slot"),
    "link to no file": (words("a [chapter](none.ipynb)"), "none.ipynb: 404"),
    "link out of an output": (
        code("from IPython.display import HTML\nHTML('<a href=none.html>more</a>')"),
        "none.html: 404",
    ),
    "open solution": (words("<details open>\n<summary>S</summary>\n\nx\n</details>"), "open:"),
    "open cell": (code("1", tags=["hide-cell"]), "open"),
    "folded cell": (code("1", **FOLD), "folded"),
    "error": (code("1 / 0"), "ZeroDivisionError"),
    "warning": (code("import warnings; warnings.warn('planted')"), "planted"),
    "picture that is not drawn": (code(PICTURE.replace("width=200", "width=0")), "0 drawn"),
    "outside request": (
        code("from IPython.display import HTML\nHTML('<img src=https://example.org/x.png>')"),
        "outside request",
    ),
}


def store(folder: Path, name: str, cells: list[dict[str, Any]]) -> None:
    """Writes a small notebook."""
    cells = [{**copy.deepcopy(cell), "id": f"cell-{i}"} for i, cell in enumerate(cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (folder / f"{name}.ipynb").write_text(json.dumps(made))


def test_a_good_notebook_passes_every_gate(browser: Browser, base: str, folder: Path) -> None:
    store(folder, "good", GOOD)
    with lab.notebook(browser, base, "good") as (one, ran):
        assert not checks.faults(one, lab.GATES)
        assert ran


def test_each_gate_catches_its_fault(
    browser: Browser, base: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one notebook; the cell with the error comes last, for nothing runs after it."""
    monkeypatch.setattr(lab, "PATIENCE", 5.0)
    cells = sorted(
        (cell for cell, _ in PLANTED.values()), key=lambda cell: "1 / 0" in cell["source"]
    )
    store(folder, "bad", [*GOOD, *cells])
    with lab.notebook(browser, base, "bad") as (one, ran):
        found = "\n".join(checks.faults(one, lab.GATES))
    assert not ran
    assert [fault for fault, (_, message) in PLANTED.items() if message not in found] == [], found
    assert not [
        line for line in found.splitlines() if line.startswith(("cell-0:", "cell-1:", "cell-2:"))
    ]


def test_a_notebook_without_pictures_is_found(browser: Browser, base: str, folder: Path) -> None:
    store(folder, "bare", [*GOOD[:2], code("def draw():\n    teaching.show(fig)")])
    with lab.notebook(browser, base, "bare") as (one, _):
        assert "no picture at all" in lab.results(one)
