"""Proofs of the checkers in *Neural Turing Machine*: right answers, and wrong ones by hint."""

import math
from itertools import combinations

import torch


def wrong_bits(logits, targets, mask):
    wrong = (logits > 0) != (targets == 1)
    return (wrong & mask[..., None]).flatten(1).sum(1)


def parameters(inputs, outputs, width, hidden):
    lstm = 4 * hidden * (inputs + width) + 4 * hidden * hidden + 8 * hidden
    interface = (hidden + 1) * (2 * (width + 6) + 2 * width)
    return lstm + interface + (hidden + width + 1) * outputs + width + 2 * hidden


def reverse_copy(vectors):
    length = len(vectors)
    silence = torch.zeros(length + 1, 8)
    mark = torch.zeros(2 * length + 1, 1)
    mark[length] = 1
    inputs = torch.cat((torch.cat((vectors, silence)), mark), dim=1)
    targets = torch.cat((silence, vectors.flip(0)))
    return inputs, targets, torch.tensor([False] * (length + 1) + [True] * length)


def forward_copy(vectors):
    inputs, targets, mask = reverse_copy(vectors)
    return inputs, torch.cat((targets[: len(vectors) + 1], vectors)), mask


def reversed_inputs(vectors):
    return forward_copy(vectors.flip(0))[0], *forward_copy(vectors)[1:]


def early(vectors):
    inputs, targets, mask = reverse_copy(vectors)
    return inputs, torch.cat((targets[1:], targets[:1])), torch.cat((mask[1:], mask[:1]))


def unmarked(vectors):
    inputs, targets, mask = reverse_copy(vectors)
    inputs[:, 8] = 0
    return inputs, targets, mask


def inverted(vectors):
    inputs, targets, mask = reverse_copy(vectors)
    return inputs, targets, ~mask


def whispered(vectors):
    inputs, targets, mask = reverse_copy(vectors)
    inputs[:, :8] += targets
    return inputs, targets, mask


def best_cost(bits):
    cost = 0.0
    for i, bit in enumerate(bits):
        same = sum(b == bit for b in bits[:i])
        cost -= math.log2((same + 0.5) / (i + 1))
    return cost


def peeking(bits):
    cost = 0.0
    for i, bit in enumerate(bits):
        same = sum(b == bit for b in bits[: i + 1])
        cost -= math.log2((same + 0.5) / (i + 2))
    return cost


def laplace(bits):
    cost = 0.0
    for i, bit in enumerate(bits):
        same = sum(b == bit for b in bits[:i])
        cost -= math.log2((same + 1) / (i + 2))
    return cost


def always_ones(bits):
    return -sum(math.log2((sum(bits[:i]) + 0.5) / (i + 1)) for i in range(len(bits)))


def by_luck(failed, group, others_failed, others):
    every = failed + others_failed
    good = sum(math.comb(group, k) * math.comb(others, every - k) for k in range(failed, every + 1))
    return good / math.comb(group + others, every)


def drawn_again(failed, group, others_failed, others):
    every, p = failed + others_failed, group / (group + others)
    return sum(
        math.comb(every, k) * p**k * (1 - p) ** (every - k) for k in range(failed, every + 1)
    )


