"""Whole models of the transformers package, decoding with our cache and with the package's own.

A step is one token for each row of a batch through all layers, with the mask that `generate`
hands on. The three caches hold the same random keys and values, and the static one has room for
256 tokens more, as `generate` gives it. `MemoryCache` takes what it takes by itself. All take
turns within a run, on float32 and one thread, none compiled; medians of CPU time are compared.
Parameters are random: they have no part in the time.
Needs the peer: ``pip install transformers``.
"""

import time
from functools import cache
from itertools import product
from statistics import geometric_mean, median
from typing import Any

import torch

try:
    import transformers
except ImportError:
    raise SystemExit("pretrained measures beside a peer; first: pip install transformers") from None

from memlib.integrations.transformers import MemoryCache

ROTARY = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4}
ROTARY |= {"num_attention_heads": 8, "num_key_value_heads": 2}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaForCausalLM", ROTARY),  # 4 query heads share a key/value head
    "GPT-2": ("GPT2LMHeadModel", {"n_embd": 768, "n_layer": 4, "n_head": 12, "n_positions": 9000}),
    "Mistral": ("MistralForCausalLM", ROTARY | {"sliding_window": 512}),  # reads the last 512
}
VOCAB = 1000
BATCHES = (1, 8)
LENGTHS = (1 << 10, 1 << 12, 1 << 13)
LIMIT = 1 << 30  # bytes of keys and values
NEW, STEPS = 256, 8  # room for so many tokens, and how many are decoded in a turn
WAYS = ("memlib", "dynamic", "static")


@cache
def model(name: str) -> Any:
    """Return a model with random parameters."""
    kind, sizes = MODELS[name]
    made = getattr(transformers, kind)
    ids = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
    return made(made.config_class(vocab_size=VOCAB, **sizes, **ids)).eval()


def filled(name: str, batch: int, tokens: int) -> dict[str, Any]:
    """Return the three caches, with the same tokens in them."""
    config = model(name).config
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    width = config.hidden_size // config.num_attention_heads
    caches = {
        "memlib": MemoryCache(model(name)),
        "dynamic": transformers.DynamicCache(config=config),
        "static": transformers.StaticCache(config=config, max_cache_len=tokens + NEW),
    }
    for layer in range(config.num_hidden_layers):
        keys, values = torch.randn(2, batch, heads, tokens, width)
        for one in caches.values():
            one.update(keys, values, layer)
    return caches


@torch.no_grad()
def timed(name: str, batch: int, tokens: int, budget: float) -> dict[str, Any]:
    """Decode from so many tokens on, all in turn; median milliseconds a step."""
    caches, seconds = filled(name, batch, tokens), {way: [] for way in WAYS}
    ids = torch.randint(2, VOCAB, (NEW, batch, 1))
    begin, step, results = time.perf_counter(), 0, {}
    while step < NEW and (step < 3 * STEPS or time.perf_counter() - begin < budget):
        for turn in range(len(WAYS)):
            way = WAYS[(turn + step // STEPS) % len(WAYS)]  # none is always the first
            for now in range(step, step + STEPS):
                given = {
                    "attention_mask": torch.ones(batch, tokens + now + 1, dtype=torch.long),
                    "position_ids": torch.full((batch, 1), tokens + now),
                    "cache": caches[way],
                }
                start = time.process_time()
                results[way] = model(name)(ids[now], **given).logits
                seconds[way].append(time.process_time() - start)
        for way in WAYS[1:]:
            torch.testing.assert_close(results[way], results["memlib"], rtol=0, atol=1e-4)
        step += STEPS
    return {
        "model": name,
        "batch": batch,
        "tokens": tokens,
        **{f"{way}_ms": round(1e3 * median(seconds[way]), 4) for way in WAYS},
        "steps": step,
    }


def run(budget: float = 20.0) -> dict[str, Any]:
    """Time every cell for about `budget` seconds."""
    torch.manual_seed(0)
    before, rows = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for name, batch, tokens in product(MODELS, BATCHES, LENGTHS):
            config = model(name).config
            heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
            width = config.hidden_size // config.num_attention_heads
            if 8 * config.num_hidden_layers * batch * heads * tokens * width <= LIMIT:
                rows.append(timed(name, batch, tokens, budget))
    finally:
        torch.set_num_threads(before)
    return {
        "transformers": transformers.__version__,
        "rows": rows,
        "faster": {peer: faster(rows, peer) for peer in WAYS[1:]},
    }


def faster(rows: list[dict[str, Any]], peer: str) -> dict[str, float]:
    """Return how many times the tokens a second of a peer `MemoryCache` gives."""
    ratios = [row[f"{peer}_ms"] / row["memlib_ms"] for row in rows]
    return {
        "mean": round(geometric_mean(ratios), 2),
        "worst": round(min(ratios), 2),
        "best": round(max(ratios), 2),
    }


def report(figures: dict[str, Any]) -> str:
    """Return the table, in tokens a second, and the summary."""
    lines = [f"tokens a second, beside transformers {figures['transformers']}:"]
    lines += ["".join(f"{name:>10}" for name in ("model", "batch", "tokens", *WAYS))]
    for row in figures["rows"]:
        rates = (round(1e3 * row["batch"] / row[f"{way}_ms"]) for way in WAYS)
        cells = (row["model"], row["batch"], row["tokens"], *rates)
        lines += ["".join(f"{cell:>10}" for cell in cells)]
    lines += ["times the tokens a second, geometric mean, worst and best:"]
    lines += [
        f"{r['mean']:>10}{r['worst']:>10}{r['best']:>10}  than {peer}"
        for peer, r in figures["faster"].items()
    ]
    return "\n".join(lines)
