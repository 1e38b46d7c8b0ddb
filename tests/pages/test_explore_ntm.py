"""The recorded machines in the page do for a reader what memlib's do, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from explorables import (
    FRAME,
    Explorable,
    axe,
    caught,
    close,
    every_look,
    malformed,
    opened,
    restored,
)
from playwright.sync_api import Browser, Locator
from recorded import COPY, RECALL, run, trained

from memlib.addressable.gates import _gates

CLOSE = 1e-3
FACE = bytes.fromhex("3c4295a1a195423c")  # the picture of the notebook
NEVER = float("inf")


def unfold(vector: int, bits: int) -> list[int]:
    return [vector >> i & 1 for i in range(bits)]


def shown(state: Any, seen: Any) -> tuple[list[list[int]], list[list[int]], int]:
    """Inputs, answer, and steps until all is heard, by the tasks of memlib and the state alone.

    What is drawn at random is taken from the page.
    """
    if state["task"] == "copy":
        length = state["length"]
        vectors = [unfold(vector, 8) for vector in state["bits"][:length]]
        vectors += [row[:8] for row in seen["inputs"][len(vectors) : length]]
        rows = [[*v, 0] for v in vectors] + [[0] * 8 + [1]] + [[0] * 9] * length
        return rows, vectors, length
    items = [[unfold(v, 6) for v in state["items"][3 * k : 3 * k + 3]] for k in range(6)]
    asked = min(state["asked"], state["count"] - 1)
    query = [unfold(vector, 6) for vector in state["query"]] or items[asked - 1]
    mark = [[0] * 6 + [1, 0], [0] * 6 + [0, 1]]
    rows = []
    for item in items[: state["count"]]:
        rows += [mark[0], *([*v, 0, 0] for v in item)]
    heard = len(rows)
    rows += [mark[1], *([*v, 0, 0] for v in query), mark[1]] + [[0] * 8] * 3
    return rows, items[asked], heard


def compare(one: Explorable) -> int:
    """All that is shown is what memlib's machine does with the same input; wrong bits."""
    seen, state = one.seen, one.state
    rows, answer, heard = shown(state, seen)
    close(rows, seen["inputs"])
    assert {x for row in rows for x in row} <= {0, 1}
    before, t = len(rows) - len(answer), min(state["step"], len(rows) - 1)
    held = {"no": NEVER, "answers": before, "delimiter": heard}[state["hold"]]
    file = COPY if state["task"] == "copy" else RECALL
    machine = trained(file, int(state["slots"]), rounded=True)
    logits, states = run(machine, torch.tensor([rows]), held, state["harden"])
    close(logits[0], seen["logits"], CLOSE)
    close(torch.cat([s.weights for s in states]), seen["heads"], CLOSE)
    now = states[t]._asdict()
    assert seen["step"] == t
    for name, value in now.items():
        close(value[0], seen[name], CLOSE)
    with torch.no_grad():
        told, changes = machine.cell.interface(now["hidden"])[0].split(machine.cell._split)
    gates = _gates(told.unflatten(0, (2, -1)), machine.cell.width)
    for name, value in gates._asdict().items():
        close(value, [gate[name] for gate in seen["gates"]], CLOSE)
    erase, add = changes.split(machine.cell.width)
    close(erase.sigmoid(), seen["erase"], CLOSE)
    close(add.tanh(), seen["add"], CLOSE)
    said = torch.tensor(seen["logits"])[before:] > 0
    wrong = int((said != torch.tensor(answer).bool()).sum())
    assert seen["wrong"] == wrong
    assert f"{wrong} of {said.numel()} bits" in one.said
    assert f"Step {t + 1} of {len(rows)}," in one.said
    return wrong


def choose(one: Explorable, group: str, name: str, by_key: bool) -> None:
    """One of some radio buttons."""
    options = one.root.get_by_role("group", name=group, exact=True).get_by_role("radio")
    wanted = one.root.get_by_role("radio", name=name, exact=True)
    if not by_key:
        wanted.check()
        return
    one.root.get_by_role("group", name=group, exact=True).locator("input:checked").focus()
    for _ in range(options.count()):
        if not wanted.is_checked():
            one.page.keyboard.press("ArrowRight")
    assert wanted.is_checked()


