"""Digits of the content page: rubbed out, drawn, filled and recalled, by mouse and by keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from explorables import Explorable, caught, close, every_look, exercised, opened
from playwright.sync_api import Browser
from sklearn.datasets import load_digits

from memlib import ClassicalHopfield, Hopfield, read

FILLS = {"average": "the average", "white": "white paper", "grey": "grey", "noise": "noise"}
NEAR = 1e-4  # the page has the pictures' average in single precision


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The chapter's stored pictures, three of each kind in turn, and the average of all."""
    bunch = load_digits()
    order = torch.randperm(1797, generator=torch.manual_seed(0))
    pictures = torch.tensor(bunch.data, dtype=torch.float32)[order]
    kinds = torch.tensor(bunch.target)[order]
    kept = [int((kinds == k).nonzero()[turn]) for turn in range(3) for k in range(10)]
    return pictures[kept].double(), pictures.mean(dim=0).double()


PICTURES, AVERAGE = digits()


def draws(seed: int) -> Iterator[float]:
    """The numbers that the page draws from a seed (js/random.js), in whole numbers of 32 bits."""
    count, full = seed, 1 << 32
    while True:
        count = (count + 0x6D2B79F5) % full
        mixed = ((count ^ (count >> 15)) * (count | 1)) % full
        mixed ^= (mixed + ((mixed ^ (mixed >> 7)) * (mixed | 61)) % full) % full
        yield (mixed ^ (mixed >> 14)) / full


def given(state: dict[str, Any]) -> torch.Tensor:
    """The damaged picture with its hole filled, as the chapter hides pixels."""
    levels = "0123456789abcdefg"
    inks = [
        PICTURES[state["asked"], i].item() if ink == "." else float(levels.index(ink))
        for i, ink in enumerate(state["drawn"])
    ]
    own = draws(state["seed"])
    fillings = {
        "average": AVERAGE,
        "white": torch.zeros(64),
        "grey": torch.full((64,), 8.0),
        "noise": torch.tensor([16 * next(own) for _ in range(64)], dtype=torch.float64),
    }
    hole = torch.tensor([one == "1" for one in state["hole"]])
    return torch.where(hole, fillings[state["fill"]], torch.tensor(inks)).double()


def prepare(pictures: torch.Tensor) -> torch.Tensor:
    """Less the average, at length 1, as the chapter prepares; nothing stays nothing."""
    rest = pictures - AVERAGE
    length = rest.norm(dim=-1, keepdim=True)
    return rest / torch.where(length > 0, length, 1.0)


def compare(one: Explorable) -> None:
    """What is shown is what memlib recalls, step by step."""
    state, seen = one.state, one.seen
    ink, count, steps = given(state), state["count"], state["steps"]
    if state["network"] == "modern":
        bank, query = prepare(PICTURES[:count]), prepare(ink)[None]
        path = [query]
        for _ in range(steps):
            path.append(Hopfield(2.0 ** state["power"])(path[-1], bank))
        net = Hopfield(2.0 ** state["power"], steps=steps)
        answer, weights = net(query, bank, need_weights=True)
        energies = [net.energy(x, bank).item() for x in path]
        close(read(weights, PICTURES[:count])[0], seen["picture"], NEAR)
        tolerance = NEAR
    else:
        bank = torch.where(PICTURES[:count] >= 8, 1.0, -1.0).double()
        unknown = torch.tensor([c == "1" and state["fill"] == "grey" for c in state["hole"]])
        query = torch.where(ink >= 8, 1.0, -1.0).double().masked_fill(unknown, 0)[None]
        net = ClassicalHopfield(steps)
        answer, weights = net(query, bank), net(query, bank) @ bank.mT / 64
        path = [query] + [ClassicalHopfield(t)(query, bank) for t in range(1, steps + 1)]
        energies = [net.energy(x, bank).item() for x in path]
        close(net.energy(bank, bank).min(), seen["lowest"])
        tolerance = 1e-5
    close(query[0], seen["query"], tolerance)
    close(answer[0], seen["state"], tolerance)
    close(weights[0], seen["weights"], tolerance)
    close(energies, seen["energies"], tolerance)


def pick(one: Explorable, name: str, *, by_key: bool) -> None:
    """Takes a radio button, with the arrows of the keyboard or a click."""
    wanted = one.root.get_by_role("radio", name=name, exact=True)
    if not by_key:
        wanted.check()
    while by_key and not wanted.is_checked():
        group = wanted.evaluate("e => e.name")
        one.root.locator(f"input[name={group}]:checked").focus()
        one.page.keyboard.press("ArrowRight")


def dark(state: dict[str, Any], at: int) -> bool:
    """Whether a pixel is known and inked."""
    return state["hole"][at] == "0" and bool(given(state)[at] >= 8)


def middles(one: Explorable, pixels: list[int]) -> list[tuple[float, float]]:
    """Where pixels lie in the window."""
    cells = one.root.locator(".ml-cell")
    cells.nth(pixels[-1]).scroll_into_view_if_needed()
    boxes = [cells.nth(pixel).bounding_box() for pixel in pixels]
    return [(b["x"] + b["width"] / 2, b["y"] + b["height"] / 2) for b in boxes if b]


