"""The page's four steps of addressing against memlib's: the same numbers for the same draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine import ask, engine, worst
from playwright.sync_api import Browser

import memlib
from memlib.addressable.gates import _gates

CASES, CLOSE = 200, 1e-5


def draw(seed: int) -> list[dict[str, Any]]:
    """Random heads: one slot, zero vectors, no weight anywhere, gates at their ends among them."""
    rng = np.random.default_rng(seed)
    cases = []
    for index in range(CASES):
        slots, width = int(rng.integers(1, 12)), int(rng.integers(1, 7))
        shifts = int(rng.choice([s for s in (1, 3, 5, 7) if s <= slots]))
        content = rng.dirichlet(np.full(slots, rng.choice([0.05, 1.0])))
        previous = rng.dirichlet(np.ones(slots))
        if index % 10 == 1:
            content, previous = np.zeros(slots), np.eye(slots)[rng.integers(slots)]
        raw = rng.normal(size=width + shifts + 3) * rng.choice([0.0, 1.0, 5.0, 800.0])
        cases.append(
            {
                "key": rng.normal(size=width) * (index % 10 > 0),
                "strength": float(rng.choice([0.0, 1.0, 7.0, 1e4])),
                "gate": float(rng.choice([0.0, 1.0, rng.random()])),
                "shift": rng.dirichlet(np.full(shifts, rng.choice([0.01, 1.0]))),
                "sharpening": float(rng.choice([1.0, 1 + rng.random(), 20.0, 1e4])),
                "memory": rng.normal(size=(slots, width)) * (rng.random((slots, 1)) < 0.8),
                "content": content,
                "previous": previous,
                "raw": raw,
                "width": width,
            }
        )
    return cases


def ours(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    t = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in case.items()}
    gates = memlib.Gates(*(t[name][None, None] for name in memlib.Gates._fields))
    squashed = _gates(t["raw"], case["width"])
    return {
        "interpolate": memlib.interpolate(t["content"], t["previous"], t["gate"]),
        "shift": memlib.shift(t["content"], t["shift"]),
        "sharpen": memlib.sharpen(t["content"], t["sharpening"]),
        "locate": memlib.locate(gates, t["memory"][None], t["previous"][None, None])[0, 0],
        **{f"squash {name}": gate for name, gate in squashed._asdict().items()},
    }


THEIRS = """c => ({
    interpolate: interpolate(c.content, c.previous, c.gate),
    shift: shift(c.content, c.shift),
    sharpen: sharpen(c.content, c.sharpening),
    locate: locate(c, c.memory, c.previous),
    ...Object.fromEntries(Object.entries(squash(Float64Array.from(c.raw), c.width))
        .map(([name, gate]) => [`squash ${name}`, gate])),
})"""
NAMES = ("interpolate", "shift", "sharpen", "locate", "squash")


def differences(browser: Browser, plant: tuple[str, str] = ("", "")) -> dict[str, float]:
    """The worst difference of each step over all cases, relative where numbers are large."""
    cases = draw(2)
    with engine(browser, "gates.js", plant=plant) as page:
        theirs = ask(page, THEIRS, cases)
    found = dict.fromkeys(NAMES, 0.0)
    for case, answer in zip(cases, theirs, strict=True):
        for name, right in ours(case).items():
            step = name.split()[0]
            size = max(1.0, float(right.abs().max()))
            found[step] = max(found[step], worst(right, answer[name]) / size)
    return found


def test_gates_are_memlibs(browser: Browser) -> None:
    found = differences(browser)
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(
    ("name", "plant"),
    {
        "interpolate": ("gate * weight + (1 - gate)", "(1 - gate) * weight + gate"),
        "shift": ("moved[(n + j + slots)", "moved[(n - j + slots)"),
        "sharpen": ("sharpening * Math.log(weight)", "2 * Math.log(weight)"),
        "locate": ('measure: "cosine"', 'measure: "dot"'),
        "squash": ("sharpening: 1 + softplus", "sharpening: softplus"),
    }.items(),
)
def test_a_wrong_step_is_found(browser: Browser, name: str, plant: tuple[str, str]) -> None:
    assert differences(browser, plant)[name] > 100 * CLOSE
