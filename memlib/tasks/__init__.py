"""Tasks to train a memory on: seeded generators of batches, with metric and chance level."""

from memlib.tasks.algorithmic import associative_recall, copy, priority_sort, repeat_copy
from memlib.tasks.babi import (
    BabiError,
    Question,
    QuestionBatch,
    RaggedBatch,
    Stories,
    Vocabulary,
    read_babi,
)
from memlib.tasks.babi_files import babi_file, find_babi
from memlib.tasks.babi_stories import babi_stories
from memlib.tasks.batch import Batch, bits_per_sequence, wrong_bits
from memlib.tasks.ngrams import ngrams, optimal_bits
from memlib.tasks.sequences import Tokens, induction, mqar, selective_copy
from memlib.tasks.table import TASKS, Task

__all__ = [
    "TASKS",
    "BabiError",
    "Batch",
    "Question",
    "QuestionBatch",
    "RaggedBatch",
    "Stories",
    "Task",
    "Tokens",
    "Vocabulary",
    "associative_recall",
    "babi_file",
    "babi_stories",
    "bits_per_sequence",
    "copy",
    "find_babi",
    "induction",
    "mqar",
    "ngrams",
    "optimal_bits",
    "priority_sort",
    "read_babi",
    "repeat_copy",
    "selective_copy",
    "wrong_bits",
]
