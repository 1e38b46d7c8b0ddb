"""The tasks by name, each with its sizes and what a guess pays."""

from collections.abc import Callable
from dataclasses import dataclass

from memlib.tasks.algorithmic import associative_recall, copy, priority_sort, repeat_copy
from memlib.tasks.batch import Batch
from memlib.tasks.ngrams import ngrams


@dataclass(frozen=True)
class Task:
    """A generator of batches at the sizes of the paper, and what to expect of it.

    It is kept by its name: ``TASKS[name]`` is the task.

    Attributes:
        name: as in `TASKS`.
        generate: ``generate(batch_size, *, generator, device, dtype, **sizes)`` -> `Batch`.
        input_size: channels of the inputs.
        output_size: bits of a target.
        chance: what a guess of one half pays, in bits per sequence; half of it are wrong bits.
        metric: what the task is judged by, "wrong_bits" or "bits_per_sequence".
    """

    name: str
    generate: Callable[..., Batch]
    input_size: int
    output_size: int
    chance: float
    metric: str = "wrong_bits"


TASKS = {
    task.name: task
    for task in (
        Task("copy", copy, 9, 8, chance=8 * 10.5),
        Task("repeat-copy", repeat_copy, 10, 9, chance=9 * (5.5 * 5.5 + 1)),
        Task("associative-recall", associative_recall, 8, 6, chance=6 * 3),
        Task("ngrams", ngrams, 1, 1, chance=200, metric="bits_per_sequence"),
        Task("priority-sort", priority_sort, 10, 8, chance=8 * 16),
    )
}
