"""What every page must hold, as functions that return the faults they find in a loaded page."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import axe_playwright_python
import reading
from playwright.sync_api import Browser, Page, Request, Response

HTML = Path(os.environ.get("MEMLIB_PAGES", Path(__file__).parents[2] / "_build" / "html")).resolve()
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
COLORS = ["color-contrast", "link-in-text-block"]
CONTROLS = "article details > summary, article .toggle, .ml-quiz, .ml-player, .ml-explore"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]
SIZES = {"wide": (1300, 800), "narrow": (390, 844)}
HEAVY = 2_000_000  # bytes of a page, without what all pages share (_static, loaded once)
INK = "span.math, div.math"
# Of the article only the part that is asked for, with what it lies in, is ever laid out.
ALONE = """selector => addEventListener('DOMContentLoaded', () => {
    for (let part = document.querySelector(selector); part && !part.matches('article');
        part = part.parentElement)
        for (const other of [...part.parentElement.children])
            if (other !== part && !other.matches('script, style')) other.remove();
}, true)"""
STARTED = """() => [...document.querySelectorAll('.ml-explore')].every(e => !e.explore
    || e.matches('.ml-live') || e.getBoundingClientRect().top > innerHeight + 300)"""
# Axe would take most of its time for the thousands of parts of listings and formulas. While it
# looks, of each look only the first token of a listing and the first formula are left; the other
# tokens are bare text, the other formulas boxes of their size.
ONCE = """
    const seen = new Set(), swapped = [];
    const look = part => part.className + part.getAttribute('style') + part.getAttribute('display');
    const first = (...parts) => seen.size < seen.add(parts.map(look).join()).size;
    const fill = (copy, from, ...around) => {
        let text = '';
        for (const part of from.childNodes) {
            const bare = part.nodeType !== 1
                || !part.firstElementChild && !first(...around, from, part);
            if (bare) text += part.textContent;
            if (bare) continue;
            const inner = part.cloneNode(!part.firstElementChild);
            copy.append(text, part.firstElementChild ? fill(inner, part, ...around) : inner);
            text = '';
        }
        copy.append(text);
        return copy;
    };
    for (const pre of document.querySelectorAll('.highlight pre')) {
        const block = pre.parentElement;
        swapped.push([pre, fill(pre.cloneNode(false), pre, block.parentElement, block)]);
    }
    for (const math of document.querySelectorAll('mjx-container > mjx-math')) {
        const around = math.parentElement;
        if (first(around.parentElement, around)) continue;
        const {width, height} = math.getBoundingClientRect(), copy = math.cloneNode(false);
        const box = copy.appendChild(document.createElement('span'));
        box.style.cssText = `display: inline-block; vertical-align: top;
            width: ${width}px; height: ${height}px`;
        swapped.push([math, copy]);
        for (const read of around.querySelectorAll('mjx-assistive-mml')) {
            const text = read.cloneNode(false);
            text.textContent = read.textContent;
            swapped.push([read, text]);
        }
    }
    swapped.forEach(([part, copy]) => part.replaceWith(copy));
"""
# without preload axe asks for no style sheet by itself (and gets the address wrong)
RUN = """
    const options = {resultTypes: ['violations'], preload: false};
    const within = parts ? [...document.querySelectorAll(parts)] : [document];
    try {
        if (!within.length) return {violations: []};
        return await axe.run({include: within}, {runOnly: {type, values}, ...options});
    } finally {
        swapped.forEach(([part, copy]) => copy.replaceWith(part));
    }
