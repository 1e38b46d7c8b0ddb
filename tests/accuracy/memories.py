"""Memories made of the verbs: pairs, patterns, stores, and the language model with a store."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import memlib

from . import draws, truth
from .draws import Random, Tensors
from .table import MEASURES, SPACE, Options, by_names, options_of, space, subject
from .truth import Expected, Truth
from .verbs import attended

BACKENDS = ("exact", "flat", "hnsw", "ivf")


@subject("KeyValueMemory.read", SPACE | {"written": "B N"}, constant=frozenset({"written", "mask"}))
class _KeyValueMemory:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        t, o = space(rng, dtype, size, masked=False)
        t["values"] = draws.values(rng, (*t["keys"].shape[:-1], size["V"]), dtype)
        order = rng.permuted(torch.arange(size["N"]).expand(size["B"], -1).numpy(), axis=1)
        free = int(rng.choice((0, 0, size["N"] // 2, size["N"] - 1, size["N"])))
        t["written"] = torch.from_numpy(order + 1 - free).clamp_min(0)
        return t, o | ({"need_weights": True} if rng.random() < 0.5 else {})

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        keys, values = t["keys"], t["values"]
        memory = memlib.KeyValueMemory(
            keys.shape[1], keys.shape[2], values.shape[2], measure=o["measure"], dtype=keys.dtype
        )
        options = {n: x for n, x in options_of(o, t).items() if n != "measure"}
        state = memlib.KeyValueState(keys, values, t["written"])
        got = memory.read(t["query"], state, **options)
        return (got,) if isinstance(got, Tensor) else got

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        return attended(t | {"mask": (t["written"] > 0).unsqueeze(1)}, o, got)


PATTERNS = {"query": "B L M", "patterns": "B N M", "mask": "B L N"}


def patterns(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
    t, o = space(rng, dtype, size, ("dot",))
    beta = float(o.get("strength", 1.0)) or 1.0
    t = {{"keys": "patterns"}.get(n, n): x for n, x in t.items() if n != "strength"}
    return t, {"strength": beta}


@subject("Hopfield.forward", PATTERNS)
class _Hopfield:
    draw = staticmethod(patterns)

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        net = memlib.Hopfield(o["strength"])
        got = net(t["query"], t["patterns"], mask=t.get("mask"), need_weights=True)
        assert isinstance(got, tuple)
        return (*got, net(t["query"], t["patterns"], mask=t.get("mask")))

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        both = {n: x for n, x in t.items() if n != "patterns"}
        both |= {"keys": t["patterns"], "values": t["patterns"]}
        told = attended(both, o | {"measure": "dot", "need_weights": True}, got)
        told.results.append(told.results[0])
        inner = told.slopes
        assert inner is not None

        def slopes(weighed: Sequence[Tensor]) -> dict[str, Tensor]:
            parts = inner((weighed[0].abs() + weighed[2].abs(), weighed[1]))
            return {"query": parts["query"], "patterns": parts["keys"] + parts["values"]}

        told.slopes = slopes
        return told


@subject("Hopfield.energy", PATTERNS)
class _Energy:
    draw = staticmethod(patterns)

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        net = memlib.Hopfield(o["strength"])
        return (net.energy(t["query"], t["patterns"], mask=t.get("mask")),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        x, mask = t["patterns"], t.get("mask", torch.ones(1, dtype=torch.bool))
        result = truth.energy(t["query"], x, o["strength"], mask)
        largest = max(float(result.size.max()), o["strength"] * float(result.size.max()))
        found = truth.look(t["query"], x, "dot", o["strength"], mask)
        w = found.weights.detach().clamp_min(truth.FAINT)

        def slopes(weighed: Sequence[Tensor]) -> dict[str, Tensor]:
            g = weighed[0].abs().unsqueeze(-1)
            size = x.detach().abs()
            by_patterns = (g * w).mT @ t["query"].detach().abs() + g.sum(-2, True) * size
            return {"query": g * (t["query"].detach().abs() + w @ size), "patterns": by_patterns}

        # the logarithm of a sum is as exact as its terms; its gradient has the weights in it
        return Truth([result], largest, slopes, reach=float(found.reach.max()))


SIGNS = {"signs": "B L M", "patterns": "B N M"}


def signs(rng: Random, shape: tuple[int, ...], among: Sequence[float], dtype: str) -> Tensor:
    return draws.fit(rng.choice(among, size=shape), dtype)


@subject("ClassicalHopfield.forward", SIGNS, constant=frozenset(SIGNS))
class _Classical:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        width, count = int(rng.choice((1, 2, 3, 5, 7, 10, 49))), int(rng.choice((1, 2, 3, 6, 300)))
        start = signs(rng, (size["B"], size["L"], width), (-1, 0, 1), dtype)
        return {
            "signs": start,
            "patterns": signs(rng, (size["B"], count, width), (-1, 1), dtype),
        }, {"steps": int(rng.choice((1, 2, 10)))}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        return (memlib.ClassicalHopfield(o["steps"])(t["signs"], t["patterns"]),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        state = truth.sweep(t["signs"], t["patterns"], o["steps"])
        return Truth([Expected(state, torch.ones_like(state))], 1.0)


@subject("ClassicalHopfield.connections", {"patterns": "B N M"})
class _Connections:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        shape = (size["B"], size["N"], min(size["M"], 64))
        if rng.random() < 0.5:
            return {"patterns": signs(rng, shape, (-1, 1), dtype)}, {}
        return {"patterns": draws.values(rng, shape, dtype).clamp(-10, 10)}, {}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        return (memlib.ClassicalHopfield().connections(t["patterns"]),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        w, size = connections(t["patterns"])
        slack = truth.TINY * (1 + t["patterns"].detach().abs().amax())
        return Truth([Expected(w, size, 0.0, slack, 2.0 * t["patterns"].shape[-2])],
                     float(size.max()) * w.shape[-1])  # fmt: skip


def connections(x: Tensor) -> tuple[Tensor, Tensor]:
    """1/M sum_n x_n x_n^T without a diagonal, and the size of its terms."""
    off = 1 - torch.eye(x.shape[-1], dtype=torch.float64)
    return x.mT @ x * off / x.shape[-1], (x.abs().mT @ x.abs() / x.shape[-1]).detach()


@subject("ClassicalHopfield.energy", {"query": "B L M", "patterns": "B N M"})
class _ClassicalEnergy:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        width = min(size["M"], 64)
        t = {"query": signs(rng, (size["B"], size["L"], width), (-1, 1), dtype)}
        return t | {"patterns": signs(rng, (size["B"], size["N"], width), (-1, 1), dtype)}, {}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        return (memlib.ClassicalHopfield().energy(t["query"], t["patterns"]),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        s = t["query"]
        w, size = connections(t["patterns"])
        value = -((s @ w) * s).sum(-1) / 2
        bound = ((s.abs() @ size) * s.abs()).sum(-1).detach() / 2
        return Truth([Expected(value, bound)], float(bound.max()) * w.shape[-1])


# Stores: what was chosen is told by the ids, the n-th pair having the id n.

STORED = {
    "query": "B L M", "keys": "B N M", "values": "B N V", "strength": "B L", "lengths": "B",
    "logits": "B L U", "tokens": "B N", "mix": "B L",
}  # fmt: skip


def stored(rng: Random, dtype: str, size: dict[str, int],
           measures: Sequence[str] = MEASURES) -> tuple[Tensors, Options]:  # fmt: skip
    size["N"] = min(size["N"], 1000)
    if large := rng.random() < 0.1:  # looked through group by group
        size |= {"B": 1, "L": 2, "N": 5000, "M": int(rng.choice((1, 8)))}
    t, o = space(rng, dtype, size, measures, masked=False)
    slots = t["keys"].shape[1]
    held = rng.choice((slots, slots, max(1, slots // 2), 0), size=size["B"])
    held[0] = slots
    t["lengths"] = torch.from_numpy(held)
    o["backend"] = str(rng.choice(BACKENDS))
    o["k"] = 1 if large else int(rng.integers(1, min(slots, 40) + 1))
    return t, o


def store_of(t: Tensors, o: Options, values: Tensor) -> memlib.Store:
    keys = t["keys"].detach()
    store = memlib.Store(
        keys.shape[-1], values.shape[-1], batch_size=len(keys), measure=o["measure"],
        backend=o["backend"], dtype=keys.dtype, value_dtype=values.dtype,
    )  # fmt: skip
    store.add(keys, values.detach(), lengths=t.get("lengths"))
    return store


def told_apart(t: Tensors, o: Options, ids: Tensor) -> tuple[truth.Look, Tensor, list[str]]:
    """The weights over what was chosen (B, L, 1, K), its keys' rows, and what is wrong with it."""
    batch, queries = t["query"].shape[:2]
    keys = t["keys"]
    lengths = t.get("lengths", torch.full((batch,), keys.shape[1]))
    there = ids >= 0
    rows = torch.arange(batch).view(-1, 1, 1)
    found = keys[rows, ids.clamp_min(0)]  # (B, L, K, M)
    strength = t.get("strength", torch.as_tensor(o.get("strength", 1.0), dtype=torch.float64))
    strength = strength.expand(batch, queries).unsqueeze(-1)
    look = truth.look(t["query"].unsqueeze(2), found, o["measure"], strength, there.unsqueeze(2))
    free = truth.scores(t["query"].detach(), keys.detach(), o["measure"])
    held = (torch.arange(keys.shape[1]) < lengths.unsqueeze(-1)).unsqueeze(1)  # (B, 1, N)
    picked = torch.zeros(batch, queries, keys.shape[1] + 1, dtype=torch.bool)
    picked = picked.scatter(-1, torch.where(there, ids, keys.shape[1]), True)[..., :-1]
    wrong, k = [], o["k"]
    margin = truth.doubt(free.size, held)
    if (there.sum(-1) != lengths.clamp(max=k).unsqueeze(-1)).any():
        wrong.append("found too few or too many")
    if o["backend"] in ("exact", "flat"):
        wrong += truth.chosen(free.value, free.size, picked, held, k)
    elif (picked & ~held).any():
        wrong.append("chose what may not be read")
    ranked = look.scores.value.detach().squeeze(2).masked_fill(~there, -math.inf)
    if (ranked[..., 1:] > ranked[..., :-1] + margin).any():
        wrong.append("not in the order of similarity")
    return look, rows, wrong


