"""The kNN language model: what a store remembers, mixed into what a model predicts."""

import math

import torch
from torch import Tensor

from memlib import _checks as checks
from memlib.store.store import Store


def knn_lm(
    logits: Tensor,
    query: Tensor,
    store: Store,
    k: int,
    *,
    mix: float | Tensor = 0.25,
    strength: float | Tensor = 1.0,
) -> Tensor:
    r"""Interpolate a language model with a store: :math:`\lambda p_{kNN} + (1 - \lambda) p_{LM}`.

    The store holds a pair for each token of a text: how the model saw what came before it, and
    the token. :math:`p_{kNN}(v)` is the weight of those among the k pairs nearest to the query
    whose token is v, which is `memlib.read` of the tokens as one-hot values.

    Args:
        logits: (B, L, V), of the language model.
        query: (B, L, M), how it sees what comes before each token to predict.
        store: tokens as values of width 1, int64 or int32, of B rows or of one for all; with the
            measure "negative_squared_distance" the weights are those of the paper.
        k: number of pairs, see `memlib.Store.address`.
        mix: :math:`\lambda` in [0, 1], a number or a tensor that broadcasts to (B, L).
        strength: of the read, a number or a tensor that broadcasts to (B, L).

    Returns:
        Log-probabilities (B, L, V), which may take the place of the logits. Where a row of the
        store is empty, they are those of the language model alone.

    Accuracy: float32 1e-4, bfloat16 1e-2, float16 2e-3, of 1 + the size of a result while
    strength times score stays below 100, and beyond it, or beyond a width of 128, in
    proportion.

    Raises:
        TypeError: wrong dtypes, or a store whose values are no integers.
        ValueError: wrong shapes, k too large, mix outside [0, 1], negative strength, a token
            outside [0, V), NaN.

    Source:
        Khandelwal et al. 2020, eq. 2 and 3 (arXiv 1911.00172).

    Example:
        >>> import torch
        >>> from memlib import knn_lm
        >>> from memlib.store import Store
        >>> store = Store(2, 1, measure="negative_squared_distance", value_dtype=torch.long)
        >>> ids = store.add(torch.eye(2)[None], torch.tensor([[[3], [0]]]))
        >>> query = torch.tensor([[[1.0, 0.0]]])  # as it was before token 3
        >>> knn_lm(torch.zeros(1, 1, 4), query, store, k=1, mix=0.5).exp()
        tensor([[[0.1250, 0.1250, 0.1250, 0.6250]]])
    """
    if not isinstance(store, Store):
        raise TypeError(f"store must be a Store; got {type(store).__name__}")
    checks.integers("values of the store", store.values)
    checks.shape("values of the store", store.values, "(B, N, 1)", **{"1": 1})
    k, strength = store._check_query(query, k, strength)
    checks.tensor("logits", logits)
    batch, queries = query.shape[:2]
    checks.shape("logits", logits, "(B, L, V)", B=batch, L=queries)
    checks.alike(query=query, logits=logits)
    mix = checks.one_each("mix", mix, (batch, queries), query, 0, 1)

    found, tokens, scores = _recall(store, query, k, strength)  # (B, L, k)
    vocab = logits.shape[-1]
    if checks.anywhere(wrong := (tokens < 0) | (tokens >= vocab)):
        got = int(tokens[wrong][0])
        raise ValueError(f"values of the store must be tokens in [0, V = {vocab}); got {got}")
    mix = mix.unsqueeze(-1) if isinstance(mix, Tensor) and mix.ndim else mix
    known = found.any(-1, keepdim=True).to(scores.dtype)  # (B, L, 1)
    near = _log_recalled(scores, tokens, found, vocab)  # eq. 2
    alone = logits.to(scores.dtype).log_softmax(-1)
    # 1 - λ of a Python number is taken before it is rounded
    result = _mixed(near, alone, known * mix, 1 - known + known * (1 - mix))  # eq. 3
    result = result.to(logits.dtype)
    if checks.has_nan(result):
        checks.finite(result, logits=logits, query=query, strength=strength)
    return result


def _recall(
    store: Store, query: Tensor, k: int, strength: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which of the k nearest there are, their tokens and scores, all (B, L, k)."""
    with store._lock:
        slots, scores = store._scores(query, k, strength)
        tokens = store._at(store.values, slots).squeeze(-1)
    found = slots >= 0
    return found, tokens.masked_fill(~found, 0).long(), scores


# The formulas, in logarithms from end to end: no probability is too small for them.


def _log_recalled(scores: Tensor, tokens: Tensor, found: Tensor, vocab: int) -> Tensor:
    """Return the log of the summed weights of each token, (B, L, k) -> (B, L, V)."""
    scores = scores.masked_fill(~found.any(-1, keepdim=True), 0)  # an empty row is not asked
    logs = scores.log_softmax(-1)
    nothing = logs.new_full((*logs.shape[:-1], vocab), -torch.inf)
    top = nothing.scatter_reduce(-1, tokens, logs.detach(), "amax")
    shift = top.masked_fill(top == -torch.inf, 0)
    sums = torch.zeros_like(top).scatter_add(-1, tokens, (logs - shift.gather(-1, tokens)).exp())
    return _log(sums) + shift


def _mixed(near: Tensor, alone: Tensor, share: Tensor, rest: Tensor) -> Tensor:
    r"""Return :math:`\log(\lambda e^{near} + (1 - \lambda) e^{alone})`, right at 0 and 1, too."""
    most = torch.maximum(near + share.log(), alone + rest.log()).detach()
    most = most.masked_fill(most == -torch.inf, 0)
    # what a share of 0 hides may be far greater than the rest: bounded, it stays hidden
    bound = math.log(torch.finfo(most.dtype).max) / 2
    recalled, told = ((x - most).clamp_max(bound).exp() for x in (near, alone))
    return _log(share * recalled + rest * told) + most


def _log(x: Tensor) -> Tensor:
    """Return the logarithm, at 0 without a gradient."""
    nothing = x == 0
    return x.masked_fill(nothing, 1).log().masked_fill(nothing, -torch.inf)
