"""The look of the book's figures: five named colors and matplotlib's settings.

The colors are sentinels. Where a figure is shown, each becomes a CSS variable, so that one drawing
serves the light page, the dark page and plain Jupyter.
"""

ACCENT = "#0e8a9e"  # the one accent: reading, positive values
SECOND = "#d9641e"  # its opposite alone: writing, negative values
INK = "#24292f"  # text and axes
MUTED = "#747c85"  # what may stay in the background
GROUND = "#fdfdfe"  # the page itself: halos, the faces of open markers

CSS_COLORS = {
    ACCENT: f"var(--ml-accent,{ACCENT})",
    SECOND: f"var(--ml-second,{SECOND})",
    INK: "currentColor",
    MUTED: f"var(--ml-muted,{MUTED})",
    GROUND: "var(--ml-ground,var(--pst-color-background,var(--jp-layout-color0,#fff)))",
}

# Each output carries its style itself, for plain Jupyter; in the book the variables are the page's.
THEME_CSS = """\
[data-jp-theme-light=true]{--ml-accent:#0b7285;--ml-second:#c2410c;--ml-muted:#5c6670}
[data-jp-theme-light=false],html[theme=dark],[data-vscode-theme-kind=vscode-dark]\
{--ml-accent:#4cc9da;--ml-second:#ff9d5c;--ml-muted:#9aa5b1}
"""
KEYS = 'data-lm-suppress-shortcuts="true"'  # on an input: its keys are no shortcuts of JupyterLab
FIGURE_CSS = """\
.ml-figure,.ml-player{margin:1rem 0;overflow:visible;color:inherit;text-align:center}
.ml-svg{display:block;width:100%;height:auto;margin:0 auto}
"""


def style() -> None:
    """Set matplotlib's defaults to the book's style; call it once, at the top of a notebook.

    Lines differ in dash as well as in color, and ids in the drawings do not depend on the run.
    """
    import matplotlib as mpl

    mpl.rcParams.update(settings())


def settings() -> dict[str, object]:
    """Return the book's matplotlib settings (rcParams)."""
    from cycler import cycler

    colors = cycler(color=[ACCENT, SECOND, INK, MUTED])
    return {
        "axes.edgecolor": MUTED,
        "axes.facecolor": "none",
        "axes.grid": False,
        "axes.labelcolor": INK,
        "axes.labelsize": 11,
        "axes.linewidth": 0.8,
        "axes.prop_cycle": colors + cycler(linestyle=["-", "--", ":", "-."]),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": INK,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "figure.constrained_layout.use": True,
        "figure.facecolor": "none",
        "figure.figsize": (6.4, 3.2),
        "figure.max_open_warning": 0,
        "font.size": 11,
        "grid.alpha": 0.25,
        "grid.color": MUTED,
        "grid.linewidth": 0.8,
        "hatch.color": INK,
        "legend.fontsize": 10.5,
        "legend.frameon": False,
        "lines.linewidth": 2,
        "lines.markersize": 5,
        "patch.edgecolor": INK,
        "savefig.facecolor": "none",
        "svg.fonttype": "none",  # text stays text, in the page's font
        "svg.hashsalt": "memlib",  # ids do not depend on the run
        "text.color": INK,
        "xtick.color": MUTED,
        "xtick.labelcolor": INK,
        "xtick.labelsize": 10,
        "ytick.color": MUTED,
        "ytick.labelcolor": INK,
        "ytick.labelsize": 10,
    }
