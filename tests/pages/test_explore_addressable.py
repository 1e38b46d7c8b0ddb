"""The knobs and the programs on the page of addressable memory, turned and typed as readers do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typed_programs as typed
from explorables import FRAME, Explorable, axe, close, every_look, malformed, opened, restored
from playwright.sync_api import Browser
from torch import Tensor

from memlib import Gates, address, interpolate, locate, programs, sharpen, shift

KNOBS = {  # label: field, the least, the most, a step of the slider
    "key like slot": ("seek", 0, 7, 1),
    "strength β": ("strength", 0, 50, 1),
    "head was on": ("was", 0, 7, 1),
    "gate g": ("gate", 0, 1, 0.05),
    "back": ("back", 0, 1, 0.05),
    "stay": ("stay", 0, 1, 0.05),
    "one on": ("on", 0, 1, 0.05),
    "sharpening γ": ("sharpening", 1, 20, 0.1),
}
LINES = {  # what may be typed on either tape, some of it refused
    "copy": [
        "yield Step(key=row{n}, move={m})",
        "Step(move={m}, add=0.5 * row{n})",
        "seen = yield Step(key=marker, strength={n}, move=+1, sharpening=2.5)",
        "yield Step(add=[0, 1, 0, 0.5, 0, 0, 0, -1, {n}])",
        "yield Step(move={n})",
        "yield Step(key=row9)",
    ],
    "list": [
        "node = yield Step(key=start[: {n}], move={m})",
        "yield Step(key=-1 * start, move={m})",
        "yield Step(move={m}, strength={n})",
        "node = yield Step(key=start, strength={n}0)",
        "yield Step(add=start)",
        "yield Step(move={m}, mov={m})",
    ],
}


def given(one: Explorable) -> dict[str, Tensor]:
    """What the notebook gave to the page."""
    told = one.root.locator(".ml-data").text_content() or ""
    data = json.loads(told)
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in data.items()}


def compare_knobs(one: Explorable) -> None:
    """The four stages and the whole walk are memlib's."""
    state, data = one.state, given(one)
    eight = data["eight"]
    key = (eight[state["seek"]] + data["noise"])[None]
    amounts = torch.tensor([state[name] for name in ("back", "stay", "on")], dtype=torch.float64)
    shares = amounts / amounts.sum() if amounts.any() else torch.eye(3).double()[1]
    content = address(key, eight, measure="cosine", strength=float(state["strength"]))[0]
    history = [torch.eye(8, dtype=torch.float64)[state["was"]]]
    for _ in range(state["moves"]):
        before = history[-1]
        gated = interpolate(content, before, float(state["gate"]))
        moved = shift(gated, shares)
        history.append(sharpen(moved, float(state["sharpening"])))
    one_each = [torch.full((1, 1), float(state[n])).double() for n in ("strength", "gate")]
    gamma = torch.full((1, 1), float(state["sharpening"])).double()
    gates = Gates(key[None], *one_each, shares[None, None], gamma)
    close(locate(gates, eight[None], before[None, None])[0, 0], one.seen["weights"])
    close(content, one.seen["content"])
    close(gated, one.seen["gated"])
    close(moved, one.seen["moved"])
    close(torch.stack(history), one.seen["history"])
    place = int(np.argmax(one.seen["weights"]))
    away = (torch.arange(8) - place).abs()
    spread = (history[-1] * torch.minimum(away, 8 - away) ** 2).sum().sqrt()
    close(spread, one.seen["blur"])


