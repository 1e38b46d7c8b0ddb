"""The DNC, as in 2016 and repaired, and an NTM of its size, with enough memory and with less.

Copy and associative recall are those of `memlib.tasks`. *In rounds* several of them come one after
the other and each is answered before the next one: there are more vectors in a sequence than
slots, so that slots must be used again (Graves et al. 2016, extended data figure 1). All rows of
a batch have the same sizes, so that no step is padding.

Every finished run is a line of ``results/dnc_TASK.json``; an unfinished one goes on where it
stopped when the same command is given again.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from experiments import ntm, training
from memlib import DNC, NTM, tasks


@dataclass(frozen=True)
class Recipe(ntm.Recipe):
    """How a machine is made and trained on a task.

    Attributes:
        feedforward: the controller is a layer of tanh and no LSTM.
        strength: added at first to the bias of every head's strength, so that untrained heads
            look at few slots.
        options: of the DNC: mask_content, deallocate, sharpen_links.

    The `walk` of an NTM lets its write head begin by stepping on. In a DNC it is added to the
    biases of write gate and allocation gate and taken from those of the free gates, to the same
    end: an untrained machine leaves each input in a slot of its own.
    """

    feedforward: bool = False
    strength: float = 5.0
    options: tuple[str, ...] = ()


COPY = Recipe(
    sequences=16_000, every=800, exam=512, batch_size=16, slots=16,
    sizes={"length": (1, 8), "bits": 6},
)  # fmt: skip
RECALL = replace(
    COPY, sequences=24_000, feedforward=True, sizes={"items": (2, 5), "item_length": 1, "bits": 8}
)
COPY_ROUNDS = replace(
    COPY, sequences=24_000, every=1_200, slots=8,
    sizes={"length": (1, 5), "bits": 6, "rounds": (1, 8)},
)  # fmt: skip
RECALL_ROUNDS = replace(RECALL, slots=8, sizes={**RECALL.sizes, "items": (2, 4), "rounds": (1, 5)})
ERASED = ("deallocate",)
REPAIRED = (*ERASED, "mask_content", "sharpen_links")
RECIPES = {  # which repairs help on which task was found by trial
    task: {"dnc": recipe, "dnc-repaired": replace(recipe, options=repairs), "ntm": recipe}
    for task, recipe, repairs in [
        ("copy", COPY, ERASED),
        ("associative-recall", RECALL, REPAIRED),
        ("copy-rounds", COPY_ROUNDS, ERASED),
        ("associative-recall-rounds", RECALL_ROUNDS, REPAIRED),
    ]
}
BEYOND: dict[str, list[dict[str, int]]] = {  # sizes never trained on
    "copy": [{"length": length} for length in (8, 12, 16)],
    "associative-recall": [{"items": items} for items in (6, 8, 10, 12)],
}
LONG = {  # ten rounds, as in the paper's figure: where and why a machine fails
    "copy-rounds": {"length": 5, "rounds": 10},
    "associative-recall-rounds": {"items": 4, "rounds": 10},
}
SLOTS = (4, 5, 6, 7, 8, 10, 12, 16)  # memories that a machine of the rounds is put in front of
FREE, ALLOCATE, WRITE, BACK, ALIKE, FORTH = range(-6, 0)  # where the interface of a DNC says so
SHUT = -1e4  # what it says to a gate that is 0
GATES = {  # what is shut in a trained DNC
    "as trained": [],
    "nothing freed": [FREE],
    "no allocation": [ALLOCATE],
    "no links": [BACK, FORTH],
}


class Run(ntm.Run):
    """One run of this experiment."""

    experiment = "dnc"
    recipes = RECIPES
    beyond = BEYOND
    solved = 0.1  # wrong bits a sequence, of several rounds

    recipe: Recipe  # as the property of the base class finds it in ours

    def build(self, inputs: int, outputs: int) -> nn.Module:
        """Make a new model for inputs and outputs of these sizes."""
        recipe = self.recipe
        seen = inputs + recipe.width
        controller: nn.Module = nn.LSTMCell(seen, recipe.hidden)
        if recipe.feedforward:
            controller = nn.Sequential(nn.Linear(seen, recipe.hidden), nn.Tanh())
        sizes = (inputs, outputs, recipe.slots, recipe.width)
        model: DNC | NTM
        if self.model != "ntm":
            options: Any = dict.fromkeys(recipe.options, True)
            model = DNC(*sizes, controller=controller, **options)
        else:
            model = NTM(*sizes, controller=controller, walk=recipe.walk)
        begin(model, recipe)
        if recipe.compiled:
            model.compile()
        return model

    def generate(self, count: int, **sizes: Any) -> tasks.Batch:
        """Draw sequences of the task, in rounds where the sizes say so."""
        task = tasks.TASKS[self.task.removesuffix("-rounds")]
        return in_rounds(task.generate, count, **sizes)

    @torch.no_grad()
    def figures(self, model: nn.Module, progress: training.Progress) -> dict[str, Any]:
        """Return what is recorded of the finished run; of rounds, when and why it fails."""
        found = super().figures(model, progress)
        if self.task not in LONG:
            return found
        sizes = LONG[self.task]
        batches = ntm.exam(self, 64, ntm.LONGER, 16, **sizes)
        changed = {name: shut(model, places) for name, places in GATES.items()}
        if self.model == "ntm":
            changed = {"as trained": model}
        return found | {
            "by_round": {
                name: by_round(other, batches, sizes["rounds"]) for name, other in changed.items()
            },
            "by_slots": [
                {"slots": slots, **ntm.examine(resized(model, slots), batches)} for slots in SLOTS
            ],
        }


@torch.no_grad()
def begin(model: DNC | NTM, recipe: Recipe) -> None:
    """Let untrained heads look sharply, and a DNC leave each input in a slot of its own."""
    cell: Any = model.cell
    bias = cell.interface.bias
    if isinstance(model, NTM):
        gates = bias[: 2 * cell._per_head].unflatten(0, (2, -1))  # of the read and the write head
        gates[:, cell.width + cell.shifts + 1] += recipe.strength
    else:
        keys = 3 * cell.width  # of the two heads, and what is written
        bias[keys : keys + 2] += recipe.strength
        bias[[WRITE, ALLOCATE]] += recipe.walk
        bias[FREE] -= recipe.walk


def in_rounds(
    generate: Callable[..., tasks.Batch],
    count: int,
    *,
    generator: Generator,
    rounds: int | tuple[int, int] = 1,
    device: torch.device | None = None,
    **sizes: Any,
) -> tasks.Batch:
    """Draw sequences of several rounds; a round has the same size in all rows."""

    def one(size: Any) -> int:
        low, high = size if isinstance(size, tuple) else (size, size)
        return int(torch.randint(low, high + 1, (), generator=generator))

    parts = [
        generate(count, generator=generator, device=device, **{n: one(s) for n, s in sizes.items()})
        for _ in range(one(rounds))
    ]
    inputs, targets, mask, lengths = zip(*parts, strict=True)
    return tasks.Batch(
        torch.cat(inputs, 1), torch.cat(targets, 1), torch.cat(mask, 1), torch.stack(lengths).sum(0)
    )


def shut(model: nn.Module, places: list[int]) -> Any:
    """Return a DNC that is told so by these outputs of its interface, whatever comes."""
    other = twin(model)
    other.cell.interface.weight[places] = 0
    other.cell.interface.bias[places] = SHUT
    return other


def resized(model: nn.Module, slots: int) -> Any:
    """Return a machine with other slots: no trained parameter depends on their number."""
    other = twin(model)
    other.cell.slots = slots
    other.cell.initial_memory = other.cell.initial_memory[:1].repeat(slots, 1)
    return other


def twin(model: nn.Module) -> Any:
    """Return a copy of a machine, its step not compiled."""
    other: Any = copy.deepcopy(model)
    other._take = type(other.cell)._step
    return other


def by_round(model: nn.Module, batches: list[tasks.Batch], rounds: int) -> list[float]:
    """Return the wrong bits of each round, means over all sequences."""
    wrong: list[list[Tensor]] = [[] for _ in range(rounds)]
    for batch in batches:
        parts = (model(batch.inputs)[0], batch.targets, batch.mask)
        split = (x.unflatten(1, (rounds, -1)).unbind(1) for x in parts)
        for found, part in zip(wrong, zip(*split, strict=True), strict=True):
            found.append(tasks.wrong_bits(*part))
    return [ntm.mean(found) for found in wrong]


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    ntm.main(arguments, Run, __doc__)
