"""The page's DNC against memlib's: interface, one step, and the recorded machines."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine import ask, engine, worst
from playwright.sync_api import Browser
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from memlib import DNC, DNCCell, DNCState, tasks
from memlib.dnc.interface import Interface
from memlib.teaching.explore.weights import pack

RESULTS = Path(__file__).parents[2] / "results"
CASES, CLOSE = 200, 1e-5
GATES = ("free", "allocate", "write", "back", "alike", "forth")


def shut_raw(raw: Tensor, gates: list[str], reads: int, writes: int) -> Tensor:
    """Raw numbers in which gates say no, by their places at the end of the interface."""
    sizes = (reads, writes, writes, reads * (2 * writes + 1))
    before, free, allocate, write, modes = raw.split((raw.shape[-1] - sum(sizes), *sizes), -1)
    modes = modes.unflatten(-1, (reads, -1))
    back, alike, forth = modes.split((writes, 1, writes), -1)
    parts = dict(zip(GATES, (free, allocate, write, back, alike, forth), strict=True))
    parts |= {name: torch.full_like(parts[name], -1000) for name in gates}
    modes = torch.cat([parts[name] for name in GATES[3:]], -1).flatten(-2)
    return torch.cat([before, *(parts[name] for name in GATES[:3]), modes], -1)


def draw(seed: int) -> list[dict[str, Any]]:
    """States and raw numbers of cells of all sizes and repairs, extreme gates among them."""
    rng = np.random.default_rng(seed)
    cases = []
    for index in range(CASES):
        slots, width, reads, writes = (int(size) for size in rng.integers(1, (7, 6, 4, 4)))
        masked, sharpened, deallocate = (bool(flag) for flag in rng.random(3) < 0.5)
        size = Interface(width, reads, writes, masked, sharpened).size
        heads = rng.dirichlet(np.ones(slots + 1), size=reads + writes)[:, :slots]
        links = rng.dirichlet(np.ones(slots + 1), size=(writes, slots))[:, :, :slots]
        links[:, range(slots), range(slots)] = 0
        state = {
            "memory": rng.normal(size=(slots, width)) * (index % 7 > 0),
            "reads": np.zeros((reads, width)),
            "weights": np.eye(slots)[heads.argmax(1)] if index % 3 == 0 else heads,
            "usage": rng.random(slots).round() if index % 4 == 0 else rng.random(slots),
            "links": links,
            "precedence": rng.dirichlet(np.ones(slots + 1), size=writes)[:, :slots],
            "hidden": np.zeros(0),
            "cell": np.zeros(0),
        }
        cases.append(
            {
                "raw": rng.normal(size=size) * rng.choice([0, 1, 5, 100]),
                "shut": [name for name in GATES if rng.random() < 0.2],
                "state": state,
                "sizes": [width, reads, writes, masked, sharpened],
                "deallocate": deallocate,
            }
        )
    return cases


def ours(case: dict[str, Any]) -> dict[str, Any]:
    width, reads, writes, masked, sharpened = case["sizes"]
    state = DNCState(**{k: torch.as_tensor(v)[None] for k, v in case["state"].items()})
    cell = DNCCell(
        1, 1, state.usage.shape[1], width, read_heads=reads, write_heads=writes,
        mask_content=masked, deallocate=case["deallocate"], sharpen_links=sharpened,
    ).double()  # fmt: skip
    raw = shut_raw(torch.as_tensor(case["raw"])[None], case["shut"], reads, writes)
    told = Interface(*case["sizes"])(raw)._asdict()
    with torch.no_grad():
        after = cell._change(raw, state)._asdict()
    found = {name: value[0].numpy() for name, value in (told | after).items()}
    del found["hidden"], found["cell"]
    return found


THEIRS = """c => {
    const told = new Interface(...c.sizes).tell(c.raw, c.shut);
    const rows = (x) => typeof x[0] === "object" ? x.map(rows) : Float64Array.from(x);
    const state = Object.fromEntries(Object.entries(c.state).map(([k, v]) => [k, rows(v)]));
    return { ...told, ...change(told, state, c.deallocate) };
}"""


@cache
def steps() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cases, and what is right in each."""
    cases = draw(1)
    return cases, [ours(case) for case in cases]


