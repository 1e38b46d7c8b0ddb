"""The page's verbs against memlib's: the same numbers for the same draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine import ask, engine, worst
from playwright.sync_api import Browser

import memlib
from memlib.attention.verbs import MEASURES

CASES, CLOSE = 200, 1e-5


def draw(seed: int) -> list[dict[str, Any]]:
    """Random reads: sizes, scales, measures, strengths, masks, zero vectors among them."""
    rng = np.random.default_rng(seed)
    cases = []
    for index in range(CASES):
        slots, width, value_width = (int(size) for size in rng.integers(1, 9, 3))
        scale = 10.0 ** rng.integers(-2, 3)
        if index % 20 == MEASURES.index("cosine"):
            scale = [1e-170, 1e170][index % 40 // 20]  # their squares are no numbers
        cases.append(
            {
                "query": rng.normal(size=width) * scale * (index % 10 > 0),
                "keys": rng.normal(size=(slots, width)) * scale,
                "values": rng.normal(size=(slots, value_width)),
                "measure": MEASURES[index % 4],
                "strength": float(rng.choice([0.0, 0.5, 1.0, 4.0, 50.0])),
                "mask": rng.random(slots) < 0.7,
                "add": rng.normal(size=width),
                "erase": rng.random(width),
                "weights": rng.dirichlet(np.ones(slots)),
            }
        )
    return cases


def ours(case: dict[str, Any]) -> dict[str, np.ndarray]:
    t = {k: torch.as_tensor(v) for k, v in case.items() if k not in ("measure", "strength")}
    query, keys, mask = t["query"][None], t["keys"], t["mask"]
    options = {"measure": case["measure"], "strength": case["strength"]}
    weights, memory = t["weights"][None], t["keys"]
    return {
        "similarity": memlib.similarity(query, keys, measure=case["measure"])[0],
        "address": memlib.address(query, keys, **options, mask=mask)[0],
        "read": memlib.read(weights, t["values"])[0],
        "write": memlib.write(memory, weights, t["add"][None], t["erase"][None]),
        "add": memlib.write(memory, weights, t["add"][None]),
        "attend": memlib.attend(query, keys, t["values"], **options, mask=mask)[0],
    }


THEIRS = """c => ({
    similarity: similarity(c.query, c.keys, c.measure),
    address: address(c.query, c.keys, c),
    read: read(c.weights, c.values),
    write: write(c.keys, c.weights, c.add, c.erase),
    add: write(c.keys, c.weights, c.add),
    attend: attend(c.query, c.keys, c.values, c),
})"""
NAMES = ("similarity", "address", "read", "write", "add", "attend")


def differences(browser: Browser, plant: tuple[str, str] = ("", "")) -> dict[str, float]:
    """The worst difference of each verb over all cases, relative where numbers are large."""
    cases = draw(1)
    with engine(browser, "verbs.js", plant=plant) as page:
        theirs = ask(page, THEIRS, cases)
    found = dict.fromkeys(NAMES, 0.0)
    for case, answer in zip(cases, theirs, strict=True):
        for name, right in ours(case).items():
            size = max(1.0, float(right.abs().max())) if right.numel() else 1.0
            found[name] = max(found[name], worst(right, answer[name]) / size)
    return found


def test_verbs_are_memlibs(browser: Browser) -> None:
    found = differences(browser)
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("similarity", ("/ Math.sqrt(query.length)", "/ query.length")),
        ("similarity", ("ordinary ?", "true ?")),
        ("address", ("strength * scores[n] : -Infinity", "strength * scores[n] : -9")),
        ("read", ("value[i] += weight", "value[i] = weight")),
        ("write", ("erase[i] : 0", "erase[0] : 0")),
        ("add", ("weights[n] * add[i]", "add[i]")),
        (
            "attend",
            ("return read(address(query, keys, options)", "return read(address(query, keys)"),
        ),
    ],
)
def test_a_wrong_verb_is_found(browser: Browser, name: str, plant: tuple[str, str]) -> None:
    assert differences(browser, plant)[name] > 100 * CLOSE
