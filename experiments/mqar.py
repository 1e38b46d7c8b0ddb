"""Multi-query associative recall: accuracy against the bytes that are kept of the text.

Two settings. ``figure2`` is that of full attention in figure 2 of Arora et al. 2023 (arXiv
2312.04927): 64 steps, 4 pairs, 8,192 tokens, width 64, two layers of one head, learned positions,
no feed-forward layers, learning rates on a grid. We stop at 99.5 %, they at 99. Every sequence is
new, where they show 100,000 up to 64 times.

``frontier`` has more pairs and eleven mixers, most in several sizes: full attention, attention with
a window, with the segment before, with memory tokens, and seven that keep a matrix, by rules of
`memlib.FastWeights`. All have two layers of one head and width 64, and before each mixer a
convolution over two tokens. Without it a matrix cannot tell which value came after which key; so
all get it, and what it keeps is counted. The vocabulary has 512 tokens, so that a run takes half a
minute of one core. Segments and memory tokens read half a row at once: the pairs and the first
questions, then the other questions, for which only what was carried over can help.

Linear attention as it was published, ``divided``, reads the mean of the values and learns nothing
here; ``linear`` has a norm after the read, which undoes the division, and steeper features.

Every finished run is a line of ``results/mqar.json``. Runs that are there are skipped, and so are
those that another process is at: the same command may run twice, side by side.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from experiments import command_line, files, records, training
from experiments.mixers import MixerModel, nbytes
from experiments.tokens import figures, rise_and_fall
from memlib import FastWeights, MemoryAttention, default_device, tasks
from memlib.fast_weights.gates import Rule
from memlib.tasks import Tokens
from memlib.transformer.layers import Positions

KEY = ("setting", "mixer", "size", "seed", "rate")  # of a record
DATA, EXAM, FINAL = (n * 1_000_000 for n in range(1, 4))  # generators' seeds, apart
WIDTH, LAYERS = 64, 2
CLIP = 1.0  # largest norm of the gradient of each parameter
RULES: dict[str, Rule] = {  # of the mixers that keep a matrix
    "divided": "linear",
    "linear": "linear",
    "sum": "sum",
    "decayed": "decayed sum",
    "delta": "delta",
    "gated": "gated delta",
    "general": "general",
}


@dataclass(frozen=True)
class Setting:
    """The task, the training and the points of the curve.

    Attributes:
        pairs: of a row.
        vocab_size: number of tokens.
        kernel: of the convolution before each mixer; 1 is none.
        positions: that attention knows of.
        batch_size: rows an update.
        sequences: the budget, over which the learning rate falls to 0 along half a cosine.
        warm_up: sequences over which it rises at first.
        every: sequences between looks at the accuracy.
        sizes: of each mixer: slots of full attention, a window, a segment memory; number of
            memory tokens; key width of the matrices.
        length: steps of a row.
        segment: steps that segments and memory tokens read at once.
        rates: learning rates.
        solved: share of right answers at a look that ends the training.
        exam: rows of a look.
        final: rows of the last exam.
    """

    pairs: int
    vocab_size: int
    kernel: int
    positions: Positions
    batch_size: int
    sequences: int
    warm_up: int
    every: int
    sizes: dict[str, tuple[int, ...]]
    rates: tuple[float, ...]
    solved: float = 0.99
    length: int = 64
    segment: int = 32
    exam: int = 200
    final: int = 1000


SETTINGS = {
    "figure2": Setting(
        pairs=4,
        vocab_size=8192,
        kernel=1,
        positions="learned",
        batch_size=64,
        sequences=102_400,
        warm_up=3_200,
        every=6_400,
        sizes={"attention": (64,)},
        rates=(0.001, 0.002, 0.004),
        solved=0.995,
        exam=500,
    ),
    "frontier": Setting(
        pairs=8,
        vocab_size=512,
        kernel=2,
        positions="rotary",
        batch_size=32,
        sequences=38_400,
        warm_up=1_600,
        every=3_200,
        sizes={
            "attention": (64,),
            "window": (16, 32),
            "segments": (16, 32),
            "tokens": (2, 8),
            **dict.fromkeys(RULES, (4, 16, 64)),
            "divided": (64,),
        },
        rates=(0.002, 0.005, 0.01),
    ),
}


@dataclass(frozen=True)
class Run:
    """One run: a point of the curve, a seed and a learning rate."""

    setting: str
    mixer: str
    size: int
    seed: int
    rate: float

    def about(self) -> dict[str, Any]:
        """Return what a checkpoint and a record must agree with."""
        recipe = asdict(SETTINGS[self.setting])
        del recipe["sizes"], recipe["rates"]
        fixed = {"width": WIDTH, "layers": LAYERS, "clip": CLIP}
        return {"experiment": "mqar", **asdict(self), "recipe": recipe | fixed}

    @property
    def command(self) -> str:
        """The command that runs it, and it alone."""
        words = {
            "setting": self.setting,
            "mixers": self.mixer,
            "sizes": self.size,
            "seeds": self.seed,
            "rates": self.rate,
        }
        return " ".join(["python -m experiments mqar", *(f"--{k} {v}" for k, v in words.items())])

    @property
    def at_once(self) -> int:
        """How many steps the model reads at once."""
        setting = SETTINGS[self.setting]
        return setting.segment if self.mixer in ("segments", "tokens") else setting.length


def make_model(run: Run) -> MixerModel:
    """Build the model, drawn from the run's seed."""
    torch.manual_seed(run.seed)
    setting = SETTINGS[run.setting]
    model = MixerModel(
        setting.vocab_size,
        WIDTH,
        [make_mixer(run) for _ in range(LAYERS)],
        kernel=setting.kernel,
        memory_tokens=run.size if run.mixer == "tokens" else 0,
    )
    return model.to(default_device())