def differences(browser: Browser, plant: tuple[str, str] = ("", "")) -> dict[str, float]:
    """The worst difference of each thing told and each part of the state after a step."""
    cases, rights = steps()
    with engine(browser, "interface.js", "dnc.js", plant=plant) as page:
        theirs = ask(page, THEIRS, cases)
    found: dict[str, float] = {}
    for answer, all_right in zip(theirs, rights, strict=True):
        for name, right in all_right.items():
            size = max(1.0, float(np.abs(right).max(initial=0)))
            other = np.reshape(np.array(answer[name], dtype=float), right.shape)
            found[name] = max(found.get(name, 0), worst(right, other) / size)
    return found


def test_a_step_is_memlibs(browser: Browser) -> None:
    found = differences(browser)
    assert max(found.values()) < CLOSE, found


@pytest.mark.parametrize(
    ("name", "plant"),
    {
        "key": ("x * mask[h][m]", "x"),
        "mask": ("(1 - MASK_MIN) * sigmoid", "sigmoid"),
        "strength": ("return 1 + softplus(x)", "return softplus(x)"),
        "free": ('unless("free", x)', "x"),
        "modes": ('i > this.writes ? "forth"', 'i > this.writes ? "back"'),
        "usage": ("(u, n) => u * kept[n]", "(u) => u"),
        "memory": ("deallocate ? row.map", "!deallocate ? row.map"),
        "links": ("state.precedence[h], w", "state.precedence[0], w"),
        "reads": (
            "reading.map((w) => read(w, memory))",
            "reading.map((w) => read(w, state.memory))",
        ),
        "weights": ("gate * share * a", "gate * a"),
    }.items(),
)
def test_a_wrong_step_is_found(browser: Browser, name: str, plant: tuple[str, str]) -> None:
    assert differences(browser, plant)[name] > 100 * CLOSE


def test_the_controller_is_torchs(browser: Browser) -> None:
    rng, torch_cell = np.random.default_rng(2), nn.LSTMCell(5, 4).double()
    weights = {f"cell.controller.{k}": v.numpy() for k, v in torch_cell.state_dict().items()}
    cases = [
        [rng.normal(size=n) * 10.0 ** rng.integers(-1, 3) for n in (5, 4, 4)] for _ in range(CASES)
    ]
    with engine(browser, "recurrent.js") as page:
        page.evaluate(
            "w => { weights = JSON.parse(w) }", json.dumps(weights, default=lambda x: x.tolist())
        )
        theirs = ask(page, "c => lstm(...c, weights)", cases)
    x, hidden, cell = (torch.tensor(np.array(part)) for part in zip(*cases, strict=True))
    with torch.no_grad():
        right = torch.stack(torch_cell(x, (hidden, cell)), 1)
    assert worst(right, theirs) < CLOSE


# The recorded machines. Which slot is the freest is decided by the last digits of a usage, so a
# machine whose weights are rounded to half precision answers otherwise: the page has them exactly.

SURE = 0.02  # a logit beyond it is a decision
MACHINES = ("dnc_copy_rounds", "dnc_copy_rounds_repaired")
CHANGES = (["free"], ["allocate"], ["write"], ["back"], ["alike"], ["forth"], ["back", "forth"])
RUN = """c => {
    const machine = new DNC(weights, c.options);
    let [state, logits] = [machine.initialState(), null];
    return c.inputs.map((x) => ([logits, state] = machine.step(x, state, c.shut))[0]);
}"""


def original(name: str, slots: int, shut: list[str]) -> DNC:
    """A recorded machine, its gates shut as the chapter does it."""
    recipe, weights = recipe_of(name), load_file(RESULTS / f"{name}.safetensors")
    bits, width = recipe["sizes"]["bits"], recipe["width"]
    controller = nn.LSTMCell(bits + 1 + width, recipe["hidden"])
    options = dict.fromkeys(recipe["options"], True)
    machine = DNC(bits + 1, bits, slots, width, controller=controller, **options)
    machine.load_state_dict(weights | {"cell.initial_memory": machine.cell.initial_memory})
    last = [GATES.index(gate) - len(GATES) for gate in shut]
    with torch.no_grad():
        machine.cell.interface.weight[last] = 0
        machine.cell.interface.bias[last] = -1000.0
    return machine


