"""The small model of the Transformer chapter from several starts, and what its parts do.

Texts repeat 16 to 32 words again and again, words 0 to 15 being countries; after a country stands
its capital, the word 48 higher. The model and its training are those of the chapter: two layers of
two heads and 64 feed-forward slots, trained until 99 of 100 successors are known from the text.
Then each part is taken away, by making it add nothing, and three things are counted again:

============= ==================================================================================
text          of the words said before (no countries), how many get what followed them
training      of the countries that are new in their text, how many get their capital
alone         of the 16 countries as texts of one word, how many get their capital
============= ==================================================================================

Where a country is the answer, the head of layer 2 that the text needs most is watched: how often
most of its weight lies on the capital's slot, and how many answers are left where the first
attention adds nothing to the slots of capitals, or of countries.

Every run is a line of ``results/capitals.json``. With ``--export`` the model lies beside it.
"""

import argparse
import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from experiments import checkpoints, command_line, records, training
from experiments.induction import followers
from memlib import Decoder, tasks

DATA, EXAM = 1_000_000, 2_000_000  # generators' seeds, apart
COUNTRIES, CAPITALS = 16, 48  # words below are countries; from there on they are capitals
PARTS = ("head 1", "head 2", "attention", "feed-forward")


@dataclass(frozen=True)
class Recipe:
    """The texts, the model and the training.

    Attributes:
        length: words of a text that are read.
        period: lowest and highest number of words after which it repeats.
        vocab_size: number of words.
        width: of the model.
        layers: of the model.
        heads: of a layer.
        slots: of each feed-forward memory.
        batch_size: texts an update.
        rate: the learning rate.
        warm_up: updates over which it rises.
        updates: the most there are.
        every: updates between looks.
        exam: texts of a look.
        enough: share of successors at which training ends.
        clip: largest norm of the gradient of each parameter.
    """

    length: int = 80
    period: tuple[int, int] = (16, 32)
    vocab_size: int = 64
    width: int = 64
    layers: int = 2
    heads: int = 2
    slots: int = 64
    batch_size: int = 32
    rate: float = 0.01
    warm_up: int = 50
    updates: int = 800
    every: int = 20
    exam: int = 64
    enough: float = 0.99
    clip: float = 1.0


RECIPE = Recipe()


def texts(count: int, generator: Generator, recipe: Recipe = RECIPE) -> Tensor:
    """Draw texts (B, length + 1) that repeat, with the capitals put in."""
    words = tasks.induction(
        count,
        length=recipe.length + 1,
        vocab_size=CAPITALS,
        period=recipe.period,
        generator=generator,
    ).inputs
    for t in range(1, recipe.length + 1):
        before = words[:, t - 1]
        words[:, t] = torch.where(before < COUNTRIES, before + CAPITALS, words[:, t])
    return words


def kinds(words: Tensor) -> tuple[Tensor, Tensor]:
    """Where the next word is a capital at first sight, and where it is known from the text."""
    inputs = words[:, :-1]
    seen = (inputs.unsqueeze(-1) == inputs.unsqueeze(-2)).tril(-1).any(-1)  # (B, T)
    country = inputs < COUNTRIES
    return country & ~seen, ~country & seen


def loss(model: torch.nn.Module, words: Tensor) -> Tensor:
    """Return the mean cross entropy of what can be known, in nats."""
    taught, told = kinds(words)
    logits, _ = model(words[:, :-1])
    return F.cross_entropy(logits[taught | told], words[:, 1:][taught | told])


def examine(model: torch.nn.Module, words: Tensor) -> training.Figures:
    """Return the shares of right answers, and where each head looks."""
    inputs, (taught, told) = words[:, :-1], kinds(words)
    logits, _, weights = model(inputs, need_weights=True)
    right = logits.argmax(-1) == words[:, 1:]
    found = {"training": _share(right[taught]), "text": _share(right[told])}
    for n, seen in enumerate(weights, 1):  # (B, H, T, T)
        prefix = (seen * followers(inputs).unsqueeze(1)).sum(-1)
        before = F.pad(seen.diagonal(-1, -2, -1), (1, 0))
        for name, weight in (("prefix", prefix), ("before", before)):
            means = weight.transpose(0, 1)[:, told].mean(-1).tolist()
            found |= {f"{name}_{n}_{h}": round(mean, 5) for h, mean in enumerate(means, 1)}
    return found


def make_model(recipe: Recipe = RECIPE) -> Decoder:
    """Build the model."""
    sizes = recipe.vocab_size, recipe.width, recipe.layers, recipe.heads
    return Decoder(*sizes, slots=recipe.slots)


def without(model: Decoder, layer: int, part: str) -> Decoder:
    """Return a copy in which a head, all attention or the feed-forward memory adds nothing."""
    cut = copy.deepcopy(model)
    block: Any = cut.blocks[layer - 1]
    output, width = block.attention.output.weight.data, block.attention.head_width  # (D, H M)
    if part == "feed-forward":
        block.feed_forward.values.data.zero_()
    elif part == "attention":
        output.zero_()
    else:
        head = int(part.removeprefix("head ")) - 1
        output[:, head * width : (head + 1) * width].zero_()
    return cut


@torch.no_grad()
def known(model: Decoder, words: Tensor) -> dict[str, Any]:
    """Return what is known from the text, from training, and of how many countries alone."""
    found = examine(model, words)
    alone = torch.arange(COUNTRIES)
    guesses = model(alone.unsqueeze(1))[0][:, 0].argmax(-1)
    right = int((guesses == alone + CAPITALS).sum())
    return {"text": found["text"], "training": found["training"], "alone": right}


