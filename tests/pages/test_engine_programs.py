"""Programs typed in the page against memlib's: the same tape, weights and refusals.

The text is Python's: here each line is read by Python itself, and its steps are run by memlib.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
import typed_programs as typed
from engine import ask, engine, worst
from playwright.sync_api import Browser

CASES, CLOSE = 200, 1e-5
WRONG = [  # lines that are refused, whatever the tape
    "yield Step(move=2)",
    "yield Step(key=a, move=-3)",
    "yield Step(move=0.5)",
    "yield Step(move=a)",
    "yield Step(move=None)",
    "yield Step(key=3)",
    "yield Step(add=3)",
    "yield Step(add=a[: 1])",
    "yield Step(add=torch.cat((a, b)))",
    "yield Step(key=torch.cat((a, b)))",
    "yield Step(strength=-1)",
    "yield Step(strength=None)",
    "yield Step(sharpening=0.5)",
    "yield Step(key=nothing)",
    "yield Step(speed=3)",
    "yield Step(move=1, move=1)",
    "yield Step(move=1",
    "yield Step(move=)",
    "yield Step(move 1)",
    "yield Step(key=[a, 1])",
    "yield Step(key=a[b : 2])",
    "yield Step(key=C[0 : 1])",
    "yield Step(key=a[0.5 : 2])",
    "yield Step(key=torch.cat((a, 3)))",
    "yield Stop()",
    "yield Step() Step()",
    "yield Step)",
    "7 = yield Step()",
]


def draw(seed: int) -> list[dict[str, Any]]:
    """Random tapes and texts, every third with a line that is refused."""
    rng = np.random.default_rng(seed)
    cases = []
    for index in range(CASES):
        slots, width = int(rng.integers(3, 9)), int(rng.integers(2, 7))
        names = {
            "a": rng.normal(size=width),
            "b": np.eye(width)[rng.integers(width)],
            "zero": np.zeros(width),
            "C": int(rng.integers(1, width + 1)),
        }
        lines = [line(rng, width, first=i == 0) for i in range(int(rng.integers(1, 9)))]
        if index % 3 == 2:
            lines.insert(int(rng.integers(0, len(lines) + 1)), str(rng.choice(WRONG)))
        if index == 2:
            lines = ["# nothing", ""]
        memory = rng.normal(size=(slots, width)) * (rng.random((slots, 1)) < 0.6)
        memory *= index % 10 > 0
        if index == 5:
            memory = memory[:2]
        cases.append({"text": "\n".join(lines), "names": names, "memory": memory})
    return cases


def line(rng: np.random.Generator, width: int, *, first: bool) -> str:
    """One step in the chapter's notation, its spaces and comments drawn, too."""
    known = ["a", "b", "zero"] + ["node"] * (not first)
    one = str(rng.choice(known))
    numbers = ", ".join(f"{x:.2g}" for x in rng.normal(size=width))
    keys = [one, f"{one}[:C]", f"{one}[C : 2 * C]", f"{one}[-1:]", f"-2*{one}", "[]", "None"]
    writes = [one, f"[{numbers}]", f"torch.cat(({one}[:1], a[1:]))", f"0.5 * {one}", "None"]
    fields = {
        "key": str(rng.choice(keys)),
        "move": str(rng.choice(["+1", "-1", "0", "1"])),
        "add": str(rng.choice(writes)),
        "strength": str(rng.choice(["0", "3.5", "2 * 5", "1e3"])),
        "sharpening": str(rng.choice(["1", "2.5", "20"])),
    }
    kept = [f"{name}={said}" for name, said in fields.items() if rng.random() < 0.5]
    step = f"Step({', '.join(rng.permutation(kept))})"
    before = "node = yield " if first else str(rng.choice(["", "yield ", "node = yield "]))
    return before + step + str(rng.choice(["", "  # a comment", "\n", " "]))


