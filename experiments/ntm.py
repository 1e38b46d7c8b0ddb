"""The Neural Turing Machine and an LSTM on the five tasks of Graves, Wayne, Danihelka 2014.

Every finished run is a line of ``results/ntm_TASK.json``; an unfinished one goes on where it
stopped when the same command is given again.
"""

import argparse
import hashlib
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from experiments import checkpoints, command_line, files, records, training
from memlib import NTM, default_device, tasks

SOLVED = 0.01  # wrong bits a sequence
DATA, EXAM, FINAL, LONGER = (n * 1_000_000 for n in range(1, 5))  # generators' seeds, apart


@dataclass(frozen=True)
class Recipe:
    """How a model is made and trained on a task.

    Attributes:
        sequences: the budget.
        every: sequences between evaluations.
        exam: fresh sequences of an evaluation.
        batch_size: sequences an update.
        learning_rate: of Adam, at first.
        decay: let the learning rate fall to 0 over the budget, along half a cosine.
        epsilon: of Adam.
        clip: largest norm of the gradient, in running means of the norm.
        hidden: size of the controller or of the LSTM.
        layers: of the LSTM.
        heads: read heads, and as many write heads.
        slots: of the memory.
        width: of a slot.
        walk: of the write heads, see `memlib.NTMCell`.
        sizes: of the task, where they are not the paper's.
        compiled: the NTM's step, which pays where there are many.
    """

    sequences: int
    every: int = 500
    exam: int = 500
    batch_size: int = 4
    learning_rate: float = 3e-3
    decay: bool = True
    epsilon: float = 1e-7
    clip: float = 1.5
    hidden: int = 100
    layers: int = 1
    heads: int = 1
    slots: int = 128
    width: int = 20
    walk: float = 4.0
    sizes: Mapping[str, Any] = field(default_factory=dict)
    compiled: bool = False


def for_models(
    recipe: Recipe, feedforward: dict[str, Any], lstm: dict[str, Any]
) -> dict[str, Recipe]:
    """Return the recipe of each model, told by what differs from the NTM's own."""
    return {
        "ntm": recipe,
        "ntm-feedforward": replace(recipe, **feedforward),
        "lstm": replace(recipe, compiled=False, **lstm),
    }


# Hidden, layers and heads are the paper's, tables 1 to 3; but priority sort's controller is one
# layer of 200 where the paper has two of 100, and the LSTM of repeat copy has 256 units a layer
# where the paper has 512.
RECIPES = {
    "copy": for_models(
        Recipe(sequences=12_000, every=200),
        feedforward={},
        lstm={"hidden": 256, "layers": 3, "learning_rate": 1e-3},
    ),
    "repeat-copy": for_models(
        Recipe(sequences=40_000, every=1_000, learning_rate=1e-3, compiled=True),
        feedforward={},
        lstm={"hidden": 256, "layers": 3},
    ),
    "associative-recall": for_models(
        Recipe(sequences=80_000, every=2_000, learning_rate=1e-3, walk=0.0, compiled=True),
        feedforward={"hidden": 256, "heads": 4},
        lstm={"hidden": 256, "layers": 3},
    ),
    "ngrams": for_models(
        Recipe(sequences=50_000, every=2_000, batch_size=8, compiled=True),
        feedforward={},
        lstm={"hidden": 128, "layers": 3, "learning_rate": 1e-3},
    ),
    "priority-sort": for_models(
        Recipe(sequences=30_000, every=1_000, batch_size=8, heads=5, hidden=200, compiled=True),
        feedforward={"hidden": 512, "heads": 8},
        lstm={"hidden": 128, "layers": 3, "learning_rate": 1e-3},
    ),
}

BEYOND: dict[str, list[dict[str, int]]] = {  # sizes never trained on
    "copy": [{"length": length} for length in (20, 40, 80, 120)],
    "repeat-copy": [
        {"length": length, "repeats": repeats}
        for length, repeats in ((12, 10), (20, 5), (20, 10), (10, 12), (10, 20))
    ],
    "associative-recall": [{"items": items} for items in (6, 8, 10, 12, 15, 20)],
}