def stroke(one: Explorable, rng: np.random.Generator, *, by_key: bool) -> None:
    """Draws with the brush: four cells of a row from some cell on."""
    row, column = int(rng.integers(0, 8)), int(rng.integers(0, 5))
    before = one.state
    if by_key:
        one.root.locator(".ml-cell[tabindex='0']").focus()
        for key in ["ArrowUp"] * 8 + ["ArrowLeft"] * 8 + ["ArrowDown"] * row:
            one.page.keyboard.press(key)
        for _ in range(column):
            one.page.keyboard.press("ArrowRight")
        for _ in range(4):
            one.page.keyboard.press("Space")
            one.page.keyboard.press("ArrowRight")
        toggled = range(4)
    else:
        places = middles(one, [8 * row + column + i for i in range(4)])
        one.page.mouse.move(*places[0])
        one.page.mouse.down()
        for place in places[1:]:
            one.page.mouse.move(*place)
        one.page.mouse.up()
        toggled = range(1)  # what the first became, the others become too
    for i in range(4):
        at = 8 * row + column + i
        start = at if i in toggled else 8 * row + column
        after = one.state
        if before["brush"] == "rub":
            assert after["hole"][at] == ("0" if before["hole"][start] == "1" else "1")
        else:
            assert dark(after, at) != dark(before, start)


def use(one: Explorable, rng: np.random.Generator, *, by_key: bool) -> None:
    """Rubs out, draws, fills the hole, slides and steps, in both networks."""

    def press(name: str) -> None:
        one.press(name) if by_key else one.button(name).click()

    for network in ("modern", "classical"):
        pick(one, network, by_key=by_key)
        if by_key:
            one.slide("digit taken", int(rng.integers(-4, 25)))
            one.slide("digits stored", int(rng.integers(-9, 10)))
            one.slide("updates", int(rng.integers(0, 6)))
        else:
            number = int(rng.integers(0, 10))
            one.put("digits stored", 30)
            one.root.locator(".ml-shelf li").nth(number).click()
            assert one.state["asked"] == number
            one.put("digits stored", int(rng.integers(1, 31)))
            one.put("updates", int(rng.integers(1, 12)))
        if network == "modern":
            # The sharpest strengths blow up what single precision left of the average.
            one.put("strength β", float(rng.integers(-4, 25)) / 4)
        compare(one)
        pick(one, FILLS[str(rng.choice(list(FILLS)))], by_key=by_key)
        stroke(one, rng, by_key=by_key)
        compare(one)
        pick(one, "draws ink", by_key=by_key)
        stroke(one, rng, by_key=by_key)
        compare(one)
        pick(one, "noise", by_key=by_key)
        press("Rub out the lower half")
        press("Other noise")
        compare(one)
        if one.state["steps"] < 20:
            steps = one.state["steps"]
            press("One more update")
            assert one.state["steps"] == steps + 1
        compare(one)
        press("Blank paper")  # and a digit of one's own
        stroke(one, rng, by_key=by_key)
        compare(one)
        pick(one, "rubs out", by_key=by_key)
        stroke(one, rng, by_key=by_key)


@every_look
def test_a_digit_is_rubbed_out_and_recalled(
    browser: Browser, book: str, rng: np.random.Generator, size: str, scheme: str
) -> None:
    with exercised(browser, book, "content", size, scheme, compare) as one:
        use(one, rng, by_key=size == "wide")


def test_a_finger_rubs_out(browser: Browser, book: str) -> None:
    with opened(browser, book, "content", "narrow") as one:
        one.button("As it was").click()
        assert "1" not in one.state["hole"]
        one.swipe(*middles(one, [3, 11, 19, 27, 28]))  # downwards, where a page would scroll
        hole = [i for i, c in enumerate(one.state["hole"]) if c == "1"]
        assert hole == [3, 11, 19, 27, 28]
        compare(one)


def test_what_it_asks_to_try_comes_out_as_a_surprise(browser: Browser, book: str) -> None:
    with opened(browser, book, "content") as one:
        shows = one.button("Show me")
        shows.nth(0).click()  # a 0 with white paper in its hole is a 9, with certainty
        assert one.seen["weights"][9] > 0.8
        assert "another one, a 9, has" in one.said
        pick(one, "the average", by_key=False)
        assert max(one.seen["weights"]) == one.seen["weights"][0] > 0.8
        shows.nth(1).click()  # a 4, which becomes a 1 that nobody wrote
        assert max(one.seen["weights"]) == one.seen["weights"][4]
        one.put("updates", 20)
        ones = one.seen["weights"][1::10]
        assert sum(ones) > 0.85 > 0.5 > max(ones)
        compare(one)
        shows.nth(2).click()  # ten questions, one answer, lower than all that is stored
        answers = set()
        for asked in range(10):
            one.put("digit taken", asked)
            answers.add(tuple(one.seen["state"]))
            assert one.seen["energies"][-1] < one.seen["lowest"] - 10
        assert len(answers) == 1


def test_two_digits_are_what_the_classical_network_holds(browser: Browser, book: str) -> None:
    with opened(browser, book, "content", query="?network=classical&fill=grey&steps=10") as one:
        one.put("digit taken", 0)
        exact = []
        for count in range(1, 31):  # a question of the quiz
            one.put("digits stored", count)
            if " 64 of 64 pixels" in one.said:
                exact.append(count)
        assert exact == [1, 2]


PLANTED = {  # what is done behind the reader's back
    "another strength": "e.draw({...e.state, power: 3.9})",
    "a picture that is not stored": "e.draw({...e.state, count: 9, asked: 4})",
    "a wrong energy": "e.seen.energies[1] += 1e-3",
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_is_found(browser: Browser, book: str, fault: str) -> None:
    caught(browser, book, "content", PLANTED[fault], compare)
