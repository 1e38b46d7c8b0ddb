"""The readable references of the flash-linear-attention project, where they are installed.

``pip install --no-deps fla-core einops`` (MIT license). The package imports a compiler for GPUs,
so its files of plain PyTorch are loaded one by one, by their paths. They scale queries by
M^-1/2, take decays as logarithms, most take time before heads, and all compute in float32.
"""

import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# of each rule the folder of its file, and the gates that it takes; in capitals one a channel
RULES = {
    "sum": ("linear_attn", ""),
    "decayed sum": ("simple_gla", "g"),
    "sum with decays a channel": ("gla", "GK"),
    "delta": ("delta_rule", "beta"),
    "gated delta": ("gated_delta_rule", "beta g"),
    "KDA": ("kda", "beta G"),
    "general": ("gdn2", "G B W"),
}
OURS = {"g": "decay", "gk": "decay", "beta": "write", "w": "write", "b": "erase"}
WITHOUT_STATE = "naive_chunk_linear_attn"
Way = Callable[..., tuple[Tensor, Tensor]]


def version() -> str | None:
    """The version of the package, or None where it can't be used."""
    found = all(importlib.util.find_spec(name) for name in ("fla", "einops"))
    return metadata.version("fla-core") if found else None


def ways(rule: str) -> Iterator[tuple[str, Way]]:
    """Its functions of a rule, step by step and by chunks, called as `memlib.matrix_memory`."""
    package = importlib.util.find_spec("fla")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "ops" / RULES[rule][0] / "naive.py"
    spec = importlib.util.spec_from_file_location(f"naive_{RULES[rule][0]}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, function in vars(module).items():
        if re.search("recurren|chunk", name) and name != WITHOUT_STATE:
            yield name, _called(function, RULES[rule][1])


def _called(function: Callable[..., Any], takes: str) -> Way:
    accepted = inspect.signature(function).parameters
    heads_first = function.__name__.startswith("delta_rule")

    def turned(x: Tensor) -> Tensor:
        return x if heads_first else x.transpose(1, 2)

    def call(query: Tensor, keys: Tensor, values: Tensor, **gates: Tensor) -> tuple[Tensor, Tensor]:
        given: dict[str, Any] = {}
        for name in takes.split():
            gate = turned(gates[OURS[name.lower()]])
            gate = gate.log() if name.lower().startswith("g") else gate
            given[name.lower()] = gate if name.isupper() else gate.squeeze(-1)
        if "output_final_state" in accepted:
            given["output_final_state"] = True
        scaled = query * query.shape[-1] ** 0.5
        reads, state = function(*map(turned, (scaled, keys, values)), **given)
        return turned(reads), state

    return call


def drawn(
    rule: str, shape: tuple[int, int, int], width: int
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Queries, unit keys and values (B, H, T, M), and the gates of a rule."""
    random = torch.Generator().manual_seed(0)
    query, keys, values = (torch.randn(*shape, width, generator=random) for _ in range(3))
    gates = {}
    for name in RULES[rule][1].split():
        gate = torch.rand(*shape, width if name.isupper() else 1, generator=random)
        gates[OURS[name.lower()]] = 0.9 + gate / 10 if name.lower().startswith("g") else gate
        if name == "beta":
            gates["erase"] = gate
    return [query, keys / keys.norm(dim=-1, keepdim=True), values], gates
