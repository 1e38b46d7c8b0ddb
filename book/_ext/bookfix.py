"""What the stack leaves open: nothing from outside hosts, and a page that a screen reader can use."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset

MATHJAX = ("tex-chtml.js", "input/tex/extensions", "output/chtml/fonts")  # all that is loaded
BODY = (  # (what docutils and the theme write, what axe and the ARIA specification ask for)
    (r'role="doc-biblioentry"', 'role="listitem"'),
    (r'(<div class="citation-list")>', r'\1 role="list">'),
)


def mend_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Drops the scripts of Thebe (a constant naming an outside host, twice) and mends roles."""
    if "script_files" in context:
        context["script_files"] = [s for s in context["script_files"] if not _is_thebe(s)]
    if "body" in context:
        for pattern, good in BODY:
            context["body"] = re.sub(pattern, good, context["body"])


def _is_thebe(script: Any) -> bool:
    attributes = getattr(script, "attributes", {})
    return "thebe" in f"{getattr(script, 'filename', script)} {attributes.get('body', '')}".lower()


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copies MathJax from its installed package (whose name has hyphens) into the built book."""
    spec = find_spec("sphinx-mathjax-offline")
    if error or app.builder.format != "html" or spec is None or spec.origin is None:
        return
    source, target = Path(spec.origin).parent / "static/mathjax", Path(app.outdir, "_static/mathjax")
    for part in MATHJAX:
        copy_asset(source / part, (target / part).parent if (source / part).is_file() else target / part)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", mend_page, priority=900)  # after the extensions' own hooks
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
