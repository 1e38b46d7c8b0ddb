"""The page's books of a DNC against memlib's: usage, allocation and links for the same draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine import ask, engine, worst
from playwright.sync_api import Browser

from memlib import allocation
from memlib.attention.verbs import _read
from memlib.dnc.bookkeeping import _link, _use

CASES, CLOSE = 200, 1e-5


def draw(seed: int) -> list[dict[str, Any]]:
    """Books in every state: one slot, none free, all free, equals, heads nowhere or in one slot."""
    rng = np.random.default_rng(seed)
    cases = []
    for index in range(CASES):
        slots, reads, writes = (int(size) for size in rng.integers(1, (9, 4, 4)))
        usage = rng.random(slots)
        if index % 4 == 0:
            usage = usage.round()  # free or not: equals among them
        sharp = np.eye(slots)[rng.integers(slots, size=reads + writes)]
        blurred = rng.dirichlet(np.ones(slots), size=reads + writes)
        weights = (sharp if index % 3 == 0 else blurred) * rng.choice([0, 0.5, 1])
        links = rng.dirichlet(np.ones(slots + 1), size=slots)[:, :slots]
        np.fill_diagonal(links, 0)
        cases.append(
            {
                "usage": usage,
                "free": rng.choice([0.0, 1.0, rng.random()], size=reads),
                "read": weights[:reads],
                "written": weights[reads:],
                "links": links,
                "precedence": rng.dirichlet(np.ones(slots)) * rng.random(),
            }
        )
    return cases


def ours(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    t = {name: torch.as_tensor(value)[None] for name, value in case.items()}
    links, precedence = _link(t["links"][None], t["precedence"][None], t["written"][:, :1])
    return {
        "retain": (1 - t["free"].unsqueeze(-1) * t["read"]).prod(1)[0],
        "use": _use(t["usage"], t["written"])[0],
        "allocation": allocation(t["usage"])[0],
        "links": links[0, 0],
        "precedence": precedence[0, 0],
        "back": _read(t["read"][:, :1], t["links"])[0, 0],
        "forth": _read(t["read"][:, :1], t["links"].mT)[0, 0],
    }


THEIRS = """c => {
    const [links, precedence] = link(c.links, c.precedence, c.written[0]);
    const [back, forth] = follow(c.links, c.read[0]);
    return {
        retain: retain(c.free, c.read), use: use(c.usage, c.written),
        allocation: allocation(c.usage), links, precedence, back, forth,
    };
}"""


def differences(browser: Browser, plant: tuple[str, str] = ("", "")) -> dict[str, float]:
    """The worst difference of each book over all cases."""
    cases = draw(1)
    with engine(browser, "bookkeeping.js", plant=plant) as page:
        theirs = ask(page, THEIRS, cases)
    found: dict[str, float] = {}
    for case, answer in zip(cases, theirs, strict=True):
        for name, right in ours(case).items():
            found[name] = max(found.get(name, 0), worst(right, answer[name]))
    return found


def test_the_books_are_memlibs(browser: Browser) -> None:
    found = differences(browser)
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(
    ("name", "plant"),
    {
        "retain": ("kept[n] *= 1", "kept[n] = 1"),
        "use": ("(1 - used[n]) * weights[h][n]", "weights[h][n]"),
        "allocation": ("used[i] - used[j]", "used[j] - used[i]"),
        "links": ("i === j ? 0 :", ""),
        "precedence": ("left * precedence[n] + weight", "weight"),
        "back": ("[read(weights, links)", "[linear(weights, links)"),
        "forth": ("linear(weights, links)]", "read(weights, links)]"),
    }.items(),
)
def test_a_wrong_book_is_found(browser: Browser, name: str, plant: tuple[str, str]) -> None:
    assert differences(browser, plant)[name] > 100 * CLOSE
