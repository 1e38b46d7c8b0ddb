"""How long a chapter takes to read, and what in it is too long: `python tools/reading.py`.

Prose at 150 words a minute, visible code at 8 lines a minute, folded code that draws nothing at
half its lines, two minutes a figure. The exercises and what follows them are counted apart.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folds

BOOK = Path(__file__).resolve().parents[1] / "book"
WORDS, LINES, FIGURE = 150, 8, 2  # words and lines a minute, minutes a figure
COLUMNS, LONG, ASSERTS = 72, 20, 2  # of a visible cell
EXERCISES = "## Exercises"
DRAWS = re.compile(
    r"\b(figure|plt|axes|axis|ax|svg|show|plots?|player|animate|explore|display|image)\b"
)
PICTURE = re.compile(r"\b(figure|animate|explore|player|show)\s*\(|!\[|<svg|<img|:class: ml-figure")
NOT_PROSE = re.compile(r"\$\$.*?\$\$|<[^>]+>|\]\([^)]*\)|^\|?[-:| ]+\|?$|[|*_`#>]", re.S | re.M)
Cell = dict[str, Any]


@dataclass
class Reading:
    """What there is to read in a chapter, the exercises apart."""

    words: int = 0
    visible: int = 0
    folded: int = 0
    figures: int = 0

    @property
    def minutes(self) -> float:
        """The time a reader needs."""
        code = (self.visible + self.folded / 2) / LINES
        return self.words / WORDS + code + self.figures * FIGURE


def source(cell: Cell) -> str:
    """The text of a cell."""
    return "".join(cell["source"])


def is_folded(cell: Cell) -> bool:
    """Whether a page shows the cell's code only when it is asked to, or never."""
    return not folds.TAGS.isdisjoint(cell["metadata"].get("tags", ()))


def is_shown(cell: Cell) -> bool:
    """Whether the cell is code in full view."""
    return cell["cell_type"] == "code" and not is_folded(cell)


def lines(cell: Cell) -> list[str]:
    """The lines of a cell, without the empty ones."""
    return [line for line in source(cell).splitlines() if line.strip()]


def order() -> list[str]:
    """The notebooks after the introduction, in the order in which they are read."""
    contents = (BOOK.parent / "_toc.yml").read_text(encoding="utf-8")
    names = re.findall(r"file: book/(\w+)", contents)  # the introduction is the root
    return [name for name in names if (BOOK / f"{name}.ipynb").exists()]


def load(name: str) -> list[Cell]:
    """The cells of a chapter."""
    path = BOOK / f"{name}.ipynb"
    cells: list[Cell] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return cells


def parts(cells: list[Cell]) -> tuple[list[Cell], list[Cell]]:
    """The cells before the exercises, and those from there on."""
    headings = [source(c).lstrip() if c["cell_type"] == "markdown" else "" for c in cells]
    starts = [i for i, text in enumerate(headings) if text.startswith(EXERCISES)]
    end = starts[0] if starts else len(cells)
    return cells[:end], cells[end:]


def measure(cells: list[Cell]) -> Reading:
    """What these cells ask of a reader."""
    total = Reading()
    for cell in cells:
        text, tags = source(cell), cell["metadata"].get("tags", ())
        total.figures += bool(PICTURE.search(text))
        if cell["cell_type"] == "markdown":
            total.words += len(NOT_PROSE.sub(" ", text).split())
        elif not is_folded(cell):
            total.visible += len(lines(cell))
        elif not DRAWS.search(text) and not {"remove-cell", "remove-input"} & set(tags):
            total.folded += len(lines(cell))
    return total


def time(cells: list[Cell]) -> int:
    """The minutes that a chapter takes, in fives."""
    return 5 * round(measure(parts(cells)[0]).minutes / 5)


def faults(cells: list[Cell]) -> list[str]:
    """What is too wide, too long or has too many asserts in the visible cells of a chapter."""
    found = []
    for cell in filter(is_shown, cells):
        wide = [line for line in source(cell).splitlines() if len(line) > COLUMNS]
        asserts = len(re.findall(r"^\s*assert\b", source(cell), re.M))
        found += [f"{cell['id']}: {len(line)} columns: {line.strip()}" for line in wide]
        if len(lines(cell)) > LONG:
            found.append(f"{cell['id']}: {len(lines(cell))} lines")
        if asserts > ASSERTS:
            found.append(f"{cell['id']}: {asserts} asserts")
    return found


def main(names: list[str]) -> None:
    """Prints what each chapter asks of a reader, and, of those named, what is too long."""
    for name in names or order():
        total = measure(parts(load(name))[0])
        print(f"{name:24} {total.words:5} words {total.visible:4} visible lines", end="")
        print(f" {total.folded:4} folded {total.figures:3} figures {total.minutes:6.0f} minutes")
        if names:
            print(*faults(load(name)), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
