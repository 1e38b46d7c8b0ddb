"""Folds in Jupyter and Colab what the tags fold on the pages.

The pages know tags (`hide-cell`, ...), JupyterLab knows `source_hidden`, Colab its form view, and
each ignores what the others read. The tags are the source: `fold` writes the rest from them.
"""

from __future__ import annotations

from typing import Any

# Tags by which the pages fold or leave out the code of a cell.
TAGS = {"hide-cell", "hide-input", "remove-cell", "remove-input"}


def folds(cell: dict[str, Any]) -> dict[str, Any]:
    """The metadata that folds a cell's code in Colab and JupyterLab; empty where no tag asks."""
    if cell["cell_type"] != "code" or TAGS.isdisjoint(cell["metadata"].get("tags", ())):
        return {}
    return {"cellView": "form", "jupyter": {"source_hidden": True}}


def fold(notebook: dict[str, Any]) -> None:
    """Writes the folds that the tags ask for into every cell, and takes away all others."""
    for cell in notebook["cells"]:
        others = {k: v for k, v in cell["metadata"].items() if k not in ("cellView", "jupyter")}
        cell["metadata"] = dict(sorted({**others, **folds(cell)}.items()))
