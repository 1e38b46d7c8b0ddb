"""End-to-end memory networks on the bAbI tasks, as in tables 1 and 3 of the paper.

One model a task, or one for all of them (``--joint``). Each is trained from several starts, of
which the one with the smallest *training* error counts. Choices are made on a tenth of the
training questions, kept apart; the test questions are asked once, when all starts are trained.
"""

import argparse
import hashlib
import json
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from experiments import checkpoints, command_line, files, records, training
from memlib import MemN2N, default_device
from memlib.tasks import (
    Question,
    QuestionBatch,
    Stories,
    Vocabulary,
    babi_file,
    find_babi,
    read_babi,
)

FAILED = 5.0  # per cent of error above which a task counts as failed
HELD_BACK = 0.1  # share of the training questions that is kept for choices


@dataclass(frozen=True)
class Recipe:
    """How a model is made and trained.

    Attributes:
        width: of an embedding.
        hops: reads.
        linear_epochs: without softmax, at first.
        linear_rate: learning rate meanwhile.
        epochs: after that.
        rate: learning rate after that.
        halve: epochs after which the rate is halved, again and again.
        batch_size: questions an update, drawn with replacement.
        clip: largest norm of the gradient of each matrix, whose loss is summed over the batch.
        noise: random gaps in the ages of the sentences, see `memlib.MemN2N`.
        slots: newest sentences that are readable.
        tying: of the matrices.
        encoding: of a sentence.
        relu: between hops.
        empty: slots in the softmax.
        decay: of the weights, a share at each update in learning rates.
        dropout: share of the words not heard in training.
    """

    width: int
    linear_epochs: int
    epochs: int
    halve: int
    hops: int = 3
    linear_rate: float = 0.005
    rate: float = 0.005
    batch_size: int = 32
    clip: float = 40.0
    noise: float = 0.1
    slots: int = 50
    tying: str = "adjacent"
    encoding: str = "position"
    relu: bool = False
    empty: bool = True
    decay: float = 0.0
    dropout: float = 0.0


# The paper's, section 4.2, with the linear start of its official code, which lasts for a fixed
# number of epochs. Jointly on ten times the data, the paper trains a third as long.
SINGLE = Recipe(width=20, linear_epochs=20, epochs=100, halve=25)
JOINT = Recipe(width=50, linear_epochs=30, epochs=60, halve=15)
LARGE_JOINT = replace(JOINT, linear_epochs=10, epochs=20, halve=5)
LARGE = 5_000  # training questions a task, from which on the data count as the large set


@dataclass(frozen=True)
class Run:
    """One model: the tasks it learns, from which start, and what differs from the recipe."""

    data: Path
    tasks: tuple[int, ...]
    joint: bool
    seed: int
    changes: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, questions: int) -> Recipe:
        """The recipe for so many training questions, with the changes."""
        large = questions >= LARGE * len(self.tasks)
        joint = LARGE_JOINT if large else JOINT
        return replace(joint if self.joint else SINGLE, **self.changes)


@dataclass(frozen=True)
class Data:
    """The questions of one model: to train on, to choose by, and to be tested on."""

    vocabulary: Vocabulary
    train: Stories
    valid: Stories
    test: Stories
    digest: str  # of the files


def load(run: Run, slots: int) -> Data:
    """Read the files of the run's tasks and keep some training questions back, the same always."""
    digest = hashlib.sha256()
    questions: dict[str, list[Question]] = {"train": [], "test": []}
    for task in run.tasks:
        for split in ("train", "test"):
            path = babi_file(run.data, task, split)
            digest.update(path.read_bytes())
            questions[split] += read_babi(path, task=task)
    vocabulary = Vocabulary.of(questions["train"])
    told = vocabulary.encode(questions["train"], slots=slots)
    order = torch.randperm(len(told.answer), generator=Generator().manual_seed(0))
    kept = round(HELD_BACK * len(order))
    device = default_device()
    return Data(
        vocabulary,
        told.select(order[kept:]).to(device),
        told.select(order[:kept]).to(device),
        vocabulary.encode(questions["test"], slots=slots, unknown="skip").to(device),
        digest.hexdigest()[:16],
    )


def make_model(recipe: Recipe, data: Data, seed: int) -> MemN2N:
    """Build the model, drawn from the seed."""
    torch.manual_seed(seed)
    model = MemN2N(
        len(data.vocabulary),
        len(data.vocabulary.answers),
        recipe.width,
        recipe.hops,
        slots=recipe.slots,
        tying=recipe.tying,  # type: ignore[arg-type]  # checked there
        encoding=recipe.encoding,  # type: ignore[arg-type]
        noise=recipe.noise,
        relu=recipe.relu,
        empty=recipe.empty,
    )
    return model.to(default_device())


