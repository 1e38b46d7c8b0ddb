"""404.html, the page that a host shows where there is none: the search, and the contents.

It is served at the address that was asked for, however deep; so it looks for the book in the
folders above, and all of its links are of the folder where it finds it. From a disk it is a page.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from sphinx.application import Sphinx

# Before anything of the page is asked for. The address may be //another.host/..: it is one of ours
# with the origin before it. What links to a place on this page must not lead into that folder.
BASE = """
{
  const isThere = folder => {
    const asked = new XMLHttpRequest();
    asked.open("HEAD", `${folder}searchindex.js`, false);
    try { asked.send(); } catch { return false; }
    return asked.status === 200;
  };
  const names = location.pathname.split("/").slice(0, -1);
  const folders = names.map((_, n) => `${location.origin}${names.slice(0, n + 1).join("/")}/`);
  const found = location.protocol.startsWith("http") && folders.reverse().find(isThere);
  if (found) {
    const base = document.createElement("base");
    base.href = found;
    document.head.prepend(base);
    addEventListener("DOMContentLoaded", () => {
      const [here] = location.href.split("#");
      for (const link of document.querySelectorAll('a[href^="#"]'))
        link.href = here + link.getAttribute("href");
    });
  }
}
"""
BODY = """
<section id="not-found">
<h1>This page is not here</h1>
<p>Its address may have been written wrongly, or it has moved. Search the book for what it was
about, or go on from the contents.</p>
<form class="bd-search d-flex align-items-center" action="search.html" method="get">
<i class="fa-solid fa-magnifying-glass"></i>
<input type="search" class="form-control" name="q" placeholder="Search" aria-label="Search">
</form>
{contents}
</section>
"""


def page(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The page, for Sphinx to dress as it dresses all others."""
    script = f"<script>{' '.join(BASE.split())}</script>"
    body = BODY.format(contents="\n".join(contents(app)))
    yield "404", {"title": "Page not found", "metatags": script, "body": body}, "page.html"


def contents(app: Sphinx) -> Iterator[str]:
    """The parts of the book with links to their pages."""
    root = app.env.external_site_map.root
    yield f"<ul>{_link(app, root.docname)}</ul>"
    for part in root.subtrees:
        links = "".join(_link(app, str(name)) for name in part.items)
        yield f"<h2>{escape(part.caption or 'Contents')}</h2>\n<ul>{links}</ul>"


def _link(app: Sphinx, name: str) -> str:
    return f'<li><a href="{name}.html">{escape(app.env.titles[name].astext())}</a></li>'


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the page."""
    app.connect("html-collect-pages", page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
