"""Checkers of the exercises in *External memory in models*."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from memlib import interpolate, read, similarity, write
from memlib.teaching.exercises import Verdict, check, exercise


@exercise
def ratio(answer: Callable[..., Any]) -> Verdict:
    """Check a function tokens, width, value_width -> cached numbers over those of a matrix."""
    return check(
        answer,
        _ratio,
        [(1000, 64, 64), (4096, 128, 64), (10, 4, 8)],
        mistakes={
            "the sum of the keys is missing: the matrix has a companion of M numbers": (
                lambda tokens, M, V: tokens * (M + V) / (M * V)
            ),
            "a token has a key and a value: you counted one of them": lambda tokens, M, V: (
                tokens * M / (M * V + M)
            ),
            "a token has M + V numbers, not M times V": lambda tokens, M, V: (
                tokens * M * V / (M * V + M)
            ),
            "it is the other way round: the cache over the matrix": lambda tokens, M, V: (
                1 / _ratio(tokens, M, V)
            ),
            "the matrix does not grow with the tokens": lambda tokens, M, V: (M + V) / (M * V + M),
        },
        praise="right: and it grows with every token, since the matrix does not.",
    )


@exercise
def compress(answer: Callable[..., Any]) -> Verdict:
    """Check a function memory (N, M), rate -> the means of neighbors, (N / rate, M)."""
    generator = Generator().manual_seed(0)
    cases = [
        (torch.randn(slots, width, generator=generator), rate)
        for slots, width, rate in ((6, 3, 3), (8, 4, 2), (12, 2, 4))
    ]
    return check(
        answer,
        _compress,
        cases,
        mistakes={
            "that is the sum of neighbors: divide by the rate": lambda memory, rate: (
                _compress(memory, rate) * rate
            ),
            "you kept the first of each block and dropped the others": lambda memory, rate: memory[
                ::rate
            ],
            "you kept the last of each block and dropped the others": lambda memory, rate: memory[
                rate - 1 :: rate
            ],
            "you took slots from all over the memory together: a block is of neighbors": (
                lambda memory, rate: memory.unflatten(0, (rate, -1)).mean(0)
            ),
            "you averaged over the width: each slot keeps its M numbers": lambda memory, rate: (
                memory.unflatten(0, (-1, rate)).mean(-1)
            ),
            "that is one average of the whole memory": lambda memory, rate: memory.mean(0),
        },
        praise="right: what neighbors share stays, how they differ is gone.",
    )


@exercise
def vote(answer: Callable[..., Any]) -> Verdict:
    """Check a function query, keys, tokens, vocabulary, k -> probabilities by the neighbors."""
    generator = Generator().manual_seed(0)
    cases = []
    for slots, width, vocabulary, k in ((6, 2, 3, 3), (9, 3, 4, 5), (5, 2, 6, 2)):
        keys = torch.randn(slots, width, generator=generator)
        tokens = torch.randint(vocabulary, (slots,), generator=generator)
        query = keys[0] + 0.3 * torch.randn(width, generator=generator)
        cases.append((query, keys, tokens, vocabulary, k))
    cases.append(
        (torch.zeros(1), torch.tensor([[1.0], [-1.0], [2.0]]), torch.tensor([1, 1, 0]), 3, 3)
    )

    return check(
        answer,
        _vote,
        cases,
        mistakes={
            "all slots voted: only the k nearest do": lambda query, keys, tokens, vocabulary, k: (
                _vote(query, keys, tokens, vocabulary, len(keys))
            ),
            "the farthest voted: the score is minus the squared distance": (
                lambda query, keys, tokens, vocabulary, k: _vote(
                    query, keys, tokens, vocabulary, k, sign=1.0
                )
            ),
            "the distance is not squared": lambda query, keys, tokens, vocabulary, k: _vote(
                query, keys, tokens, vocabulary, k, power=1.0
            ),
            "two neighbors with one token: their votes add up, one must not replace the other": (
                lambda query, keys, tokens, vocabulary, k: _vote(
                    query, keys, tokens, vocabulary, k, add=False
                )
            ),
            "each of the k has the same vote: the nearer should have more": (
                lambda query, keys, tokens, vocabulary, k: _vote(
                    query, keys, tokens, vocabulary, k, even=True
                )
            ),
            "those are the votes of the slots: add them up by token": (
                lambda query, keys, tokens, vocabulary, k: _votes(query, keys, k)
            ),
        },
        praise="right: a read whose values are one-hot is a distribution over tokens.",
    )


@exercise
def mix(answer: Callable[..., Any]) -> Verdict:
    """Check a function far, near (B, H, T, V), gate (H,) -> the two reads blended, head by head."""
    generator = Generator().manual_seed(0)
    cases = []
    for shape in ((2, 3, 4, 3), (1, 2, 5, 2), (3, 4, 2, 4)):
        far, near = torch.randn(2, *shape, generator=generator)
        cases.append((far, near, torch.randn(shape[1], generator=generator)))

    return check(
        answer,
        _mix,
        cases,
        mistakes={
            "the gate is a raw number: a sigmoid makes it a share between 0 and 1": (
                lambda far, near, gate: _mix(far, near, gate, squash=False)
            ),
            "far and near are swapped: a gate of 1 reads the far memory": lambda far, near, gate: (
                _mix(near, far, gate)
            ),
            "you added the near read whole: it has the share that the gate leaves": (
                lambda far, near, gate: near + _open(gate) * far
            ),
            "one gate for all: each head has its own": lambda far, near, gate: _mix(
                far, near, gate.mean().expand_as(gate)
            ),
            "the gate lies along the last dimension: heads are the second": (
                lambda far, near, gate: gate.sigmoid() * far + (1 - gate.sigmoid()) * near
            ),
        },
        praise="right: one number a head says how far it looks back.",
    )


@exercise
def rag(answer: Callable[..., Any]) -> Verdict:
    """Check a function documents (Z,), tokens (Z, T) -> probability by sequence, by token."""
    generator = Generator().manual_seed(0)
    cases = [
        (
            torch.randn(documents, generator=generator).softmax(0),
            torch.rand(documents, length, generator=generator),
        )
        for documents, length in ((2, 3), (4, 2), (3, 5))
    ]
    return check(
        answer,
        _rag,
        cases,
        mistakes={
            "the two are swapped: by sequence comes first": lambda documents, tokens: _rag(
                documents, tokens
            )[::-1],
            "the documents count alike: weigh each by its probability": lambda documents, tokens: (
                _rag(torch.ones_like(documents) / len(documents), tokens)
            ),
            "the tokens of an answer are all needed: multiply, do not average": (
                lambda documents, tokens: (documents @ tokens.mean(1), (documents @ tokens).mean())
            ),
            "that is the best document alone: sum over all of them": lambda documents, tokens: (
                documents.max() * tokens[documents.argmax()].prod(),
                tokens[documents.argmax()].prod(),
            ),
            "by sequence, a document is chosen once for the whole answer, so its probability "
            "counts once": lambda documents, tokens: (
                (documents[:, None] * tokens).prod(1).sum(),
                _rag(documents, tokens)[1],
            ),
        },
        praise="right: a sum of products, and a product of sums.",
    )


@exercise
def surprise(answer: Callable[..., Any]) -> Verdict:
    """Check one step of a memory that learns: the new memory and the new momentum."""
    generator = Generator().manual_seed(0)
    cases = []
    for width, value_width, keep, rate, forget in ((3, 2, 0.9, 0.1, 0.0), (2, 2, 0.5, 0.3, 0.2)):
        memory, momentum = torch.randn(2, width, value_width, generator=generator)
        key = torch.randn(width, generator=generator)
        value = torch.randn(value_width, generator=generator)
        cases.append((memory, momentum, key, value, keep, rate, forget))

    def erring(**how: Any) -> Callable[..., tuple[Tensor, Tensor]]:
        return lambda *case: _surprise(*case, **how)

    return check(
        answer,
        _surprise,
        cases,
        mistakes={
            "you went up the error: the momentum takes the gradient with a minus": erring(
                factor=-2
            ),
            "the gradient of a square has a factor of 2": erring(factor=1),
            "the momentum is missing: keep times the old one goes into the new": erring(old=False),
            "the momentum was forgotten by the memory: add the new one to what is kept": (
                erring(into=False)
            ),
            "forgetting belongs to the memory: keep 1 - forget of it": erring(fade=False),
            "you forgot the momentum too: forget belongs to the memory alone": erring(both=True),
        },
        praise="right: without momentum and forgetting this is the delta rule.",
    )


@exercise
def note(answer: Callable[..., Any]) -> Verdict:
    """Check a function keys, values, key, value, slots -> the keys and values of all notes."""
    generator = Generator().manual_seed(0)
    cases = []
    for held, slots, again in ((3, 5, 1), (4, 4, 0), (4, 4, None), (2, 2, None)):
        keys = 3 * torch.randn(held, 8, generator=generator)
        values = torch.randn(held, 2, generator=generator)
        key = torch.randn(8, generator=generator) if again is None else 0.5 * keys[again]
        cases.append((keys, values, key, torch.randn(2, generator=generator), slots))

    def erring(**how: Any) -> Callable[..., tuple[Tensor, Tensor]]:
        return lambda *case: _note(*case, **how)

    return check(
        answer,
        _note,
        cases,
        mistakes={
            "an old note with the same key stays beside the new one: it must go": erring(near=2.0),
            "compare by the cosine: a key may be of any length": erring(measure="dot"),
            "there are more notes than slots: the oldest must go": erring(limit=False),
            "you dropped the newest where there is no room: the oldest must go": erring(first=True),
            "the new note is the newest: it stands last": erring(front=True),
        },
        praise="right: what changed is replaced, and what is old makes room.",
    )


# The references, and ways to err.


def _ratio(tokens: int, width: int, value_width: int) -> float:
    return tokens * (width + value_width) / (width * value_width + width)


def _compress(memory: Tensor, rate: int) -> Tensor:
    return memory.unflatten(0, (-1, rate)).mean(1)


def _votes(
    query: Tensor, keys: Tensor, k: int, sign: float = -1.0, power: float = 2.0, even: bool = False
) -> Tensor:
    scores = sign * (keys - query).norm(dim=-1) ** power
    best = torch.zeros_like(scores, dtype=torch.bool)
    best[scores.topk(k).indices] = True
    scores = torch.zeros_like(scores) if even else scores
    return scores.masked_fill(~best, -torch.inf).softmax(0)


def _vote(
    query: Tensor,
    keys: Tensor,
    tokens: Tensor,
    vocabulary: int,
    k: int,
    add: bool = True,
    **how: Any,
) -> Tensor:
    votes = _votes(query, keys, k, **how)
    if add:
        return read(votes[None], F.one_hot(tokens, vocabulary).to(votes.dtype))[0]
    result = votes.new_zeros(vocabulary)
    for token, share in zip(tokens, votes, strict=True):
        if share > 0:
            result[token] = share
    return result


def _open(gate: Tensor) -> Tensor:
    return gate.sigmoid()[:, None, None]


def _mix(far: Tensor, near: Tensor, gate: Tensor, squash: bool = True) -> Tensor:
    if squash:
        return interpolate(far, near, gate.sigmoid()[:, None].expand(far.shape[:-1]))
    return gate[:, None, None] * far + (1 - gate[:, None, None]) * near


def _rag(documents: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    return documents @ tokens.prod(1), (documents @ tokens).prod()


def _surprise(
    memory: Tensor,
    momentum: Tensor,
    key: Tensor,
    value: Tensor,
    keep: float,
    rate: float,
    forget: float,
    factor: float = 2.0,
    old: bool = True,
    into: bool = True,
    fade: bool = True,
    both: bool = False,
) -> tuple[Tensor, Tensor]:
    missing = value - read(key[None], memory)[0]
    new = write(momentum * (keep * old), key[None], factor * rate * missing[None])
    kept = memory * (1 - forget * fade)
    return kept + new * into, new * (1 - forget) if both else new


def _note(
    keys: Tensor,
    values: Tensor,
    key: Tensor,
    value: Tensor,
    slots: int,
    measure: Any = "cosine",
    near: float = 0.9,
    limit: bool = True,
    first: bool = False,
    front: bool = False,
) -> tuple[Tensor, Tensor]:
    others = similarity(key[None], keys, measure=measure)[0] < near
    result = []
    for old, new in ((keys, key), (values, value)):
        notes = torch.cat((old[others], new[None]))
        if limit:
            notes = notes[:slots] if first else notes[-slots:]
        result.append(notes.roll(1, 0) if front else notes)
    return result[0], result[1]
