"""Decoding with `KVCache`, beside the caches of the transformers package.

A step is one token for each row of a batch. Three parts are timed:

- write: the cache takes the token's key and value, and says what may be read;
- cache: the same, and the read of all tokens so far by one call of PyTorch's
  scaled_dot_product_attention, the same call for all;
- layer: a whole attention layer, ours beside Llama's with the same weights.

What a step needs once for all layers of a model is not counted, and recorded as ``prepare_ms``:
the rotary angles, ours and theirs, and their mask over a static cache. A static cache reads all
its slots, so that its time depends on how many it was given: in the first table as many as
`generate` gives it to decode 256 tokens, of which those in the middle are timed; in the second
from just enough to 32 times as many. All take turns within a run, on float32, and medians are
compared: of CPU time on one thread, of the time on the clock on more.
Needs the peer: ``pip install transformers``.
"""

import time
from collections.abc import Callable
from functools import cache
from itertools import product
from statistics import geometric_mean, median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib import MemoryAttention

try:
    import transformers
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding
except ImportError:
    raise SystemExit("decode measures beside a peer; first: pip install transformers") from None

SIZES = {  # heads, key/value heads, width of a head
    "small": (8, 2, 64),
    "GPT-2": (12, 12, 64),
    "Llama 3 8B": (32, 8, 128),
}
BATCHES = (1, 8)
LENGTHS = (1 << 10, 1 << 13, 1 << 15)
LIMIT = 1 << 28  # bytes of keys and values
STEPS, WARM = 32, 3  # tokens from each length on, the first of them not counted
NEW = 256  # tokens for which there is room in all
WAYS = ("memlib", "dynamic", "static")
Way = Callable[[], Tensor]


@cache
def layers(size: str) -> tuple[MemoryAttention, Any, Any]:
    """Return an attention layer of ours, one of Llama's with the same weights, and its angles."""
    heads, kv_heads, width = SIZES[size]
    layer = MemoryAttention(heads * width, heads, kv_heads)
    config = transformers.LlamaConfig(
        hidden_size=heads * width,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        num_hidden_layers=1,
        attn_implementation="sdpa",
    )
    with torch.device("meta"):  # its own weights are not needed
        peer = LlamaAttention(config, 0).eval()
    for name in ("query", "key", "value", "output"):
        getattr(peer, f"{name[0]}_proj").weight = getattr(layer, name).weight
    return layer, peer, LlamaRotaryEmbedding(config)


