"""Proofs of the checkers in *External memory in models*: right answers, and wrong ones by hint."""

import numpy as np
import torch


def ratio(tokens, width, value_width):
    matrix = width * value_width + width
    return (tokens * width + tokens * value_width) / matrix


def compress(memory, rate):
    return torch.stack([memory[i : i + rate].mean(0) for i in range(0, len(memory), rate)])


def distances(query, keys):
    return ((keys - query) ** 2).sum(-1)


def vote(query, keys, tokens, vocabulary, k, near=True, root=False, even=False):
    d = distances(query, keys).sqrt() if root else distances(query, keys)
    score = -d if near else d
    chosen = score.argsort(descending=True)[:k]
    weights = torch.ones(k) / k if even else score[chosen].softmax(0)
    result = torch.zeros(vocabulary)
    for n, w in zip(chosen, weights, strict=True):
        result[tokens[n]] += w
    return result


def replaced(query, keys, tokens, vocabulary, k):
    d = distances(query, keys)
    chosen = sorted(d.argsort()[:k].tolist())
    weights = (-d[chosen]).softmax(0)
    result = torch.zeros(vocabulary)
    for n, w in zip(chosen, weights, strict=True):
        result[tokens[n]] = w
    return result


def slots_alone(query, keys, tokens, vocabulary, k):
    d = distances(query, keys)
    chosen = d.argsort()[:k]
    result = torch.zeros(len(keys))
    result[chosen] = (-d[chosen]).softmax(0)
    return result


def mix(far, near, gate):
    g = torch.sigmoid(gate).view(1, -1, 1, 1)
    return near + g * (far - near)


def rag(documents, tokens):
    sequence = sum(p * row.prod() for p, row in zip(documents, tokens, strict=True))
    token = torch.stack([documents @ column for column in tokens.T]).prod()
    return sequence, token


def surprise(memory, momentum, key, value, keep, rate, forget):
    memory = memory.clone().requires_grad_()
    (key @ memory - value).square().sum().backward()
    new = keep * momentum - rate * memory.grad
    return ((1 - forget) * memory + new).detach(), new


def step(memory, momentum, key, value, keep, rate, forget, sign=-1, factor=2):
    gradient = factor * torch.outer(key, key @ memory - value)
    new = keep * momentum + sign * rate * gradient
    return (1 - forget) * memory + new, new


def note(keys, values, key, value, slots, same=0.9, length=True):
    """Notes as pairs in a list: the old of the key out, the new in, the oldest out."""
    pairs, unit = [], key / key.norm() if length else key
    for k, v in zip(keys, values, strict=True):
        if unit @ (k / k.norm() if length else k) < same:
            pairs.append((k, v))
    pairs = [*pairs, (key, value)][-slots:]
    return tuple(torch.stack(part) for part in zip(*pairs, strict=True))


def first_note(*case):
    return tuple(torch.cat((part[-1:], part[:-1])) for part in note(*case))


