"""The README's picture: what stands first in the introduction, on a light card.

`python tools/picture.py` draws it anew from the built page; a page test compares.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "_build" / "html" / "book" / "intro.html"
PICTURE = ROOT / "book" / "_static" / "cycle.svg"
INK, GROUND = "#24292f", "#ffffff"


def source(page: Path = PAGE) -> str:
    """The frame as an SVG file of its own, with the page's variables at their defaults."""
    figure = re.search(r'id="explore-intro-first">.*?</figure>', page.read_text(), re.DOTALL)
    assert figure is not None, "the introduction has no picture"
    frame = re.search(r'<svg[^>]*?viewBox="([^"]+)"[^>]*><title>.*?</title>(.*?)</svg>', figure[0])
    assert frame is not None
    _, _, width, height = map(float, frame[1].split())
    pad = 12
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * width:g}" font-family="sans-serif" '
        f'viewBox="{-pad} {-pad} {width + 2 * pad:g} {height + 2 * pad:g}">'
        f'<rect x="{-pad}" y="{-pad}" width="100%" height="100%" rx="8" fill="{GROUND}"/>'
        f"{frame[2]}</svg>\n"
    )
    while re.search(r"var\(", text):  # innermost first: a default may be a variable itself
        text = re.sub(r"var\(--ml-ground[^#]*(#\w+)\)+", r"\1", text)
        text = re.sub(r"var\(--[\w-]+,([^()]*)\)", r"\1", text)
    return text.replace("currentColor", INK)


if __name__ == "__main__":
    PICTURE.write_text(source())
    print("drew", PICTURE.relative_to(ROOT))
