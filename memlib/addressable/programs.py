"""Memory programs written by hand: a head that walks and jumps through a memory, untrained.

A program is a generator of `Step` s. Each says where the head goes, by the gates of
`memlib.addressable` alone, and what it writes there; the generator is sent what was read::

    def second_after(marker):
        first = yield Step(key=marker, move=+1)  # find the marker, stand on the slot after it
        second = yield Step(move=+1)  # one slot on

`run` executes a program and keeps every state of the memory for the eye.
"""

from collections.abc import Generator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib import _checks as checks
from memlib.addressable.gates import Gates, locate
from memlib.attention.verbs import read, write


class Step(NamedTuple):
    """One instruction: go where key and move say, then overwrite (or only read) that slot.

    Attributes:
        key: content to look for in the first columns of a slot, at most M wide; None stays
            with the location (gate 0).
        move: slots to go forward (or, negative, backward) afterwards, in [-1, 1].
        add: (M,) what to write in place of the slot's content; None only reads.
        strength: how sharply the key is looked for, a number or a tensor ().
        sharpening: how sharp the weights are made after the move, a number or a tensor ().
    """

    key: Tensor | None = None
    move: int = 0
    add: Tensor | None = None
    strength: float | Tensor = 1000.0
    sharpening: float | Tensor = 1.0


Program = Generator[Step, Tensor, None]


class Trace(NamedTuple):
    """What happened in T steps.

    Attributes:
        reads: (T, M), what each step read (after its write).
        weights: (T, N), where the head was.
        memories: (T, N, M), the memory after each step.
        wrote: (T,) bool, which steps wrote.
    """

    reads: Tensor
    weights: Tensor
    memories: Tensor
    wrote: Tensor


def run(program: Program, memory: Tensor) -> Trace:
    """Run a program on a memory (N, M), the head starting on slot 0.

    Args:
        program: a generator of `Step` s, such as `copy_program`.
        memory: (N, M), N at least 3; it stays as it is.

    Returns:
        A `Trace`.

    Raises:
        TypeError: memory is no floating-point tensor, or a step no `Step`.
        ValueError: memory has another shape, a move is not in [-1, 1], or there is no step.

    Example:
        >>> import torch
        >>> from memlib import programs
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> trace = programs.run(programs.copy_program(x), torch.zeros(6, 2))
        >>> programs.payload(trace)
        tensor([[1.],
                [2.],
                [3.]])
    """
    checks.tensor("memory", memory)
    checks.shape("memory", memory, "(N, M)")
    checks.integer("the number of slots", memory.shape[0], 3)
    weights = torch.eye(1, memory.shape[0], dtype=memory.dtype, device=memory.device)[0]
    steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    value = None  # a generator is started by sending it nothing
    while True:
        try:
            step = program.send(value)  # type: ignore[arg-type]
        except StopIteration:
            break
        if not isinstance(step, Step):
            raise TypeError(f"a program must yield Step; got {type(step).__name__}")
        gates = _gates(step, memory)
        weights = locate(gates, memory.unsqueeze(0), weights.view(1, 1, -1)).view(-1)
        if step.add is not None:
            checks.tensor("add", step.add)
            add = step.add.unsqueeze(0)
            memory = write(memory, weights.unsqueeze(0), add, torch.ones_like(add))
        value = read(weights.unsqueeze(0), memory).view(-1)
        wrote = memory.new_full((), step.add is not None, dtype=torch.bool)
        steps.append((value, weights, memory, wrote))
    if not steps:
        raise ValueError("a program must yield at least one Step; got none")
    return Trace(*(torch.stack(series) for series in zip(*steps, strict=True)))


def copy_program(sequence: Tensor) -> Program:
    """Write a sequence (T, M - 1) behind a marker, find the marker, read forward.

    The last column of the memory is the marker's own.
    """
    marker = _marker(sequence)
    yield from _store(sequence, marker)
    for t in range(len(sequence)):
        yield Step(key=marker, move=+1) if t == 0 else Step(move=+1)


def reverse_program(sequence: Tensor) -> Program:
    """Write a sequence (T, M - 1) behind a marker, then read backward from its end."""
    yield from _store(sequence, _marker(sequence))
    for t in range(len(sequence)):
        yield Step() if t == 0 else Step(move=-1)


def linked_list_program(start: Tensor, length: int) -> Program:
    """Follow `length` links from the node whose code is `start`, (C,).

    A node is one slot, [own code (C) | code of the next node (C) | payload]: what was read says
    where to look next. The cosine is taken over the whole slot, so payloads should be of equal
    length: a slot with little in it can win on a part of a code.
    """
    checks.tensor("start", start)
    checks.shape("start", start, "(C,)")
    length = checks.integer("length", length, 1)
    code = start
    for _ in range(length):
        node = yield Step(key=code)
        code = node[len(start) : 2 * len(start)]


def payload(trace: Trace) -> Tensor:
    """Return what the reading steps of a copy or reverse program read, (T, M - 1)."""
    return trace.reads[~trace.wrote, :-1]


def _marker(sequence: Tensor) -> Tensor:
    checks.tensor("sequence", sequence)
    checks.shape("sequence", sequence, "(T, M - 1)")
    return torch.cat((sequence.new_zeros(sequence.shape[1]), sequence.new_ones(1)))


def _store(sequence: Tensor, marker: Tensor) -> Program:
    """Write the marker where the head is, then one item a slot."""
    yield Step(add=marker)
    for item in sequence:
        yield Step(move=+1, add=torch.cat((item, item.new_zeros(1))))


def _gates(step: Step, memory: Tensor) -> Gates:
    """The gates of one head at their extremes: g is 0 or 1, s is one-hot."""
    move = checks.integer("move", step.move, -1, 1)
    strength = checks.one_each("strength", step.strength, (), memory, low=0)
    sharpening = checks.one_each("sharpening", step.sharpening, (), memory, low=1)
    key = torch.zeros_like(memory[0]) if step.key is None else step.key
    checks.tensor("key", key)
    if key.ndim != 1 or len(key) > memory.shape[1]:
        raise ValueError(
            f"key must have shape (M,), at most M = {memory.shape[1]}; got {tuple(key.shape)}"
        )
    key = F.pad(key, (0, memory.shape[1] - len(key)))
    return Gates(
        key=key.view(1, 1, -1),
        strength=_one(strength, memory),
        gate=memory.new_full((1, 1), float(step.key is not None)),
        shift=torch.eye(3, dtype=memory.dtype, device=memory.device)[1 + move].view(1, 1, 3),
        sharpening=_one(sharpening, memory),
    )


def _one(value: float | Tensor, memory: Tensor) -> Tensor:
    """Return it as that of one head of one row, (1, 1)."""
    return value.view(1, 1) if isinstance(value, Tensor) else memory.new_full((1, 1), value)
