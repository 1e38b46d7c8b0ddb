"""The three verbs of every memory: address, read, write; and attend = read(address).

Everything else in memlib is a composition of the functions in this module. Public functions
check their arguments and call the underscored formula of the same name; later floors call the
formula, having checked already.

Shapes: any leading dimensions, then ``L`` queries, ``N`` slots, keys of width ``M``, values of
width ``V``; masks are bool with True = may be read.
"""

from functools import partial
from typing import Literal, get_args, overload

import torch
from torch import Tensor

from memlib import _checks as checks
from memlib.attention import streaming
from memlib.attention.blockwise import attend_by
from memlib.attention.distance import is_traced, is_worth_sifting, rough_nearness
from memlib.attention.scores import (
    HALF,
    _as_dot_product,
    _highest,
    _scores,
    _similarity,
    _single,
    _softmax,
    _times,
    _wide_scores,
)

Measure = Literal["dot", "scaled_dot", "cosine", "negative_squared_distance"]
MEASURES: tuple[str, ...] = get_args(Measure)

STEEP = 1e4  # a score whose rounding in float32 a weight begins to show


def similarity(query: Tensor, keys: Tensor, *, measure: Measure = "scaled_dot") -> Tensor:
    r"""Compare every query with every key: :math:`s_{ln} = K(q_l, k_n)`.

    ========================== ==============================================================
    measure                    :math:`K(q, k)`
    ========================== ==============================================================
    dot                        :math:`q \cdot k`
    scaled_dot                 :math:`q \cdot k / \sqrt{M}` (Vaswani et al. 2017, eq. 1)
    cosine                     :math:`q \cdot k / (|q| |k|)` (Graves et al. 2014, eq. 6)
    negative_squared_distance  :math:`-|q - k|^2`
    ========================== ==============================================================

    Args:
        query: (..., L, M).
        keys: (..., N, M); leading dimensions broadcast with those of `query`.
        measure: one of the names above. The cosine of a zero vector is 0.

    Returns:
        Scores of shape (..., L, N).

    Accuracy: float32 1e-5, bfloat16 8e-3, float16 1e-3, of the sum of the sizes of its terms; a
    cosine of 1, a distance of itself and 1e-9 of the largest.

    Raises:
        TypeError: an argument is no floating-point tensor, or dtypes differ.
        ValueError: shapes do not fit, or a NaN was read.

    Example:
        >>> import torch
        >>> from memlib import similarity
        >>> keys = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> similarity(torch.tensor([[3.0, 4.0]]), keys, measure="cosine")
        tensor([[0.6000, 0.8000]])
    """
    _check_query_and_keys(query, keys, measure)
    scores = _similarity(query, keys, measure)
    checks.finite(scores, query=query, keys=keys)
    return scores


def address(
    query: Tensor,
    keys: Tensor,
    *,
    measure: Measure = "scaled_dot",
    strength: float | Tensor = 1.0,
    mask: Tensor | None = None,
    top_k: int | None = None,
) -> Tensor:
    r"""Decide where to look: :math:`w_l = \operatorname{softmax}_n(\beta_l K(q_l, k_n))`.

    Args:
        query: (..., L, M).
        keys: (..., N, M).
        measure: similarity measure :math:`K`, see `similarity`.
        strength: :math:`\beta \ge 0`, a number or a tensor that broadcasts to (..., L), one value
            a query. 0 spreads the weights evenly, a large strength picks the most similar slot.
        mask: bool, True = may be read; broadcasts to (..., L, N).
        top_k: keep only the `top_k` most similar readable slots of each query.

    Returns:
        Weights of shape (..., L, N), at least 0, summing to 1 over the slots; all 0 where a
        query may read nothing.

    Accuracy: float32 1e-4, bfloat16 8e-3, float16 1e-3, of every weight above 1e-6 while
    strength times score stays below 100, and beyond it, or beyond a width of 128, in
    proportion.

    Raises:
        TypeError: no floating-point tensor, dtypes that differ, a mask that is not bool.
        ValueError: shapes that do not fit, negative strength, top_k not in [1, N], NaN read.

    Source:
        Graves, Wayne, Danihelka 2014, eq. 5 (arXiv 1410.5401).

    Example:
        >>> import torch
        >>> from memlib import address
        >>> keys = torch.eye(3)
        >>> address(keys[:1], keys, measure="dot", strength=100.0).round()
        tensor([[1., 0., 0.]])
    """
    strength, top_k = _check_address(query, keys, measure, strength, mask, top_k)
    keys, _ = _hide(mask, keys)
    weights = _address(query, keys, measure, strength, mask, top_k)
    checks.finite(weights, query=query, keys=keys, strength=strength)
    return weights


