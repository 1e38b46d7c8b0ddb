"""Proofs of the checkers of *Large stores*: solutions pass, typical errors are named."""

import heapq
import math

import numpy as np


def softmax(scores):
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def recall(found, nearest):
    pairs = zip(found.tolist(), nearest.tolist(), strict=True)
    return sum(len(set(f) & set(n)) for f, n in pairs) / nearest.size


def shares(found, nearest):
    pairs = zip(found.tolist(), nearest.tolist(), strict=True)
    return np.array([len(set(f) & set(n)) for f, n in pairs])


def enough(scores, strength, share):
    held, k = 0.0, 0
    for weight in sorted(softmax(strength * scores), reverse=True):
        held, k = held + weight, k + 1
        if held >= share:
            break
    return k


def enough_that_overflows(scores, strength, share):
    powers = np.exp(strength * scores)
    held = np.cumsum(np.sort(powers / powers.sum())[::-1])
    return int((held < share).sum()) + 1


def one_short(scores, strength, share):
    return int((np.cumsum(np.sort(softmax(strength * scores))[::-1]) < share).sum())


def lightest_first(scores, strength, share):
    return int((np.cumsum(np.sort(softmax(strength * scores))) < share).sum()) + 1


def as_they_came(scores, strength, share):
    return int((np.cumsum(softmax(strength * scores)) < share).sum()) + 1


def mixed(p_model, tokens, weights, share):
    result = (1 - share) * p_model
    for token, weight in zip(tokens, weights, strict=True):
        result[token] += share * weight
    return result


def buffered(p_model, tokens, weights, share):
    recalled = np.zeros(len(p_model))
    recalled[tokens] += weights
    return share * recalled + (1 - share) * p_model


def counted(p_model, tokens, weights, share):
    return share * np.bincount(tokens, minlength=len(p_model)) / len(tokens) + (1 - share) * p_model


def geometric(p_model, tokens, weights, share):
    both = np.bincount(tokens, weights, len(p_model)) ** share * p_model ** (1 - share)
    return both / both.sum()


PROOFS = {
    "room": (
        1e6 * (2 * 64 * 4 + 8),
        {
            "left out the ids": 1e6 * 2 * 64 * 4,
            "left out the values": 1e6 * (64 * 4 + 8),
            "one pair": 520,
            "float32 takes 4 bytes": 1e6 * (2 * 64 * 8 + 8),
            "int64 takes 8": 1e6 * (2 * 64 * 4 + 4),
            "not bytes": 1e6 * (2 * 64 + 1),
        },
    ),
    "which_ids": (
        [2, 3, 4, 5],
        {
            "never given out twice": [0, 1, 2, 3],
            "do not fit": [0, 2, 3, 4, 5],
            "was deleted": [1, 3, 4, 5],
            "not the last": [0, 3, 4, 5],
            "room for two": [3, 4, 5],
        },
    ),
    "recall": (
        recall,
        {
            "place by place": lambda found, nearest: np.mean(found == nearest),
            "rows of all queries": lambda found, nearest: np.isin(nearest, found).mean(),
            "whether the best": lambda found, nearest: np.mean(
                [n[0] in f for f, n in zip(found, nearest, strict=True)]
            ),
            "whether any": lambda found, nearest: (shares(found, nearest) > 0).mean(),
            "precision": lambda found, nearest: shares(found, nearest).sum() / (found > -1).sum(),
            "the number that": lambda found, nearest: shares(found, nearest).sum(),
        },
    ),
    "best_count": (
        lambda slots, probes: round(math.sqrt(probes * slots)),
        {
            "right for c = 1": lambda slots, probes: math.sqrt(slots),
            "upside down": lambda slots, probes: math.sqrt(slots / probes),
            "left out the root": lambda slots, probes: probes * slots,
            "of c too": lambda slots, probes: probes * math.sqrt(slots),
            "how many comparisons": lambda slots, probes: 2 * math.sqrt(probes * slots),
        },
    ),
    "enough": (
        enough,
        {
            "too few": one_short,
            "too many": lambda scores, strength, share: enough(scores, strength, share) + 1,
            "left out the strength": lambda scores, strength, share: enough(scores, 1, share),
            "the lightest": lightest_first,
            "order they came in": as_they_came,
            "each weigh the share": lambda s, b, share: int((softmax(b * s) >= share).sum()),
            "overflows": enough_that_overflows,
        },
    ),
    "mixed": (
        mixed,
        {
            "only the last weight": buffered,
            "wrong way round": lambda p, tokens, w, share: mixed(p, tokens, w, 1 - share),
            "counted the neighbors": counted,
            "more than 1": lambda p, tokens, w, share: p + share * np.bincount(tokens, w, len(p)),
            "no part in it": lambda p, tokens, w, share: np.bincount(tokens, w, len(p)),
            "the product": geometric,
        },
    ),
    "bits_per_byte": (
        lambda p: float(np.mean([-math.log2(x) for x in p])),
        {
            "nats": lambda p: -np.log(p).mean(),
            "the sum": lambda p: -np.log2(p).sum(),
            "averaged first": lambda p: -np.log2(p.mean()),
            "the sign": lambda p: np.log2(p).mean(),
            "perplexity": lambda p: 2 ** -np.log2(p).mean(),
        },
    ),
}


def recall_by_hand(found, nearest):
    hits = 0
    for row, right in zip(found, nearest, strict=True):
        for one in right:
            hits += bool((row == one).any())
    return hits / nearest.size


def tried(pairs, c):
    # Comparisons fall as long as another cluster saves more than the one it adds.
    count = 1
    while c * pairs / count - c * pairs / (count + 1) > 1:
        count += 1
    return count


def enough_heap(scores, strength, share):
    left = [-strength * float(score - scores.max()) for score in scores]
    heapq.heapify(left)  # the best first
    total, held, k = sum(math.exp(-x) for x in left), 0.0, 0
    while held < share * total:
        held += math.exp(-heapq.heappop(left))
        k += 1
    return k


def mixed_by_matrix(p_model, tokens, weights, share):
    one_hot = np.eye(len(p_model))[tokens]
    return share * (weights @ one_hot) + (1 - share) * p_model


ALSO_RIGHT = {
    "room": sum(1_000_000 * width * size for width, size in ((64, 4), (64, 4), (1, 8))),
    "which_ids": {2, 3, 4, 5},
    "recall": recall_by_hand,
    "best_count": tried,
    "enough": enough_heap,
    "mixed": mixed_by_matrix,
    "bits_per_byte": lambda p: math.log2(1 / math.prod(p)) / len(p),
}
