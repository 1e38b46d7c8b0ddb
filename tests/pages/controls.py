"""Quizzes, animations, explorables, used as a reader would: by mouse and by keyboard alone."""

from __future__ import annotations

import checks
from playwright.sync_api import Locator, Page, TimeoutError


def used(one: checks.Visit) -> list[str]:
    """All that can be used on a page answers."""
    return quizzes(one) + players(one) + explorables(one)


def quizzes(one: checks.Visit) -> list[str]:
    """Every item marks a right and a wrong answer and says so in a live region."""
    found = []
    items = one.page.locator(".ml-quiz fieldset")
    for index in range(items.count()):
        item = items.nth(index)
        by_key = index % 2 == 1  # every other item by keyboard alone
        for right in (False, True):
            if fault := _answer(one.page, item, right, by_key):
                found.append(f"quiz item {index + 1} ({'keys' if by_key else 'mouse'}): {fault}")
                break
    return found


# What an item asks and shows, in one look.
ITEM = """item => ({
    ...item.dataset,
    key: [...item.querySelectorAll('.ml-key [data-right]')].map(row => ({...row.dataset})),
    inputs: [...item.querySelectorAll('input')].map(({type, checked}) => ({type, checked})),
    said: item.querySelector('[role=status], [aria-live]')?.textContent.trim(),
})"""


def _answer(page: Page, item: Locator, right: bool, by_key: bool) -> str:
    """Answers one item; returns what is wrong with its reaction."""
    asked = item.evaluate(ITEM)
    truth = [row["right"] == "1" for row in asked["key"]]

    def use(part: Locator, key: str) -> None:
        if by_key:
            part.focus()
            page.keyboard.press(key)
        else:
            part.click()

    if asked.get("type") == "numeric":
        row = asked["key"][truth.index(True)]
        low, high = float(row.get("low") or 0), float(row.get("high") or row.get("low") or 0)
        number = (low + high) / 2 if right else high + 12345
        item.locator("input").fill(repr(number))
    else:
        wanted = truth if right else [i == truth.index(False) for i in range(len(truth))]
        for i, good in enumerate(wanted):
            box = asked["inputs"][i]
            if box["checked"] != good and (good or box["type"] != "radio"):
                use(item.locator("input").nth(i), "Space")
        if [box["checked"] for box in item.evaluate(ITEM)["inputs"]] != wanted:
            return "an option cannot be chosen"
    use(item.locator("button").first, "Enter")
    shown = item.evaluate(ITEM)
    if not shown.get("said"):
        return "the verdict is not announced"
    state = shown.get("state")
    return "" if state == ("right" if right else "wrong") else f"a wrong verdict: {state}"


def players(one: checks.Visit) -> list[str]:
    """Every animation steps by mouse and by keyboard, announces each step and never autoplays."""
    found = []
    all_players = one.page.locator(".ml-player")
    for index in range(all_players.count()):
        player = all_players.nth(index)
        if fault := _step(one.page, player):
            found.append(f"player {player.get_attribute('id')}: {fault}")
    return found


def _step(page: Page, player: Locator) -> str:
    """Steps through one animation; returns what is wrong with it."""
    slider, said = player.locator("input[type=range]"), player.locator("[aria-live]")
    if not slider.count() or not slider.is_visible():
        return "no slider"
    if not said.count():
        return "no live region"
    if not slider.get_attribute("aria-label"):
        return "the slider has no label"

    def at() -> int:
        return int(slider.input_value())

    start = at()
    page.wait_for_timeout(100)
    if at() != start:
        return "it plays by itself"
    before = said.text_content()
    player.get_by_role("button", name="Step forward").click()
    if at() != start + 1 or said.text_content() == before:
        return "the mouse does not step forward"
    player.get_by_role("button", name="Step back").focus()
    page.keyboard.press("Enter")
    if at() != start:
        return "the keyboard does not step back"
    slider.focus()
    page.keyboard.press("ArrowRight")
    if at() != start + 1 or said.text_content() == before:
        return "the arrow keys do not move the slider"
    shown = player.locator(".ml-frame:visible").count()
    return "" if shown == 1 else f"{shown} frames are seen at once"


def explorables(one: checks.Visit) -> list[str]:
    """Every explorable starts, and each thing to try changes what is said, by mouse and by keys."""
    found = []
    roots = one.page.locator(".ml-explore")
    for index in range(roots.count()):
        root = roots.nth(index)
        if fault := _try(one.page, root):
            found.append(f"explorable {root.get_attribute('id')}: {fault}")
    return found


def _try(page: Page, root: Locator) -> str:
    """Uses one explorable; returns what is wrong with it."""
    root.scroll_into_view_if_needed()
    try:
        root.locator(".ml-lab").wait_for(state="visible", timeout=20_000)
    except TimeoutError:
        return "it does not start"
    said, shows = root.locator(".ml-said"), root.get_by_role("button", name="Show me")
    if not shows.count():
        return "nothing can be shown"
    for index in range(shows.count()):
        before = root.inner_text()
        shows.nth(index).focus()
        page.keyboard.press("Enter")
        page.wait_for_timeout(50)
        if root.inner_text() == before:
            return f"thing {index + 1} to try changes nothing"
        root.get_by_role("button", name="Reset").click()
    return "" if (said.text_content() or "").strip() else "nothing is said"


def unfold(one: checks.Visit) -> bool:
    """Opens every folded part (set-up cells, explanations, solutions), if there is one."""
    count: int = one.page.evaluate(
        """() => { const parts = [...document.querySelectorAll('article details')];
        parts.forEach(part => part.open = true);
        const folds = [...document.querySelectorAll('button.toggle-hidden')];
        folds.forEach(button => button.click());
        return parts.length + folds.length }"""
    )
    one.page.wait_for_timeout(100)
    return count > 0
