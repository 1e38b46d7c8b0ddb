"""How long the paths through the book take, from the pages that they lead over.

A row of a table in paths.md begins with a link to a page; *up to* says at which of its headings to
stop, and *with exercises* adds what its exercises take. `make tidy` writes the second cell, and
the sum of a table into its row *together*.
"""

from __future__ import annotations

import re
from pathlib import Path

import reading

FILE = "paths.md"
ROW = re.compile(r"^\| (?P<what>[^|]*\S) \|(?P<time>[^|]*)\|(?P<rest>.*)$", re.M)
LINK = re.compile(r"\]\(([\w/]+\.(?:ipynb|md))\)")
STOP = re.compile(r", up to \*([^*]+)\*")
EXERCISE = re.compile(r"^#+ Exercise \d.*\b(\d+) minutes\)", re.M)
HEAD, TOGETHER = "Time", "together"
THIN = "\N{NARROW NO-BREAK SPACE}"  # between a number and its unit


def cells(path: Path) -> list[reading.Cell]:
    """The cells of a page, cut at headings; of a Markdown page, its text and its listings."""
    if path.suffix == ".ipynb":
        given = reading.load(path.stem)
    else:
        parts = re.split(r"^```python\n(.*?)^```$", path.read_text("utf-8"), flags=re.M | re.S)
        given = [{"cell_type": kind, "source": part, "metadata": {}} for kind, part in zip(
            ["markdown", "code"] * len(parts), parts, strict=False)]  # fmt: skip
    found = []
    for cell in given:
        cut = r"^(?=#)" if cell["cell_type"] == "markdown" else r"\Z"
        texts = re.split(cut, reading.source(cell), flags=re.M)
        found += [cell | {"source": text} for text in texts if text.strip()]
    return found


def heading(cell: reading.Cell) -> str:
    """The heading with which a cell begins, or nothing."""
    found = re.match(r"#+ (.+)", reading.source(cell)) if cell["cell_type"] == "markdown" else None
    return found[1].strip() if found else ""


def minutes(what: str) -> int:
    """What a row leads over: whole pages in fives, as the chapters say it; parts to the minute.

    Raises:
        ValueError: it has no link, or stops at a heading that is not on the page.
    """
    if not (link := LINK.search(what)):
        raise ValueError(f"a row must begin with a link to a page; got {what!r}")
    page = cells(reading.BOOK / link[1])
    if stop := STOP.search(what):
        headings = [heading(cell) for cell in page]
        if stop[1] not in headings:
            raise ValueError(f"a row must stop at a heading of its page; got {what!r}")
        return max(1, round(reading.measure(page[: headings.index(stop[1])]).minutes))
    total = max(5, reading.time(page))
    if "with exercises" in what:
        given = "\n".join(map(reading.source, page))
        total += sum(map(int, EXERCISE.findall(given)))
    return total


def said(total: int) -> str:
    """A time as a table shows it."""
    hours, rest = divmod(total, 60)
    parts = [f"{hours}{THIN}h"] * bool(hours) + [f"{rest}{THIN}min"] * bool(rest)
    return " ".join(parts)


def page(text: str) -> str:
    """The text of the page, with all times written."""
    total = 0

    def timed(row: re.Match[str]) -> str:
        nonlocal total
        if row["time"].strip() == HEAD:
            total = 0
            return row[0]
        now = total if row["what"] == TOGETHER else minutes(row["what"])
        total += now
        return f"| {row['what']} | {said(now)} |{row['rest']}"

    return ROW.sub(timed, text)
