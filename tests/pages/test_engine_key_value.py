"""The page's key-value memory against memlib's: the same pairs in the same slots, and reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine import ask, engine, worst
from playwright.sync_api import Browser

from memlib import KeyValueMemory
from memlib.attention.verbs import MEASURES
from memlib.key_value import KeyValueState

CASES, CLOSE = 200, 1e-5


def draw(seed: int) -> list[dict[str, Any]]:
    """Random lives of a memory: writes, now and then a delete, and a read at the end.

    Among them are one slot, keys written twice, emptied memories, zero queries, extreme strengths.
    """
    rng = np.random.default_rng(seed)
    cases = []
    for index in range(CASES):
        slots, width, value_width = (int(size) for size in rng.integers(1, 6, 3))
        steps: list[dict[str, Any]] = []
        for _ in range(int(rng.integers(0, 3 * slots))):
            key = rng.normal(size=width)
            if steps and rng.random() < 0.2:
                key = steps[-1].get("key", key)
            steps.append({"key": key, "value": rng.normal(size=value_width) * 10})
            if rng.random() < 0.2:
                steps.append({"delete": rng.random(slots) < 0.5})
        if index % 20 == 0:
            steps.append({"delete": np.ones(slots, dtype=bool)})
        cases.append(
            {
                "sizes": [slots, width, value_width],
                "measure": MEASURES[index % 4],
                "strength": float(rng.choice([0.0, 0.5, 2.0, 20.0, 200.0])),
                "steps": steps,
                "query": rng.normal(size=width) * (index % 7 > 0),
            }
        )
    return cases


def ours(case: dict[str, Any]) -> dict[str, Any]:
    memory = KeyValueMemory(*case["sizes"], measure=case["measure"], dtype=torch.float64)
    state = memory.initial_state()
    for step in case["steps"]:
        if "delete" in step:
            state = memory.delete(torch.as_tensor(step["delete"])[None], state)
        else:
            key, value = (torch.as_tensor(step[name])[None, None] for name in ("key", "value"))
            state = memory.write(key, value, state)
    query = torch.as_tensor(case["query"])[None, None]
    value, weights = memory.read(query, state, strength=case["strength"], need_weights=True)
    found = {name: part[0] for name, part in state._asdict().items()}
    return found | {"value": value[0, 0], "weights": weights[0, 0]}


THEIRS = """c => {
    const memory = new KeyValueMemory(...c.sizes, c.measure);
    let state = memory.initialState();
    for (const { key, value, delete: where } of c.steps) {
        const before = JSON.stringify(state);
        const after = where ? memory.delete(where, state) : memory.write(key, value, state);
        if (JSON.stringify(state) !== before) throw new Error("a state was changed");
        state = after;
    }
    const [value, weights] = memory.read(c.query, state, c.strength);
    return { ...state, value, weights };
}"""
NAMES = (*KeyValueState._fields, "value", "weights")


def differences(browser: Browser, plant: tuple[str, str] = ("", "")) -> dict[str, float]:
    """The worst difference of each part over all cases."""
    cases = draw(2)
    with engine(browser, "key_value.js", plant=plant) as page:
        theirs = ask(page, THEIRS, cases)
    found = dict.fromkeys(NAMES, 0.0)
    for case, answer in zip(cases, theirs, strict=True):
        for name, right in ours(case).items():
            found[name] = max(found[name], worst(right, answer[name]))
    return found


def test_the_memory_is_memlibs(browser: Browser) -> None:
    found = differences(browser)
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(
    ("name", "plant"),
    {
        "keys": ("Math.min(...written)", "Math.max(...written)"),
        "values": ("overwrite(values, slot, value)", "overwrite(values, 0, value)"),
        "written": ("(where[n] ? 0 : order)", "order"),
        "value": ("order > 0", "order >= 0"),
        "weights": ("strength, mask });\n    return [read", "mask });\n    return [read"),
    }.items(),
)
def test_a_wrong_memory_is_found(browser: Browser, name: str, plant: tuple[str, str]) -> None:
    assert differences(browser, plant)[name] > 100 * CLOSE
