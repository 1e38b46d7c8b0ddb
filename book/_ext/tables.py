"""Markdown of the pages made from records: tables, citations, titles of pages."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable

from experiments import records

sys.path.append(str(records.ROOT / "tools"))
import references

BOOK = records.ROOT / "book"
SHORT = "ml-short"


def table(head: list[str], rows: Iterable[list[str]], kind: str = "") -> str:
    """A table; where its columns do not fit, each row is a card whose parts have labels.

    Of the kind ``ml-short`` a part stands on the line of its label.
    """
    lines = [
        f"::::{{div}} full-width ml-rows {kind}".rstrip(),
        "```{list-table}",
        ":header-rows: 1",
        "",
    ]
    lines += _row(head)
    for first, *rest in rows:
        labels = (f'<span class="ml-label">{word}</span> ' for word in head[1:])
        lines += _row([first, *(label + cell for label, cell in zip(labels, rest, strict=True))])
    return "\n".join([*lines, "```", "::::"])


def _row(cells: list[str]) -> list[str]:
    return [f"{'  ' if i else '* '}- {cell}" for i, cell in enumerate(cells)]


def broken(*parts: str) -> str:
    """Lines of one cell."""
    return " \\\n    ".join(filter(None, parts))


def counted(count: int, one: str, many: str = "") -> str:
    """A number and what it counts."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def cited(key: str) -> str:
    """A citation, linked to the list of references."""
    authors, year = references.label(references.entries(BOOK / "references.bib").entries[key])
    return f"[{authors}, {year}](references.md#{key})"


def titled(name: str) -> str:
    """A page's title, linked; its name alone where the page is no more."""
    for path in (BOOK / f"{name}.ipynb", BOOK / f"{name}.md"):
        if path.exists():
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".ipynb":
                cells = json.loads(text)["cells"]
                text = "".join("".join(cell["source"]) + "\n" for cell in cells)
            title = re.search(r"^# (.+)$", text, re.M)
            return f"[{title[1] if title else name}]({path.name})"
    return name


def ordered(names: Iterable[str]) -> list[str]:
    """Pages in the order of the table of contents, others last."""
    contents = (records.ROOT / "_toc.yml").read_text(encoding="utf-8")
    listed = re.findall(r"(?:file|root): book/(\w+)", contents)
    return sorted(set(names), key=lambda name: (*listed, name).index(name))