def compare_program(one: Explorable) -> None:
    """Tape, head and reads are those of memlib, for the text as Python reads it."""
    state, data = one.state, given(one)
    if state["tape"] == "copy":
        memory = torch.zeros(state["slots"], 9, dtype=torch.float64)
        names: dict[str, Any] = {
            f"row{i + 1}": torch.cat((row, torch.zeros(1))) for i, row in enumerate(data["rows"])
        }
        names["marker"] = torch.eye(9, dtype=torch.float64)[-1]
    else:
        memory, names = data["nodes"], {"start": data["start"], "C": 16}
    trace, line, why = typed.run(state["program"], names, memory)
    seen = one.seen
    assert bool(why) == bool(seen["why"]), (why, seen["why"])
    if why:
        assert typed.same_meaning(why, seen["why"]), (why, seen["why"])
        assert f"Line {line}:" in seen["why"] or "got none" in why
        shown = one.root.locator("p.ml-wrong").text_content()
        assert shown == seen["why"]
        assert seen["why"] in one.said
    steps = len(trace.reads) if trace else 0
    at = min(state["at"], steps)
    assert seen["steps"] == steps
    if not trace or not at:
        close(memory, seen["memory"])
        close(torch.eye(len(memory))[0], seen["head"])
        return
    close(trace.memories[at - 1], seen["memory"])
    close(trace.weights[at - 1], seen["head"])
    reads = trace.reads[:at][~trace.wrote[:at]]
    close(reads, seen["reads"]) if len(reads) else close([], seen["reads"])


def turn(one: Explorable, rng: np.random.Generator, *, by_key: bool) -> None:
    """Turns every knob, then moves again and again."""
    for label, (field, low, high, step) in KNOBS.items():
        if by_key:
            one.slide(label, int(rng.integers(-8, 9)))
            assert low <= one.state[field] <= high
        else:
            value = low + step * int(rng.integers(0, round((high - low) / step) + 1))
            one.put(label, round(value, 2))
    compare_knobs(one)
    for _ in range(int(rng.integers(1, 6))):
        moves = one.state["moves"]
        one.press("Again") if by_key else one.button("Again").click()
        assert one.state["moves"] == moves + 1
        compare_knobs(one)
    assert "blur" in (one.root.locator(".ml-also").text_content() or "")


def program(one: Explorable, rng: np.random.Generator, *, by_key: bool) -> None:
    """Starts from each program, types and clicks steps in, runs, steps and goes back."""
    text = one.root.get_by_label("Program, one step a line")
    starts = ["Copy a digit", "Copy it backward", "Follow a linked list"]
    for name in rng.permutation(starts):
        one.press(name) if by_key else one.button(name).click()
        compare_program(one)
        tape = one.state["tape"]
        lines = one.state["program"].split("\n")
        at = int(rng.integers(1, len(lines)))
        new = str(rng.choice(LINES[tape]))
        new = new.format(n=rng.integers(1, 9), m=rng.choice(["+1", "-1", "0"]))
        if by_key:
            text.focus()
            one.page.keyboard.press("Control+Home")
            for _ in range(at):
                one.page.keyboard.press("ArrowDown")
            one.page.keyboard.type(new + "\n", delay=0)
            lines.insert(at, new)
        else:
            text.evaluate("(e, at) => e.setSelectionRange(at, at)", len("\n".join(lines[:at])))
            steps = one.root.locator("button.ml-step:visible")
            step = steps.nth(int(rng.integers(0, steps.count())))
            step.click()
            lines.insert(at, step.text_content() or "")
            text.fill("\n".join([*lines, new]))
            lines.append(new)
        assert one.state["program"] == "\n".join(lines)
        compare_program(one)
        for press in rng.choice(["Run", "Step", "Back", "Back", "Step"], 5):
            one.press(press) if by_key else one.button(press).click()
            compare_program(one)
        if tape == "copy":
            one.slide("tape slots", int(rng.integers(-5, 3)))
        one.slide("step", int(rng.integers(-5, 6)))
        compare_program(one)


@every_look
def test_knobs_are_turned_and_programs_run(
    browser: Browser, book: str, rng: np.random.Generator, size: str, scheme: str
) -> None:
    with opened(browser, book, "addressable", size, scheme) as one:
        compare_knobs(one)
        compare_program(one)
        axe(one)
        turn(one, rng, by_key=size == "wide")
        program(one, rng, by_key=size == "wide")
        axe(one)
        restored(browser, one)
        if size == "wide":
            malformed(browser, one)
        changed = one.state
        one.button("Reset").click()
        assert one.state != changed
        compare_knobs(one)
        compare_program(one)


