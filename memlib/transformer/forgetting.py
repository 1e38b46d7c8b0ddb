"""Which tokens a cache is to keep: rules that give a score a slot, for `KVCache.keep`.

A rule is a function of the cache, and of where its layer looked if that is what it goes by. What it
gathers over time is handed in and out, and moves with the slots.

Keys and values stay as they are, so rotary angles and learned positions are those of the text;
StreamingLLM and H2O count positions in the cache instead. One choice holds for all heads of a
layer, since a position is a row's; H2O and SnapKV choose for each head.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from memlib import _checks as checks
from memlib.attention.distance import wide
from memlib.transformer.cache import KVCache


def forget(
    memory: KVCache | Sequence[KVCache],
    n: int,
    rule: Callable[..., Tensor],
    *details: Sequence[Any],
) -> list[Tensor]:
    """Keep the n tokens of each row that the rule scores highest, in every layer.

    It is ``cache.keep(rule(cache, *its), n)`` for each cache and what is given for its layer.

    Args:
        memory: the caches of a `Decoder`, one a layer; or a single one.
        n: how many tokens stay in a row.
        rule: returns scores (B, N) of a cache: `window`, `sinks`, `heavy_hitters`, `looked_at`, or
            your own.
        details: what the rule wants to know besides, each with an item a layer.

    Returns:
        For each layer the slots that stayed, (B, n), see `KVCache.keep`.

    Raises:
        TypeError: a memory of another kind, or what the rule or `KVCache.keep` refuses.
        ValueError: details that are not one a layer, or what the rule or `KVCache.keep` refuses.
            No cache is changed before all rules have given their scores.

    Example:
        A text of any length in 16 slots a layer, of which 4 are for the first tokens:

        >>> import torch
        >>> from memlib import Decoder
        >>> from memlib.transformer import forget, sinks
        >>> model = Decoder(vocab_size=50, width=16, layers=2, heads=2)
        >>> text, cache = torch.randint(50, (1, 96)), model.cache(batch_size=1, slots=16)
        >>> with torch.no_grad():
        ...     for new in text.split(4, dim=1):
        ...         slots = forget(cache, 12, sinks)  # room for 4 more
        ...         logits, cache = model(new, cache)
        >>> cache[0].lengths, cache[0].positions[0].tolist()
        (tensor([96]), [0, 1, 2, 3, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95])

        The same with the tokens that were looked at most:

        >>> from memlib.transformer import accumulate, heavy_hitters
        >>> cache, totals = model.cache(batch_size=1, slots=16), [None, None]
        >>> with torch.no_grad():
        ...     for new in text.split(4, dim=1):
        ...         logits, cache, weights = model(new, cache, need_weights=True)
        ...         totals = [accumulate(*layer) for layer in zip(cache, weights, totals)]
        ...         slots = forget(cache, 12, heavy_hitters, totals)
        ...         totals = [total.gather(1, stay) for total, stay in zip(totals, slots)]
        >>> cache[0].positions[0, 4:12].tolist()  # the newest always stay
        [88, 89, 90, 91, 92, 93, 94, 95]
    """
    caches = [memory] if isinstance(memory, KVCache) else list(memory)
    for cache in caches:
        _check_cache(cache)
    for detail in details:
        if len(detail) != len(caches):
            raise ValueError(f"details must be {len(caches)}, one a layer; got {len(detail)}")
    scores = [rule(cache, *its) for cache, *its in zip(caches, *details, strict=True)]
    return [cache.keep(score, n) for cache, score in zip(caches, scores, strict=True)]


def window(cache: KVCache) -> Tensor:
    """Score the newest tokens highest: a slot's score is its position.

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
        >>> from memlib import KVCache
        >>> from memlib.transformer import window
        >>> cache = KVCache(batch_size=1, heads=1, slots=6, width=2)
        >>> _ = cache.extend(*torch.randn(2, 1, 1, 5, 2))
        >>> cache.keep(window(cache), 3)
        tensor([[2, 3, 4]])
        >>> cache.positions
        tensor([[ 2,  3,  4, -1, -1, -1]])
    """
    _check_cache(cache)
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
        >>> from memlib import KVCache
        >>> from memlib.transformer import sinks
        >>> cache = KVCache(batch_size=1, heads=1, slots=6, width=2)
        >>> _ = cache.extend(*torch.randn(2, 1, 1, 5, 2))
        >>> slots = cache.keep(sinks(cache, first=1), 3)
        >>> cache.positions
        tensor([[ 0,  3,  4, -1, -1, -1]])
    """
    first = checks.integer("first", first, 0)
    return window(cache).masked_fill(cache.positions < first, math.inf)


def accumulate(cache: KVCache, weights: Tensor, total: Tensor | None = None) -> Tensor:
    r"""Add up how much each slot was looked at: :math:`a_i \leftarrow a_i + \sum_{ht} w_{hti}`.

    Args:
        cache: with slots N, after the call that gave the weights.
        weights: (B, H, T, N') of a layer, with a column a slot.
        total: (B, N''), what it returned before, moved along when slots moved; None for nothing.

    Returns:
        Totals (B, N).

    Raises:
        TypeError: another kind of memory, or wrong dtypes.
        ValueError: wrong shapes; weights that don't go by slots, which several tokens that come to
            a ring at once give.

    Source:
        Zhang et al. 2023, section 4 (arXiv 2306.14048).

    Example:
        >>> import torch
        >>> from memlib import KVCache
        >>> from memlib.transformer import accumulate
        >>> cache, weights = KVCache(1, 1, slots=4, width=2), torch.eye(2).tril().expand(1, 3, 2, 2)
        >>> total = accumulate(cache, weights)
        >>> accumulate(cache, weights, total[:, :2])  # two slots stayed
        tensor([[6., 6., 0., 0.]])
    """
    batch, slots = _check_weights(cache, weights)
    new = F.pad(weights.detach().sum((1, 2)), (0, slots - weights.shape[-1]))
    if total is None:
        return new
    checks.tensor("total", total)
    checks.alike(weights=weights, total=total)
    checks.shape("total", total, "(B, N)", B=batch)
    if total.shape[1] > slots:
        raise ValueError(f"total must have at most N = {slots} slots; got {total.shape[1]}")
    return new + F.pad(total, (0, slots - total.shape[1]))


