"""Which tokens a cache is to keep: rules that give a score a slot, for `KVCache.keep`.

Keys stay as they were written, so their rotary angles and learned positions are those of the text;
StreamingLLM counts positions in the cache instead. One choice holds for all heads of a layer, since
a position is a row's; H2O and SnapKV choose for each head.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from memlib import _checks as checks
from memlib.attention.distance import wide
from memlib.transformer.cache import KVCache
from memlib.transformer.slots import _by_slot, _newest


def forget(
    memory: KVCache | Sequence[KVCache],
    n: int,
    rule: Callable[..., Tensor],
    *details: Sequence[Any],
) -> list[Tensor]:
    """Do ``cache.keep(rule(cache, *details), n)`` in every layer.

    Args:
        memory: the caches of a `Decoder`, one a layer; or a single one.
        n: how many tokens stay in a row.
        rule: returns scores (B, N): `window`, `sinks`, `heavy_hitters`, `looked_at`, or your own.
        details: what the rule wants to know besides, each with an item a layer.

    Returns:
        For each layer the slots that stayed, (B, n), see `KVCache.keep`.

    Raises:
        TypeError: a memory of another kind, or what the rule or `KVCache.keep` refuses.
        ValueError: details that are not one a layer, or what the rule or `KVCache.keep` refuses.
            After an error every cache is as it was.

    Example:
        >>> import torch
        >>> from memlib.transformer import Decoder, forget, sinks
        >>> model = Decoder(vocab_size=50, width=16, layers=2, heads=2)
        >>> text, cache = torch.randint(50, (1, 96)), model.cache(batch_size=1, slots=16)
        >>> with torch.no_grad():  # a text of any length, 4 slots for its first tokens
        ...     for new in text.split(4, dim=1):
        ...         slots = forget(cache, 12, sinks)  # room for 4 more
        ...         logits, cache = model(new, cache)
        >>> cache[0].lengths, cache[0].positions[0].tolist()
        (tensor([96]), [0, 1, 2, 3, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95])
    """
    caches = [memory] if isinstance(memory, KVCache) else list(memory)
    for cache in caches:
        _sizes(cache)
    for detail in details:
        if len(detail) != len(caches):
            raise ValueError(f"details must be {len(caches)}, one a layer; got {len(detail)}")
    scores = [rule(cache, *its) for cache, *its in zip(caches, *details, strict=True)]
    for cache, score in zip(caches, scores, strict=True):
        cache._check_scores(score, n)
    return [cache.keep(score, n) for cache, score in zip(caches, scores, strict=True)]


def window(cache: KVCache) -> Tensor:
    """Score the newest tokens highest: the score of a slot is its position.

    Args:
        cache: with slots N.

    Returns:
        Scores (B, N).

    Raises:
        TypeError: another kind of memory.

    Source:
        The local attention of Beltagy et al. 2020 (arXiv 2004.05150).

    Example:
        >>> import torch
        >>> from memlib.transformer import KVCache, window
        >>> cache = KVCache(batch_size=1, heads=1, slots=6, width=2)
        >>> _ = cache.extend(*torch.randn(2, 1, 1, 5, 2))
        >>> cache.keep(window(cache), 3)
        tensor([[2, 3, 4]])
    """
    _sizes(cache)
    return wide(cache.positions)


def sinks(cache: KVCache, first: int = 4) -> Tensor:
    """Score the first tokens of each row above all others, and of those the newest highest.

    Args:
        cache: with slots N.
        first: how many of the first tokens stay.

    Returns:
        Scores (B, N).

    Raises:
        TypeError: another kind of memory, or `first` is no integer.
        ValueError: a negative `first`.

    Source:
        Xiao et al. 2023, section 3.2 (arXiv 2309.17453).

    Example:
        >>> import torch
        >>> from memlib.transformer import KVCache, sinks
        >>> cache = KVCache(batch_size=1, heads=1, slots=6, width=2)
        >>> _ = cache.extend(*torch.randn(2, 1, 1, 5, 2))
        >>> cache.keep(sinks(cache, first=1), 3)
        tensor([[0, 3, 4]])
    """
    first = checks.integer("first", first, 0)
    return window(cache).masked_fill(cache.positions < first, math.inf)


def accumulate(cache: KVCache, weights: Tensor, total: Tensor | None = None) -> Tensor:
    r"""Add up how much each slot was looked at: :math:`a_i \leftarrow a_i + \sum_{ht} w_{hti}`.

    Args:
        cache: with slots N, after the call that gave the weights.
        weights: (B, H, T, N') of a layer, a column a slot.
        total: (B, N'') from before, moved along when slots moved; None for nothing.

    Returns:
        Totals (B, N), in float32 at least.

    Raises:
        TypeError: another kind of memory, or wrong dtypes.
        ValueError: wrong shapes, or weights of several tokens that came to a ring at once.

    Source:
        Zhang et al. 2023 (arXiv 2306.14048).

    Example:
        >>> import torch
        >>> from memlib.transformer import KVCache, accumulate
        >>> cache, weights = KVCache(1, 1, slots=4, width=2), torch.eye(2).tril().expand(1, 3, 2, 2)
        >>> total = accumulate(cache, weights)
        >>> accumulate(cache, weights, total[:, :2])  # two slots stayed
        tensor([[6., 6., 0., 0.]])
    """
    batch, slots = _sizes(cache)
    weights = _by_slot(weights, cache.positions, cache.ring)
    new = F.pad(weights.sum((1, 2)), (0, slots - weights.shape[-1]))
    if total is None:
        return new
    checks.tensor("total", total)
    checks.alike(**{"the sum": new, "total": total})
    checks.shape("total", total, "(B, N)", B=batch)
    if total.shape[1] > slots:
        raise ValueError(f"total must have at most N = {slots} slots; got {total.shape[1]}")
    return new + F.pad(total, (0, slots - total.shape[1]))


def heavy_hitters(cache: KVCache, total: Tensor, recent: int = 8) -> Tensor:
    """Score tokens by how much they were looked at so far; the newest stay in any case.

    Args:
        cache: with slots N.
        total: (B, N) from `accumulate`.
        recent: how many of the newest tokens stay; H2O takes half of all that stay.

    Returns:
        Scores (B, N).

    Raises:
        TypeError: another kind of memory, wrong dtypes, or `recent` is no integer.
        ValueError: wrong shapes, or a negative number.

    Source:
        Zhang et al. 2023 (arXiv 2306.14048).

    Example:
        >>> import torch
        >>> from memlib.transformer import Decoder, accumulate, forget, heavy_hitters
        >>> model, totals = Decoder(vocab_size=50, width=16), [None, None]
        >>> text, cache = torch.randint(50, (1, 96)), model.cache(batch_size=1, slots=16)
        >>> with torch.no_grad():
        ...     for new in text.split(4, dim=1):
        ...         logits, cache, weights = model(new, cache, need_weights=True)
        ...         totals = [accumulate(*layer) for layer in zip(cache, weights, totals)]
        ...         slots = forget(cache, 12, heavy_hitters, totals)
        ...         totals = [total.gather(1, stay) for total, stay in zip(totals, slots)]
        >>> cache[0].positions[0, 4:12].tolist()  # the newest always stay
        [88, 89, 90, 91, 92, 93, 94, 95]
    """
    batch, slots = _sizes(cache)
    checks.tensor("total", total)
    checks.shape("total", total, "(B, N)", B=batch, N=slots)
    newest = _newest(cache.positions, cache.lengths, checks.integer("recent", recent, 0))
    return total.masked_fill(newest, math.inf)


def looked_at(cache: KVCache, weights: Tensor, last: int = 32, pool: int = 5) -> Tensor:
    """Score tokens by how much the last ones looked at them and their neighbors.

    Weights are added over heads and over the last queries of each row, and averaged over `pool`
    slots side by side. The last tokens themselves stay in any case.

    Args:
        cache: with slots N, after the call that gave the weights.
        weights: (B, H, T, N') as in `accumulate`.
        last: how many of the queries count, the last of each row.
        pool: how many slots a mean is over, an odd number; 1 for none.

    Returns:
        Scores (B, N).

    Raises:
        TypeError: another kind of memory, wrong dtypes, or a number that is no integer.
        ValueError: see `accumulate`, and a number out of range.

    Source:
        Li et al. 2024 (arXiv 2404.14469); the defaults are those of their code.

    Example:
        >>> import torch
        >>> from memlib.transformer import KVCache, looked_at
        >>> cache = KVCache(batch_size=1, heads=1, slots=6, width=2)
        >>> _ = cache.extend(*torch.randn(2, 1, 1, 5, 2))
        >>> weights = torch.tensor([0.1, 0.5, 0.2, 0.0, 0.2]).expand(1, 1, 1, 5)
        >>> cache.keep(looked_at(cache, weights, last=1, pool=3), 3)
        tensor([[1, 2, 4]])
    """
    _, slots = _sizes(cache)
    weights = _by_slot(weights, cache.positions, cache.ring)
    last, pool = checks.integer("last", last, 1), checks.integer("pool", pool, 1)
    if not pool % 2:
        raise ValueError(f"pool must be odd; got {pool}")
    newest = _newest(cache.positions, cache.lengths, last)
    looks = weights.sum(1)  # (B, T, N'), 0 at padding
    later = (looks.sum(-1) > 0).flip(1).cumsum(1).flip(1)  # tokens from this one on
    looks = (looks * (later <= last).unsqueeze(-1)).sum(1)
    looks = F.pad(looks, (0, slots - looks.shape[-1])).masked_fill(newest, 0)
    looks = F.avg_pool1d(looks.unsqueeze(1), pool, stride=1, padding=pool // 2).squeeze(1)
    return looks.masked_fill(newest, math.inf)


def _sizes(cache: KVCache) -> Sequence[int]:
    if not isinstance(cache, KVCache):
        raise TypeError(f"cache must be a KVCache; got {type(cache).__name__}")
    return cache.positions.shape
