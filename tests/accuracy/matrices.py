"""A matrix as memory, written while it is read, and a network, learned while it is read."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import memlib
from memlib.fast_weights.gates import GATES as GATES_OF

from . import draws
from .draws import Random, Tensors
from .machines import dtype_of, own, parameters, run_module, told
from .table import Options, subject
from .truth import Truth

LENGTHS = (1, 2, 5, 16, 17, 40)
GATES = ("write", "erase", "decay")


def vanishing(rng: Random, shape: tuple[int, ...], dtype: str) -> Tensor:
    """Decays: near 1, anywhere, down to the smallest number, and 0."""
    powers = rng.choice((0.01, 0.3, 3, 30), size=shape) * rng.random(shape)
    return draws.fit(10.0**-powers * (rng.random(shape) > 0.02), dtype).clamp(0, 1)


@subject("matrix_memory", {}, constant=frozenset({"mask"}))
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
        return memlib.matrix_memory(*(t[n] for n in names), **options, **o)

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


def layer_sizes(rng: Random) -> Options:
    heads = int(rng.choice((1, 2, 4)))
    sizes = {name: int(rng.choice((1, 3, 16))) for name in ("key_width", "value_width")}
    return {"width": heads * int(rng.choice((2, 8))), "heads": heads, **sizes}


def inputs(rng: Random, dtype: str, rows: int, width: int) -> Tensor:
    shape = (rows, int(rng.choice((1, 2, 5, 16, 17))), width)
    return draws.fit(rng.standard_normal(shape) * draws.power(rng, dtype, 1), dtype)


def projected(p: Tensors, x: Tensor, name: str, heads: int) -> Tensor:
    """(B, T, D) -> (T, B, H, 1, ·)."""
    y = x @ p[f"{name}.weight"].mT + p.get(f"{name}.bias", torch.zeros((), dtype=x.dtype))
    return y.unflatten(-1, (heads, 1, -1)).movedim(1, 0)


def merged(p: Tensors, reads: list[Tensor]) -> Tensor:
    read = torch.stack(reads, 1).squeeze(3)  # (B, T, H, V)
    normed = read / (read.square().mean(-1, keepdim=True) + 1e-5).sqrt() * p["norm.weight"]
    return normed.flatten(2) @ p["output.weight"].mT


@subject("FastWeights.forward", {})
class _FastWeightsLayer:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        make = layer_sizes(rng) | {"rule": str(rng.choice([*GATES_OF]))}
        t = parameters(rng, memlib.FastWeights(**make), dtype, float(rng.choice((0.3, 1, 3))))
        t["x"] = inputs(rng, dtype, size["B"], make["width"])
        return t, {"make": make}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        net = memlib.FastWeights(**o["make"], dtype=dtype_of(t))
        return (run_module(net, t, t["x"])[0],)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        def run(t: Tensors) -> list[Tensor]:
            p, x, rule, heads = own(t), t["x"], o["make"]["rule"], o["make"]["heads"]
            q, k, v = (projected(p, x, name, heads) for name in ("query", "key", "value"))
            gates = {gate: projected(p, x, f"gates.{gate}", heads) for gate in GATES_OF[rule]}
            if rule == "linear":
                q, k = (
                    torch.where(z > 0, z + 1, z.exp()) for z in (p["scale"] * q, p["scale"] * k)
                )
                v = F.pad(v, (0, 1), value=1.0)
            else:
                q, k = (z / z.norm(dim=-1, keepdim=True) for z in (q, k))
            b, w, d = torch.zeros_like(k), torch.ones_like(v), torch.ones_like(k)
            if "rate" in gates:
                b, w = b + gates["rate"].sigmoid(), w * gates["rate"].sigmoid()
            if rule == "general":
                b, w = gates["erase"].sigmoid(), gates["write"].sigmoid()
            if "decay" in gates:
                d = d * (-p["gates.speed"].exp() * F.softplus(gates["decay"])).exp()
            state, reads = torch.zeros(v.shape[-1], dtype=x.dtype), []
            for i in range(len(q)):
                kept = d[i].mT * state
                state = kept + k[i].mT @ (w[i] * v[i] - (b[i] * k[i]) @ kept)
                read = q[i] @ state
                reads.append(read[..., :-1] / read[..., -1:] if rule == "linear" else read)
            return [merged(p, reads)]

        return told(run, t, o)


@subject("NeuralMemory.forward", {})
class _NeuralMemory:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        make = layer_sizes(rng) | {"hidden": int(rng.choice((0, 4, 32)))}
        make |= {"chunk": int(rng.choice((1, 4, 16))), "rate": float(rng.choice((0.5, 1)))}
        t = parameters(rng, memlib.NeuralMemory(**make), dtype, float(rng.choice((0.3, 1, 3))))
        t["x"] = inputs(rng, dtype, size["B"], make["width"])
        return t, {"make": make}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        net = memlib.NeuralMemory(**o["make"], dtype=dtype_of(t))
        return (run_module(net, t, t["x"])[0],)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        def network(x: Tensor, W: list[Tensor]) -> tuple[Tensor, Tensor]:
            if len(W) == 1:
                return x, x @ W[0]
            z = x @ W[0]
            units = z * z.sigmoid() / z.shape[-1] ** 0.5
            return units, units @ W[1]

        def run(t: Tensors) -> list[Tensor]:
            p, make, x = own(t), o["make"], t["x"]
            q, k, v = (projected(p, x, n, make["heads"]) for n in ("query", "key", "value"))
            q, k = (z / z.norm(dim=-1, keepdim=True) for z in (q, k))
            gates = projected(p, x, "gates", make["heads"]).sigmoid()
            W = [p[name] for name in ("first", "second") if name in p]
            base, S, reads = W, [torch.zeros_like(w) for w in W], []
            for i in range(len(q)):
                base = W if i % make["chunk"] == 0 else base
                units, found = network(k[i], base)
                error = found - v[i]
                slopes = [units.mT @ error]
                if len(W) == 2:
                    z = k[i] @ base[0]
                    slope = z.sigmoid() * (1 + z * (1 - z.sigmoid())) / z.shape[-1] ** 0.5
                    slopes.insert(0, k[i].mT @ (slope * (error @ base[1].mT)))
                rate, momentum, forget = gates[i].split(1, dim=-1)
                rate = rate * make["rate"] / make["chunk"]
                S = [momentum * s - rate * g for s, g in zip(S, slopes, strict=True)]
                W = [(1 - forget) * w + s for w, s in zip(W, S, strict=True)]
                reads.append(network(q[i], W)[1])
            return [merged(p, reads)]

        return told(run, t, o)
