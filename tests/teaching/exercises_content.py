"""Proofs of the checkers of *Content-based memory*: solutions pass, typical errors are named."""

import math

import numpy as np


def softmax(scores):
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def energy(query, patterns, strength):
    scores = strength * (patterns @ query)
    log_sum = scores.max() + np.log(np.exp(scores - scores.max()).sum())
    return -log_sum / strength + query @ query / 2


def energy_that_overflows(query, patterns, strength):
    return -np.log(np.exp(strength * (patterns @ query)).sum()) / strength + query @ query / 2


def connections(patterns):
    count, width = patterns.shape
    return (patterns.T @ patterns - count * np.eye(width)) / width


def top_k(query, patterns, strength, k):
    scores = patterns @ query
    best = np.argsort(scores)[-k:]
    return softmax(strength * scores[best]) @ patterns[best]


def weights_not_renewed(query, patterns, strength, k):
    weights = softmax(strength * (patterns @ query))
    weights[np.argsort(weights)[:-k]] = 0
    return weights @ patterns


def others_at_zero(query, patterns, strength, k):
    scores = patterns @ query
    return softmax(strength * np.where(scores >= np.sort(scores)[-k], scores, 0)) @ patterns


def least_similar(query, patterns, strength, k):
    worst = patterns[np.argsort(patterns @ query)[:k]]
    return softmax(strength * (worst @ query)) @ worst


def even_average(query, patterns, strength, k):
    return patterns[np.argsort(patterns @ query)[-k:]].mean(axis=0)


def strength_for(query, patterns, share):
    low, high = 0.0, 1.0
    while softmax(high * (patterns @ query)).max() < share:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if softmax(middle * (patterns @ query)).max() < share:
            low = middle
        else:
            high = middle
    return high


def two_patterns(query, patterns, share):
    second, best = np.sort(patterns @ query)[-2:]
    return math.log(share / (1 - share)) / (best - second)


def equal_rivals(query, patterns, share):
    return two_patterns(query, patterns, share) + math.log(len(patterns) - 1) / np.subtract(
        *np.sort(patterns @ query)[[-1, -2]]
    )


PROOFS = {
    "update_by_hand": (
        (0.5, 1.0),
        {
            "nearest pattern": (1.0, 1.0),
            "averaged the patterns evenly": (0, 1),
            "returned the weights": (0.75, 0.25),
            "differ by 2": (0.2679, 1.0),
            "fits worse": (-0.5, 1.0),
        },
    ),
    "overlap": (
        lambda state, patterns: (patterns * state).mean(axis=1),
        {
            "did not divide by the width": lambda s, x: (x * s).sum(axis=1),
            "share of signs that agree": lambda s, x: (x * s > 0).mean(axis=1),
            "number of patterns N, not": lambda s, x: x @ s / x.shape[0],
            "signs that differ": lambda s, x: (x * s < 0).mean(axis=1),
        },
    ),
    "energy": (
        energy,
        {
            "left out ½": lambda q, x, b: energy(q, x, b) - q @ q / 2,
            "|query|² whole": lambda q, x, b: energy(q, x, b) + q @ q / 2,
            "did not divide the log": lambda q, x, b: -np.log(np.exp(b * x @ q).sum()) + q @ q / 2,
            "sign of the log-sum-exp": lambda q, x, b: q @ q - energy(q, x, b),
            "β inside the exponential": (
                lambda q, x, b: -np.log(np.exp(x @ q).sum()) / b + q @ q / 2
            ),
            "overflows": energy_that_overflows,
        },
    ),
    "hebbian": (
        connections,
        {
            "connected to itself": lambda x: np.einsum("ni,nj->ij", x, x) / x.shape[1],
            "did not divide by the width M": lambda x: x.T @ x - len(x) * np.eye(x.shape[1]),
            "divided by the number of patterns": lambda x: x.T @ x / len(x) - np.eye(x.shape[1]),
            "compares patterns": lambda x: x @ x.T / x.shape[1],
            "and cleared": lambda x: x @ x.T / x.shape[1] - np.eye(len(x)),
        },
    ),
    "top_k_update": (
        top_k,
        {
            "do not sum to 1": weights_not_renewed,
            "least similar": least_similar,
            "averaged the k chosen": even_average,
            "gave the others the score 0": others_at_zero,
            "k had no effect": lambda q, x, b, k: softmax(b * (x @ q)) @ x,
        },
    ),
    "strength_for": (
        strength_for,
        {
            "right for two patterns": two_patterns,
            "as near as the second best": equal_rivals,
            "a temperature": lambda q, x, share: 1 / strength_for(q, x, share),
        },
    ),
    "error_rate": (
        lambda count, width: 0.5 * math.erfc((width / count / 2) ** 0.5),
        {
            "left out the square root": lambda count, width: 0.5 * math.erfc(width / count / 2),
            "turned the fraction over": (
                lambda count, width: 0.5 * math.erfc((count / width / 2) ** 0.5)
            ),
            "left out the ½": lambda count, width: math.erfc((width / count / 2) ** 0.5),
            "stays right": lambda count, width: 1 - 0.5 * math.erfc((width / count / 2) ** 0.5),
        },
    ),
}


# A second right answer to each exercise, by another way.


def energy_by_logaddexp(query, patterns, strength):
    log_sum = np.logaddexp.reduce(strength * (patterns @ query))
    return 0.5 * np.dot(query, query) - log_sum / strength


def hebbian_by_outer_products(patterns):
    total = sum(np.outer(pattern, pattern) for pattern in patterns) / patterns.shape[1]
    np.fill_diagonal(total, 0)
    return total


def top_k_by_minus_infinity(query, patterns, strength, k):
    scores = patterns @ query
    return softmax(strength * np.where(scores >= np.sort(scores)[-k], scores, -np.inf)) @ patterns


def strength_by_newton(query, patterns, share):
    scores = patterns @ query
    gaps, strength = np.delete(scores.max() - scores, scores.argmax()), 0.0
    for _ in range(200):
        rest = np.exp(-strength * gaps)
        slope = -(gaps * rest).sum() / rest.sum()
        strength -= (math.log(rest.sum()) - math.log((1 - share) / share)) / slope
    return strength


ALSO_RIGHT = {
    "update_by_hand": [0.5, 1],
    "overlap": lambda state, patterns: 1 - 2 * (patterns != state).mean(axis=1),
    "energy": energy_by_logaddexp,
    "hebbian": hebbian_by_outer_products,
    "top_k_update": top_k_by_minus_infinity,
    "strength_for": strength_by_newton,
    "error_rate": lambda count, width: 0.5 - 0.5 * math.erf((width / (2 * count)) ** 0.5),
}
