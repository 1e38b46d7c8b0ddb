"""What the stack leaves open: nothing from outside hosts, and pages a screen reader can use."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset

MATHJAX = {  # all of it that is loaded: where it lies in the package -> where it goes
    "tex-chtml.js": "",
    "input/tex/extensions": "input/tex/extensions",
    "output/chtml/fonts": "output/chtml/fonts",
}
BODY = {  # what the extensions write -> what HTML and ARIA ask for
    r' id="(exercise|solution)-content"': "",  # one id for all of them
    '<summary aria-label="Toggle hidden content">': "<summary>",  # else its words are not read out
    r'(<p class="ml-more">Read more: <a href="[^"#]+)\.ipynb': r"\1.html",  # for Jupyter a notebook
}
# What a fold of a code cell is called; those that are hidden whole are the solutions.
LABELS = {"all": "Solution", "input": "Code", "output": "Output", "input+output": "Code"}
CALLS = ["memlib", "what differs"]  # what stands above a table of calls, after another's name
# A long signature is written as a list of definitions without terms, one line a parameter.
SIGNATURE = r'<dl>\n((?:<dd><em class="sig-param">.*</dd>\n)+)</dl>'
# The theme knows its colors before the page is drawn first, not once all of its scripts are there.
THEME = """
{
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const { mode } = root.dataset;
  root.dataset.theme = ["light", "dark"].includes(mode) ? mode : dark ? "dark" : "light";
}
"""
# Bootstrap searches the whole page for each of its listeners at every click; the same is asked of
# what was clicked and what is around it.
SEARCH = r"(function \w+\((\w+)\)\{const \w+=)\w+\.querySelectorAll\((\w+)\)(?=;for\(let\{target:)"
ASK = r"\1[\2.target.closest?.(\3)]"
# What scrolls by itself has to be reached by keyboard; on narrow screens that is almost anything.
# A fold that opens is looked through, not the page: that would take longer than all else it does.
REACH = """
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  const parts = "mjx-container[display], pre, .ml-figure, .cell_output, .math, table, dt, "
    + ".cell_output > *, .pst-scrollable-table-container, .bd-sidebar-secondary";
  const reach = within => within.querySelectorAll(parts).forEach(part => {
    const style = getComputedStyle(part);
    const free = /auto|scroll/.test(style.overflowX + style.overflowY);
    const over = part.scrollWidth > part.clientWidth || part.scrollHeight > part.clientHeight;
    if (free && over) part.tabIndex = 0;
  });
  reach(document);
  addEventListener("resize", () => reach(document));
  addEventListener("toggle", event => reach(event.target), true);
});
"""
# The search shows lines of the pages that it finds, which a browser may not read from a disk.
SEARCHED = """
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
"""


def mend_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Drops the scripts of Thebe (a constant naming an outside host, twice) and mends markup."""
    if "script_files" in context:
        context["script_files"] = [s for s in context["script_files"] if not _is_thebe(s)]
    for written, right in BODY.items():
        context["body"] = re.sub(written, right, context.get("body") or "")
    context["body"] = re.sub(SIGNATURE, _signature, context["body"])


def _signature(found: re.Match[str]) -> str:
    lines = found[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
    return f'<span class="sig-lines">{lines}</span>'


def _is_thebe(script: Any) -> bool:
    body = getattr(script, "attributes", {}).get("body", "")
    return "thebe" in f"{getattr(script, 'filename', script)} {body}".lower()


def label_folds(app: Sphinx, doctree: Any) -> None:
    """Names every fold by what is in it, whether it is open or shut, as `<details>` does."""
    for cell in doctree.findall(lambda node: "hide_mode" in getattr(node, "attributes", ())):
        cell["prompt_show"] = cell["prompt_hide"] = LABELS[cell["hide_mode"]]


def frame_calls(app: Sphinx, doctree: Any) -> None:
    """Frames each table of calls, theirs and ours: where its columns do not fit, rows are cards."""
    for table in list(doctree.findall(nodes.table)):
        head = [entry.astext() for entry in next(table.findall(nodes.thead)).findall(nodes.entry)]
        if head[1:] == CALLS:
            frame = nodes.container(is_div=True, classes=["ml-cards", "ml-calls"])
            table.replace_self(frame)
            frame += table


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copies MathJax from its installed package (whose name has hyphens) into the built book."""
    spec = find_spec("sphinx-mathjax-offline")
    if error or app.builder.format != "html" or spec is None or spec.origin is None:
        return
    package = Path(spec.origin).parent / "static/mathjax"
    for source, target in MATHJAX.items():
        copy_asset(package / source, Path(app.outdir, "_static/mathjax", target))


def quicken_clicks(app: Sphinx, error: Exception | None) -> None:
    """Mends what Bootstrap does at a click, in the built book."""
    script = Path(app.outdir, "_static/scripts/bootstrap.js")
    if not error and script.exists():
        text = script.read_text(encoding="utf-8")
        script.write_text(re.sub(SEARCH, ASK, text), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the hooks."""
    for script in (THEME, REACH, SEARCHED):
        app.add_js_file(None, body=" ".join(script.split()))
    app.connect("doctree-read", label_folds)
    app.connect("doctree-read", frame_calls)
    app.connect("html-page-context", mend_page, priority=900)  # after the extensions' own hooks
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", quicken_clicks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
