"""Facts that change, told to a layer that is trained: what each rule of a matrix recalls.

A row tells 48 facts, a token each: one of 16 keys with one of 16 values, drawn anew, so that most
keys are told again and again with other values. Each token also asks for a key that was told so
far, and the answer is the value told to it last. The model is a `memlib.FastWeights` between
embeddings and a linear layer, with one head; the learning rate rises over a tenth of the updates
and falls along half a cosine.

In multi-query recall (`experiments.mqar`) each key is told once, and a rule that can't take
anything back loses nothing by it. Here it does.

Every finished run is a line of ``results/fast_weights.json``; runs that are there are skipped.
"""

import argparse
import itertools
import json
import math
import time
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from experiments import command_line, records
from memlib import FastWeights
from memlib.fast_weights.gates import Rule

KEYS = VALUES = 16
TOKENS, WIDTH = 48, 64
UPDATES, ROWS, EXAM, CLIP = 300, 32, 500, 1.0
DATA, FINAL = 1_000_000, 2_000_000  # generators' seeds, apart
RULES = ("sum", "decayed sum", "delta", "gated delta")
KEY = ("mixer", "size", "seed", "rate")  # of a record


class Listener(nn.Module):
    """Hears facts and questions, a token each, and answers from one matrix."""

    def __init__(self, rule: Rule, size: int) -> None:
        super().__init__()
        self.key, self.value, self.asked = (nn.Embedding(KEYS, WIDTH) for _ in range(3))
        self.memory = FastWeights(WIDTH, rule=rule, key_width=size)
        self.answer = nn.Linear(WIDTH, VALUES)

    def forward(self, key: Tensor, value: Tensor, asked: Tensor) -> Tensor:
        """Return logits (B, T, 16) of the value that was told last to the key asked for."""
        x = self.key(key) + self.value(value) + self.asked(asked)
        logits: Tensor = self.answer(self.memory(x)[0])
        return logits


def draw(rows: int, generator: Generator) -> tuple[Tensor, ...]:
    """Return keys, values, keys asked for, their last values, and how often each was told.

    All are (rows, 48).

    Example:
        >>> key, value, asked, last, times = draw(2, Generator().manual_seed(0))
        >>> bool((last[:, 0] == value[:, 0]).all()), int(times[:, 0].max())
        (True, 1)
    """
    key, value = (torch.randint(16, (rows, TOKENS), generator=generator) for _ in range(2))
    t = torch.arange(TOKENS)
    place = (torch.rand(rows, TOKENS, generator=generator) * (t + 1)).long()
    asked = key.gather(1, place)
    told = (key.unsqueeze(1) == asked.unsqueeze(2)) & (t <= t.unsqueeze(1))  # (rows, 48, 48)
    last = torch.where(told, t, -1).amax(-1)
    return key, value, asked, value.gather(1, last), told.sum(-1)


def perform(rule: Rule, size: int, seed: int, rate: float) -> dict[str, Any]:
    """Train a model and return what it recalls: of all questions, and by how often one was told."""
    torch.manual_seed(seed)
    model, generator = Listener(rule, size), Generator().manual_seed(DATA + seed)
    optimizer = torch.optim.Adam(model.parameters())
    for update in range(UPDATES):
        warm = min(1.0, (update + 1) / (UPDATES / 10))
        optimizer.param_groups[0]["lr"] = (
            rate * warm * (1 + math.cos(math.pi * update / UPDATES)) / 2
        )
        *shown, last, _ = draw(ROWS, generator)
        loss = F.cross_entropy(model(*shown).flatten(0, 1), last.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
    with torch.no_grad():
        *shown, last, times = draw(EXAM, Generator().manual_seed(FINAL))
        right = (model(*shown).argmax(-1) == last).double()
    parts = {"accuracy": times > 0, "once": times == 1, "changed": times > 2}
    return {name: round(right[part].mean().item(), 5) for name, part in parts.items()}


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments fast_weights", description=__doc__)
    add = parser.add_argument
    add("--rules", nargs="+", choices=get_args(Rule), default=list(RULES))
    add("--sizes", nargs="+", type=int, default=[16, 8], help="numbers of a key")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--rates", nargs="+", type=float, default=[0.003, 0.01], help="learning rates")
    command_line.add_running(parser)
    command_line.add_results(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    file = options.results / "fast_weights.json"
    for size, seed, rate, rule in itertools.product(
        options.sizes, options.seeds, options.rates, options.rules
    ):
        about = {"mixer": rule, "size": size, "seed": seed, "rate": rate}
        runs = json.loads(file.read_text())["runs"] if file.exists() and not options.fresh else []
        if about in [{name: run[name] for name in KEY} for run in runs]:
            continue
        begin, words = time.process_time(), f"--rules '{rule}' --sizes {size} --seeds {seed}"
        command = f"python -m experiments fast_weights {words} --rates {rate}"
        found = perform(rule, size, seed, rate)
        told = {"seconds": round(time.process_time() - begin, 3), "command": command}
        record = {"experiment": "fast_weights", **about, **found, **told}
        records.merge(file, record | records.origin(__name__), key=KEY)
        print(f"{command}: {found}", flush=True)
