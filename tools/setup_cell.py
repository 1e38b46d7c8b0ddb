"""The set-up cell: the first code cell of every notebook, the same everywhere, folded in the book.

`python tools/setup_cell.py` writes it into all notebooks; the tests compare against `source()`.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CELL = """\
try:
    import memlib
except ImportError:  # on Colab or Binder: fetch the book and its library
    import importlib
    import os
    import subprocess
    import sys

    repository = "{repository}"
    if not repository:
        raise ImportError("run `pip install '.[notebooks]'` in the book's folder") from None
    if not os.path.isdir("memory-attention"):
        subprocess.run(["git", "clone", "--depth=1", repository, "memory-attention"], check=True)
    library = "./memory-attention[notebooks]"
    subprocess.run([sys.executable, "-m", "pip", "install", library], check=True)
    os.chdir("memory-attention/book")
    importlib.invalidate_caches()
    import memlib
from memlib import teaching

teaching.style()"""


def repository(root: Path = ROOT) -> str:
    """The repository's address: `project.urls.Repository` in pyproject.toml, or empty."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return project.get("urls", {}).get("Repository", "")


def source(root: Path = ROOT) -> str:
    """The exact text of the set-up cell."""
    return CELL.format(repository=repository(root))


def cell(root: Path = ROOT) -> dict:
    """The set-up cell as a notebook stores it."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": "setup",
        "metadata": {"tags": ["hide-cell"]},
        "outputs": [],
        "source": source(root).splitlines(keepends=True),
    }


def write(root: Path = ROOT) -> list[Path]:
    """Puts the cell into every notebook (before the first code cell if it is missing)."""
    changed = []
    for path in sorted((root / "book").glob("*.ipynb")):
        old = path.read_text()
        notebook = json.loads(old)
        cells = notebook["cells"]
        here = next((i for i, c in enumerate(cells) if c.get("id") == "setup"), None)
        first = next((i for i, c in enumerate(cells) if c["cell_type"] == "code"), len(cells))
        cells[slice(first, first) if here is None else slice(here, here + 1)] = [cell(root)]
        new = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        if new != old:
            path.write_text(new)
            changed.append(path)
    return changed


if __name__ == "__main__":
    for path in write():
        print("wrote the set-up cell of", path.relative_to(ROOT))
