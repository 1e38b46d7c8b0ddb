"""Checkers of the exercises in *Addressable memory*."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from memlib import programs, sharpen, shift
from memlib.addressable.programs import Program, Step
from memlib.teaching.exercises import Verdict, check, compare, exercise

LONGEST = 200  # steps a reader's program may take
CODE = 16  # width of the linked list's codes


@exercise
def one_step(answer: Any) -> Verdict:
    """Check the weights (4,) of content 0, previous 1, gate 0.75, one forward, sharpening 2."""
    return compare(
        answer,
        torch.tensor([0.0, 0.9, 0.1, 0.0]),
        mistakes={
            "you swapped the gate's two sides: g goes with the content, 1 - g with the previous "
            "weights": [0.0, 0.1, 0.9, 0.0],
            "you moved backward: slot i's weight goes to slot i + 1": [0.1, 0.0, 0.0, 0.9],
            "you did not move: after the gate, everything goes one slot on": [0.9, 0.1, 0.0, 0.0],
            "one step is missing: square the weights and divide by their sum": [0, 0.75, 0.25, 0],
            "squares alone do not sum to 1: divide by their sum": [0.0, 0.5625, 0.0625, 0.0],
        },
        praise="right: 0.9 and 0.1. Squaring turned 3 to 1 into 9 to 1.",
        atol=1e-3,
    )


@exercise
def two_moves(answer: Callable[..., Any]) -> Verdict:
    """Check a function s (3,) -> the shift (5,) that does two moves by s at once."""
    generator = torch.Generator().manual_seed(0)
    cases = [(torch.randn(3, generator=generator).softmax(dim=-1),) for _ in range(5)]
    return check(
        answer,
        _two_moves,
        cases,
        mistakes={
            "that is one move in five numbers: a move after a move reaches two slots": lambda s: (
                F.pad(s, (1, 1))
            ),
            "you doubled each move (both of a pair go the same way): one back and one on is "
            "possible, too": lambda s: torch.stack((s[0], 0 * s[0], s[1], 0 * s[0], s[2])),
            "you squared the shares: that misses all pairs of different moves": lambda s: (
                torch.stack((s[0] ** 2, 0 * s[0], s[1] ** 2, 0 * s[0], s[2] ** 2))
            ),
            "each pair of different moves comes in two orders: your result does not sum to "
            "1": lambda s: torch.stack(
                (s[0] ** 2, s[0] * s[1], s[1] ** 2 + s[0] * s[2], s[1] * s[2], s[2] ** 2)
            ),
            "the second move goes the wrong way: a flipped s undoes the first": lambda s: _convolve(
                s, s.flip(0)
            ),
        },
        praise="right: the shift of two moves is s convolved with itself.",
    )


@exercise
def there_and_back(answer: Callable[..., Any]) -> Verdict:
    """Check a program (marker (M,), length): items forward, then backward, the last one once."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for length, start in ((3, 4), (1, 2), (5, 1), (2, 5)):
        marker = F.one_hot(torch.tensor(4), 5).float()
        items = F.pad(torch.randn(length, 4, generator=generator), (0, 1))
        memory = torch.zeros(9, 5)
        memory[: length + 1] = torch.cat((marker[None], items))
        cases.append((marker, length, memory.roll(start, dims=0)))
    return check(
        _run(answer, _only_reads),
        _there_and_back_reads,
        cases,
        mistakes={
            "your first read is the marker: find it and go one on in the same step": _run(
                _marker_read_too, _reads
            ),
            "you start on the marker and end one item early: add move=+1 to the jump": _run(
                _one_early, _reads
            ),
            "you read the last item twice: turn round at once": _run(_last_twice, _reads),
            "you never turn round: move=-1 goes back": _run(_never_back, _reads),
            "you never look for the marker: the head need not stand on it": _run(_no_key, _reads),
            "you read one item too many: on the way back you reach the marker": _run(
                _back_to_marker, _reads
            ),
        },
        praise="right: there and back, from wherever the head stood.",
    )


@exercise
def insert(answer: Callable[..., Any]) -> Verdict:
    """Check a program (after, new, free (C,), payload (P,)) that inserts into a linked list."""
    cases = [_list_case(torch.Generator().manual_seed(seed)) for seed in range(4)]
    return check(
        _run(answer, _final),
        _inserted,
        cases,
        mistakes={
            "the rest of the list is lost, the new node points to itself: read what it must point "
            "to before you change `after`": _run(_points_to_itself, _final),
            "the list does not know the new node: let `after` point to it": _run(
                _not_linked, _final
            ),
            "you wrote over the node `after`: the new node belongs in the free slot": _run(
                _overwrites, _final
            ),
            "`after` lost its payload: write back what you read there": _run(_payload_lost, _final),
            "the new node still carries the code `free`: nobody will find it": _run(
                _still_free, _final
            ),
        },
        praise="right: two links changed, nothing else.",
        atol=0.05,
    )


