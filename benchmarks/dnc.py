"""The differentiable neural computer beside the `dnc` package and a straightforward version.

One run is forward and backward over 20 steps. All run in turn on one thread, and medians of CPU
time are compared: on an idle core that is the time on the clock, and on a busy machine it leaves
out the waiting. Where there is a C++ compiler memlib's machine also runs with its step compiled
(`memlib.DNC.compile`).

The straightforward version computes the same function, checked here to rounding, as the paper
writes it down: a layer for each gate, comparison by broadcasting, the formulas line by line. The
package computes another one, see `DIFFERS`; its work in a step is the same all the same.
"""

import importlib
import shutil
from collections.abc import Callable
from statistics import geometric_mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ntm import once, timed
from memlib import DNC

STEPS, INPUT, HIDDEN = 20, 9, 100
SIZES = [  # of the chapter, of the paper's copy task, and of its bAbI network
    {"batch": 16, "slots": 16, "width": 12, "read_heads": 1},
    {"batch": 1, "slots": 128, "width": 20, "read_heads": 1},
    {"batch": 16, "slots": 128, "width": 20, "read_heads": 1},
    {"batch": 16, "slots": 256, "width": 64, "read_heads": 4},
]
INSTALL = """not measured: the package dnc is missing. To measure it, too:
    pip install --no-deps --target SOMEWHERE dnc==1.1.0
    PYTHONPATH=SOMEWHERE python -m benchmarks dnc"""
DIFFERS = (
    "what was read reaches the output but never the controller, whose input holds zeros instead; "
    "strengths may fall to 0 (softplus, where the paper has 1 + softplus); keys and what is "
    "written go through tanh; the controller's output is clipped; the memory starts at 0; the "
    "output has the size of the input"
)