def read(weights: Tensor, values: Tensor) -> Tensor:
    r"""Bring back the weighted sum of the values: :math:`r_l = \sum_n w_{ln} v_n`.

    Args:
        weights: (..., L, N), from `address` or anywhere else.
        values: (..., N, V). A slot that no query gives weight is not looked at.

    Returns:
        Read vectors of shape (..., L, V).

    Accuracy: float32 1e-5, bfloat16 8e-3, float16 1e-3, of the sum of weights times sizes of
    values.

    Raises:
        TypeError: an argument is no floating-point tensor, or dtypes differ.
        ValueError: shapes do not fit, or a NaN was read.

    Source:
        Graves, Wayne, Danihelka 2014, eq. 2 (arXiv 1410.5401).

    Example:
        >>> import torch
        >>> from memlib import read
        >>> read(torch.tensor([[0.5, 0.5]]), torch.tensor([[2.0], [4.0]]))
        tensor([[3.]])
    """
    checks.tensor("weights", weights)
    checks.tensor("values", values)
    checks.shape("weights", weights, "(..., L, N)")
    checks.shape("values", values, "(..., N, V)", N=weights.shape[-1])
    checks.alike(weights=weights, values=values)
    checks.leading(weights=(weights, 2), values=(values, 2))
    result = _read(weights, values)
    if checks.has_nan(result):  # perhaps only from slots without weight: 0 * NaN is NaN
        _, values = _hide(weights != 0, values)
        result = _read(weights, values)
        checks.finite(result, weights=weights, values=values)
    return result


def write(memory: Tensor, weights: Tensor, add: Tensor, erase: Tensor | None = None) -> Tensor:
    r"""Change the memory: :math:`M'_n = M_n \prod_h (1 - w_{hn} e_h) + \sum_h w_{hn} a_h`.

    Systems differ in what is added and erased: append or overwrite (one-hot weights, erase 1),
    the NTM (erase and add vectors), Hebbian storage (no erase), the delta rule
    (add = :math:`\beta (v - \text{read})`).

    Args:
        memory: (..., N, M); it stays as it is.
        weights: (..., H, N), one weighting for each of H heads, written at once.
        add: (..., H, M), the vectors :math:`a_h` added.
        erase: (..., H, M), the fractions :math:`e_h` in [0, 1] erased first; None erases nothing.

    Returns:
        The new memory, (..., N, M).

    Accuracy: float32 1e-5, bfloat16 2e-2, float16 2e-3, of the sizes of the memory and of what is
    added.

    Raises:
        TypeError: an argument is no floating-point tensor, or dtypes differ.
        ValueError: shapes do not fit, or weights, add or erase hold NaN.

    Source:
        Graves, Wayne, Danihelka 2014, eq. 3 and 4 (arXiv 1410.5401).

    Example:
        >>> import torch
        >>> from memlib import write
        >>> one = torch.ones(1, 2)
        >>> write(torch.zeros(2, 2), torch.tensor([[0.0, 1.0]]), add=3 * one, erase=one)
        tensor([[0., 0.],
                [3., 3.]])
    """
    checks.tensor("memory", memory)
    checks.tensor("weights", weights)
    checks.tensor("add", add)
    checks.shape("memory", memory, "(..., N, M)")
    slots, width = memory.shape[-2:]
    checks.shape("weights", weights, "(..., H, N)", N=slots)
    heads = weights.shape[-2]
    checks.shape("add", add, "(..., H, M)", H=heads, M=width)
    if erase is not None:
        checks.tensor("erase", erase)
        checks.shape("erase", erase, "(..., H, M)", H=heads, M=width)
    checks.alike(memory=memory, weights=weights, add=add, erase=erase)
    checks.leading(memory=(memory, 2), weights=(weights, 2), add=(add, 2), erase=(erase, 2))
    result = _write(memory, weights, add, erase)
    if not (checks.has_nan(result) and checks.has_nan(memory)):  # what was there may be anything
        checks.finite(result, memory=memory, weights=weights, add=add, erase=erase)
    return result