def best_ids(t: Tensors, o: Options) -> Tensor:
    """What should be chosen."""
    free = truth.scores(t["query"].detach(), t["keys"].detach(), o["measure"]).value
    held = torch.arange(free.shape[-1]) < t["lengths"].unsqueeze(-1)
    free = free.masked_fill(~held.unsqueeze(1), -math.inf)
    top = free.topk(o["k"], -1)
    return top.indices.masked_fill(top.values == -math.inf, -1)


def pulled(look: truth.Look, wanted: Tensor, t: Tensors) -> dict[str, Tensor]:
    """Sizes of the gradients by query and strength; `wanted` is (B, L, K)."""
    found = truth.pull(look, wanted.unsqueeze(2))
    by_strength = found["strength"].squeeze(-1)
    return by_names({"query": found["query"].squeeze(2), "strength": by_strength}, t)


NO_GRADIENT = frozenset({"keys", "values", "lengths", "tokens"})


@subject("Store.address", STORED, constant=NO_GRADIENT)
class _StoreAddress:
    draw = staticmethod(stored)

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        store = store_of(t, o, t["keys"][..., :1])
        strength = t.get("strength", o.get("strength", 1.0))
        ids, weights = store.address(t["query"], o["k"], strength=strength)
        return weights, ids

    @staticmethod
    def truth(t: Tensors, o: Options, got: Sequence[Tensor] | None) -> Truth:
        ids = best_ids(t, o) if got is None else got[1]
        look, _, wrong = told_apart(t, o, ids)
        weights = look.weights.squeeze(2)
        size = weights.detach().clamp_min(truth.FAINT)

        def slopes(weighed: Sequence[Tensor]) -> dict[str, Tensor]:
            return pulled(look, weighed[0].abs(), t)

        result = Expected(weights, size, look.reach.squeeze(2), kind="weights")
        return Truth([result], look.largest, slopes, wrong)


