"""An epoch of joint training on the bAbI tasks, beside a straightforward implementation.

The other one says the same (checked here, to rounding) as the paper's text does: each hop looks
up all words of all sentences for its keys and again for its values, and every story is padded to
the longest. Both train on the same batches in turn, on one thread; medians of CPU time.
"""

import time
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from memlib import MemN2N
from memlib.tasks import Question, Vocabulary, babi_file, babi_stories, find_babi, read_babi

BATCH, WIDTH, HOPS, SLOTS = 32, 50, 3, 50
TASKS, OWN = range(1, 21), (1, 2, 3, 6, 7, 11, 15)  # the official ones, and those we can generate
Batch = tuple[Tensor, Tensor, Tensor]


class Plain(nn.Module):
    """MemN2N hop by hop, with the parameters of one of ours."""

    def __init__(self, like: MemN2N) -> None:
        super().__init__()
        self.tables = nn.ParameterList(table.detach().clone() for table in like.embeddings)
        self.words, self.answers = like.vocab_size, like.answers

    def forward(self, story: Tensor, question: Tensor) -> Tensor:
        """Return scores (B, A) for a story (B, SLOTS, W) and a question (B, W)."""
        told = (story != 0).any(-1)  # (B, N)
        age = told.flip(1).cumsum(1).flip(1) - told.long()
        where, asked = places(story), places(question)
        u = (F.embedding(question, self.tables[0], padding_idx=0) * asked).sum(1)
        for hop in range(HOPS):
            keys, values = (
                (F.embedding(story, table, padding_idx=0) * where).sum(2)
                + F.embedding(self.words + age, table) * told.unsqueeze(-1)
                for table in (self.tables[hop], self.tables[hop + 1])
            )
            weights = torch.einsum("bd,bnd->bn", u, keys).softmax(-1)  # empty slots are 0
            u = u + torch.einsum("bn,bnd->bd", weights, values)
        return u @ self.tables[HOPS][1 : self.answers + 1].T


def places(words: Tensor) -> Tensor:
    """Return the position encoding of each word, (..., W, d)."""
    said = (words != 0).float()
    length = said.sum(-1, keepdim=True).clamp(min=1)
    place = (said.cumsum(-1) - (length + 1) / 2) / length
    slope = 4 * (torch.arange(1, WIDTH + 1) - (WIDTH + 1) / 2) / WIDTH
    return said.unsqueeze(-1) * (1 + place.unsqueeze(-1) * slope)


def questions() -> tuple[list[Question], str]:
    """Return the training questions of all tasks, and where they come from."""
    try:
        folder = find_babi()
    except FileNotFoundError:
        chance = Generator().manual_seed(0)
        return [q for t in OWN for q in babi_stories(t, 1000, generator=chance)], "generated"
    return [q for t in TASKS for q in read_babi(babi_file(folder, t, "train"))], folder.name


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Take one step, clipped matrix by matrix as in training."""
    story, question, answer = batch
    optimizer.zero_grad()
    F.cross_entropy(model(story, question), answer, reduction="sum").backward()
    for parameter in model.parameters():
        nn.utils.clip_grad_norm_(parameter, 40.0)
    optimizer.step()


def run(updates: int = 100) -> dict[str, Any]:
    """Train both on the same questions; return milliseconds an update and seconds an epoch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    asked, data = questions()
    vocabulary = Vocabulary.of(asked)
    stories = vocabulary.encode(asked, slots=SLOTS)
    ours = MemN2N(len(vocabulary), len(vocabulary.answers), WIDTH, HOPS, slots=SLOTS)
    plain = Plain(ours)
    longest = stories.sentences.shape[1]
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-3) for model in (ours, plain)]
    seconds: dict[str, list[float]] = {"memlib": [], "plain": []}
    chance, apart = Generator().manual_seed(0), 0.0
    for update in range(updates + 3):  # the first three warm up
        rows = torch.randint(len(asked), (BATCH,), generator=chance)
        start = time.process_time()
        batch = tuple(stories.padded(rows))
        made = time.process_time() - start
        story, question, answer = batch
        padded = F.pad(story, (0, longest - story.shape[2], 0, SLOTS - story.shape[1]))
        wide = (padded, F.pad(question, (0, longest - question.shape[1])), answer)
        if not update:  # the same function of the same parameters
            apart = (ours(story, question) - plain(*wide[:2])).abs().max().item()
            assert apart < 1e-4, apart
        for name, model, optimizer, given, before in (
            ("memlib", ours, optimizers[0], batch, made),  # its padding is part of its time
            ("plain", plain, optimizers[1], wide, 0.0),
        ):
            start = time.process_time()
            train(model, optimizer, given)
            seconds[name].append(time.process_time() - start + before)
    torch.set_num_threads(threads)
    middle = {name: median(times[3:]) for name, times in seconds.items()}
    epoch = len(asked) // BATCH
    return {
        "threads": 1,
        "data": data,
        "questions": len(asked),
        "update_ms": {name: round(1e3 * s, 3) for name, s in middle.items()},
        "epoch_s": {name: round(epoch * s, 2) for name, s in middle.items()},
        "ratio": round(middle["plain"] / middle["memlib"], 2),
        "runs": updates,
    }


def report(figures: dict[str, Any]) -> str:
    """Return the figures as lines."""
    rows = [f"{name:>8}{figures['update_ms'][name]:>12.2f}{s:>12.2f}"
            for name, s in figures["epoch_s"].items()]  # fmt: skip
    head = f"joint training on {figures['questions']:,} questions ({figures['data']}), one thread:"
    return "\n".join(
        [head, f"{'':>8}{'ms/update':>12}{'s/epoch':>12}", *rows, f"ratio {figures['ratio']}"]
    )