def make_mixer(run: Run) -> nn.Module:
    """Build the mixer of a layer."""
    if run.mixer in RULES:
        layer = FastWeights(WIDTH, rule=RULES[run.mixer], key_width=run.size)
        if run.mixer == "divided":
            layer.set_submodule("norm", nn.Identity())
            layer.scale = nn.Parameter(torch.ones(1, 1, 1), requires_grad=False)
        return layer
    setting, window = SETTINGS[run.setting], run.size if run.mixer == "window" else None
    options: dict[str, Any] = {"positions": setting.positions, "length": setting.length}
    return MemoryAttention(WIDTH, heads=1, window=window, **options)


def make_batch(run: Run, count: int, generator: Generator) -> Tokens:
    """Draw rows of the run's setting."""
    setting = SETTINGS[run.setting]
    return tasks.mqar(
        count,
        length=setting.length,
        pairs=setting.pairs,
        vocab_size=setting.vocab_size,
        generator=generator,
        device=default_device(),
    )


def before(run: Run, model: MixerModel, batch_size: int) -> Any:
    """Return the memory before the first step, None where the model makes it."""
    if run.mixer != "segments":
        return None
    return [(None, mixer.segment_memory(batch_size, run.size)) for mixer in model.mixers]


def answer(run: Run, model: nn.Module, batch: Tokens) -> tuple[Tensor, Tensor]:
    """Return the logits (N, V) and the targets (N,) of all steps that count."""
    assert isinstance(model, MixerModel)
    memory, logits, targets = before(run, model, len(batch.inputs)), [], []
    for inputs, wanted, mask in zip(*(x.split(run.at_once, dim=1) for x in batch), strict=True):
        found, memory = model(inputs, memory, at=mask)
        logits.append(found)
        targets.append(wanted[mask])
    return torch.cat(logits), torch.cat(targets)


@torch.no_grad()
def examine(run: Run, model: nn.Module, batch: Tokens) -> training.Figures:
    """Return the loss in nats and the share of right answers."""
    return figures(*answer(run, model, batch))


@torch.no_grad()
def memory_bytes(run: Run, model: MixerModel) -> dict[str, int]:
    """Count what must be kept to go on with a row, token by token, from memories that are made.

    Returns:
        ``carried``, what goes from segment to segment, or through the row where it has none, and
        ``bytes``, that and the keys and values of the segment under way.
    """
    setting, mixers = SETTINGS[run.setting], model.mixers
    row = make_batch(run, 1, Generator()).inputs[:, : run.at_once]
    memory, segment = before(run, model, 1), []
    if run.mixer in ("attention", "window"):
        memory = [(None, mixer.cache(1, None if mixer.window else run.size)) for mixer in mixers]
    elif run.mixer in ("segments", "tokens"):
        slots = len(model.tokens) + setting.segment
        segment = [mixer.cache(1, slots) for mixer in mixers]
    if run.mixer == "tokens":  # the convolutions, which begin anew in each segment
        segment += LAYERS * [torch.empty(1, setting.kernel - 1, WIDTH)]
    carried = nbytes(model(row, memory)[1])
    return {"bytes": carried + nbytes(segment), "carried": carried}


