"""Decoding with an eighth of the slots, beside a cache that keeps every token.

A step is one token for each row of a batch through a whole attention layer. A cache that forgets
has room for n = T / 8 tokens and n / 8 more; when these are taken it keeps n, which is timed with
the steps in between. The rules are timed with what they need:

- sinks: nothing but the cache;
- heavy hitters: the weights of every step, added up.

All start from T tokens and take turns within a run, on float32 and one thread; medians of CPU time
are compared. What is kept has no part in the time, so the keys are random.
"""

import time
from collections.abc import Callable
from itertools import product
from statistics import geometric_mean, median
from typing import Any

import torch
from torch import Tensor

from memlib import KVCache, MemoryAttention
from memlib.transformer import accumulate, forget, heavy_hitters, sinks

SIZES = {  # heads, key/value heads, width of a head
    "small": (8, 2, 64),
    "GPT-2": (12, 12, 64),
}
BATCHES = (1, 8)
LENGTHS = (1 << 10, 1 << 13, 1 << 15)
LIMIT = 1 << 28  # bytes of keys and values of the full cache
SHARE, ROOM = 8, 8  # an eighth of the tokens; an eighth of those more, until it forgets again
STEPS = 32  # at least so many in a run
WAYS = ("full", "sinks", "heavy hitters")


class Decoding:
    """A layer and its caches, one a way, which have all seen as many tokens."""

    def __init__(self, size: str, batch: int, tokens: int) -> None:
        heads, kv_heads, width = SIZES[size]
        self.layer = MemoryAttention(heads * width, heads, kv_heads)
        self.tokens, self.n = tokens, tokens // SHARE
        self.room = self.n // ROOM
        self.steps = self.room * -(-STEPS // self.room)
        self.full = self.filled(batch, tokens, self.steps)
        self.few = {way: self.filled(batch, self.n, self.room) for way in WAYS[1:]}
        self.total = torch.rand(batch, self.n)

    def filled(self, batch: int, kept: int, room: int) -> KVCache:
        """Return a cache that holds the last tokens of all."""
        cache = self.layer.cache(batch, kept + room)
        cache.extend(*torch.randn(2, batch, self.layer.kv_heads, kept, self.layer.head_width))
        cache.positions[:, :kept] += self.tokens - kept
        cache.lengths.fill_(self.tokens)
        return cache

    def run(self, way: str, x: Tensor) -> None:
        """Decode the inputs (B, T, D), token by token."""
        if way == "full":
            for new in x.split(1, dim=1):
                self.layer(new, self.full)
            return
        cache = self.few[way]
        for part in x.split(self.room, dim=1):
            for new in part.split(1, dim=1):
                if way == "sinks":
                    self.layer(new, cache)
                else:
                    _, _, weights = self.layer(new, cache, need_weights=True)
                    self.total = accumulate(cache, weights, self.total)
            if way == "sinks":
                forget(cache, self.n, sinks)
            else:
                (stay,) = forget(cache, self.n, heavy_hitters, [self.total])
                self.total = self.total.gather(1, stay)

    def bytes(self) -> dict[str, int]:
        """Return what each cache takes."""
        return {"full": self.full.nbytes} | {way: few.nbytes for way, few in self.few.items()}


@torch.no_grad()
def timed(size: str, batch: int, tokens: int, budget: float) -> dict[str, Any]:
    """Decode on from so many tokens, all in turn; median milliseconds a step."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    decoding, begin = Decoding(size, batch, tokens), time.perf_counter()
    x = torch.randn(batch, decoding.steps, decoding.layer.width)
    clock: Callable[[], float] = time.process_time
    while len(seconds["full"]) < 3 or time.perf_counter() - begin < budget:
        for way in WAYS:
            start = clock()
            decoding.run(way, x)
            seconds[way].append((clock() - start) / decoding.steps)
        decoding.full.crop(tokens)
    middle = {f"{way}_ms": round(1e3 * median(spent), 4) for way, spent in seconds.items()}
    return {
        "size": size,
        "batch": batch,
        "tokens": tokens,
        "kept": decoding.n,
        **middle,
        "bytes": decoding.bytes(),
        "runs": len(seconds["full"]),
    }


def run(budget: float = 4.0) -> dict[str, Any]:
    """Time every cell for about `budget` seconds."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for size, batch, tokens in product(SIZES, BATCHES, LENGTHS):
            _, kv_heads, width = SIZES[size]
            if 2 * 4 * batch * kv_heads * tokens * width <= LIMIT:
                rows.append(timed(size, batch, tokens, budget))
    finally:
        torch.set_num_threads(before)
    return {
        "rows": rows,
        "faster": {way: faster(rows, way) for way in WAYS[1:]},
        "bytes": round(median(r["bytes"]["sinks"] / r["bytes"]["full"] for r in rows), 3),
    }


def faster(rows: list[dict[str, Any]], way: str) -> dict[str, float]:
    """Return how many times the tokens a second of the full cache a way gives."""
    ratios = [row["full_ms"] / row[f"{way}_ms"] for row in rows]
    return {
        "mean": round(geometric_mean(ratios), 2),
        "worst": round(min(ratios), 2),
        "best": round(max(ratios), 2),
    }


def report(figures: dict[str, Any]) -> str:
    """Return the table, in tokens a second, and the summary."""
    heads = ("size", "batch", "tokens", "kept")
    lines = ["tokens a second, with every token and with an eighth of them:"]
    lines += ["".join(f"{name:>14}" for name in (*heads, *WAYS, "bytes"))]
    for row in figures["rows"]:
        rates = (round(1e3 * row["batch"] / row[f"{way}_ms"]) for way in WAYS)
        share = f"1 / {row['bytes']['full'] / row['bytes']['sinks']:.2f}"
        lines += ["".join(f"{cell:>14}" for cell in (*(row[h] for h in heads), *rates, share))]
    lines += ["times the tokens a second, geometric mean, worst and best:"]
    lines += [
        f"{r['mean']:>12}{r['worst']:>12}{r['best']:>12}  {w}" for w, r in figures["faster"].items()
    ]
    return "\n".join(lines)
