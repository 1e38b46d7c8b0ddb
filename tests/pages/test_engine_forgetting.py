"""Forgetting in the page against memlib's: each rule, `keep`, and what a decoder reads by them."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from apart import FILE, by_cache, machine, scored
from engine import ask, engine, worst
from playwright.sync_api import Browser
from test_engine_decoder import CASES, CLOSE, FORWARD, START, given, numbers, small, text

from memlib import Decoder, KVCache
from memlib.teaching.explore.weights import pack

RULES = "window", "sinks", "heavy hitters", "looked at"
SCORED = """c => {
    const slots = c.positions.map((position) => ({ position }));
    const scores = RULES[c.rule](slots, c.looks, c.n);
    return { scores: scores.map(String), stay: keep(slots, scores, c.n).map((s) => s.position) };
}"""


def held(rng: np.random.Generator, seen: int) -> KVCache:
    """A cache of a text of which some tokens are forgotten already."""
    cache = KVCache(1, 1, seen, 1)
    cache.extend(*torch.zeros(2, 1, 1, seen, 1))
    cache.keep(torch.tensor(rng.random((1, seen))), int(rng.integers(1, seen + 1)))
    return cache


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_memlibs(browser: Browser, rule: str) -> None:
    """Scores and choice, some of equal scores: weights are drawn from few numbers."""
    rng, cases, right = np.random.default_rng(5), [], []
    for _ in range(CASES):
        seen = int(rng.integers(1, 24))
        cache, n = held(rng, seen), int(rng.integers(0, seen + 2))
        places = cache.positions[0][cache.positions[0] >= 0]
        looks = torch.tensor(rng.choice([0.125, 0.25, 0.5], size=(1, 2, seen, seen))).tril()
        rows = [row[: t + 1].tolist() for t, row in enumerate(looks[0].sum(0))]
        cases.append({"positions": places.tolist(), "rule": rule, "looks": rows, "n": n})
        scores = scored(cache, looks, rule, n)
        cache.keep(scores, n)
        stay = cache.positions[0][cache.positions[0] >= 0]
        right.append((scores[0, : len(places)], stay.tolist()))
    with engine(browser, "forgetting.js") as page:
        answers = ask(page, SCORED, cases)
    for (scores, stay), answer in zip(right, answers, strict=True):
        found = np.array([float(s.replace("Infinity", "inf")) for s in answer["scores"]])
        assert worst(scores, found) < CLOSE
        assert answer["stay"] == stay


def steps(seen: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and weights in the order in which the page tells them."""
    heads = torch.stack(seen["weights"])  # (L, H, T, T)
    rows = [heads[:, :, t, : t + 1].flatten() for t in range(heads.shape[-1])]
    return seen["logits"][0].flatten(), torch.cat(rows)


@lru_cache
def decoders() -> list[tuple[Decoder, dict[str, Any], tuple[torch.Tensor, torch.Tensor]]]:
    """Texts for the recorded machine and small ones in turn, a rule, and what is seen."""
    rng, cases = np.random.default_rng(6), []
    for index in range(CASES):
        model = small(rng) if index % 2 else machine("rounded")
        tokens = text(rng, int(rng.integers(1, 24)))
        if index % 2:
            tokens = rng.integers(len(model.embedding), size=rng.integers(1, 20)).tolist()
        rule = {"rule": RULES[index // 2 % 4], "slots": int(rng.integers(0, len(tokens) + 1))}
        cuts: dict[str, Any] = {"forget": rule}
        if index % 3 == 0:
            cuts["dropped"] = [t for t in range(len(tokens)) if rng.random() < 0.2]
            cuts["without"] = [["head 1 of 2", "feed-forward of 1"][rng.integers(2)]]
        case = {"tokens": tokens, "cuts": cuts}
        with torch.no_grad():
            cases.append((model, case, steps(by_cache(model, **copy.deepcopy(case)))))
    return cases


def wrong(browser: Browser, count: int, plant: tuple[str, str] = ("", "")) -> float:
    """The worst difference of logits and weights."""
    cases = decoders()[:count]
    with engine(browser, "decoder.js", "weights.js", plant=plant) as page:
        page.evaluate(START, [pack(FILE), [given(model) for model, _, _ in cases[1::2]]])
        asked = [
            {"model": index % 2 * (index + 1) // 2, **case}
            for index, (_, case, _) in enumerate(cases)
        ]
        answers = ask(page, FORWARD, asked)
    return max(
        worst(ours, numbers(theirs))
        for (_, _, seen), answer in zip(cases, answers, strict=True)
        for ours, theirs in zip(seen, answer, strict=False)
    )


def test_a_decoder_that_forgets_is_memlibs(browser: Browser) -> None:
    assert wrong(browser, CASES) < CLOSE


@pytest.mark.parametrize(
    "plant",
    [
        ("compare(scores[b], scores[a])", "compare(scores[a], scores[b])"),
        ("order.slice(0, n)", "order.slice(0, n + 1)"),
        ("first = 4", "first = 3"),
        ("looks.length - recent", "looks.length - recent - 1"),
        ("looks.slice(-last)", "looks"),
        ("own[i] ? 0 : weight", "weight"),
        ("/ pool", "/ near.length"),
        ("looks[n].push(", "looks[0].push("),
        ("heads.reduce((a, b) => sum(a, b))", "heads[0]"),
        ("RULES[rule](slots, looks[layer], n), n)", "RULES[rule](slots, looks[layer], n), n + 1)"),
    ],
)
def test_a_wrong_choice_is_found(browser: Browser, plant: tuple[str, str]) -> None:
    assert wrong(browser, 100, plant) > 100 * CLOSE
