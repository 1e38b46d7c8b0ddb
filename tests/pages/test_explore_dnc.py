"""The DNC's page: books by hand, exercise 4 as a puzzle, recorded machines with gates shut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine import ask, engine
from explorables import FRAME, Explorable, axe, close, every_look, malformed, opened, restored
from playwright.sync_api import Browser
from test_engine_dnc import GATES, original
from torch import Tensor

from memlib import allocation, read, write
from memlib.dnc.bookkeeping import _link, _use
from memlib.teaching import exercises as ex
from memlib.teaching.exercises.dnc import KINDS, MODES, _copied, _fault

SLOTS, LETTERS = 6, 26
TOOLS = {"w": "writes to it", "r": "reads it", "f": "frees it"}
BUTTONS = {"a": "Write to a free slot", "b": "Read back", "t": "Read forth"}
RIGHT = {"first": (1, 1, "back"), "store": (0, 1, "back"), "ask": (0, 0, "alike"),
         "next": (1, 0, "forth")}  # fmt: skip
Table = dict[str, tuple[int, int, str]]


# By hand.


def books(moves: list[str], firm: float, erased: bool) -> dict[str, Tensor]:
    """The books after moves, by memlib's formulas."""
    eye, letters = torch.eye(SLOTS).double(), torch.eye(LETTERS).double()
    usage, nothing = torch.zeros(1, SLOTS).double(), torch.zeros(1, SLOTS).double()
    memory, links = torch.zeros(SLOTS, LETTERS).double(), torch.zeros(1, 1, SLOTS, SLOTS).double()
    last, reading, writing, written = nothing[None], nothing, nothing, 0
    for what, *slot in moves:
        one = eye[[int(slot[0])]] if slot else nothing
        kept = 1 - reading * (what == "f")
        usage = _use(usage, writing[None]) * kept
        memory = memory * kept.mT if erased else memory
        writing = firm * {"w": one, "a": allocation(usage)}.get(what, nothing)
        memory = write(
            memory, writing, letters[[written % LETTERS]], torch.ones(1, LETTERS).double()
        )
        written += what in "wa"
        links, last = _link(links, last, writing[None])
        follow = links[0, 0] if what == "b" else links[0, 0].mT
        reading = one if what == "r" else read(reading, follow) if what in "bt" else reading
    usage = _use(usage, writing[None])
    return {
        "memory": memory,
        "usage": usage[0],
        "allocation": allocation(usage)[0],
        "links": links[0, 0],
        "precedence": last[0, 0],
        "writing": writing[0],
        "reading": reading[0],
    }


def compare_books(one: Explorable) -> None:
    state = one.state
    right = books(state["moves"], state["firm"], state["erased"])
    seen = one.seen
    for name, value in right.items():
        close(value, seen[name])
    arrows = one.root.locator(".ml-arrow:not([hidden])").count()
    assert arrows == int((right["links"] > 0.02).sum())


def pick(one: Explorable, name: str, *, by_key: bool) -> None:
    """Chooses one of several, by mouse or with the arrow keys."""
    radio = one.root.get_by_role("radio", name=name, exact=True)
    if not by_key:
        radio.check()
    for _ in range(4):
        if radio.is_checked():
            break
        radio.evaluate("e => document.querySelector(`input[name=${e.name}]:checked`).focus()")
        one.page.keyboard.press("ArrowRight")
    assert radio.is_checked()


def move(one: Explorable, what: str, *, by_key: bool) -> None:
    """Makes a move as a reader does."""
    if what in BUTTONS:
        one.press(BUTTONS[what]) if by_key else one.button(BUTTONS[what]).click()
        return
    pick(one, TOOLS[what[0]], by_key=by_key)
    slot = one.root.locator(f"button[data-slot='{what[1]}']")
    if by_key:
        slot.focus()
        one.page.keyboard.press("Enter")
    else:
        slot.click()


@every_look
def test_the_books_follow_every_move(
    browser: Browser, book: str, rng: np.random.Generator, size: str, scheme: str
) -> None:
    by_key = size == "wide"
    with opened(browser, book, "dnc", size, scheme) as one:
        compare_books(one)
        one.button("Clear").click()
        made = []
        for turn in range(14):
            what = rng.choice([*"wwrrfatb"]) if turn > 1 else "a"
            made.append(what + (str(rng.integers(SLOTS)) if what in TOOLS else ""))
            move(one, made[-1], by_key=by_key)
            compare_books(one)
        assert one.state["moves"] == made
        one.slide("write gate", -int(rng.integers(1, 15)))
        compare_books(one)
        one.root.get_by_label("what is freed is erased, too").press("Space")
        compare_books(one)
        assert one.state["erased"]
        axe(one)
        restored(browser, one)
        one.press("Undo")
        assert one.state["moves"] == made[:-1]
        compare_books(one)
        if by_key:
            malformed(browser, one)


