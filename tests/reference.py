"""The papers' equations as plain float64 loops, one memory at a time; memlib is not imported.

Arguments are anything NumPy takes; a mask holds True where a slot may be read.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Array = NDArray[np.float64]


def similarity(query: ArrayLike, keys: ArrayLike, measure: str) -> Array:
    q, k = np.asarray(query, float), np.asarray(keys, float)
    scores = np.zeros((len(q), len(k)))
    for i in range(len(q)):
        for n in range(len(k)):
            dot = sum(a * b for a, b in zip(q[i], k[n], strict=True))
            if measure == "scaled_dot":
                dot /= math.sqrt(q.shape[1])
            elif measure == "cosine":
                norms = math.hypot(*q[i]) * math.hypot(*k[n])
                dot = dot / norms if norms else 0.0
            elif measure == "negative_squared_distance":
                dot = -sum((a - b) ** 2 for a, b in zip(q[i], k[n], strict=True))
            scores[i, n] = dot
    return scores


def softmax(scores: Array, readable: NDArray[np.bool_]) -> Array:
    """Over the readable entries of one row; zeros where there are none."""
    weights = np.zeros(len(scores))
    if readable.any():
        top = max(scores[readable])
        for n in np.flatnonzero(readable):
            weights[n] = math.exp(scores[n] - top)
        weights /= weights.sum()
    return weights


def address(
    query: ArrayLike,
    keys: ArrayLike,
    measure: str = "scaled_dot",
    strength: ArrayLike = 1.0,
    mask: ArrayLike = True,
    top_k: int | None = None,
) -> Array:
    scores = similarity(query, keys, measure)
    readable = np.array(np.broadcast_to(np.asarray(mask, bool), scores.shape))
    strengths = np.broadcast_to(np.asarray(strength, float), len(scores))
    weights = np.zeros_like(scores)
    for i, row in enumerate(scores):
        if top_k is not None:
            best = sorted(np.flatnonzero(readable[i]), key=lambda n: -row[n])[:top_k]
            readable[i] = False
            readable[i, best] = True
        weights[i] = softmax(strengths[i] * row, readable[i])
    return weights


def read(weights: ArrayLike, values: ArrayLike) -> Array:
    """Graves et al. 2014, eq. 2."""
    w, v = np.asarray(weights, float), np.asarray(values, float)
    result = np.zeros((len(w), v.shape[1]))
    for i in range(len(w)):
        for n in range(len(v)):
            result[i] += w[i, n] * v[n]
    return result


def write(
    memory: ArrayLike, weights: ArrayLike, add: ArrayLike, erase: ArrayLike | None = None
) -> Array:
    """Graves et al. 2014, eq. 3 and 4: every head erases, then every head adds."""
    result = np.asarray(memory, float).copy()
    w, a = np.asarray(weights, float), np.asarray(add, float)
    e = np.zeros_like(a) if erase is None else np.asarray(erase, float)
    for h in range(len(w)):
        for n in range(len(result)):
            result[n] *= 1 - w[h, n] * e[h]
    for h in range(len(w)):
        for n in range(len(result)):
            result[n] += w[h, n] * a[h]
    return result


def interpolate(content: ArrayLike, previous: ArrayLike, gate: float) -> Array:
    """Graves et al. 2014, eq. 7."""
    return gate * np.asarray(content, float) + (1 - gate) * np.asarray(previous, float)


def shift(weights: ArrayLike, moves: ArrayLike) -> Array:
    """Graves et al. 2014, eq. 8: w'(i) = sum_j s(j) w(i - j mod N), j = -S//2 ... S//2."""
    w, s = np.asarray(weights, float), np.asarray(moves, float)
    reach, slots = len(s) // 2, len(w)
    result = np.zeros(slots)
    for i in range(slots):
        for j in range(-reach, reach + 1):
            result[i] += s[j + reach] * w[(i - j) % slots]
    return result


def sharpen(weights: ArrayLike, sharpening: float) -> Array:
    """Graves et al. 2014, eq. 9."""
    powers = np.asarray(weights, float) ** sharpening
    return powers / powers.sum()


def modern_energy(state: ArrayLike, patterns: ArrayLike, strength: float) -> float:
    """Ramsauer et al. 2020, eq. 2, for one state and all patterns."""
    s, x = np.asarray(state, float), np.asarray(patterns, float)
    log_sum = math.log(sum(math.exp(strength * float(p @ s)) for p in x)) / strength
    return (
        -log_sum + s @ s / 2 + math.log(len(x)) / strength + max(math.hypot(*p) for p in x) ** 2 / 2
    )


def hebbian(patterns: ArrayLike) -> Array:
    """Hopfield 1982: W_ij = 1/M sum_n x_ni x_nj, no unit connected to itself."""
    x = np.asarray(patterns, float)
    width = x.shape[1]
    weights = np.zeros((width, width))
    for i in range(width):
        for j in range(width):
            weights[i, j] = 0 if i == j else sum(p[i] * p[j] for p in x) / width
    return weights


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    strength: float | Tensor = 1.0,
) -> Tensor:
    """Vaswani et al. 2017, eq. 1, as one differentiable line, for any leading dimensions."""
    scores = query @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1])
    scores = scores * (strength[..., None] if isinstance(strength, Tensor) else strength)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return torch.softmax(scores, dim=-1) @ values
