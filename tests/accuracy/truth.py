"""memlib's formulas in float64, each as direct as can be; memlib is not imported.

A distance is a difference squared, a selection takes scores in order, a state is a loop. The
numbers are those that memlib gets, upcast; what autograd says of these formulas are the
gradients that memlib's are held against.

Beside each result stands what its error is relative to (`size`), and how far scores are from 1
(`reach`): a softmax turns a rounding of a large score into a large error of a weight.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

FAINT = 1e-6  # of a fainter weight the error is absolute: relative to this
FORGOTTEN = 18.0  # a score so far below the best, e^-18, leaves no trace in a weight
WIDTH = 128  # terms of a sum up to which its rounding is within `ROUNDING`
ROUNDING = 1e-6  # what the score of size 1 may be off by: eight roundings of float32
SPREAD = 1e-9  # of the largest squared distance of a query: a rounding of float64, amply
TINY = 1.2e-38  # the smallest normal float32: a weight below it may count as 0
UNDER = 3e-45  # what underflow of one product may cost


@dataclass
class Expected:
    """One result in float64.

    Attributes:
        value: the result.
        size: what its error is relative to; of its shape, or broadcast to it.
        slack: by how much it may be off however small it is.
        reach: the largest |strength * score| behind it.
        grain: of numbers this small the spacing counts, times the smallest of the dtype.
        kind: "weights" are at least 0, "logs" are of numbers that sum to 1.
    """

    value: Tensor
    size: Tensor
    reach: Tensor | float = 0.0
    slack: Tensor | float = 0.0
    grain: Tensor | float = 1.0
    kind: str = ""


@dataclass
class Truth:
    """All results of one call.

    Attributes:
        results: in the order of the call's.
        largest: of all numbers on the way; beyond the range of float32 a call may refuse.
        slopes: from what results are weighed with to the size of each argument's gradient.
        reach: of the gradients, where it is further than that of the results.
        wrong: what is wrong with a selection.
    """

    results: list[Expected]
    largest: float
    slopes: Callable[[Sequence[Tensor]], dict[str, Tensor]] | None = None
    wrong: list[str] = field(default_factory=list)
    reach: float = 0.0


class Scores(NamedTuple):
    """Of (..., L, M) with (..., N, M)."""

    value: Tensor  # (..., L, N)
    size: Tensor  # (..., L, N), what a rounding of the value is relative to
    by_query: Tensor  # (..., L, N, M), size of the derivative by the query
    by_keys: Tensor  # (..., L, N, M), by the keys


def scores(query: Tensor, keys: Tensor, measure: str) -> Scores:
    """Compare every query with every key."""
    q, k = query.unsqueeze(-2), keys.unsqueeze(-3)  # (..., L, 1, M), (..., 1, N, M)
    zero = torch.zeros_like(q + k)
    if measure == "negative_squared_distance":
        apart = q - k
        value = -apart.square().sum(-1)
        size = value.detach().abs()
        size = size + SPREAD * widest(size)
        slope = 2 * apart.abs().detach()
        noise = 1e-12 * (q.abs() + k.abs()).detach()  # of float64, if it is not direct
        slope = slope + noise + ROUNDING * widest(slope.flatten(-2))[..., None]
        return Scores(value, size, slope, slope)
    if measure == "cosine":
        q_norm, k_norm = norm(q), norm(k)
        q, k = q / q_norm, k / k_norm
        both = ((q.abs() + k.abs()) + zero).detach()
        value = (q * k).sum(-1)
        size = torch.ones_like(value)
        return Scores(value, size, both / q_norm.detach(), both / k_norm.detach())
    scale = query.shape[-1] ** -0.5 if measure == "scaled_dot" else 1.0
    product = q * k * scale
    by_query, by_keys = (k.abs() * scale + zero).detach(), (q.abs() * scale + zero).detach()
    return Scores(product.sum(-1), product.abs().sum(-1).detach(), by_query, by_keys)


def widest(x: Tensor) -> Tensor:
    """The largest number of the last two dimensions, kept."""
    return x.flatten(-2).amax(-1)[..., None, None] if x.numel() else x.sum((-2, -1), True)


def norm(x: Tensor) -> Tensor:
    """|x| over the last dimension, kept; 1 for a vector of zeros."""
    largest = x.detach().abs().amax(-1, keepdim=True)
    largest = torch.where(largest == 0, 1.0, largest)
    square = (x / largest).square().sum(-1, keepdim=True)
    return torch.where(square == 0, 1.0, largest * torch.where(square == 0, 1.0, square).sqrt())


def softmax(scores: Tensor, readable: Tensor) -> Tensor:
    """Over the last dimension; zeros where nothing is readable."""
    hidden = ~readable.expand(scores.shape)
    return scores.masked_fill(hidden, -math.inf).softmax(-1).masked_fill(hidden, 0)


class Look(NamedTuple):
    """Where queries look."""

    weights: Tensor  # (..., L, N)
    reach: Tensor  # (..., L, 1)
    largest: float
    scores: Scores
    strength: Tensor  # (..., L, 1)
    readable: Tensor  # (..., L, N)


def look(
    query: Tensor,
    keys: Tensor,
    measure: str = "scaled_dot",
    strength: float | Tensor = 1.0,
    mask: Tensor | None = None,
) -> Look:
    """Weights, and how sensitive they are to a rounding of the scores."""
    compared = scores(query, keys, measure)
    beta = torch.as_tensor(strength, dtype=torch.float64)
    beta = beta.unsqueeze(-1) if beta.ndim else beta
    logits = beta * compared.value
    readable = torch.ones_like(logits, dtype=torch.bool)
    readable = readable if mask is None else mask.expand(logits.shape)
    weights = softmax(logits, readable)
    size = (beta * compared.size).detach()
    if 0 in size.shape:
        return Look(weights, size.sum(-1, True), 0.0, compared, beta, readable)
    hopes = (logits.detach() + ROUNDING * size).masked_fill(~readable, -math.inf)
    best = logits.detach().masked_fill(~readable, -math.inf).amax(-1, keepdim=True)
    counts = readable & (hopes >= best - FORGOTTEN)
    reach = size.masked_fill(~counts, 0).amax(-1, keepdim=True)
    reach = reach * max(1.0, query.shape[-1] / WIDTH)
    shown = [beta.detach().abs(), compared.size, size]
    if measure == "cosine":
        shown.pop(1)
    else:
        shown += [query.detach().abs().amax(-1)[..., None], keys.detach().abs().amax()]
    largest = max(float(x.max()) for x in shown)
    return Look(weights, reach, largest, compared, beta, readable)


def log_weights(found: Look) -> Tensor:
    """Logarithms of the weights, also of those that are too faint for float64."""
    logits = found.strength * found.scores.value
    logits = logits.masked_fill(~found.readable, -1e300)
    logs = logits - logits.logsumexp(-1, keepdim=True)
    return torch.where(found.readable, logs, -math.inf)


def pull(found: Look, wanted: Tensor) -> dict[str, Tensor]:
    """Size of the gradients by query and keys when weight n is weighed with `wanted`."""
    w = found.weights.detach()
    total = (w * wanted).sum(-1, keepdim=True)
    blame = (w.clamp_min(FAINT) * (wanted + total)).nan_to_num()
    by_score = (found.strength.detach() * blame).unsqueeze(-1)
    return {
        "query": (by_score * found.scores.by_query).sum(-2),
        "keys": (by_score * found.scores.by_keys).sum(-3),
        "strength": (blame * found.scores.size).sum(-1),
    }


def read_size(weights: Tensor, values: Tensor, readable: Tensor | None = None) -> Tensor:
    """What a read of the values is relative to: sum w |v|, faint weights counted as FAINT."""
    w = weights.detach().abs().clamp_min(FAINT)
    w = w if readable is None else w * readable
    return w @ values.detach().abs()


def doubt(size: Tensor, readable: Tensor) -> Tensor:
    """By how much the order of scores may be mistaken."""
    return 10 * ROUNDING * size.masked_fill(~readable, 0).amax(-1, keepdim=True) + 1e4 * UNDER


def chosen(value: Tensor, size: Tensor, picked: Tensor, readable: Tensor, k: int) -> list[str]:
    """What is wrong with a choice of the k best: scores (..., L, N), bool (..., L, N)."""
    wrong = []
    readable = readable.expand(value.shape)
    margin = doubt(size, readable)
    ranked = value.masked_fill(~readable, -math.inf)
    least = ranked.topk(min(k, value.shape[-1]), -1).values[..., -1:]
    if (picked & ~readable).any():
        wrong.append("chose what may not be read")
    if (picked.sum(-1) > k).any():
        wrong.append("chose too many")
    if (picked & readable & (value < least - margin)).any():
        wrong.append("chose a score below that of the k-th")
    return wrong


def write(memory: Tensor, weights: Tensor, add: Tensor, erase: Tensor | None) -> Expected:
    """Every head erases, then every head adds: (..., N, M), (..., H, N), (..., H, M)."""
    result = memory
    for h in range(weights.shape[-2]) if erase is not None else ():
        result = result * (1 - weights[..., h, :, None] * erase[..., h, None, :])
    for h in range(weights.shape[-2]):
        result = result + weights[..., h, :, None] * add[..., h, None, :]
    size = (memory.abs() + weights.abs().mT @ add.abs()).detach()
    return Expected(result, size, slack=TINY * (1 + add.detach().abs().sum(-2, True)))


def shift(weights: Tensor, moves: Tensor) -> Tensor:
    """w'(i) = sum_j s(j) w(i - j mod N)."""
    reach, slots = moves.shape[-1] // 2, weights.shape[-1]
    there = torch.arange(slots)
    parts = [
        moves[..., j + reach, None] * weights[..., (there - j) % slots]
        for j in range(-reach, reach + 1)
    ]
    return torch.stack(parts).sum(0)


