"""The Transformer's layers, with their past as one text, in a cache, and in a store."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import memlib

from . import draws, truth
from .draws import Random, Tensors
from .machines import GAINS, dtype_of, own, parameters, run_module, told
from .table import Options, subject
from .truth import Truth


def rotated(x: Tensor, first: int, base: float = 10000.0) -> Tensor:
    """Numbers i and i + M/2 of token t turned by t base^(-2i/M): (B, H, T, M)."""
    half = x.shape[-1] // 2
    rates = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = (first + torch.arange(x.shape[-2], dtype=torch.float64)).unsqueeze(-1) * rates
    a, b = x[..., :half], x[..., half:]
    turned = (a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin())
    return torch.cat(turned, -1)


def split(x: Tensor, weight: Tensor, width: int) -> Tensor:
    return (x @ weight.mT).unflatten(-1, (-1, width)).transpose(1, 2)  # (B, heads, T, M)


def attention(p: Tensors, x: Tensor, make: Options, past: Tensor | None = None, first: int = 0,
              prefix: str = "") -> tuple[Tensor, float]:  # fmt: skip
    """Causal attention over the tokens, after those of a past segment: heads, largest score."""
    width = make["width"] // make["heads"]
    both = x if past is None else torch.cat((past, x), 1)
    old = both.shape[1] - x.shape[1]
    if (table := p.get(f"{prefix}table")) is not None:
        marked = both + table[first : first + both.shape[1]]
    else:
        marked = both
    query = split(marked[:, old:], p[f"{prefix}query.weight"], width)
    keys = split(marked, p[f"{prefix}key.weight"], width)
    values = split(both, p[f"{prefix}value.weight"], width)
    if make.get("positions", "rotary") == "rotary":
        query, keys = rotated(query, first + old), rotated(keys, first)
    shared = query.shape[1] // keys.shape[1]
    keys, values = (z.repeat_interleave(shared, 1) for z in (keys, values))
    at, there = torch.arange(old, both.shape[1]).unsqueeze(-1), torch.arange(both.shape[1])
    mask = there <= at
    if make.get("window") is not None:
        mask = mask & (there > at - make["window"])
    scores = query @ keys.mT / math.sqrt(width)
    return truth.softmax(scores, mask) @ values, float(scores.detach().abs().max())


def joined(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)


def layer_options(rng: Random, positions: Sequence[str]) -> Options:
    heads = int(rng.choice((1, 2, 4)))
    make: Options = {"width": heads * int(rng.choice((2, 8))), "heads": heads}
    make["kv_heads"] = int(rng.choice([g for g in (1, 2, 4) if heads % g == 0]))
    make["positions"] = str(rng.choice(positions))
    make["window"] = None if rng.random() < 0.6 else int(rng.integers(1, 6))
    return make


@subject("MemoryAttention.forward", {})
class _MemoryAttention:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        make = layer_options(rng, ("rotary", "learned", "none")) | {"length": 20}
        t = parameters(rng, memlib.MemoryAttention(**make), dtype, float(rng.choice(GAINS)))
        shape = (size["B"], int(rng.integers(1, 12)), make["width"])
        t["x"] = draws.fit(rng.standard_normal(shape) * draws.power(rng, dtype, 3), dtype)
        seen = int(rng.choice((0, 0, 5000, 10**6))) if make["positions"] != "learned" else 0
        if rng.random() < 0.4:  # after a segment that ends at a far position
            past = rng.standard_normal((size["B"], 4, make["width"]))
            t["past"] = draws.fit(past, dtype)
            return t, {"make": make, "seen": max(seen, 4)}
        return t, {"make": make}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        net, x = memlib.MemoryAttention(**o["make"], dtype=dtype_of(t)), t["x"]
        if "seen" in o:
            seen = torch.full((len(x),), o["seen"])
            return (run_module(net, t, x, memlib.SegmentMemory(t["past"], seen))[0],)
        whole = run_module(net, t, x)[0]
        cache, cut = net.cache(len(x), x.shape[1]), x.shape[1] // 2
        with torch.no_grad():
            parts = [run_module(net, t, x[:, :cut], cache)[0]] if cut else []
            parts += [run_module(net, t, x[:, i : i + 1], cache)[0] for i in range(cut, x.shape[1])]
        return whole, torch.cat(parts, 1)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        def run(t: Tensors) -> list[Tensor]:
            first = o["seen"] - t["past"].shape[1] if "seen" in o else 0
            heads, score = attention(own(t), t["x"], o["make"], t.get("past"), first)
            largest.append(score)
            y = joined(heads) @ t["p.output.weight"].mT
            return [y] if "seen" in o else [y, y]

        largest: list[float] = []
        return told(run, t, o, largest)


def activated(scores: Tensor, kind: str) -> Tensor:
    if kind == "softmax":
        return scores.softmax(-1)
    return scores.clamp_min(0) if kind == "relu" else scores * (1 + (scores / 2**0.5).erf()) / 2


@subject("FeedForward.forward", {})
class _FeedForward:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        make = {"width": int(rng.choice((1, 8, 64))), "slots": int(rng.choice((1, 5, 100)))}
        make |= {"activation": str(rng.choice(("relu", "gelu", "softmax")))}
        t = parameters(rng, memlib.FeedForward(**make), dtype, float(rng.choice(GAINS)))
        x = rng.standard_normal((2, 3, make["width"])) * draws.power(
            rng, dtype, 1 if dtype == "float16" else 10
        )
        return t | {"x": draws.fit(x, dtype)}, {"make": make}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        return (run_module(memlib.FeedForward(**o["make"], dtype=dtype_of(t)), t, t["x"]),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        def run(t: Tensors) -> list[Tensor]:
            scores = t["x"] @ t["p.keys"].mT
            return [activated(scores, o["make"]["activation"]) @ t["p.values"]]

        return told(run, t, o)


def normed(p: Tensors, x: Tensor, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])


@subject("Decoder.forward", {})
class _Decoder:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        make = layer_options(rng, ("rotary", "none")) | {"vocab_size": 7, "layers": 2}
        t = parameters(rng, memlib.Decoder(**make), dtype, float(rng.choice(GAINS[:4])))
        t["tokens"] = torch.from_numpy(rng.integers(7, size=(2, int(rng.integers(1, 9)))))
        return t, {"make": make}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        net, tokens = memlib.Decoder(**o["make"], dtype=dtype_of(t)), t["tokens"]
        whole = run_module(net, t, tokens)[0]
        cache = net.cache(len(tokens), tokens.shape[1])
        with torch.no_grad():
            steps = [run_module(net, t, part, cache)[0] for part in tokens.split(1, 1)]
        return whole, torch.cat(steps, 1)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        def run(t: Tensors) -> list[Tensor]:
            p = own(t)
            x = p["embedding"][t["tokens"]]
            for i in range(o["make"]["layers"]):
                block = f"blocks.{i}."
                y = normed(p, x, f"{block}attention_norm")
                heads, score = attention(p, y, o["make"], prefix=f"{block}attention.")
                largest.append(score)
                x = x + joined(heads) @ p[f"{block}attention.output.weight"].mT
                y = normed(p, x, f"{block}feed_forward_norm")
                scores = y @ p[f"{block}feed_forward.keys"].mT
                x = x + activated(scores, o["activation"]) @ p[f"{block}feed_forward.values"]
            logits = normed(p, x, "norm") @ p["embedding"].mT
            return [logits, logits]

        largest: list[float] = []
        o = o | {"activation": memlib.Decoder(**o["make"]).blocks[0].feed_forward.activation}
        return told(run, t, o, largest)


@subject("MemorizingAttention.forward", {})
class _Memorizing:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        make = layer_options(rng, ("rotary", "none")) | {"k": 50, "strength": 0.5}
        t = parameters(rng, memlib.MemorizingAttention(**make), dtype, float(rng.choice(GAINS)))
        shape = (2, int(rng.integers(1, 9)), make["width"])
        for name in ("before", "x"):
            t[name] = draws.fit(rng.standard_normal(shape), dtype)
        return t, {"make": make, "measure": str(rng.choice(("scaled_dot", "cosine")))}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        net = memlib.MemorizingAttention(**o["make"], dtype=dtype_of(t))
        memory = net.memory(2, measure=o["measure"])
        first, memory = run_module(net, t, t["before"], memory)
        return first, run_module(net, t, t["x"], memory)[0]

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        make = o["make"]

        def run(t: Tensors) -> list[Tensor]:
            p, width = own(t), make["width"] // make["heads"]
            near = []
            for name in ("before", "x"):
                heads, score = attention(p, t[name], make, prefix="local.")
                near.append(heads)
                largest.append(score)
            query = split(t["x"], p["local.query.weight"], width)
            kept = [split(t["before"], p[f"local.{n}.weight"], width) for n in ("key", "value")]
            shared = query.shape[1] // kept[0].shape[1]
            keys, values = (z.detach().repeat_interleave(shared, 1) for z in kept)
            found = truth.look(query, keys, o["measure"], make["strength"])
            gate = p["gate"].sigmoid().view(-1, 1, 1)
            both = near[1] + gate * (found.weights @ values - near[1])
            return [joined(z) @ p["local.output.weight"].mT for z in (near[0], both)]

        largest: list[float] = []
        return told(run, t, o, largest)
