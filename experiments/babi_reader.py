"""What a trained end-to-end memory network needs of its memory, on the bAbI tasks.

Networks of `experiments.babi` answer the test questions again, with one thing taken away and no
further training: the empty slots of the softmax, or a sentence of the story. ``joint`` is the
network for all tasks that is kept beside its record. ``alone`` are networks for one task each, of
those that are answered by yes and no; they are trained here, also without empty slots.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from torch import Generator, Tensor

from experiments import babi, checkpoints, command_line, records
from memlib import MemN2N
from memlib.tasks import Question, QuestionBatch, Vocabulary, babi_file, find_babi, read_babi

KEPT = "babi_joint.safetensors"
YES_OR_NO = (6, 9, 10)  # tasks
WHERE = (1, 2, 3)  # tasks, answered by as many sentences
JUDGED = ("yes", "no", "maybe")  # answers that are told apart


@torch.no_grad()
def look(reader: MemN2N, batch: QuestionBatch, empty: bool = True) -> tuple[Tensor, Tensor]:
    """Return which answers are wrong (Q,), and the weight on no sentence in each hop (Q, K)."""
    before, reader.empty = reader.empty, empty
    scores, weights = reader(batch.story, batch.question, need_weights=True)
    reader.empty = before
    return scores.argmax(-1) != batch.answer, 1 - weights.sum(-1)


def share(which: Tensor) -> float:
    """Return how many are true, in per cent."""
    return round(100 * which.double().mean().item(), 3)


def of_nothing(reader: MemN2N, batch: QuestionBatch, answers: tuple[str, ...]) -> dict[str, Any]:
    """Ask as trained and with the empty slots masked; of some answers also one by one."""
    (wrong, nothing), (masked, _) = look(reader, batch, reader.empty), look(reader, batch, False)

    def told(rows: Tensor) -> dict[str, Any]:
        hops = [round(x, 4) for x in nothing[rows].mean(0).tolist()]
        return {"asked": int(rows.sum()), "nothing": hops,
                "wrong": share(wrong[rows]), "masked": share(masked[rows])}  # fmt: skip

    found = told(batch.answer == batch.answer)
    for name in JUDGED:
        rows = batch.answer == (answers.index(name) if name in answers else -2)
        if rows.any():
            found[name] = told(rows)
    return found


@torch.no_grad()
def of_sentences(
    reader: MemN2N, batch: QuestionBatch, asked: list[Question], seed: int
) -> dict[str, Any]:
    """Of questions that are answered rightly: how many still are when a sentence is taken away.

    It is one of those that the answer rests on, in the order of the files, or any other one.
    """
    told = [len(question.story) for question in asked]
    places = [
        [fact - max(0, n - reader.slots) for fact in question.supporting]
        for question, n in zip(asked, told, strict=True)
    ]
    others = [
        sorted({*range(min(n, reader.slots))} - {*facts})
        for facts, n in zip(places, told, strict=True)
    ]
    wrong, _ = look(reader, batch)
    rows = [
        i
        for i in range(len(asked))
        if not wrong[i] and others[i] and min(places[i], default=-1) >= 0
    ]
    generator = Generator().manual_seed(seed)
    any_other = [
        others[i][int(torch.randint(len(others[i]), (), generator=generator))] for i in rows
    ]

    def still(taken: list[int]) -> float:
        story = batch.story.clone()
        story[rows, taken] = 0
        now = reader(story, batch.question).argmax(-1)
        return share((now == batch.answer)[rows])

    facts = [still([places[i][f] for i in rows]) for f in range(len(places[0]))]
    return {"asked": len(rows), "supporting": facts, "another": still(any_other)}


def joint(options: argparse.Namespace) -> dict[str, Any]:
    """Ask the network that is kept."""
    tensors, about = checkpoints.load(records.RESULTS / KEPT)
    words, recipe = Vocabulary(about["answers"], about["words"][1:]), about["recipe"]
    names = ("width", "hops", "slots", "tying", "encoding", "noise", "relu", "empty")
    sizes = {name: recipe[name] for name in names}
    reader = MemN2N(len(words), len(words.answers), **sizes).eval()
    reader.load_state_dict(tensors)
    folder = find_babi(options.data)
    found: dict[str, dict[str, Any]] = {"nothing": {}, "sentences": {}, "after": {}}
    for task in range(1, 21):
        asked = read_babi(babi_file(folder, task, "test"), task=task)
        batch = words.encode(asked, slots=reader.slots, unknown="skip").padded()
        found["nothing"][str(task)] = of_nothing(reader, batch, words.answers)
        if task in WHERE:
            found["sentences"][str(task)] = of_sentences(reader, batch, asked, options.seed)
        trained = read_babi(babi_file(folder, task, "train"), task=task)
        after = [len(q.story) - 1 - max(q.supporting) for q in trained if q.supporting]
        mean, most = round(statistics.fmean(after), 3), max(after)
        found["after"][str(task)] = {"mean": mean, "most": most}
    return {"seed": about["seed"], **found}


def alone(options: argparse.Namespace) -> dict[str, Any]:
    """Train networks for one task each, with empty slots and without, and ask them."""
    folder = find_babi(options.data)
    found: dict[str, dict[str, Any]] = {}
    for task in YES_OR_NO:
        found[str(task)] = {}
        for empty in (True, False):
            changes = {} if empty else {"empty": False}
            run = babi.Run(folder, (task,), joint=False, seed=options.seed, changes=changes)
            job, _, data = babi.fit(run, options)
            assert isinstance(job.model, MemN2N)
            told = of_nothing(job.model.eval(), data.test.padded(), data.vocabulary.answers)
            found[str(task)]["with" if empty else "without"] = told
    return {"seed": options.seed, "nothing": found}


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments babi_reader", description=__doc__)
    add = parser.add_argument
    add("--data", help="where the files are; without it, where memlib finds them")
    add("--model", choices=("joint", "alone"), default="joint")
    add("--seed", type=int, default=0, help="of what is trained, and of which sentence is taken")
    command_line.add_results(parser)
    command_line.add_running(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    start = time.process_time()
    found = (joint if options.model == "joint" else alone)(options)
    command = f"python -m experiments babi_reader --model {options.model}"
    if options.model == "alone":
        command += f" --seed {options.seed}"
    record = {"experiment": "babi_reader", "model": options.model, **found, "command": command,
              "seconds": round(time.process_time() - start, 1)}  # fmt: skip
    record |= records.origin(__name__)
    records.merge(options.results / "babi_reader.json", record, ("model", "seed"))
