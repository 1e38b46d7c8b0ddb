"""The page's tasks against memlib's: the same sequences, and the same bits are wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine import ask, engine
from playwright.sync_api import Browser

from memlib import tasks

CASES = 200


def draw(seed: int) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """Sequences of memlib with parts that JavaScript makes them of, and what memlib says."""
    chance = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=chance))

    cases, right = [], []
    for index in range(CASES):
        bits, size, items = whole(1, 9), whole(1, 4), whole(2, 7)
        parts: dict[str, Any] = {}
        if index % 2:
            batch = tasks.copy(1, length=whole(1, 12), bits=bits, generator=chance)
            heard = int(batch.mask.sum())
            parts["vectors"] = batch.inputs[0, :heard, :bits]
        else:
            batch = tasks.associative_recall(
                1, items=items, item_length=size, bits=bits, generator=chance
            )
            heard = items * (size + 1)
            vectors = batch.inputs[0, :, :bits]
            parts["items"] = vectors[:heard].view(items, size + 1, bits)[:, 1:]
            parts["query"] = vectors[heard + 1 : heard + 1 + size]
            parts["answer"] = batch.targets[0, -size:]
        logits = torch.randn(batch.targets.shape, generator=chance)
        logits[torch.rand(logits.shape, generator=chance) < 0.1] = 0
        wrong = tasks.wrong_bits(logits, batch.targets, batch.mask)
        expected = [batch.inputs[0], batch.targets[0], batch.mask[0], heard, wrong[0]]
        cases.append({**parts, "logits": logits[0]})
        right.append([x.tolist() if isinstance(x, torch.Tensor) else x for x in expected])
    return cases, right


THEIRS = """c => {
    const task = c.vectors ? copy(c.vectors) : associativeRecall(c.items, c.query, c.answer);
    const wrong = wrongBits(task, c.logits).flat().filter(Boolean).length;
    return [task.inputs, task.targets, task.mask, task.heard, wrong];
}"""


def others(browser: Browser, plant: tuple[str, str] = ("", "")) -> int:
    """In how many cases JavaScript says something else."""
    cases, right = draw(8)
    with engine(browser, "tasks.js", plant=plant) as page:
        return sum(a != b for a, b in zip(right, ask(page, THEIRS, cases), strict=True))


def test_tasks_are_memlibs(browser: Browser) -> None:
    assert others(browser) == 0


@pytest.mark.parametrize(
    "plant",
    [
        ("mark(zeros(bits + 1), bits)", "mark(zeros(bits + 1), 0)"),
        ("...put(query), channel(1)", "...put(query), channel(0)"),
        ("t >= before)", "t > before)"),
        ("logit > 0 !== ", "logit >= 0 !== "),
        ("answer[t - before] ??", "answer[0] ??"),
    ],
)
def test_a_wrong_task_is_found(browser: Browser, plant: tuple[str, str]) -> None:
    assert others(browser, plant) > CASES / 10
