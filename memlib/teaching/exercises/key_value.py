"""Checkers of the exercises in *Key-value memory*."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from memlib.attention import address, attend, read, verbs, write
from memlib.teaching.exercises import Verdict, check, exercise

Answer = Callable[..., Any]


@exercise
def nearest_slot(answer: Answer) -> Verdict:
    """Check a function (query (M,), keys (N, M)) -> the number of the nearest slot."""
    query = torch.tensor([1.0, 0.0])
    cases = [
        (query, torch.tensor([[0.0, 3.0], [1.2, 0.1], [5.0, 5.0], [-9.0, 0.0]])),
        (query, torch.tensor([[4.0, 0.5], [0.0, 2.0], [0.5, 0.5], [-2.0, 0.0]])),
        (torch.tensor([2.0, -1.0, 0.5]), torch.tensor([[6.0, -3.0, 1.5], [1.5, -1.0, 0.0]])),
    ]
    return check(
        answer,
        _nearest_slot,
        cases,
        mistakes={
            "you found the farthest slot: a distance is small where keys are alike": (
                lambda query, keys: _distance(query, keys).argmax()
            ),
            "you compared by dot product, and a long key wins there without being near": (
                lambda query, keys: (keys @ query).argmax()
            ),
            "you returned the distance; the number of the slot was asked for": (
                lambda query, keys: _distance(query, keys).min()
            ),
            "you returned the key itself; the number of its slot was asked for": (
                lambda query, keys: keys[_nearest_slot(query, keys)]
            ),
        },
        praise="right: this is what the softmax becomes when the strength grows without end.",
    )


@exercise
def stable_softmax(answer: Answer) -> Verdict:
    """Check a function (scores (L, N), strength) -> weights (L, N)."""
    cases = [
        (torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]]), 1.0),
        (torch.tensor([[0.1, 0.4], [0.9, 0.2], [0.5, 0.5]]), 4.0),
        (torch.tensor([[1000.0, 999.0], [-1000.0, -1001.0]]), 2.0),
    ]
    return check(
        answer,
        lambda scores, strength: _softmax(strength * scores),
        cases,
        mistakes={
            "large scores overflow: exp(1000) is infinite in float32. What may be subtracted "
            "from all scores of a row without changing its weights?": (
                lambda scores, strength: _normalized((strength * scores).exp())
            ),
            "you subtracted one maximum for the whole table: a row far below it becomes 0 / 0": (
                lambda scores, strength: _normalized((strength * (scores - scores.max())).exp())
            ),
            "the weights sum to 1 over the queries; over the slots was asked for": (
                lambda scores, strength: _softmax(strength * scores.mT).mT
            ),
            "you multiplied the weights by the strength; it belongs on the scores": (
                lambda scores, strength: strength * _softmax(scores)
            ),
            "the strength has no effect yet": lambda scores, strength: _softmax(scores),
            "the largest score gets the smallest weight: look at the sign": (
                lambda scores, strength: _softmax(-strength * scores)
            ),
        },
        praise="right, for scores of any size.",
    )


@exercise
def overwrite(answer: Answer) -> Verdict:
    """Check a function (memory (N, M), slot, vector (M,)) -> the new memory, by one `write`."""
    generator = torch.Generator().manual_seed(0)
    cases = [
        (
            torch.randn(slots, width, generator=generator),
            slot,
            torch.rand(width, generator=generator),
        )
        for slots, width, slot in ((3, 2, 1), (4, 3, 0), (5, 4, 4))
    ]

    def by_write(erase: Callable[[Tensor], Tensor | None], spread: bool = False) -> Answer:
        def mistaken(memory: Tensor, slot: int, vector: Tensor) -> Tensor:
            weights = _one_hot(slot, memory)
            weights = torch.full_like(weights, 1 / memory.shape[0]) if spread else weights
            return write(memory, weights, vector[None], erase(vector[None]))

        return mistaken

    verdict = check(
        answer,
        _overwrite,
        cases,
        mistakes={
            "the old content shines through: what must the erase vector be?": (
                by_write(lambda vector: None)
            ),
            "you erased by the vector itself, so each entry goes only in part: "
            "erase everything that was there": by_write(lambda vector: vector),
            "you wrote a little into every slot: the weights must be one-hot": (
                by_write(torch.ones_like, spread=True)
            ),
            "you erased the slot and added nothing": (
                lambda memory, slot, vector: _overwrite(memory, slot, torch.zeros_like(vector))
            ),
            "all other slots were lost: only the chosen one may change": (
                lambda memory, slot, vector: _overwrite(torch.zeros_like(memory), slot, vector)
            ),
        },
        praise="right: an assignment is a write with one-hot weights and erase 1.",
    )
    if not verdict.ok:
        return verdict
    written: list[Tensor] = []

    def recorded(*args: Any) -> Tensor:
        written.append(_write(*args))
        return written[-1]

    _write = verbs._write
    memory, slot, vector = cases[0]
    with mock.patch.object(verbs, "_write", recorded):
        result = answer(memory.clone(), slot, vector.clone())
    if len(written) != 1:
        calls = f"it was called {len(written)} times"
        return Verdict(
            False, f"right memory, but by one call of memlib.write was asked for; {calls}"
        )
    if not torch.equal(written[0].reshape(-1), result.reshape(-1)):
        return Verdict(False, "right memory, but it is not what your call of memlib.write returned")
    return verdict


@exercise
def masked_softmax(answer: Answer) -> Verdict:
    """Check a function (scores (L, N), mask (L, N)) -> weights (L, N), 0 where nothing is read."""
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0], [2.0, 2.0, 9.0]])
    some = torch.tensor([[True, True, False], [True, False, True], [True, True, False]])
    none = torch.tensor([[True, True, False], [False, False, False], [False, True, False]])
    lowest = torch.finfo(scores.dtype).min
    return check(
        answer,
        _masked_softmax,
        [(scores, some), (scores, none)],
        mistakes={
            "you read exactly what may not be read: True means *may be read*": (
                lambda scores, mask: _masked_softmax(scores, ~mask)
            ),
            "the weights do not sum to 1: hide the scores before the softmax, "
            "not the weights after it": (
                lambda scores, mask: scores.softmax(-1).masked_fill(~mask, 0)
            ),
            "a score of 0 is not hidden, exp(0) is 1: which score has weight 0?": (
                lambda scores, mask: scores.masked_fill(~mask, 0).softmax(-1)
            ),
            "a query that may read nothing got NaN, for -inf - (-inf); it must get zeros": (
                lambda scores, mask: scores.masked_fill(~mask, -torch.inf).softmax(-1)
            ),
            "a query that may read nothing got equal weights, and so reads what it must not": (
                lambda scores, mask: scores.masked_fill(~mask, lowest).softmax(-1)
            ),
        },
        praise="right, the query that may read nothing included.",
    )


@exercise
def next_slot(answer: Answer) -> Verdict:
    """Check a function (written (N,)) -> the slot that the next pair is written to."""
    cases = [
        (torch.tensor(written),)
        for written in (
            [1, 2, 0, 0],
            [0, 0, 0],
            [5, 6, 3, 4],
            [7, 0, 8, 6],
            [4, 5, 6, 3, 0],
            [9, 8, 7],
        )
    ]
    return check(
        answer,
        _next_slot,
        cases,
        mistakes={
            "you chose the newest pair: it is the oldest that has to go": (
                lambda written: written.argmax()
            ),
            "you overwrote a pair while a slot was free": (
                lambda written: torch.where(written > 0, written, written.max() + 1).argmin()
            ),
            "counting the pairs tells the slot only until one is deleted or overwritten": (
                lambda written: written.max() % len(written)
            ),
            "you returned the order number; the slot was asked for": lambda written: written.min(),
        },
        praise="right: one argmin serves free slots and old pairs alike.",
    )


@exercise
def leave_one_out(answer: Answer) -> Verdict:
    """Check a function (keys (N, M), values (N, V), strength) -> what each key reads of others."""
    generator = torch.Generator().manual_seed(0)
    cases = [
        (
            torch.randn(slots, 3, generator=generator),
            torch.randn(slots, 2, generator=generator),
            strength,
        )
        for slots, strength in ((4, 1.0), (6, 3.0), (2, 0.5))
    ]

    def read_with(
        mask: Callable[[Tensor], Tensor | None], measure: Any = _MEASURE, after: bool = False
    ) -> Answer:
        def mistaken(keys: Tensor, values: Tensor, strength: float) -> Tensor:
            itself = torch.eye(len(keys), dtype=torch.bool)
            weights = address(keys, keys, measure=measure, strength=strength, mask=mask(itself))
            return read(weights.masked_fill(itself, 0) if after else weights, values)

        return mistaken

    return check(
        answer,
        _leave_one_out,
        cases,
        mistakes={
            "each key still finds itself, at distance 0: hide its own slot by a mask": (
                read_with(lambda itself: None)
            ),
            "each key reads itself alone: in a mask, True means *may be read*": (
                read_with(lambda itself: itself)
            ),
            "compare by the negative squared distance (measure=...)": (
                read_with(lambda itself: ~itself, "scaled_dot")
            ),
            "you removed a key's own weight after the softmax: the rest no longer sums to 1": (
                read_with(lambda itself: None, after=True)
            ),
        },
        praise="right: every pair is asked about by a memory that does not hold it.",
    )


@exercise
def kernel_regression(answer: Answer) -> Verdict:
    """Check a function (x (L,), inputs (N,), targets (N,), width) -> estimates (L,)."""
    cases = [
        (
            torch.tensor([0.0, 0.7, 2.5]),
            torch.tensor([0.0, 1.0, 3.0]),
            torch.tensor([1.0, 4.0, 2.0]),
            width,
        )
        for width in (0.3, 1.5, 3.0)
    ]

    def with_strength(strength: Callable[[float], float]) -> Answer:
        return lambda x, inputs, targets, width: _read_at(x, inputs, targets, strength(width))

    return check(
        answer,
        _kernel_regression,
        cases,
        mistakes={
            "a wide kernel must give a *small* strength: solve -d²/(2h²) = -βd² for β": (
                with_strength(lambda width: width)
            ),
            "the strength lacks a factor: -d²/(2h²) = -βd² gives β = 1/(2h²), not 1/h²": (
                with_strength(lambda width: 1 / width**2)
            ),
            "the width enters squared: solve -d²/(2h²) = -βd² for β": (
                with_strength(lambda width: 1 / width)
            ),
            "the width has no effect yet": with_strength(lambda width: 1.0),
            "this is the sum of the kernels, not divided by their total": (
                lambda x, inputs, targets, width: _kernel(x, inputs, width) @ targets
            ),
        },
        praise="right: kernel regression is one attention read.",
    )


# The references. In messages their arguments appear under these names.

_MEASURE: Any = "negative_squared_distance"


def _distance(query: Tensor, keys: Tensor) -> Tensor:
    return (keys - query).square().sum(-1)


def _nearest_slot(query: Tensor, keys: Tensor) -> Tensor:
    return _distance(query, keys).argmin()


def _normalized(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)


def _softmax(scores: Tensor) -> Tensor:
    return _normalized((scores - scores.amax(-1, keepdim=True)).exp())


def _one_hot(slot: int, memory: Tensor) -> Tensor:
    return torch.eye(memory.shape[0])[[slot]]  # (1, N): one head


def _overwrite(memory: Tensor, slot: int, vector: Tensor) -> Tensor:
    return write(memory, _one_hot(slot, memory), vector[None], torch.ones_like(vector)[None])


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    lowest = torch.finfo(scores.dtype).min
    return _softmax(scores.masked_fill(~mask, lowest)).masked_fill(~mask, 0)


def _next_slot(written: Tensor) -> Tensor:
    return written.argmin()


def _leave_one_out(keys: Tensor, values: Tensor, strength: float) -> Tensor:
    others = ~torch.eye(len(keys), dtype=torch.bool)
    return attend(keys, keys, values, measure=_MEASURE, strength=strength, mask=others)


def _read_at(x: Tensor, inputs: Tensor, targets: Tensor, strength: float) -> Tensor:
    column = (x[:, None], inputs[:, None], targets[:, None])
    return attend(*column, measure=_MEASURE, strength=strength)[:, 0]


def _kernel(x: Tensor, inputs: Tensor, width: float) -> Tensor:
    return (-(x[:, None] - inputs).square() / (2 * width**2)).exp()


def _kernel_regression(x: Tensor, inputs: Tensor, targets: Tensor, width: float) -> Tensor:
    return _normalized(_kernel(x, inputs, width)) @ targets
