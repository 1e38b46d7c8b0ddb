"""Checkers of the exercises in *Neural Turing Machine*."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from memlib import NTM, tasks
from memlib.teaching.exercises import Verdict, check, compare, exercise


@exercise
def one_write(answer: Any) -> Verdict:
    """Check the slot (2, 4) after a write of weight 0.5, erase (1, 0), add (3, 3)."""
    return compare(
        answer,
        torch.tensor([2.5, 5.5]),
        mistakes={
            "the weight counts for the erase vector, too: the slot loses half of its 2": [1.5, 5.5],
            "the weight counts for the add vector, too: half of it is added": [4.0, 7.0],
            "you wrote with weight 1: the head is only half on this slot": [3.0, 7.0],
            "nothing was erased: the erase vector is 1 for the first entry": [3.5, 5.5],
            "you erased the entry that is to be kept: 1 means erase": [3.5, 3.5],
            "erase comes first, then add: what is added is not erased": [1.75, 5.5],
        },
        praise="right: half of the 2 is gone, and half of the add vector came on top.",
        atol=1e-3,
    )


@exercise
def one_vector(answer: Any) -> Verdict:
    """Check which vector of a query is enough for the machine of associative recall."""
    alone = "wipe the other two and ask for each item in turn: alone, the {} finds the next of one"
    return compare(
        answer,
        torch.tensor(3.0),
        mistakes={
            alone.format("first"): 1,
            alone.format("second"): 2,
            "vectors are counted from 1 here": 0,
        },
        praise="right: alone it is enough. (Of what use the others are, this does not tell.)",
        atol=1e-3,
    )


@exercise
def wrong_bits(answer: Callable[..., Any]) -> Verdict:
    """Check a function (logits, targets (B, T, O), mask (B, T)) -> wrong bits (B,)."""
    generator = Generator().manual_seed(0)
    cases = []
    for count, length in ((3, (1, 5)), (1, 4), (5, (2, 9))):
        batch = tasks.copy(count, length=length, bits=3, generator=generator)
        logits = 2 * torch.randn(batch.targets.shape, generator=generator)
        cases.append((logits, batch.targets, batch.mask))
    return check(
        answer,
        _wrong_bits,
        cases,
        mistakes={
            "you counted every step: the mask says which ones count": (
                lambda logits, targets, mask: _unlike(logits > 0, targets).sum((1, 2))
            ),
            "you counted the steps that do not count: True in the mask means that it does": (
                lambda logits, targets, mask: _wrong_bits(logits, targets, ~mask)
            ),
            "a logit above 0 means 1; above one half is for probabilities": (
                lambda logits, targets, mask: _wrong_bits(logits - 0.5, targets, mask)
            ),
            "these are the right bits": (
                lambda logits, targets, mask: _wrong_bits(-logits, targets, mask)
            ),
            "you took the mean over the bits: count them": (
                lambda logits, targets, mask: (
                    _wrong_bits(logits, targets, mask) / (mask.sum(1) * targets.shape[-1])
                )
            ),
            "you added up the whole batch: one count a sequence is asked for": (
                lambda logits, targets, mask: _wrong_bits(logits, targets, mask).sum()
            ),
            "you counted wrong vectors: a vector may have several wrong bits": (
                lambda logits, targets, mask: (_unlike(logits > 0, targets).any(-1) & mask).sum(1)
            ),
        },
        praise="right: a guess gets half of the bits wrong, the machine none.",
    )


@exercise
def parameters(answer: Callable[..., Any]) -> Verdict:
    """Check a function (inputs, outputs, width, hidden) -> the parameters of an NTM."""
    cases = [(9, 8, 20, 100), (1, 1, 3, 2), (10, 9, 16, 64)]
    return check(
        answer,
        _parameters,
        cases,
        mistakes={
            "the controller sees what was read, too: its input is inputs + width": (
                lambda i, o, m, d: _parameters(i, o, m, d) - 4 * d * m
            ),
            "the output layer sees what was read, too": (
                lambda i, o, m, d: _parameters(i, o, m, d) - m * o
            ),
            "the first states are learned, too: the read, the hidden state and the cell": (
                lambda i, o, m, d: _parameters(i, o, m, d) - m - 2 * d
            ),
            "two heads have knobs, the read head and the write head": (
                lambda i, o, m, d: _parameters(i, o, m, d) - (d + 1) * (m + 6)
            ),
            "the write head needs an erase and an add vector beside its knobs": (
                lambda i, o, m, d: _parameters(i, o, m, d) - (d + 1) * 2 * m
            ),
            "the two linear layers have a bias each": (
                lambda i, o, m, d: _parameters(i, o, m, d) - (4 * m + 12) - o
            ),
            "you counted the slots: they are the memory, and nothing of it is learned": (
                lambda i, o, m, d: _parameters(i, o, m, d) + 128 * m
            ),
        },
        praise="right, and no slots in it: the memory is not a parameter.",
    )


@exercise
def reverse_copy(answer: Callable[..., Any]) -> Verdict:
    """Check a function vectors (L, 8) -> inputs (2 L + 1, 9), targets (2 L + 1, 8), mask."""
    generator = Generator().manual_seed(0)
    cases = [
        (torch.randint(0, 2, (length, 8), generator=generator).float(),) for length in (3, 1, 6)
    ]

    def shifted(vectors: Tensor) -> tuple[Tensor, ...]:
        inputs, targets, mask = _reverse_copy(vectors)
        return inputs, targets.roll(-1, 0), mask.roll(-1, 0)

    def unmarked(vectors: Tensor) -> tuple[Tensor, ...]:
        inputs, targets, mask = _reverse_copy(vectors)
        return inputs * (torch.arange(9) < 8), targets, mask

    def whispered(vectors: Tensor) -> tuple[Tensor, ...]:
        inputs, targets, mask = _reverse_copy(vectors)
        return inputs + torch.nn.functional.pad(targets, (0, 1)), targets, mask

    return check(
        answer,
        _reverse_copy,
        cases,
        mistakes={
            "that is copy: the targets must come in the opposite order": lambda vectors: (
                _reverse_copy(vectors, order=1)
            ),
            "you reversed the inputs: they come in their own order, the targets do not": (
                lambda vectors: (
                    _reverse_copy(vectors.flip(0))[0],
                    *_reverse_copy(vectors, order=1)[1:],
                )
            ),
            "the first answer is asked for one step too early: the delimiter has a step of its "
            "own": shifted,
            "the delimiter is missing: the last channel is 1 in the step after the vectors": (
                unmarked
            ),
            "the mask is the wrong way round: True means that the step counts": lambda vectors: (
                *_reverse_copy(vectors)[:2],
                ~_reverse_copy(vectors)[2],
            ),
            "the inputs give the answer away: while it answers the machine sees zeros": whispered,
        },
        praise="right: a stack instead of a queue; the read head has to walk back.",
    )


@exercise
def by_luck(answer: Callable[..., Any]) -> Verdict:
    """Check a function (failed, group, others_failed, others) -> the share of ways by luck."""
    cases = [(6, 8, 3, 10), (2, 3, 1, 4), (0, 5, 3, 5), (5, 6, 4, 4)]
    return check(
        answer,
        _by_luck,
        cases,
        mistakes={
            "you counted only the ways with exactly this many: at least as many are asked for": (
                lambda f, g, o, n: _by_luck(f, g, o, n) - _by_luck(f + 1, g, o - 1, n)
            ),
            "you left out the ways with just this many: they count, too": (
                lambda f, g, o, n: _by_luck(f + 1, g, o - 1, n)
            ),
            "you counted the ways with fewer or as many: turn it round": (
                lambda f, g, o, n: 1 - _by_luck(f + 1, g, o - 1, n)
            ),
            "you drew with replacement: a machine errs once": _with_replacement,
        },
        praise="right: how sure one may be depends on which machines count.",
    )


@exercise
def best_cost(answer: Callable[..., Any]) -> Verdict:
    """Check a function bits (list) -> what the best predictor without context pays, in bits."""
    cases = [([1, 1],), ([0],), ([1, 0, 1, 1, 1, 0, 1],), ([0] * 12,)]
    return check(
        answer,
        _best_cost,
        cases,
        mistakes={
            "these are nats: take the logarithm to base 2": lambda bits: (
                _best_cost(bits) * math.log(2)
            ),
            "a cost is positive: minus the logarithm": lambda bits: -_best_cost(bits),
            "you counted the bit before you predicted it": lambda bits: _best_cost(bits, peek=True),
            "you started from 1 and 1 instead of one half and one half": lambda bits: _best_cost(
                bits, start=1.0
            ),
            "you took P(1) for every bit: a 0 pays for 1 - P(1)": lambda bits: _best_cost(
                bits, ones=True
            ),
            "you took the mean: the cost of the whole sequence is asked for": lambda bits: (
                _best_cost(bits) / len(bits)
            ),
        },
        praise="right: the best for n-grams is one of these a context.",
    )


# The references, and ways to err.


def _unlike(answers: Tensor, targets: Tensor) -> Tensor:
    return answers != (targets > 0.5)


def _wrong_bits(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    return (_unlike(logits > 0, targets) & mask.unsqueeze(-1)).sum((1, 2))


def _parameters(inputs: int, outputs: int, width: int, hidden: int) -> int:
    controller = torch.nn.LSTMCell(inputs + width, hidden)
    ntm = NTM(inputs, outputs, 8, width, controller=controller)
    return sum(p.numel() for p in ntm.parameters())


def _reverse_copy(vectors: Tensor, order: int = -1) -> tuple[Tensor, Tensor, Tensor]:
    length, bits = vectors.shape
    inputs, targets = torch.zeros(2 * length + 1, bits + 1), torch.zeros(2 * length + 1, bits)
    inputs[:length, :bits] = vectors
    inputs[length, bits] = 1
    targets[length + 1 :] = vectors.flip(0) if order < 0 else vectors
    return inputs, targets, torch.arange(2 * length + 1) > length


def _by_luck(failed: int, group: int, others_failed: int, others: int) -> float:
    every = failed + others_failed
    ways = [math.comb(group, k) * math.comb(others, every - k) for k in range(every + 1)]
    return sum(ways[failed:]) / sum(ways)


def _with_replacement(failed: int, group: int, others_failed: int, others: int) -> float:
    every, share = failed + others_failed, group / (group + others)
    return sum(
        math.comb(every, k) * share**k * (1 - share) ** (every - k)
        for k in range(failed, every + 1)
    )


def _best_cost(
    bits: list[int], start: float = 0.5, peek: bool = False, ones: bool = False
) -> float:
    counts, cost = [start, start], 0.0
    for bit in bits:
        if peek:
            counts[bit] += 1
        cost -= math.log2(counts[1 if ones else bit] / sum(counts))
        if not peek:
            counts[bit] += 1
    return cost
