"""The public functions: how each is called, what it should say, and what is drawn for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import memlib

from . import draws, truth
from .draws import Random, Tensors
from .truth import Expected, Truth

Options = dict[str, Any]
SUBJECTS: dict[str, "Subject"] = {}
MEASURES = ("dot", "scaled_dot", "cosine", "negative_squared_distance")


@dataclass
class Subject:
    """One public function.

    Attributes:
        name: as in `memlib`.
        shapes: letters of each tensor's shape; one that is drawn smaller broadcasts.
        draw: takes a generator, the dtype and a size for each letter.
        call: takes tensors and options.
        truth: takes the same in float64, and what came; without it, None.
        constant: tensors without gradient.
    """

    name: str
    shapes: dict[str, str]
    draw: Callable[[Random, str, dict[str, int]], tuple[Tensors, Options]]
    call: Callable[[Tensors, Options], Sequence[Tensor]]
    truth: Callable[[Tensors, Options, Sequence[Tensor] | None], Truth]
    constant: frozenset[str] = frozenset({"mask"})

    def sizes(self, tensors: Tensors) -> dict[str, int]:
        """The size of each letter in these tensors."""
        found: dict[str, int] = {}
        for name, x in tensors.items():
            letters = self.shapes[name].split()
            for letter, size in zip(letters[len(letters) - x.ndim :], x.shape, strict=True):
                found[letter] = max(size, found.get(letter, 1))
        return found


def subject(name: str, shapes: dict[str, str], **more: Any) -> Callable[[type], type]:
    """Enter a class with `draw`, `call` and `truth` into the table."""

    def enter(kind: type) -> type:
        SUBJECTS[name] = Subject(
            name, shapes, kind.draw, kind.call, kind.truth,
            **more,
        )  # fmt: skip
        return kind

    return enter


def shaped(shapes: dict[str, str], size: dict[str, int], *names: str) -> dict[str, tuple[int, ...]]:
    return {n: tuple(size[s] for s in shapes[n].split()) for n in names}


# Where queries look: the same draw for all that compare.

SPACE = {"query": "B L M", "keys": "B N M", "strength": "B L", "mask": "B L N", "values": "B N V"}


def space(rng: Random, dtype: str, size: dict[str, int], measures: Sequence[str] = MEASURES,
          masked: bool = True) -> tuple[Tensors, Options]:  # fmt: skip
    """Queries and keys of some layout, a measure, a strength that matters, and a mask."""
    layout = str(rng.choice(draws.LAYOUTS))
    scale = draws.power(rng, dtype)
    shapes = shaped(SPACE, size, "query", "keys")
    tensors = draws.points(rng, shapes, dtype, layout, scale)
    options: Options = {"measure": str(rng.choice(measures))}
    beta = telling(rng, tensors, options["measure"])
    if rng.random() < 0.3:
        each = beta * rng.choice((0.0, 0.3, 1.0, 1.0), size=shapes["query"][:-1])
        tensors["strength"] = draws.fit(each, dtype)
    elif beta != 1:
        options["strength"] = beta
    if masked and (may := draws.mask(rng, (*shapes["query"][:-1], shapes["keys"][-2]))) is not None:
        tensors["mask"] = may
    return tensors, options


def telling(rng: Random, tensors: Tensors, measure: str) -> float:
    """A strength: 0 to 1e6, most often one by which the best few slots are told apart."""
    kind = rng.choice(("tuned", "tuned", "tuned", "tuned", "one", "zero", "large", "small"))
    if kind != "tuned":
        return {"one": 1.0, "zero": 0.0, "large": 1e6, "small": 1e-3}[kind]
    query, keys = (tensors[n][:1].double() for n in ("query", "keys"))
    some = truth.scores(query[:, :1], keys, measure).value.flatten()
    best = some.topk(min(21, len(some))).values
    gap = float(best[0] - best[-1]) or float(best[0].abs())
    return min(1e6, max(1e-30, 5 / gap)) if gap else 1.0


def options_of(o: Options, t: Tensors) -> Options:
    return o | {n: t[n] for n in ("strength", "mask") if n in t}


def looked(t: Tensors, o: Options, picked: Tensor | None = None) -> truth.Look:
    strength = t.get("strength", o.get("strength", 1.0))
    mask = t.get("mask") if picked is None else picked
    return truth.look(t["query"], t["keys"], o.get("measure", "scaled_dot"), strength, mask)


def readable(t: Tensors, found: truth.Look) -> Tensor:
    mask = t.get("mask", torch.ones(1, dtype=torch.bool))
    return mask.expand(found.weights.shape)


def selected(t: Tensors, o: Options, got: Tensor | None) -> tuple[Tensor | None, list[str]]:
    """Of a selection, what was chosen (by its weights) and what is wrong with that."""
    if (k := o.get("top_k")) is None:
        return None, []
    free = looked(t, {**o, "strength": 1.0}, None)
    may = readable(t, free)
    score, size = free.scores.value.detach(), free.scores.size
    best = score.masked_fill(~may, -torch.inf).topk(k, -1).indices
    ideal = torch.zeros_like(may).scatter(-1, best, True) & may
    if got is None:
        return ideal, []
    picked = got > 0
    wrong = truth.chosen(score, size, picked, may, k)
    # of the chosen those with a weight are seen: those clearly among the best must be
    found = looked(t, o, ideal)
    margin = truth.doubt(size, may)
    least = score.masked_fill(~ideal, torch.inf).amin(-1, keepdim=True)
    grows = float(found.reach.max()) * truth.ROUNDING < 1
    tells = (found.weights.detach() > 1e-3) & (score > least + 2 * margin)
    if grows and (tells & ~picked).any():
        wrong.append("left out one of the best")
    return picked, wrong


def by_names(slopes: dict[str, Tensor], t: Tensors) -> dict[str, Tensor]:
    return {n: x.expand(t[n].shape) if x.numel() == 1 else x for n, x in slopes.items() if n in t}


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
            return by_names(truth.pull(found, weighed[0].abs(), (0, 0)), t)

        size = found.weights.detach().clamp_min(truth.FAINT)
        result = Expected(found.weights, size, found.reach, weights=True)
        return Truth([result], found.largest, slopes, wrong)


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
        picked, wrong = selected(t, o, None if got is None else got[-1])
        found, values = looked(t, o, picked), t["values"]
        size = truth.read_size(found.weights, values, readable(t, found))
        results = [Expected(found.weights @ values, size, found.reach)]
        if o.get("need_weights"):
            faint = found.weights.detach().clamp_min(truth.FAINT)
            results.append(Expected(found.weights, faint, found.reach, weights=True))

        def slopes(weighed: Sequence[Tensor]) -> dict[str, Tensor]:
            wanted = weighed[0].abs() @ values.detach().abs().mT
            wanted = wanted + weighed[1].abs() if len(weighed) > 1 else wanted
            w = found.weights.detach().clamp_min(truth.FAINT)
            pulled = by_names(truth.pull(found, wanted, (0, 0)), t)
            return pulled | {"values": w.mT @ weighed[0].abs()}

        return Truth(results, found.largest, slopes, wrong)


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
