"""The list of references, made from references.bib, and the text by which a chapter cites an entry.

`make tidy` writes book/references.md; Jupyter shows it as it stands, and the book makes it a page.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

from pybtex.backends import markdown
from pybtex.database import BibliographyData, Entry, parse_file
from pybtex.style.formatting.unsrt import Style

HEAD = """\
# References

Every source that the book cites, in the order of the authors' names. Each entry ends with a link
to the paper by its DOI or its arXiv number.

<!-- Made from references.bib by `make tidy`. -->

"""


class Markdown(markdown.Backend):
    """Markdown with no more escapes and entities than the text needs."""

    symbols = {"ndash": "–", "newblock": " ", "nbsp": "\N{NO-BREAK SPACE}"}  # noqa: RUF012

    def format_str(self, text: str) -> str:
        """The text, with a backslash before what Markdown would take for markup."""
        return "".join(f"\\{sign}" if sign in r"\`*_[]<$" else sign for sign in text)

    def format_href(self, url: str, text: str, external: bool = False) -> str:
        """A link."""
        return f"[{text}]({url})"


@cache
def entries(path: Path) -> BibliographyData:
    """All entries of a file, by their keys."""
    return parse_file(str(path), encoding="utf-8")


def label(entry: Entry) -> tuple[str, str]:
    """Authors and year as a text cites them: one name, two, or the first and "et al."."""
    names = _names(entry)
    authors = f"{names[0]} *et al.*" if len(names) > 2 else " and ".join(names)
    return authors, entry.fields["year"]


def _names(entry: Entry) -> list[str]:
    people = entry.persons["author"]
    return [" ".join(map(str, p.rich_prelast_names + p.rich_last_names)) for p in people]


def _order(entry: Entry) -> tuple[list[str], str]:
    """By the authors' names, accents and case apart, then by year."""
    names = [unicodedata.normalize("NFKD", name) for name in _names(entry)]
    return [name.encode("ascii", "ignore").decode().lower() for name in names], entry.fields["year"]


def page(path: Path) -> str:
    """The text of references.md: an item for each entry, which begins with the entry's anchor."""
    data, backend = entries(path), Markdown()
    keys = sorted(data.entries, key=lambda key: _order(data.entries[key]))
    items = Style().format_bibliography(data, keys)
    return HEAD + "".join(
        f'- <a id="{item.key}"></a>{item.text.render(backend)}\n' for item in items
    )