"""


@dataclass
class Visit:
    """A loaded page and what the browser said while it loaded."""

    page: Page
    base: str
    outside: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Notes requests, answers and errors."""
        self.page.on("request", self._request)
        self.page.on("requestfailed", lambda r: self._failed(r))
        self.page.on("response", self._response)
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        self.page.on("console", self._console)

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.outside.append(request.url)

    def _failed(self, request: Request) -> None:
        if not self._forbidden_preload(request.url):
            self.bad.append(f"{request.url}: {request.failure}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.bad.append(f"{response.url}: {response.status}")

    def _console(self, message: Any) -> None:
        said = f"{message.text} {message.location.get('url', '')}"
        if message.type == "error" and not self._forbidden_preload(said):
            self.errors.append(f"console: {said}")

    def _forbidden_preload(self, text: str) -> bool:
        """Browsers forbid preloading fonts from file://; the page does without."""
        return self.base.startswith("file:") and ".woff2" in text


@contextmanager
def visit(
    browser: Browser,
    base: str,
    path: str,
    size: str = "wide",
    scheme: str = "light",
    alone: str = "",
) -> Iterator[Visit]:
    """Opens a page in a context of its own and waits until it has come to rest.

    Most of the time goes into a chapter's formulas and listings. `alone` selects what is left of
    the chapter, without formulas; it opens at once.
    """
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    context.set_default_timeout(30_000)
    if alone:
        context.add_init_script(f"({ALONE})({json.dumps(alone)})")
        nothing = {"body": "", "content_type": "text/javascript"}
        context.route("**/tex-chtml.js*", lambda route: route.fulfill(**nothing))
    one = Visit(context.new_page(), base)
    one.listen()
    try:
        one.page.goto(f"{base}/{path}", wait_until="load")
        one.page.evaluate("window.MathJax?.startup?.promise")
        one.page.evaluate("document.fonts.ready.then(() => null)")
        one.page.wait_for_function(STARTED)
        drawn(one)
        yield one
    finally:
        context.close()


def drawn(one: Visit) -> None:
    """Waits until what has been changed is drawn."""
    frame = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    one.page.evaluate(f"{frame}.then(() => null)")


def recolor(one: Visit, scheme: str) -> None:
    """The other scheme, as when a reader's evening comes."""
    one.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    one.page.wait_for_function(
        "scheme => [scheme, undefined].includes(document.documentElement.dataset.theme)",
        arg=scheme,
    )
    drawn(one)


def requests(one: Visit) -> list[str]:
    """Nothing is asked of another host, and every answer is good."""
    return [f"outside request: {url}" for url in one.outside] + [f"failed: {b}" for b in one.bad]


def errors(one: Visit) -> list[str]:
    """No uncaught error, no error on the console."""
    return one.errors


def math(one: Visit) -> list[str]:
    """Every formula is drawn, without an error of TeX."""
    undrawn = one.page.eval_on_selector_all(
        INK,
        """all => all.filter(e => !e.parentElement.closest('.math')
            && (!e.querySelector('mjx-container') || e.querySelector('mjx-merror')))
            .map(e => e.textContent.trim().slice(0, 60))""",
    )
    raw = one.page.evaluate(
        r"""[...document.querySelectorAll('article p, article li, article td')].filter(
            e => /\$\$|\\\(|\\\[/.test([...e.childNodes].filter(n => n.nodeType === 3)
            .map(n => n.data).join(''))).map(e => e.textContent.trim().slice(0, 60))"""
    )
    return [f"math not drawn: {text}" for text in undrawn + raw]


def scroll(one: Visit) -> list[str]:
    """The page does not scroll sideways."""
    over = one.page.evaluate(
        """() => { const root = document.scrollingElement, over = root.scrollWidth - innerWidth;
        if (over <= 0) return null;
        const wide = [...document.body.querySelectorAll('*')].filter(
            e => e.getBoundingClientRect().right > innerWidth + 1);
        return `${over} px: ` + wide.slice(-3).map(e => e.outerHTML.slice(0, 90)).join(' | ') }"""
    )
    return [f"sideways scroll by {over}"] if over else []


def listings(one: Visit) -> list[str]:
    """No code in full view, and nothing printed, scrolls sideways or has too many columns."""
    return one.page.eval_on_selector_all(
        "article pre",
        """(all, columns) => all.filter(e => e.checkVisibility()).map(e => [
            e.scrollWidth - e.clientWidth,
            e.textContent.split('\\n').reduce((a, b) => b.length > a.length ? b : a)])
            .filter(([over, line]) => over > 0 || line.length > columns)
            .map(([over, line]) =>
                `${over} px, ${line.length - columns} columns too wide: ${line}`)""",
        reading.COLUMNS,
    )


def axe(one: Visit, type: str = "tag", values: Any = WCAG, parts: str = "") -> list[str]:
    """No violation of WCAG 2.2 A and AA that axe can see, on the whole page or in parts of it."""
    one.page.evaluate("scrollTo(0, 0)")  # the header, which stays, may else lie over a control
    if not one.page.evaluate("'axe' in window"):
        one.page.evaluate(AXE)
    asked = f"async ([type, values, parts]) => {{ {ONCE} {RUN} }}"
    found = one.page.evaluate(asked, [type, values, parts])
    return [
        f"axe {violation['id']}: {node['html'][:160]} ({node['failureSummary'][:240]})"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


def axe_of_colors(one: Visit) -> list[str]:
    """The same, as far as it depends on the scheme."""
    return axe(one, "rule", COLORS)


def axe_of_controls(one: Visit) -> list[str]:
    """The same, as far as it depends on what is folded and what was answered."""
    return axe(one, parts=CONTROLS)


def search(one: Visit) -> list[str]:
    """One search field is seen at most (the theme's dialog stays closed)."""
    count = one.page.eval_on_selector_all(
        ".search-button-field, input[type=search]",
        "all => all.filter(e => e.checkVisibility({visibilityProperty: true})).length",
    )
    return [f"{count} search fields"] if count > 1 else []


def weight(one: Visit) -> list[str]:
    """The page with all that it alone loads stays under the limit, uncompressed."""
    total = one.page.evaluate(
        """performance.getEntriesByType('navigation').concat(
        performance.getEntriesByType('resource')).filter(
        e => !e.name.includes('/_static/')).reduce((n, e) => n + e.decodedBodySize, 0)"""
    )
    return [f"the page weighs {total} bytes; the limit is {HEAVY}"] if total >= HEAVY else []


def pictures(one: Visit) -> list[str]:
    """Every image and figure says its finding."""
    return one.page.evaluate(
        """() => { const faults = [];
        for (const e of document.querySelectorAll('article img'))
            if (!e.alt && e.getAttribute('role') !== 'presentation')
                faults.push('image without alt: ' + e.outerHTML.slice(0, 90));
        for (const e of document.querySelectorAll('.ml-figure svg[role=img], .ml-player'))
            if ((e.getAttribute('aria-label') || '').trim().split(/\\s+/).length < 4)
                faults.push('no finding in: ' + e.outerHTML.slice(0, 90));
        for (const e of document.querySelectorAll('.ml-figure'))
            if (!e.querySelector('[role=img][aria-label]'))
                faults.push('figure without label: ' + e.outerHTML.slice(0, 90));
        return faults }"""
    )


def ids(one: Visit) -> list[str]:
    """No id stands twice on a page."""
    return one.page.evaluate(
        """() => { const seen = new Set(), twice = new Set();
        for (const e of document.querySelectorAll('article [id]'))
            (seen.has(e.id) ? twice : seen).add(e.id);
        return [...twice].map(id => 'id stands twice: ' + id) }"""
    )


GATES = (requests, errors, math, scroll, axe, search, pictures, ids)
SHUT = tuple(axe_of_controls if gate is axe else gate for gate in GATES)  # axe sees the rest later
RECOLORED = (requests, errors, scroll, axe_of_colors)


def faults(one: Visit, gates: Any = GATES) -> list[str]:
    """All faults that the gates find, each named once."""
    return list(dict.fromkeys(fault for gate in gates for fault in gate(one)))
