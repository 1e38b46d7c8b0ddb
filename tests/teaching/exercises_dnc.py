"""Proofs of the checkers in *Differentiable neural computer*: right answers, and wrong by hint."""

from itertools import pairwise

import torch


def usage(u, written, free, read):
    result = []
    for n in range(len(u)):
        value = 1 - (1 - u[n]) * (1 - written[n])
        for r in range(len(free)):
            value = value * (1 - free[r] * read[r, n])
        result.append(value)
    return torch.stack(result)


def links(order, slots):
    table, last = torch.zeros(slots, slots), torch.zeros(slots)
    for slot in order:
        w = torch.eye(slots)[slot]
        table = (1 - w[:, None] - w) * table + torch.outer(w, last)
        table.fill_diagonal_(0)
        last = (1 - w.sum()) * last + w
    return table


def never_forgotten(order, slots):
    table = torch.zeros(slots, slots)
    for before, after in pairwise(order):
        if before != after:
            table[after, before] = 1
    return table


def rows_alone(order, slots):
    table = torch.zeros(slots, slots)
    for t, slot in enumerate(order):
        table[slot] = 0
        if t and order[t - 1] != slot:
            table[slot, order[t - 1]] = 1
    return table


def columns_alone(order, slots):
    table = torch.zeros(slots, slots)
    for t, slot in enumerate(order):
        table[:, slot] = 0
        if t and order[t - 1] != slot:
            table[slot, order[t - 1]] = 1
    return table


def self_linked(order, slots):
    table = torch.zeros(slots, slots)
    for t, slot in enumerate(order):
        table[slot] = table[:, slot] = 0
        if t:
            table[slot, order[t - 1]] = 1
    return table


RIGHT = {
    "first": (1, 1, "back"),
    "store": (0, 1, "back"),
    "ask": (0, 0, "alike"),
    "next": (1, 0, "forth"),
}


def gates(**changed):
    table = RIGHT | changed
    return lambda kind: table[kind]


def masked(query, memory, mask, strength):
    scores = [strength * torch.cosine_similarity(query * mask, row * mask, dim=0) for row in memory]
    return torch.stack(scores).softmax(0)


def content(query, memory, strength):
    return masked(query, memory, torch.ones_like(query), strength)


def unscaled(query, memory, mask, strength):
    return (strength * (memory * mask) @ (query * mask)).softmax(0)


def scaled_by_the_whole(query, memory, mask, strength):
    lengths = memory.norm(dim=1) * query.norm()
    return (strength * (memory * mask) @ (query * mask) / lengths).softmax(0)


PROOFS = {
    "four_slots": (
        [0.01, 0.8, 0.1, 0.0],
        {
            "offered first": [0.1, 0.8, 0.5, 0.0],
            "put each back": [0.8, 0.1, 0.01, 0.0],
            "began with the most used": [0.1, 0.36, 0.45, 0.0],
            "not by how far they are free": [0.04, 0.8, 0.4, 0.0],
            "scaled the weights": [0.011, 0.8791, 0.1099, 0.0],
        },
    ),
    "usage": (
        usage,
        {
            "freed first": lambda u, w, f, r: 1 - (1 - usage(u, 0 * u, f, r)) * (1 - w),
            "not in use twice": lambda u, w, f, r: (u + w) * (1 - f[:, None] * r).prod(0),
            "not the whole memory": lambda u, w, f, r: (u + w - u * w) * (1 - f).prod(),
            "kept what is freed": lambda u, w, f, r: u + w - u * w - usage(u, w, f, r),
            "a product, not a sum": lambda u, w, f, r: (u + w - u * w) * (1 - f @ r),
            "nothing was freed": lambda u, w, f, r: u + w - u * w,
        },
    ),
    "links": (
        links,
        {
            "swapped rows and columns": lambda order, slots: links(order, slots).T,
            "in its row and in its column": never_forgotten,
            "what came after a slot": rows_alone,
            "came after before": columns_alone,
            "never linked to itself": self_linked,
        },
    ),
    "gates": (
        gates(),
        {
            "'first' a vector comes in": gates(first=(1, 0, "back")),
            "'next' nothing comes in": gates(next=(1, 1, "forth")),
            "found by its mark: at 'ask'": gates(ask=(0, 0, "forth")),
            "the one written next": gates(next=(1, 0, "back")),
            "nothing is ever freed": gates(first=(0, 1, "back"), next=(0, 0, "forth")),
            "which is still needed": gates(store=(1, 1, "alike"), ask=(1, 0, "alike")),
            "has been said: free it": gates(next=(0, 0, "forth")),
            "free it there": gates(first=(0, 1, "back")),
            "your function must return": lambda kind: (1, 1),
            "what came back is not what": gates(first=(0.5, 1, "back")),
        },
    ),
    "masked": (
        masked,
        {
            "mask is missing": lambda q, m, mask, b: content(q, m, b),
            "query alone": lambda q, m, mask, b: content(q * mask, m, b),
            "memory alone": lambda q, m, mask, b: content(q, m * mask, b),
            "divided by both lengths": unscaled,
            "not of the whole ones": scaled_by_the_whole,
            "strength is missing": lambda q, m, mask, b: masked(q, m, mask, 1.0),
        },
    ),
}


def allocated(u):
    """By the rank of each slot among those that are freer."""
    return [(1 - a) * torch.tensor([b for b in u if b < a] or [1.0]).prod().item() for a in u]


def kept_by_logs(u, written, free, read):
    return (torch.log1p(-free[:, None] * read).sum(0)).exp() * torch.lerp(
        u, torch.ones(()), written
    )


def links_by_last_writes(order, slots):
    table, times = torch.zeros(slots, slots), dict(map(reversed, enumerate(order)))
    for slot, t in times.items():
        if t and order[t - 1] != slot and times[order[t - 1]] == t - 1:
            table[slot, order[t - 1]] = 1
    return table


OTHER = {"first": (1, 1, "alike"), "store": (0, 1, "forth"), "ask": (1, 0, "alike")}
ALSO_RIGHT = {
    "four_slots": allocated([0.9, 0.2, 0.5, 1.0]),
    "usage": kept_by_logs,
    "links": links_by_last_writes,
    "gates": gates(**OTHER),  # where nothing needs to be read or freed, anything will do
    "masked": lambda q, m, mask, b: (
        b * torch.nn.functional.normalize(m * mask) @ torch.nn.functional.normalize(q * mask, dim=0)
    ).softmax(0),
}
