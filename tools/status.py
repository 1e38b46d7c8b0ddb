"""Writes what the built pages cost and weigh into results/status.json: `make status`.

The page *Status* shows it. It is a record of one build on one machine, and written by nothing else,
so two builds of one checkout are the same: no notebook and no record depends on it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import paths
import reading

from experiments import files, records

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "results" / "status.json"
LOOKED_UP = re.compile(r"^\.\. auto|^- <a id=|^<!-- proof: (claims|leads|pages) -->", re.M)
STACK = ("jupyter-book", "sphinx", "sphinx-book-theme", "matplotlib")


def page(path: Path, costs: dict[str, Any]) -> dict[str, Any]:
    """What one page is: its bytes and reading time, and the CPU seconds of a notebook."""
    content, name = path.read_bytes(), path.stem
    squeezed = len(gzip.compress(content, mtime=0))
    found: dict[str, Any] = {"bytes": len(content), "gzip": squeezed}
    if name in costs:
        found["cpu"] = round(costs[name]["cpu"], 1)
        found["megabytes"] = round(costs[name]["megabytes"])
        found["minutes"] = paths.minutes(f"[it]({name}.ipynb)")
    elif is_read(reading.BOOK / f"{name}.md"):
        found["minutes"] = paths.minutes(f"[it]({name}.md)")
    return found


def is_read(source: Path) -> bool:
    """Whether a Markdown page is there, and is no page of tables and entries to look things up."""
    return source.exists() and not LOOKED_UP.search(source.read_text(encoding="utf-8"))


def measure(work: Path, out: Path) -> dict[str, Any]:
    """The record of a build: scratch files in `work`, pages in `out`."""
    pages = sorted((out / "book").glob("*.html"))
    executed = work / "executed.json"
    if not pages or not executed.exists():
        raise FileNotFoundError(f"{out} must hold the built book; run `make book` first")
    costs = json.loads(executed.read_text(encoding="utf-8"))
    notebooks = {path.stem for path in reading.BOOK.glob("*.ipynb")} & {p.stem for p in pages}
    if missing := notebooks - costs.keys():
        raise ValueError(f"{executed} must hold every notebook; it has no {sorted(missing)}")
    here = records.here()
    here["versions"] |= {name: version(name) for name in STACK}
    return here | {"pages": {path.stem: page(path, costs) for path in pages}}


def main() -> None:
    """Parses the command line, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=ROOT / ".build")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "html")
    options = parser.parse_args()
    found = measure(options.work, options.out)
    files.write(RECORD, (json.dumps(found, indent=1) + "\n").encode())
    print(f"{len(found['pages'])} pages measured, recorded in {RECORD.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
