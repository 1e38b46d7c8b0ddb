"""Brings the notebooks to the form in which they are stored: `make tidy`.

Outputs, counts and whatever else Jupyter writes beside the text go; folds are as the tags ask; new
cells get ids made of words; the equations of each notebook are numbered in order, and what refers
to them follows; the time that a chapter or a path takes is computed; references.md is made from
references.bib. Twice is once.
"""

from __future__ import annotations

import itertools
import json
import posixpath
import re
import unicodedata
from pathlib import Path
from typing import Any

import folds
import paths
import reading
import references

ROOT = Path(__file__).resolve().parents[1]
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KEPT = ("mystnb", "tags")  # of a cell's metadata; folds.py writes the rest from the tags
ID = re.compile(r"(?![0-9a-f]{8}(-[0-9a-f-]+)?$)[a-z][a-z0-9]*(-[a-z0-9]+)*")  # words, not chance
DISPLAY = re.compile(r'(?:<a id="(?P<name>[\w-]+)"></a>\s+)?\$\$(?P<tex>.+?)\$\$', re.S)
TAG = re.compile(r"\s*\\tag\{[^}]*\}")
TIME = re.compile(r"(?<=^\*\*Time:\*\* )about [^.,]+", re.M)
REFERENCE = re.compile(r"\[\(\d*\)\]\((?P<file>[\w./-]*)#(?P<name>[\w-]+)\)")
Notebook = dict[str, Any]
Numbers = dict[tuple[str, str], int]  # (file, anchor) -> number of the equation


def dump(notebook: Notebook) -> str:
    """The exact text of a notebook on disk, which is also the one that Jupyter writes."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def clean(notebook: Notebook) -> Notebook:
    """The notebook without what a run leaves, its ids made of words; empty cells go."""
    cells = [cell for cell in notebook["cells"] if "".join(cell["source"]).strip()]
    cells = [_cell(cell, name) for cell, name in zip(cells, _ids(cells), strict=True)]
    folds.fold({"cells": cells})
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def _cell(cell: dict[str, Any], name: str) -> dict[str, Any]:
    kept = cell["metadata"]
    stored = {
        "cell_type": cell["cell_type"],
        "id": name,
        "metadata": {key: kept[key] for key in KEPT if kept.get(key)},
        "source": "".join(cell["source"]).splitlines(keepends=True),
    }
    if cell["cell_type"] == "code":
        stored |= {"execution_count": None, "outputs": []}
    return stored | ({"attachments": held} if (held := cell.get("attachments")) else {})


def _ids(cells: list[dict[str, Any]]) -> list[str]:
    """Each cell's id if it is made of words and the first of its kind, else a new one."""
    given = [cell.get("id", "") for cell in cells]
    ids = [
        name if ID.fullmatch(name) and name not in given[:i] else "" for i, name in enumerate(given)
    ]
    for i, cell in enumerate(cells):
        ids[i] = ids[i] or _words("".join(cell["source"]), set(ids))
    return ids


def _words(source: str, taken: set[str]) -> str:
    """An id from the heading or the first words of a cell."""
    text = unicodedata.normalize("NFKD", source.strip().splitlines()[0].lower())
    words = re.findall(r"[a-z0-9]+", text.encode("ascii", "ignore").decode())[:5]
    name = "-".join(words)[:40].rstrip("-")
    name = name if ID.fullmatch(name) else f"cell-{name}".rstrip("-")
    numbered = (f"{name}-{count}" for count in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in taken)


def number(notebook: Notebook, file: str) -> Numbers:
    """Numbers in place what is displayed with an anchor or a tag; returns the numbers."""
    numbers: Numbers = {}
    count = 0

    def tagged(found: re.Match[str]) -> str:
        nonlocal count
        name, tex = found["name"], found["tex"]
        if not name and not TAG.search(tex):
            return found[0]
        count += 1
        if name:
            numbers[file, name] = count
        formula, tag = TAG.sub("", tex).rstrip(), rf"\tag{{{count}}}"
        formula = f"{formula}\n{tag}\n" if "\n" in tex else f"{formula} {tag}"
        return f"{found[0].removesuffix(f'{tex}$$')}{formula}$$"

    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = DISPLAY.sub(tagged, "".join(cell["source"])).splitlines(keepends=True)
    return numbers


def refer(text: str, file: str, numbers: Numbers) -> str:
    """The text with the number of each equation that it links to."""

    def numbered(found: re.Match[str]) -> str:
        there = posixpath.join(posixpath.dirname(file), found["file"]) if found["file"] else file
        now = numbers.get((posixpath.normpath(there), found["name"]))
        return f"[({now})]({found['file']}#{found['name']})" if now else found[0]

    return REFERENCE.sub(numbered, text)


def book(folder: Path) -> dict[Path, str]:
    """The stored form of all that `make tidy` writes in a folder, by path."""
    notebooks = {path: clean(json.loads(path.read_text("utf-8"))) for path in _all(folder, "ipynb")}
    numbers: Numbers = {}
    for path, notebook in notebooks.items():
        numbers |= number(notebook, path.relative_to(folder).as_posix())
    for path, notebook in notebooks.items():
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                name = path.relative_to(folder).as_posix()
                text = refer("".join(cell["source"]), name, numbers)
                text = TIME.sub(f"about {reading.time(notebook['cells'])} minutes", text)
                cell["source"] = text.splitlines(keepends=True)
    pages = {
        path: refer(path.read_text("utf-8"), path.relative_to(folder).as_posix(), numbers)
        for path in _all(folder, "md")
    }
    if (path := folder / paths.FILE) in pages:
        pages[path] = paths.page(pages[path])
    pages[folder / "references.md"] = references.page(folder / "references.bib")
    return pages | {path: dump(notebook) for path, notebook in notebooks.items()}


def _all(folder: Path, suffix: str) -> list[Path]:
    found = sorted(folder.rglob(f"*.{suffix}"))
    return [path for path in found if ".ipynb_checkpoints" not in path.parts]


def write(folder: Path) -> list[Path]:
    """Writes what differs from its stored form; returns what was written."""
    stored = book(folder)
    changed = [p for p, text in stored.items() if not p.exists() or p.read_bytes() != text.encode()]
    for path in changed:
        path.write_bytes(stored[path].encode())
    return changed


if __name__ == "__main__":
    for path in write(ROOT / "book"):
        print("tidied", path.relative_to(ROOT))
