"""An explorable as a reader finds it: opened, used by mouse or by keys, and what it then shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import checks
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page

from memlib.teaching.explore.join import JS

NAMES = sorted(path.stem for path in (JS / "pages").glob("*.js"))
BACK = (
    "(key, value) => ArrayBuffer.isView(value) ? Array.from(value)"
    " : typeof value === 'number' && !Number.isFinite(value) ? String(value) : value"
)
WORDS = ["", "x", "-1", "1e99", "NaN", "0,0", "2", "~" * 20_000]  # one of them fits no field
FRAME = "document.querySelector('.ml-explore').explore"
QUIET = f"() => !{FRAME}.busy"


@dataclass
class Explorable:
    """An opened explorable; what it shows is read from the numbers behind it."""

    visit: checks.Visit
    base: str
    name: str

    @property
    def page(self) -> Page:
        """The browser's page."""
        return self.visit.page

    @property
    def root(self) -> Locator:
        """The explorable's element."""
        return self.page.locator(".ml-explore")

    def get(self, what: str) -> Any:
        """A part of the frame, such as `seen` (unrounded numbers) or `state`."""
        asked = f"what => JSON.stringify({FRAME}[what], {BACK})"
        return json.loads(self.page.evaluate(asked, what))

    @property
    def seen(self) -> Any:
        """The numbers behind what is shown, once no run is under way."""
        self.page.wait_for_function(QUIET, timeout=60_000)
        return self.get("seen")

    @property
    def state(self) -> Any:
        """The state."""
        return self.get("state")

    @property
    def said(self) -> str:
        """The sentence below."""
        return self.root.locator(".ml-said").text_content() or ""

    def button(self, name: str) -> Locator:
        """A button by its whole name."""
        return self.root.get_by_role("button", name=name, exact=True)

    def slide(self, label: str, steps: int) -> None:
        """Moves a slider by so many presses of an arrow key."""
        self.root.get_by_role("slider", name=label, exact=True).focus()
        for _ in range(abs(steps)):
            self.page.keyboard.press("ArrowRight" if steps > 0 else "ArrowLeft")

    def put(self, label: str, value: float) -> None:
        """Brings a slider to a value, as a pointer does."""
        self.root.get_by_role("slider", name=label, exact=True).fill(str(value))

    def press(self, name: str) -> None:
        """Presses a button by keyboard alone."""
        self.button(name).focus()
        self.page.keyboard.press("Enter")

    def swipe(self, *places: tuple[float, float]) -> None:
        """Puts a finger on the first place of the window and draws it over the others."""
        session = self.page.context.new_cdp_session(self.page)
        for index, (x, y) in enumerate(places):
            kind = "touchMove" if index else "touchStart"
            session.send(
                "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]}
            )
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def settle(self) -> None:
        """Waits until the address holds the state."""
        self.page.evaluate(f"{FRAME}.settle()")


@contextmanager
def opened(
    browser: Browser,
    base: str,
    name: str,
    size: str = "wide",
    scheme: str = "light",
    query: str = "",
) -> Iterator[Explorable]:
    """Opens the page of an explorable, without the chapter around it, once it has started.

    `test_pages` and `test_explore` use it in the whole chapter, too.
    """
    path = f"book/{name}.html{query}"
    with checks.visit(browser, base, path, size, scheme, alone=".ml-explore") as one:
        found = Explorable(one, base, name)
        found.root.scroll_into_view_if_needed()
        one.page.wait_for_selector(".ml-explore.ml-live", timeout=30_000)
        one.page.wait_for_function(QUIET, timeout=60_000)
        yield found


def restored(browser: Browser, one: Explorable) -> None:
    """The address that an explorable has now gives its state and all it shows to another reader."""
    one.settle()
    address = str(one.page.evaluate("location.href"))
    query = re.sub(r"^[^?#]*|#.*$", "", address)
    state, seen, said = one.state, one.seen, one.said
    with opened(browser, one.base, one.name, query=query) as again:
        assert again.state == state
        assert again.seen == seen
        assert again.said == said


def malformed(browser: Browser, one: Explorable) -> None:
    """An address of which any part is malformed gives the first state."""
    asked = f"""words => Object.entries({FRAME}.page.fields).map(
        ([name, field]) => [name, words.find(word => field.parse(word) === undefined)])"""
    bad = one.page.evaluate(asked, WORDS)
    assert [name for name, word in bad if word is None] == [], "any text fits these fields"
    with opened(browser, one.base, one.name) as fresh:
        first = fresh.state
    for name, word in (bad[0], bad[-1]):
        query = "?" + urlencode({name: word})
        with opened(browser, one.base, one.name, query=query) as again:
            assert again.state == first, (name, word)


@contextmanager
def exercised(
    browser: Browser,
    base: str,
    name: str,
    size: str,
    scheme: str,
    compare: Callable[[Explorable], None],
) -> Iterator[Explorable]:
    """Around what a reader does: right before it and after a reset, and its address to be sent."""
    with opened(browser, base, name, size, scheme) as one:
        compare(one)
        axe(one)
        yield one
        axe(one)
        restored(browser, one)
        if size == "wide":
            malformed(browser, one)
        one.button("Reset").click()
        compare(one)


def caught(
    browser: Browser, base: str, name: str, fault: str, compare: Callable[[Explorable], None]
) -> None:
    """A fault, done to the frame `e` behind the reader's back, is found by the comparison."""
    with opened(browser, base, name) as one:
        one.page.evaluate(f"{{ const e = {FRAME}; {fault} }}")
        with pytest.raises(AssertionError):
            compare(one)


def axe(one: Explorable) -> None:
    """No violation in the explorable as it is now, nothing asked outside, no error."""
    found = checks.axe(one.visit, parts=".ml-explore")
    found += checks.requests(one.visit) + checks.errors(one.visit) + checks.scroll(one.visit)
    assert not found, found  # in so many words: pytest rewrites asserts of tests alone


def close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    """Numbers of the page and of memlib are equal, whatever their nesting."""
    a, b = np.asarray(theirs, dtype=float), np.asarray(ours, dtype=float)
    assert a.shape == b.shape, (a.shape, b.shape)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


every_look = pytest.mark.parametrize(
    ("size", "scheme"), [("wide", "light"), ("narrow", "dark")], ids=["wide", "narrow"]
)
