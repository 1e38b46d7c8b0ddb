"""The tables of *Coming from elsewhere* fit: in columns where there is room, as cards elsewhere."""

from __future__ import annotations

import checks
import pytest
from playwright.sync_api import Browser

PAGE = "book/elsewhere.html"
FRAMES = ".ml-cards.ml-calls"
OVER = f"""[...document.querySelectorAll('{FRAMES}, {FRAMES} :is(table, td, code)')].filter(
    e => getComputedStyle(e).display !== 'inline' && e.scrollWidth > e.clientWidth + 1).length"""
LABELS = f"""[...document.querySelectorAll('{FRAMES} td')].map(
    e => getComputedStyle(e, '::before').content.replaceAll('"', ''))"""


@pytest.mark.parametrize("size", checks.SIZES)
def test_tables_of_calls_fit(browser: Browser, book: str, size: str) -> None:
    with checks.visit(browser, book, PAGE, size) as one:
        assert one.page.locator(FRAMES).count() == 7
        assert one.page.evaluate(OVER) == 0
        labels = one.page.evaluate(LABELS)
        seen = {label for label in labels if label not in ("none", "normal")}
        assert seen == ({"memlib", "what differs"} if size == "narrow" else set())
