"""What a cache may forget: answers kept against slots kept, for each rule that chooses them.

Trained models, none of which has learned to forget, read texts token by token. After each token
every layer keeps so many of its slots, and a rule of `memlib.transformer.forgetting` says which:

============= ===================================================================================
rule          which slots stay
============= ===================================================================================
window        the newest
sinks         the first four, and the newest
heavy hitters half of them the newest, and those with the most weight since they were written
looked at     those with the most weight of the last queries, themselves among them
random        half of them the newest, and others by lot: what the other half of a rule is worth
============= ===================================================================================

======== ==================================================== ====================================
setting  model and text                                       what is counted
======== ==================================================== ====================================
mqar     full attention of the frontier (`experiments.mqar`)  right answers
capitals the chapter's model (`experiments.capitals`)         right, of what the text tells
bytes    the language model of the stores                     bits a byte in the second half of a
         (`experiments.knn_lm`), on text of its test          row, which is as long as in training
======== ==================================================== ====================================

Three more questions to the full cache. Do the first tokens matter? The first, or the first four,
are taken away as soon as they have read themselves, or as many of the slots 8 to 11. How much do
queries of the second half look at the first slot, beside an even look at all? And on text four
times as long as any in training, what is better, a full cache or a short one?

Every finished run is a line of ``results/forgetting.json``.
"""

import argparse
import math
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from experiments import capitals, command_line, knn_lm, mqar, records, training
from experiments.mixers import MixerModel
from memlib import KVCache, MemoryAttention
from memlib.transformer.forgetting import accumulate, heavy_hitters, looked_at, sinks, window

SETTINGS = ("mqar", "capitals", "bytes")
RULES = ("window", "sinks", "heavy hitters", "looked at", "random")
EXAM, LOTS = 3_000_000, 4_000_000  # generators' seeds, apart from those of training


@dataclass(frozen=True)
class Recipe:
    """How the cache is made to forget.

    Attributes:
        rate: the learning rate of the model of recall; the others have their recipe's.
        shares: of the slots of a full cache, that stay.
        rows: texts of recall and of the chapter.
        last: queries whose looks count, at most.
        others: the first of the slots that are taken away for comparison with the first ones.
        times: lengths of training of the long rows.
    """

    rate: float = 0.005
    shares: tuple[float, ...] = (0.75, 0.5, 0.375, 0.25, 0.125, 0.0625)
    rows: int = 200
    last: int = 8
    others: int = 8
    times: int = 4


RECIPE = Recipe()


class Exam(NamedTuple):
    """Rows that are read, and what is asked."""

    inputs: Tensor  # (B, T)
    targets: Tensor  # (B, T)
    mask: Tensor  # (B, T) bool, True = this step's target counts


# The models, as readers of one token at a time


class Watched(nn.Module):
    """A layer of attention in a model of mixers, which keeps where it looked last."""

    def __init__(self, layer: MemoryAttention) -> None:
        super().__init__()
        self.layer = layer
        self.weights = torch.empty(0)

    def forward(self, x: Tensor, memory: KVCache | None) -> tuple[Tensor, KVCache | None]:
        """Do what the layer does."""
        y, memory, self.weights = self.layer(x, memory, need_weights=True)
        return y, memory


class Reader:
    """A trained model, and how it reads with a cache a layer."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.mixers: list[Watched] = []
        if isinstance(model, MixerModel):
            for block in model.blocks:
                part: Any = block
                part.mixer = Watched(part.mixer)
            self.mixers = model.mixers

    def caches(self, rows: int, slots: int) -> list[KVCache]:
        """Return an empty cache for each layer."""
        if self.mixers:
            return [mixer.layer.cache(rows, slots) for mixer in self.mixers]
        return list(self.model.cache(rows, slots))

    def __call__(self, tokens: Tensor, memory: Any) -> tuple[Tensor, Any, list[Tensor]]:
        """Return logits (B, T, V), the memory after and each layer's weights (B, H, T, N)."""
        if not self.mixers:
            logits, memory, weights = self.model(tokens, memory, need_weights=True)
            return logits, memory, weights
        logits, memory = self.model(tokens, memory)
        return logits, memory, [mixer.weights for mixer in self.mixers]


