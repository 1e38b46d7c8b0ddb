r"""Reads what Jupyter shows as it stands: raw anchors, numbered equations, links to both.

An anchor is `<a id="x"></a>`; a link to it is `[text](#x)` or `[text](page.md#x)`. A formula with
`\tag{n}` is an equation, and an anchor alone in the paragraph before it becomes its id. Links from
other pages to a reference or to a word of the glossary show on hovering what stands there.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

ANCHOR = re.compile(r'<a id="([\w-]+)">')
TAG = re.compile(r"\s*\\tag\{([^}]*)\}")


class Anchors(SphinxTransform):
    """Makes targets of raw anchors, and numbers the equations as their tags say."""

    default_priority = 400  # before links within the page are resolved

    def apply(self, **kwargs: object) -> None:
        """Changes the document in place."""
        known = self.env.metadata[self.env.docname].setdefault("myst_slugs", {})
        self.env.metadata[self.env.docname]["hover"] = hover = {}
        for raw in list(self.document.findall(nodes.raw)):
            found = ANCHOR.fullmatch(raw.astext())
            end = raw.next_node(descend=False, siblings=True) if found else None
            if found and end and end.astext() == "</a>":
                name, parent = found[1], raw.parent
                parent.remove(end)
                target = nodes.target("", "", ids=[name], names=[name])
                parent.replace(raw, target)
                self.document.note_explicit_target(target)
                known[name] = (parent.line, name, "")  # what links from other pages ask for
                hover[name] = _text(parent)
        for formula in list(self.document.findall(nodes.math_block)):
            if found := TAG.search(formula.astext()):
                _number(formula, found)


def _text(parent: nodes.Element) -> str:
    """What a link shows on hovering: a word's definition, else the paragraph of the anchor."""
    if isinstance(parent, nodes.term):
        parent = parent.next_node(nodes.definition, siblings=True, descend=False)[0]
    return " ".join(parent.astext().partition("→")[0].split())


def _number(formula: nodes.math_block, tag: re.Match[str]) -> None:
    """Takes the tag out of a formula, which gets its number and the anchor before it."""
    tex, parent = formula.astext().replace(tag[0], ""), formula.parent
    formula[:] = [nodes.Text(tex)]
    formula["number"], formula["nowrap"] = tag[1], False
    formula["ids"] = [f"equation-{tag[1]}"]
    before = parent[: parent.index(formula)][-1:]
    if before and isinstance(before[0], nodes.paragraph) and _anchors_alone(before[0]):
        formula["ids"] = [name for target in before[0] for name in target["ids"]]
        parent.remove(before[0])


def _anchors_alone(paragraph: nodes.paragraph) -> bool:
    return all(isinstance(node, nodes.target) for node in paragraph)


def show_on_hover(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Gives links to references and to words of the glossary their text as a title."""
    text = {
        f"{app.builder.get_relative_uri(page, other)}#{name}": shown
        for other, known in app.env.metadata.items()
        for name, shown in known.get("hover", {}).items()
    }
    for link in doctree.findall(nodes.reference):
        if shown := text.get(link.get("refuri", "")):
            link["reftitle"] = shown


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the transform and the hook."""
    app.add_transform(Anchors)
    app.connect("doctree-resolved", show_on_hover)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