def sharpen(weights: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
    """w^γ / sum w^γ, and the reach: the largest γ |log (w / largest w)| that counts."""
    top = weights.detach().amax(-1, keepdim=True)
    nothing = top == 0
    # a power of the ratio to the largest never overflows
    ratio = weights / torch.where(nothing, 1.0, top)
    there = ratio > 0
    logs = torch.where(there, torch.where(there, ratio, 1.0).log(), 0.0)
    powers = torch.where(there, (power.unsqueeze(-1) * logs).exp(), 0.0)
    total = powers.sum(-1, keepdim=True)
    sharp = powers / torch.where(nothing, 1.0, total)
    raw = torch.where(weights > 0, weights.detach().clamp_min(1e-300).log().abs(), 0.0)
    faint = sharp.detach() < 1e-8
    reach = power.detach().unsqueeze(-1) * raw.masked_fill(faint, 0).amax(-1, keepdim=True)
    return sharp, reach


def allocation(usage: Tensor) -> tuple[Tensor, Tensor]:
    """a[phi_j] = (1 - u[phi_j]) prod_{i<j} u[phi_i], and the logs of the products that count."""
    rising, order = usage.sort(dim=-1, stable=True)
    before = torch.cat((torch.ones_like(rising[..., :1]), rising[..., :-1]), -1).cumprod(-1)
    weights = (1 - rising) * before
    logs = before.detach().clamp_min(1e-9).log().abs()
    back = order.argsort(-1)
    return weights.gather(-1, back), logs.gather(-1, back)


def energy(query: Tensor, patterns: Tensor, strength: float, mask: Tensor) -> Expected:
    """Ramsauer et al. 2020, eq. 2, over the readable patterns."""
    compared = scores(query, patterns, "dot")
    logits = (strength * compared.value).masked_fill(~mask, -math.inf)
    some = mask.any(-1).expand(logits.shape[:-1])
    counts = mask.expand(logits.shape).sum(-1).clamp_min(1).double()
    log_sum = torch.where(some.unsqueeze(-1), logits, 0.0).logsumexp(-1)
    far = patterns.square().sum(-1).unsqueeze(-2).masked_fill(~mask, 0).amax(-1)
    rest = query.square().sum(-1) / 2
    stored = (counts.log() - log_sum) / strength + far / 2
    value = torch.where(some, stored, 0.0) + rest
    largest_score = compared.size.masked_fill(~mask.expand(logits.shape), 0).amax(-1)
    size = rest + far / 2 + largest_score + counts.log() / strength
    return Expected(value, size.detach())


def sweep(state: Tensor, patterns: Tensor, steps: int) -> Tensor:
    """Hopfield 1982 on whole numbers: (..., L, M), (..., N, M), one unit after the other."""
    x = patterns.round().long()
    connections = (x.mT.unsqueeze(-1) * x.unsqueeze(-3)).sum(-2)  # (..., M, M) times M
    connections = connections - torch.diag_embed(connections.diagonal(dim1=-2, dim2=-1))
    lead = torch.broadcast_shapes(state.shape[:-2], patterns.shape[:-2])
    state = state.round().long().expand(*lead, *state.shape[-2:]).clone()
    for _ in range(steps):
        for unit in range(state.shape[-1]):
            pull = (state * connections[..., unit].unsqueeze(-2)).sum(-1)
            state[..., unit] = torch.where(pull == 0, state[..., unit], pull.sign())
    return state.double()


def by_token(log_weights: Tensor, tokens: Tensor, vocab: int) -> Tensor:
    """Log of the weight of each token: (..., K), (..., K) -> (..., V); -inf for none."""
    there = tokens.unsqueeze(-1) == torch.arange(vocab)  # (..., K, V)
    some = there & (log_weights > -math.inf).unsqueeze(-1)
    parts = torch.where(some, log_weights.unsqueeze(-1), -1e300)
    return torch.where(some.any(-2), parts.logsumexp(-2), -math.inf)


def mixture(logits: Tensor, near: Tensor, mix: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """log(λ e^near + (1 - λ) softmax(logits)), and log softmax(logits)."""
    share = torch.where(known, mix, 0.0).unsqueeze(-1)
    alone = logits.log_softmax(-1)
    top = torch.maximum(share.log() + near, (1 - share).log() + alone).detach()
    never = top == -math.inf
    top = torch.where(never, 0.0, top)  # a factor before the logarithm: nothing underflows
    inside = share * _exp(near - top) + (1 - share) * _exp(alone - top)
    value = torch.where(never, -math.inf, torch.where(never, 1.0, inside).log() + top)
    return value, alone.detach()


def _exp(x: Tensor) -> Tensor:
    return x.clamp(max=700).exp()
