"""Checkers of the exercises in *The Transformer as memory*."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from memlib import attend
from memlib.teaching.exercises import Verdict, check, exercise


@exercise
def cache_size(answer: Callable[..., Any]) -> Verdict:
    """Check a function (layers, kv_heads, width, tokens, number) -> bytes of a cache."""
    cases = [(12, 12, 64, 1024, 2), (2, 1, 8, 5, 4), (80, 8, 128, 131072, 1)]
    return check(
        answer,
        _cache_size,
        cases,
        mistakes={
            "a token keeps a key and a value: twice as much": lambda *sizes: (
                _cache_size(*sizes) // 2
            ),
            "these are numbers: each takes `number` bytes": (
                lambda layers, kv_heads, width, tokens, number: _cache_size(
                    layers, kv_heads, width, tokens, 1
                )
            ),
            "every layer has a memory of its own": lambda *sizes: _cache_size(1, *sizes[1:]),
            "each key/value head keeps a key and a value of its own": lambda layers, _, *rest: (
                _cache_size(layers, 1, *rest)
            ),
            "these are the weights between all pairs of tokens; they are not kept": (
                lambda layers, kv_heads, width, tokens, number: (
                    _cache_size(layers, kv_heads, width, tokens, number) * tokens
                )
            ),
        },
        praise="right: it grows with the text, and with everything else in the line.",
    )


@exercise
def may_read(answer: Callable[..., Any]) -> Verdict:
    """Check a function (new (T,), slots (N,), window) -> mask (T, N)."""
    cases = [
        (torch.tensor([4, 5, 6]), torch.tensor([0, 1, 2, 3, 4, 5, 6]), None),
        (torch.tensor([4, 5, 6]), torch.tensor([4, 5, 6, 1, 2, 3]), 3),
        (torch.tensor([1, 2]), torch.tensor([0, 1, 2, -1]), 4),
        (torch.tensor([0, 1]), torch.tensor([-2, -1, 0, 1]), None),
    ]

    def past_only(new: Tensor, slots: Tensor, window: int | None) -> Tensor:
        return _may_read(new, slots, window) & (slots < new.unsqueeze(-1))

    def endless(new: Tensor, slots: Tensor, window: int | None) -> Tensor:
        return _may_read(new, slots, None)

    def wider(new: Tensor, slots: Tensor, window: int | None) -> Tensor:
        return _may_read(new, slots, None if window is None else window + 1)

    def future(new: Tensor, slots: Tensor, window: int | None) -> Tensor:
        age = new.unsqueeze(-1) - slots
        return (slots >= 0) & (age < window if window is not None else age == age)

    def empty_too(new: Tensor, slots: Tensor, window: int | None) -> Tensor:
        age = new.unsqueeze(-1) - slots
        return (age >= 0) & (age < window if window is not None else age == age)

    return check(
        answer,
        _may_read,
        cases,
        mistakes={
            "a query reads its own token, too": past_only,
            "the window does nothing yet": endless,
            "one token too many: a window of n is n tokens, the query's own included": wider,
            "the future can be read: a slot with a later position must be hidden": future,
            "an empty slot can be read: its position is below 0": empty_too,
            "the wrong way round: True means may be read": (
                lambda new, slots, window: ~_may_read(new, slots, window)
            ),
            "a row for each query and a column for each slot, please": (
                lambda new, slots, window: _may_read(new, slots, window).mT
            ),
        },
        praise="right: triangle, window, ring, padding: one rule about positions.",
    )


@exercise
def held(answer: Callable[..., Any]) -> Verdict:
    """Check a function (seen, slots) -> the position in each slot of a ring."""
    cases = [(0, 3), (2, 4), (4, 4), (5, 4), (11, 4), (9, 1)]

    def first(seen: int, slots: int) -> Tensor:
        position = torch.arange(slots)
        return position.masked_fill(position >= seen, -1)

    def in_order(seen: int, slots: int) -> Tensor:
        return (torch.arange(slots) + seen - slots).clamp(min=-1)

    return check(
        answer,
        _held,
        cases,
        mistakes={
            "these are the tokens that came first: a full ring overwrites them": first,
            "these are the right tokens, the oldest first; but each lies in slot t mod N": in_order,
            "positions begin at 0: the newest is seen - 1": (
                lambda seen, slots: (_held(seen, slots) + 1).masked_fill(_held(seen, slots) < 0, -1)
            ),
            "the token that comes next has not been written yet": (
                lambda seen, slots: _held(seen + 1, slots)
            ),
            "an empty slot is told by -1": (
                lambda seen, slots: seen - 1 - (seen - 1 - torch.arange(slots)) % slots
            ),
        },
        praise="right: with these positions a ring is masked like any other memory.",
    )


@exercise
def prefix_matching(answer: Callable[..., Any]) -> Verdict:
    """Check a function (weights (T, T), tokens (T,)) -> prefix-matching score."""
    generator = Generator().manual_seed(0)
    cases = []
    for tokens in ([3, 1, 2, 3, 1, 2, 3, 1], [0, 1, 0, 0, 2, 1, 0], [5, 5, 6, 7, 5]):
        scores = 2 * torch.randn(len(tokens), len(tokens), generator=generator)
        weights = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf).softmax(-1)
        cases.append((weights, torch.tensor(tokens)))
    return check(
        answer,
        _prefix_matching,
        cases,
        mistakes={
            "you added up the weight on the same token; what counts is the one after it": (
                lambda weights, tokens: _prefix_matching(weights, tokens, step=0)
            ),
            "that is the token before its like; what counts is the one after it": (
                lambda weights, tokens: _prefix_matching(weights, tokens, step=-1)
            ),
            "only queries whose token was said before count in the mean": (
                lambda weights, tokens: _prefix_matching(weights, tokens, everyone=True)
            ),
            "add up the weights of all occurrences, not of the last one alone": (
                lambda weights, tokens: _prefix_matching(weights, tokens, last=True)
            ),
            "you took the sum over the queries: the mean is asked for": (
                lambda weights, tokens: _prefix_matching(weights, tokens) * _seen(tokens).sum()
            ),
            "the rows of the weights are the queries": (
                lambda weights, tokens: _prefix_matching(weights.mT, tokens)
            ),
        },
        praise="right: 1 would be a head that looks at nothing else.",
    )


@exercise
def grouped(answer: Callable[..., Any]) -> Verdict:
    """Check a function (query (H, T, M), keys, values (G, N, M)) -> (H, T, M)."""
    generator = Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cases = [
        (draw(heads, 3, 4), draw(groups, 5, 4), draw(groups, 5, 4))
        for heads, groups in ((4, 2), (6, 2), (3, 3), (4, 1))
    ]

    def in_turn(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        times = len(query) // len(keys)
        return attend(query, keys.repeat(times, 1, 1), values.repeat(times, 1, 1))

    def first_alone(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return attend(query, keys[:1], values[:1])

    def pooled(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return attend(query, keys.flatten(0, 1).unsqueeze(0), values.flatten(0, 1).unsqueeze(0))

    def unscaled(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return _grouped(query * query.shape[-1] ** 0.5, keys, values)

    return check(
        answer,
        _grouped,
        cases,
        mistakes={
            "neighboring query heads share a memory: heads 0 and 1 of four read group 0, not 0 "
            "and 1 in turn": in_turn,
            "all heads read the memory of group 0": first_alone,
            "each head read the slots of all groups": pooled,
            "the scaled dot product is divided by the root of M: leave the measure as it comes": (
                unscaled
            ),
            "(H, T, M) was asked for: put the heads of all groups side by side again": (
                lambda query, keys, values: _grouped(query, keys, values).unflatten(
                    0, (len(keys), -1)
                )
            ),
        },
        praise="right: H heads ask, and only G memories are kept.",
    )


@exercise
def edit(answer: Callable[..., Any]) -> Verdict:
    """Check a function (values (N, D), weights (Q, N), question, new (D,)) -> values (N, D)."""
    generator = Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cases = [
        (draw(slots, 3), draw(questions, slots).relu() + 0.1, question, draw(3))
        for slots, questions, question in ((6, 3, 1), (8, 1, 0), (5, 5, 4), (9, 4, 0))
    ]

    def delta(values: Tensor, weights: Tensor, question: int, new: Tensor) -> Tensor:
        w = weights[question]
        return values + torch.outer(w / w.square().sum(), new - w @ values)

    def hebbian(values: Tensor, weights: Tensor, question: int, new: Tensor) -> Tensor:
        return values + torch.outer(weights[question], new)

    def anew(values: Tensor, weights: Tensor, question: int, new: Tensor) -> Tensor:
        wanted = weights @ values
        wanted[question] = new
        return torch.linalg.pinv(weights) @ wanted

    def added(values: Tensor, weights: Tensor, question: int, new: Tensor) -> Tensor:
        return _edit(values, weights, question, new + weights[question] @ values)

    def loudest(values: Tensor, weights: Tensor, question: int, new: Tensor) -> Tensor:
        result, w = values.clone(), weights[question]
        slot = int(w.argmax())
        result[slot] += (new - w @ values) / w[slot]
        return result

    def nothing(values: Tensor, weights: Tensor, question: int, new: Tensor) -> Tensor:
        return values.clone()

    return check(
        answer,
        _edit,
        cases,
        mistakes={
            "the question reads the new answer, but others whose weights overlap with its own "
            "feel it": delta,
            "that adds the new answer to the old one, and the others feel it": hebbian,
            "all reads are right, but the values changed more than they need: find the least "
            "change and add it": anew,
            "the question reads the old answer and the new one: write what is new less what was "
            "read": added,
            "one slot alone was changed: others that weigh it feel it": loudest,
            "nothing was changed": nothing,
        },
        praise="right: where no question is a mixture of others, there is room without harm.",
        atol=1e-4,
    )


# The references, and ways to err.


def _cache_size(layers: int, kv_heads: int, width: int, tokens: int, number: int) -> int:
    return layers * kv_heads * 2 * width * tokens * number


def _may_read(new: Tensor, slots: Tensor, window: int | None) -> Tensor:
    age = new.unsqueeze(-1) - slots
    mask = (age >= 0) & (slots >= 0)
    return mask if window is None else mask & (age < window)


def _held(seen: int, slots: int) -> Tensor:
    return (seen - 1 - (seen - 1 - torch.arange(slots)) % slots).clamp(min=-1)


def _seen(tokens: Tensor) -> Tensor:
    return (tokens.unsqueeze(-1) == tokens).tril(-1).any(-1)


def _prefix_matching(
    weights: Tensor, tokens: Tensor, step: int = 1, everyone: bool = False, last: bool = False
) -> Tensor:
    same = (tokens.unsqueeze(-1) == tokens).tril(-1)
    if last:
        place = torch.arange(len(tokens)) * same
        same = same & (place == place.amax(-1, keepdim=True))
    after = torch.nn.functional.pad(same, (1, 1))[:, 1 - step : 1 - step + len(tokens)]
    sums = (weights * after).sum(-1)
    return sums.mean() if everyone else sums[_seen(tokens)].mean()


def _grouped(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    shared = len(query) // len(keys)
    return attend(query, keys.repeat_interleave(shared, 0), values.repeat_interleave(shared, 0))


def _edit(values: Tensor, weights: Tensor, question: int, new: Tensor) -> Tensor:
    wanted = torch.zeros(len(weights), values.shape[1], dtype=values.dtype)
    wanted[question] = new - weights[question] @ values
    return values + torch.linalg.pinv(weights) @ wanted
