"""Two matrices that are told where people live: told anew and asked, by mouse and by keys."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from explorables import Explorable, axe, caught, close, every_look, exercised, opened
from playwright.sync_api import Browser

from memlib import matrix_memory, read, similarity

WIDTH, LONGEST, OWN, SALT = 16, 12, 12, 17
RULES = {"sum": "sum", "delta": "delta rule"}
STRANGE = ["zoe", "åsa", "o'neill", "Jean-Luc", "  Ada  ", "mário", "a>b|c", "Ελένη", "x"]
DRAWS = 200


def numbers(seed: int) -> Iterator[float]:
    """The page's random numbers in [0, 1): a counter, and a mixing of its bits."""
    whole = (1 << 32) - 1
    while True:
        seed = (seed + 0x6D2B79F5) & whole
        mixed = (seed ^ seed >> 15) * (seed | 1) & whole
        mixed ^= mixed + ((mixed ^ mixed >> 7) * (mixed | 61) & whole) & whole
        yield ((mixed ^ mixed >> 14) & whole) / (1 << 32)


def vector(text: str) -> torch.Tensor:
    """A vector of length 1, drawn from a text: FNV-1a is the seed, Box and Muller make normal."""
    seed = 0x811C9DC5
    for letter in text:
        seed = (seed ^ ord(letter)) * 0x01000193 & 0xFFFFFFFF
    draw = numbers(seed)
    normal = [
        math.sqrt(-2 * math.log(1 - next(draw))) * math.cos(2 * math.pi * next(draw))
        for _ in range(WIDTH)
    ]
    return unit(torch.tensor(normal, dtype=torch.float64))


