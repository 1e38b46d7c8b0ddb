"""Induction heads: two layers of attention learn them all at once, one layer never does.

A `memlib.Decoder` of attention alone reads random tokens that repeat. To name the next token, a
query has to find the token after the last occurrence of its own. Two layers can: in the first,
each token fetches the one before it; in the second, a query looks for the token that has fetched
its like. At each look two scores of each head are recorded:

======== =======================================================================================
score    weight on
======== =======================================================================================
previous the token before the query, on average over all queries but the first
prefix   all tokens that followed an earlier occurrence of the query's token, on average over the
         queries that count (prefix matching, Olsson et al. 2022, arXiv 2209.11895)
======== =======================================================================================

Every finished run is a line of ``results/induction.json``.
"""

import argparse
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from experiments import checkpoints, command_line, records, training
from experiments.tokens import figures, rise_and_fall
from memlib import Decoder, default_device, tasks
from memlib.tasks import Tokens

DATA, EXAM = 1_000_000, 2_000_000  # generators' seeds, apart


@dataclass(frozen=True)
class Recipe:
    """The task, the model but its layers, and the training.

    Attributes:
        length: steps of a row.
        period: lowest and highest number of tokens after which a row repeats; it hardly has the
            time for a third round, so that little is won by ruling out what has come again.
        vocab_size: number of tokens.
        width: of the model.
        heads: of a layer.
        batch_size: rows an update.
        rate: the highest learning rate.
        warm_up: rows over which it rises at first.
        sequences: the budget, over which it then falls to 0.
        every: rows between looks.
        exam: rows of a look.
        clip: largest norm of the gradient of each parameter.
    """

    length: int = 64
    period: tuple[int, int] = (32, 48)
    vocab_size: int = 192
    width: int = 64
    heads: int = 1
    batch_size: int = 32
    rate: float = 0.005
    warm_up: int = 1_600
    sequences: int = 25_600
    every: int = 640
    exam: int = 64
    clip: float = 1.0


RECIPE = Recipe()


def make_model(layers: int, seed: int, recipe: Recipe, **options: Any) -> Decoder:
    """Build a model of attention layers alone, drawn from the seed."""
    torch.manual_seed(seed)
    sizes = recipe.vocab_size, recipe.width, layers, recipe.heads
    return Decoder(*sizes, slots=0, **options).to(default_device())


def make_batch(count: int, generator: Generator, recipe: Recipe) -> Tokens:
    """Draw rows."""
    return tasks.induction(
        count,
        length=recipe.length,
        period=recipe.period,
        vocab_size=recipe.vocab_size,
        generator=generator,
        device=default_device(),
    )


def loss(model: nn.Module, batch: Tokens) -> Tensor:
    """Return the mean cross entropy of the tokens that can be known, in nats."""
    logits, _ = model(batch.inputs)
    return F.cross_entropy(logits[batch.mask], batch.targets[batch.mask])


def followers(tokens: Tensor) -> Tensor:
    """Which tokens, up to each query, followed one like the query's: (B, T) -> (B, T, T) bool.

    Example:
        >>> followers(torch.tensor([[5, 7, 5, 7]])).int()[0]
        tensor([[0, 0, 0, 0],
                [0, 0, 0, 0],
                [0, 1, 0, 0],
                [0, 0, 1, 0]], dtype=torch.int32)
    """
    before = F.pad(tokens, (1, 0), value=-1)[:, :-1]
    return (tokens.unsqueeze(-1) == before.unsqueeze(-2)).tril()


def head_scores(weights: list[Tensor], batch: Tokens) -> training.Figures:
    """Return both scores of each head, such as ``prefix_2_1`` of layer 2, head 1."""
    scores: training.Figures = {}
    after = followers(batch.inputs).unsqueeze(1)
    for layer, seen in enumerate(weights, 1):  # (B, H, T, T)
        previous = seen.diagonal(-1, -2, -1).mean(dim=(0, -1))  # (H,)
        prefix = (seen * after).sum(-1).transpose(0, 1)[:, batch.mask].mean(-1)
        for name, mean in (("previous", previous), ("prefix", prefix)):
            scores |= {f"{name}_{layer}_{h}": round(m, 5) for h, m in enumerate(mean.tolist(), 1)}
    return scores


def even_scores(recipe: Recipe) -> training.Figures:
    """Return the scores of a head that looks at all tokens up to the query alike."""
    batch = make_batch(recipe.exam, Generator().manual_seed(EXAM), recipe)
    weights = torch.ones(recipe.length, recipe.length, device=batch.inputs.device).tril()
    weights = weights / weights.sum(-1, keepdim=True)
    return head_scores([weights.expand(recipe.exam, 1, -1, -1)], batch)


@torch.no_grad()
def examine(model: nn.Module, batch: Tokens) -> training.Figures:
    """Return loss, accuracy and the scores of all heads."""
    logits, _, weights = model(batch.inputs, need_weights=True)
    return figures(logits[batch.mask], batch.targets[batch.mask]) | head_scores(weights, batch)


def set_up(model: Decoder, seed: int, recipe: Recipe) -> training.Training:
    """Return a run, ready to be trained."""
    exam = make_batch(recipe.exam, Generator().manual_seed(EXAM), recipe)
    return training.Training(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), fused=True),
        generator=Generator().manual_seed(DATA + seed),
        make_batch=lambda generator: make_batch(recipe.batch_size, generator, recipe),
        loss=loss,
        evaluate=lambda model: examine(model, exam),
        rate=rise_and_fall(recipe.rate, recipe.warm_up, recipe.sequences),
        batch_size=recipe.batch_size,
        every=recipe.every,
        clip=training.by_matrix(recipe.clip),
    )


def perform(layers: int, seed: int, options: argparse.Namespace) -> str:
    """Train and record one run; return a line on how it went."""
    about = {"experiment": "induction", "layers": layers, "seed": seed, "recipe": asdict(RECIPE)}
    origin = records.origin(__name__)
    job = set_up(make_model(layers, seed, RECIPE), seed, RECIPE)
    job.progress.codes.append(origin["key"])
    found = training.fit(job, RECIPE.sequences, about, options) | {"even": even_scores(RECIPE)}
    command = f"python -m experiments induction --layers {layers} --seeds {seed}"
    told = {**origin, "command": command, "key": "+".join(job.progress.codes)}
    file = options.results / "induction.json"
    records.merge(file, found | told, key=("layers", "seed"))
    if options.export:
        tensors = job.model.state_dict()
        checkpoints.save(file.with_suffix(".safetensors"), tensors, about | told)
    return f"{command}: {summary(found)}"


def summary(found: dict[str, Any]) -> str:
    """Say how a run ended."""
    last = found["curve"][-1]
    return (
        f"accuracy {last['accuracy']:.3f}, loss {last['loss']:.3f} after "
        f"{found['sequences']:,} sequences, {found['seconds']:.0f} s"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the runs of these models have in common."""
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    command_line.add_running(parser)
    command_line.add_results(parser)


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments induction", description=__doc__)
    parser.add_argument("--layers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--export", action="store_true", help="keep the model beside the record")
    add_options(parser)
    options = parser.parse_args(arguments)
    if options.export and len(options.layers) * len(options.seeds) > 1:
        parser.error("--export needs one run: one number of layers and one seed")
    torch.set_num_threads(options.threads)
    for layers in options.layers:
        for seed in options.seeds:
            print(perform(layers, seed, options), flush=True)
