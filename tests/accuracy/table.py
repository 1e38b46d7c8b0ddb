"""The table of public functions, and what is drawn for all that compare queries with keys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import draws, truth
from .draws import Random, Tensors
from .truth import Truth

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
        room: the module that enters it here.
        constant: tensors without gradient.
        dtypes: of its results.
    """

    name: str
    shapes: dict[str, str]
    draw: Callable[[Random, str, dict[str, int]], tuple[Tensors, Options]]
    call: Callable[[Tensors, Options], Sequence[Tensor]]
    truth: Callable[[Tensors, Options, Sequence[Tensor] | None], Truth]
    room: str
    constant: frozenset[str] = frozenset({"mask"})
    dtypes: Sequence[str] = tuple(draws.DTYPES)

    def sizes(self, tensors: Tensors) -> dict[str, int]:
        """The size of each letter in these tensors."""
        found: dict[str, int] = {}
        for name, x in tensors.items():
            letters = self.shapes[name].split()
            for letter, size in zip(letters[len(letters) - x.ndim :], x.shape, strict=True):
                found[letter] = max(size, found.get(letter, 1))
        return found


def subject(name: str, shapes: dict[str, str], **more: Any) -> Callable[[Any], Any]:
    """Enter a class with `draw`, `call` and `truth` into the table."""

    def enter(kind: Any) -> Any:
        room = kind.__module__
        SUBJECTS[name] = Subject(name, shapes, kind.draw, kind.call, kind.truth, room, **more)
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
    return min(1e6, max(1e-12, 5 / gap)) if gap else 1.0


def options_of(o: Options, t: Tensors) -> Options:
    return o | {n: t[n] for n in ("strength", "mask") if n in t}


def looked(t: Tensors, o: Options, picked: Tensor | None = None) -> truth.Look:
    strength = t.get("strength", o.get("strength", 1.0))
    mask = t.get("mask") if picked is None else picked
    return truth.look(t["query"], t["keys"], o.get("measure", "scaled_dot"), strength, mask)


def selected(t: Tensors, o: Options, got: Tensor | None) -> tuple[Tensor | None, list[str]]:
    """Of a selection, what was chosen (by its weights) and what is wrong with that."""
    if (k := o.get("top_k")) is None:
        return None, []
    free = looked(t, {**o, "strength": 1.0}, None)
    may = free.readable
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