def test_a_finger_writes_to_a_slot(browser: Browser, book: str) -> None:
    with opened(browser, book, "dnc", "narrow") as one:
        slot = one.root.locator("button[data-slot='5']")
        slot.scroll_into_view_if_needed()
        box = slot.bounding_box()
        assert box is not None
        one.swipe((box["x"] + box["width"] / 2, box["y"] + box["height"] / 2))
        one.page.wait_for_function(f"{FRAME}.state.moves.length === 6")
        assert one.state["moves"][-1] == "w5"
        compare_books(one)


# The puzzle.


def table_of(rng: np.random.Generator) -> Table:
    """A random table, or a right one with a few things changed."""
    draw = {k: (*map(int, rng.integers(0, 2, 2)), str(rng.choice(MODES))) for k in KINDS}
    return (
        draw
        if rng.random() < 0.2
        else {k: draw[k] if rng.random() < 0.3 else RIGHT[k] for k in KINDS}
    )


def judge(table: Table) -> tuple[Tensor, str]:
    """What comes back, and what is wrong, if anything is."""
    vectors = torch.eye(15).unflatten(0, (5, 3))
    came = _copied(vectors, table)
    wrong = (came - vectors).abs().amax((1, 2)) > 1e-3
    fault = _fault(table, int(wrong.int().argmax()) + 1) if wrong.any() else ""
    return came.flatten(0, 1), fault or "right: 15 vectors through 3 slots."


def test_the_puzzle_judges_as_the_exercise(browser: Browser, rng: np.random.Generator) -> None:
    tables = [table_of(rng) for _ in range(100)]
    cases = [
        {k: {"free": bool(f), "write": bool(w), "mode": m} for k, (f, w, m) in table.items()}
        for table in tables
    ]
    asked = "t => { const came = answers(play(t)); return { came, said: verdict(t, right(came)) } }"
    with engine(browser, "pages/dnc/puzzle.js") as page:
        theirs = ask(page, asked, cases)
    for table, answer in zip(tables, theirs, strict=True):
        came, message = judge(table)
        close(came, answer["came"])
        assert answer["said"] == message


def test_the_quiz_asks_for_the_change_that_breaks_it() -> None:
    path = Path(__file__).parents[2] / "book" / "quizzes" / "dnc.json"
    asked = next(q for q in json.loads(path.read_text("utf-8")) if q["id"] == "puzzle-change")
    for answer in asked["answers"]:
        kind, change = answer["answer"].removeprefix("`").rstrip(".").split("` ")
        free, writes, mode = RIGHT[kind]
        row = (1, writes, mode) if "frees" in change else (free, writes, change.split()[-1])
        came, message = judge(RIGHT | {kind: row})
        assert message.startswith("right") != answer["correct"], answer
        if answer["correct"]:
            assert int((came == torch.eye(15)).all(1).sum()) < 5


@every_look
def test_the_puzzle_can_be_solved(
    browser: Browser, book: str, rng: np.random.Generator, size: str, scheme: str
) -> None:
    with opened(browser, book, "dnc", size, scheme) as one:
        pick(one, "the puzzle", by_key=size == "wide")
        for table in (table_of(rng), RIGHT):
            for kind, (free, writes, mode) in table.items():
                row = one.root.get_by_role("group", name=f"{kind}:")
                for name, on in (("free", free), ("write", writes)):
                    box = row.get_by_role("checkbox", name=name)
                    if box.is_checked() != bool(on):
                        box.press("Space") if size == "wide" else box.click()
                row.get_by_role("radio", name=mode).check()
            seen, checked = one.seen, ex.dnc.gates(table.__getitem__)
            close(judge(table)[0], seen["came"])
            assert seen["verdict"] == checked.message
            assert all(seen["good"]) == checked.ok == one.said.startswith("All come back")
        one.put("step", int(rng.integers(30)))
        one.root.get_by_text("A hint").click()
        axe(one)
        restored(browser, one)


# The recorded machines.


