"""What the cache of a published model takes: counted from caches of its shape, one a layer.

The shapes are facts with their sources, in ``results/published_cache.json``. The caches are made
on the device ``meta``, where they have sizes and no numbers.
"""

import argparse
import json
from collections.abc import Mapping
from typing import Any

import torch

from experiments import records
from memlib import KVCache


def published() -> list[dict[str, Any]]:
    """Return the shapes of the models, oldest first."""
    models: list[dict[str, Any]] = json.loads(
        (records.RESULTS / "published_cache.json").read_text()
    )["models"]
    return models


def cache_bytes(
    model: Mapping[str, Any], tokens: int, dtype: torch.dtype = torch.bfloat16, batch_size: int = 1
) -> int:
    """Return the bytes of all keys and values after so many tokens.

    Example:
        >>> gpt2 = next(model for model in published() if model["name"] == "GPT-2")
        >>> cache_bytes(gpt2, tokens=1) == 12 * 12 * (64 + 64) * 2  # layers, heads, widths, bytes
        True
    """
    windowed = model["windowed_layers"]
    layers = [min(tokens, model["window"])] * windowed if windowed else []
    layers += [tokens] * (model["layers"] - windowed)
    caches = (
        KVCache(
            batch_size,
            model["kv_heads"],
            slots,
            model["key_width"],
            value_width=model["value_width"],
            device="meta",
            dtype=dtype,
        )
        for slots in layers
    )
    return sum(cache.keys.nbytes + cache.values.nbytes for cache in caches)


def main(arguments: list[str]) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m experiments cache_bytes", description=__doc__)
    parser.add_argument("--tokens", type=int, help="of a text, where it is not the longest")
    options = parser.parse_args(arguments)
    print(f"{'model':16}{'bytes a token':>14}{'tokens':>9}{'GiB':>8}")
    for model in published():
        tokens = options.tokens or model["context"]
        whole = cache_bytes(model, tokens) / 2**30
        print(f"{model['name']:16}{cache_bytes(model, 1):14,}{tokens:9,}{whole:8.2f}")
