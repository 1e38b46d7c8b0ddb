"""The one training loop: any model on any batches, stopped and resumed bit for bit."""

import argparse
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from experiments import checkpoints, files
from experiments.progress import tqdm

Figures = dict[str, float]
RUNNING = 0.98  # what the running norm keeps of itself at each update
SQUARED = 1e17  # from which on the sum of some squares is more than float32 holds


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        sequences: seen so far.
        seconds: of CPU time spent on updates, in all sittings together; evaluation is not in it.
        curve: evaluations, each with the ``sequences`` and ``seconds`` before it.
        codes: keys of the code that trained it, more than one if it was changed meanwhile.
        norm: running mean of the clipped gradients' norms.
    """

    sequences: int = 0
    seconds: float = 0.0
    curve: list[Figures] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    norm: float = 0.0


@dataclass
class Training:
    """What is trained, on what, and how.

    Attributes:
        model: the module.
        optimizer: over its parameters.
        generator: draws the training data, and nothing else.
        make_batch: a batch of the next sequences, drawn by the generator.
        loss: a scalar, from the model and a batch.
        evaluate: the figures of a point of the curve, from the model in evaluation mode.
        rate: the learning rate as a function of the sequences seen, and of nothing else.
        batch_size: sequences an update.
        every: sequences between evaluations.
        clip: shortens gradients, before each step; see `by_running_norm` and `by_matrix`.
        prepare: called with the sequences seen before each update and each evaluation, for what
            changes on the way, such as the end of a linear start.
        progress: how far it has come.
    """

    model: nn.Module
    optimizer: Optimizer
    generator: Generator
    make_batch: Callable[[Generator], Any]
    loss: Callable[[nn.Module, Any], Tensor]
    evaluate: Callable[[nn.Module], Figures]
    rate: Callable[[int], float]
    batch_size: int
    every: int
    clip: Callable[[nn.Module, Progress], None]
    prepare: Callable[[nn.Module, int], None] = lambda model, sequences: None
    progress: Progress = field(default_factory=Progress)

    def generators(self) -> dict[str, Generator]:
        """Return all that draws: the data's generator, and torch's own for dropout and such."""
        found = {"data": self.generator, "torch": torch.default_generator}
        for device in {p.device for p in self.model.parameters() if p.device.type == "cuda"}:
            found[str(device)] = torch.cuda.default_generators[device.index]
        return found


def train(
    training: Training,
    sequences: int,
    *,
    path: Path,
    about: Mapping[str, Any],
    save_seconds: float = 20.0,
    label: str = "",
) -> Progress:
    """Train until so many sequences are seen, going on from the checkpoint if there is one.

    Args:
        training: what is trained; changed in place.
        sequences: the budget, counted from the very start.
        path: of the checkpoint.
        about: what tells this run from any other; a checkpoint of another run is refused.
        save_seconds: time between checkpoints.
        label: before the progress bar, or before the lines that stand for it without a terminal.

    Returns:
        The progress, with the curve.

    Raises:
        KeyboardInterrupt: asked to stop by Ctrl-C; all is saved.
        CheckpointError: the checkpoint is corrupt, of another run, or beyond the budget.
        RuntimeError: the gradient is NaN or infinite.
    """
    progress = training.progress
    if path.exists():
        resume(training, path, about)
    if progress.sequences > sequences:
        raise checkpoints.CheckpointError(
            f"{path.name} must be at most at {sequences:,} sequences; got {progress.sequences:,}"
        )
    if not progress.curve:
        evaluate(training)
    saved = time.monotonic()
    with (
        asked_to_stop() as asked,
        tqdm(desc=label, total=sequences, initial=progress.sequences, disable=None) as bar,
    ):
        while progress.sequences < sequences and not asked:
            update(training)
            bar.update(training.batch_size)
            due = progress.sequences % training.every < training.batch_size
            if due or progress.sequences >= sequences:
                evaluate(training)
                bar.set_postfix({k: f"{v:.3g}" for k, v in progress.curve[-1].items()})
            if time.monotonic() - saved >= save_seconds:
                save(training, path, about)
                saved = time.monotonic()
    save(training, path, about)
    if progress.sequences < sequences:
        raise KeyboardInterrupt(f"stopped after {progress.sequences:,} sequences; all is saved")
    return progress


def update(training: Training) -> None:
    """Take one step down the gradient of one batch."""
    start = time.process_time()
    model, optimizer, progress = training.model.train(), training.optimizer, training.progress
    training.prepare(model, progress.sequences)
    for group in optimizer.param_groups:
        group["lr"] = training.rate(progress.sequences)
    optimizer.zero_grad()
    training.loss(model, training.make_batch(training.generator)).backward()
    for parameter in model.parameters():  # none is left out, so that all have optimizer state
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    training.clip(model, progress)
    optimizer.step()
    progress.sequences += training.batch_size
    progress.seconds += time.process_time() - start


def by_running_norm(ratio: float) -> Callable[[nn.Module, Progress], None]:
    """Shorten a gradient that is long beside those before it, to `ratio` running means.

    Gradients shrink a thousandfold as a task is learned; a fixed limit that tames the first ones
    never acts on the outliers that come later.
    """

    def clip(model: nn.Module, progress: Progress) -> None:
        limit = ratio * progress.norm if progress.norm else float("inf")
        norm = shorten(list(model.parameters()), limit)
        kept = min(norm, limit)
        progress.norm = RUNNING * progress.norm + (1 - RUNNING) * kept if progress.norm else kept

    return clip


def shorten(parameters: list[nn.Parameter], limit: float) -> float:
    """Shorten a gradient to a norm of `limit`; return the norm that it had.

    An unstable recurrence makes gradients whose squares overflow; those are scaled first.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    largest = max(torch.linalg.vector_norm(g, torch.inf).item() for g in gradients)
    scale = limit / largest if SQUARED < largest < float("inf") else 1.0
    if scale != 1.0:
        for gradient in gradients:
            gradient.mul_(scale)
    norm = nn.utils.clip_grad_norm_(parameters, limit, error_if_nonfinite=True).item()
    return norm / scale


