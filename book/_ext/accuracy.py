"""Shows below each function how far it may be from float64, and how far it was met to be.

Both numbers come from ``results/numbers.json``, which `python -m experiments numbers` writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

RECORD = Path("results/numbers.json")
DTYPES = ("float32", "bfloat16", "float16")


def runs(folder: Path) -> list[dict[str, Any]]:
    """The runs of the record, in the folder or above it; none without a record."""
    path = next((d / RECORD for d in (folder, *folder.parents) if (d / RECORD).exists()), None)
    return json.loads(path.read_text(encoding="utf-8"))["runs"] if path else []


def table(title: str, head: list[str], cells: list[list[str]]) -> list[str]:
    """A table in reStructuredText."""
    lines = [f".. list-table:: {title}", "   :header-rows: 1", ""]
    for row in [head, *cells]:
        lines += [f"   {'*' if i == 0 else ' '} - {cell}" for i, cell in enumerate(row)]
    return lines


def of_function(name: str, known: list[dict[str, Any]]) -> list[str]:
    """The largest errors of a function over all runs; nothing if it was not measured."""
    cells = []
    for dtype in DTYPES:
        found = [row for run in known for row in run["functions"]]
        mine = [row for row in found if (row["function"], row["dtype"]) == (name, dtype)]
        if mine:
            numbers = [mine[0]["bound"], max(row["error"] for row in mine)]
            numbers += [mine[0]["gradient_bound"], max(row["gradient_error"] for row in mine)]
            cells.append([dtype, *(f"{x:.2g}" for x in numbers)])
    head = ["dtype", "bound", "met", "of gradients", "met"]
    return table("The bound, and the largest error met", head, cells) if cells else []


def of_machine(name: str, known: list[dict[str, Any]]) -> list[str]:
    """How far a machine went from float64 over a sequence; nothing if it was not measured."""
    found = [row for run in known for row in run["sequences"] if row["machine"] == name]
    steps = [key for key in (found[0] if found else ()) if key.startswith("after_")]
    cells = []
    for dtype in DTYPES:
        mine = [row for row in found if row["dtype"] == dtype]
        if mine:
            cells.append([dtype, *(f"{max(row[s] for row in mine):.2g}" for s in steps)])
    head = ["dtype", *(s.replace("_", " ") for s in steps)]
    title = "How far logits went from float64 after so many steps, untrained"
    return table(title, head, cells) if cells else []


def add_tables(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Adds a table below the line of a docstring that names a bound; to a machine at its end."""
    short = name.removeprefix("memlib.").removeprefix("store.")
    known = runs(Path(app.confdir))
    if what == "class" and (machine := of_machine(short, known)):
        lines += ["", *machine, ""]
    start = next((i for i, line in enumerate(lines) if line.startswith("Accuracy:")), None)
    if what in ("function", "method") and start is not None:
        end = next((i for i in range(start, len(lines)) if not lines[i].strip()), len(lines))
        lines[end:end] = ["", *of_function(short, known), ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the hook, after napoleon's."""
    app.connect("autodoc-process-docstring", add_tables, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
