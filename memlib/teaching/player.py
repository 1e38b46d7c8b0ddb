"""A small player for step-by-step animations: inline SVG frames and two kilobytes of script."""

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from memlib.teaching import svg
from memlib.teaching.figures import check_label, definitions, display_html, svg_tag
from memlib.teaching.style import FIGURE_CSS, KEYS, THEME_CSS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORTH_SHARING = 160  # bytes; a shorter run of elements is repeated in each frame

CSS = """\
.ml-frame[hidden],.ml-bar[hidden],.ml-still{display:none}
.ml-sheet{position:absolute;width:0;height:0}
.ml-bar{display:flex;gap:.35rem;align-items:center;max-width:32rem;margin:.5rem auto 0}
.ml-bar button{flex:none;width:2.25rem;height:2.25rem;margin:0;padding:.45rem;cursor:pointer;\
color:inherit;background:none;border:1px solid var(--ml-muted,#747c85);border-radius:.4rem}
.ml-bar button:hover{color:var(--ml-accent,#0e8a9e);border-color:currentColor}
.ml-bar svg{display:block;width:100%;height:100%;fill:currentColor}
.ml-bar input{flex:1;min-width:4rem;height:1.75rem;margin:0 .4rem;padding:0;\
accent-color:var(--ml-accent,#0e8a9e)}
.ml-bar :focus-visible{outline:2px solid var(--ml-accent,#0e8a9e);outline-offset:2px}
.ml-count{flex:none;font-variant-numeric:tabular-nums;font-size:.875em}
.ml-player figcaption{min-height:1.6em;margin-top:.4rem;color:inherit;font:inherit}
@media print{.ml-bar,.ml-now,.ml-frame{display:none!important}\
.ml-frame.ml-static,.ml-still{display:block!important}}
"""

ICONS = {
    "Step back": "M10.5 1.5L12 3 7 8l5 5-1.5 1.5L4 8z",
    "Play": "M4 2l10 6-10 6z",
    "Step forward": "M5.5 1.5L4 3l5 5-5 5 1.5 1.5L12 8z",
}
PAUSE = "M3 2h4v12H3zM9 2h4v12H9z"

# The frames' labels are the captions. Nothing moves by itself; play stops at the last frame.
SCRIPT = """\
(function(){
var s=document.currentScript,r=s&&s.closest(".ml-player")||document.getElementById("NAME");
if(!r||r.dataset.ready)return;r.dataset.ready="1";
var f=r.querySelectorAll(".ml-frame"),n=f.length,at=0,timer=0,
b=r.querySelectorAll("button"),bar=r.querySelector(".ml-bar"),slider=r.querySelector("input"),
now=r.querySelector(".ml-now"),count=r.querySelector(".ml-count"),icon=b[1].querySelector("path"),
calm=window.matchMedia&&matchMedia("(prefers-reduced-motion: reduce)");
function show(t){
at=Math.max(0,Math.min(n-1,t));
for(var i=0;i<n;i++)f[i].hidden=i!==at;
var label=f[at].querySelector("svg").getAttribute("aria-label"),step="Step "+(at+1)+" of "+n;
slider.value=at;slider.setAttribute("aria-valuetext",label.indexOf(step)?step+": "+label:label);
count.textContent=(at+1)+" / "+n;
if(now.textContent!==label)now.textContent=label}
function stop(){clearTimeout(timer);timer=0;face("Play","PLAY")}
function face(label,path){b[1].setAttribute("aria-label",label);b[1].title=label;
icon.setAttribute("d",path)}
function tick(){timer=setTimeout(function(){if(!r.isConnected)return;show(at+1);
if(at<n-1)tick();else stop()},calm&&calm.matches?2*PACE:PACE)}
function go(t){stop();show(t)}
b[0].onclick=function(){go(at-1)};
b[2].onclick=function(){go(at+1)};
b[1].onclick=function(){if(timer)return stop();if(at===n-1)show(0);face("Pause","PAUSE");tick()};
slider.oninput=function(){go(+slider.value)};
bar.hidden=false;show(0)})();
"""


def animate(
    draw: "Callable[[int], Figure]",
    frames: int,
    alt: str,
    name: str,
    captions: Sequence[str] | None = None,
    static: int = -1,
    *,
    interval: float = 1.2,
) -> None:
    """Show an animation to step through; it never starts by itself.

    Args:
        draw: Returns the figure of frame t; it is closed here. All have one size.
        frames: Number of frames.
        alt: The finding of the whole, as a sentence.
        name: A fixed name, unique in the book; it begins every id.
        captions: A sentence for each frame, shown below it and announced.
        static: The frame shown in print and without JavaScript.
        interval: Seconds a frame lasts when played; twice that where motion is to be reduced.

    Raises:
        ValueError: No real alt text, a bad name, or frames that don't fit together.
    """
    check_label(alt, name)
    display_html(player_html(draw, frames, alt, name, captions, static, interval=interval), alt)


