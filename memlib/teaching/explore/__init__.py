"""Explorables: machines and mechanisms that the reader can touch, in the page, offline.

`explore` puts one on a page: a picture made by the notebook, which print and a page without
JavaScript show too, and the modules of `js/` that compute everything else from the reader's input.
How one is made: GUIDE.md.
"""

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memlib.teaching.explore.join import JS, constant, join, styles
from memlib.teaching.explore.weights import byte_rows, half, pack
from memlib.teaching.figures import check_label, display_html, figure_html
from memlib.teaching.style import FIGURE_CSS, THEME_CSS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["byte_rows", "explore", "explore_html", "half", "pack"]


def explore(name: str, fig: "Figure", alt: str, **data: Any) -> None:
    """Show an explorable and close the figure, which is what stands there until it starts.

    Args:
        name: A module of `js/pages`, such as `ntm`; one a page.
        fig: The first picture, in the book's style.
        alt: Its finding, as a sentence.
        **data: What the page computes with: tensors, arrays, numbers, texts, lists of them, what
            `pack`, `half` or `byte_rows` made, or the path of a checkpoint (`.safetensors`), which
            is packed in half precision.

    Raises:
        FileNotFoundError: There is no such explorable, or no such checkpoint.
        TypeError: Something that the page cannot be given.
        ValueError: No real alt text, or a weight that half precision cannot hold.
    """
    import matplotlib.pyplot as plt

    check_label(alt, name_of(name))
    display_html(explore_html(name, figure_html(fig, alt, f"{name_of(name)}-first"), **data), alt)
    plt.close(fig)


def explore_html(name: str, first: str, **data: Any) -> str:
    """Return an explorable as HTML that stands alone; `first` is what is shown until it starts."""
    module, root = f"pages/{name}.js", name_of(name)
    script = join("kit/frame.js", module)
    run = f"{constant('kit/frame.js')}.mount({here(root)}, {constant(module)}.page);"
    kit = (JS.parent / "explore.css").read_text(encoding="utf-8")
    css = THEME_CSS + FIGURE_CSS + kit + styles(module)
    given = json.dumps(data, default=_given, separators=(",", ":")).replace("</", "<\\/")
    return (
        f"<style>{css}</style>"
        f'<div class="ml-explore" id="{root}" role="group" aria-label="Try it: {_title(name)}">'
        f'<p class="ml-title">Try it: {_title(name)}</p>'
        f'<div class="ml-first">{first}</div><div class="ml-lab" hidden></div>'
        f'<script type="application/json" class="ml-data">{given}</script>'
        f"<script>(() => {{\n{script}{run}\n}})();</script></div>"
    )


def here(root: str) -> str:
    """Return the script's look for its own element (JupyterLab runs it outside of the page)."""
    return f'document.currentScript?.parentElement || document.getElementById("{root}")'


def name_of(name: str) -> str:
    """Return the id of an explorable's element."""
    return "explore-" + name.replace("_", "-")


def _title(name: str) -> str:
    """Return what an explorable is called: the first line of its module's comment."""
    lines = (JS / "pages" / f"{name}.js").read_text(encoding="utf-8").splitlines()
    return escape(lines[1].removeprefix(" * ").rstrip("."))


def _given(value: Any) -> Any:
    """Return what JSON cannot hold in a form that it can."""
    if isinstance(value, Path):
        return pack(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"data must be tensors, arrays, numbers, texts or a path; got {type(value)}")