@exercise
def least_sharpening(answer: Callable[..., Any]) -> Verdict:
    """Check a function (spread, moves, slots, candidates) -> the least γ that keeps 90 %."""
    grid = [1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0]
    cases = [(0.05, 10, 16, grid), (0.1, 30, 32, grid), (0.2, 5, 9, grid), (0.25, 20, 16, grid)]
    return check(
        answer,
        _least_sharpening,
        cases,
        mistakes={
            "you sharpen once, at the end: by then the blur is too wide; sharpen after each "
            "move": lambda spread, moves, slots, candidates: _least(
                spread, moves, slots, candidates, at_end=True
            ),
            "you judge after one move: the blur of all moves counts": (
                lambda spread, moves, slots, candidates: _least(spread, 1, slots, candidates)
            ),
            "you took the largest candidate: the smallest that suffices is asked for": (
                lambda spread, moves, slots, candidates: candidates[-1]
            ),
            "you took the first that keeps the start the largest slot: 90 % is asked for": (
                lambda spread, moves, slots, candidates: _least(
                    spread, moves, slots, candidates, most=0.0
                )
            ),
        },
        praise="right: the softer the shift, the larger γ must be (up to ε = 1/3).",
    )


@exercise
def log_sharpen(answer: Callable[..., Any]) -> Verdict:
    """Check a function (log weights (..., N), gamma) -> log of the sharpened weights."""
    generator = torch.Generator().manual_seed(0)
    scales = ((1.0, 2.0), (3.0, 1.5), (1.0, 1000.0), (300.0, 1.0), (300.0, 1000.0))
    cases = [
        ((scale * torch.randn(2, 6, generator=generator)).log_softmax(dim=-1), gamma)
        for scale, gamma in scales
    ]
    return check(
        answer,
        _log_sharpen,
        cases,
        mistakes={
            "γ · log w is the logarithm of the power; the sum to divide by is missing": (
                lambda log_weights, gamma: gamma * log_weights
            ),
            "these are the weights: their logarithm is asked for": (
                lambda log_weights, gamma: (gamma * log_weights).softmax(dim=-1)
            ),
            "powers of the weights underflow to 0, and 0 / 0 is NaN: stay with logarithms": (
                lambda log_weights, gamma: _naive(log_weights.exp(), gamma).log()
            ),
            "you went through the weights, and small ones became 0, their logarithm -inf: stay "
            "with logarithms": lambda log_weights, gamma: sharpen(log_weights.exp(), gamma).log(),
            "you normalize over the wrong dimension: slots come last": (
                lambda log_weights, gamma: (gamma * log_weights).log_softmax(dim=0)
            ),
        },
        praise="right: sharpening is a softmax over log w with strength γ.",
    )


# The references, and programs that err.


def _two_moves(s: Tensor) -> Tensor:
    return _convolve(s, s)


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    full = torch.zeros(len(a) + len(b) - 1)
    for i in range(len(a)):
        full[i : i + len(b)] += a[i] * b
    return full


def _there_and_back(marker: Tensor, length: int) -> Program:
    yield Step(key=marker, move=+1)
    yield from _walk(length - 1, +1)
    yield from _walk(length - 1, -1)


def _there_and_back_reads(marker: Tensor, length: int, memory: Tensor) -> Any:
    return _run(_there_and_back, _reads)(marker, length, memory)


def _marker_read_too(marker: Tensor, length: int) -> Program:
    yield Step(key=marker)
    yield from _walk(length, +1)
    yield from _walk(length - 1, -1)


def _one_early(marker: Tensor, length: int) -> Program:
    yield Step(key=marker)
    yield from _walk(length - 1, +1)
    yield from _walk(length - 1, -1)


def _last_twice(marker: Tensor, length: int) -> Program:
    yield Step(key=marker, move=+1)
    yield from _walk(length - 1, +1)
    yield Step()
    yield from _walk(length - 1, -1)


def _never_back(marker: Tensor, length: int) -> Program:
    yield Step(key=marker, move=+1)
    yield from _walk(2 * (length - 1), +1)


def _no_key(marker: Tensor, length: int) -> Program:
    yield from _walk(length, +1)
    yield from _walk(length - 1, -1)


def _back_to_marker(marker: Tensor, length: int) -> Program:
    yield Step(key=marker, move=+1)
    yield from _walk(length - 1, +1)
    yield from _walk(length, -1)


def _walk(steps: int, move: int) -> Program:
    for _ in range(steps):
        yield Step(move=move)


def _insert(after: Tensor, new: Tensor, free: Tensor, payload: Tensor) -> Program:
    node = yield Step(key=after)
    following, old = node[CODE : 2 * CODE], node[2 * CODE :]
    yield Step(key=free, add=torch.cat((new, following, payload)))
    yield Step(key=after, add=torch.cat((after, new, old)))