class Layer:
    """The cache of a layer, of which a rule keeps n slots; what the rule goes by moves along."""

    def __init__(self, cache: KVCache, rule: str, n: int, lots: Tensor) -> None:
        self.cache, self.rule, self.n, self.lots = cache, rule, n, lots
        self.total: Tensor | None = None  # (B, N)
        self.looks: list[Tensor] = []  # of each of the last queries, (B, H, 1, N)

    def forget(self, weights: Tensor) -> None:
        """Drop what is too much, once a token has looked, weights (B, H, 1, N')."""
        cache, half = self.cache, self.n // 2
        if self.rule == "window":
            scores = window(cache)
        elif self.rule == "sinks":
            scores = sinks(cache)
        elif self.rule == "heavy hitters":
            self.total = accumulate(cache, weights, self.total)
            scores = heavy_hitters(cache, self.total, recent=half)
        elif self.rule == "looked at":
            last = max(1, min(RECIPE.last, half))
            looks = F.pad(weights, (0, cache.slots - weights.shape[-1]))
            self.looks = [*self.looks, looks][-last:]
            scores = looked_at(cache, torch.cat(self.looks, dim=2), last=last)
        else:
            lots = self.lots.gather(1, cache.positions.clamp(min=0))
            scores = heavy_hitters(cache, lots, recent=half)
        slots = cache.keep(scores, self.n)
        if self.total is not None:
            self.total = self.total.gather(1, slots)
        self.looks = [_moved(looks, slots) for looks in self.looks]


def _moved(looks: Tensor, slots: Tensor) -> Tensor:
    """Return weights (B, H, 1, N) where what they are of now lies."""
    found = looks.gather(-1, slots[:, None, None].expand(-1, looks.shape[1], -1, -1))
    return F.pad(found, (0, looks.shape[-1] - slots.shape[1]))


@torch.no_grad()
def read(reader: Reader, tokens: Tensor, rule: str, slots: int) -> Tensor:
    """Return the logits (B, T, V) of texts of which each layer keeps so many slots."""
    rows, steps = tokens.shape
    caches = reader.caches(rows, min(slots + 1, steps))
    memory = [(None, cache) for cache in caches] if reader.mixers else tuple(caches)
    lots = torch.rand(rows, steps, generator=Generator().manual_seed(LOTS))
    layers = [Layer(cache, rule, slots, lots) for cache in caches] if slots < steps else []
    said = []
    for token in tokens.split(1, dim=1):
        logits, memory, weights = reader(token, memory)
        said.append(logits)
        for layer, looks in zip(layers, weights, strict=bool(layers)):
            layer.forget(looks)
    return torch.cat(said, dim=1)


@torch.no_grad()
def read_without(reader: Reader, tokens: Tensor, gone: Collection[int]) -> Tensor:
    """Return the logits of texts of which some tokens are forgotten as soon as they have read."""
    rows, steps = tokens.shape
    caches, held = reader.caches(rows, steps), 0
    memory, said = [(None, cache) for cache in caches] if reader.mixers else tuple(caches), []
    for place, token in enumerate(tokens.split(1, dim=1)):
        logits, memory, _ = reader(token, memory)
        said.append(logits)
        held += 1
        if place in gone:
            held -= 1
            for cache in caches:
                cache.keep(-window(cache), held)
    return torch.cat(said, dim=1)


def figure(logits: Tensor, exam: Exam, setting: str) -> dict[str, float]:
    """Return the share of right answers, or the bits a byte."""
    said, wanted = logits[exam.mask], exam.targets[exam.mask]
    if setting == "bytes":
        nats = F.cross_entropy(said.double(), wanted).item()
        return {"bits_per_byte": round(nats / math.log(2), 5)}
    return {"accuracy": round((said.argmax(-1) == wanted).double().mean().item(), 5)}


def exam_of(setting: str, times: int = 1) -> Exam:
    """Return rows, a length of training or some long; bytes are of the text of the model's test.

    Of the bytes the second half of a row is asked, or what lies beyond the length of training.
    """
    fresh = Generator().manual_seed(EXAM)
    if setting == "mqar":
        return Exam(*mqar.make_batch(_recall(0), RECIPE.rows, fresh))
    if setting == "capitals":
        words = capitals.texts(RECIPE.rows, fresh)
        return Exam(words[:, :-1], words[:, 1:], capitals.kinds(words)[1])
    recipe = knn_lm.RECIPE
    steps, first = times * recipe.length, recipe.length // (1 if times > 1 else 2)
    texts = [knn_lm.as_tensor(p.asked).long() for p in _texts().test]
    rows = torch.cat([text.unfold(0, steps + 1, 2 * steps) for text in texts])
    late = torch.arange(steps) >= first
    return Exam(rows[:, :-1], rows[:, 1:], late.expand(len(rows), -1))