PROOFS = {
    "one_write": (
        [2.5, 5.5],
        {
            "too: the slot loses half": [1.5, 5.5],
            "half of it is added": [4.0, 7.0],
            "weight 1": [3.0, 7.0],
            "nothing was erased": [3.5, 5.5],
            "is to be kept": [3.5, 3.5],
            "erase comes first": [1.75, 5.5],
        },
    ),
    "one_vector": (
        3,
        {"alone, the first": 1, "alone, the second": 2, "counted from 1": 0},
    ),
    "wrong_bits": (
        wrong_bits,
        {
            "every step": lambda logits, targets, mask: ((logits > 0) != (targets > 0.5)).sum(
                (1, 2)
            ),
            "do not count": lambda logits, targets, mask: wrong_bits(logits, targets, ~mask),
            "one half is for": lambda logits, targets, mask: wrong_bits(
                logits - 0.5, targets, mask
            ),
            "the right bits": lambda logits, targets, mask: (
                mask.sum(1) * 3 - wrong_bits(logits, targets, mask)
            ),
            "the mean over": lambda logits, targets, mask: (
                wrong_bits(logits, targets, mask) / (3 * mask.sum(1))
            ),
            "whole batch": lambda logits, targets, mask: wrong_bits(logits, targets, mask).sum(),
            "wrong vectors": lambda logits, targets, mask: (
                ((logits > 0) != (targets > 0.5)).any(-1) & mask
            ).sum(1),
        },
    ),
    "parameters": (
        parameters,
        {
            "inputs + width": lambda i, o, m, d: parameters(i, o, m, d) - 4 * d * m,
            "output layer sees": lambda i, o, m, d: parameters(i, o, m, d) - m * o,
            "first states": lambda i, o, m, d: parameters(i, o, m, d) - m - d - d,
            "two heads": lambda i, o, m, d: parameters(i, o, m, d) - (d + 1) * (m + 6),
            "an erase and an add": lambda i, o, m, d: parameters(i, o, m, d) - 2 * m * (d + 1),
            "a bias each": lambda i, o, m, d: parameters(i, o, m, d) - 4 * m - 12 - o,
            "counted the slots": lambda i, o, m, d: parameters(i, o, m, d) + 128 * m,
        },
    ),
    "reverse_copy": (
        reverse_copy,
        {
            "that is copy": forward_copy,
            "reversed the inputs": reversed_inputs,
            "too early": early,
            "delimiter is missing": unmarked,
            "wrong way round": inverted,
            "give the answer away": whispered,
        },
    ),
    "by_luck": (
        by_luck,
        {
            "only the ways with exactly": lambda f, g, o, n: (
                math.comb(g, f) * math.comb(n, o) / math.comb(g + n, f + o)
            ),
            "left out the ways": lambda f, g, o, n: by_luck(f + 1, g, o - 1, n),
            "fewer or as many": lambda f, g, o, n: 1 - by_luck(f + 1, g, o - 1, n),
            "with replacement": drawn_again,
        },
    ),
    "best_cost": (
        best_cost,
        {
            "nats": lambda bits: best_cost(bits) * math.log(2),
            "positive": lambda bits: -best_cost(bits),
            "before you predicted": peeking,
            "one half and one half": laplace,
            "for every bit": always_ones,
            "the mean": lambda bits: best_cost(bits) / len(bits),
        },
    ),
}


# Second right answers: other ways.


def wrong_bits_by_loops(logits, targets, mask):
    said, told = logits.tolist(), targets.tolist()
    return torch.tensor(
        [
            sum(
                (a > 0) != (b == 1)
                for t in steps.nonzero().flatten().tolist()
                for a, b in zip(said[i][t], told[i][t], strict=True)
            )
            for i, steps in enumerate(mask)
        ]
    )


def parameters_of_modules(inputs, outputs, width, hidden):
    parts = (
        torch.nn.LSTMCell(inputs + width, hidden),
        torch.nn.Linear(hidden, 4 * width + 12),
        torch.nn.Linear(hidden + width, outputs),
        torch.nn.ParameterList([torch.zeros(n) for n in (width, hidden, hidden)]),
    )
    return sum(p.numel() for part in parts for p in part.parameters())


def reverse_copy_step_by_step(vectors):
    rows = vectors.tolist()
    quiet = [0.0] * 8
    inputs = [[*row, 0.0] for row in rows] + [[*quiet, 1.0]] + [[*quiet, 0.0] for _ in rows]
    targets = [quiet] * (len(rows) + 1) + rows[::-1]
    mask = [step > len(rows) for step in range(len(inputs))]
    return torch.tensor(inputs), torch.tensor(targets), torch.tensor(mask)


def best_cost_at_once(bits):  # the probability of all, by gamma functions
    ones, zeros = sum(bits), len(bits) - sum(bits)
    nats = math.lgamma(ones + 0.5) + math.lgamma(zeros + 0.5) - math.lgamma(len(bits) + 1)
    return -(nats - math.log(math.pi)) / math.log(2)


def by_luck_by_dealing(failed, group, others_failed, others):
    """Deal the failures to the machines in all ways, one by one."""
    dealt = [*combinations(range(group + others), failed + others_failed)]
    return sum(sum(m < group for m in hit) >= failed for hit in dealt) / len(dealt)


ALSO_RIGHT = {
    "one_write": torch.tensor([2.0, 4.0])
    + 0.5 * (torch.tensor([3.0, 3.0]) - torch.tensor([2.0, 0.0])),
    "one_vector": torch.tensor(3),
    "wrong_bits": wrong_bits_by_loops,
    "parameters": parameters_of_modules,
    "reverse_copy": reverse_copy_step_by_step,
    "by_luck": by_luck_by_dealing,
    "best_cost": best_cost_at_once,
}
