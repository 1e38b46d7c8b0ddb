"""The road on the key-value page: walked, measured and rebuilt by mouse and by keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from explorables import Explorable, axe, caught, close, every_look, malformed, opened, restored
from playwright.sync_api import Browser

from memlib import KeyValueMemory, write
from memlib.key_value import KeyValueState

NAMES = {
    "negative_squared_distance": "−distance²",
    "dot": "dot",
    "scaled_dot": "scaled dot",
    "cosine": "cosine",
}
PLACES = torch.arange(-20, 101).double() / 20


def start() -> KeyValueState:
    """The chapter's five stations in a memory of six slots."""
    keys, values = torch.arange(5.0), torch.tensor([12.0, 15, 21, 19, 16])
    six = KeyValueMemory(6, 1, 1, dtype=torch.float64)
    pairs = (x.double()[None, :, None] for x in (keys, values))
    return six.write(*pairs, six.initial_state())


def bend(place: torch.Tensor, road: str) -> torch.Tensor:
    """Keys (..., 1) as they are, or seen from the middle of a lake of 2 kilometers."""
    angle = (place - 2) / 2
    return place if road == "straight" else 2 * torch.cat((angle.sin(), angle.cos()), dim=-1)


def look(one: Explorable, state: KeyValueState) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What memlib reads here, with which weights, and what everywhere."""
    now = one.state
    bent = KeyValueMemory(6, 1 if now["road"] == "straight" else 2, 1, measure=now["measure"])
    there = torch.cat((torch.tensor([now["here"]], dtype=torch.float64), PLACES))
    value, weights = bent.read(
        bend(there[None, :, None], now["road"]),
        state._replace(keys=bend(state.keys, now["road"])),
        strength=float(now["strength"]),
        need_weights=True,
    )
    return value[0, :1, 0], weights[0, 0], value[0, 1:, 0]


def compare(one: Explorable, state: KeyValueState) -> None:
    """What is shown is what memlib holds and says."""
    seen: dict[str, Any] = one.seen
    for name, part in state._asdict().items():
        close(part[0], seen[name])
    value, weights, curve = look(one, state)
    close(value, seen["value"])
    close(weights, seen["weights"])
    close(curve, seen["curve"])


def choose(one: Explorable, name: str, *, by_key: bool) -> None:
    """Takes a radio button, with the arrows of the keyboard or a click."""
    wanted = one.root.get_by_role("radio", name=name, exact=True)
    if not by_key:
        wanted.check()
    while by_key and not wanted.is_checked():
        group = wanted.evaluate("e => e.name")
        one.root.locator(f"input[name={group}]:checked").focus()
        one.page.keyboard.press("ArrowRight")


def places(one: Explorable, *values: tuple[float, float]) -> list[tuple[float, float]]:
    """Where kilometers and degrees lie in the window."""
    drawing = one.root.locator("svg.ml-plot").first
    drawing.scroll_into_view_if_needed()
    box = drawing.bounding_box()
    assert box is not None
    scale = box["width"] / 600  # of a drawing 600 wide, as plot() lays it out
    return [
        (box["x"] + scale * (44 + (km + 1) / 6 * 546), box["y"] + scale * (214 - warm / 30 * 202))
        for km, warm in values
    ]


def pull(one: Explorable, place: tuple[float, float], to: tuple[float, float]) -> None:
    """Drags in the drawing, from kilometer and degrees to others."""
    start, end = places(one, place, to)
    one.page.mouse.move(*start)
    one.page.mouse.down()
    one.page.mouse.move(*end, steps=3)
    one.page.mouse.up()


def assign(memory: torch.Tensor, slot: int, number: float) -> torch.Tensor:
    """One slot of (1, 6, 1) overwritten: one-hot weights, all erased."""
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    return write(memory, torch.eye(6, dtype=torch.float64)[None, [slot]], one * number, one)


def walk(one: Explorable, rng: np.random.Generator, state: KeyValueState, *, by_key: bool) -> None:
    """Goes somewhere else and looks at the road in another way."""
    if by_key:
        one.slide("you stand at", int(rng.integers(-30, 30)))
        one.slide("strength β", int(rng.integers(-3, 20)))
    else:
        here = float(rng.integers(-10, 50)) / 10
        # The lowest line of the drawing: no station is there.
        pull(one, (one.state["here"], 0.0), (here, 0.0))
        assert abs(one.state["here"] - here) <= 0.05 + 1e-9
        one.put("strength β", float(rng.integers(0, 41)) / 2)
    compare(one, state)
    choose(one, NAMES[str(rng.choice(list(NAMES)))], by_key=by_key)
    choose(one, str(rng.choice(["straight", "bent around a lake"])), by_key=by_key)
    compare(one, state)


def build(
    one: Explorable, rng: np.random.Generator, state: KeyValueState, *, by_key: bool
) -> KeyValueState:
    """Adds, moves, overwrites and deletes a station; returns what memlib then holds."""
    six = KeyValueMemory(6, 1, 1, dtype=torch.float64)
    one.slide("it says", int(rng.integers(-10, 30)))

    def press(name: str) -> None:
        one.press(name) if by_key else one.button(name).click()

    for _ in range(2):  # the second finds no free slot
        pair = (torch.tensor([[[one.state[n]]]], dtype=torch.float64) for n in ("here", "says"))
        state = six.write(*pair, state)
        press("Write a pair here")
        compare(one, state)
        walk(one, rng, state, by_key=by_key)
    slot = int(rng.integers(0, 6))
    row = one.root.locator(".ml-slots li").nth(slot).get_by_role("radio")
    choose(one, row.evaluate("e => e.parentElement.textContent"), by_key=by_key)
    if by_key:
        one.slide("its kilometer", int(rng.integers(-10, 11)))
        one.slide("its degrees", int(rng.integers(-10, 11)))
    else:
        one.put("its degrees", float(rng.integers(40, 60)) / 2)
        now = one.state
        to = (float(rng.integers(-9, 49)) / 10, float(rng.integers(2, 20)))
        pull(one, (now["at"][now["slot"]], now["degrees"][now["slot"]]), to)
        assert abs(one.state["at"][one.state["slot"]] - to[0]) < 0.1
    now = one.state
    km, warm = (now[name][now["slot"]] for name in ("at", "degrees"))
    keys, values = (
        assign(part, now["slot"], to) for part, to in ((state.keys, km), (state.values, warm))
    )
    state = state._replace(keys=keys, values=values)
    compare(one, state)
    most = int(look(one, state)[1].argmax())
    state = state._replace(values=assign(state.values, most, one.state["says"]))
    press("Overwrite the most alike")
    compare(one, state)
    gone = torch.arange(6) == one.state["slot"]
    state = six.delete(gone[None], state)
    press("Delete the chosen station")
    compare(one, state)
    return state


@every_look
def test_the_road_is_walked_and_rebuilt(
    browser: Browser, book: str, rng: np.random.Generator, size: str, scheme: str
) -> None:
    by_key = size == "wide"
    with opened(browser, book, "key_value", size, scheme) as one:
        state = start()
        compare(one, state)
        axe(one)
        walk(one, rng, state, by_key=by_key)
        state = build(one, rng, state, by_key=by_key)
        axe(one)
        restored(browser, one)
        if by_key:
            malformed(browser, one)
        while state.filled.any():  # down to an empty memory, which reads 0
            gone = torch.arange(6) == one.state["slot"]
            state = KeyValueMemory(6, 1, 1).delete(gone[None], state)
            one.press("Delete the chosen station")
            compare(one, state)
        assert "No station is left. Read: 0.00" in one.said
        axe(one)
        one.press("Write a pair here")
        assert "the only station answers" in one.said
        one.button("Reset").click()
        compare(one, start())


def test_a_finger_drags_a_station_and_the_reader(browser: Browser, book: str) -> None:
    with opened(browser, book, "key_value", "narrow") as one:
        one.swipe(*places(one, (3, 19), (3.2, 15), (3.5, 10)))
        assert (one.state["at"][3], one.state["degrees"][3]) == pytest.approx((3.5, 10), abs=0.6)
        one.swipe(*places(one, (2.4, 2), (1.5, 2), (0.5, 2)))
        assert one.state["here"] == pytest.approx(0.5, abs=0.06)


def test_parts_of_an_address_that_do_not_fit_give_the_first_state(
    browser: Browser, book: str
) -> None:
    for query in ("?written=1,1,3,4,5,0", "?at=0,1,2,3,4,1", "?slot=5", "?written=0,1,2,3,4,5"):
        with opened(browser, book, "key_value", query=query) as one:
            compare(one, start())


def test_what_it_asks_to_try_comes_out_as_a_surprise(browser: Browser, book: str) -> None:
    with opened(browser, book, "key_value") as one:
        shows = one.button("Show me")
        shows.nth(0).click()  # by the dot product the last station answers, not one's own
        assert one.seen["weights"][4] > 0.8 > 0.02 > one.seen["weights"][1]
        assert "the nearest, at 1.0," in one.said
        shows.nth(1).click()  # both pairs of a place stay
        close(15.0, one.seen["value"][0])
        assert "2 stations count alike, 50 % each" in one.said
        one.put("strength β", 0.5)
        assert one.seen["weights"][2] == one.seen["weights"][5]
        shows.nth(2).click()  # the cosine of two positive numbers is 1
        for strength in (20, 1):
            one.put("strength β", strength)
            assert len({round(read, 6) for read in one.seen["curve"]}) == 3
        choose(one, "bent around a lake", by_key=False)
        assert len({round(read, 6) for read in one.seen["curve"]}) == 121


def test_around_the_lake_the_measures_agree_but_for_the_strength(
    browser: Browser, book: str
) -> None:
    with opened(browser, book, "key_value") as one:
        choose(one, "bent around a lake", by_key=False)
        curve = one.seen["curve"]
        for name, strength in (("dot", 4), ("cosine", 16)):  # the first is a question of the quiz
            choose(one, name, by_key=True)
            one.put("strength β", strength)
            close(curve, one.seen["curve"])


PLANTED = {  # what is done behind the reader's back
    "another measure": "e.draw({...e.state, measure: 'scaled_dot', strength: 2.5})",
    "a curve that is not followed": "e.seen.curve[60] += 1e-3",
    "another order of writing": "e.seen.written[0] = 9",
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_is_found(browser: Browser, book: str, fault: str) -> None:
    caught(browser, book, "key_value", PLANTED[fault], lambda one: compare(one, start()))