def player_html(
    draw: "Callable[[int], Figure]",
    frames: int,
    alt: str,
    name: str,
    captions: Sequence[str] | None = None,
    static: int = -1,
    *,
    interval: float = 1.2,
) -> str:
    """Return the animation as HTML that stands alone; arguments as in `animate`."""
    if frames < 2:
        raise ValueError(f"frames must be at least 2; got {frames}")
    if captions is not None and len(captions) != frames:
        raise ValueError(f"captions must hold one a frame ({frames}); got {len(captions)}")
    if not -frames <= static < frames:
        raise ValueError(f"static must be a frame, {-frames} to {frames - 1}; got {static}")
    drawings = _drawings(draw, frames, name)
    labels = list(captions or [f"Step {t + 1} of {frames}" for t in range(frames)])
    still = static % frames
    sheet = _share([drawing.body for drawing in drawings], name)
    for drawing in drawings:
        sheet |= drawing.shared
    pictures = [
        f'<div class="ml-frame{" ml-static" * (t == still)}"{" hidden" * (t != still)}>'
        f"{svg_tag(drawing, labels[t], svg.text(drawing.body))}</div>"
        for t, drawing in enumerate(drawings)
    ]
    return (
        f"<style>{THEME_CSS}{FIGURE_CSS}{CSS}</style>"
        f'<figure class="ml-player" id="{name}" role="group" aria-label="{escape(alt)}">'
        f'<svg class="ml-sheet" aria-hidden="true">{definitions(sheet)}</svg>'
        + "".join(pictures)
        + _controls(frames)
        + f'<figcaption><span class="ml-now" aria-live="polite">{escape(labels[still])}</span>'
        f'<span class="ml-still">{escape(labels[still])}</span></figcaption>'
        f"<script>{_script(name, interval)}</script></figure>"
    )


def _drawings(draw: "Callable[[int], Figure]", frames: int, name: str) -> list[svg.Drawing]:
    import matplotlib.pyplot as plt

    drawings = []
    for t in range(frames):
        fig = draw(t)
        drawings.append(svg.draw(fig, name))
        plt.close(fig)
    sizes = {(drawing.width, drawing.height) for drawing in drawings}
    if len(sizes) > 1:
        raise ValueError(f"all frames must have one size; got {sorted(sizes)} points")
    return drawings


def _share(bodies: list[list[ET.Element]], name: str) -> dict[str, ET.Element]:
    """Move runs of elements that stand in every frame to a sheet; frames refer to them."""
    texts = [[svg.text([element]) for element in body] for body in bodies]
    common = set(texts[0]).intersection(*texts[1:])
    runs = [_runs(line, common) for line in texts]
    kept = set(runs[0]).intersection(*runs[1:])
    whole = [run for run in runs[0] if run in kept]
    single = [(element,) for element in texts[0] if element in common]
    shared = [run for run in whole + single if len("".join(run)) > WORTH_SHARING]
    sheet: dict[str, ET.Element] = {}
    for run in dict.fromkeys(shared):
        key = f"{name}-s{len(sheet)}"
        for body, line in zip(bodies, texts, strict=True):
            for start in range(len(line) - len(run), -1, -1):
                if tuple(line[start : start + len(run)]) != run:
                    continue
                if key not in sheet:
                    sheet[key] = ET.Element("g", id=key)
                    sheet[key].extend(body[start : start + len(run)])
                use = ET.Element("use", href=f"#{key}")
                body[start : start + len(run)] = [use]
                line[start : start + len(run)] = [svg.text([use])]
    return sheet


def _runs(line: list[str], common: set[str]) -> list[tuple[str, ...]]:
    runs: list[list[str]] = [[]]
    for element in line:
        if element in common:
            runs[-1].append(element)
        elif runs[-1]:
            runs.append([])
    return [tuple(run) for run in runs if run]


def _controls(frames: int) -> str:
    buttons = "".join(
        f'<button type="button" aria-label="{label}" title="{label}">'
        f'<svg viewBox="0 0 16 16" aria-hidden="true"><path d="{path}"/></svg></button>'
        for label, path in ICONS.items()
    )
    slider = f'<input type="range" max="{frames - 1}" value="0" aria-label="Step" {KEYS}>'
    count = f'<span class="ml-count" aria-hidden="true">1 / {frames}</span>'
    return f'<div class="ml-bar" hidden>{buttons}{slider}{count}</div>'


def _script(name: str, interval: float) -> str:
    names = {"NAME": name, "PACE": f"{interval * 1000:.0f}", "PLAY": ICONS["Play"], "PAUSE": PAUSE}
    script = SCRIPT
    for word, value in names.items():
        script = script.replace(word, value)
    return script
