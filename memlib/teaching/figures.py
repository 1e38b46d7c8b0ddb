"""Figures in the book's style: heat maps, the picture of a memory, and how they are shown."""

import re
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from memlib.teaching import svg
from memlib.teaching.style import ACCENT, FIGURE_CSS, INK, SECOND, THEME_CSS, settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVELS = 32  # shades of a heat map
SHORTEST_ALT = 20
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_shown: dict[str, tuple[str, int]] = {}  # name -> the cell that shows it, and in which execution


def show(fig: "Figure", alt: str, name: str) -> None:
    """Show a figure as inline SVG that follows the page's colors and font, and close it.

    Args:
        fig: The figure; give it the sentinels `ACCENT, SECOND, INK, MUTED, GROUND` as colors.
        alt: The finding, as a sentence.
        name: A fixed name, unique in the book, such as `kv-digits`; it begins every id.

    Raises:
        ValueError: No real alt text, or a bad name, or one that another cell uses.
    """
    import matplotlib.pyplot as plt

    check_label(alt, name)
    display_html(figure_html(fig, alt, name), alt)
    plt.close(fig)


def figure(width: float = 6.4, height: float = 3.2, **subplots: Any) -> tuple["Figure", Any]:
    """Return a new figure in the book's style and its axes.

    Args:
        width: Width in inches; 6.4 fills a page's column.
        height: Height in inches.
        **subplots: Passed to `plt.subplots`: `ncols=2`, `sharey=True`, ...
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    with mpl.rc_context(settings()):
        return plt.subplots(figsize=(width, height), **subplots)


def heat(
    ax: "Axes",
    matrix: Any,
    *,
    signed: bool | None = None,
    vmax: float | None = None,
    rows: Sequence[object] | None = None,
    cols: Sequence[object] | None = None,
    title: str | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    values: bool = False,
    color: str = ACCENT,
    square: bool = False,
) -> None:
    """Draw a matrix as a heat map: nothing at 0, the full color at `vmax`.

    Args:
        ax: Where to draw.
        matrix: Array or tensor (rows, columns). NaN stays blank.
        signed: Draw negative values in the second color, framed. By default: if there are any.
        vmax: The magnitude of the full color; by default the largest. Fix it in animations.
        rows: One label a row; `[]` for none. By default numbers.
        cols: One label a column; `[]` for none. By default numbers.
        title: Title.
        xlabel: Label of the columns.
        ylabel: Label of the rows.
        values: Write the values in the cells, which then are paler.
        color: Color of positive values; `INK` for images.
        square: Square cells.

    Raises:
        ValueError: Not a matrix, an unsigned one with negative values, or labels that don't fit.
    """
    array = as_array(matrix)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"matrix must have shape (rows, columns); got {array.shape}")
    negative = bool((array < 0).any())
    if signed is False and negative:
        raise ValueError(f"matrix must not be negative where signed=False; got {array.min()}")
    finite = np.abs(array[np.isfinite(array)])
    top = vmax if vmax is not None else (finite.max() if finite.size else 1) or 1
    if top <= 0:
        raise ValueError(f"vmax must be positive; got {vmax}")
    level = np.rint(np.clip(np.nan_to_num(array / top), -1, 1) * LEVELS).astype(int)
    small = max(array.shape) <= 40
    gap = 0.04 if small else 0.0
    full = 0.45 if values else 1.0  # paler under text, which must stand out in light and dark
    if small:  # an empty slot is a faint stripe
        stripes = [
            (-0.5 + gap, array.shape[1] - 0.5 - gap, i - 0.46, i + 0.46) for i in range(len(array))
        ]
        _boxes(ax, stripes, INK, 0.06, gid=svg.HEAT)
    for shade in np.unique(level[level != 0]):
        _cells(ax, level == shade, color if shade > 0 else SECOND, full * abs(shade) / LEVELS, gap)
    if small and negative:
        _cells(ax, level < 0, SECOND, 1.0, 0.08, edge=0.8)
    if values:
        for (i, j), value in np.ndenumerate(array):
            number = f"{value:.2g}".replace("-", "−")
            ax.text(j, i, number, ha="center", va="center_baseline", color=INK, size=9)
    ax.set_xlim(-0.5, array.shape[1] - 0.5)
    ax.set_ylim(array.shape[0] - 0.5, -0.5)
    ax.set_aspect("equal" if square else "auto")
    ax.set(title=title or "", xlabel=xlabel or "", ylabel=ylabel or "")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(not small)
    _ticks(ax.xaxis, cols, array.shape[1], "cols")
    _ticks(ax.yaxis, rows, array.shape[0], "rows")


def draw_memory(
    memory: Any,
    *,
    read: Any = None,
    write: Any = None,
    title: str | None = None,
    labels: Sequence[object] | None = None,
    cols: Sequence[object] | None = None,
    vmax: float | None = None,
    signed: bool | None = None,
    values: bool = False,
    width: float = 5.6,
    height: float | None = None,
) -> "Figure":
    """Draw a memory, a slot a row, between its write weights (left) and read weights (right).

    Args:
        memory: Array or tensor (N, M).
        read: Read weights (N,), or None for no such column (zeros keep an empty one).
        write: Write weights (N,), or None.
        title: Title.
        labels: One label a slot; by default the slot's number.
        cols: One label a column of the memory; by default none.
        vmax: The magnitude of the full color. Fix it in animations.
        signed: As in `heat`.
        values: Write the values in the cells.
        width: Width in inches.
        height: Height in inches; by default it grows with the slots.

    Returns:
        The figure, to be given to `show` or returned to `animate`.

    Raises:
        ValueError: The memory is no matrix, or weights that don't fit it.
    """
    array = as_array(memory)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"memory must have shape (N, M); got {array.shape}")
    slots = array.shape[0]
    bars = {"write": write, "read": read}
    bars = {key: as_array(value) for key, value in bars.items() if value is not None}
    for key, weights in bars.items():
        if weights.shape != (slots,):
            raise ValueError(f"{key} must have shape (N,) = ({slots},); got {weights.shape}")
    names = [str(label) for label in (labels if labels is not None else [slots])]
    margin = 0.15 + 0.08 * max(map(len, names), default=0) + 0.22 * (labels is None)
    tall = height if height is not None else min(0.65 + 0.25 * slots, 4.6)
    fig, axes = _columns(width, tall, margin, "write" in bars, "read" in bars)
    heat(
        axes["memory"], array, vmax=vmax, signed=signed, values=values, rows=labels, cols=cols or []
    )
    axes["memory"].set_title(title if title is not None else "memory", loc="center")
    axes["memory"].set_ylabel("" if labels is not None else "slot")
    for key, weights in bars.items():
        _bars(axes[key], weights, key, SECOND if key == "write" else ACCENT)
    return fig


def _columns(
    width: float, height: float, margin: float, write: bool, read: bool
) -> tuple["Figure", dict[str, Any]]:
    """Return a figure with the axes of `draw_memory`, placed by inches so that frames stand still.

    `margin` is the room for the slots' labels, left of the memory.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    bar, side, top, bottom = 0.18 * width, 0.12, 0.3, 0.28
    left = margin + (side + bar if write else 0)
    right = side + (side + bar if read else 0)
    spans = {"memory": (left, width - left - right)}
    if write:
        spans["write"] = (side, bar)
    if read:
        spans["read"] = (width - side - bar, bar)
    with mpl.rc_context(settings() | {"figure.constrained_layout.use": False}):
        fig = plt.figure(figsize=(width, height))
        axes = {
            key: fig.add_axes(
                (x / width, bottom / height, span / width, 1 - (top + bottom) / height)
            )
            for key, (x, span) in spans.items()
        }
    return fig, axes