PROOFS = {
    "ratio": (
        ratio,
        {
            "sum of the keys": lambda tokens, M, V: tokens * (M + V) / (M * V),
            "counted one of them": lambda tokens, M, V: tokens * M / (M * V + M),
            "not M times V": lambda tokens, M, V: tokens * M * V / (M * V + M),
            "the other way round": lambda tokens, M, V: (M * V + M) / (tokens * (M + V)),
            "does not grow with the tokens": lambda tokens, M, V: (M + V) / (M * V + M),
        },
    ),
    "compress": (
        compress,
        {
            "that is the sum": lambda memory, rate: rate * compress(memory, rate),
            "the first of each block": lambda memory, rate: memory[::rate],
            "the last of each block": lambda memory, rate: memory[rate - 1 :: rate],
            "all over the memory": lambda memory, rate: torch.stack(
                [memory[i :: len(memory) // rate].mean(0) for i in range(len(memory) // rate)]
            ),
            "over the width": lambda memory, rate: memory.mean(-1).view(-1, rate),
            "one average of the whole": lambda memory, rate: memory.sum(0) / len(memory),
        },
    ),
    "vote": (
        vote,
        {
            "all slots voted": lambda query, keys, tokens, vocabulary, k: vote(
                query, keys, tokens, vocabulary, len(keys)
            ),
            "the farthest voted": lambda *case: vote(*case, near=False),
            "not squared": lambda *case: vote(*case, root=True),
            "must not replace": replaced,
            "the same vote": lambda *case: vote(*case, even=True),
            "votes of the slots": slots_alone,
        },
    ),
    "mix": (
        mix,
        {
            "a raw number": lambda far, near, gate: near + gate[None, :, None, None] * (far - near),
            "swapped": lambda far, near, gate: mix(near, far, gate),
            "near read whole": lambda far, near, gate: (
                near + gate.sigmoid().view(1, -1, 1, 1) * far
            ),
            "one gate for all": lambda far, near, gate: mix(
                far, near, gate.mean().expand(len(gate))
            ),
            "the last dimension": lambda far, near, gate: near + gate.sigmoid() * (far - near),
        },
    ),
    "rag": (
        rag,
        {
            "swapped": lambda documents, tokens: tuple(reversed(rag(documents, tokens))),
            "weigh each": lambda documents, tokens: (
                tokens.prod(1).mean(),
                tokens.mean(0).prod(),
            ),
            "do not average": lambda documents, tokens: (
                (documents * tokens.mean(1)).sum(),
                (documents @ tokens).mean(),
            ),
            "best document alone": lambda documents, tokens: (
                documents.max() * tokens[documents.argmax()].prod(),
                tokens[documents.argmax()].prod(),
            ),
            "chosen once": lambda documents, tokens: (
                sum((p * row).prod() for p, row in zip(documents, tokens, strict=True)),
                (documents @ tokens).prod(),
            ),
        },
    ),
    "surprise": (
        surprise,
        {
            "went up the error": lambda *case: step(*case, sign=1),
            "a factor of 2": lambda *case: step(*case, factor=1),
            "momentum is missing": lambda memory, momentum, *rest: step(
                memory, torch.zeros_like(momentum), *rest
            ),
            "add the new one": lambda memory, momentum, key, value, keep, rate, forget: (
                (1 - forget) * memory,
                step(memory, momentum, key, value, keep, rate, forget)[1],
            ),
            "forgetting belongs": lambda *case: step(*case[:-1], 0.0),
            "forgot the momentum too": lambda *case: (
                step(*case)[0],
                (1 - case[-1]) * step(*case)[1],
            ),
        },
    ),
    "note": (
        note,
        {
            "stays beside": lambda *case: note(*case, same=2.0),
            "compare by the cosine": lambda *case: note(*case, length=False),
            "more notes than slots": lambda keys, values, key, value, slots: note(
                keys, values, key, value, slots + 1
            ),
            "dropped the newest": lambda keys, values, key, value, slots: tuple(
                part[:slots] for part in note(keys, values, key, value, slots + 1)
            ),
            "stands last": first_note,
        },
    ),
}


# The same by other ways: counted numbers, numpy, loops, one call of another kind.


def counted(tokens, M, V):
    held = np.empty((M, V)).size + np.empty(M).size
    return np.float64(sum(np.empty(M).size + np.empty(V).size for _ in range(tokens))) / held


def pooled(memory, rate):
    return torch.nn.functional.avg_pool1d(memory.T[None], rate)[0].T


def vote_by_numpy(query, keys, tokens, vocabulary, k):
    d = np.square(keys.numpy() - query.numpy()).sum(axis=1)
    nearest = np.argsort(d)[:k]
    votes = np.exp(d.min() - d[nearest])
    return np.bincount(tokens.numpy()[nearest], votes / votes.sum(), minlength=vocabulary)


def mix_by_heads(far, near, gate):
    opened = [1 / (1 + torch.exp(-g)) for g in gate]
    heads = [g * far[:, h] + (1 - g) * near[:, h] for h, g in enumerate(opened)]
    return torch.stack(heads, dim=1)


def rag_by_loops(documents, tokens):
    by_sequence, by_token = 0.0, 1.0
    for p, row in zip(documents.tolist(), tokens.tolist(), strict=True):
        said = p
        for y in row:
            said *= y
        by_sequence += said
    for column in tokens.T.tolist():
        by_token *= sum(p * y for p, y in zip(documents.tolist(), column, strict=True))
    return by_sequence, by_token


def surprise_by_columns(memory, momentum, key, value, keep, rate, forget):
    memory, momentum = memory.numpy().copy(), momentum.numpy().copy()
    for column in range(memory.shape[1]):
        error = key.numpy() @ memory[:, column] - value.numpy()[column]
        momentum[:, column] = keep * momentum[:, column] - 2 * rate * error * key.numpy()
    return memory - forget * memory + momentum, momentum


def note_by_indices(keys, values, key, value, slots):
    cosines = torch.nn.functional.cosine_similarity(keys, key[None])
    stay = (cosines < 0.9).nonzero().flatten()
    stay = stay[max(0, len(stay) + 1 - slots) :]
    return torch.vstack((keys[stay], key)), torch.vstack((values[stay], value))


ALSO_RIGHT = {
    "ratio": counted,
    "compress": pooled,
    "vote": vote_by_numpy,
    "mix": mix_by_heads,
    "rag": rag_by_loops,
    "surprise": surprise_by_columns,
    "note": note_by_indices,
}