def heavy_hitters(cache: KVCache, total: Tensor, recent: int = 8) -> Tensor:
    """Score tokens by how much they have been looked at so far; the newest stay in any case.

    Args:
        cache: with slots N.
        total: (B, N) from `accumulate`.
        recent: how many of the newest tokens stay; H2O takes half of all that stay.

    Returns:
        Scores (B, N).

    Raises:
        TypeError: another kind of memory, wrong dtypes, or `recent` is no integer.
        ValueError: wrong shapes, or a negative `recent`.

    Source:
        Zhang et al. 2023, section 4 (arXiv 2306.14048).

    Example:
        >>> import torch
        >>> from memlib import KVCache
        >>> from memlib.transformer import heavy_hitters
        >>> cache = KVCache(batch_size=1, heads=1, slots=6, width=2)
        >>> _ = cache.extend(*torch.randn(2, 1, 1, 5, 2))
        >>> total = torch.tensor([[0.5, 2.0, 1.0, 1.2, 0.3, 0.0]])
        >>> slots = cache.keep(heavy_hitters(cache, total, recent=1), 3)
        >>> cache.positions
        tensor([[ 1,  3,  4, -1, -1, -1]])
    """
    _check_cache(cache)
    batch, slots = cache.positions.shape
    checks.tensor("total", total)
    checks.shape("total", total, "(B, N)", B=batch, N=slots)
    recent = checks.integer("recent", recent, 0)
    return total.masked_fill(_newest(cache, recent), math.inf)


def looked_at(cache: KVCache, weights: Tensor, last: int = 32, pool: int = 5) -> Tensor:
    """Score tokens by how much the last ones looked at them and their neighbors.

    Weights are added over the heads and over the last queries of each row, and averaged over
    `pool` slots side by side. The last tokens themselves stay in any case.

    Args:
        cache: with slots N, after the call that gave the weights.
        weights: (B, H, T, N') of a layer, with a column a slot.
        last: how many of the queries count, the last of each row.
        pool: how many slots a mean is over, an odd number; 1 for none.

    Returns:
        Scores (B, N).

    Raises:
        TypeError: another kind of memory, wrong dtypes, or a number that is no integer.
        ValueError: wrong shapes; weights that don't go by slots, which several tokens that come to
            a ring at once give; numbers below 1, or an even `pool`.

    Source:
        Li et al. 2024, section 4 (arXiv 2404.14469); the defaults are those of their code.

    Example:
        >>> import torch
        >>> from memlib import MemoryAttention
        >>> from memlib.transformer import looked_at
        >>> layer = MemoryAttention(width=16, heads=4)
        >>> cache = layer.cache(batch_size=1, slots=30)
        >>> with torch.no_grad():
        ...     _, cache, weights = layer(torch.randn(1, 20, 16), cache, need_weights=True)
        >>> slots = cache.keep(looked_at(cache, weights, last=4), 10)
        >>> slots[0, -4:]
        tensor([16, 17, 18, 19])
    """
    _, slots = _check_weights(cache, weights)
    last, pool = checks.integer("last", last, 1), checks.integer("pool", pool, 1)
    if not pool % 2:
        raise ValueError(f"pool must be odd; got {pool}")
    looks = weights.detach().sum(1)  # (B, T, N'), 0 at padding
    later = (looks.sum(-1) > 0).flip(1).cumsum(1).flip(1)  # a token is the last, last but one, ...
    looks = (looks * (later <= last).unsqueeze(-1)).sum(1)
    newest = _newest(cache, last)
    looks = F.pad(looks, (0, slots - looks.shape[-1])).masked_fill(newest, 0)
    looks = F.avg_pool1d(looks.unsqueeze(1), pool, stride=1, padding=pool // 2).squeeze(1)
    return looks.masked_fill(newest, math.inf)


def _newest(cache: KVCache, count: int) -> Tensor:
    """Return which slots have one of the newest tokens that a row has seen, (B, N)."""
    return cache.positions >= (cache.lengths - count).unsqueeze(-1)


def _check_cache(cache: object) -> None:
    if not isinstance(cache, KVCache):
        raise TypeError(f"cache must be a KVCache; got {type(cache).__name__}")


def _check_weights(cache: KVCache, weights: Tensor) -> tuple[int, int]:
    _check_cache(cache)
    batch, slots = cache.positions.shape
    checks.tensor("weights", weights)
    checks.shape("weights", weights, "(B, H, T, N)", B=batch)
    checks.together(**{"the cache": cache.keys, "weights": weights})
    tokens, columns = weights.shape[2:]
    if columns > slots or (cache.ring and 1 < tokens < columns):
        raise ValueError(f"weights must have a column a slot, at most {slots}; got {columns}")
    return batch, slots