def loss(model: nn.Module, batch: QuestionBatch, dropout: float = 0.0) -> Tensor:
    """Return the cross entropy of the right answers, summed over the batch, in nats."""
    story = batch.story
    if dropout:
        story = story * (torch.rand(story.shape, device=story.device) >= dropout)
    return F.cross_entropy(model(story, batch.question), batch.answer, reduction="sum")


@torch.no_grad()
def errors(model: nn.Module, stories: Stories, at_once: int = 500) -> dict[int, float]:
    """Return the wrong answers of each task, in per cent."""
    model.eval()
    every = torch.arange(len(stories.answer), device=stories.answer.device)
    batches = [stories.padded(rows) for rows in every.split(at_once)]
    wrong = torch.cat([model(b.story, b.question).argmax(-1) != b.answer for b in batches])
    return {
        int(task): round(100 * wrong[stories.task == task].double().mean().item(), 3)
        for task in stories.task.unique()
    }


def mean(error: Mapping[int, float]) -> float:
    """Return the mean over the tasks, as it is recorded."""
    return round(statistics.fmean(error.values()), 3)


def set_up(recipe: Recipe, data: Data, seed: int) -> tuple[training.Training, int]:
    """Return a model ready to be trained, and the number of questions it is to see."""
    model = make_model(recipe, data, seed)
    epoch = len(data.train.answer) // recipe.batch_size * recipe.batch_size
    linear = recipe.linear_epochs * epoch

    def rate(seen: int) -> float:
        halvings = (seen - linear) // (recipe.halve * epoch)
        return recipe.linear_rate if seen < linear else recipe.rate * 0.5**halvings

    def prepare(model: nn.Module, seen: int) -> None:
        assert isinstance(model, MemN2N)
        model.linear = seen < linear

    def make_batch(generator: Generator) -> QuestionBatch:
        rows = torch.randint(len(data.train.answer), (recipe.batch_size,), generator=generator)
        return data.train.padded(rows.to(data.train.answer.device))

    job = training.Training(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=recipe.rate, weight_decay=recipe.decay),
        generator=Generator().manual_seed(1_000_000 + seed),
        make_batch=make_batch,
        loss=lambda model, batch: loss(model, batch, recipe.dropout),
        evaluate=lambda model: {"valid_error": mean(errors(model, data.valid))},
        rate=rate,
        batch_size=recipe.batch_size,
        every=10 * epoch,
        clip=training.by_matrix(recipe.clip),
        prepare=prepare,
    )
    return job, (recipe.linear_epochs + recipe.epochs) * epoch


def fit(run: Run, options: argparse.Namespace) -> tuple[training.Training, Recipe, Data]:
    """Train one model, or find it trained; return it with its recipe and its questions."""
    data = load(run, run.changes.get("slots", SINGLE.slots))
    recipe = run.recipe(len(data.train.answer) + len(data.valid.answer))
    job, budget = set_up(recipe, data, run.seed)
    chosen = {"tasks": list(run.tasks), "joint": run.joint, "seed": run.seed}
    about = {"experiment": "babi", **chosen, "files": data.digest, "recipe": asdict(recipe)}
    mark = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    path = options.unfinished / f"babi_{mark}.safetensors"
    job.progress.codes.append(records.origin(__name__)["key"])
    with files.lock(path.with_suffix(".lock"), wait=False):
        if options.fresh:
            path.unlink(missing_ok=True)
        name = "joint" if run.joint else f"task {run.tasks[0]}"
        training.train(job, budget, path=path, about=about, label=f"{name} {run.seed}")
    return job, recipe, data


def perform(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """Train one model, or find it trained; return its errors and its curve."""
    job, recipe, data = fit(run, options)
    parts = {"train": data.train, "valid": data.valid}
    parts |= {} if options.valid else {"test": data.test}
    found = {f"{part}_error": errors(job.model, asked) for part, asked in parts.items()}
    return {
        "seed": run.seed,
        **found,
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in job.model.parameters()),
        "words": len(data.vocabulary),
        "answers": len(data.vocabulary.answers),
        "seconds": round(job.progress.seconds, 1),
        "codes": job.progress.codes,
        "curve": job.progress.curve,
    }


