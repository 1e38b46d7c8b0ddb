"""The page's Hopfield networks against memlib's: states, weights, energies, no wrong sign."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine import ask, engine, worst
from playwright.sync_api import Browser

from memlib import ClassicalHopfield, Hopfield

CASES, CLOSE = 200, 1e-5


def draw(seed: int) -> list[dict[str, Any]]:
    """Random memories and queries: one pattern, equal ones, no query, extreme strengths."""
    rng = np.random.default_rng(seed)
    cases = []
    for index in range(CASES):
        count, width = int(rng.integers(1, 9)), int(rng.integers(1, 13))
        patterns = rng.normal(size=(count, width)) * 10.0 ** rng.integers(-1, 2)
        signs = rng.choice([-1.0, 1.0], size=(count, width))
        if index % 10 == 1:
            patterns[:], signs[:] = patterns[0], signs[0]
        cases.append(
            {
                "patterns": patterns,
                "signs": signs,
                "query": rng.normal(size=width) * (index % 7 > 0),
                "partly": signs[0] * rng.choice([1.0, 0.0, -1.0], p=[0.5, 0.3, 0.2], size=width),
                "strength": float(rng.choice([1e-3, 0.5, 4.0, 64.0, 1e3])),
                "steps": int(rng.integers(1, 6)),
            }
        )
    return cases


def ours(case: dict[str, Any]) -> dict[str, Any]:
    t = {k: torch.as_tensor(v) for k, v in case.items() if isinstance(v, np.ndarray)}
    modern = Hopfield(case["strength"], steps=case["steps"])
    state, weights = modern(t["query"][None], t["patterns"], need_weights=True)
    classical, partly = ClassicalHopfield(case["steps"]), t["partly"][None]
    return {
        "state": state[0],
        "weights": weights[0],
        "energy": modern.energy(t["query"][None], t["patterns"])[0],
        "connections": classical.connections(t["signs"]),
        "recalled": classical(partly, t["signs"])[0],
        "height": classical.energy(partly, t["signs"])[0],
    }


THEIRS = """c => {
    const modern = new Hopfield(c.strength, c.steps);
    const [state, weights] = modern.forward(c.query, c.patterns);
    const classical = new ClassicalHopfield(c.steps);
    return {
        state, weights,
        energy: modern.energy(c.query, c.patterns),
        connections: classical.connections(c.signs),
        recalled: classical.forward(c.partly, c.signs),
        height: classical.energy(c.partly, c.signs),
    };
}"""
NAMES = ("state", "weights", "energy", "connections", "recalled", "height")


def differences(browser: Browser, plant: tuple[str, str] = ("", "")) -> dict[str, float]:
    """The worst difference of each part over all cases, relative where numbers are large."""
    cases = draw(3)
    with engine(browser, "content.js", plant=plant) as page:
        theirs = ask(page, THEIRS, cases)
    found = dict.fromkeys(NAMES, 0.0)
    for case, answer in zip(cases, theirs, strict=True):
        for name, right in ours(case).items():
            size = max(1.0, float(right.abs().max()))
            found[name] = max(found[name], worst(right, answer[name]) / size)
    return found


def test_the_networks_are_memlibs(browser: Browser) -> None:
    found = differences(browser)
    assert max(found.values()) < CLOSE, found
    assert found["recalled"] == 0  # no sign is wrong


@pytest.mark.parametrize(
    ("name", "plant"),
    {
        "state": (
            "state = read(weights, patterns)",
            "state = read(weights, patterns).map((x) => x / 2)",
        ),
        "weights": ('measure: "dot", strength: this', 'measure: "scaled_dot", strength: this'),
        "energy": ("Math.log(patterns.length) -", "-"),
        "connections": ("(i === j ? 0 : x / width)", "x / width"),
        "recalled": ("if (field) state", "state"),
        "height": ("connections), state) / 2", "connections), state)"),
    }.items(),
)
def test_a_wrong_network_is_found(browser: Browser, name: str, plant: tuple[str, str]) -> None:
    assert differences(browser, plant)[name] > 100 * CLOSE