def test_known_programs_are_those_of_memlib(browser: Browser, book: str) -> None:
    with opened(browser, book, "addressable") as one:
        data = given(one)
        rows, empty = data["rows"], torch.zeros(10, 9, dtype=torch.float64)
        for name, made, memory in (
            ("Copy a digit", programs.copy_program(rows), empty),
            ("Copy it backward", programs.reverse_program(rows), empty),
            (
                "Follow a linked list",
                programs.linked_list_program(data["start"], 10),
                data["nodes"],
            ),
        ):
            one.button(name).click()
            one.button("Run").click()
            trace = programs.run(made, memory)
            close(trace.memories[-1], one.seen["memory"])
            close(trace.weights[-1], one.seen["head"])
            close(trace.reads[~trace.wrote], one.seen["reads"])


def test_run_shows_each_step_and_stops_for_the_reader(browser: Browser, book: str) -> None:
    with opened(browser, book, "addressable") as one:
        one.page.emulate_media(reduced_motion="no-preference")
        one.slide("step", 5)
        one.button("Run").click()
        one.page.wait_for_function(f"{FRAME}.state.at === 17", timeout=20_000)
        one.button("Run").click()
        one.page.wait_for_function(f"{FRAME}.state.at === 2", timeout=20_000)
        one.button("Back").click()
        one.page.wait_for_timeout(800)
        assert one.state["at"] == 1


def test_a_wrong_line_is_named_and_the_rest_still_runs(browser: Browser, book: str) -> None:
    with opened(browser, book, "addressable") as one:
        text = one.root.get_by_label("Program, one step a line")
        text.fill("yield Step(add=marker)\n\nyield Step(move=3)")
        assert one.seen["why"] == "Line 3: move must be in [-1, 1]; got 3."
        assert one.seen["why"] in one.said
        assert text.get_attribute("aria-invalid") == "true"
        compare_program(one)
        axe(one)
        text.fill("")
        compare_program(one)
        assert one.said.endswith("A program must yield at least one Step; got none.")


def test_what_it_asks_to_try_comes_out_as_a_surprise(browser: Browser, book: str) -> None:
    with opened(browser, book, "addressable") as one:
        shows = one.button("Show me")
        shows.nth(0).click()
        for move in range(6):
            most = max(one.seen["weights"])
            assert 0.49 < most < 0.51 if move % 2 == 0 else most > 0.99, (move, most)
            one.button("Again").click()
        shows.nth(1).click()
        rows = given(one)["rows"]
        compare_program(one)
        stored = np.array(one.seen["memory"])[:, :8]
        assert sorted(stored.tolist()) == sorted(rows.tolist())  # each row lies there
        close(rows.mean(0).expand(8, 8), np.array(one.seen["reads"])[:, :8])  # and none is found
        shows.nth(2).click()
        compare_program(one)
        close(rows, np.array(one.seen["reads"])[:, :8])


def test_the_quiz_is_right_about_half_a_gate(browser: Browser, book: str) -> None:
    path = Path(__file__).parents[2] / "book" / "quizzes" / "addressable.json"
    items = {item["id"]: item for item in json.loads(path.read_text(encoding="utf-8"))}
    assert "slot 6" in next(a["answer"] for a in items["half-gate"]["answers"] if a["correct"])
    with opened(browser, book, "addressable") as one:
        knobs = {"strength β": 50, "gate g": 0.5, "back": 0, "stay": 0, "one on": 1}
        for label, value in knobs.items():
            one.put(label, value)
        one.put("moves made", 31)
        before = one.seen["weights"]
        one.button("Again").click()
        compare_knobs(one)
        close(before, one.seen["weights"])  # nothing changes any more
        assert 0.49 < one.seen["weights"][6] < 0.51
        assert one.seen["weights"][7] > 0.24


PLANTED = {  # what is done behind the reader's back, and which part notices
    "another strength": ("e.draw({...e.state, strength: 6})", compare_knobs),
    "a wrong weight": ("e.seen.weights[3] += 1e-4", compare_knobs),
    "one move too many": ("e.draw({...e.state, moves: 2})", compare_knobs),
    "the step before": ("e.draw({...e.state, at: 9})", compare_program),
    "another program": ("e.draw({...e.state, program: 'Step()'})", compare_program),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_is_found(browser: Browser, book: str, fault: str) -> None:
    done, compare = PLANTED[fault]
    with opened(browser, book, "addressable") as one:
        one.page.evaluate(f"{{ const e = {FRAME}; {done} }}")
        with pytest.raises(AssertionError):
            compare(one)