def _bars(ax: "Axes", weights: npt.NDArray[Any], label: str, color: str) -> None:
    """Draw weights (N,) as bars that grow away from the memory, open ones for writing."""
    hollow = label == "write"
    most = float(np.nanmax(np.abs(weights), initial=0))
    limit = 1.0 if most == 0 or most > 0.2 else most
    bars = [
        (0.0, float(w), i - 0.36, i + 0.36) for i, w in enumerate(weights) if abs(w) > limit / 500
    ]
    line = 1.0 if len(weights) <= 40 else 0.4
    _boxes(ax, bars, color, alpha=0.3 if hollow else 1.0)
    if hollow:
        _boxes(ax, bars, color, edge=line)
    ax.set_xlim((limit * 1.04, 0) if hollow else (0, limit * 1.04))
    ax.set_ylim(len(weights) - 0.5, -0.5)
    ax.set_xticks([0, limit], ["0", f"{limit:.2g}"])
    ax.set_yticks([])
    ax.set_title(label, color=color, loc="right" if hollow else "left")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.spines["right" if hollow else "left"].set_visible(True)


def _cells(
    ax: "Axes", where: npt.NDArray[Any], color: str, alpha: float, gap: float, edge: float = 0
) -> None:
    """Draw the cells of a mask (rows, columns); without gaps, runs in a row are merged."""
    boxes = []
    for row, line in enumerate(where):
        steps = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(int)))
        for start, stop in steps.reshape(-1, 2):
            cuts = range(start, stop + 1) if gap else (start, stop)
            boxes += [
                (a - 0.5 + gap, b - 0.5 - gap, row - 0.5 + gap, row + 0.5 - gap)
                for a, b in pairwise(cuts)
            ]
    _boxes(ax, boxes, color, alpha, edge, gid=svg.HEAT)


