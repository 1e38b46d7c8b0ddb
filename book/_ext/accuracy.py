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


def rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The record's rows of each function; none without a record."""
    path = next((d / RECORD for d in (folder, *folder.parents) if (d / RECORD).exists()), None)
    found: dict[str, list[dict[str, Any]]] = {}
    for run in json.loads(path.read_text(encoding="utf-8"))["runs"] if path else ():
        for row in run["functions"]:
            found.setdefault(row["function"], []).append(row)
    return found


def table(measured: list[dict[str, Any]]) -> list[str]:
    """A table of the largest errors of one function, in reStructuredText."""
    lines = [
        ".. list-table:: Largest error met, in parts of the bound's unit",
        "   :header-rows: 1",
    ]
    lines += ["", "   * - dtype", "     - bound", "     - met", "     - of gradients", "     - met"]
    for dtype in DTYPES:
        mine = [row for row in measured if row["dtype"] == dtype]
        if not mine:
            continue
        cells = [mine[0]["bound"], max(row["error"] for row in mine)]
        cells += [mine[0]["gradient_bound"], max(row["gradient_error"] for row in mine)]
        lines.append(f"   * - {dtype}")
        lines += [f"     - {cell:.2g}" for cell in cells]
    return lines


def add_table(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Adds the table to a docstring that names a bound."""
    short = name.removeprefix("memlib.").removeprefix("store.")
    known = rows(Path(app.confdir))
    if what in ("function", "method") and short in known:
        end = next((i for i, line in enumerate(lines) if line.startswith("Accuracy:")), None)
        if end is None:
            return
        while end < len(lines) and lines[end].strip():
            end += 1
        lines[end:end] = ["", *table(known[short]), ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the hook, after napoleon's."""
    app.connect("autodoc-process-docstring", add_table, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