def ours(case: dict[str, Any]) -> tuple[list[Any], int, str]:
    """What memlib does: states after each step, and the line and reason of a refusal."""
    names = {k: torch.as_tensor(v) if k != "C" else v for k, v in case["names"].items()}
    trace, line_, why = typed.run(case["text"], names, torch.as_tensor(case["memory"]))
    states = zip(*trace, strict=True) if trace else ()
    return [[r, w, m.flatten(), [float(x)]] for r, w, m, x in states], line_, why


@functools.cache
def answers() -> list[tuple[list[Any], int, str]]:
    """The same for all draws, once."""
    return [ours(case) for case in draw(3)]


THEIRS = """c => {
    const moments = [];
    let why = "";
    try {
        for (const m of watch(typed(c.text, c.names), c.memory)) moments.push(m);
        if (!moments.length) run(typed(c.text, c.names), c.memory);
    } catch (error) { why = error.message; }
    return { why, moments: moments.map(m =>
        [m.read, m.weights, m.memory.flatMap(row => [...row]), [Number(m.wrote)]]) };
}"""


def differences(browser: Browser, plant: tuple[str, str] = ("", "")) -> list[str]:
    """What differs between the page and memlib."""
    cases, found = draw(3), []
    right = answers()
    with engine(browser, "programs.js", "typed.js", plant=plant) as page:
        theirs = ask(page, THEIRS, cases)
    refused = 0
    for case, answer, (states, line_, why) in zip(cases, theirs, right, strict=True):
        refused += bool(why)
        if bool(why) != bool(answer["why"]):
            found.append(f"one is refused: {case['text']!r}: {why!r}, {answer['why']!r}")
        elif why and not typed.same_meaning(why, answer["why"]):
            found.append(f"another reason: {case['text']!r}: {why!r}, {answer['why']!r}")
        elif answer["why"].startswith("Line") and f"Line {line_}:" not in answer["why"]:
            found.append(f"another line: {case['text']!r}: {line_}, {answer['why']!r}")
        elif len(states) != len(answer["moments"]):
            found.append(f"another number of steps: {case['text']!r}")
        else:
            pairs = zip(states, answer["moments"], strict=True)
            off = max((worst(a, b) for one in pairs for a, b in zip(*one, strict=True)), default=0)
            found += [f"off by {off}: {case['text']!r}"] * (off > CLOSE)
    assert refused > CASES / 5
    return found


def test_programs_are_memlibs(browser: Browser) -> None:
    assert differences(browser) == []


def test_a_wrong_line_is_refused_for_the_same_reason(browser: Browser) -> None:
    names = {"a": np.ones(3), "b": np.eye(3)[0], "C": 2}
    texts = [f"Step()\n\n{wrong}\nStep(move=5)" for wrong in WRONG]
    cases = [{"text": text, "names": names, "memory": np.eye(3)} for text in texts]
    with engine(browser, "programs.js", "typed.js") as page:
        told = ask(page, THEIRS, cases)
    for case, answer in zip(cases, told, strict=True):
        states, line_, why = ours(case)
        assert line_ == 3
        assert len(states) == len(answer["moments"]) == 1
        assert answer["why"].startswith("Line 3: ")
        assert typed.same_meaning(why, answer["why"]), (why, answer["why"])


@pytest.mark.parametrize(
    "plant",
    {
        "where a write is read": ("read: read(weights, written)", "read: read(weights, memory)"),
        "what is erased": (".fill(1)", ".fill(0.9)"),
        "the way of a move": ("shift[1 + move]", "shift[1 - move]"),
        "how firm a jump is": ("strength = 1000", "strength = 990"),
        "a key that is too wide": ("key.length > width", "key.length > 2 * width"),
        "a product": ("times(value, this.factor())", "this.factor()"),
        "the end of a part": ("all.slice(from, to)", "all.slice(from, to + 1)"),
        "the line of a refusal": ("`Line ${index + 1}", "`Line ${index}"),
        "the name of what was read": ("known[said.name] = read", "known.node = names.a"),
        "a program's own names": ("{ ...said.step,", "{ ...said.step, move: 0,"),
    }.items(),
    ids=lambda plant: plant[0],
)
def test_a_wrong_program_is_found(browser: Browser, plant: tuple[str, tuple[str, str]]) -> None:
    assert differences(browser, plant[1])
