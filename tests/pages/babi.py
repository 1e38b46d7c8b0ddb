"""The reader trained on bAbI, and stories in its words that nobody has told."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

import torch

from memlib import MemN2N, tasks

PATH = Path(__file__).parents[2] / "results/babi_joint.safetensors"
# what the world of memlib.tasks calls by names that the reader was not trained on
KNOWN = {
    "nora": "mary", "lena": "sandra", "hugo": "john", "omar": "daniel",
    "attic": "kitchen", "cellar": "garden", "library": "office", "pantry": "hallway",
    "stable": "bathroom", "workshop": "bedroom",
    "lantern": "football", "kettle": "milk", "violin": "apple",
    "walked": "went", "ran": "moved", "hurried": "journeyed", "wandered": "travelled",
    "came": "went", "fetched": "got", "collected": "grabbed", "released": "discarded",
    "later": "afterwards", "soon": "then", "things": "objects",
    "fox": "mouse", "foxes": "mice", "goose": "cat", "geese": "cats", "frog": "wolf",
    "frogs": "wolves", "horse": "sheep", "horses": "sheep",
    "ruby": "gertrude", "oscar": "jessica", "daisy": "emily", "felix": "winona",
}  # fmt: skip


@functools.cache
def reader(rounded: bool) -> tuple[MemN2N, tasks.Vocabulary, dict[str, Any]]:
    """The recorded reader, as it is or with weights rounded to half precision."""
    from safetensors import safe_open

    with safe_open(PATH, "pt") as file:
        about = json.loads(file.metadata()["about"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    words = tasks.Vocabulary(about["answers"], about["words"][1:])
    names = ("width", "hops", "slots", "tying", "encoding", "empty", "noise", "relu")
    model = MemN2N(
        len(words), len(words.answers), **{name: about["recipe"][name] for name in names}
    )
    model.load_state_dict({k: v.half().float() for k, v in state.items()} if rounded else state)
    return model.eval(), words, about


def fresh(seed: int, count: int) -> list[tasks.Question]:
    """Stories that nobody has told: of memlib.tasks, in the reader's words, some of them left."""
    draw = torch.Generator().manual_seed(seed)
    told = []
    for task in (1, 2, 3, 6, 7, 11, 15):
        told += tasks.babi_stories(task, -(-count // 7), generator=draw)
    chance = random.Random(seed)
    return [
        question
        if chance.random() < 0.1  # most of its words are unknown then, and skipped
        else question._replace(
            story=tuple(tuple(KNOWN.get(w, w) for w in s) for s in question.story),
            question=tuple(KNOWN.get(w, w) for w in question.question),
        )
        for question in told[:count]
    ]