def by_matrix(limit: float) -> Callable[[nn.Module, Progress], None]:
    """Shorten the gradient of each parameter by itself, to a norm of `limit`."""

    def clip(model: nn.Module, progress: Progress) -> None:
        for parameter in model.parameters():
            nn.utils.clip_grad_norm_(parameter, limit, error_if_nonfinite=True)

    return clip


def evaluate(training: Training) -> None:
    """Add a point to the curve."""
    progress = training.progress
    training.prepare(training.model, progress.sequences)
    with torch.no_grad():
        figures = training.evaluate(training.model.eval())
    progress.curve.append(
        {"sequences": progress.sequences, **figures, "seconds": round(progress.seconds, 3)}
    )


def save(training: Training, path: Path, about: Mapping[str, Any]) -> None:
    """Write a checkpoint: after it, nothing of the past is needed."""
    tensors = checkpoints.flatten(training.model, training.optimizer, training.generators())
    checkpoints.save(path, tensors, {"run": about, "progress": asdict(training.progress)})


def resume(training: Training, path: Path, about: Mapping[str, Any]) -> None:
    """Go back to where a checkpoint was written, to the bit."""
    parts = training.model, training.optimizer, training.generators()
    checkpoints.prime(training.optimizer)
    like = checkpoints.flatten(*parts)
    tensors, found = checkpoints.load(path, expected={"run": about}, like=like)
    checkpoints.unflatten(tensors, *parts)
    new = [key for key in training.progress.codes if key not in found["progress"]["codes"]]
    vars(training.progress).update(found["progress"])
    training.progress.codes += new


def first_below(curve: list[Figures], name: str, limit: float) -> Figures | None:
    """Return the first point of a curve at which a figure lies below a limit, if any does.

    Example:
        >>> first_below([{"sequences": 0, "loss": 9.0}, {"sequences": 4, "loss": 1.0}], "loss", 2)
        {'sequences': 4, 'loss': 1.0}
    """
    return next((point for point in curve if point[name] < limit), None)


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """Let Ctrl-C (or a polite kill) fill a list instead of breaking off what is under way.

    The second one breaks off at once.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(number, before[number])

    before = {int(n): signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fit(
    job: Training, sequences: int, about: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Train a run that the command line asks for, or go on with it; return what is recorded of any.

    The name of its checkpoint is made of what tells it apart from others, all of `about` but dicts.
    """
    chosen = [str(value) for value in about.values() if not isinstance(value, dict)]
    path = options.unfinished / f"{'_'.join(chosen)}.safetensors"
    with files.lock(path.with_suffix(".lock"), wait=False):
        if options.fresh:
            path.unlink(missing_ok=True)
        train(job, sequences, path=path, about=about, label=" ".join(chosen))
    return {
        **about,
        "sequences": job.progress.sequences,
        "seconds": round(job.progress.seconds, 3),
        "parameters": sum(p.numel() for p in job.model.parameters()),
        "curve": job.progress.curve,
    }
