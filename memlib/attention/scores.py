"""How alike a query and a key are, in numbers that lose no digits on the way.

The four measures, for `memlib.attention.verbs` to make weights of. Half precision is computed in
float32, distances in float64, and vectors whose squares would vanish or overflow are scaled by a
power of two, which loses no digit.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib import _checks as checks
from memlib.attention.distance import is_traced, squared_distance, wide

ORDINARY = (2.0**-50, 2.0**60)  # norms whose squares float32 holds with room to spare
LONG = 512  # a sum of more terms is off by more than it should
HALF = (torch.float16, torch.bfloat16)
EXPONENT = {  # integers of the same bits, and the bits that hold the exponent
    torch.float32: (torch.int32, 0x7F80_0000),
    torch.float64: (torch.int64, 0x7FF0_0000_0000_0000),
}


def _similarity(query: Tensor, keys: Tensor, measure: str) -> Tensor:
    return _scores(query, keys, measure).to(query.dtype)


def _scores(query: Tensor, keys: Tensor, measure: str, strength: float | Tensor = 1.0) -> Tensor:
    """Return strength * similarity, in numbers wide enough to tell slots apart."""
    if measure == "negative_squared_distance":
        return _nearness(query, keys, strength)
    query, keys = _single(query), _single(keys)
    if measure == "cosine":
        return _cosine(_times(_unit(query), strength), keys)
    return _times(_times(query, _scale(measure, query)), strength) @ keys.mT


def _wide_scores(measure: str, query: Tensor, keys: Tensor, strength: float | Tensor) -> Tensor:
    """The same in float64, in which distances are made anyway."""
    if measure != "negative_squared_distance":
        query, keys = wide(query), wide(keys)
    return _scores(query, keys, measure, strength)


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return weights by scores that are -inf outside the mask; 0 where there is nothing to read."""
    weights = scores.softmax(dim=-1)  # a row with nothing to read comes out as NaN
    return weights if mask is None else weights.masked_fill(~mask, 0)


def _as_dot_product(
    query: Tensor, keys: Tensor, measure: str, strength: float | Tensor
) -> tuple[Tensor, Tensor, float]:
    """Rewrite strength * similarity as a number times a plain dot product."""
    if measure == "cosine":
        query, keys = _unit(query), _unit(keys)
    scale = _scale(measure, query)
    if query.dtype in HALF and not isinstance(strength, Tensor):  # it would round the product
        return query, keys, scale * strength
    return _times(_times(query, scale), strength), keys, 1.0


def _scale(measure: str, query: Tensor) -> float:
    return float(query.shape[-1] ** -0.5) if measure == "scaled_dot" else 1.0


def _nearness(query: Tensor, keys: Tensor, strength: float | Tensor) -> Tensor:
    return _times(squared_distance(query, keys, strength), -strength)


def _times(x: Tensor, strength: float | Tensor) -> Tensor:
    """Multiply the numbers of each query, (..., L, ·), by its strength."""
    if isinstance(strength, Tensor):
        return x * strength.unsqueeze(-1)
    return x if strength == 1.0 else x * strength


def _highest(query: Tensor, keys: Tensor, measure: str, strength: float | Tensor) -> float:
    """Return what no strength * similarity, by cosine or a dot product, goes beyond."""
    most = checks.largest(strength) if isinstance(strength, Tensor) else strength
    if measure == "cosine":
        return most
    width = query.shape[-1] * _scale(measure, query)
    return most * width * checks.largest(query) * checks.largest(keys)


def _cosine(query: Tensor, keys: Tensor) -> Tensor:
    """Return q·k / |k|; dividing the scores spares a copy of the keys."""
    if _is_seen(keys):
        scores, norm = query @ keys.mT, _norm(keys)
        if _is_ordinary(norm):
            return scores / norm.mT
    keys = keys / _power_of_two(keys)
    return query @ keys.mT / _unless_zero(_norm(keys)).mT


def _unit(x: Tensor) -> Tensor:
    """Return q / |q|, and 0 for a zero vector."""
    if _is_seen(x) and _is_ordinary(norm := _norm(x)):
        return x / norm
    x = x / _power_of_two(x)
    return x / _unless_zero(_norm(x))


def _norm(x: Tensor) -> Tensor:
    terms = wide(x) if x.shape[-1] > LONG else x  # the roundings of so many would add up
    terms = terms if terms.stride(-1) == 1 else terms.contiguous()  # else added one by one
    norm: Tensor = torch.linalg.vector_norm(terms, dim=-1, keepdim=True)
    return norm.to(x.dtype)


def _unless_zero(norm: Tensor) -> Tensor:
    """Let what is divided by a norm of 0 be 0, and without a gradient."""
    return F.threshold(norm, 0, torch.inf)


def _is_seen(x: Tensor) -> bool:
    """Whether values may be looked at, and cost no waiting for a device."""
    return x.device.type == "cpu" and x.numel() > 0 and not is_traced() and not checks.unseen(x)


def _is_ordinary(norm: Tensor) -> bool:
    """Whether no square below vanished or overflowed, so that nothing need be scaled."""
    low, high = norm.detach().aminmax()
    return ORDINARY[0] < low.item() and high.item() < ORDINARY[1]


def _power_of_two(x: Tensor) -> Tensor:
    """Return the scale (..., 1) at which no square vanishes or overflows, and no digit is lost."""
    largest: Tensor = torch.linalg.vector_norm(x.detach(), torch.inf, dim=-1, keepdim=True)
    integer, exponent = EXPONENT[x.dtype]
    bits = largest.clamp_min(torch.finfo(x.dtype).tiny).view(integer)
    return bits.bitwise_and(exponent).view(x.dtype)


def _single(x: Tensor) -> Tensor:
    """Return half precision, in which scores would lose their digits or overflow, as float32."""
    return x.float() if x.dtype in HALF else x