@overload
def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    measure: Measure = ...,
    strength: float | Tensor = ...,
    mask: Tensor | None = ...,
    top_k: int | None = ...,
    need_weights: Literal[False] = ...,
) -> Tensor: ...


@overload
def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    measure: Measure = ...,
    strength: float | Tensor = ...,
    mask: Tensor | None = ...,
    top_k: int | None = ...,
    need_weights: Literal[True],
) -> tuple[Tensor, Tensor]: ...


@overload
def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    measure: Measure = ...,
    strength: float | Tensor = ...,
    mask: Tensor | None = ...,
    top_k: int | None = ...,
    need_weights: bool,
) -> Tensor | tuple[Tensor, Tensor]: ...


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    measure: Measure = "scaled_dot",
    strength: float | Tensor = 1.0,
    mask: Tensor | None = None,
    top_k: int | None = None,
    need_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Read a memory once: :math:`r = \operatorname{softmax}(\beta K(q, k))\, v`.

    The same as ``read(address(query, keys, ...), values)``. Without `need_weights` and `top_k`
    the slots are streamed, and no tensor with a score for each query and slot ever exists; but
    few queries on a GPU, whose scores are no more numbers than the keys, are read faster by them.

    Args:
        query: (..., L, M).
        keys: (..., N, M).
        values: (..., N, V).
        measure: similarity measure :math:`K`, see `similarity`.
        strength: :math:`\beta \ge 0`, a number or a tensor that broadcasts to (..., L).
        mask: bool, True = may be read; broadcasts to (..., L, N).
        top_k: read only the `top_k` most similar slots of each query.
        need_weights: return the weights too.

    Returns:
        Values of shape (..., L, V); with `need_weights` the pair (values, weights), weights of
        shape (..., L, N). A query with nothing to read gets zeros. What lies in a slot that no
        query may read, NaN included, reaches neither result nor gradient.

    Accuracy: float32 1e-4, bfloat16 2e-2, float16 2e-3, of the sum of weights times sizes of
    values while strength times score stays below 100, and beyond it, or beyond a width of 128,
    in proportion.

    Raises:
        TypeError: no floating-point tensor, dtypes that differ, a mask that is not bool.
        ValueError: shapes that do not fit, negative strength, top_k not in [1, N], NaN read.

    Source:
        Vaswani et al. 2017, eq. 1 (arXiv 1706.03762); streaming: Milakov and Gimelshein 2018
        (arXiv 1805.02867), Dao et al. 2022 (arXiv 2205.14135).

    Note:
        First derivatives only without `need_weights`; the two-step form has them all.

    Example:
        >>> import torch
        >>> from memlib import attend
        >>> keys, values = torch.eye(2), torch.tensor([[10.0], [20.0]])
        >>> attend(keys, keys, values, measure="dot", strength=50.0)
        tensor([[10.],
                [20.]])
    """
    strength, top_k = _check_address(query, keys, measure, strength, mask, top_k)
    checks.tensor("values", values)
    checks.shape("values", values, "(..., N, V)", N=keys.shape[-2])
    checks.alike(query=query, values=values)
    checks.leading(query=(query, 2), keys=(keys, 2), values=(values, 2))

    keys, values = _hide(mask, keys, values)
    options = (top_k, need_weights)
    value, weights = _attend(query, keys, values, measure, strength, mask, *options)
    if mask is not None and checks.has_nan(value):
        # a slot readable for one query may hold NaN for another not to see
        again = (query, keys, values, measure, strength, mask, *options)
        value, weights = _attend_one_by_one(*again)
    elif weights is None and _may_vanish(value, query, keys, measure, strength):
        value, _ = _attend(query, keys, values, measure, strength, mask, top_k, need_weights=True)
    checks.finite(value, query=query, keys=keys, values=values, strength=strength)
    return value if weights is None else (value, weights)


# The formulas, each in one place. They trust their arguments.


def _address(
    query: Tensor,
    keys: Tensor,
    measure: str = "scaled_dot",
    strength: float | Tensor = 1.0,
    mask: Tensor | None = None,
    top_k: int | None = None,
) -> Tensor:
    return _weights(query, keys, measure, strength, mask, top_k).to(query.dtype)


def _weights(
    query: Tensor,
    keys: Tensor,
    measure: str,
    strength: float | Tensor,
    mask: Tensor | None,
    top_k: int | None,
) -> Tensor:
    """`_address` before half precision is rounded, in which gradients of a read may overflow."""
    return _softmax(*_readable(query, keys, measure, strength, mask, top_k))


def _readable(
    query: Tensor,
    keys: Tensor,
    measure: str,
    strength: float | Tensor,
    mask: Tensor | None,
    top_k: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return strength * similarity up to a constant a query, -inf in slots not in the mask."""
    # top_k ranks by similarity alone, so that it keeps its meaning at strength 0
    scores = _scores(query, keys, measure, strength if top_k is None else 1.0)  # (..., L, N)
    if top_k is not None:
        ranked = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
        kept = torch.zeros_like(scores, dtype=torch.bool)
        kept = kept.scatter(-1, ranked.topk(top_k, dim=-1).indices, True)
        mask = kept if mask is None else kept & mask
        scores = _times(scores, strength)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    kind = torch.float32 if query.dtype in HALF else query.dtype
    if scores.dtype != kind and scores.shape[-1]:  # the greatest first, then the digits
        greatest = scores.detach().amax(dim=-1, keepdim=True)
        scores = (scores - greatest.masked_fill(greatest == -torch.inf, 0)).to(kind)
    return scores, mask


