"""How the explorables feel: from an input event until it is drawn, in Chromium on one core.

Run on the built book (`make book` first). For each explorable at its largest setting every control
is used over and over; what is timed is its handler and the layout that follows. Told is the median
of all events, that of the slowest control, and the worst event. Beside it: the time of the start,
once the chapter's formulas are drawn; the longest task while the page is scrolled; and the bytes of
scripts and data.
"""

import os
import re
import shutil
import statistics
from itertools import chain
from pathlib import Path
from typing import Any

HTML = Path(os.environ.get("MEMLIB_PAGES", Path(__file__).parents[1] / "_build" / "html"))
EVENTS = 30  # of each control
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WATCH = """() => { window.long = []; new PerformanceObserver(list =>
    window.long.push(...list.getEntries().map(e => e.duration))).observe({type: 'longtask'}) }"""
SCROLL = """async () => {
    const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    for (let y = 0; y < document.documentElement.scrollHeight; y += 120) {
        scrollTo(0, y);
        await frame();
    }
}"""
LIVE = """() => new Promise(done => {
    const root = document.querySelector('.ml-explore');
    const look = () => root.classList.contains('ml-live') && setTimeout(done, 300);
    look() || new MutationObserver(look).observe(root, {attributes: true});
})"""
USE = """async events => {
    const root = document.querySelector('.ml-explore'), frame = root.explore, times = {};
    const quiet = async () => { do await new Promise(done => setTimeout(done, 5));
        while (frame.busy) };
    const time = async (name, act) => {
        const began = performance.now();
        act();
        root.getBoundingClientRect();
        (times[name] ||= []).push(performance.now() - began);
        await quiet();
    };
    const type = (input, value) => {
        input.value = value;
        input.dispatchEvent(new Event('input', {bubbles: true}));
        input.dispatchEvent(new Event('change', {bubbles: true}));
    };
    const start = {...frame.state, ...frame.page.largest};
    const back = async () => { frame.set(start); await quiet() };
    await back();
    const all = [...root.querySelectorAll('.ml-lab :is(input, select, textarea, button)')];
    const own = all.filter(e => !e.closest('.ml-tries, .ml-bar') || e.closest('.ml-panel'));
    for (const e of own) {
        if (!e.checkVisibility() || e.disabled || e.readOnly) continue;
        const kind = e.tagName === 'INPUT' ? e.type : e.className === 'ml-cell' ? 'cell' : 'button';
        const name = `${kind}: ${e.getAttribute('aria-label') || e.labels?.[0]?.textContent
            || e.textContent}`.trim().slice(0, 60);
        const few = kind === 'cell' ? 2 : events;
        if (kind === 'cell' && (times['cells'] || []).length >= events) continue;
        for (let i = 0; i < few && e.isConnected && !e.disabled; i++) {
            const share = (i * 0.618034) % 1;
            if (kind === 'range') await time(name, () => type(e, +e.min + share * (e.max - e.min)));
            else if (kind === 'text' || e.tagName === 'TEXTAREA') {
                const was = e.value;
                await time(name, () => type(e, i % 2 ? was.slice(0, -1) : was));
            } else if (e.tagName === 'SELECT') {
                await time(name, () => type(e, e.options[i % e.options.length].value));
            } else await time(kind === 'cell' ? 'cells' : name, () => e.click());
        }
        await back();
    }
    return times;
}"""


def run() -> dict[str, Any]:
    """Measures every explorable; the figures are in milliseconds."""
    from playwright.sync_api import sync_playwright

    from memlib.teaching.explore.join import JS

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is installed")
    found: dict[str, Any] = {"events": EVENTS, "pages": {}}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        found["browser"] = browser.version
        for name in sorted(file.stem for file in (JS / "pages").glob("*.js")):
            page = browser.new_page(viewport={"width": 1300, "height": 900})
            page.set_default_timeout(600_000)
            page.goto((HTML / "book" / f"{name}.html").as_uri())
            page.evaluate("window.MathJax?.startup?.promise")
            page.wait_for_timeout(1000)
            page.evaluate(WATCH)
            page.evaluate(SCROLL)
            scrolling = max(page.evaluate("window.long"), default=0)
            page.locator(".ml-explore").scroll_into_view_if_needed()
            page.evaluate(LIVE)  # not by asking again and again, which takes its time
            started = page.evaluate("document.querySelector('.ml-explore').explore.started")
            page.evaluate("window.long = []")
            times = page.evaluate(USE, EVENTS)
            longest = max(page.evaluate("window.long"), default=0)
            html = (HTML / "book" / f"{name}.html").read_text(encoding="utf-8")
            found["pages"][name] = {
                "start": started,
                "scrolling": scrolling,
                "longest_task": longest,
                **_bytes(html),
                "median": statistics.median(chain.from_iterable(times.values())),
                "controls": {
                    label: {"median": statistics.median(line), "worst": max(line)}
                    for label, line in times.items()
                },
            }
            page.close()
        browser.close()
    return found


def _bytes(html: str) -> dict[str, int]:
    part = html[html.index('<div class="ml-explore"') :]
    data = re.search(r'class="ml-data">(.*?)</script>', part, re.S)
    script = re.search(r"<script>(.*?)</script>", part, re.S)
    assert data is not None
    assert script is not None
    return {"page": len(html.encode()), "script": len(script[1]), "data": len(data[1])}


def report(found: dict[str, Any]) -> str:
    """One line an explorable: its events, start, tasks and weight."""
    head = (
        "explorable     median  slowest  worst  start  scroll  longest  script kB  data kB  page kB"
    )
    lines = [head]
    for name, one in found["pages"].items():
        slowest = max(times["median"] for times in one["controls"].values())
        worst = max(times["worst"] for times in one["controls"].values())
        lines.append(
            f"{name:13} {one['median']:7.1f} {slowest:8.1f} {worst:6.1f} {one['start']:6.0f} "
            f"{one['scrolling']:7.0f} {one['longest_task']:8.0f} "
            f"{one['script'] / 1e3:10.0f} {one['data'] / 1e3:8.0f} {one['page'] / 1e3:8.0f}"
        )
    return "\n".join(lines)
