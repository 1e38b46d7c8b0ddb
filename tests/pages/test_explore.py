"""What holds for every explorable: picture, print, disk, keys, address, and a page's weight."""

from __future__ import annotations

from pathlib import Path

import checks
import pytest
from checks import HTML
from explorables import FRAME, NAMES, opened
from playwright.sync_api import Browser

CONTROLS = ".ml-explore :is(button, input, select, textarea, summary, a)"
REACHED = f"""() => {{ const all = [...document.querySelectorAll('{CONTROLS}')]
    .filter(e => e.checkVisibility() && !e.disabled);
    return all.filter(e => e.tabIndex < 0 && !e.closest('.ml-cells')).map(e => e.outerHTML) }}"""
UNNAMED = """() => [...document.querySelectorAll('.ml-explore :is(canvas, svg[role=img])')]
    .filter(e => (e.getAttribute('aria-label') || '').trim().split(/\\s+/).length < 3)
    .map(e => e.outerHTML.slice(0, 90))"""


def test_every_explorable_has_tests_of_its_own() -> None:
    here = Path(__file__).parent
    assert [n for n in NAMES if not (here / f"test_explore_{n}.py").exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_without_javascript_and_follows_the_page_into_the_dark_and_into_print(
    browser: Browser, book: str, name: str
) -> None:
    still = browser.new_context(java_script_enabled=False)
    page = still.new_page()
    page.goto(f"{book}/book/{name}.html")
    assert page.locator(".ml-explore .ml-first svg, .ml-explore .ml-first table").first.is_visible()
    assert not page.locator(".ml-explore .ml-lab").is_visible()
    still.close()
    with opened(browser, book, name) as one:
        first, lab = one.root.locator(".ml-first"), one.root.locator(".ml-lab")
        assert (first.is_visible(), lab.is_visible()) == (False, True)
        drawn = one.page.evaluate(f"{FRAME}.turn")
        checks.recolor(one.visit, "dark")
        assert one.page.evaluate(f"{FRAME}.turn") > drawn
        assert not checks.axe(one.visit, "rule", checks.COLORS, ".ml-explore")
        one.page.emulate_media(media="print")
        assert (first.is_visible(), lab.is_visible()) == (True, False)


@pytest.mark.parametrize("name", NAMES)
def test_from_disk_by_keys_with_three_things_to_try(browser: Browser, name: str) -> None:
    with opened(browser, f"file://{HTML}", name, "narrow") as one:
        assert not checks.requests(one.visit) + checks.errors(one.visit) + checks.scroll(one.visit)
        assert one.root.locator(".ml-tries li").count() == 3
        assert one.page.evaluate(REACHED) == []
        assert one.page.evaluate(UNNAMED) == []
        assert len(one.said.split()) >= 4
        first = one.state
        shows = one.button("Show me")
        for index in range(shows.count()):
            shows.nth(index).click()
            assert one.state != first
            assert one.seen
            one.press("Reset")
            assert one.state == first
        one.button("Link to this").click()
        address = one.root.get_by_label("Address of this state")
        assert address.input_value().endswith(f"{name}.html#explore-{name.replace('_', '-')}")
        assert not checks.errors(one.visit)


@pytest.mark.parametrize("name", NAMES)
def test_its_script_stands_on_the_page_once(name: str) -> None:
    html = (HTML / "book" / f"{name}.html").read_text(encoding="utf-8")
    assert html.count("const $kit_frame = (() => {") == 1