@subject("Store.read", STORED, constant=NO_GRADIENT)
class _StoreRead:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        t, o = stored(rng, dtype, size)
        t["values"] = draws.values(rng, (*t["keys"].shape[:-1], size["V"]), dtype)
        if rng.random() < 0.3:
            o["k"] = t["keys"].shape[1]  # a read of all
        return t, o

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        store = store_of(t, o, t["values"])
        options = {"strength": t.get("strength", o.get("strength", 1.0))}
        value, ids, weights = store.read(t["query"], o["k"], need_weights=True, **options)
        return value, store.read(t["query"], o["k"], **options), weights, ids

    @staticmethod
    def truth(t: Tensors, o: Options, got: Sequence[Tensor] | None) -> Truth:
        ids = best_ids(t, o) if got is None else got[3]
        look, rows, wrong = told_apart(t, o, ids)
        values = t["values"][rows, ids.clamp_min(0)]  # (B, L, K, V)
        readable = (ids >= 0).unsqueeze(2)
        size = truth.read_size(look.weights, values, readable).squeeze(2)
        reach = look.reach.squeeze(2)
        value = (look.weights @ values).squeeze(2)
        slack = truth.TINY * (values.shape[-2] + values.abs().sum(-2))
        weights = look.weights.squeeze(2)
        grain = 1 + values.abs().sum(-2)
        results = [Expected(value, size, reach, slack, grain) for _ in range(2)]
        faint = weights.detach().clamp_min(truth.FAINT)
        results.append(Expected(weights, faint, reach, kind="weights"))

        def slopes(weighed: Sequence[Tensor]) -> dict[str, Tensor]:
            g = (weighed[0].abs() + weighed[1].abs()).unsqueeze(2)
            wanted = (g @ values.abs().mT).squeeze(2) + weighed[2].abs()
            return pulled(look, wanted, t)

        return Truth(results, look.largest, slopes, wrong)