class LSTM(nn.Module):
    """The baseline without a memory: layers of LSTM, then one linear layer."""

    def __init__(self, input_size: int, output_size: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, output_size)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map x (B, T, I) to logits (B, T, O) and the state after the last step."""
        hidden, state = self.lstm(x)
        return self.output(hidden), state


@dataclass(frozen=True)
class Run:
    """One run: a model on a task with a seed, and what is changed of its recipe.

    An experiment that derives from it has a name, recipes, models and tasks of its own.
    """

    task: str
    model: str
    seed: int = 0
    perturb: float = 0.0
    changes: Mapping[str, Any] = field(default_factory=dict)

    experiment: ClassVar[str] = "ntm"
    recipes: ClassVar[Mapping[str, Mapping[str, Recipe]]] = RECIPES
    beyond: ClassVar[Mapping[str, list[dict[str, int]]]] = BEYOND
    solved: ClassVar[float] = SOLVED

    @property
    def recipe(self) -> Recipe:
        """The task's recipe for this model, with the changes."""
        return replace(self.recipes[self.task][self.model], **self.changes)

    @property
    def variant(self) -> str:
        """What sets it apart from other runs of the same task, model and seed."""
        moved = {"perturb": self.perturb} if self.perturb else {}
        return ", ".join(f"{name}={value}" for name, value in {**self.changes, **moved}.items())

    @property
    def name(self) -> str:
        """Its name as a file; a variant is told by a hash."""
        mark = hashlib.sha256(self.variant.encode()).hexdigest()[:8]
        words = [self.experiment, self.task, self.model, str(self.seed)]
        return "_".join([*words, mark] if self.variant else words)

    @property
    def command(self) -> str:
        """The command that runs it, and it alone."""
        words = ["--task", self.task, "--model", self.model, "--seed", str(self.seed)]
        words += ["--perturb", str(self.perturb)] if self.perturb else []
        for name, value in self.changes.items():
            words += ["--set", f"{name}={value!r}"]
        return f"python -m experiments {self.experiment} " + shlex.join(words)

    def about(self) -> dict[str, Any]:
        """Return what a checkpoint must agree with; without decay the budget may grow."""
        recipe = asdict(self.recipe)
        if not self.recipe.decay:
            del recipe["sequences"]
        return {
            "experiment": self.experiment,
            "task": self.task,
            "model": self.model,
            "seed": self.seed,
            "perturb": self.perturb,
            "recipe": recipe,
        }

    def build(self, inputs: int, outputs: int) -> nn.Module:
        """Make a new model for inputs and outputs of these sizes."""
        recipe = self.recipe
        if self.model == "lstm":
            return LSTM(inputs, outputs, recipe.hidden, recipe.layers)
        seen = inputs + recipe.heads * recipe.width
        controller: nn.Module = nn.LSTMCell(seen, recipe.hidden)
        if self.model == "ntm-feedforward":
            controller = nn.Sequential(nn.Linear(seen, recipe.hidden), nn.Tanh())
        model = NTM(
            inputs, outputs, recipe.slots, recipe.width, controller=controller,
            read_heads=recipe.heads, write_heads=recipe.heads, walk=recipe.walk,
        )  # fmt: skip
        if recipe.compiled:
            model.compile()
        return model

    def generate(self, count: int, **sizes: Any) -> tasks.Batch:
        """Draw sequences of the task."""
        return tasks.TASKS[self.task].generate(count, **sizes)

    def figures(self, model: nn.Module, progress: training.Progress) -> dict[str, Any]:
        """Return what is recorded of the finished run."""
        return figures(self, model, progress)


def make_model(run: Run) -> nn.Module:
    """Build the model that a run trains, drawn from its seed."""
    torch.manual_seed(run.seed)
    inputs, outputs = (x.shape[-1] for x in make_batch(run, 1, Generator())[:2])
    model = run.build(inputs, outputs)
    if run.perturb:
        bias = next(p for name, p in model.named_parameters() if "bias" in name)
        bias.data[0] += run.perturb
    return model.to(default_device())


def make_batch(run: Run, count: int, generator: Generator, **sizes: Any) -> tasks.Batch:
    """Draw sequences of the run's task, of its recipe's sizes where none are given."""
    sizes = {**run.recipe.sizes, **sizes}
    return run.generate(count, generator=generator, device=default_device(), **sizes)


def loss(model: nn.Module, batch: tasks.Batch) -> Tensor:
    """Return the mean cross entropy of the bits that count, in nats."""
    logits, _ = model(batch.inputs)
    return F.binary_cross_entropy_with_logits(logits[batch.mask], batch.targets[batch.mask])


def exam(run: Run, count: int, seed: int, at_once: int = 50, **sizes: Any) -> list[tasks.Batch]:
    """Draw `count` fresh sequences, the same at every call, `at_once` in a batch."""
    generator = Generator().manual_seed(seed)
    parts = [min(at_once, count - i) for i in range(0, count, at_once)]
    return [make_batch(run, part, generator, **sizes) for part in parts]


def examine(model: nn.Module, batches: Iterable[tasks.Batch]) -> training.Figures:
    """Return bits and wrong bits a sequence, means over all."""
    bits, wrong = [], []
    for batch in batches:
        logits, _ = model(batch.inputs)
        bits.append(tasks.bits_per_sequence(logits, batch.targets, batch.mask))
        wrong.append(tasks.wrong_bits(logits, batch.targets, batch.mask))
    return {"bits": mean(bits), "wrong_bits": mean(wrong)}


def mean(parts: list[Tensor]) -> float:
    """Return the mean of all numbers in all parts, as it is recorded."""
    return round(torch.cat(parts).double().mean().item(), 5)