class Plain(nn.Module):
    """A DNC with one write head as the paper's Methods tell it, with the parameters of ours."""

    def __init__(self, like: DNC) -> None:
        super().__init__()
        cell = like.cell
        self.slots, self.width, self.heads = cell.slots, cell.width, cell.read_heads
        self.controller, self.output = cell.controller, cell.output
        self.start = (cell.initial_reads, cell.initial_hidden, cell.initial_cell)
        self.memory = cell.initial_memory
        R, M = self.heads, self.width  # our order: keys, add; strengths; erase and gates; modes
        names = ("read_keys", "write_key", "add", "strengths", "write_strength", "erase", "free",
                 "allocation", "write", "modes")  # fmt: skip
        sizes = (R * M, M, M, R, 1, M, R, 1, 1, 3 * R)
        rows = zip(
            cell.interface.weight.detach().split(sizes),
            cell.interface.bias.detach().split(sizes),
            strict=True,
        )
        self.layers = nn.ModuleDict()
        for name, size, (weight, bias) in zip(names, sizes, rows, strict=True):
            layer = nn.Linear(weight.shape[1], size)
            layer.load_state_dict({"weight": weight, "bias": bias})
            self.layers[name] = layer

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return logits (B, T, O) for x (B, T, I)."""
        batch, N, R = len(x), self.slots, self.heads
        memory = self.memory.expand(batch, -1, -1)
        reads, h, c = (part.expand(batch, *part.shape) for part in self.start)
        usage = precedence = w_write = x.new_zeros(batch, N)
        w_read, links = x.new_zeros(batch, R, N), x.new_zeros(batch, N, N)
        off_diagonal = 1 - torch.eye(N)
        logits = []
        for step in x.unbind(1):
            h, c = self.controller(torch.cat((step, reads.flatten(1)), 1), (h, c))
            raw = {name: layer(h) for name, layer in self.layers.items()}
            keys = raw["read_keys"].view(batch, R, -1)
            strengths, write_strength = (
                1 + F.softplus(raw[name]) for name in ("strengths", "write_strength")
            )
            erase, free, allocation_gate, write_gate = (
                raw[name].sigmoid() for name in ("erase", "free", "allocation", "write")
            )
            modes = raw["modes"].view(batch, R, 3).softmax(-1)

            retention = (1 - free.unsqueeze(2) * w_read).prod(1)
            usage = (usage + w_write - usage * w_write) * retention
            rising, order = usage.sort(dim=-1, stable=True)
            before = torch.cat((torch.ones_like(rising[:, :1]), rising[:, :-1]), 1).cumprod(1)
            allocation = torch.gather((1 - rising) * before, 1, order.argsort(-1))

            found = alike(raw["write_key"].unsqueeze(1), memory, write_strength).squeeze(1)
            w_write = write_gate * (allocation_gate * allocation + (1 - allocation_gate) * found)
            memory = memory * (1 - w_write.unsqueeze(2) * erase.unsqueeze(1))
            memory = memory + w_write.unsqueeze(2) * raw["add"].unsqueeze(1)

            links = (1 - w_write.unsqueeze(2) - w_write.unsqueeze(1)) * links
            links = links + w_write.unsqueeze(2) * precedence.unsqueeze(1)
            links = links * off_diagonal
            precedence = (1 - w_write.sum(1, keepdim=True)) * precedence + w_write

            forth = torch.einsum("bij,brj->bri", links, w_read)
            back = torch.einsum("bji,brj->bri", links, w_read)
            ways = torch.stack((back, alike(keys, memory, strengths), forth), 2)  # (B, R, 3, N)
            w_read = (modes.unsqueeze(3) * ways).sum(2)
            reads = torch.einsum("brn,bnm->brm", w_read, memory)
            logits.append(self.output(torch.cat((h, reads.flatten(1)), 1)))
        return (torch.stack(logits, 1),)


def alike(keys: Tensor, memory: Tensor, strengths: Tensor) -> Tensor:
    """Return content weights (B, R, N) by cosine."""
    cosine = F.cosine_similarity(keys.unsqueeze(2), memory.unsqueeze(1), dim=-1)
    return (strengths.unsqueeze(2) * cosine).softmax(-1)


def package(size: dict[str, int]) -> nn.Module | None:
    """Return the machine of the package of that name, or None if it is not installed."""
    try:
        peer: Any = importlib.import_module("dnc")
    except ImportError:
        return None
    machine: nn.Module = peer.DNC(
        INPUT, HIDDEN, num_hidden_layers=1, nr_cells=size["slots"], cell_size=size["width"],
        read_heads=size["read_heads"],
    )  # fmt: skip
    return machine


def machine(size: dict[str, int]) -> DNC:
    """Return ours; as many outputs as inputs, since the package has no others."""
    return DNC(INPUT, INPUT, size["slots"], size["width"], read_heads=size["read_heads"])


def compare(size: dict[str, int], budget: float) -> dict[str, Any]:
    """Return milliseconds of forward and backward of each, all with the same sizes."""
    torch.manual_seed(0)
    ours = machine(size)
    models: dict[str, nn.Module] = {"memlib": ours, "plain": Plain(ours)}
    x, y = (torch.rand(size["batch"], STEPS, INPUT).round() for _ in range(2))
    with torch.no_grad():
        apart = (models["memlib"](x)[0] - models["plain"](x)[0]).abs().max().item()
    assert apart < 1e-4, apart
    if any(map(shutil.which, ("g++", "clang++", "c++"))):
        models["compiled"] = machine(size)
        models["compiled"].load_state_dict(ours.state_dict())
        models["compiled"].compile(dynamic=False)
    if peer := package(size):
        models["package"] = peer
    ways: dict[str, Callable[[], None]] = {
        name: lambda model=model: once(model, x, y)  # type: ignore[misc]
        for name, model in models.items()
    }
    row = size | timed(ways, budget)
    for mine in {"memlib", "compiled"} & models.keys():
        for other in {"plain", "package"} & models.keys():
            row[f"{other}/{mine}"] = round(row[f"{other}_ms"] / row[f"{mine}_ms"], 2)
    return row


def run(budget: float = 8.0) -> dict[str, Any]:
    """Time all of them at every size, for about `budget` seconds each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [compare(size, budget) for size in SIZES]
    finally:
        torch.set_num_threads(threads)
    ratios = [name for name in rows[0] if "/" in name]
    return {
        "threads": 1,
        "steps": STEPS,
        "rows": rows,
        "ratios": {n: round(geometric_mean(row[n] for row in rows), 2) for n in sorted(ratios)},
        "package": DIFFERS if "package_ms" in rows[0] else INSTALL,
    }


def report(figures: dict[str, Any]) -> str:
    """Return the table, in milliseconds, and the ratios."""
    names = ("batch", "slots", "width", "read_heads", "memlib_ms", "compiled_ms", "plain_ms",
             "package_ms")  # fmt: skip
    lines = [f"forward + backward over {figures['steps']} steps, one thread:"]
    lines += ["".join(f"{name:>12}" for name in names)]
    lines += ["".join(f"{row.get(name, '-'):>12}" for name in names) for row in figures["rows"]]
    lines += [f"{name}, geometric mean: {ratio}" for name, ratio in figures["ratios"].items()]
    differs = f"the package's function differs: {figures['package']}"
    return "\n".join([*lines, differs if figures["package"] == DIFFERS else figures["package"]])
