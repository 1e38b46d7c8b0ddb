"""Proofs of the checkers in *End-to-end memory network*: right answers, and wrong ones by hint."""

import math

import numpy as np
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


def ages_by_counting(filled):
    ages = []
    for row in filled.tolist():
        ages.append([sum(row[i + 1 :]) if there else 0 for i, there in enumerate(row)])
    return torch.tensor(ages)


def hops_in_numpy(u, slots):
    u, slots = u.numpy(), slots.numpy()
    for k in range(len(slots) - 1):
        scores = np.einsum("nd,d->n", slots[k], u)
        weights = np.exp(scores - np.logaddexp.reduce(scores))
        u = u + np.einsum("n,nd->d", weights, slots[k + 1])
    return u


def clip_copies(gradients, limit):
    clipped = []
    for gradient in gradients:
        leaf = torch.zeros_like(gradient, requires_grad=True)
        leaf.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(leaf, limit)
        clipped.append(leaf.grad)
    return clipped


def count_by_halving(size, score, slots):
    low, high = 0.0, float(slots)
    for _ in range(200):
        n = (low + high) / 2
        weight = n * math.exp(score)
        low, high = (n, high) if weight / (weight + slots - n) < size else (low, n)
    return (low + high) / 2


ALSO_RIGHT = {
    "chosen": lambda train, test: test[int(np.argmin(train))],
    "one_hop": np.array([1 + 3 * 2 / 6, 1 + 1 * 3 / 6]),
    "ages": ages_by_counting,
    "hops": hops_in_numpy,
    "clip": clip_copies,
    "count": count_by_halving,
}

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