def _boxes(
    ax: "Axes",
    boxes: Sequence[tuple[float, float, float, float]],
    color: str,
    alpha: float = 1.0,
    edge: float = 0,
    gid: str | None = None,
) -> None:
    """Draw boxes (x0, x1, y0, y1) as one path, filled or with an edge so many points wide."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if not boxes:
        return
    corners = [
        corner
        for x0, x1, y0, y1 in boxes
        for corner in ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))
    ]
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * len(boxes)
    patch = PathPatch(
        Path(corners, codes),
        facecolor="none" if edge else color,
        edgecolor=color if edge else "none",
        linewidth=edge,
        alpha=alpha,
        clip_on=False,
    )
    if gid:
        patch.set_gid(gid)
    ax.add_artist(patch)  # add_patch would also look for new limits


def _ticks(axis: Any, labels: Sequence[object] | None, count: int, what: str) -> None:
    from matplotlib.ticker import MaxNLocator

    if labels is None:
        if count <= 16:
            axis.set_ticks(range(count))
        else:
            axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=2))
        return
    if len(labels) not in (0, count):
        raise ValueError(f"{what} must hold {count} labels; got {len(labels)}")
    axis.set_ticks(range(len(labels)), [str(label) for label in labels])


def figure_html(fig: "Figure", alt: str, name: str) -> str:
    """Return the figure as HTML that stands alone: its style and its inline SVG."""
    drawing = svg.draw(fig, name)
    inside = f"<title>{escape(alt)}</title>{definitions(drawing.shared)}{svg.text(drawing.body)}"
    picture = svg_tag(drawing, alt, inside)
    css = THEME_CSS + FIGURE_CSS
    return f'<style>{css}</style><figure class="ml-figure" id="{name}">{picture}</figure>'


def svg_tag(drawing: svg.Drawing, alt: str, inside: str) -> str:
    """Return the `<svg>` element: as wide as its column, at most its natural width."""
    box = f"0 0 {drawing.width:g} {drawing.height:g}"
    return (
        f'<svg class="ml-svg" role="img" aria-label="{escape(alt)}" viewBox="{box}" '
        f'stroke-linejoin="round" style="max-width:{drawing.width / 0.75:.0f}px">{inside}</svg>'
    )


def definitions(shared: dict[str, Any]) -> str:
    """Return `<defs>` with the shared elements."""
    elements = svg.text([shared[key] for key in sorted(shared)])
    return f"<defs>{elements}</defs>" if elements else ""


def as_array(value: Any) -> npt.NDArray[Any]:
    """Return an array or tensor as a float64 array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().double()
    return np.asarray(value, dtype=np.float64)


def check_label(alt: str, name: str) -> None:
    """Raise ValueError unless alt is a sentence and name a fresh, well-formed id."""
    if not isinstance(alt, str) or len(alt.strip()) < SHORTEST_ALT:
        raise ValueError(
            "alt must state the finding in a sentence "
            f"(at least {SHORTEST_ALT} characters); got {alt!r}"
        )
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"name must be words of a-z and 0-9 joined by '-'; got {name!r}")
    cell = this_cell()
    if cell is None:
        return
    if name in _shown and (_shown[name][0] != cell[0] or _shown[name][1] == cell[1]):
        raise ValueError(f"name must be unique; {name!r} is already used by another figure")
    _shown[name] = cell


def this_cell() -> tuple[str, int] | None:
    """Return the running cell (its id, or else its source) and the number of its execution.

    The same cell run again is a re-run and may reuse its names; another cell may not.
    """
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None:
        return None
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = (parent or {}).get("metadata", {}).get("cellId")
    history = shell.user_ns.get("In", [""])
    return str(cell or history[-1]), int(shell.execution_count)


def display_html(html: str, plain: str) -> None:
    """Display HTML, with plain text for where there is none."""
    from IPython.display import display

    display({"text/html": html, "text/plain": plain}, raw=True)