@torch.no_grad()
def before_countries(model: Decoder, words: Tensor, head: int) -> dict[str, Any]:
    """Look at queries whose answer is a country, and at a head of layer 2.

    Returns:
        How many there are; of how many the capital of the answer, and the answer itself, has most
        of the head's weight; its prefix-matching score there and at all other words said before;
        shares of right answers as it is, and where the first attention adds nothing to the slots
        of capitals, or of countries.
    """
    inputs, answers, (_, told) = words[:, :-1], words[:, 1:], kinds(words)
    here, elsewhere = told & (answers < COUNTRIES), told & (answers >= COUNTRIES)
    weights = model(inputs, need_weights=True)[2][1][:, head - 1]
    top = inputs.gather(1, weights.argmax(-1))[here]
    prefix = (weights * followers(inputs)).sum(-1)
    shares = {
        name: _share(silenced(model, inputs, slots).argmax(-1)[here] == answers[here])
        for name, slots in (
            ("whole", torch.zeros_like(told)),
            ("no_capitals", inputs >= CAPITALS),
            ("no_countries", inputs < COUNTRIES),
        )
    }
    return {
        "queries": int(here.sum()),
        "on_capital": int((top == answers[here] + CAPITALS).sum()),
        "on_country": int((top == answers[here]).sum()),
        "prefix": round(prefix[here].mean().item(), 5),
        "prefix_elsewhere": round(prefix[elsewhere].mean().item(), 5),
        **shares,
    }


def silenced(model: Decoder, tokens: Tensor, slots: Tensor) -> Tensor:
    """Return the logits where the first attention adds nothing at some places (B, T)."""
    x = model.embedding[tokens]
    for n, block in enumerate(model.blocks):
        part: Any = block
        y = part.attention(part.attention_norm(x))[0]
        x = x + (y.masked_fill(slots.unsqueeze(-1), 0) if n == 0 else y)
        x = x + part.feed_forward(part.feed_forward_norm(x))
    logits: Tensor = model.norm(x) @ model.embedding.T
    return logits


def _share(right: Tensor) -> float:
    return round(right.double().mean().item(), 5)


def set_up(seed: int, recipe: Recipe) -> training.Training:
    """Return a run, ready to be trained."""
    torch.manual_seed(seed)
    model = make_model(recipe)
    exam = texts(recipe.exam, Generator().manual_seed(EXAM), recipe)
    step = recipe.batch_size
    return training.Training(
        model=model,
        optimizer=torch.optim.Adam(model.parameters()),
        generator=Generator().manual_seed(DATA + seed),
        make_batch=lambda generator: texts(step, generator, recipe),
        loss=loss,
        evaluate=lambda model: examine(model, exam),
        rate=lambda seen: recipe.rate * min(1.0, (seen // step + 1) / recipe.warm_up),
        batch_size=step,
        every=recipe.every * step,
        clip=training.by_matrix(recipe.clip),
    )


def train(job: training.Training, recipe: Recipe) -> None:
    """Train until enough is known from the text, or the updates are spent."""
    training.evaluate(job)
    for update in range(1, recipe.updates + 1):
        training.update(job)
        if update % recipe.every == 0:
            training.evaluate(job)
            if job.progress.curve[-1]["text"] > recipe.enough:
                break


def perform(seed: int, options: argparse.Namespace) -> str:
    """Train, take apart and record one run; return a line on how it went."""
    about = {"experiment": "capitals", "seed": seed, "recipe": asdict(RECIPE)}
    command = f"python -m experiments capitals --seeds {seed}"
    told = {**records.origin(__name__), "command": command}
    job = set_up(seed, RECIPE)
    train(job, RECIPE)
    model: Any = job.model.eval()
    exam = texts(RECIPE.exam, Generator().manual_seed(EXAM))
    cuts = {
        f"{part} of {layer}": known(without(model, layer, part), exam)
        for layer in range(1, RECIPE.layers + 1)
        for part in PARTS
    }
    head = min((1, 2), key=lambda head: cuts[f"head {head} of 2"]["text"])
    found = {
        **about,
        "sequences": job.progress.sequences,
        "seconds": round(job.progress.seconds, 3),
        "parameters": sum(p.numel() for p in model.parameters()),
        "curve": job.progress.curve,
        "whole": known(model, exam),
        "without": cuts,
        "head": head,
        "before_countries": before_countries(model, exam, head),
    }
    file = options.results / "capitals.json"
    records.merge(file, found | told, key=("seed",))
    if options.export:
        checkpoints.save(file.with_suffix(".safetensors"), model.state_dict(), about | told)
    whole = found["whole"]
    return f"{command}: {job.progress.sequences:,} texts, {job.progress.seconds:.0f} s, {whole}"


def main(arguments: list[str]) -> None:
    """Run what the command line asks for; a run takes less than a minute and is not resumed."""
    parser = argparse.ArgumentParser(prog="python -m experiments capitals", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--export", action="store_true", help="keep the model beside the record")
    command_line.add_running(parser)
    command_line.add_results(parser)
    options = parser.parse_args(arguments)
    if options.export and len(options.seeds) > 1:
        parser.error("--export needs one run: one seed")
    torch.set_num_threads(options.threads)
    for seed in options.seeds:
        print(perform(seed, options), flush=True)