def _inserted(after: Tensor, new: Tensor, free: Tensor, payload: Tensor, memory: Tensor) -> Any:
    return _run(_insert, _final)(after, new, free, payload, memory)


def _points_to_itself(after: Tensor, new: Tensor, free: Tensor, payload: Tensor) -> Program:
    node = yield Step(key=after)
    yield Step(key=after, add=torch.cat((after, new, node[2 * CODE :])))
    yield Step(key=free, add=torch.cat((new, new, payload)))


def _not_linked(after: Tensor, new: Tensor, free: Tensor, payload: Tensor) -> Program:
    node = yield Step(key=after)
    yield Step(key=free, add=torch.cat((new, node[CODE : 2 * CODE], payload)))


def _overwrites(after: Tensor, new: Tensor, free: Tensor, payload: Tensor) -> Program:
    node = yield Step(key=after)
    yield Step(key=after, add=torch.cat((new, node[CODE : 2 * CODE], payload)))


def _payload_lost(after: Tensor, new: Tensor, free: Tensor, payload: Tensor) -> Program:
    node = yield Step(key=after)
    yield Step(key=free, add=torch.cat((new, node[CODE : 2 * CODE], payload)))
    yield Step(key=after, add=torch.cat((after, new, torch.zeros_like(payload))))


def _still_free(after: Tensor, new: Tensor, free: Tensor, payload: Tensor) -> Program:
    node = yield Step(key=after)
    yield Step(key=free, add=torch.cat((free, node[CODE : 2 * CODE], payload)))
    yield Step(key=after, add=torch.cat((after, new, node[2 * CODE :])))


def _list_case(generator: torch.Generator) -> tuple[Tensor, ...]:
    """The arguments of `insert` and a memory: a list of 5 nodes and a free slot, shuffled."""
    codes = torch.randint(0, 2, (7, CODE), generator=generator) * 2.0 - 1
    payloads = torch.randint(0, 2, (6, 4), generator=generator).float()
    nodes = torch.cat((codes[:5], torch.zeros(5, CODE), payloads[:5]), dim=-1)
    nodes[:4, CODE : 2 * CODE] = codes[1:5]
    empty = F.pad(codes[5:6], (0, CODE + 4))
    memory = torch.cat((nodes, empty))[torch.randperm(6, generator=generator)]
    return codes[2], codes[6], codes[5], payloads[5], memory


def _least_sharpening(spread: float, moves: int, slots: int, candidates: list[float]) -> float:
    return _least(spread, moves, slots, candidates)


def _least(
    spread: float,
    moves: int,
    slots: int,
    candidates: list[float],
    *,
    at_end: bool = False,
    most: float = 0.9,
) -> float:
    """The first candidate with weight `most` left on the start, and no slot above it."""
    for gamma in candidates:
        weights = F.one_hot(torch.tensor(0), slots).float()
        for move in range(moves):
            weights = shift(weights, torch.tensor([spread, 1 - 2 * spread, spread]))
            if not at_end or move == moves - 1:
                weights = sharpen(weights, gamma)
        if weights[0] >= most and weights.argmax() == 0:
            return gamma
    return float("inf")


def _log_sharpen(log_weights: Tensor, gamma: float) -> Tensor:
    return (gamma * log_weights).log_softmax(dim=-1)


def _naive(weights: Tensor, gamma: float) -> Tensor:
    powers = weights**gamma
    return powers / powers.sum(dim=-1, keepdim=True)


# Running a reader's program.


def _run(program: Any, result: Callable[[programs.Trace], Tensor]) -> Any:
    """Turn a program into a function of its arguments and a memory, for `check`."""
    if not callable(program):
        return program

    def run(*arguments: Any) -> Tensor | None:
        *given, memory = arguments
        generator = program(*given)
        if generator is None or generator is ...:
            return None
        if not hasattr(generator, "send"):
            raise TypeError(f"a program must `yield` steps; got {type(generator).__name__}")
        return result(programs.run(_bounded(generator), memory))

    return run


def _bounded(program: Program) -> Program:
    """The same program, stopped with an error when it does not end."""
    value = None
    for _ in range(LONGEST):
        try:
            step = program.send(value)  # type: ignore[arg-type]
        except StopIteration:
            return
        value = yield step
    raise RuntimeError(f"the program did not end within {LONGEST} steps")


def _reads(trace: programs.Trace) -> Tensor:
    return trace.reads


def _only_reads(trace: programs.Trace) -> Tensor:
    """What was read by a program that leaves the memory as it is."""
    if trace.wrote.any():
        raise ValueError("your program writes, where it should only read: leave out `add`")
    return trace.reads


def _final(trace: programs.Trace) -> Tensor:
    return trace.memories[-1]
