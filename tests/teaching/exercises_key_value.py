"""Proofs of the checkers in *Key-value memory*: a right answer, and wrong ones by their hint."""

import torch

from memlib import attend, write


def nearest_slot(query, keys):
    return (keys - query).square().sum(dim=-1).argmin()


def stable_softmax(scores, strength):
    scores = strength * scores
    weights = (scores - scores.max(dim=-1, keepdim=True).values).exp()
    return weights / weights.sum(dim=-1, keepdim=True)


def overwrite(memory, slot, vector):
    weights = torch.zeros(1, len(memory))
    weights[0, slot] = 1
    return write(memory, weights, add=vector[None], erase=torch.ones_like(vector)[None])


def masked_softmax(scores, mask):
    weights = scores.masked_fill(~mask, -1e30).softmax(dim=-1)
    return weights * mask


def next_slot(written):
    return written.argmin()


def leave_one_out(keys, values, strength):
    others = ~torch.eye(len(keys), dtype=torch.bool)
    return attend(
        keys, keys, values, measure="negative_squared_distance", strength=strength, mask=others
    )


def kernel_regression(x, inputs, targets, width):
    return attend(
        x[:, None],
        inputs[:, None],
        targets[:, None],
        measure="negative_squared_distance",
        strength=1 / (2 * width**2),
    )[:, 0]


def added(memory, slot, vector):
    memory = memory.clone()
    memory[slot] += vector
    return memory


def erased_by_vector(memory, slot, vector):
    memory = memory.clone()
    memory[slot] = memory[slot] * (1 - vector) + vector
    return memory


def emptied(memory, slot, vector):
    memory = memory.clone()
    memory[slot] = 0
    return memory


def only_slot(memory, slot, vector):
    memory = torch.zeros_like(memory)
    memory[slot] = vector
    return memory


def in_place(memory, slot, vector):
    memory[slot] = vector
    return memory


def by_cat(memory, slot, vector):
    return torch.cat((memory[:slot], vector[None], memory[slot + 1 :]))


def write_for_show(memory, slot, vector):
    write(memory, torch.zeros(1, len(memory)), vector[None])
    return by_cat(memory, slot, vector)


def in_two_steps(memory, slot, vector):
    one_hot = torch.eye(len(memory))[[slot]]
    emptied = write(memory, one_hot, torch.zeros_like(vector)[None], torch.ones_like(vector)[None])
    return write(emptied, one_hot, vector[None])


def never_free(written):
    oldest = min(int(number) for number in written if number > 0) if written.any() else 0
    return int((written == oldest).nonzero()[0])


def among(keys, values, strength, mask=None, measure="negative_squared_distance"):
    return attend(keys, keys, values, measure=measure, strength=strength, mask=mask)


def without_renormalizing(keys, values, strength):
    weights = (-strength * torch.cdist(keys, keys).square()).softmax(dim=-1)
    return weights.fill_diagonal_(0) @ values


def gaussian(x, inputs, width):
    return (-0.5 * ((x[:, None] - inputs) / width) ** 2).exp()


def with_strength(strength):
    def answer(x, inputs, targets, width):
        weights = (-strength(width) * (x[:, None] - inputs) ** 2).softmax(dim=-1)
        return weights @ targets

    return answer


PROOFS = {
    "nearest_slot": (
        nearest_slot,
        {
            "the farthest slot": lambda q, k: torch.linalg.vector_norm(k - q, dim=-1).argmax(),
            "a long key wins": lambda q, k: (k @ q).argmax(),
            "returned the distance": lambda q, k: (k - q).square().sum(-1).min(),
            "returned the key itself": lambda q, k: k[nearest_slot(q, k)],
        },
    ),
    "stable_softmax": (
        stable_softmax,
        {
            "overflow": lambda s, b: torch.exp(b * s) / torch.exp(b * s).sum(-1, keepdim=True),
            "for the whole table": lambda s, b: (
                (b * s - (b * s).max()).exp() / (b * s - (b * s).max()).exp().sum(-1, keepdim=True)
            ),
            "over the queries": lambda s, b: (b * s).softmax(dim=0),
            "belongs on the scores": lambda s, b: b * s.softmax(-1),
            "no effect": lambda s, b: s.softmax(-1),
            "the sign": lambda s, b: (-b * s).softmax(-1),
        },
    ),
    "overwrite": (
        overwrite,
        {
            "shines through": added,
            "goes only in part": erased_by_vector,
            "one-hot": lambda m, s, v: m * (1 - 1 / len(m)) + v / len(m),
            "added nothing": emptied,
            "all other slots were lost": only_slot,
            "changed its input memory": in_place,
            "called 0 times": by_cat,
            "called 2 times": in_two_steps,
            "not what your call": write_for_show,
        },
    ),
    "masked_softmax": (
        masked_softmax,
        {
            "True means": lambda s, m: masked_softmax(s, ~m),
            "do not sum to 1": lambda s, m: s.softmax(-1) * m,
            "exp(0) is 1": lambda s, m: (s * m).softmax(-1),
            "NaN": lambda s, m: s.masked_fill(~m, float("-inf")).softmax(-1),
            "equal weights": lambda s, m: s.masked_fill(~m, -1e30).softmax(-1),
        },
    ),
    "next_slot": (
        next_slot,
        {
            "the newest": lambda written: written.argmax(),
            "while a slot was free": never_free,
            "counting the pairs": lambda written: int(written.max()) % len(written),
            "the slot was asked for": lambda written: written.min(),
        },
    ),
    "leave_one_out": (
        leave_one_out,
        {
            "finds itself": among,
            "reads itself alone": lambda k, v, b: among(k, v, b, torch.eye(len(k)).bool()),
            "negative squared distance": lambda k, v, b: among(
                k, v, b, ~torch.eye(len(k)).bool(), "scaled_dot"
            ),
            "no longer sums to 1": without_renormalizing,
        },
    ),
    "kernel_regression": (
        kernel_regression,
        {
            "*small* strength": with_strength(lambda width: width),
            "not 1/h²": with_strength(lambda width: width**-2),
            "enters squared": with_strength(lambda width: 1 / width),
            "no effect": with_strength(lambda width: 1.0),
            "divided by their total": lambda x, i, t, w: (gaussian(x, i, w) * t).sum(-1),
        },
    ),
}


# A second right answer to each exercise, by another way.


def softmax_by_logs(scores, strength):
    scores = strength * scores
    return (scores - scores.logsumexp(dim=-1, keepdim=True)).exp()


def overwrite_by_the_difference(memory, slot, vector):
    add = vector - memory[slot]  # the delta rule
    return write(memory, torch.eye(len(memory))[[slot]], add[None])


def softmax_of_the_readable(scores, mask):
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp() * mask
    return weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-30)


def first_free_else_oldest(written):
    free = (written == 0).nonzero()
    return int(free[0]) if len(free) else int(written.argmin())


def without_itself(keys, values, strength):
    weights = (-strength * torch.cdist(keys, keys).square()).exp().fill_diagonal_(0)
    return weights @ values / weights.sum(dim=-1, keepdim=True)


def nadaraya(x, inputs, targets, width):
    return gaussian(x, inputs, width) @ targets / gaussian(x, inputs, width).sum(dim=-1)


ALSO_RIGHT = {
    "nearest_slot": lambda q, k: torch.cdist(q[None], k)[0].min(dim=0).indices,
    "stable_softmax": softmax_by_logs,
    "overwrite": overwrite_by_the_difference,
    "masked_softmax": softmax_of_the_readable,
    "next_slot": first_free_else_oldest,
    "leave_one_out": without_itself,
    "kernel_regression": nadaraya,
}
