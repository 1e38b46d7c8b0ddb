"""404.html, the page that a host shows where there is none: the search, and the contents.

It is served at the address that was asked for, however deep, so it brings all that it is made of,
and looks for the book in the folders above: its links are of the folder where it finds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from sphinx.application import Sphinx

# The address may be //another.host/...: with the origin before it, it is a folder of ours.
SCRIPT = """
{
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const color = () => { document.documentElement.dataset.theme = dark.matches ? "dark" : "light"; };
  dark.addEventListener("change", color);
  color();

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
  }
}
"""
STYLE = """
body { margin: 0 auto; max-width: 46rem; padding: 1rem; font: 17px/1.7 var(--pst-font-family-base);
  color: var(--ml-ink); background: var(--ml-ground); }
a { color: var(--ml-accent); }
a:hover { color: var(--ml-link-hover); }
h1, h2 { line-height: 1.2; }
h2 { font-size: 1.1rem; }
ul { padding-left: 1.2rem; }
input, button { font: inherit; padding: 0.3rem 0.7rem; color: inherit;
  background: var(--ml-surface); border: 1px solid var(--ml-muted);
  border-radius: var(--ml-radius); }
"""
PAGE = """\
<!DOCTYPE html>
<html lang="en" data-theme="light"><head><meta charset="utf-8">
<title>Page not found — {title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<link rel="icon" href="data:,">
<script>{script}</script>
<style>{style}</style></head>
<body><header><a href="{start}.html">{title}</a></header>
<main>
<h1>This page is not here</h1>
<p>Its address may have been written wrongly, or it has moved. Search the book for what it was
about, or go on from the contents.</p>
<noscript><p>The links below need JavaScript, to find the book from this address.</p></noscript>
<form action="search.html" role="search">
<input type="search" name="q" aria-label="Search the book"> <button>Search</button>
</form>
<nav aria-label="Contents">
{contents}
</nav>
</main></body></html>
"""


def write(app: Sphinx, error: Exception | None) -> None:
    """Writes the page at the root of the built book, where hosts look for it."""
    if error or app.builder.format != "html":
        return
    look = Path(__file__).parents[1] / "_static" / "book.css"
    text = PAGE.format(
        title=escape(app.config.html_title),
        script=SCRIPT,
        style=look.read_text(encoding="utf-8") + STYLE,
        start=app.env.external_site_map.root.docname,
        contents="\n".join(contents(app)),
    )
    Path(app.outdir, "404.html").write_text(text, encoding="utf-8")


def contents(app: Sphinx) -> Iterator[str]:
    """The parts of the book, with links to their pages."""
    for part in app.env.external_site_map.root.subtrees:
        links = "".join(_link(app, str(name)) for name in part.items)
        yield f"<h2>{escape(part.caption or 'Contents')}</h2>\n<ul>{links}</ul>"


def _link(app: Sphinx, name: str) -> str:
    return f'<li><a href="{name}.html">{escape(app.env.titles[name].astext())}</a></li>'


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the page."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