def set_up(run: Run) -> training.Training:
    """Return the run, ready to be trained."""
    recipe, model = run.recipe, make_model(run)
    batches = exam(run, recipe.exam, EXAM)

    def rate(sequences: int) -> float:
        left = (1 + math.cos(math.pi * sequences / recipe.sequences)) / 2 if recipe.decay else 1
        return recipe.learning_rate * left

    return training.Training(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), eps=recipe.epsilon, fused=True),
        generator=Generator().manual_seed(DATA + run.seed),
        make_batch=lambda generator: make_batch(run, recipe.batch_size, generator),
        loss=loss,
        evaluate=lambda model: examine(model, batches),
        rate=rate,
        batch_size=recipe.batch_size,
        every=recipe.every,
        clip=training.by_running_norm(recipe.clip),
    )


@torch.no_grad()
def figures(run: Run, model: nn.Module, progress: training.Progress) -> dict[str, Any]:
    """Return what is known of a finished run: its curve, and exams it has not seen before."""
    model.eval()
    batches = exam(run, run.recipe.exam, FINAL)
    final = examine(model, batches)
    best = {}
    if run.task == "ngrams":  # the best that can be done, on the curve's sequences and at the end
        best["optimal_bits"] = optimal(exam(run, run.recipe.exam, EXAM))
        final["optimal_bits"] = optimal(batches)
    first = training.first_below(progress.curve, "wrong_bits", run.solved)
    return {
        "sequences": progress.sequences,
        "parameters": sum(p.numel() for p in model.parameters()),
        "solved_sequences": first and first["sequences"],
        "solved_seconds": first and first["seconds"],
        "seconds": round(progress.seconds, 3),
        "final": final,
        "beyond": [
            {**sizes, **examine(model, exam(run, 64, LONGER, 16, **sizes))}
            for sizes in run.beyond.get(run.task, [])
        ],
        "curve": progress.curve,
        **best,
    }


def optimal(batches: list[tasks.Batch]) -> float:
    """Return what the best estimator pays on batches of n-grams, in bits a sequence."""
    return mean([tasks.optimal_bits(batch.targets) for batch in batches])


def perform(run: Run, options: argparse.Namespace) -> str:
    """Train, examine and record one run; return a line on how it went."""
    path = options.unfinished / f"{run.name}.safetensors"
    # of the code as it is now, not when the run ends
    origin = records.origin(f"experiments.{run.experiment}")
    with files.lock(path.with_suffix(".lock"), wait=False):
        if options.fresh:
            path.unlink(missing_ok=True)
        job = set_up(run)
        job.progress.codes.append(origin["key"])
        training.train(
            job,
            run.recipe.sequences,
            path=path,
            about=run.about(),
            save_seconds=options.save_seconds,
            label=f"{run.task} {run.model} {run.seed}",
        )
        found = run.figures(job.model, job.progress)
    origin |= {"command": run.command, "key": "+".join(job.progress.codes)}
    told = {**run.about(), "variant": run.variant, "device": default_device().type, **origin}
    file = options.results / f"{run.experiment}_{run.task.replace('-', '_')}.json"
    records.merge(file, {**told, **found}, key=("model", "seed", "variant"))
    if options.export:
        checkpoints.save(file.with_suffix(".safetensors"), job.model.state_dict(), told)
    first, final = found["solved_sequences"], found["final"]
    return (
        f"{run.name}: {f'solved after {first:,} of' if first else 'not solved in'} "
        f"{found['sequences']:,} sequences, {found['seconds']:.0f} s; at the end "
        f"{final['bits']:.3g} bits, {final['wrong_bits']:.3g} wrong bits a sequence ({file.name})"
    )


def main(arguments: list[str], kind: type[Run] = Run, about: str | None = __doc__) -> None:
    """Run what the command line asks for."""
    name, recipes = kind.experiment, kind.recipes
    parser = argparse.ArgumentParser(prog=f"python -m experiments {name}", description=about)
    add = parser.add_argument
    add("--task", choices=recipes, default="copy")
    add("--model", choices=recipes["copy"], default=name)
    add("--seed", type=int, default=0, help="the first seed")
    add("--seeds", type=int, default=1, help="how many, one after the other")
    add("--sequences", type=int, help="the budget, where it is not the recipe's")
    add("--slots", type=int, help="of the memory, where they are not the recipe's")
    add("--perturb", type=float, default=0.0, help="move one bias by so much before training")
    command_line.add_changes(parser, type(recipes["copy"][name]))
    command_line.add_running(parser)
    command_line.add_results(parser)
    add("--export", action="store_true", help="keep the trained model beside the results")
    add("--save-seconds", type=float, default=20.0, help="time between checkpoints")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    asked = dict(options.set)
    for size in ("sequences", "slots"):
        if getattr(options, size) is not None:
            asked[size] = getattr(options, size)
    recipe = recipes[options.task][options.model]
    changes = {name: new for name, new in sorted(asked.items()) if new != getattr(recipe, name)}
    for seed in range(options.seed, options.seed + options.seeds):
        run = kind(options.task, options.model, seed, options.perturb, changes)
        print(perform(run, options))
