"""The verbs: similarity, address, read, write, attend."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

import memlib

from . import draws, truth
from .draws import Random, Tensors
from .table import SPACE, Options, by_names, looked, options_of, selected, space, subject
from .truth import Expected, Truth


@subject("similarity", SPACE)
class _Similarity:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        t, o = space(rng, dtype, size, masked=False)
        return {n: t[n] for n in ("query", "keys")}, {"measure": o["measure"]}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        return (memlib.similarity(t["query"], t["keys"], **o),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        s = truth.scores(t["query"], t["keys"], o["measure"])
        largest = 0.0 if o["measure"] == "cosine" else float(s.size.max())

        def slopes(weighed: Sequence[Tensor]) -> dict[str, Tensor]:
            g = weighed[0].abs().unsqueeze(-1)
            return {"query": (g * s.by_query).sum(-2), "keys": (g * s.by_keys).sum(-3)}

        return Truth([Expected(s.value, s.size, grain=t["query"].shape[-1])], largest, slopes)


@subject("address", SPACE)
class _Address:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        t, o = space(rng, dtype, size)
        if rng.random() < 0.2:
            o["top_k"] = int(rng.integers(1, min(size["N"], 20) + 1))
        return t, o

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        return (memlib.address(t["query"], t["keys"], **options_of(o, t)),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Sequence[Tensor] | None) -> Truth:
        picked, wrong = selected(t, o, None if got is None else got[0])
        found = looked(t, o, picked)

        def slopes(weighed: Sequence[Tensor]) -> dict[str, Tensor]:
            return by_names(truth.pull(found, weighed[0].abs()), t)

        size = found.weights.detach().clamp_min(truth.FAINT)
        result = Expected(found.weights, size, found.reach, kind="weights")
        return Truth([result], found.largest, slopes, wrong)


def attended(t: Tensors, o: Options, got: Sequence[Tensor] | None) -> Truth:
    """A read by similarity: the value and, where they are wanted, the weights."""
    picked, wrong = selected(t, o, None if got is None else got[-1])
    found, values = looked(t, o, picked), t["values"]
    size = truth.read_size(found.weights, values, found.readable)
    slack = truth.TINY * (values.shape[-2] + values.detach().abs().sum(-2, True))
    grain = 1 + values.detach().abs().sum(-2, True)  # weights, too, are numbers of the dtype
    results = [Expected(found.weights @ values, size, found.reach, slack, grain)]
    if o.get("need_weights"):
        faint = found.weights.detach().clamp_min(truth.FAINT)
        results.append(Expected(found.weights, faint, found.reach, kind="weights"))

    def slopes(weighed: Sequence[Tensor]) -> dict[str, Tensor]:
        wanted = weighed[0].abs() @ values.detach().abs().mT
        wanted = wanted + weighed[1].abs() if len(weighed) > 1 else wanted
        w = found.weights.detach().clamp_min(truth.FAINT)
        pulled = by_names(truth.pull(found, wanted), t)
        return pulled | {"values": w.mT @ weighed[0].abs()}

    return Truth(results, found.largest, slopes, wrong)


@subject("attend", SPACE)
class _Attend:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        t, o = space(rng, dtype, size)
        t["values"] = draws.values(rng, (*t["keys"].shape[:-1], size["V"]), dtype)
        kind = rng.integers(5)
        o |= {"need_weights": True} if kind in (3, 4) else {}
        o |= {"top_k": int(rng.integers(1, min(size["N"], 20) + 1))} if kind == 4 else {}
        return t, o

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        got = memlib.attend(t["query"], t["keys"], t["values"], **options_of(o, t))
        return (got,) if isinstance(got, Tensor) else got

    @staticmethod
    def truth(t: Tensors, o: Options, got: Sequence[Tensor] | None) -> Truth:
        return attended(t, o, got)


@subject("read", {"weights": "B L N", "values": "B N V"})
class _Read:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        shares = draws.shares(rng, (size["B"], size["L"], size["N"]), dtype)
        return {
            "weights": shares,
            "values": draws.values(rng, (size["B"], size["N"], size["V"]), dtype),
        }, {}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        return (memlib.read(t["weights"], t["values"]),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        w, v = t["weights"], t["values"]
        size = w.detach().abs() @ v.detach().abs()

        def slopes(weighed: Sequence[Tensor]) -> dict[str, Tensor]:
            g = weighed[0].abs()
            return {"weights": g @ v.detach().abs().mT, "values": w.detach().abs().mT @ g}

        grain = float(w.shape[-1])
        slack = truth.TINY * (1 + v.detach().abs().sum(-2, True))
        return Truth([Expected(w @ v, size, 0.0, slack, grain)], float(size.max()), slopes)


WRITE = {"memory": "B N M", "weights": "B H N", "add": "B H M", "erase": "B H M"}


@subject("write", WRITE)
class _Write:
    @staticmethod
    def draw(rng: Random, dtype: str, size: dict[str, int]) -> tuple[Tensors, Options]:
        shape = {n: tuple(size[s] for s in letters.split()) for n, letters in WRITE.items()}
        t = {
            "memory": draws.values(rng, shape["memory"], dtype),
            "weights": draws.shares(rng, shape["weights"], dtype),
            "add": draws.values(rng, shape["add"], dtype),
        }
        if rng.random() < 0.8:
            t["erase"] = draws.gates(rng, shape["erase"], dtype)
        return t, {}

    @staticmethod
    def call(t: Tensors, o: Options) -> Sequence[Tensor]:
        return (memlib.write(t["memory"], t["weights"], t["add"], t.get("erase")),)

    @staticmethod
    def truth(t: Tensors, o: Options, got: Any) -> Truth:
        result = truth.write(t["memory"], t["weights"], t["add"], t.get("erase"))
        result.grain = 4.0 + t["weights"].shape[-2]
        heads, m, w, a = (
            t["weights"].shape[-2],
            *(t[n].detach().abs() for n in ("memory", "weights", "add")),
        )

        def slopes(weighed: Sequence[Tensor]) -> dict[str, Tensor]:
            g = weighed[0].abs()
            erased = g * m
            return {
                "memory": g,
                "weights": (a @ g.mT) + erased.sum(-1).unsqueeze(-2).repeat(1, heads, 1),
                "add": w @ g,
                "erase": w @ erased,
            }

        return Truth([result], float(result.size.max()), slopes)