class Decoding:
    """The layers, each with its caches, all with the same tokens in them."""

    def __init__(self, size: str, batch: int, length: int, slots: int) -> None:
        self.layer, self.peer, self.angles = layers(size)
        self.ours = self.layer.cache(batch, slots)
        self.dynamic = transformers.DynamicCache(config=self.peer.config)
        self.static = transformers.StaticCache(config=self.peer.config, max_cache_len=slots)
        keys, values = torch.randn(2, batch, self.layer.kv_heads, length, self.layer.head_width)
        self.ours.extend(keys, values)
        self.dynamic.update(keys, values, 0)
        self.static.update(keys, values, 0)
        self.places = [buffer.data_ptr() for buffer in self.ours.buffers()]

    def prepare(self) -> tuple[Any, Tensor]:
        """Return the next token's rotary angles, and which slots of a static cache it reads."""
        self.layer._marks(self.ours._next(1), self.ours)  # kept for the layers of this step
        position = self.ours.lengths[:1]
        readable = torch.arange(self.ours.slots).expand(1, 1, 1, -1) <= position
        return self.angles(self.ours.keys, position.unsqueeze(0)), readable

    def step(self, part: str, angles: Any, readable: Tensor) -> dict[str, Way]:
        """Return how each takes the next token, the same for all."""
        batch, kv_heads, _, width = self.ours.keys.shape
        if part == "layer":
            x = torch.randn(batch, 1, self.layer.width)
            return {
                "memlib": lambda: self.layer(x, self.ours)[0],
                "dynamic": lambda: self.peer(x, angles, None, self.dynamic)[0],
                "static": lambda: self.peer(x, angles, readable, self.static)[0],
            }
        # the query heads of one key/value head are so many queries
        query = torch.randn(batch, kv_heads, self.layer.heads // kv_heads, width)
        key, value = torch.randn(2, batch, kv_heads, 1, width)
        write = dict(zip(WAYS, (self.ours.extend, *self.kept("update")), strict=True))
        if part == "write":
            return {name: lambda w=w: w(key, value)[0] for name, w in write.items()}

        def read(name: str, mask: Tensor | None) -> Tensor:
            keys, values, *_ = write[name](key, value)
            return F.scaled_dot_product_attention(query, keys, values, mask)

        masks = {"memlib": None, "dynamic": None, "static": readable}
        return {name: lambda n=name, m=mask: read(n, m) for name, mask in masks.items()}

    def kept(self, name: str) -> list[Any]:
        """Return an attribute of what each of the peers' caches keeps for the layer."""
        return [getattr(cache.layers[0], name) for cache in (self.dynamic, self.static)]

    def bytes(self) -> dict[str, int]:
        """Return what each cache takes; ours what it was given at first, and where it was."""
        ours = list(self.ours.buffers())
        assert [buffer.data_ptr() for buffer in ours] == self.places
        assert sum(buffer.untyped_storage().nbytes() for buffer in ours) == self.ours.nbytes
        batch, kv_heads, slots, width = self.ours.keys.shape
        numbers = 2 * batch * kv_heads * slots * width
        assert self.ours.nbytes == 4 * numbers + 8 * batch * (slots + 1)  # positions, lengths
        pairs = zip(self.kept("keys"), self.kept("values"), strict=True)
        peers = (keys.nbytes + values.nbytes for keys, values in pairs)
        return dict(zip(WAYS, (self.ours.nbytes, *peers), strict=True))


@torch.no_grad()
def timed(
    part: str, size: str, batch: int, length: int, slots: int, budget: float
) -> dict[str, Any]:
    """Decode from `length` tokens on, all in turn; median milliseconds a step."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in (*WAYS, "prepare")}
    begin = time.perf_counter()
    decoding = None
    while decoding is None or time.perf_counter() - begin < budget:
        decoding = None  # makes room
        decoding = Decoding(size, batch, length, slots)
        for step in range(STEPS):
            start = clock()
            prepared = decoding.prepare()
            seconds["prepare"].append(clock() - start)
            ways, results = decoding.step(part, *prepared), {}
            for name in WAYS[step % 3 :] + WAYS[: step % 3]:  # none is always the first
                start = clock()
                results[name] = ways[name]()
                stop = clock()
                if step >= WARM:
                    seconds[name].append(stop - start)
            for name in WAYS[1:] if part != "write" else ():
                torch.testing.assert_close(results[name], results["memlib"], rtol=0, atol=1e-5)
    middle = {f"{name}_ms": round(1e3 * median(s), 4) for name, s in seconds.items()}
    return {
        "part": part,
        "size": size,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "tokens": length,
        "slots": slots,
        **middle,
        "bytes": decoding.bytes(),
        "runs": len(seconds["memlib"]),
    }


def run(budget: float = 3.0) -> dict[str, Any]:
    """Time every cell for about `budget` seconds, then one size at several fill levels."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    rows, fills = [], []
    try:
        for threads, part in product((1, 2), ("cache", "layer")):
            torch.set_num_threads(threads)
            for size, batch, length in product(SIZES, BATCHES, LENGTHS):
                _, kv_heads, width = SIZES[size]
                if 2 * 4 * batch * kv_heads * length * width <= LIMIT:
                    rows.append(timed(part, size, batch, length, length + NEW // 2, budget))
        torch.set_num_threads(1)
        for part, slots, length in product(("write", "cache"), LENGTHS, LENGTHS):
            if length <= slots:
                fills.append(timed(part, "GPT-2", 1, length, slots + STEPS, budget))
    finally:
        torch.set_num_threads(before)
    alone, whole = ([row for row in rows if row["part"] == part] for part in ("cache", "layer"))
    full = [r for r in fills if r["part"] == "cache" and r["slots"] == r["tokens"] + STEPS]
    return {
        "transformers": transformers.__version__,
        "sizes": {size: dict(zip(("heads", "kv_heads", "head_width"), numbers, strict=True))
                  for size, numbers in SIZES.items()},
        "rows": rows,
        "fills": fills,
        "faster": {
            "cache than dynamic": faster(alone, "dynamic"),
            "cache than static": faster(alone, "static"),
            "cache than both": faster(alone, "dynamic", "static"),
            "cache than a static one without a slot to spare": faster(full, "static"),
            "layer than dynamic": faster(whole, "dynamic"),
            "layer than static": faster(whole, "static"),
            "layer than both": faster(whole, "dynamic", "static"),
        },
    }  # fmt: skip


def faster(rows: list[dict[str, Any]], *peers: str) -> dict[str, float]:
    """Return how many times the tokens a second of these peers `KVCache` gives."""
    ratios = [row[f"{peer}_ms"] / row["memlib_ms"] for row in rows for peer in peers]
    return {"mean": round(geometric_mean(ratios), 2), "worst": round(min(ratios), 2)}


def report(figures: dict[str, Any]) -> str:
    """Return the tables, in tokens a second and in microseconds, and the summary."""
    heads = ("part", "size", "batch", "threads", "tokens")
    lines = [f"tokens a second, beside transformers {figures['transformers']}:"]
    lines += ["".join(f"{name:>12}" for name in (*heads, *WAYS))]
    for row in figures["rows"]:
        rates = (round(1e3 * row["batch"] / row[f"{name}_ms"]) for name in WAYS)
        lines += ["".join(f"{cell:>12}" for cell in (*(row[name] for name in heads), *rates))]
    lines += ["µs a token at several fill levels (GPT-2, one row, one thread):"]
    lines += ["".join(f"{name:>12}" for name in ("part", "slots", "tokens", *WAYS))]
    for row in figures["fills"]:
        times = (round(1e3 * row[f"{name}_ms"]) for name in WAYS)
        cells = (row["part"], row["slots"], row["tokens"], *times)
        lines += ["".join(f"{cell:>12}" for cell in cells)]
    lines += ["times the tokens a second, geometric mean and worst:"]
    lines += [f"{r['mean']:>12}{r['worst']:>12}  {name}" for name, r in figures["faster"].items()]
    return "\n".join(lines)
