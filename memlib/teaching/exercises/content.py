"""Checkers of the exercises in *Content-based memory*."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from memlib.teaching.exercises import Verdict, check, compare, exercise

Array = npt.NDArray[Any]


@exercise
def update_by_hand(answer: Any) -> Verdict:
    """Check the state (a pair) after one update of (1, 0) among (1, 1) and (-1, 1)."""
    larger = math.sqrt(3) / (1 + math.sqrt(3))  # the larger weight, were the scores 1 apart
    return compare(
        answer,
        (0.5, 1.0),
        mistakes={
            "you returned the nearest pattern; the softmax also gives the other one some weight": (
                1.0,
                1.0,
            ),
            "you averaged the patterns evenly, as β = 0 would; one fits the query better": (
                0.0,
                1.0,
            ),
            "you returned the weights; the new state is the sum of the patterns by these weights": (
                0.75,
                0.25,
            ),
            "the scores are 1 and -1, so they differ by 2: the weights stand as e^2β to 1": (
                2 * larger - 1,
                1.0,
            ),
            "you gave the larger weight to the pattern that fits worse": (-0.5, 1.0),
        },
        praise="right: weights 3/4 and 1/4, and the second entry is 1 in both patterns.",
        atol=1e-3,
    )


@exercise
def overlap(answer: Callable[..., Any]) -> Verdict:
    """Check a function (state (M,), patterns (N, M)) -> overlaps (N,)."""
    cases = [(_signs(width, seed=n), _signs(n, width, seed=n + 9)) for n, width in ((3, 8), (5, 6))]
    return check(
        answer,
        _overlap,
        cases,
        mistakes={
            "you did not divide by the width M: the overlap lies between -1 and 1": (
                lambda state, patterns: patterns @ state
            ),
            "you counted the share of signs that agree; if half of them do, the overlap is 0": (
                lambda state, patterns: (patterns == state).mean(axis=1)
            ),
            "you divided by the number of patterns N, not by the width M": (
                lambda state, patterns: patterns @ state / len(patterns)
            ),
            "you counted the signs that differ; the overlap is large where they agree": (
                lambda state, patterns: (patterns != state).mean(axis=1)
            ),
        },
        praise="right: agreements minus disagreements, divided by the width.",
    )


@exercise
def energy(answer: Callable[..., Any]) -> Verdict:
    """Check a function (query (M,), patterns (N, M), strength) -> energy without constant."""
    random = np.random.default_rng(0)
    cases = [
        (random.normal(size=4), random.normal(size=(n, 4)), strength)
        for n, strength in ((3, 0.5), (5, 2.0), (4, 8.0))
    ]
    verdict = check(
        answer,
        _energy,
        cases,
        mistakes={
            "you left out ½ |query|²: without it the state would run away to infinity": (
                lambda q, x, b: -_log_sum(b * (x @ q)) / b
            ),
            "you took |query|² whole; it enters by half": (
                lambda q, x, b: _energy(q, x, b) + q @ q / 2
            ),
            "you did not divide the log of the sum by β": (
                lambda q, x, b: -_log_sum(b * (x @ q)) + q @ q / 2
            ),
            "the sign of the log-sum-exp is wrong: a good fit must make the energy low": (
                lambda q, x, b: _log_sum(b * (x @ q)) / b + q @ q / 2
            ),
            "you left out β inside the exponential": (
                lambda q, x, b: -_log_sum(x @ q) / b + q @ q / 2
            ),
        },
    )
    if not verdict.ok:
        return verdict
    far = (np.array([3.0, 4.0]), np.array([[3.0, 4.0], [4.0, 3.0]]), 1000.0)
    with np.errstate(all="ignore"):
        result = answer(*far)
    if not np.isfinite(result):
        return Verdict(
            False,
            "right for small β, but at β = 1000 the exponential overflows: pull the largest score "
            "out of the sum first",
        )
    return check(answer, _energy, [far], praise="right, at β = 1000 too.")


@exercise
def hebbian(answer: Callable[..., Any]) -> Verdict:
    """Check a function patterns (N, M) -> connections (M, M)."""
    cases = [(_signs(n, width, seed=n),) for n, width in ((2, 5), (3, 7), (6, 4))]
    return check(
        answer,
        _hebbian,
        cases,
        mistakes={
            "the diagonal is not 0: each unit is connected to itself and would never change": (
                lambda x: x.T @ x / x.shape[1]
            ),
            "you did not divide by the width M": lambda x: _hebbian(x) * x.shape[1],
            "you divided by the number of patterns N; the definition divides by the width M": (
                lambda x: _hebbian(x) * x.shape[1] / len(x)
            ),
            "this matrix is N × N: it compares patterns; connections join units and are M × M": (
                lambda x: x @ x.T / x.shape[1]
            ),
            "this matrix is N × N, and cleared; connections join units and are M × M": (
                lambda x: x @ x.T / x.shape[1] - len(x.T) / x.shape[1] * np.eye(len(x))
            ),
        },
        praise="right: one matrix product stores them all, and the diagonal is clear.",
    )


@exercise
def top_k_update(answer: Callable[..., Any]) -> Verdict:
    """Check a function (query (M,), patterns (N, M), strength, k) -> new state (M,)."""
    random = np.random.default_rng(1)
    cases = [
        (random.normal(size=5), random.normal(size=(n, 5)), strength, k)
        for n, strength, k in ((6, 0.3, 2), (8, 0.7, 3), (9, 1.5, 4))
    ]
    return check(
        answer,
        _top_k_update,
        cases,
        mistakes={
            "the weights of the k chosen do not sum to 1: take the softmax after choosing": (
                _top_k_of_all
            ),
            "you took the k least similar patterns": (
                lambda q, x, b, k: _blend(q, x[np.argsort(x @ q)[:k]], b)
            ),
            "you averaged the k chosen patterns evenly; the softmax of strength β weighs them": (
                lambda q, x, b, k: x[np.argsort(x @ q)[-k:]].mean(axis=0)
            ),
            "you gave the others the score 0; e⁰ is 1, so they still share: give -infinity": (
                _top_k_zeros
            ),
            "all patterns share the weight: k had no effect": lambda q, x, b, k: _blend(q, x, b),
            "you left out the strength β": (
                lambda q, x, b, k: _blend(q, x[np.argsort(x @ q)[-k:]], 1.0)
            ),
        },
        praise="right: chosen first, weighed afterwards.",
    )


@exercise
def strength_for(answer: Callable[..., Any]) -> Verdict:
    """Check a function (query (M,), patterns (N, M), share) -> the strength that gives it."""
    random = np.random.default_rng(2)
    cases = [
        (random.normal(size=4), random.normal(size=(n, 4)), share)
        for n, share in ((3, 0.6), (5, 0.9), (7, 0.99))
    ]
    return check(
        answer,
        _strength_for,
        cases,
        mistakes={
            "this is right for two patterns; with more, all of them take a share of the weight": (
                lambda q, x, share: math.log(share / (1 - share)) / _gap(q, x)
            ),
            "you treated all other patterns as if they were as near as the second best": (
                lambda q, x, share: math.log(share * (len(x) - 1) / (1 - share)) / _gap(q, x)
            ),
            "this is 1/β, a temperature; the strength multiplies the similarity": (
                lambda q, x, share: 1 / _strength_for(q, x, share)
            ),
            "you found where the others together reach the share; the best pattern must": (
                lambda q, x, share: _strength_for(q, x, 1 - share)
            ),
        },
        praise="right: no formula, but a share that only grows, so bisection finds it.",
        rtol=1e-3,
    )


@exercise
def error_rate(answer: Callable[..., Any]) -> Verdict:
    """Check a function (count, width) -> probability that a unit of a stored pattern turns."""
    cases = [(10, 100), (30, 100), (138, 1000), (80, 200)]
    return check(
        answer,
        _error_rate,
        cases,
        mistakes={
            "you left out the square root: the noise has the standard deviation √(N/M)": (
                lambda count, width: math.erfc(width / (2 * count)) / 2
            ),
            "you turned the fraction over: more patterns must mean more errors": (
                lambda count, width: math.erfc(math.sqrt(count / (2 * width))) / 2
            ),
            "you left out the ½: only noise on one side of 0 turns the sign": (
                lambda count, width: math.erfc(math.sqrt(width / (2 * count)))
            ),
            "this is the chance that the unit stays right; 1 minus it is asked for": (
                lambda count, width: 1 - _error_rate(count, width)
            ),
        },
        praise="right: the chance of a wrong turn at the first step, and no cliff in it.",
        atol=1e-9,
        rtol=1e-6,
    )


# The references.


def _signs(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 2, shape) * 2.0 - 1


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def _log_sum(scores: Array) -> float:
    return float(scores.max() + np.log(np.exp(scores - scores.max()).sum()))


def _overlap(state: Array, patterns: Array) -> Array:
    return patterns @ state / len(state)


def _energy(query: Array, patterns: Array, strength: float) -> float:
    return float(-_log_sum(strength * (patterns @ query)) / strength + query @ query / 2)


def _hebbian(patterns: Array) -> Array:
    connections = patterns.T @ patterns / patterns.shape[1]
    return connections - np.diag(np.diag(connections))


def _blend(query: Array, patterns: Array, strength: float) -> Array:
    return _softmax(strength * (patterns @ query)) @ patterns


def _top_k_update(query: Array, patterns: Array, strength: float, k: int) -> Array:
    return _blend(query, patterns[np.argsort(patterns @ query)[-k:]], strength)


def _top_k_of_all(query: Array, patterns: Array, strength: float, k: int) -> Array:
    scores = patterns @ query
    best = np.argsort(scores)[-k:]
    return _softmax(strength * scores)[best] @ patterns[best]


def _top_k_zeros(query: Array, patterns: Array, strength: float, k: int) -> Array:
    scores = patterns @ query
    scores[np.argsort(scores)[:-k]] = 0
    return _softmax(strength * scores) @ patterns


def _gap(query: Array, patterns: Array) -> float:
    worse, best = np.sort(patterns @ query)[-2:]
    return float(best - worse)


def _strength_for(query: Array, patterns: Array, share: float) -> float:
    low, high = 0.0, 1.0
    while _softmax(high * (patterns @ query)).max() < share:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        weak = _softmax(middle * (patterns @ query)).max() < share
        low, high = (middle, high) if weak else (low, middle)
    return high


def _error_rate(count: int, width: int) -> float:
    return math.erfc(math.sqrt(width / (2 * count))) / 2
