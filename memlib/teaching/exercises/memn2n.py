"""Checkers of the exercises in *End-to-end memory network*."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor

from memlib import attend
from memlib.teaching.exercises import Verdict, check, compare, exercise


@exercise
def chosen(answer: Callable[..., Any]) -> Verdict:
    """Check a function train, test (lists) -> the test error that may be reported."""
    cases = [
        ([4.0, 1.0, 3.0, 2.0], [9.0, 7.0, 6.0, 8.0]),
        ([0.5, 2.5, 0.25], [12.0, 10.0, 11.0]),
        ([3.0, 5.0], [2.0, 8.0]),
    ]
    return check(
        answer,
        _chosen,
        cases,
        mistakes={
            "you chose by the test error: that is peeking, and flatters": lambda train, test: min(
                test
            ),
            "that is a training error: choose by it, and report the test error": (
                lambda train, test: min(train)
            ),
            "you took the start with the largest training error": lambda train, test: test[
                max(range(len(train)), key=train.__getitem__)
            ],
            "that is the mean over the starts: an honest number too, but not the best of ten": (
                lambda train, test: sum(test) / len(test)
            ),
            "that is the place of the start: return its test error": lambda train, test: min(
                range(len(train)), key=train.__getitem__
            ),
        },
        praise="right: chosen without a look at the test errors.",
    )


@exercise
def one_hop(answer: Any) -> Verdict:
    """Check the query after a hop over two sentences and two empty slots."""
    return compare(
        answer,
        torch.tensor([2.0, 1.5]),
        mistakes={
            "the empty slots are missing: each of them adds e to the 0 to the sum": [2.5, 1.75],
            "that is what came back: add it to the query": [1.0, 0.5],
            "one empty slot is missing: there are two": [2.2, 1.6],
            "you used the scores as weights: the softmax takes e to the score first": [
                1 + 2 * math.log(3),
                1.0,
            ],
            "the weights must sum to 1 over all slots": [7.0, 4.0],
        },
        praise="right: a third of the weight was spent on nothing.",
        atol=1e-2,
    )


@exercise
def ages(answer: Callable[..., Any]) -> Verdict:
    """Check a function filled (B, N) of booleans -> how many sentences come after each."""
    cases = [
        (torch.tensor([[True, True, True], [True, False, True]]),),
        (torch.tensor([[False, True, False, True, True, False]]),),
        (torch.tensor([[False, False], [True, False]]),),
    ]

    def after(told: Tensor) -> Tensor:
        return told.long().flip(1).cumsum(1).flip(1)

    def places(told: Tensor) -> Tensor:
        return torch.arange(told.shape[1]).flip(0).expand(told.shape)

    return check(
        answer,
        _ages,
        cases,
        mistakes={
            "you counted from the oldest: the newest has age 0": lambda told: (
                (told.long().cumsum(1) - 1) * told
            ),
            "you counted the sentence itself: the newest has age 0, not 1": lambda told: (
                after(told) * told
            ),
            "you counted slots: one without a sentence does not make anything older": (
                lambda told: places(told) * told
            ),
            "slots without a sentence must get 0": lambda told: after(told) - told.long(),
            "the slots without a sentence got -1: set them to 0": lambda told: after(told) - 1,
            "you counted slots, and gave ages to empty ones": places,
        },
        praise="right: so the newest has the same vector in a story of any length.",
    )


@exercise
def hops(answer: Callable[..., Any]) -> Verdict:
    """Check a function u (d,), slots (K + 1, N, d) -> the query after the last hop (d,)."""
    generator = Generator().manual_seed(0)
    cases = []
    for count, slots, width in ((2, 5, 3), (1, 4, 2), (3, 6, 4)):
        memory = torch.randn(count + 1, slots, width, generator=generator)
        memory[:, -2:] = 0
        cases.append((torch.randn(width, generator=generator), memory))

    return check(
        answer,
        _hops,
        cases,
        mistakes={
            "what came back replaced the query: it is added to it": lambda u, slots: _hops(
                u, slots, add=False
            ),
            "the softmax is missing": lambda u, slots: _hops(u, slots, softmax=False),
            "keys and values came from one matrix: hop k finds by k - 1 and reads by k": (
                lambda u, slots: _hops(u, slots, same=True)
            ),
            "keys and values are swapped: hop k finds by k - 1 and reads by k": (
                lambda u, slots: _hops(u, slots, swap=True)
            ),
            "you left the empty slots out: they belong into the softmax": lambda u, slots: _hops(
                u, slots[:, :-2]
            ),
            "every hop asked the first question: the query of a hop is what the last one handed "
            "on": lambda u, slots: _hops(u, slots, first=True),
            "that is one hop: there are as many as slots has memories, less one": lambda u, slots: (
                _hops(u, slots[:2])
            ),
        },
        praise="right: K reads, each with a better question.",
    )


@exercise
def clip(answer: Callable[..., Any]) -> Verdict:
    """Check a function gradients (list of tensors), limit -> the list, clipped one by one."""
    generator = Generator().manual_seed(0)

    def of_norms(*norms: float) -> list[Tensor]:
        drawn = [torch.randn(3, 2, generator=generator) for _ in norms]
        return [norm * g / g.norm() for norm, g in zip(norms, drawn, strict=True)]

    cases = [(of_norms(50.0, 3.0), 40.0), (of_norms(1.0, 2.0, 10.0), 1.5), (of_norms(5.0), 7.0)]

    def together(gradients: list[Tensor], limit: float) -> list[Tensor]:
        norm = torch.stack([g.norm() for g in gradients]).norm().item()
        return [g * min(1.0, limit / norm) for g in gradients]

    return check(
        answer,
        _clip,
        cases,
        mistakes={
            "you took one norm over all of them: a large one then shrinks the others": together,
            "you lengthened the short ones: those are to stay as they are": (
                lambda gradients, limit: [g * (limit / g.norm()) for g in gradients]
            ),
            "you clipped each number: that changes the direction": lambda gradients, limit: (
                [g.clamp(-limit, limit) for g in gradients]
            ),
            "you divided the long ones by the limit": lambda gradients, limit: (
                [g / limit if g.norm() > limit else g for g in gradients]
            ),
            "the long ones have norm 1: scale them to the limit": lambda gradients, limit: (
                [g / g.norm() if g.norm() > limit else g for g in gradients]
            ),
            "nothing was clipped": lambda gradients, limit: gradients,
        },
        praise="right: each keeps its direction, and the short ones their length.",
    )


@exercise
def count(answer: Callable[..., Any]) -> Verdict:
    """Check a function size, score, slots -> how many sentences fit."""
    cases = [
        (_size(sentences, score, slots), score, slots)
        for sentences, score, slots in ((7, 3.0, 50), (1, 2.0, 10), (0, 1.0, 5), (4, 0.0, 8))
    ]
    return check(
        answer,
        _count,
        cases,
        mistakes={
            "you took all slots for empty: slots - n are": lambda size, score, slots: (
                size * slots / ((1 - size) * math.exp(score))
            ),
            "a sentence weighs e to its score": lambda size, score, slots: (
                size * slots / (size + (1 - size) * score)
            ),
            "that would be right if every sentence scored 0, as the empty slots do": (
                lambda size, score, slots: size * slots
            ),
            "e to the score is on the wrong side: the higher it is, the fewer it takes": (
                lambda size, score, slots: size * slots / (size + (1 - size) * math.exp(-score))
            ),
            "that is the number of empty slots": lambda size, score, slots: (
                slots - _count(size, score, slots)
            ),
        },
        praise="right: what comes back tells how many. An average would not.",
    )


# The references, and ways to err.


def _chosen(train: list[float], test: list[float]) -> float:
    return test[min(range(len(train)), key=train.__getitem__)]


def _ages(told: Tensor) -> Tensor:
    return (told.long().flip(1).cumsum(1).flip(1) - 1) * told


def _hops(
    u: Tensor,
    slots: Tensor,
    add: bool = True,
    softmax: bool = True,
    same: bool = False,
    swap: bool = False,
    first: bool = False,
) -> Tensor:
    asked = u
    for before, after in pairwise(slots):
        keys, values = (after, before) if swap else (before, before if same else after)
        query = asked if first else u
        if softmax:
            read = attend(query[None], keys, values, measure="dot")[0]
        else:
            read = (keys @ query) @ values
        u = u + read if add else read
    return u


def _clip(gradients: list[Tensor], limit: float) -> list[Tensor]:
    return [g * min(1.0, limit / g.norm().item()) for g in gradients]


def _size(sentences: int, score: float, slots: int) -> float:
    weight = sentences * math.exp(score)
    return weight / (weight + slots - sentences)


def _count(size: float, score: float, slots: int) -> float:
    return size * slots / (size + (1 - size) * math.exp(score))