def _read(weights: Tensor, values: Tensor) -> Tensor:
    return weights @ values


def _write(memory: Tensor, weights: Tensor, add: Tensor, erase: Tensor | None = None) -> Tensor:
    if erase is not None and weights.shape[-2] == 1:  # the outer product is a matmul
        memory = torch.addcmul(memory, memory, weights.mT @ erase, value=-1)
    elif erase is not None:
        kept = 1 - weights.unsqueeze(-1) * erase.unsqueeze(-2)  # (..., H, N, M)
        memory = memory * kept.prod(dim=-3)
    return memory + weights.mT @ add  # eq. 4; the H heads meet in the matmul


def _attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    measure: str = "scaled_dot",
    strength: float | Tensor = 1.0,
    mask: Tensor | None = None,
    top_k: int | None = None,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    far = measure == "negative_squared_distance"
    if need_weights or top_k is not None or (far and is_traced()):
        weights = _weights(query, keys, measure, strength, mask, top_k)
        value = _read(weights, _single(values)).to(values.dtype)
        return value, weights.to(query.dtype) if need_weights else None
    learns = _learns(query, keys, values, strength)
    if far or (learns and _is_steep(query, keys, measure, strength)):
        score = partial(_wide_scores, measure)
        rough = rough_nearness if far and is_worth_sifting(keys) else None
        return attend_by(score, query, keys, values, strength, mask, rough), None
    dtype = query.dtype
    # these make numbers of their own; gradients in half precision would overflow on the way
    if measure == "cosine" or isinstance(strength, Tensor) or learns:
        query, keys, values = _single(query), _single(keys), _single(values)
    query, keys, scale = _as_dot_product(query, keys, measure, strength)
    return streaming.attend(query, keys, values, mask, scale).to(dtype), None