def examine(setting: str, model: nn.Module) -> dict[str, Any]:
    """Return what a model still knows under each rule, and what the first tokens are to it."""
    reader, exam = Reader(model), exam_of(setting)
    steps, others = exam.inputs.shape[1], range(RECIPE.others, RECIPE.others + 4)

    def kept(rule: str, slots: int, exam: Exam = exam) -> dict[str, Any]:
        about = {"rule": rule, "slots": slots, "bytes": size(reader, slots)}
        return about | figure(read(reader, exam.inputs, rule, slots), exam, setting)

    found: dict[str, Any] = {"full": kept("all", steps)}
    sizes = [round(share * steps) for share in RECIPE.shares]
    found["kept"] = [kept(rule, slots) for rule in RULES for slots in sizes]
    found["without"] = [
        {"gone": gone, **figure(read_without(reader, exam.inputs, gone), exam, setting)}
        for gone in ([0], list(range(4)), [others[0]], list(others))
    ]
    found["looks"] = looks(reader, exam.inputs)
    if setting == "bytes":
        long = exam_of(setting, RECIPE.times)
        ways = [("all", long.inputs.shape[1])]
        ways += [(rule, steps // 2) for rule in RULES]
        found["long"] = [kept(rule, slots, long) for rule, slots in ways]
    return found


def size(reader: Reader, slots: int) -> int:
    """Return the bytes of so many slots of a text in all layers: keys, values and positions."""
    caches = reader.caches(1, slots)
    return sum(c.keys.nbytes + c.values.nbytes + c.positions.nbytes for c in caches)


@torch.no_grad()
def looks(reader: Reader, tokens: Tensor) -> dict[str, list[list[float]]]:
    """Return how much heads look at some slots, by layer: 1 is as much as at all others.

    It is a mean over the queries of the second half.
    """
    steps = tokens.shape[1]
    seen = torch.arange(steps) + 1.0
    _, _, weights = reader(tokens, None)
    return {
        str(slot): [
            [round(x, 3) for x in (w[..., slot] * seen)[..., steps // 2 :].mean((0, 2)).tolist()]
            for w in weights
        ]
        for slot in (0, RECIPE.others)
    }


# Runs


def _recall(seed: int) -> mqar.Run:
    return mqar.Run("frontier", "attention", 64, seed, RECIPE.rate)


@cache
def _texts() -> knn_lm.Texts:
    return knn_lm.read_texts(knn_lm.RECIPE, knn_lm.LIBRARY)


def trained(about: dict[str, Any], options: argparse.Namespace, key: str) -> training.Training:
    """Train a model, or go on with it; the chapter's takes seconds and is not saved."""
    setting, seed = about["setting"], about["seed"]
    path = options.unfinished / f"forgetting_{setting}_{seed}.safetensors"
    if options.fresh:
        path.unlink(missing_ok=True)
    if setting == "mqar":
        return mqar.fit(_recall(seed), path, key)
    if setting == "capitals":
        job = capitals.set_up(seed, capitals.RECIPE)
        job.progress.codes.append(key)
        capitals.train(job, capitals.RECIPE)
        return job
    recipe = knn_lm.RECIPE
    job = knn_lm.set_up(knn_lm.make_model(seed, recipe), _texts(), seed, recipe)
    job.progress.codes.append(key)
    told = {"experiment": "forgetting", "setting": setting, "seed": seed, "recipe": asdict(recipe)}
    training.train(job, recipe.sequences, path=path, about=told, label=f"{setting} {seed}")
    return job


def perform(setting: str, seed: int, options: argparse.Namespace) -> str:
    """Train, make forget and record one model; return a line on how it went."""
    models: dict[str, Any] = {"mqar": mqar.SETTINGS["frontier"], "capitals": capitals.RECIPE}
    about = {"experiment": "forgetting", "setting": setting, "seed": seed}
    origin = records.origin(__name__)
    job = trained(about, options, origin["key"])
    begin = time.process_time()
    found = {
        **about,
        "recipe": asdict(RECIPE),
        "model": asdict(models.get(setting, knn_lm.RECIPE)),
        "sequences": job.progress.sequences,
        "seconds": round(job.progress.seconds, 3),
        **examine(setting, job.model),
        "seconds_examining": round(time.process_time() - begin, 3),
    }
    command = f"python -m experiments forgetting --settings {setting} --seeds {seed}"
    origin |= {"command": command, "key": "+".join(job.progress.codes)}
    records.merge(options.results / "forgetting.json", found | origin, key=("setting", "seed"))
    best = found["full"].get("accuracy", found["full"].get("bits_per_byte"))
    return f"{command}: {best} with all slots, {found['seconds_examining']:.0f} s"


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments forgetting", description=__doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    command_line.add_running(parser)
    command_line.add_results(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for setting in options.settings:
        for seed in options.seeds:
            print(perform(setting, seed, options), flush=True)
