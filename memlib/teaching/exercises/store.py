"""Checkers of the exercises in *Large stores*."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from memlib.teaching.exercises import Verdict, check, compare, exercise

Array = npt.NDArray[Any]


@exercise
def room(answer: Any) -> Verdict:
    """Check the bytes of a million pairs: keys and values of 64 float32, ids of int64."""
    return compare(
        answer,
        520_000_000,
        mistakes={
            "you left out the ids, of 8 bytes each": 512_000_000,
            "you left out the values: they are as wide as the keys": 264_000_000,
            "that is one pair; there are a million": 520,
            "float32 takes 4 bytes a number, not 8": 1_032_000_000,
            "an int64 takes 8 bytes, not 4": 516_000_000,
            "these are numbers, not bytes: a float32 takes 4 bytes, an int64 takes 8": 129_000_000,
        },
        praise="right: 520 bytes a pair. An index keeps the keys once more, a graph its links too.",
        rtol=1e-9,
    )


@exercise
def which_ids(answer: Any) -> Verdict:
    """Check the ids (sorted) after adding 3, deleting id 1 and adding 3, at a capacity of 4."""
    if isinstance(answer, set | range | tuple):
        answer = sorted(answer)
    return compare(
        np.asarray(answer) if isinstance(answer, list) else answer,
        np.array([2, 3, 4, 5]),
        mistakes={
            "an id is never given out twice: the pairs added last are 3, 4 and 5": np.arange(4),
            "five pairs do not fit: one of them made room": np.array([0, 2, 3, 4, 5]),
            "id 1 was deleted": np.array([1, 3, 4, 5]),
            "the first pair makes room, not the last of those before": np.array([0, 3, 4, 5]),
            "two pairs were left when three came, and there was room for two: one went": (
                np.array([3, 4, 5])
            ),
        },
        praise="right: a free slot is used again, an id never is.",
    )


@exercise
def recall(answer: Callable[..., Any]) -> Verdict:
    """Check a function (found (L, k), nearest (L, k)) -> share of the nearest that was found."""
    cases = [
        (np.array([[3, 1, 2], [9, 8, 5]]), np.array([[1, 2, 3], [5, 6, 7]])),
        (np.array([[4, -1], [7, 0], [2, 6]]), np.array([[4, 5], [0, 7], [1, 6]])),
        (np.array([[0, 5, 7, -1], [8, 9, 2, 1]]), np.array([[5, 0, 1, 2], [7, 6, 8, 3]])),
    ]
    return check(
        answer,
        _recall,
        cases,
        mistakes={
            "you compared place by place: the order within a row does not count": (
                lambda found, nearest: (found == nearest).mean()
            ),
            "you looked in the rows of all queries; each row is a query of its own": (
                lambda found, nearest: np.isin(nearest, found).mean()
            ),
            "you asked whether the best was found; all k count": (
                lambda found, nearest: (nearest[:, :1] == found).any(axis=1).mean()
            ),
            "you asked whether any was found; all k count": (
                lambda found, nearest: _hits(found, nearest).any(axis=1).mean()
            ),
            "you divided by how many came back, which is precision; recall divides by k": (
                lambda found, nearest: _hits(found, nearest).sum() / (found >= 0).sum()
            ),
            "you returned the number that was found; divide it by how many there were": (
                lambda found, nearest: _hits(found, nearest).sum()
            ),
        },
        praise="right: found in any order, divided by k.",
    )


@exercise
def best_count(answer: Callable[..., Any]) -> Verdict:
    """Check a function (pairs, c) -> number of clusters that needs fewest comparisons."""
    return check(
        answer,
        lambda pairs, c: (c * pairs) ** 0.5,
        [(10_000, 1), (10_000, 4), (1_000_000, 16), (50, 3)],
        mistakes={
            "this is right for c = 1; where more are looked into, more are better": (
                lambda pairs, c: pairs**0.5
            ),
            "you have c upside down: C² = cN": lambda pairs, c: (pairs / c) ** 0.5,
            "you left out the root: where the derivative 1 - cN / C² is 0": (
                lambda pairs, c: c * pairs
            ),
            "the root is of c too": lambda pairs, c: c * pairs**0.5,
            "this is how many comparisons it takes, not the number of clusters": (
                lambda pairs, c: 2 * (c * pairs) ** 0.5
            ),
        },
        praise="right: as many comparisons with centers as with keys.",
        rtol=1e-2,  # whole numbers will do
        atol=0.5,
    )


@exercise
def enough(answer: Callable[..., Any]) -> Verdict:
    """Check a function (scores (N,), strength, share) -> the smallest k that holds the share."""
    random = np.random.default_rng(3)
    cases = [
        (random.normal(size=size), strength, share)
        for size, strength, share in ((8, 1.0, 0.8), (12, 2.0, 0.9), (30, 0.5, 0.5), (9, 4.0, 0.95))
    ]
    verdict = check(
        answer,
        _enough,
        cases,
        mistakes={
            "one too few: these do not reach the share yet": lambda s, b, share: (
                _enough(s, b, share) - 1
            ),
            "one too many: one less reaches the share already": lambda s, b, share: (
                _enough(s, b, share) + 1
            ),
            "you left out the strength": lambda s, b, share: _enough(s, 1.0, share),
            "you began with the lightest: sort the weights from large to small": _from_the_lightest,
            "you took the slots in the order they came in: sort them": _unsorted,
            "you counted slots that each weigh the share; together they must": (
                lambda s, b, share: int((_softmax(b * s) >= share).sum())
            ),
        },
        praise="right on every case.",
    )
    if not verdict.ok:
        return verdict
    far = (np.array([3.0, 1.0, 3.0]), 1000.0, 0.9)
    with np.errstate(all="ignore"):
        result = answer(*far)
    if not np.array_equal(result, 2):
        return Verdict(
            False,
            "right for small strengths, but at 1000 the exponential overflows: subtract the "
            "largest score first",
        )
    return Verdict(True, "right: sharp weights need few slots, spread ones many.")


@exercise
def mixed(answer: Callable[..., Any]) -> Verdict:
    """Check a function (p_model (V,), tokens (k,), weights (k,), share) -> distribution (V,)."""
    random = np.random.default_rng(4)
    cases = [
        (random.dirichlet(np.ones(size)), random.integers(0, size, k), random.dirichlet(np.ones(k)),
         share)
        for size, k, share in ((4, 6, 0.25), (6, 9, 0.7), (3, 5, 0.4))
    ]  # fmt: skip
    return check(
        answer,
        _mixed,
        cases,
        mistakes={
            "of a token that comes twice only the last weight was kept: they add up": _last_kept,
            "you have λ the wrong way round: it is the share of the store": (
                lambda p, tokens, w, share: _mixed(p, tokens, w, 1 - share)
            ),
            "you counted the neighbors; each counts with its weight": (
                lambda p, tokens, w, share: _mixed(p, tokens, np.full(len(w), 1 / len(w)), share)
            ),
            "the result sums to more than 1: the model's part must be scaled by 1 - λ": (
                lambda p, tokens, w, share: share * _recalled(p, tokens, w) + p
            ),
            "the model has no part in it": lambda p, tokens, w, share: _recalled(p, tokens, w),
            "you took the product of the two; the equation takes a sum": _product,
        },
        praise="right: neighbors with the same token add up.",
    )


@exercise
def bits_per_byte(answer: Callable[..., Any]) -> Verdict:
    """Check a function p (T,) -> mean bits for the bytes that came."""
    random = np.random.default_rng(5)
    return check(
        answer,
        lambda p: -np.log2(p).mean(),
        [(random.uniform(0.05, 1, size),) for size in (3, 8, 20)],
        mistakes={
            "these are nats: take the logarithm to base 2": lambda p: -np.log(p).mean(),
            "this is the sum over the text; divide it by the number of bytes": (
                lambda p: -np.log2(p).sum()
            ),
            "you averaged first: the mean of the logarithms is asked for": (
                lambda p: -np.log2(p.mean())
            ),
            "the sign: a probability below 1 has a negative logarithm": lambda p: np.log2(p).mean(),
            "this is the perplexity; its logarithm to base 2 is asked for": (
                lambda p: 2 ** (-np.log2(p).mean())
            ),
        },
        praise="right: half as likely costs one bit more.",
    )


def _hits(found: Array, nearest: Array) -> Array:
    return (nearest[:, :, None] == found[:, None, :]).any(axis=2)


def _recall(found: Array, nearest: Array) -> Any:
    return _hits(found, nearest).mean()


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def _reaches(weights: Array, share: float) -> int:
    return int(np.argmax(np.cumsum(weights) >= share)) + 1


def _enough(scores: Array, strength: float, share: float) -> int:
    return _reaches(np.sort(_softmax(strength * scores))[::-1], share)


def _from_the_lightest(scores: Array, strength: float, share: float) -> int:
    return _reaches(np.sort(_softmax(strength * scores)), share)


def _unsorted(scores: Array, strength: float, share: float) -> int:
    return _reaches(_softmax(strength * scores), share)


def _recalled(p_model: Array, tokens: Array, weights: Array) -> Array:
    recalled = np.zeros_like(p_model)
    np.add.at(recalled, tokens, weights)
    return recalled


def _mixed(p_model: Array, tokens: Array, weights: Array, share: float) -> Array:
    return share * _recalled(p_model, tokens, weights) + (1 - share) * p_model


def _last_kept(p_model: Array, tokens: Array, weights: Array, share: float) -> Array:
    recalled = np.zeros_like(p_model)
    recalled[tokens] = weights
    return share * recalled + (1 - share) * p_model


def _product(p_model: Array, tokens: Array, weights: Array, share: float) -> Array:
    both = _recalled(p_model, tokens, weights) ** share * p_model ** (1 - share)
    return both / both.sum()
