"""The page's NTM against memlib's: random machines, and the two recorded ones, with each lesion."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from engine import ask, engine, worst
from playwright.sync_api import Browser
from recorded import COPY, RECALL, run, step, trained
from torch import Tensor

from memlib import NTM, NTMState, tasks
from memlib.addressable.gates import _gates
from memlib.teaching.explore.weights import pack
from memlib.teaching.files import find

CLOSE, CLOSE_TRAINED, SURE = 1e-5, 1e-3, 0.02


def ask_steps(browser: Browser, cases: list[Any], plant: tuple[str, str] = ("", "")) -> Any:
    """One step of a machine whose weights, state and lesion are given."""
    with engine(browser, "ntm.js", plant=plant) as page:
        return ask(
            page,
            """({ weights, x, state, lesion }) => {
                const machine = new NTM(weights, state.memory.length);
                const [logits, after] = machine.step(x, state, lesion);
                const { gates, erase, add } = machine.knobs(after.hidden);
                return { logits, ...after, gates: gates.map((g) => [
                    ...g.key, g.strength, g.gate, ...g.shift, g.sharpening]), erase, add };
            }""",
            cases,
        )


def draw_steps(seed: int, count: int) -> tuple[list[Any], list[dict[str, Tensor]]]:
    """Random machines in random states, and what memlib says a step of them does."""
    chance = torch.Generator().manual_seed(seed)

    def among(*values: Any) -> Any:
        return values[int(torch.randint(len(values), (), generator=chance))]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance, dtype=torch.float64)

    cases, right = [], []
    for index in range(count):
        slots, width, heads, size = among(1, 2, 7), among(1, 4), among(1, 1, 3), among(1, 6)
        shifts = among(1, 3) if slots > 2 else 1
        controller = torch.nn.LSTMCell(3 + heads * width, size, dtype=torch.float64)
        sizes = {"read_heads": heads, "shifts": shifts, "dtype": torch.float64}
        machine = NTM(3, 2, slots, width, controller=controller, **sizes)
        for value in machine.parameters():
            value.data = normal(*value.shape) * among(0.3, 1.0, 8.0)
        memory = normal(1, slots, width) * (index % 10 > 0)
        weights = normal(1, heads + 1, slots).mul(among(1.0, 30.0)).softmax(-1)
        state = NTMState(memory, normal(1, heads, width), weights, normal(1, size), normal(1, size))
        x, lesion = normal(1, 3), {"hold": among(False, True), "harden": among(False, True)}
        logits, after = step(machine, x, state, lesion["hold"], lesion["harden"])
        said = machine.cell.interface(after.hidden)[0]
        told, changes = said.split(machine.cell._split)
        gates = _gates(told.unflatten(0, (heads + 1, -1)), width)
        erase, add = changes.split(width)
        columns = (g if g.dim() > 1 else g[:, None] for g in gates)
        named = {name: value[0] for name, value in after._asdict().items()}
        right.append(
            {
                "logits": logits[0],
                **named,
                "gates": torch.cat([*columns], 1),
                "erase": erase.sigmoid(),
                "add": add.tanh(),
            }
        )
        cases.append(
            {
                "weights": {name: value.tolist() for name, value in machine.state_dict().items()},
                "x": x[0],
                "state": {name: value[0].tolist() for name, value in state._asdict().items()},
                "lesion": lesion,
            }
        )
    return cases, right


def step_differences(browser: Browser, plant: tuple[str, str] = ("", "")) -> dict[str, float]:
    """The worst difference of all that a step makes, over random machines."""
    with torch.no_grad():
        cases, right = draw_steps(3, 200)
    found: dict[str, float] = {}
    for ours, theirs in zip(right, ask_steps(browser, cases, plant), strict=True):
        for name, value in ours.items():
            size = max(1.0, float(value.abs().max()))
            found[name] = max(found.get(name, 0.0), worst(value, theirs[name]) / size)
    return found


def test_a_step_is_memlibs(browser: Browser) -> None:
    found = step_differences(browser)
    assert len(found) == 9
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(
    ("name", "plant"),
    {
        "logits": ("joined([hidden, ...reads])", "joined([hidden, ...state.reads])"),
        "memory": ("writing, add, erase)", "writing, add)"),
        "reads": ("read(w, memory)", "read(w, state.memory)"),
        "weights": ("harden ? oneHot(w) : w", "w"),
        "hidden": ("raw(3, d)) * Math.tanh(c)", "raw(3, d)) * c"),
        "cell": ("raw(1, d)) * c", "raw(2, d)) * c"),
        "gates": ("h * size, (h + 1) * size", "0, size"),
        "erase": ("heads.length, heads.length + this.width", "0, this.width"),
        "add": ("subarray(-this.width).map(Math.tanh)", "subarray(-this.width).map(sigmoid)"),
    }.items(),
)
def test_a_wrong_step_is_found(browser: Browser, name: str, plant: tuple[str, str]) -> None:
    assert step_differences(browser, plant)[name] > 100 * CLOSE


Group = tuple[tasks.Batch, int, int, bool]  # sequences of one length, slots, held, hardened


def copies(seed: int, lengths: list[int], count: int) -> list[Group]:
    """Copy at these lengths, `count` sequences each, with slots and lesions in turn."""
    chance, groups = torch.Generator().manual_seed(seed), []
    for index, length in enumerate(lengths):
        batch = tasks.copy(count, length=length, generator=chance)
        held = (10_000, length + 1, length)[index % 3]  # never, answering, from the delimiter on
        groups.append((batch, (128, 256)[index % 4 // 2], held, bool(index % 2)))
    return groups


def recalls(seed: int, count: int) -> list[Group]:
    """Associative recall with two to six items, and up to ten, with lesions in turn."""
    chance, groups = torch.Generator().manual_seed(seed), []
    for index, items in enumerate((2, 3, 4, 5, 6, 2, 3, 4, 6, 8)):
        batch = tasks.associative_recall(count, items=items, generator=chance)
        held = 4 * items + 8 if index == 5 else 10_000
        groups.append((batch, 128, held, index == 6))
    return groups


def compare(
    browser: Browser, file: str, groups: list[Group], plant: tuple[str, str] = ("", "")
) -> tuple[float, list[tuple[int, int, int]]]:
    """The worst logit against the same rounded weights; other decisions a group, of how many."""
    cases = [
        {"inputs": x.tolist(), "slots": slots, "held": held, "harden": hardened}
        for batch, slots, held, hardened in groups
        for x in batch.inputs
    ]
    with engine(browser, "ntm.js", "weights.js", plant=plant) as page:
        page.evaluate("text => { window.WEIGHTS = unpack(JSON.parse(text)); }", packed(file))
        theirs = iter(
            ask(
                page,
                """({ inputs, slots, held, harden }) => {
                    const machine = new NTM(WEIGHTS, slots);
                    let [logits, state] = [null, machine.initialState()];
                    return inputs.map((x, t) => {
                        [logits, state] = machine.step(x, state, { hold: t >= held, harden });
                        return logits;
                    });
                }""",
                cases,
            )
        )
    largest, flips = 0.0, []
    for batch, slots, held, hardened in groups:
        said = torch.tensor([next(theirs) for _ in batch.inputs])
        rounded, _ = run(trained(file, slots, rounded=True), batch.inputs, held, hardened)
        original, _ = run(trained(file, slots), batch.inputs, held, hardened)
        largest = max(largest, worst(rounded, said))
        sure = (original.abs() > SURE) & batch.mask[..., None]
        flips.append((int(((original > 0) != (said > 0))[sure].sum()), int(sure.sum()), slots))
    return largest, flips


def packed(file: str) -> str:
    """Weights as a page has them."""
    return json.dumps(pack(find(file)))


def test_the_recorded_copy_machine_decides_as_its_original(browser: Browser) -> None:
    chance = torch.Generator().manual_seed(9)
    short = torch.randint(1, 21, (24,), generator=chance).tolist()
    long = torch.randint(21, 127, (8,), generator=chance).tolist()
    groups = copies(4, [*short, *long, 126, 125], count=6)
    largest, flips = compare(browser, COPY, groups)
    assert sum(len(batch.inputs) for batch, *_ in groups) >= 200
    assert largest < CLOSE_TRAINED
    assert sum(flipped for flipped, *_ in flips) == 0
    assert sum(sure for _, sure, _ in flips) > 50_000


def test_beyond_its_room_it_decides_nearly_as_its_original(browser: Browser) -> None:
    groups = copies(5, [127, 130, 128, 129, 130, 127], count=2)
    largest, flips = compare(browser, COPY, groups)
    assert largest < CLOSE_TRAINED
    # where it collapses a last digit decides a bit now and then: of one weight as of all
    assert sum(flipped for flipped, *_ in flips) < 1e-3 * sum(sure for _, sure, _ in flips)
    assert all(flipped == 0 for flipped, _, slots in flips if slots == 256)


def test_the_recorded_recall_machine_decides_as_its_original(browser: Browser) -> None:
    largest, flips = compare(browser, RECALL, recalls(6, count=20))
    assert largest < CLOSE_TRAINED
    assert sum(flipped for flipped, *_ in flips) == 0
    assert sum(sure for _, sure, _ in flips) > 3_000


@pytest.mark.parametrize(
    "plant",
    [
        ("sigmoid(raw(0, d))", "1"),
        ("hold ? state.memory : write", "false ? state.memory : write"),
        ("harden ? oneHot(w) : w", "w"),
        ("fraction) : 2 ** -14", "fraction / 2) : 2 ** -14"),
        ("sharpening: 1 + softplus(sharpening)", "sharpening: 1"),
    ],
)
def test_a_wrong_machine_is_found(browser: Browser, plant: tuple[str, str]) -> None:
    groups = [(*copies(7, [30], count=1)[0][:3], False)]
    groups.append((groups[0][0], 128, 20, True))
    assert compare(browser, COPY, groups, plant)[0] > 10 * CLOSE_TRAINED