@subject("knn_lm", STORED, constant=NO_GRADIENT)
class _KnnLm:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        t, o = stored(rng, dtype, size, ("negative_squared_distance", "dot"))
        batch, queries = t["query"].shape[:2]
        kind, vocab = rng.integers(4), size["U"]
        scale = (0.0, 1.0, 30.0, 300.0)[kind]
        logits = rng.standard_normal((batch, queries, vocab)) * scale + rng.choice((0, 0, 3000))
        t["logits"] = draws.fit(logits, dtype)
        t["tokens"] = torch.from_numpy(rng.integers(vocab, size=(batch, t["keys"].shape[1])))
        if rng.random() < 0.5:
            t["mix"] = draws.gates(rng, (batch, queries), dtype)
        else:
            o["mix"] = float(rng.choice((0.0, 0.25, 1e-6, 1 - 1e-6, 1.0)))
        return t, o

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        store = store_of(t, o, t["tokens"].unsqueeze(-1))
        options = {n: t.get(n, o.get(n, default)) for n, default in (("strength", 1.0), ("mix", 0))}
        ids, _ = store.address(t["query"].detach(), o["k"])
        return memlib.knn_lm(t["logits"], t["query"], store, o["k"], **options), ids

    @staticmethod
    def truth(t: Tensors, o: Options, got: Sequence[Tensor] | None) -> Truth:
        ids = best_ids(t | {"lengths": lengths_of(t)}, o) if got is None else got[1]
        look, _, wrong = told_apart(t, o, ids)
        tokens = t["tokens"][torch.arange(len(ids)).view(-1, 1, 1), ids.clamp_min(0)]
        logs = truth.log_weights(look).squeeze(2)
        near = truth.by_token(logs, tokens, t["logits"].shape[-1])
        mix = torch.as_tensor(t.get("mix", o.get("mix")), dtype=torch.float64)
        mix = mix.expand(t["logits"].shape[:-1])
        known = (ids >= 0).any(-1)
        value, alone = truth.mixture(t["logits"], near, mix, known)
        size = 1 + value.detach().abs().nan_to_num(posinf=0)
        reach = look.reach.squeeze(2)

        def slopes(weighed: Sequence[Tensor]) -> dict[str, Tensor]:
            share = torch.where(known, mix.detach(), 0.0).unsqueeze(-1)
            # the part of each chance, by its logarithm: chances underflow
            by_model = ((1 - share).log() + alone - value.detach()).exp().nan_to_num()
            g = weighed[0].abs()
            blame = g * by_model
            by_logits = blame + blame.sum(-1, True) * alone.exp()
            per = (g * (-value.detach()).exp()).nan_to_num(posinf=1e300)
            wanted = (share * per).gather(-1, tokens)
            each = (near.detach() - value.detach()).exp() + (alone - value.detach()).exp()
            by_mix = (g * each).nan_to_num()
            return pulled(look, wanted, t) | {"logits": by_logits, "mix": by_mix.sum(-1)}

        largest = max(look.largest, 0.0)
        return Truth([Expected(value, size, reach, kind="logs")], largest, slopes, wrong)


def lengths_of(t: Tensors) -> Tensor:
    return t.get("lengths", torch.full((len(t["keys"]),), t["keys"].shape[1]))
