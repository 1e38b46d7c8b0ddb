"""Checkers of the exercises in *Fast weights*."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from memlib.teaching.exercises import Verdict, check, exercise


def _draw(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


@exercise
def forget(answer: Callable[..., Any]) -> Verdict:
    """Check a function (S (M, V), k (M,)) -> S without what k reads."""
    generator = Generator().manual_seed(0)
    cases = [
        (_draw(generator, width, values), _unit(_draw(generator, width)))
        for width, values in ((4, 3), (6, 2), (5, 5))
    ]
    return check(
        answer,
        _forget,
        cases,
        mistakes={
            "that is what k reads; take it out of S, by the outer product with k": (
                lambda S, k: k @ S
            ),
            "you added what k reads once more: take it away": (
                lambda S, k: S + torch.outer(k, k @ S)
            ),
            "each slot lost a part of itself; what goes is what k reads from all of them, for "
            "each its share": lambda S, k: S * (1 - k.square()).unsqueeze(-1),
            "you left k's share of what it reads nowhere: all slots lost the same vector": (
                lambda S, k: S - k @ S
            ),
            "everything is forgotten; keys at right angles to k must read what they read": (
                lambda S, k: 0 * S
            ),
        },
        praise="right: the delta rule with the value 0, or b = 1 and w = 0.",
    )


@exercise
def step(answer: Callable[..., Any]) -> Verdict:
    """Check a function (S (M, V), k, v (V,), b, w (V,), d) -> S after one token."""
    generator = Generator().manual_seed(1)
    cases = []
    for width, values in ((4, 3), (3, 5), (6, 2)):
        gates = [torch.sigmoid(_draw(generator, n)) for n in (width, values, width)]
        S, k, v = (_draw(generator, *s) for s in ((width, values), (width,), (values,)))
        cases.append((S, _unit(k), v, *gates))

    def late(S: Tensor, k: Tensor, v: Tensor, b: Tensor, w: Tensor, d: Tensor) -> Tensor:
        return d.unsqueeze(-1) * _step(S, k, v, b, w, torch.ones_like(d))

    def stale(S: Tensor, k: Tensor, v: Tensor, b: Tensor, w: Tensor, d: Tensor) -> Tensor:
        return d.unsqueeze(-1) * S - torch.outer(k, (b * k) @ S) + torch.outer(k, w * v)

    def gated_key(S: Tensor, k: Tensor, v: Tensor, b: Tensor, w: Tensor, d: Tensor) -> Tensor:
        S = d.unsqueeze(-1) * S
        return S - torch.outer(b * k, k @ S) + torch.outer(k, w * v)

    return check(
        answer,
        _step,
        cases,
        mistakes={
            "the decay comes first: what is written now must not fade yet": late,
            "erase what the key reads from the matrix after the decay, not before": stale,
            "b stands beside the key that reads; the key that writes has none": gated_key,
            "nothing is erased yet": lambda S, k, v, b, w, d: _step(S, k, v, 0 * b, w, d),
            "nothing decays yet": lambda S, k, v, b, w, d: _step(S, k, v, b, w, d**0),
            "the write gate does nothing yet": lambda S, k, v, b, w, d: _step(S, k, v, b, w**0, d),
            "what the key reads comes twice over: it is to be taken away": (
                lambda S, k, v, b, w, d: _step(S, k, v, -b, w, d)
            ),
        },
        praise="right: the sum, the delta rule and what lies between are settings of this.",
    )


@exercise
def crosstalk(answer: Callable[..., Any]) -> Verdict:
    """Check a function (keys (N, M), values (N, V)) -> relative length of each error (N,)."""
    generator = Generator().manual_seed(2)
    cases = [
        (_unit(_draw(generator, count, width)), _draw(generator, count, values))
        for count, width, values in ((5, 4, 3), (3, 8, 6), (7, 2, 4))
    ]
    return check(
        answer,
        _crosstalk,
        cases,
        mistakes={
            "that is the square: the length is asked for": (
                lambda keys, values: _crosstalk(keys, values).square()
            ),
            "as a share of the value's length, please": (
                lambda keys, values: _crosstalk(keys, values) * values.norm(dim=-1)
            ),
            "that is the length of all that comes back: take the value off first": (
                lambda keys, values: (keys @ (keys.mT @ values)).norm(dim=-1) / values.norm(dim=-1)
            ),
            "one number for each fact: not their mean": (
                lambda keys, values: _crosstalk(keys, values).mean()
            ),
            "the matrix is keysᵀ values; you read another one": (
                lambda keys, values: (
                    (keys @ keys.mT @ keys @ (keys.mT @ values) - values).norm(dim=-1)
                    / values.norm(dim=-1)
                )
            ),
        },
        praise="right: 0 where keys stand at right angles, and never where they are too many.",
    )


@exercise
def decay_for(answer: Callable[..., Any]) -> Verdict:
    """Check a function (steps, left) -> the decay a step."""
    cases = [(1, 0.5), (10, 0.5), (100, 0.1), (16, 0.9)]
    return check(
        answer,
        _decay_for,
        cases,
        mistakes={
            "that is the share lost in a step; the decay is the share that stays": (
                lambda steps, left: 1 - _decay_for(steps, left)
            ),
            "shares multiply: after two steps d² is left, not 1 - 2 (1 - d)": (
                lambda steps, left: 1 - (1 - left) / steps
            ),
            "that is what would be left after so many steps, had `left` been the decay": (
                lambda steps, left: left**steps
            ),
        },
        atol=1e-9,
        rtol=1e-7,
        praise="right: a memory of a hundred steps needs a decay close to 1.",
    )


@exercise
def taught(answer: Callable[..., Any]) -> Verdict:
    """Check a function (keys (N, M), values (N, V)) -> the matrix that telling again ends at."""
    generator = Generator().manual_seed(3)
    cases = [
        (_unit(_draw(generator, count, width)), _draw(generator, count, values))
        for count, width, values in ((3, 6, 2), (1, 4, 3), (5, 7, 4))
    ]

    def once(keys: Tensor, values: Tensor) -> Tensor:
        S = keys.new_zeros(keys.shape[-1], values.shape[-1])
        for k, v in zip(keys, values, strict=True):
            S = S + torch.outer(k, v - k @ S)
        return S

    def ridge(keys: Tensor, values: Tensor) -> Tensor:
        both = keys.mT @ keys + torch.eye(keys.shape[-1], dtype=keys.dtype)
        return torch.linalg.solve(both, keys.mT @ values)

    return check(
        answer,
        _taught,
        cases,
        mistakes={
            "that is the sum: it does not bring the values back": (
                lambda keys, values: keys.mT @ values
            ),
            "that is one telling at rate 1: the last value is whole, the others are not": once,
            "this pulls the matrix toward 0 and errs; bring the values back, then be small": ridge,
            "(M, V) is asked for: a row for each number of the key": (
                lambda keys, values: _taught(keys, values).mT
            ),
        },
        praise="right: least squares, found by nothing but reads and writes.",
    )


@exercise
def added(answer: Callable[..., Any]) -> Verdict:
    """Check a function (S (M, V), keys (T, M), values (T, V), rates (T,)) -> U (T, V)."""
    generator = Generator().manual_seed(4)
    cases = [
        (
            _draw(generator, width, values),
            _draw(generator, steps, width) / width**0.5,
            _draw(generator, steps, values),
            torch.sigmoid(_draw(generator, steps)),
        )
        for steps, width, values in ((6, 4, 3), (1, 3, 2), (9, 5, 4))
    ]

    def alone(S: Tensor, keys: Tensor, values: Tensor, rates: Tensor) -> Tensor:
        return rates.unsqueeze(-1) * (values - keys @ S)

    def by_column(S: Tensor, keys: Tensor, values: Tensor, rates: Tensor) -> Tensor:
        A = (keys @ keys.mT).tril(-1) * rates
        return torch.linalg.solve_triangular(
            A, alone(S, keys, values, rates), upper=False, unitriangular=True
        )

    def itself(S: Tensor, keys: Tensor, values: Tensor, rates: Tensor) -> Tensor:
        A = rates.unsqueeze(-1) * (keys @ keys.mT).tril()
        unit = torch.eye(len(keys), dtype=keys.dtype)
        return torch.linalg.solve(unit + A, alone(S, keys, values, rates))

    def added_up(S: Tensor, keys: Tensor, values: Tensor, rates: Tensor) -> Tensor:
        A = rates.unsqueeze(-1) * (keys @ keys.mT).tril(-1)
        return alone(S, keys, values, rates) - A @ alone(S, keys, values, rates)

    return check(
        answer,
        _added,
        cases,
        mistakes={
            "each token also reads what the tokens before it in this piece added": alone,
            "the rate of a token scales its row of A, not its column": by_column,
            "a token reads before it writes: A has nothing on its diagonal": itself,
            "that takes off what the others would add alone; but they corrected themselves, too: "
            "solve (I + A) U = …": added_up,
            "the matrix before this piece is read, too": (
                lambda S, keys, values, rates: _added(0 * S, keys, values, rates)
            ),
            "that is the matrix after; U is asked for, a row a token": (
                lambda S, keys, values, rates: S + keys.mT @ _added(S, keys, values, rates)
            ),
        },
        praise="right: this is how such models are trained on long texts.",
    )


def _forget(S: Tensor, k: Tensor) -> Tensor:
    return S - torch.outer(k, k @ S)


def _step(S: Tensor, k: Tensor, v: Tensor, b: Tensor, w: Tensor, d: Tensor) -> Tensor:
    S = d.unsqueeze(-1) * S
    return S - torch.outer(k, (b * k) @ S) + torch.outer(k, w * v)


def _crosstalk(keys: Tensor, values: Tensor) -> Tensor:
    return (keys @ (keys.mT @ values) - values).norm(dim=-1) / values.norm(dim=-1)


def _decay_for(steps: int, left: float) -> float:
    decay: float = left ** (1 / steps)
    return decay


def _taught(keys: Tensor, values: Tensor) -> Tensor:
    return torch.linalg.pinv(keys) @ values


def _added(S: Tensor, keys: Tensor, values: Tensor, rates: Tensor) -> Tensor:
    A = rates.unsqueeze(-1) * (keys @ keys.mT).tril(-1)
    wanted = rates.unsqueeze(-1) * (values - keys @ S)
    return torch.linalg.solve_triangular(A, wanted, upper=False, unitriangular=True)