def unit(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def word(said: str) -> str:
    """The word that is meant, of plain letters: small, without what is no letter, at most 12."""
    plain = re.sub(r"[^\w' -]+|_", " ", said.lower())
    return re.sub(r"\s+", " ", plain.strip())[:LONGEST].strip()


def keys_of(names: list[str], known: list[str], state: dict[str, Any]) -> torch.Tensor:
    """Keys: what all share, what a letter shares and what is a name's own, mixed by cosines."""
    every = [*known, *names]
    own = torch.stack([vector(f"{SALT} key {name}") for name in every])
    letter = torch.stack([vector(f"{SALT} letter {name[:1]}") for name in every])
    keys = mixed(own, letter, vector(f"{SALT} mean"), state["correlation"], state["mean"])
    if state["centre"]:
        keys = unit(keys - keys[: len(known)].mean(0))
    return keys[len(known) :]


def mixed(
    own: torch.Tensor, letter: torch.Tensor, common: torch.Tensor, correlation: float, mean: float
) -> torch.Tensor:
    near = unit(correlation**0.5 * letter + (1 - correlation) ** 0.5 * own)
    return unit(mean**0.5 * common + (1 - mean) ** 0.5 * near)


def held(keys: torch.Tensor, values: torch.Tensor, rate: float, rule: str) -> torch.Tensor:
    """The matrix (M, V) after all facts, in memlib."""
    if not len(keys):
        return torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
    steps, adds = keys[None, None], values[None, None]
    erase = rate if rule == "delta" else None
    return matrix_memory(steps, steps, adds, write=rate, erase=erase)[1][0, 0]


def compare(one: Explorable) -> dict[str, Any]:
    """Matrices, answers and the numbers behind them are those of memlib."""
    state, seen = one.state, one.seen
    known = [(word(name), word(place)) for name, place in one.get("data")["facts"]]
    story = [*known[: state["facts"]] * state["rounds"], *map(tuple, state["told"])]
    listed = [*known[: state["facts"]], *map(tuple, state["told"])]
    names = list(dict.fromkeys(name for name, _ in listed))
    places = list(dict.fromkeys(place for _, place in [*known, *map(tuple, state["told"])]))
    assert (seen["names"], seen["places"]) == (names, places)
    asked = word(state["name"])
    keys = keys_of([*names, asked], [name for name, _ in known], state)
    close(keys[-1], seen["key"])
    values = torch.stack([vector(f"{SALT} value {place}") for place in places])
    who = torch.tensor([names.index(name) for name, _ in story], dtype=torch.int64)
    where = torch.tensor([places.index(place) for _, place in story], dtype=torch.int64)
    last = {name: places.index(place) for name, place in listed}
    for rule, name in RULES.items():
        matrix = held(keys[who], values[where], state["rate"], rule)
        reads = read(keys, matrix)
        alike = similarity(reads, values, measure="cosine")
        answers = (
            (alike > alike.amax(-1, keepdim=True) - 1e-9).int().argmax(-1)
        )  # the first of equals
        found = seen[rule]
        close(matrix, found["matrix"])
        close(alike[-1], found["asked"])
        close(reads[-1], found["read"])
        if names:
            close(alike[:-1], found["alike"])
        right = [int(answers[n]) == last[who] for n, who in enumerate(names)]
        assert found["right"] == sum(right), (rule, state)
        shown(one, name, right, alike, [last[who] for who in names], answers, places)
    assert one.root.locator(".ml-facts tbody tr:visible").count() == len(names)
    return dict(seen)


def shown(
    one: Explorable,
    rule: str,
    right: list[bool],
    alike: torch.Tensor,
    last: list[int],
    answers: torch.Tensor,
    places: list[str],
) -> None:
    """The list says of each name whether its answer is right, and which it is where it is not."""
    column = list(RULES.values()).index(rule)
    head = one.root.locator(".ml-facts thead th").nth(column + 1).text_content()
    assert head == f"{rule}: {sum(right)} of {len(right)}"
    cells = one.root.locator(f".ml-facts tbody tr:visible td:nth-of-type({column + 1})")
    for n, text in enumerate(cells.all_text_contents()):
        mark, said = text.split(" ", 1)
        assert mark == "✗✓"[right[n]]
        if right[n]:
            assert abs(float(said.replace("−", "-")) - alike[n, last[n]]) < 0.0051
        else:
            assert said.lower() == places[int(answers[n])]


def type_in(one: Explorable, label: str, said: str, *, by_key: bool) -> None:
    """Types a word, key by key, or puts it in as a paste does."""
    field = one.root.get_by_role("textbox", name=label, exact=True)
    if not by_key:
        field.fill(said)
        return
    field.focus()
    one.page.keyboard.press("Control+a")
    one.page.keyboard.press("Delete")
    one.page.keyboard.type(said)


def use(one: Explorable, rng: np.random.Generator, *, by_key: bool) -> None:
    """Tells, overwrites, takes back and asks, under other settings each time."""
    told: list[tuple[str, str]] = []
    data = one.get("data")["facts"]
    for step in range(6):
        for label, low, high in (("facts told", 0, 24), ("rounds of telling", 1, 10)):
            one.slide(label, int(rng.integers(-8, 9))) if by_key else one.put(
                label, int(rng.integers(low, high + 1))
            )
        for label in ("rate β", "correlation of keys", "mean of the keys"):
            if rng.random() < 0.6:
                by = int(rng.integers(-12, 13))
                one.slide(label, by) if by_key else one.put(label, int(rng.integers(1, 20)) / 20)
        box = one.root.get_by_role("checkbox")
        if by_key:
            box.focus()
            one.page.keyboard.press("Space")
        else:
            box.click()
        compare(one)
        name = str(rng.choice([data[int(rng.integers(24))][0], str(rng.choice(STRANGE))]))
        place = str(rng.choice([data[int(rng.integers(24))][1], str(rng.choice(STRANGE))]))
        type_in(one, "Name", name, by_key=by_key)
        compare(one)
        type_in(one, "lives in", place, by_key=by_key)
        if by_key:
            one.page.keyboard.press("Enter")
        else:
            one.button("Tell it").click()
        told.append((word(name), word(place)))
        assert [tuple(pair) for pair in one.state["told"]] == told
        compare(one)
        if step % 3 == 2:
            back = "Take the last one back"
            one.press(back) if by_key else one.button(back).click()
            told.pop()
            assert [tuple(pair) for pair in one.state["told"]] == told
        rows = one.root.locator(".ml-facts tbody tr:visible")
        chosen = rows.nth(int(rng.integers(rows.count()))).get_by_role("button")
        if by_key:
            chosen.focus()
            one.page.keyboard.press("Enter")
        else:
            chosen.click()
        assert one.state["name"] == chosen.text_content()
        compare(one)


@every_look
def test_anything_can_be_told_and_overwritten(
    browser: Browser, book: str, rng: np.random.Generator, size: str, scheme: str
) -> None:
    with exercised(browser, book, "fast_weights", size, scheme, compare) as one:
        use(one, rng, by_key=size == "wide")


def test_words_that_are_none_are_not_told(browser: Browser, book: str) -> None:
    with opened(browser, book, "fast_weights", "narrow") as one:
        assert "Any name and any place will do" in (one.root.text_content() or "")
        first = one.state["told"]
        for name, place in (("", "Rome"), ("Ada", "   "), ("?!", "Rome")):
            type_in(one, "Name", name, by_key=False)
            type_in(one, "lives in", place, by_key=True)
            one.page.keyboard.press("Enter")
            assert one.state["told"] == first
            assert one.button("Tell it").is_disabled()
            compare(one)
        assert "Type a name" in one.said
        type_in(one, "Name", "Zoe", by_key=True)
        assert "Nobody said where Zoe lives" in one.said
        type_in(one, "Name", "n" * 20, by_key=True)
        assert one.state["name"] == "n" * LONGEST
        type_in(one, "lives in", "Rome", by_key=True)
        for _ in range(OWN + 2):
            one.page.keyboard.press("Enter")
        assert one.state["told"] == [["n" * LONGEST, "rome"]] * OWN
        assert one.button("Tell it").is_disabled()
        axe(one)  # the longest name there is
        one.put("facts told", 0)
        compare(one)
        for _ in range(OWN):
            one.press("Take the last one back")
        assert "Nothing has been told" in one.said
        compare(one)
        assert one.seen["sum"]["right"] == one.seen["delta"]["right"] == 0


def test_addresses_hold_only_words_as_they_are_told(browser: Browser, book: str) -> None:
    with opened(browser, book, "fast_weights", query="?told=åsa>bergen|ada>åsa&facts=3") as one:
        assert one.state["told"] == [["åsa", "bergen"], ["ada", "åsa"]]
        compare(one)
    for said in ("ada", "ada>", ">rome", "Ada>rome", "a>b>c", "ada>ro|me", "ada>" + "x" * 13):
        with opened(browser, book, "fast_weights", query=f"?told={said}&facts=3") as one:
            assert (one.state["told"], one.state["facts"]) == ([], 8), said


def counts(one: Explorable) -> tuple[int, int]:
    seen = compare(one)
    return seen["sum"]["right"], seen["delta"]["right"]


def answer(one: Explorable, rule: str) -> str:
    """The place that a matrix gives for the name that is asked for."""
    seen = one.seen
    return str(seen["places"][int(np.argmax(seen[rule]["asked"]))])


def test_a_mean_ruins_the_sum_and_centring_mends_it(browser: Browser, book: str) -> None:
    with opened(browser, book, "fast_weights") as one:
        one.button("Show me").nth(0).click()
        ruined = counts(one)
        assert len({int(np.argmax(row)) for row in one.seen["sum"]["alike"]}) == 2
        one.root.get_by_role("checkbox").check()
        mended = counts(one)
        one.root.get_by_role("checkbox").uncheck()
        one.put("rounds of telling", 10)
        one.put("rate β", 0.3)
        patient = counts(one)
        assert max(ruined) <= 2
        assert min(mended) >= 13
        assert patient[0] == ruined[0]
        assert patient[1] >= 14


def test_at_rate_1_the_sum_keeps_more_and_at_a_lower_rate_delta(
    browser: Browser, book: str
) -> None:
    with opened(browser, book, "fast_weights") as one:
        one.put("facts told", 24)
        once = counts(one)
        one.put("rounds of telling", 5)
        again = counts(one)
        one.put("rate β", 0.3)
        slower = counts(one)
        by_hand = one.state
        one.button("Show me").nth(1).click()
        assert one.state == by_hand
        assert once[0] == again[0] == slower[0], "the sum is only longer"
        assert once[1] < again[1] < once[0] < slower[1]


def test_what_is_told_anew_is_believed_by_delta_first(browser: Browser, book: str) -> None:
    with opened(browser, book, "fast_weights") as one:
        one.put("rounds of telling", 5)
        one.put("rate β", 0.3)
        believed: dict[str, int] = {}
        for times in range(OWN):
            for rule in RULES:
                if answer(one, rule) == "nairobi":
                    believed.setdefault(rule, times)
            one.press("Tell it")
        assert believed == {"delta": 2, "sum": 5}
        one.button("Show me").nth(2).click()
        assert (answer(one, "sum"), answer(one, "delta")) == ("rome", "nairobi")
        compare(one)


def test_two_places_told_once_each_are_both_in_the_sum(browser: Browser, book: str) -> None:
    told = "ada>rome|ada>nairobi"
    with opened(browser, book, "fast_weights", query=f"?facts=0&told={told}") as one:
        compare(one)
        alike = [one.seen["sum"]["asked"][one.seen["places"].index(p)] for p in ("rome", "nairobi")]
        assert abs(alike[0] - alike[1]) < 1e-9
        assert (answer(one, "delta"), max(one.seen["delta"]["asked"])) == (
            "nairobi",
            pytest.approx(1),
        )


@pytest.mark.parametrize(
    ("slider", "start", "end"),
    [
        ("rate β", {"facts told": 24, "rate β": 1}, 0.2),
        ("rounds of telling", {"facts told": 24, "rate β": 0.1}, 10),
    ],
)
def test_one_slider_turns_it_round(
    browser: Browser, book: str, slider: str, start: dict[str, float], end: float
) -> None:
    with opened(browser, book, "fast_weights") as one:
        for label, value in start.items():
            one.put(label, value)
        added, corrected = counts(one)
        assert added > corrected
        one.put(slider, end)
        added, corrected = counts(one)
        assert added < corrected


def test_at_rate_1_more_rounds_change_nothing(browser: Browser, book: str) -> None:
    with opened(browser, book, "fast_weights") as one:
        one.put("facts told", 24)
        found = set()
        for rounds in (3, 5, 10):
            one.put("rounds of telling", rounds)
            found.add(counts(one))
        assert len(found) == 1
        assert next(iter(found))[0] > next(iter(found))[1]


def draws(facts: int, rounds: int, rate: float, mean: float, *, centre: bool) -> torch.Tensor:
    """How many facts come back under both rules, (2, draws), for other keys and values."""
    generator = torch.Generator().manual_seed(0)
    own, letter, values = (
        unit(torch.randn(DRAWS, 24, WIDTH, generator=generator, dtype=torch.float64))
        for _ in range(3)
    )
    keys = mixed(own, letter, letter[:, :1], 0.0, mean)
    keys = (unit(keys - keys.mean(1, keepdim=True)) if centre else keys)[:, :facts]
    steps, adds = (x[:, None, :facts].repeat(1, 1, rounds, 1) for x in (keys, values))
    found = []
    for erase in (None, rate):
        matrix = matrix_memory(steps, steps, adds, write=rate, erase=erase)[1][:, 0]
        answers = (read(keys, matrix) @ values.mT).argmax(-1)
        found.append((answers == torch.arange(facts)).sum(-1))
    return torch.stack(found)


def test_the_surprises_are_not_those_of_a_lucky_draw() -> None:
    ruined = draws(16, 1, 1.0, 0.8, centre=False)
    mended = draws(16, 1, 1.0, 0.8, centre=True)
    patient = draws(16, 10, 0.3, 0.8, centre=False)
    assert (ruined <= 4).all(0).double().mean() > 0.95
    assert (mended >= ruined + 5).all(0).double().mean() > 0.95
    assert (patient[0] == ruined[0]).all()
    assert (patient[1] >= ruined[1] + 5).double().mean() > 0.95
    once = draws(24, 1, 1.0, 0.0, centre=False)
    slower = draws(24, 5, 0.3, 0.0, centre=False)
    assert (once[0] > once[1]).double().mean() > 0.95
    assert (slower[1] > slower[0]).double().mean() > 0.9


PLANTED = {  # what is done behind the reader's back
    "another rate": "e.draw({...e.state, rate: 0.95})",
    "a name forgotten": "e.draw({...e.state, facts: e.state.facts - 1})",
    "a wrong number in a matrix": "e.seen.delta.matrix[3][5] += 1e-4",
    "a wrong mark": "document.querySelector('.ml-facts td').textContent = '✗ Oslo'",
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_is_found(browser: Browser, book: str, fault: str) -> None:
    caught(browser, book, "fast_weights", PLANTED[fault], compare)
