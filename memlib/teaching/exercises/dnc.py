"""Checkers of the exercises in *Differentiable neural computer*."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from memlib import DNCCell, address
from memlib.teaching.exercises import UNWRITTEN, Verdict, check, compare, exercise

FAR = 1000.0  # a gate told so is 1, or 0
MODES = ("back", "alike", "forth")
KINDS = ("first", "store", "ask", "next")
LENGTH, ROUNDS = 3, 5


@exercise
def four_slots(answer: Any) -> Verdict:
    """Check the allocation of slots used (0.9, 0.2, 0.5, 1)."""
    return compare(
        answer,
        torch.tensor([0.01, 0.8, 0.1, 0.0]),
        mistakes={
            "that is how far each slot is free: those freer than it are offered first": [
                *(0.1, 0.8, 0.5, 0.0)
            ],
            "these are in the order of usage: put each back in its slot": [0.8, 0.1, 0.01, 0.0],
            "you began with the most used slot: the freest is the first": [0.1, 0.36, 0.45, 0.0],
            "multiply by how far the freer slots are in use, not by how far they are free": [
                *(0.04, 0.8, 0.4, 0.0)
            ],
            "you scaled the weights to sum to 1: what is missing is the share of a full memory": [
                *(0.01 / 0.91, 0.8 / 0.91, 0.1 / 0.91, 0.0)
            ],
        },
        praise="right: the freest takes what it has, the others share the rest.",
        atol=1e-3,
    )


@exercise
def usage(answer: Callable[..., Any]) -> Verdict:
    """Check a function u (N,), written (N,), free (R,), read (R, N) -> usage (N,)."""
    generator = Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    cases = [
        (draw(n), 0.9 * draw(n).softmax(0), draw(r), 0.9 * draw(r, n).softmax(1))
        for n, r in ((4, 1), (6, 2), (3, 3))
    ]
    return check(
        answer,
        _usage,
        cases,
        mistakes={
            "you freed first and wrote then: the write of one step ago is freed with the rest": (
                lambda u, w, f, r: _write(u * _kept(f, r), w)
            ),
            "a slot in use that is written once more is not in use twice: u + w - u w": (
                lambda u, w, f, r: (u + w) * _kept(f, r)
            ),
            "a head frees what it read, not the whole memory: the free gate times its weights": (
                lambda u, w, f, r: _write(u, w) * (1 - f).prod()
            ),
            "you kept what is freed, and freed what is kept": (
                lambda u, w, f, r: _write(u, w) * (1 - _kept(f, r))
            ),
            "each head takes its share of what the others leave: a product, not a sum": (
                lambda u, w, f, r: _write(u, w) * (1 - (f[:, None] * r).sum(0))
            ),
            "nothing was freed": lambda u, w, f, r: _write(u, w),
        },
        praise="right: written first, then freed, and never outside 0 to 1.",
    )


@exercise
def links(answer: Callable[..., Any]) -> Verdict:
    """Check a function order (list), slots -> the links (N, N) after these writes."""
    cases = [
        ([2, 0, 3], 4),
        ([1, 4, 0, 4, 2], 5),
        ([0, 1, 1, 2], 3),
        ([5, 2, 5, 0, 2], 6),
        ([1], 2),
    ]
    return check(
        answer,
        _links,
        cases,
        mistakes={
            "you swapped rows and columns: row i says after which slot i was written": (
                lambda order, slots: _links(order, slots).mT
            ),
            "a slot that is written again loses its old links, in its row and in its column": (
                lambda order, slots: _links(order, slots, rows=False, columns=False)
            ),
            "what came after a slot that is written again is still linked to it": (
                lambda order, slots: _links(order, slots, columns=False)
            ),
            "what a slot that is written again came after before is still linked to it": (
                lambda order, slots: _links(order, slots, rows=False)
            ),
            "a slot is never linked to itself: the diagonal is 0": (
                lambda order, slots: _links(order, slots, diagonal=True)
            ),
        },
        praise="right: each slot after at most one other, and before at most one.",
    )


@exercise
def gates(answer: Any) -> Verdict:
    """Check a function kind -> (free, write, mode) by copying in a memory with no slot to spare."""
    if answer is None or answer is ...:
        return Verdict(False, UNWRITTEN + "write the function, then check it")
    if not callable(answer):
        return Verdict(False, f"a function was expected; got {type(answer).__name__}")
    table = {kind: answer(kind) for kind in KINDS}
    for kind, told in table.items():
        if told is None or told is ...:
            return Verdict(False, UNWRITTEN + f"for {kind!r} your function returned {told}")
        if not isinstance(told, tuple) or len(told) != 3 or told[2] not in MODES:
            rule = "(free, write, mode) with mode 'back', 'alike' or 'forth'"
            return Verdict(False, f"for {kind!r} your function must return {rule}; got {told!r}")
    vectors = torch.eye(LENGTH * ROUNDS).unflatten(0, (ROUNDS, LENGTH))
    wrong = (_copied(vectors, table) - vectors).abs().amax((1, 2)) > 1e-3  # (rounds,)
    if not wrong.any():
        return Verdict(True, f"right: {LENGTH * ROUNDS} vectors through {LENGTH} slots.")
    return Verdict(False, _fault(table, int(wrong.int().argmax()) + 1))


@exercise
def masked(answer: Callable[..., Any]) -> Verdict:
    """Check a function query (M,), memory (N, M), mask (M,), strength -> content weights (N,)."""
    generator = Generator().manual_seed(0)
    cases = [
        (
            torch.randn(m, generator=generator),
            torch.randn(n, m, generator=generator),
            0.1 + 0.9 * torch.rand(m, generator=generator),
            strength,
        )
        for n, m, strength in ((4, 3, 5.0), (6, 5, 2.0), (3, 8, 10.0))
    ]
    return check(
        answer,
        _masked,
        cases,
        mistakes={
            "the mask is missing": lambda q, m, mask, b: _masked(q, m, torch.ones_like(mask), b),
            "you masked the query alone: the hidden entries of a slot still make it longer": (
                lambda q, m, mask, b: _content(q * mask, m, b)
            ),
            "you masked the memory alone: the hidden entries of the query still make it longer": (
                lambda q, m, mask, b: _content(q, m * mask, b)
            ),
            "a cosine is divided by both lengths, those of what is left under the mask": (
                lambda q, m, mask, b: _content(q * mask, m * mask, b, "dot")
            ),
            "the lengths are those of the masked vectors, not of the whole ones": (
                lambda q, m, mask, b: (b * (m * mask**2 @ q) / (m.norm(dim=1) * q.norm())).softmax(
                    0
                )
            ),
            "the strength is missing": lambda q, m, mask, b: _masked(q, m, mask, 1.0),
        },
        praise="right: compared where the query knows, and only there.",
    )


# The references, and ways to err.


def _write(u: Tensor, w: Tensor) -> Tensor:
    return u + w - u * w


def _kept(free: Tensor, read: Tensor) -> Tensor:
    return (1 - free[:, None] * read).prod(0)


def _usage(u: Tensor, written: Tensor, free: Tensor, read: Tensor) -> Tensor:
    return _write(u, written) * _kept(free, read)


def _links(
    order: list[int],
    slots: int,
    rows: bool = True,
    columns: bool = True,
    diagonal: bool = False,
) -> Tensor:
    table = torch.zeros(slots, slots)
    for t, slot in enumerate(order):
        if rows:
            table[slot] = 0
        if columns:
            table[:, slot] = 0
        if t and (diagonal or slot != order[t - 1]):
            table[slot, order[t - 1]] = 1
    return table


def _content(query: Tensor, memory: Tensor, strength: float, measure: Any = "cosine") -> Tensor:
    return address(query[None], memory, measure=measure, strength=strength)[0]


def _masked(query: Tensor, memory: Tensor, mask: Tensor, strength: float) -> Tensor:
    return _content(query * mask, memory * mask, strength)


def _copied(vectors: Tensor, table: dict[str, tuple[Any, Any, str]]) -> Tensor:
    """Return what a machine reads, (rounds, length, W), that is told by a table of gates.

    The first vector of a round is stored with a mark, and that is what it is asked for by.
    """
    rounds, length, width = vectors.shape
    cell = DNCCell(1, 1, length, width + 1, dtype=torch.float64)
    cell.requires_grad_(False)
    mark = torch.eye(width + 1, dtype=torch.float64)[-1]
    state, came = cell.initial_state(1), []
    cell.interface.weight.zero_()
    for sequence in vectors:
        kinds = ("first", *["store"] * (length - 1), "ask", *["next"] * (length - 1))
        for kind, vector in zip(kinds, [*sequence, *0 * sequence], strict=True):
            free, write, mode = table[kind]
            add = F.pad(vector, (0, 1)) + mark * (kind == "first")
            shares = torch.tensor([free, 1.0, write], dtype=torch.float64) * 2 - 1
            modes = torch.tensor([name == mode for name in MODES])
            told = (mark, 0 * mark, add, mark[:1] + FAR, mark[:1], 0 * mark + FAR)
            cell.interface.bias.copy_(torch.cat((*told, FAR * shares, FAR * modes)))
            _, state = cell(torch.zeros(1, 1, dtype=torch.float64), state)
            came.append(state.reads[0, 0, :width])
    return torch.stack(came).unflatten(0, (rounds, 2, length))[:, 1].float()


def _fault(table: dict[str, tuple[Any, Any, str]], failed: int) -> str:
    """Say what is wrong with a table of gates whose first fault comes in a round."""
    free = {kind: table[kind][0] for kind in KINDS}
    for kind, wanted in (("first", 1), ("store", 1), ("ask", 0), ("next", 0)):
        if table[kind][1] != wanted:
            return (
                f"at {kind!r} a vector comes in: open the write gate" if wanted else
                f"at {kind!r} nothing comes in: a write would fill a slot with nothing"
            )  # fmt: skip
    if table["ask"][2] != "alike":
        return "the start is found by its mark: at 'ask' the mode is 'alike'"
    if table["next"][2] != "forth":
        return "the next vector is the one written next: at 'next' the mode is 'forth'"
    if not any(free.values()):
        return f"nothing is ever freed: in round {failed} there is no room"
    if not free["next"]:
        return "at 'next' the vector read one step ago has been said: free it"
    if not free["first"]:
        return "the last vector of a round was read one step before the next round: free it there"
    if free["ask"] or free["store"]:
        return (
            "the free gate acts on what was read one step ago: at 'store' and 'ask' that may be a "
            "vector of this round, which is still needed"
        )
    return f"in round {failed} what came back is not what was stored"