def recipe_of(name: str) -> dict[str, Any]:
    with safe_open(RESULTS / f"{name}.safetensors", "pt") as file:
        recipe: dict[str, Any] = json.loads(file.metadata()["about"])["recipe"]
    return recipe


def rounds_of(seed: int, count: int, length: int, rounds: int) -> tuple[Tensor, Tensor]:
    """Copy tasks one after the other: inputs, mask."""
    chance = torch.Generator().manual_seed(seed)
    parts = [tasks.copy(count, length=length, bits=6, generator=chance) for _ in range(rounds)]
    return torch.cat([part[0] for part in parts], 1), torch.cat([part[2] for part in parts], 1)


# gates shut, slots, then sequences, length and rounds of each: 200 as it was trained
ASKED: list[tuple[list[str], int, tuple[int, int, int]]] = [
    *(([], 8, (50, length, 10 if length > 1 else 4)) for length in (1, 2, 4, 5)),
    *((shut, 8, (10, 5, 4)) for shut in CHANGES),
    *(([], slots, (10, 5, 4)) for slots in (5, 16)),
]


@cache
def rights(name: str) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Inputs, what PyTorch says, what it says in double precision, and where that is a decision."""
    found = []
    for seed, (shut, slots, sizes) in enumerate(ASKED):
        inputs, mask = rounds_of(seed, *sizes)
        machine = original(name, slots, shut)
        with torch.no_grad():
            said, exact = machine(inputs)[0], machine.double()(inputs.double())[0]
        sure = (said.abs() > SURE) & mask[..., None]
        if slots == 16:  # there single and double precision disagree in PyTorch itself
            sure = torch.zeros_like(sure)
        found.append((inputs, said, exact, sure))
    return found


def compare(
    browser: Browser, name: str, plant: tuple[str, str] = ("", ""), rows: int | None = None
) -> dict[str, float]:
    """How many decisions were compared, how many differ, and the worst difference of a logit."""
    packed = pack(RESULTS / f"{name}.safetensors", exact=True)
    options = {"deallocate": "deallocate" in recipe_of(name)["options"]}
    right = [tuple(part[:rows] for part in parts) for parts in rights(name)]
    cases = [
        {"shut": shut, "options": {**options, "slots": slots}, "inputs": row}
        for (shut, slots, _), (inputs, *_) in zip(ASKED, right, strict=True)
        for row in inputs
    ]
    with engine(browser, "weights.js", "dnc.js", plant=plant) as page:
        page.evaluate("packed => { weights = unpack(packed) }", packed)
        theirs = iter(ask(page, RUN, cases))
    found = {"sure": 0.0, "otherwise": 0.0, "worst": 0.0}
    for inputs, said, exact, sure in right:
        logits = torch.tensor([next(theirs) for _ in inputs], dtype=torch.float64)
        found["sure"] += int(sure.sum())
        found["otherwise"] += int(((said > 0) != (logits > 0))[sure].sum())
        found["worst"] = max(found["worst"], worst(exact, logits))
    return found


@pytest.mark.parametrize("name", MACHINES)
def test_a_recorded_machine_is_pytorchs(browser: Browser, name: str) -> None:
    found = compare(browser, name)
    assert found["sure"] > 10_000
    assert found["otherwise"] == 0, found
    assert found["worst"] < 1e-3, found


@pytest.mark.parametrize(
    "plant",
    [
        ("sigmoid(raw(1, d)) * c", "sigmoid(raw(1, d) + 0.1) * c"),
        ("...state, hidden, cell }", "...state, hidden }"),
        ("after.reads])", "state.reads])"),
        ("options.slots ??", "16 ??"),
        ("this.weights[`cell.${layer}.bias`]", "undefined"),
    ],
)
def test_a_wrong_machine_is_found(browser: Browser, plant: tuple[str, str]) -> None:
    found = compare(browser, MACHINES[0], plant, rows=2)
    assert found["otherwise"]
    assert found["worst"] > 0.1
