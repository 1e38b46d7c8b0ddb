"""Proofs of the checkers in *Addressable memory*: right answers, and wrong ones by their hint."""

import torch
import torch.nn.functional as F

from memlib import sharpen, shift
from memlib.addressable.programs import Step


def two_moves(s):
    twice = torch.zeros(5)
    for i in range(3):
        for j in range(3):
            twice[i + j] += s[i] * s[j]
    return twice


def there_and_back(marker, length):
    yield Step(key=marker, move=+1)
    for _ in range(length - 1):
        yield Step(move=+1)
    for _ in range(length - 1):
        yield Step(move=-1)


def there_and_back_by_steps(marker, length):
    for t in range(2 * length - 1):
        yield Step(key=None if t else marker, move=+1 if t < length else -1)


def writes_what_it_read(marker, length):
    items = []
    for t in range(length):
        items.append((yield Step(key=None if t else marker, move=+1)))
    for item in items[-2::-1]:
        yield Step(add=item)  # reads come after writes


def reads_marker(marker, length):
    yield Step(key=marker)
    for move in [+1] * length + [-1] * (length - 1):
        yield Step(move=move)


def turns_late(marker, length):
    for t in range(length):
        yield Step(key=marker if t == 0 else None, move=+1)
    yield Step()
    for _ in range(length - 1):
        yield Step(move=-1)


def never_turns(marker, length):
    for t in range(2 * length - 1):
        yield Step(key=marker if t == 0 else None, move=+1)


def no_key(marker, length):
    for move in [+1] * length + [-1] * (length - 1):
        yield Step(move=move)


def one_too_many(marker, length):
    for t in range(length):
        yield Step(key=marker if t == 0 else None, move=+1)
    for _ in range(length):
        yield Step(move=-1)


def starts_on_marker(marker, length):
    yield Step(key=marker)
    for move in [+1] * (length - 1) + [-1] * (length - 1):
        yield Step(move=move)


def endless(marker, length):
    while True:
        yield Step(key=marker)


def insert(after, new, free, payload):
    node = yield Step(key=after)
    width = len(after)
    yield Step(key=free, add=torch.cat((new, node[width : 2 * width], payload)))
    yield Step(key=after, add=torch.cat((after, new, node[2 * width :])))


def insert_by_hand(after, new, free, payload):
    node = yield Step(key=after)
    width = len(after)
    following, old = node[width : 2 * width], node[2 * width :]
    yield Step(add=torch.cat((after, new, old)))  # the head still stands there
    yield Step(key=free, add=torch.cat((new, following, payload)))


def insert_last_first(after, new, free, payload):
    width = len(after)
    node = yield Step(key=after)
    yield Step(key=after, add=torch.cat((after, new, node[2 * width :])))
    node = yield Step(key=after)
    yield Step(key=free, add=torch.cat((new, node[width : 2 * width], payload)))


def insert_unlinked(after, new, free, payload):
    node = yield Step(key=after)
    yield Step(key=free, add=torch.cat((new, node[len(after) : 2 * len(after)], payload)))


def insert_over(after, new, free, payload):
    node = yield Step(key=after)
    yield Step(key=after, add=torch.cat((new, node[len(after) : 2 * len(after)], payload)))


def insert_empty(after, new, free, payload):
    node = yield Step(key=after)
    yield Step(key=free, add=torch.cat((new, node[len(after) : 2 * len(after)], payload)))
    yield Step(key=after, add=torch.cat((after, new, 0 * payload)))


def insert_nameless(after, new, free, payload):
    node = yield Step(key=after)
    width = len(after)
    yield Step(key=free, add=torch.cat((free, node[width : 2 * width], payload)))
    yield Step(key=after, add=torch.cat((after, new, node[2 * width :])))


def insert_by_list(after, new, free, payload):
    return [Step(key=after)]


def least_sharpening(spread, moves, slots, candidates):
    s = torch.tensor([spread, 1 - 2 * spread, spread])
    for gamma in candidates:
        weights = F.one_hot(torch.tensor(0), slots).float()
        for _ in range(moves):
            weights = sharpen(shift(weights, s), gamma)
        if weights[0] >= 0.9:
            return gamma
    return None