def export(run: Run, options: argparse.Namespace, command: str) -> None:
    """Keep a trained model beside the record, with the words that its numbers stand for."""
    job, recipe, data = fit(run, argparse.Namespace(**{**vars(options), "fresh": False}))
    about = {
        "experiment": "babi",
        "command": command,
        "tasks": list(run.tasks),
        "seed": run.seed,
        "recipe": asdict(recipe),
        "answers": list(data.vocabulary.answers),
        "words": list(data.vocabulary.words),
        **records.origin(__name__),
    }
    checkpoints.save(options.out.with_suffix(".safetensors"), job.model.state_dict(), about)


def choose(restarts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the restart with the smallest training error; of equals, the first."""
    return min(restarts, key=lambda restart: mean(restart["train_error"]))


def summary(groups: list[list[dict[str, Any]]], part: str) -> dict[str, Any]:
    """Put the models' errors together: of the chosen restarts, and of all, seed by seed."""
    error = {task: e for group in groups for task, e in choose(group)[part].items()}
    by_seed = [
        mean({t: e for group in groups for t, e in group[i][part].items()})
        for i in range(len(groups[0]))
    ]
    return {
        part: dict(sorted(error.items())),
        "mean": mean(error),
        "failed": sum(e > FAILED for e in error.values()),
        "mean_by_seed": by_seed,
        "mean_of_seeds": round(statistics.fmean(by_seed), 3),
        "sd_of_seeds": round(statistics.stdev(by_seed), 3) if len(by_seed) > 1 else None,
    }


def numbers(text: str) -> tuple[int, ...]:
    """Read task numbers from the command line."""
    if text == "all":
        return tuple(range(1, 21))
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"tasks must be all or numbers; got {text}") from None
    if len(set(found)) < len(found) or not all(1 <= task <= 20 for task in found):
        raise argparse.ArgumentTypeError(f"tasks must be different numbers in [1, 20]; got {text}")
    return found


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments babi", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, help="where the files are; without it, where memlib finds them")
    add("--tasks", type=numbers, default=numbers("all"), help="all, or numbers such as 1,2,3")
    add("--joint", action="store_true", help="one model for all the tasks")
    add("--hops", type=int, default=3)
    add("--seed", type=int, default=0, help="the first seed")
    add("--restarts", type=int, default=1, help="seeds from there on, of which one is chosen")
    command_line.add_changes(parser, Recipe)
    add("--valid", action="store_true", help="do not ask the test questions: to choose by")
    add("--out", type=Path, help="JSON file of the errors")
    add("--export", action="store_true", help="keep the chosen model, beside the JSON file")
    command_line.add_running(parser)
    options = parser.parse_args(arguments)
    if options.restarts < 1:
        parser.error(f"--restarts must be at least 1; got {options.restarts}")
    if options.export and not (options.out and (options.joint or len(options.tasks) == 1)):
        parser.error("--export needs --out, and one model: --joint or a single task")
    torch.set_num_threads(options.threads)
    data = find_babi(options.data)  # the folder of any set, or one that holds en
    changes = {"hops": options.hops, **dict(options.set)}
    models = [options.tasks] if options.joint else [(task,) for task in options.tasks]
    seeds = range(options.seed, options.seed + options.restarts)
    runs = [[Run(data, tasks, options.joint, seed, changes) for seed in seeds] for tasks in models]
    groups = [[perform(run, options) for run in group] for group in runs]
    part = "valid_error" if options.valid else "test_error"
    found = summary(groups, part)
    for task, error in found[part].items():
        print(f"task {task:2}: {error:5.1f} %{' (failed)' if error > FAILED else ''}")
    print(f"mean {found['mean']:.2f} %, {found['failed']} failed ({part.replace('_', ' ')})")
    if options.out:
        command = "python -m experiments babi " + shlex.join(again(arguments))
        told = {"data": data.name, "joint": options.joint, "command": command}
        models_told = [{"chosen": choose(g)["seed"], "restarts": g} for g in groups]
        record = {**found, **told, **records.origin(__name__), "models": models_told}
        files.write(options.out, (json.dumps(record, indent=1) + "\n").encode())
        if options.export:
            best = choose(groups[0])["seed"]
            export(next(run for run in runs[0] if run.seed == best), options, command)


def again(arguments: list[str]) -> list[str]:
    """Return the command's words without the paths of this machine."""
    words, skip = [], False
    for word in arguments:
        if skip or word == "--fresh":
            skip = False
            continue
        skip = word in ("--data", "--out", "--unfinished")
        words += [] if skip else [word]
    return words