def flip(one: Explorable, grid: str, row: int, column: int, by_key: bool) -> None:
    """Switches a cell, from wherever the focus of its grid was."""
    cells = one.root.get_by_role("group", name=grid, exact=True).locator(".ml-cell")
    columns = 8 if grid.endswith("column") else 3
    wanted = cells.nth(row * columns + column)
    was = wanted.get_attribute("aria-pressed")
    if by_key:
        one.root.get_by_role("group", name=grid, exact=True).locator("[tabindex='0']").focus()
        at = int(one.page.evaluate("document.activeElement.dataset.index"))
        steps = {"Down": row - at // columns, "Right": column - at % columns}
        for name, count in steps.items():
            back = {"Down": "Up", "Right": "Left"}[name]
            for _ in range(abs(count)):
                one.page.keyboard.press(f"Arrow{name if count > 0 else back}")
        one.page.keyboard.press("Space")
    else:
        wanted.click()
    assert wanted.get_attribute("aria-pressed") != was


def lesions(one: Explorable, rng: np.random.Generator, by_key: bool) -> None:
    choose(one, "Slots", str(rng.choice(["128", "256"])), by_key)
    holds = ["never", "while it answers", "from the delimiter on"]
    choose(one, "Hold the memory", str(rng.choice(holds)), by_key)
    box = one.root.get_by_role("checkbox")
    if rng.random() < 0.7:
        box.focus()
        one.page.keyboard.press("Space") if by_key else box.click()


def scrub(one: Explorable, rng: np.random.Generator, by_key: bool) -> None:
    """Goes to a step by the slider or the maps, and a few on and back."""
    steps = len(one.seen["inputs"])
    if by_key:
        one.press("Run")  # with less motion it is at the end at once
        assert one.state["step"] == steps - 1
        one.slide("step", -int(rng.integers(1, 6)))
    else:
        canvas = one.root.locator(".ml-film canvas").nth(int(rng.integers(0, 3)))
        box = canvas.bounding_box()
        assert box is not None
        step = int(rng.integers(0, steps))
        at = {"x": (step + 0.5) / steps * box["width"], "y": box["height"] / 2}
        canvas.click(position=at)
        assert abs(one.state["step"] - step) <= 1
    before = one.state["step"]
    for name in rng.choice(["Step", "Step back"], 3):
        one.press(str(name)) if by_key else one.button(str(name)).click()
        before = min(max(before + (1 if name == "Step" else -1), 0), steps - 1)
        assert one.state["step"] == before
    assert not one.get("busy"), "scrubbing runs nothing again"


def stroke(one: Explorable, first: Locator, last: Locator) -> None:
    """Draws from one cell to another with the pointer."""
    boxes = [cell.bounding_box() for cell in (first, last)]
    ends = [(b["x"] + b["width"] / 2, b["y"] + b["height"] / 2) for b in boxes if b]
    one.page.mouse.move(*ends[0])
    one.page.mouse.down()
    one.page.mouse.move(*ends[1], steps=16)
    one.page.mouse.up()


@every_look
def test_it_copies_what_the_reader_sets(
    browser: Browser, book: str, rng: np.random.Generator, size: str, scheme: str
) -> None:
    by_key, grid = size == "wide", "Bits of the vectors, one a column"
    with opened(browser, book, "ntm", size, scheme) as one:
        assert compare(one) == 0
        assert bytes(one.state["bits"]) == FACE
        for _ in range(3):
            flip(one, grid, int(rng.integers(8)), int(rng.integers(8)), by_key)
        compare(one)
        axe(one)
        length = int(rng.integers(9, 131))
        if by_key:
            one.root.get_by_role("slider", name="vectors", exact=True).focus()
            one.page.keyboard.press("End")
            assert one.state["length"] == 130
            one.slide("vectors", length - 130 if length > 110 else -20)
        else:
            one.put("vectors", length)
        compare(one)
        start = int(rng.integers(0, one.state["length"] - 7))
        one.put("edit vectors", start)
        column = int(rng.integers(8))
        flip(one, grid, 7, column, by_key)
        bits = one.seen["inputs"][start + column][:8]
        assert bits == unfold(one.state["bits"][start + column], 8)
        lesions(one, rng, by_key)
        scrub(one, rng, by_key)
        compare(one)
        axe(one)
        restored(browser, one)
        one.press("Clear")
        compare(one)
        assert not np.array(one.seen["inputs"])[:, :8].any()
        if not by_key:
            cells = one.root.locator(".ml-cells:visible .ml-cell")
            stroke(one, cells.nth(16), cells.nth(23))
            at = min(start, one.state["length"] - 8)
            assert [row[2] for row in one.seen["inputs"][at : at + 8]] == [1] * 8
            compare(one)
        flip(one, grid, 0, 7, by_key)
        one.put("vectors", 3)
        assert one.root.locator(".ml-cells:visible [tabindex='0']").is_enabled()
        flip(one, grid, 5, 2, by_key)
        compare(one)
        one.put("vectors", 60)
        one.press("Draw at random")
        assert 0.2 < np.mean(np.array(one.seen["targets"])[one.state["length"] + 1 :]) < 0.8
        one.press("Reset")
        compare(one)


@every_look
def test_it_recalls_items_of_the_readers_own(
    browser: Browser, book: str, rng: np.random.Generator, size: str, scheme: str
) -> None:
    by_key = size == "wide"
    with opened(browser, book, "ntm", size, scheme) as one:
        choose(one, "Task", "associative recall", by_key)
        assert compare(one) == 0
        assert "It says item 4" in one.said
        one.press("Draw at random")
        compare(one)
        count = int(rng.integers(2, 7))
        one.slide("items", count - 6) if by_key else one.put("items", count)
        asked = int(rng.integers(1, count))
        one.put("the query is item", asked)
        compare(one)
        for grid in (f"Bits of item {rng.integers(1, count + 1)}", "Bits of query"):
            flip(one, grid, int(rng.integers(6)), int(rng.integers(3)), by_key)
            compare(one)
        axe(one)
        lesions(one, rng, by_key)
        scrub(one, rng, by_key)
        compare(one)
        axe(one)
        restored(browser, one)
        assert one.state["query"]
        one.press("Query as the item is")
        assert one.state["query"] == []
        compare(one)
        if by_key:
            malformed(browser, one)


def test_what_it_asks_to_try_comes_out_as_a_surprise(browser: Browser, book: str) -> None:
    with opened(browser, book, "ntm") as one:
        shows = one.button("Show me")
        shows.nth(0).click()
        assert compare(one) > 400  # of 8 bits too many
        assert "the delimiter" in one.said
        assert "it has caught up" in one.said
        one.slide("vectors", -1)
        assert compare(one) == 0
        assert "it has caught up" not in one.said
        shows.nth(1).click()
        assert compare(one) > 100
        choose(one, "Hold the memory", "from the delimiter on", by_key=False)
        assert compare(one) == 0
        one.press("Reset")
        one.put("vectors", 127)
        choose(one, "Slots", "256", by_key=True)
        assert compare(one) == 0
        shows.nth(2).click()
        assert compare(one) == 0
        assert "It says item 4" in one.said
        one.press("Query as the item is")
        for row in range(6):
            if one.state["items"][8] >> row & 1:
                flip(one, "Bits of query", row, 2, by_key=False)
        assert one.state["query"] == [*one.state["items"][6:8], 0]
        assert compare(one) > 4


def test_a_long_run_is_sliced_and_can_be_watched(browser: Browser, book: str) -> None:
    with opened(browser, book, "ntm") as one:
        busy = one.page.evaluate(
            f"{FRAME}.set({{length: 130, slots: '256', step: 0}}), {FRAME}.busy"
        )
        assert busy
        assert one.seen["inputs"][129][8] == 0
        assert compare(one) == 0
        assert not one.root.locator("progress").is_visible()
        one.page.emulate_media(reduced_motion="no-preference")
        one.button("Run").click()
        one.page.wait_for_function(f"{FRAME}.state.step > 5")
        one.button("Stop").click()
        stopped = one.state["step"]
        one.page.wait_for_timeout(200)
        assert one.state["step"] == stopped < 260
        one.button("Run").click()
        one.page.wait_for_function(f"{FRAME}.state.step === 260")
        assert one.button("Run").is_visible()


PLANTED = {  # what is done behind the reader's back
    "other slots": "e.draw({...e.state, slots: '256'})",
    "another step": "e.draw({...e.state, step: 11})",
    "a wrong logit": "e.seen.logits[12][3] += 0.05",
    "a wrong head": "e.seen.heads[12][0][4] -= 0.01",
    "a wrong count": "e.seen.wrong += 1",
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_is_found(browser: Browser, book: str, fault: str) -> None:
    caught(browser, book, "ntm", PLANTED[fault], compare)