def least_from_above(spread, moves, slots, candidates):
    kept = float("inf")
    for gamma in reversed(candidates):  # the more sharpening, the more is left
        weights = torch.eye(slots)[2]
        for _ in range(moves):
            near = weights.roll(1) + weights.roll(-1)
            weights = ((1 - 2 * spread) * weights + spread * near) ** gamma
            weights = weights / weights.sum()
        if weights[2] < 0.9:
            break
        kept = gamma
    return kept


def least_at_end(spread, moves, slots, candidates):
    for gamma in candidates:
        weights = F.one_hot(torch.tensor(0), slots).float()
        for _ in range(moves):
            weights = shift(weights, torch.tensor([spread, 1 - 2 * spread, spread]))
        if sharpen(weights, gamma)[0] >= 0.9:
            return gamma
    return float("inf")


def naive(log_weights, gamma):
    powers = log_weights.exp() ** gamma
    return (powers / powers.sum(dim=-1, keepdim=True)).log()


PROOFS = {
    "one_step": (
        [0.0, 0.9, 0.1, 0.0],
        {
            "swapped": [0.0, 0.1, 0.9, 0.0],
            "backward": [0.1, 0, 0, 0.9],
            "did not move": [0.9, 0.1, 0, 0],
            "one step is missing": [0, 0.75, 0.25, 0],
            "do not sum to 1": [0, 9 / 16, 1 / 16, 0],
        },
    ),
    "two_moves": (
        two_moves,
        {
            "one move in five": lambda s: torch.cat((torch.zeros(1), s, torch.zeros(1))),
            "doubled": lambda s: torch.stack((s[0], 0 * s[0], s[1], 0 * s[0], s[2])),
            "squared": lambda s: torch.stack((s[0], 0 * s[0], s[1], 0 * s[0], s[2])) ** 2,
            "two orders": lambda s: torch.stack(
                (s[0] ** 2, s[0] * s[1], s[1] ** 2 + s[0] * s[2], s[1] * s[2], s[2] ** 2)
            ),
            "wrong way": lambda s: F.conv1d(s[None, None], s[None, None], padding=2)[0, 0],
        },
    ),
    "there_and_back": (
        there_and_back,
        {
            "first read is the marker": reads_marker,
            "start on the marker": starts_on_marker,
            "twice": turns_late,
            "never turn": never_turns,
            "never look": no_key,
            "one item too many": one_too_many,
            "did not end": endless,
            "only read": writes_what_it_read,
        },
    ),
    "insert": (
        insert,
        {
            "points to itself": insert_last_first,
            "does not know": insert_unlinked,
            "wrote over": insert_over,
            "lost its payload": insert_empty,
            "still carries": insert_nameless,
            "must `yield`": insert_by_list,
        },
    ),
    "least_sharpening": (
        least_sharpening,
        {
            "once, at the end": least_at_end,
            "after one move": lambda spread, moves, slots, candidates: least_sharpening(
                spread, 1, slots, candidates
            ),
            "largest candidate": lambda spread, moves, slots, candidates: max(candidates),
        },
    ),
    "log_sharpen": (
        lambda log_weights, gamma: (gamma * log_weights).log_softmax(dim=-1),
        {
            "the sum to divide by": lambda log_weights, gamma: log_weights * gamma,
            "these are the weights": lambda log_weights, gamma: (log_weights * gamma).softmax(-1),
            "became 0": lambda log_weights, gamma: sharpen(log_weights.exp(), gamma).log(),
            "underflow": naive,
            "wrong dimension": lambda log_weights, gamma: (gamma * log_weights).log_softmax(0),
        },
    ),
}

ALSO_RIGHT = {
    "one_step": torch.tensor([0.0, 9.0, 1.0, 0.0]) / 10,
    "two_moves": lambda s: torch.stack([s.flip(0) @ F.pad(s, (2, 2))[i : i + 3] for i in range(5)]),
    "there_and_back": there_and_back_by_steps,
    "insert": insert_by_hand,
    "least_sharpening": least_from_above,
    "log_sharpen": lambda log_weights, gamma: (
        gamma * log_weights - (gamma * log_weights).logsumexp(dim=-1, keepdim=True)
    ),
}
