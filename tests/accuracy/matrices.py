"""A matrix as memory, written while it is read."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import memlib

from . import draws
from .draws import Random, Tensors
from .machines import told
from .table import Options, subject
from .truth import Truth

LENGTHS = (1, 2, 5, 16, 17, 40)
GATES = ("write", "erase", "decay")


def vanishing(rng: Random, shape: tuple[int, ...], dtype: str) -> Tensor:
    """Decays: near 1, anywhere, down to the smallest number, and 0."""
    powers = rng.choice((0.01, 0.3, 3, 30), size=shape) * rng.random(shape)
    return draws.fit(10.0**-powers * (rng.random(shape) > 0.02), dtype).clamp(0, 1)


@subject("fast_weights", {}, constant=frozenset({"mask"}))
class _FastWeights:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        rows = size["B"], size["H"], int(rng.choice(LENGTHS))
        width, value_width = (int(rng.choice((1, 3, 16))) for _ in range(2))
        keys, values = (*rows, width), (*rows, value_width)
        t = {n: draws.fit(rng.standard_normal(keys), dtype) for n in ("query", "keys")}
        length = t["keys"].double().norm(dim=-1, keepdim=True)
        t["keys"] = draws.fit(t["keys"].double() / length, dtype)
        t["query"] = draws.fit(t["query"].double() * draws.power(rng, dtype, 10), dtype)
        t["values"] = draws.values(rng, values, dtype)
        t["state"] = draws.values(rng, (*rows[:2], width, value_width), dtype)
        shapes = {"write": values, "erase": keys, "decay": keys}
        for name in GATES:
            if rng.random() < 0.7:
                whole = shapes[name] if rng.random() < 0.5 else (*rows, 1)
                make = vanishing if name == "decay" else draws.gates
                t[name] = make(rng, whole, dtype)
        if rng.random() < 0.3:
            t["mask"] = torch.from_numpy(rng.random((rows[0], rows[2])) < 0.7)
        return t, {"chunk": int(rng.choice((1, 2, 16, 16, 64)))}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        options = {n: x for n, x in t.items() if n in (*GATES, "mask")}
        names = ("query", "keys", "values", "state")
        return memlib.fast_weights(*(t[n] for n in names), **options, **o)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        def run(t: Tensors) -> list[Tensor]:
            q, k, v, state = (t[n] for n in ("query", "keys", "values", "state"))
            w, b, d = (
                t.get(n, torch.tensor(x)).double() for n, x in zip(GATES, (1, 0, 1), strict=True)
            )
            w, b, d = w.expand(v.shape), b.expand(k.shape), d.expand(k.shape)
            mask = t.get("mask", torch.ones(q.shape[0], q.shape[2], dtype=torch.bool))
            reads = []
            for i in range(q.shape[2]):
                there = mask[:, None, i, None, None]
                key, decay = k[:, :, i].unsqueeze(-1), d[:, :, i].unsqueeze(-1)
                kept = decay * state
                found = ((b[:, :, i].unsqueeze(-1) * key) * kept).sum(-2, True)
                after = kept + key * ((w * v)[:, :, i].unsqueeze(-2) - found)
                state = torch.where(there, after, state)
                held.append(float(state.detach().abs().max()))
                read = (q[:, :, i].unsqueeze(-1) * state).sum(-2)
                reads.append(torch.where(there[..., 0], read, 0))
            return [torch.stack(reads, 2), state]

        held = [float(t["state"].detach().abs().max())]
        found = told(run, t, o)
        # a chunk subtracts what it erases from the matrix before: its roundings stay
        longest = float(t["query"].detach().abs().sum(-1).max())
        for result, size in zip(found.results, (longest * max(held), max(held)), strict=True):
            old = result.size
            result.size = old.clamp_min(size)
            result.reach = result.reach * old / result.size
        return found
