"""The fruit memory on the introduction's page, asked and written by mouse and by keys."""

from __future__ import annotations

import checks
import numpy as np
import pytest
import torch
from explorables import Explorable, caught, close, every_look, exercised, opened
from playwright.sync_api import Browser

from memlib import address, read, write

LIKE = ["red", "yellow", "sweet", "sour"]
KEYS = torch.tensor(
    [[0.9, 0.1, 0.7, 0.3], [0, 1, 0.1, 1], [0, 1, 0.9, 0], [1, 0, 0.7, 0.3], [0, 0.3, 0.1, 1]]
).double()
VALUES = torch.tensor([[2.0, 7], [3, 2], [1, 8], [5, 4], [4, 6]]).double()
LEVELS = [0.0, 0.5, 1.0]


def look(one: Explorable) -> torch.Tensor:
    """Where memlib looks in the state that the page is in."""
    query = torch.tensor([one.state["query"]], dtype=torch.float64)
    return address(query, KEYS, measure="cosine", strength=float(one.state["strength"]))


def compare(one: Explorable, values: torch.Tensor) -> None:
    """What is shown is what memlib says."""
    weights = look(one)
    close(weights[0], one.seen["weights"])
    close(read(weights, values)[0], one.seen["value"])
    close(values.flatten(), one.seen["values"])


def use(one: Explorable, rng: np.random.Generator, *, by_key: bool) -> None:
    """Asks a random question with a random strength, writes a value and asks again."""
    values = VALUES
    for _ in range(2):
        wanted = [LEVELS[i] for i in rng.integers(0, 3, 4)]
        for i, name in enumerate(LIKE):
            button = one.root.locator(f"button[data-name={name}]")
            while one.state["query"][i] != wanted[i]:
                if by_key:
                    button.focus()
                    one.page.keyboard.press("Space")
                else:
                    button.click()
        if by_key:
            one.slide("strength β", int(rng.integers(-20, 21)))
            one.slide("value", int(rng.integers(-8, 0)))
        else:
            one.put("strength β", float(rng.integers(0, 81)) / 2)
            one.put("value", float(rng.integers(0, 21)) / 2)
        compare(one, values)
        part = int(rng.integers(0, 2))
        choice = one.root.get_by_role("radio", name=["price", "stock"][part])
        if by_key and not choice.is_checked():
            one.root.locator("input[type=radio]:checked").focus()
            one.page.keyboard.press("ArrowRight")
        elif not by_key:
            choice.check()
        assert choice.is_checked()
        weights = look(one)
        erase = torch.eye(2, dtype=torch.float64)[part : part + 1]
        values = write(values, weights, erase * one.state["amount"], erase)
        one.press("Write it") if by_key else one.button("Write it").click()
        compare(one, values)


@every_look
def test_it_answers_any_question(
    browser: Browser, book: str, rng: np.random.Generator, size: str, scheme: str
) -> None:
    with exercised(browser, book, "intro", size, scheme, lambda one: compare(one, VALUES)) as one:
        use(one, rng, by_key=size == "wide")


def test_what_it_asks_to_try_comes_out_as_a_surprise(browser: Browser, book: str) -> None:
    with opened(browser, book, "intro") as one:
        shows = one.button("Show me")
        shows.nth(0).click()
        close([0.2] * 5, one.seen["weights"])
        assert "all answer alike" in one.said
        shows.nth(1).click()
        close([0.2] * 5, one.seen["weights"])
        shows.nth(2).click()
        where = address(
            torch.tensor([[0.0, 1, 0, 1]]).double(), KEYS, measure="cosine", strength=2.0
        )
        erase = torch.tensor([[0.0, 1]]).double()
        compare(one, write(VALUES, where, 9 * erase, erase))
        assert one.seen["values"][7] - 4 > 0.3  # the cherry's stock
        assert "cherry" in one.said


PLANTED = {  # what is done behind the reader's back
    "another strength": "e.draw({...e.state, strength: 19})",
    "a wrong read": "e.seen.value[0] += 1e-4",
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_is_found(browser: Browser, book: str, fault: str) -> None:
    caught(browser, book, "intro", PLANTED[fault], lambda one: compare(one, VALUES))


def test_the_answers_of_its_quiz_come_out(browser: Browser, book: str) -> None:
    with opened(browser, book, "intro") as one:
        lemon, lime = {}, {}
        for step in range(81):
            one.put("strength β", step / 2)
            lemon[step / 2], lime[step / 2] = one.seen["weights"][1], one.seen["weights"][4]
        assert min(strength for strength, weight in lemon.items() if weight > 0.5) == 3.5
        assert (round(100 * lemon[3.5]), round(100 * lemon[3])) == (51, 47)
        assert round(lime[3.5], 2) == round(lime[3], 2) == 0.33
        for name in LIKE:
            button = one.root.locator(f"button[data-name={name}]")
            while one.state["query"][LIKE.index(name)]:
                button.click()
        close(VALUES.mean(0), one.seen["value"])


def test_words_on_a_dark_ground_stay_readable_under_the_pointer(
    browser: Browser, book: str
) -> None:
    with opened(browser, book, "intro", scheme="dark") as one:
        one.page.evaluate("scrollTo(0, 0)")
        one.root.locator("button[data-name=sour]").hover()
        assert not checks.axe(one.visit, "rule", checks.COLORS, ".ml-explore")
