"""Proofs of the checkers in *End-to-end memory network*: right answers, and wrong ones by hint."""

import math

import torch


def chosen(train, test):
    return min(zip(train, test, strict=True))[1]


def ages(told):
    later = torch.zeros_like(told, dtype=torch.long)
    for i in range(told.shape[1]):
        later[:, i] = told[:, i + 1 :].sum(1)
    return later * told


def hops(u, slots):
    for k in range(len(slots) - 1):
        weights = torch.exp(slots[k] @ u)
        u = u + weights / weights.sum() @ slots[k + 1]
    return u


def replaced(u, slots):
    for k in range(len(slots) - 1):
        u = (slots[k] @ u).softmax(0) @ slots[k + 1]
    return u


def linear(u, slots):
    for k in range(len(slots) - 1):
        u = u + slots[k] @ u @ slots[k + 1]
    return u


def one_matrix(u, slots):
    for memory in slots[:-1]:
        u = u + (memory @ u).softmax(0) @ memory
    return u


def swapped(u, slots):
    for k in range(len(slots) - 1):
        u = u + (slots[k + 1] @ u).softmax(0) @ slots[k]
    return u


def masked(u, slots):
    for k in range(len(slots) - 1):
        empty = (slots[k] == 0).all(-1)
        u = u + (slots[k] @ u).masked_fill(empty, -math.inf).softmax(0) @ slots[k + 1]
    return u


def same_question(u, slots):
    first, total = u, u
    for k in range(len(slots) - 1):
        total = total + (slots[k] @ first).softmax(0) @ slots[k + 1]
    return total


def clip(gradients, limit):
    return [g * limit / g.norm() if g.norm() > limit else g for g in gradients]


def together(gradients, limit):
    norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
    return [g * limit / norm if norm > limit else g for g in gradients]


def count(size, score, slots):
    return slots * size * math.exp(-score) / (1 - size + size * math.exp(-score))


PROOFS = {
    "chosen": (
        chosen,
        {
            "peeking": lambda train, test: min(test),
            "report the test error": lambda train, test: min(train),
            "largest training error": lambda train, test: max(zip(train, test, strict=True))[1],
            "the mean over": lambda train, test: sum(test) / len(test),
            "the place of": lambda train, test: train.index(min(train)),
        },
    ),
    "one_hop": (
        [2.0, 1.5],
        {
            "empty slots are missing": [2.5, 1.75],
            "add it to the query": [1.0, 0.5],
            "one empty slot": [2.2, 1.6],
            "scores as weights": [3.197, 1.0],
            "sum to 1": [7, 4],
        },
    ),
    "ages": (
        ages,
        {
            "from the oldest": lambda told: (told.cumsum(1) - 1).clamp(min=0) * told,
            "the sentence itself": lambda told: (ages(told) + 1) * told,
            "counted slots: one": lambda told: (
                torch.arange(told.shape[1] - 1, -1, -1).expand_as(told) * told
            ),
            "must get 0": lambda told: torch.stack(
                [told[:, i + 1 :].sum(1) for i in range(told.shape[1])], dim=1
            ),
            "got -1": lambda told: told.long().flip(1).cumsum(1).flip(1) - 1,
        },
    ),
    "hops": (
        hops,
        {
            "replaced the query": replaced,
            "softmax is missing": linear,
            "one matrix": one_matrix,
            "swapped": swapped,
            "empty slots out": masked,
            "the first question": same_question,
            "that is one hop": lambda u, slots: hops(u, slots[:2]),
        },
    ),
    "clip": (
        clip,
        {
            "one norm over all": together,
            "lengthened the short": lambda gradients, limit: [
                g * limit / g.norm() for g in gradients
            ],
            "each number": lambda gradients, limit: [
                g.clip(min=-limit, max=limit) for g in gradients
            ],
            "divided the long ones": lambda gradients, limit: [
                g / limit if g.norm() > limit else g for g in gradients
            ],
            "have norm 1": lambda gradients, limit: [
                g / max(1.0, g.norm().item()) if g.norm() > limit else g for g in gradients
            ],
        },
    ),
    "count": (
        count,
        {
            "all slots for empty": lambda size, score, slots: (
                slots * size / (1 - size) / math.exp(score)
            ),
            "e to its score": lambda size, score, slots: (
                slots * size / (size + score - size * score)
            ),
            "scored 0": lambda size, score, slots: slots * size,
            "wrong side": lambda size, score, slots: count(size, -score, slots),
            "number of empty": lambda size, score, slots: slots - count(size, score, slots),
        },
    ),
}
