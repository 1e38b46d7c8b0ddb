"""Turn a matplotlib figure into small, deterministic SVG that takes its colors from the page."""

import hashlib
import io
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from memlib.teaching.style import CSS_COLORS, settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAT = "ml-heat"  # the gid of heat map cells, which are drawn without antialiasing
_DROP = {"metadata", "style", "title"}
_REFERENCE = re.compile(r"(?<=url\(#)[^)]+|(?<=^#).+")
_NUMBER = re.compile(r"-?\d+\.\d+")
_TOKEN = re.compile(r"[A-Za-z]|-?[\d.]+(?:e-?\d+)?")


@dataclass
class Drawing:
    """A figure as SVG elements.

    Attributes:
        width: Natural width in points.
        height: Natural height in points.
        body: The elements to draw, in order.
        shared: Definitions by id (clip paths, markers, hatches), to be put in one `<defs>`.
    """

    width: float
    height: float
    body: list[ET.Element]
    shared: dict[str, ET.Element] = field(default_factory=dict)


def draw(fig: "Figure", name: str) -> Drawing:
    """Return the figure as SVG elements whose ids all begin with `name`."""
    import matplotlib as mpl

    keep = ("svg.fonttype", "svg.hashsalt", "hatch.color")
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({key: settings()[key] for key in keep}), io.BytesIO() as file:
        fig.savefig(file, format="svg", metadata=metadata, facecolor="none")
        root = ET.fromstring(file.getvalue())
    _, _, width, height = (float(number) for number in root.attrib["viewBox"].split())
    _bare(root)
    ids = {old: f"{name}-{_short(old)}" for old in sorted(_referenced(root))}
    shared: dict[str, ET.Element] = {}
    body = [leaf for child in root for leaf in _tidy(child, ids, shared)]
    return Drawing(width, height, body, shared)


def text(elements: list[ET.Element]) -> str:
    """Return elements as markup."""
    return "".join(ET.tostring(element, encoding="unicode") for element in elements)


def _short(old: str) -> str:
    # matplotlib's ids are hashes of what they name, so equal things share an id in every frame
    return hashlib.sha256(old.encode()).hexdigest()[:6]


def _bare(root: ET.Element) -> None:
    """Drop namespaces: inline SVG has none."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: v for key, v in element.attrib.items()}


def _referenced(root: ET.Element) -> set[str]:
    pairs = (pair for element in root.iter() for pair in element.attrib.items())
    return {name for key, value in pairs if _refers(key) for name in _REFERENCE.findall(value)}


def _refers(key: str) -> bool:
    return key in ("href", "style", "clip-path", "mask", "filter")


def _tidy(
    element: ET.Element, ids: dict[str, str], shared: dict[str, ET.Element], heat: bool = False
) -> list[ET.Element]:
    """Return what an element becomes: itself, its children, or nothing (moved to `shared`)."""
    if element.tag in _DROP:
        return []
    heat = heat or element.get("id", "").startswith(HEAT)
    children = [leaf for child in element for leaf in _tidy(child, ids, shared, heat)]
    for child in list(element):
        element.remove(child)
    element.extend(children)
    _shorten(element, ids, 0.1 if heat else 0.01)
    if heat and element.tag == "path":
        element.set("shape-rendering", "crispEdges")
    if element.get("id"):
        shared[element.attrib["id"]] = element
        return []
    invisible = element.get("style") == "fill:none"
    if element.tag == "defs" or (element.tag == "g" and not children) or invisible:
        return []  # what is defined and used has gone to `shared`
    return children if element.tag == "g" and not element.attrib else [element]


def _shorten(element: ET.Element, ids: dict[str, str], unit: float) -> None:
    """Shorten numbers, styles and paths; rename what is referred to, forget all other ids."""
    if not (element.text or "").strip() and element.tag not in ("text", "tspan"):
        element.text = None
    element.tail = None
    old = element.attrib.pop("id", None)
    if old in ids:
        element.set("id", ids[old])
    for key, value in list(element.attrib.items()):
        if key == "d":
            value = _path(value, unit)
        elif key == "style":
            value = _style(value)
        elif key == "transform":
            value = "" if value.startswith("rotate(-0 ") else _round(value)
        elif key in ("x", "y", "width", "height"):
            value = _round(value)
        if _refers(key):
            value = _REFERENCE.sub(lambda match: ids.get(match[0], match[0]), value)
        value = CSS_COLORS.get(value, value)
        if value:
            element.set(key, value)
        else:
            del element.attrib[key]


def _style(value: str) -> str:
    """Shorten a style; colors become the page's, the font is left to the page."""
    parts = [part.strip().split(": ", 1) for part in value.split(";") if part.strip()]
    kept = [f"{key}:{CSS_COLORS.get(v, v)}" for key, v in parts if key != "font-family"]
    return ";".join(kept)


def _round(value: str) -> str:
    if "scale" in value or "matrix" in value:
        return value
    return _NUMBER.sub(lambda match: _number(float(match[0])), value)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".").replace("-0.", "-.").lstrip("0") or "0"


def _path(data: str, unit: float) -> str:
    """Rewrite matplotlib's absolute path in relative steps of a hundredth (or tenth) of a point."""
    out: list[str] = []
    x = y = start_x = start_y = 0  # in whole units, so that rounding does not add up
    tokens = iter(_TOKEN.findall(data))
    for command in tokens:
        if command == "z":
            out.append("z")
            x, y = start_x, start_y
            continue
        points = {"M": 1, "L": 1, "Q": 2, "C": 3}[command]
        numbers = [round(float(next(tokens)) / unit) for _ in range(2 * points)]
        steps = [number - (y if i % 2 else x) for i, number in enumerate(numbers)]
        x, y = numbers[-2:]
        if command == "M":
            start_x, start_y = x, y
        if command == "L" and steps[1] == 0:
            out.append(_join("h", steps[:1], unit))
        elif command == "L" and steps[0] == 0:
            out.append(_join("v", steps[1:], unit))
        else:
            out.append(_join(command.lower(), steps, unit))
    return "".join(out)


def _join(command: str, steps: list[int], unit: float) -> str:
    return command + " ".join(_number(step * unit) for step in steps).replace(" -", "-")
