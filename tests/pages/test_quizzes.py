"""What a reader answered stays in the browser, is shown again, and can be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checks
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from memlib.teaching.quiz import quiz_html

PAGE = "<!DOCTYPE html><html lang=en><title>t</title><link rel=icon href=data:,><main>{}</main>"


def item(key: str, type: str, *answers: dict[str, Any]) -> dict[str, Any]:
    said = [{"feedback": f"About {i}.", **answer} for i, answer in enumerate(answers)]
    return {"id": key, "type": type, "question": f"Which of {key}?", "answers": said}


ITEMS = [
    item(
        "one",
        "multiple_choice",
        {"answer": "a", "correct": True},
        {"answer": "b", "correct": False},
    ),
    item(
        "many",
        "many_choice",
        {"answer": "a", "correct": True},
        {"answer": "b", "correct": True},
        {"answer": "c", "correct": False},
    ),
    item(
        "number",
        "numeric",
        {"type": "value", "value": 2.5, "correct": True},
        {"type": "default", "correct": False},
    ),
]
REFUSED = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('refused') }})"


@pytest.fixture
def base(serve: Callable[[Path], str], tmp_path: Path) -> str:
    """Two pages with a quiz each."""
    for name in ("first", "second"):
        (tmp_path / f"{name}.html").write_text(PAGE.format(quiz_html(ITEMS, name)), "utf-8")
    return serve(tmp_path)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One reader's browser."""
    made = browser.new_context()
    yield made
    made.close()


def show(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.goto(address)
    assert faults == []
    return page


def answer(page: Page) -> None:
    """Right, half right, wrong."""
    items = page.locator("fieldset")
    items.nth(0).get_by_label("a").check()
    items.nth(1).get_by_label("b").check()
    items.nth(2).locator("input").fill("7")
    for index in range(3):
        items.nth(index).get_by_role("button", name="Check").click()


def states(page: Page) -> list[str | None]:
    items = page.locator("fieldset")
    return [items.nth(i).get_attribute("data-state") for i in range(items.count())]


ANSWERED = ["right", "wrong", "wrong"]
NOTHING = [None, None, None]


def test_answers_are_shown_again(context: BrowserContext, base: str) -> None:
    page = show(context, f"{base}/first.html")
    answer(page)
    assert states(page) == ANSWERED
    before = page.locator("fieldset").all_inner_texts()
    again = show(context, f"{base}/first.html")
    assert states(again) == ANSWERED
    assert again.locator("fieldset").all_inner_texts() == before
    assert again.locator("fieldset").nth(2).locator("input").input_value() == "7"
    assert again.locator("fieldset").nth(1).get_by_label("b").is_checked()
    assert again.locator(".ml-score").inner_text() == "1 of 3 solved, kept in this browser."
    assert states(show(context, f"{base}/second.html")) == NOTHING


def test_they_can_be_forgotten_by_keys(context: BrowserContext, base: str) -> None:
    page = show(context, f"{base}/first.html")
    other = show(context, f"{base}/second.html")
    assert not page.get_by_role("button", name="Forget my answers").is_visible()
    answer(page)
    answer(other)
    page.get_by_role("button", name="Forget my answers").focus()
    page.keyboard.press("Enter")
    assert states(page) == NOTHING
    assert page.locator("input:checked").count() == 0
    assert page.locator(".ml-score").inner_text() == ""
    assert states(show(context, f"{base}/first.html")) == NOTHING
    assert states(show(context, f"{base}/second.html")) == ANSWERED


def test_a_question_that_was_changed_is_asked_anew(
    context: BrowserContext, base: str, tmp_path: Path
) -> None:
    answer(show(context, f"{base}/first.html"))
    changed = [{**ITEMS[0], "question": "Another?"}, *ITEMS[1:]]
    (tmp_path / "first.html").write_text(PAGE.format(quiz_html(changed, "first")), "utf-8")
    assert states(show(context, f"{base}/first.html?changed")) == [None, *ANSWERED[1:]]


@pytest.mark.parametrize("kept", ["null", "7", "[", '{"quiz-first-one": {"digest": 1}}'])
def test_what_is_no_answer_is_left_alone(context: BrowserContext, base: str, kept: str) -> None:
    page = show(context, f"{base}/first.html")
    page.evaluate("kept => localStorage.setItem('memory-attention/quiz-first', kept)", kept)
    assert states(show(context, f"{base}/first.html")) == NOTHING


def test_it_marks_where_nothing_can_be_kept(context: BrowserContext, base: str) -> None:
    context.add_init_script(REFUSED)
    page = show(context, f"{base}/first.html")
    answer(page)
    assert states(page) == ANSWERED
    assert page.locator(".ml-score").inner_text() == "1 of 3 solved."
    assert not page.get_by_role("button", name="Forget my answers").is_visible()
    assert states(show(context, f"{base}/first.html")) == NOTHING


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_was_restored_can_be_read_by_all(browser: Browser, book: str, scheme: str) -> None:
    with checks.visit(browser, book, "book/key_value.html", scheme=scheme) as one:
        first = one.page.locator(".ml-quiz fieldset").first
        first.locator("input").first.check()
        first.get_by_role("button", name="Check").click()
        one.page.reload()
        assert one.page.get_by_role("button", name="Forget my answers").is_visible()
        assert not checks.axe_of_controls(one)
