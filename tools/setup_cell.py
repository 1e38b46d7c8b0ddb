"""The set-up cell: the first code cell of every notebook, the same everywhere, on no page.

`python tools/setup_cell.py` writes it into all notebooks; the tests compare against `source()`.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import folds

ROOT = Path(__file__).resolve().parents[1]
# While the book has no address nothing may ask a package index for the name memlib: nobody has
# published it, and anybody may.
CELL = """\
# Set-up, to run first: memlib and what the chapters import
import importlib.util
import os
import subprocess
import sys

repository = "{repository}"  # where the book is published
if importlib.util.find_spec("memlib") is None:
    library = f"memlib[notebooks] @ git+{{repository}}"
    how = f"run `pip install '{{library}}'`"
    if not repository:
        how = "run `make lab` or `pip install '.[notebooks]'` in the "
        how += "book's folder, or `pip install './memlib-{version}-"
        how += "py3-none-any.whl[notebooks]'` beside its wheel"
    clouds = {{"COLAB_RELEASE_TAG", "BINDER_LAUNCH_HOST"}}
    if not repository or not clouds & set(os.environ):
        wrong = "memlib is not installed where this notebook runs"
        raise ImportError(f"{{wrong}}: {{how}}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", library]
    subprocess.run(pip, check=True)
    importlib.invalidate_caches()
from memlib import teaching

teaching.ready()"""


def project(root: Path = ROOT) -> dict[str, Any]:
    """What pyproject.toml says of the project."""
    return dict(tomllib.loads((root / "pyproject.toml").read_text())["project"])


def repository(root: Path = ROOT) -> str:
    """The repository's address: `project.urls.Repository` in pyproject.toml, or empty."""
    return str(project(root).get("urls", {}).get("Repository", ""))


def source(root: Path = ROOT) -> str:
    """The exact text of the set-up cell."""
    return CELL.format(repository=repository(root), version=project(root)["version"])


def cell(root: Path = ROOT) -> dict[str, Any]:
    """The set-up cell as a notebook stores it."""
    made = {
        "cell_type": "code",
        "execution_count": None,
        "id": "setup",
        "metadata": {"tags": ["remove-cell"]},
        "outputs": [],
        "source": source(root).splitlines(keepends=True),
    }
    folds.fold({"cells": [made]})
    return made


def stored(book: Path = ROOT / "book") -> list[Path]:
    """The notebooks of the book, in its folder and in those below it."""
    found = sorted(book.rglob("*.ipynb"))
    return [path for path in found if ".ipynb_checkpoints" not in path.parts]


def write(root: Path = ROOT) -> list[Path]:
    """Puts the cell into every notebook, before the first code cell if it is missing, and folds."""
    changed = []
    for path in stored(root / "book"):
        old = path.read_text()
        notebook = json.loads(old)
        cells = notebook["cells"]
        here = next((i for i, c in enumerate(cells) if c.get("id") == "setup"), None)
        first = next((i for i, c in enumerate(cells) if c["cell_type"] == "code"), len(cells))
        cells[slice(first, first) if here is None else slice(here, here + 1)] = [cell(root)]
        folds.fold(notebook)
        new = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        if new != old:
            path.write_text(new)
            changed.append(path)
    return changed


if __name__ == "__main__":
    for path in write():
        print("wrote the set-up cell of", path.relative_to(ROOT))
