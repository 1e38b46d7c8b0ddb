"""Explorables on pages that are Markdown: `<!-- explore: map -->` becomes one.

In a notebook a cell shows it. Markdown has no cells, and a comment is what every other renderer
leaves out.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

from memlib.teaching.explore import explore_html
from memlib.teaching.files import find
from sphinx.application import Sphinx

MARK = re.compile(r"<!-- explore: (\w+) -->")
GIVEN = ("facets", "short", "memories")


def memories() -> str:
    """The filter of the map, with the whole list as a table until it starts."""
    record = json.loads(find("results/published_memories.json").read_text(encoding="utf-8"))
    short = record["short"]
    rows = [_row("th", ["Year", "Memory", "What is stored", "How it is found", "Who writes"])]
    for memory in record["memories"]:
        words = [short[name][memory[name]] for name in short]
        rows.append(_row("td", [str(memory["year"] or ""), memory["name"], *words]))
    table = f'<div class="ml-scroll"><table>{"".join(rows)}</table></div>'
    return explore_html("map", table, **{name: record[name] for name in GIVEN})


def _row(tag: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


MADE = {"map": memories}


def put(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Puts each explorable in the place of its mark; an unknown name is an error."""
    if "body" in context:
        context["body"] = MARK.sub(lambda mark: MADE[mark[1]](), context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the hook."""
    app.connect("html-page-context", put)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