def compare_machine(one: Explorable, tolerance: float = 1e-3) -> None:
    """What is shown is what the original says with the same gates shut."""
    state, seen = one.state, one.seen
    name = "dnc_copy_rounds" + "_repaired" * (state["machine"] == "repaired")
    shut = [gate for gate in GATES if state[f"no-{gate}"]]
    machine = original(name, state["slots"], shut).double()
    length = state["length"]
    chosen = np.array(state["vectors"]).reshape(10, 5)[: state["rounds"], :length, None]
    bits = torch.tensor(chosen >> np.arange(6) & 1)  # (rounds, length, 6)
    rounds = []
    for vectors in bits.double():
        end = torch.zeros(len(vectors) + 1, 7).double()
        end[0, 6] = 1
        rounds.append(torch.cat((torch.nn.functional.pad(vectors, (0, 1)), end)))
    inputs = torch.cat(rounds)
    close(inputs, seen["inputs"])
    now, step, logits = machine.initial_state(1), min(state["step"], len(inputs) - 1), []
    with torch.no_grad():
        for t, x in enumerate(inputs):
            said, now = machine.cell(x[None], now)
            logits.append(said[0])
            if t == step:
                there = now
    close(torch.stack(logits), seen["logits"], tolerance)
    used = _use(there.usage, there.weights[:, 1:])
    right = {"usage": used, "precedence": there.precedence[:, 0], "reading": there.weights[:, 0],
             "writing": there.weights[:, 1]}  # fmt: skip
    ours = torch.cat([*right.values()]).mT.numpy()  # (N, 4)
    theirs = np.array([seen[part] for part in right]).T
    mine, other = (np.lexsort(slots.round(5).T) for slots in (ours, theirs))
    if np.allclose(ours, theirs, tolerance, tolerance):
        mine = other = np.arange(len(ours))
    # slots that are alike to the last digit may change places, but then in all books
    close(ours[mine], theirs[other], tolerance)
    links = there.links[0, 0].numpy()
    close(links[mine][:, mine], np.array(seen["links"])[other][:, other], tolerance)
    close(allocation(torch.tensor(seen["usage"]).double()), seen["allocation"])
    answers = torch.stack(logits).unflatten(0, (-1, 2 * length + 1))[:, -length:] > 0
    wrong = (answers != bits.bool()).sum((1, 2))
    assert seen["rounds"] == wrong.tolist()
    assert f"{wrong.sum()} of {answers.numel()} bits" in one.said


@every_look
def test_a_machine_answers_with_gates_shut(
    browser: Browser, book: str, rng: np.random.Generator, size: str, scheme: str
) -> None:
    by_key = size == "wide"
    with opened(browser, book, "dnc", size, scheme) as one:
        pick(one, "a trained machine", by_key=by_key)
        compare_machine(one)
        for kind in ("DNC of 2016", "repaired: what is freed is erased"):
            pick(one, kind, by_key=by_key)
            one.put("vectors a round", int(rng.integers(1, 6)))
            one.put("slots", int(rng.integers(4, 10)))
            one.slide("rounds", -int(rng.integers(1, 9)))
            one.press("Other vectors") if by_key else one.button("Other vectors").click()
            compare_machine(one)
            for gate in rng.choice(GATES, size=2, replace=False):
                box = one.root.get_by_role("checkbox", name=str(gate), exact=True)
                visible = box.locator("visible=true")
                visible.press("Space") if by_key else visible.click()
                compare_machine(one)
            one.press("Step") if by_key else one.button("Step").click()
            cell = one.root.locator(".ml-cell:enabled").nth(int(rng.integers(6)))
            before = one.state["vectors"]
            if by_key:
                cell.focus()
                one.page.keyboard.press("Space")
            else:
                cell.click()
            assert one.state["vectors"] != before
            compare_machine(one)
        axe(one)
        restored(browser, one)


@pytest.mark.parametrize("gate", GATES)
def test_each_gate_can_be_shut(browser: Browser, book: str, gate: str) -> None:
    with opened(browser, book, "dnc", query="?part=machine&rounds=4") as one:
        before = one.seen["logits"]
        one.root.get_by_role("checkbox", name=gate, exact=True).locator("visible=true").check()
        compare_machine(one)
        assert np.abs(np.array(one.seen["logits"]) - before).max() > 0.1


# What it asks to try, and faults.


def test_what_it_asks_to_try_comes_out_as_a_surprise(browser: Browser, book: str) -> None:
    with opened(browser, book, "dnc") as one:
        move(one, "f2", by_key=False)
        assert "slot 1, not slot 2" in one.said
        close([1, 0, 1, 1, 0, 0], one.seen["usage"])
        shows = one.button("Show me")
        shows.nth(0).click()
        assert "slot 1, not slot 2" in one.said
        shows.nth(1).click()
        assert all(row["free"] for row in one.seen["table"].values())
        assert one.said.startswith("All come back")
        shows.nth(2).click()
        both = sum(one.seen["rounds"])
        compare_machine(one)
        one.root.get_by_role("checkbox", name="write", exact=True).locator("visible=true").uncheck()
        assert sum(one.seen["rounds"]) > 1.5 * both
        compare_machine(one)


PLANTED: dict[str, tuple[str, Callable[[Explorable], Any]]] = {
    "a move that is lost": ("e.draw({...e.state, moves: e.state.moves.slice(1)})", compare_books),
    "a gate not quite open": ("e.draw({...e.state, firm: 0.999})", compare_books),
    "a wrong link": ("e.seen.links[1][0] -= 1e-4", compare_books),
    "a gate that is not shut": ("e.state = {...e.state, part: 'machine'}; e.redraw(); "
        "e.state = {...e.state, 'no-free': true}", compare_machine),
    "another slot": ("e.state = {...e.state, part: 'machine', slots: 9}; e.redraw(); "
        "e.state = {...e.state, slots: 8}", compare_machine),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_is_found(browser: Browser, book: str, fault: str) -> None:
    with opened(browser, book, "dnc") as one:
        act, compare = PLANTED[fault]
        one.page.evaluate(f"{{ const e = {FRAME}; {act} }}")
        with pytest.raises(AssertionError):
            compare(one)