def set_up(run: Run) -> training.Training:
    """Return the run, ready to be trained."""
    setting, model = SETTINGS[run.setting], make_model(run)
    exam = make_batch(run, setting.exam, Generator().manual_seed(EXAM))
    return training.Training(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), fused=True),
        generator=Generator().manual_seed(DATA + run.seed),
        make_batch=lambda generator: make_batch(run, setting.batch_size, generator),
        loss=lambda model, batch: F.cross_entropy(*answer(run, model, batch)),
        evaluate=lambda model: examine(run, model, exam),
        rate=rise_and_fall(run.rate, setting.warm_up, setting.sequences),
        batch_size=setting.batch_size,
        every=setting.every,
        clip=training.by_matrix(CLIP),
    )


def fit(run: Run, path: Path, key: str) -> training.Training:
    """Train from look to look, until one finds the task solved or the budget is spent."""
    job, setting = set_up(run), SETTINGS[run.setting]
    progress = job.progress
    progress.codes.append(key)
    if path.exists():
        training.resume(job, path, run.about())
    while progress.sequences < setting.sequences and not solved(run, progress):
        look = (progress.sequences // setting.every + 1) * setting.every
        goal = min(look, setting.sequences)
        training.train(job, goal, path=path, about=run.about(), label=f"{run.mixer} {run.size}")
    return job


def solved(run: Run, progress: training.Progress) -> bool:
    """Whether the last look found the task solved."""
    curve = progress.curve
    return bool(curve) and curve[-1]["accuracy"] >= SETTINGS[run.setting].solved


def perform(run: Run, options: argparse.Namespace) -> str:
    """Train, examine and record one run, if nobody did; return a line on how it went."""
    mark = hashlib.sha256(json.dumps(run.about()).encode()).hexdigest()[:16]
    path, file = options.unfinished / f"mqar_{mark}.safetensors", options.results / "mqar.json"
    with files.lock(path.with_suffix(".lock"), wait=False):
        if options.fresh:
            path.unlink(missing_ok=True)
        elif run.about() in recorded(file):
            return f"{run.command}: done before"
        origin = records.origin(__name__)
        job = fit(run, path, origin["key"])
        assert isinstance(job.model, MixerModel)
        model, progress = job.model.eval(), job.progress
        final = make_batch(run, SETTINGS[run.setting].final, Generator().manual_seed(FINAL))
        found = {
            **examine(run, model, final),
            **memory_bytes(run, model),
            "solved": solved(run, progress),
            "sequences": progress.sequences,
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds": round(progress.seconds, 3),
            "curve": progress.curve,
        }
        told = {"command": run.command, **origin, "key": "+".join(progress.codes)}
        records.merge(file, {**run.about(), **found, **told}, key=KEY)
        path.unlink()
    return (
        f"{run.command}: {found['accuracy']:.3f} with {found['bytes']:,} bytes, "
        f"{found['sequences']:,} sequences, {found['seconds']:.0f} s"
    )


def recorded(file: Path) -> list[dict[str, Any]]:
    """Return what each run of the file was about."""
    runs = json.loads(file.read_text())["runs"] if file.exists() else []
    return [{name: run[name] for name in ("experiment", *KEY, "recipe")} for run in runs]


def chosen(options: argparse.Namespace) -> Iterator[Run]:
    """Go through the runs that the command line asks for, seed by seed."""
    setting = SETTINGS[options.setting]
    for seed in options.seeds:
        for mixer in options.mixers or setting.sizes:
            for size in options.sizes or setting.sizes[mixer]:
                for rate in options.rates or setting.rates:
                    yield Run(options.setting, mixer, size, seed, rate)


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments mqar", description=__doc__)
    add = parser.add_argument
    add("--setting", choices=SETTINGS, default="frontier")
    add("--mixers", nargs="+", choices=SETTINGS["frontier"].sizes, help="all where none is named")
    add("--sizes", nargs="+", type=int, help="where they are not the setting's")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--rates", nargs="+", type=float, help="learning rates, where they are not the setting's")
    command_line.add_running(parser)
    command_line.add_results(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for run in chosen(options):
        try:
            print(perform(run, options), flush=True)
        except BlockingIOError:
            print(f"{run.command}: another process is at it", flush=True)
