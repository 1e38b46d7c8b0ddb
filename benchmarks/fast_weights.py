"""A matrix as memory: by chunks, beside the formula token by token, and beside public code.

A run is forward and backward over T = 1,024 tokens of four heads, with the gradients of all that
is given. Token by token there are two: `memlib.fast_weights` with chunk 1, which is memlib's verbs,
and a plain loop, written as well as PyTorch allows. The public code is the chunked reference in
PyTorch of the flash-linear-attention project, with its own size of chunk, where it is installed
(``pip install --no-deps fla-core einops``); it is no kernel, and was not written for speed. All
run in turn on one thread, and medians of its CPU time are compared. Before, results are compared,
those of all other rules too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.ntm import timed
from memlib import matrix_memory
from tests.fast_weights import public

TOKENS, HEADS, WIDTH = 1024, 4, 64
BATCHES = (1, 8)
TIMED = ("delta", "general")
CHUNKS = (16, 32, 64)
SLOWER = ("steps", "loop", "public")
SAME = 1e-4  # of the largest number
Gates = dict[str, Tensor]


def loop(query: Tensor, keys: Tensor, values: Tensor, **gates: Tensor) -> tuple[Tensor, Tensor]:
    """Token by token: three products of matrices in one call each, nothing copied on the way."""
    rows, width = query.shape[:2], values.shape[-1]
    tokens = [query, keys.mT, gates["write"] * values, gates["erase"] * keys]
    q, k, v, b = (x.flatten(0, 1) for x in tokens)
    state = q.new_zeros(len(q), q.shape[-1], width)
    decays = [None] * q.shape[1]
    if "decay" in gates:
        decays = gates["decay"].expand(keys.shape).flatten(0, 1).mT.split(1, 2)
    reads = []
    parts = (q.split(1, 1), k.split(1, 2), v.split(1, 1), b.split(1, 1), decays)
    for q, k, v, b, d in zip(*parts, strict=True):
        state = state if d is None else d * state
        state = torch.baddbmm(state, k, torch.baddbmm(v, b, state, alpha=-1))
        reads.append(torch.bmm(q, state))
    return torch.cat(reads, 1).unflatten(0, rows), state.unflatten(0, rows)


def once(way: Callable[..., tuple[Tensor, Tensor]], tokens: list[Tensor], gates: Gates) -> None:
    """Forward and backward."""
    reads, state = way(*tokens, **gates)
    given = [*tokens, *{id(gate): gate for gate in gates.values()}.values()]
    torch.autograd.grad(reads.square().mean() + state.square().mean(), given)


def compare(rule: str, budget: float) -> list[dict[str, Any]]:
    """Return milliseconds of every way, for each batch, and how many times faster chunks are."""
    rows = []
    for batch in BATCHES:
        tokens, gates = public.drawn(rule, (batch, HEADS, TOKENS), WIDTH)
        ways = {f"chunk {c}": partial(matrix_memory, chunk=c) for c in CHUNKS}
        ways |= {"steps": partial(matrix_memory, chunk=1), "loop": loop}
        if public.version():
            ways["public"] = next(way for name, way in public.ways(rule) if "chunk" in name)
        for way in ways.values():
            assert farthest(way(*tokens, **gates), loop(*tokens, **gates)) < SAME
        for x in (*tokens, *gates.values()):
            x.requires_grad_()
        runs = {name: partial(once, way, tokens, gates) for name, way in ways.items()}
        row = {"rule": rule, "batch": batch} | timed(runs, budget)
        ours = row["chunk 16_ms"]  # the default
        faster = {f"than {n}": round(row[f"{n}_ms"] / ours, 1) for n in SLOWER if n in ways}
        rows.append(row | faster)
    return rows


def farthest(ones: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]) -> float:
    """Return the largest difference of reads and states, relative to the largest number."""
    pairs = zip(ones, others, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def parity() -> dict[str, dict[str, float]]:
    """Return how far each public function is from ours, by chunks and token by token."""
    apart: dict[str, dict[str, float]] = {}
    for rule in public.RULES:
        tokens, gates = public.drawn(rule, (2, 3, 128), 16)
        ours = [matrix_memory(*tokens, **gates, chunk=chunk) for chunk in (1, 16)]
        apart[rule] = {
            name: float(f"{max(farthest(x, theirs(*tokens, **gates)) for x in ours):.1e}")
            for name, theirs in public.ways(rule)
        }
    return apart


def run(budget: float = 20.0) -> dict[str, Any]:
    """Time each rule at each batch for about `budget` seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figures = {
            "threads": 1,
            "shape": {"tokens": TOKENS, "heads": HEADS, "width": WIDTH},
            "rows": [row for rule in TIMED for row in compare(rule, budget)],
            "public": {"fla-core": public.version()},
        }
        if public.version():
            figures["public"]["apart"] = parity()
        return figures
    finally:
        torch.set_num_threads(threads)


def report(figures: dict[str, Any]) -> str:
    """Return the tables, in milliseconds."""
    ways = (*(f"chunk {c}" for c in CHUNKS), *SLOWER)
    lines = ["forward + backward, ms, and how many times faster chunks of 16 are:"]
    names = ("rule", "batch", *ways, *(f"than {n}" for n in SLOWER))
    lines += ["".join(f"{name:>12}" for name in names)]
    for row in figures["rows"]:
        cells = (row["rule"], row["batch"], *(row.get(f"{way}_ms", "") for way in ways))
        cells += tuple(row.get(f"than {n}", "") for n in SLOWER)
        lines += ["".join(f"{cell:>12}" for cell in cells)]
    lines += [f"largest relative difference from fla-core {figures['public']['fla-core']}:"]
    for rule, each in figures["public"].get("apart", {}).items():
        lines += [f"  {rule}: {name} {off:.1e}" for name, off in each.items()]
    return "\n".join(lines)
