"""Longer than in training: what a model does with positions that it has never seen.

The two-layer model, the task and the recipe of `experiments.induction`, but for twice its budget,
with four schemes of positions, trained on rows of L steps and tested on L, 2 L and 4 L. At each
length there are rows that repeat as soon as those of training (only positions are new), and rows
that repeat later by the same factor (distances are new too). The table of learned positions is
long enough for all of them: what lies beyond L was drawn at the start and never trained. The
window is just as long as the longest distance of training.

Is it the place of what is looked for that counts, or the distance? So each test tells the accuracy
apart for answers that stood at a place of training when they were first said, and for all others.

Every finished run is a line of ``results/lengths.json``.
"""

import argparse
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from experiments import induction, records, training
from experiments.induction import Recipe
from experiments.tokens import figures

FINAL = 3_000_000  # seed of the tests' generator
TIMES = (1, 2, 4)  # lengths of the tests, in lengths of training
BIN = 16  # steps over which the accuracy along a row is a mean
RECIPE = replace(induction.RECIPE, sequences=51_200)  # some schemes need the time
SCHEMES: dict[str, dict[str, Any]] = {
    "rotary": {"positions": "rotary"},
    "learned": {"positions": "learned", "length": max(TIMES) * RECIPE.length},
    "none": {"positions": "none"},
    "window": {"positions": "rotary", "window": RECIPE.period[1]},
}


def lengthened(times: int, stretched: bool) -> Recipe:
    """Return the recipe with longer rows, which repeat as soon as before or later by as much."""
    low, high = (p * times if stretched else p for p in RECIPE.period)
    return replace(RECIPE, length=times * RECIPE.length, period=(low, high))


@torch.no_grad()
def examine(model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """Return loss and accuracy on rows of a recipe, along them, and by where an answer stood.

    Along a row it is a mean over each 16 steps, None where none counts. An answer is `early` where
    it was first said at a place that training had, and `late` otherwise.
    """
    batch = induction.make_batch(recipe.exam, Generator().manual_seed(FINAL), recipe)
    logits, _ = model(batch.inputs)
    right = (logits.argmax(dim=-1) == batch.targets) & batch.mask
    hits, asked = (x.unflatten(1, (-1, BIN)).sum(dim=(0, 2)).tolist() for x in (right, batch.mask))
    early = said_early(batch.inputs)
    parts = {"early": batch.mask & early, "late": batch.mask & ~early}
    return {
        **figures(logits[batch.mask], batch.targets[batch.mask]),
        "along": [round(h / n, 5) if n else None for h, n in zip(hits, asked, strict=True)],
        "first_said": {
            name: round(right[part].double().mean().item(), 5) if part.any() else None
            for name, part in parts.items()
        },
    }


def said_early(tokens: Tensor) -> Tensor:
    """Whether the first follower of each query's token stands at a place of training: (B, T).

    Example:
        >>> said_early(torch.tensor([[*range(64), 5, 63, 0, 63]]))[0, 64:]
        tensor([ True, False,  True, False])
    """
    first = (tokens.unsqueeze(-1) == tokens.unsqueeze(-2)).int().argmax(-1)
    return first + 1 < RECIPE.length


def tests(model: nn.Module) -> list[dict[str, Any]]:
    """Return the results at all lengths, with rows that repeat as in training and later."""
    model.eval()
    return [
        {"length": recipe.length, "period": recipe.period, **examine(model, recipe)}
        for times in TIMES
        for recipe in dict.fromkeys(lengthened(times, stretched) for stretched in (False, True))
    ]


def perform(scheme: str, seed: int, options: argparse.Namespace) -> str:
    """Train, test and record one run; return a line on how it went."""
    choice = {"scheme": scheme, "seed": seed}
    told = {"recipe": asdict(RECIPE), "options": SCHEMES[scheme]}
    about = {"experiment": "lengths", **choice, **told}
    origin = records.origin(__name__)
    model = induction.make_model(2, seed, RECIPE, **SCHEMES[scheme])
    job = induction.set_up(model, seed, RECIPE)
    job.progress.codes.append(origin["key"])
    found = training.fit(job, RECIPE.sequences, about, options) | {"tests": tests(model)}
    command = f"python -m experiments lengths --schemes {scheme} --seeds {seed}"
    origin |= {"command": command, "key": "+".join(job.progress.codes)}
    records.merge(options.results / "lengths.json", found | origin, key=("scheme", "seed"))
    line = ", ".join(f"{t['length']} {t['period']} {t['accuracy']:.3f}" for t in found["tests"])
    return f"{command}: {induction.summary(found)}; length, period, accuracy: {line}"


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments lengths", description=__doc__)
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=list(SCHEMES))
    induction.add_options(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for seed in options.seeds:
        for scheme in options.schemes:
            print(perform(scheme, seed, options), flush=True)
