"""The page's matrix memory against memlib's: every rule, padding, and a state carried on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine import ask, engine, worst
from playwright.sync_api import Browser

from memlib import matrix_memory, read

CASES, CLOSE = 200, 1e-5
RULES = ("sum", "decayed sum", "delta", "gated delta", "kda", "general")


def gates(rng: np.random.Generator, rule: str, steps: int, width: int, wide: int) -> dict[str, Any]:
    """What a rule writes, erases and lets stay: numbers, one a step, one a channel."""
    rate = rng.random((steps, 1))
    decays = {"decayed sum": width, "gated delta": 1, "kda": width, "general": width}
    found: dict[str, Any] = {}
    if rule in ("delta", "gated delta", "kda"):
        found = {"write": rate, "erase": rate}
        if rng.random() < 0.3:
            found = dict.fromkeys(found, float(rng.random()))
    if rule == "general":
        found = {"write": rng.random((steps, wide)), "erase": rng.random((steps, width))}
    if rule in decays:
        # to a millionth a step, and all or nothing
        small = rng.choice([1.0, 0.5, 1e-6, 0.0], size=(steps, decays[rule]))
        found["decay"] = rng.random((steps, decays[rule])) if rng.random() < 0.5 else small
    return found


def draw(seed: int) -> list[dict[str, Any]]:
    """Random sequences: one step, one channel, zero keys, sizes from 1e-3 to 1e3, padding."""
    rng = np.random.default_rng(seed)
    cases = []
    for index in range(CASES):
        steps, width, wide = (int(size) for size in rng.integers(1, 9, 3))
        keys = rng.normal(size=(steps, width))
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        if index % 10 == 1:
            keys[:] = keys[0] * (index % 20 == 1)  # one key again and again, or none
        if index % 10 == 2:
            keys *= 1.3  # longer than 1: what is erased is more than was there
        scale = 10.0 ** rng.integers(-3, 4)
        cases.append(
            {
                "query": rng.normal(size=(steps, width)),
                "keys": keys,
                "values": rng.normal(size=(steps, wide)) * scale,
                "state": rng.normal(size=(width, wide)) * scale * (index % 3 > 0),
                "mask": rng.random(steps) < (1.0 if index % 2 else 0.6),
                "gates": gates(rng, RULES[index % 6], steps, width, wide),
                "nothing": index % 4 == 0,
            }
        )
    return cases


def ours(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What memlib reads and holds, all at once, and what it holds for the last query."""
    q, k, v, state = (
        torch.as_tensor(case[name])[None, None] for name in ("query", "keys", "values", "state")
    )
    found = {
        name: x if isinstance(x, float) else torch.as_tensor(x)[None, None]
        for name, x in case["gates"].items()
    }
    mask = torch.as_tensor(case["mask"])[None]
    reads, after = matrix_memory(q, k, v, state, **found, mask=mask, chunk=1)
    held = read(q[:, :, -1:], after)
    return {
        "reads": reads[0, 0],
        "state": after[0, 0],
        "halves": after[0, 0],
        "held": held[0, 0, 0],
    }


THEIRS = """c => {
    const part = (x, from, to) => Array.isArray(x) ? x.slice(from, to) : x;
    const run = (from, to, state) => matrixMemory(
        c.query.slice(from, to),
        c.keys.slice(from, to).map((row, t) => c.mask[from + t] ? row : row.map(() => NaN)),
        c.values.slice(from, to).map((row, t) => c.mask[from + t] ? row : row.map(() => NaN)),
        state,
        {...Object.fromEntries(Object.entries(c.gates).map(([n, x]) => [n, part(x, from, to)])),
         mask: c.mask.slice(from, to)});
    const before = JSON.stringify(c.state), all = c.keys.length, half = all >> 1;
    const {reads, state} = run(0, all, c.state);
    if (JSON.stringify(c.state) !== before) throw new Error('the state before was changed');
    return {reads, state, halves: run(half, all, run(0, half, c.state).state).state,
        held: read(c.query[all - 1], state)};
}"""
NAMES = ("reads", "state", "halves", "held")


def differences(browser: Browser, plant: tuple[str, str] = ("", "")) -> dict[str, float]:
    """The worst difference of each part over all cases, relative where numbers are large."""
    cases = draw(21)
    with engine(browser, "fast_weights.js", "verbs.js", plant=plant) as page:
        theirs = ask(page, THEIRS, cases)
    found = dict.fromkeys(NAMES, 0.0)
    for case, answer in zip(cases, theirs, strict=True):
        for name, right in ours(case).items():
            size = max(1.0, float(right.abs().max()))
            found[name] = max(found[name], worst(right, answer[name]) / size)
    return found


def test_every_rule_is_memlibs(browser: Browser) -> None:
    found = differences(browser)
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("reads", ("return read(query[t], state)", "return read(key, state)")),
        ("reads", ("return new Float64Array(values[t].length)", "return read(query[t], state)")),
        ("state", ("if (mask && !mask[t])", "if (mask && t && !mask[t])")),
        ("state", ("read(gated(b, t, key), state)", "read(key, state)")),
        ("state", ("add[i] - old[i]", "add[i] - at(w, t, i) * old[i]")),
        (
            "state",
            ("const add = gated(w, t, values[t])", "const add = Float64Array.from(values[t])"),
        ),
        ("state", ("at(d, t, m), t, row", "at(d, t, 0), t, row")),
        (
            "halves",
            (
                "const state = Array.from(before,",
                "const state = Array.from(before.map(x => x.map(() => 0)),",
            ),
        ),
        ("held", ("value[i] += weight * row[i]", "value[i] += weight * row[0]")),
    ],
)
def test_a_wrong_write_is_found(browser: Browser, name: str, plant: tuple[str, str]) -> None:
    assert differences(browser, plant)[name] > 100 * CLOSE