def _learns(*tensors: Tensor | float) -> bool:
    """Whether the CPU will be asked for gradients."""
    given = [x for x in tensors if isinstance(x, Tensor)]
    return (
        given[0].device.type == "cpu"
        and torch.is_grad_enabled()
        and any(x.requires_grad for x in given)
    )


def _is_steep(query: Tensor, keys: Tensor, measure: str, strength: float | Tensor) -> bool:
    """Whether scores may be so large that to round them again changes the weights.

    PyTorch's kernel makes them anew for the gradients, in other blocks: from 1e8 on its weights
    are infinite there.
    """
    return not is_traced() and _highest(query, keys, measure, strength) > STEEP


def _may_vanish(
    value: Tensor, query: Tensor, keys: Tensor, measure: str, strength: float | Tensor
) -> bool:
    """Whether a streamed read may be 0 because all scores of a query overflowed to -infinity."""
    if measure not in ("dot", "scaled_dot"):
        return False
    # the first number of a read that is not 0 spares a look at the others, which takes longer
    if not (checks.anywhere(value[..., :1] == 0) and checks.anywhere(~value.any(dim=-1))):
        return False
    kind = torch.promote_types(query.dtype, torch.float32)
    return _highest(query, keys, measure, strength) > torch.finfo(kind).max


def _attend_one_by_one(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    measure: str,
    strength: float | Tensor,
    mask: Tensor,
    top_k: int | None,
    need_weights: bool,
) -> tuple[Tensor, Tensor | None]:
    """The same read with every query as a batch row of its own: slow, only where NaN was met."""
    mask = mask.unsqueeze(-2) if mask.ndim > 1 else mask
    if isinstance(strength, Tensor) and strength.ndim:
        strength = strength.unsqueeze(-1)
    keys, values = _hide(mask, keys.unsqueeze(-3), values.unsqueeze(-3))
    value, weights = _attend(
        query.unsqueeze(-2), keys, values, measure, strength, mask, top_k, need_weights
    )
    return value.squeeze(-2), None if weights is None else weights.squeeze(-2)


def _hide(mask: Tensor | None, keys: Tensor, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Clear the slots that no query may read, so that NaN or infinity there stays there."""
    values = keys if values is None else values
    if mask is None:
        return keys, values
    hidden = ~(mask if mask.ndim < 2 else mask.any(dim=-2)).unsqueeze(-1)  # (..., N, 1)
    return keys.masked_fill(hidden, 0), values.masked_fill(hidden, 0)


def _check_query_and_keys(query: Tensor, keys: Tensor, measure: str) -> None:
    checks.tensor("query", query)
    checks.tensor("keys", keys)
    checks.shape("query", query, "(..., L, M)")
    checks.integer("the width M of query", query.shape[-1], 1)
    checks.shape("keys", keys, "(..., N, M)", M=query.shape[-1])
    checks.alike(query=query, keys=keys)
    checks.leading(query=(query, 2), keys=(keys, 2))
    checks.choice("measure", measure, MEASURES)


def _check_address(
    query: Tensor,
    keys: Tensor,
    measure: str,
    strength: float | Tensor,
    mask: Tensor | None,
    top_k: int | None,
) -> tuple[float | Tensor, int | None]:
    """Return strength and top_k, numbers as Python's own."""
    _check_query_and_keys(query, keys, measure)
    lead = checks.leading(query=(query, 2), keys=(keys, 2))
    queries, slots = query.shape[-2], keys.shape[-2]
    strength = checks.one_each("strength", strength, (*lead, queries), query, low=0)
    if mask is not None:
        checks.mask(mask, (*lead, queries, slots), query.device)
    return strength, None if top_k is None else checks.integer("top_k", top_k, 1, slots)
