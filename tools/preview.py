"""One explorable on a page of its own, while it is made: `python tools/preview.py NAME`.

Runs the notebook up to the cell that shows the explorable, and writes `_build/html/book/NAME.html`
with nothing else on it: the page tests of the explorable find it there as on the built page. With
`--again` the data of the last run stay and scripts and style are renewed, which takes no time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = Path(os.environ.get("MEMLIB_PAGES", ROOT / "_build" / "html"))
PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">
<style>body{{margin:0 auto;max-width:46rem;padding:1rem;font:17px/1.7 system-ui,sans-serif;
color:var(--ml-ink);background:var(--ml-ground)}}{css}</style></head><body><script>
const look=matchMedia("(prefers-color-scheme: dark)");
const theme=()=>document.documentElement.dataset.theme=look.matches?"dark":"light";
look.onchange=theme;theme()</script>
<main class="bd-content"><article class="bd-article"><h1>{name}</h1>
<div class="cell_output"><div class="output text_html">{html}</div></div>
</article></main></body></html>
"""


def run(name: str) -> str:
    """Runs the notebook's code as far as it is needed; returns the explorable's HTML."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "book" / f"{name}.ipynb", as_version=4)
    wanted = [i for i, c in enumerate(notebook.cells) if "teaching.explore(" in c.source]
    notebook.cells = notebook.cells[: wanted[0] + 1]
    folder = {"metadata": {"path": str(ROOT / "book")}}
    NotebookClient(notebook, timeout=600, resources=folder).execute()
    outputs = notebook.cells[-1].outputs
    return next(str(o.data["text/html"]) for o in outputs if "text/html" in o.get("data", {}))


def renew(name: str, page: str) -> str:
    """The explorable of a page, with the scripts and the style of today."""
    from memlib.teaching.explore import explore_html

    data = re.search(r'class="ml-data">(.*?)</script>', page, re.S)
    first = re.search(r'<div class="ml-first">(.*?)</div><div class="ml-lab"', page, re.S)
    assert data is not None, "no explorable on the page: run without --again"
    assert first is not None
    return explore_html(name, first[1], **json.loads(data[1]))


def main() -> None:
    """Writes the page and says where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--again", action="store_true", help="keep the data of the last run")
    given = parser.parse_args()
    path = PAGES / "book" / f"{given.name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    html = renew(given.name, path.read_text("utf-8")) if given.again else run(given.name)
    css = (ROOT / "book" / "_static" / "book.css").read_text(encoding="utf-8")
    path.write_text(PAGE.format(name=given.name, css=css, html=html), encoding="utf-8")
    print("wrote", path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()
