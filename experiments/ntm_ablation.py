"""Why do some machines that learned to copy fail on longer sequences, and others not?

Each machine that `python -m experiments ntm --task copy` trained answers the same long sequences
again, with one thing changed at a time and no further training. What mends it was needed for the
errors.
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from experiments import checkpoints, ntm, records
from experiments.command_line import UNFINISHED
from memlib import NTM, NTMState, default_device, read, tasks

TRAINED_BY = ntm.perform  # of whose machines the record tells, so that it is in the key, too
Change = Callable[[NTM, NTMState, NTMState, bool], NTMState]  # (ntm, before, after, answering)


def nothing(machine: NTM, before: NTMState, after: NTMState, answering: bool) -> NTMState:
    """Change nothing."""
    return after


def hold(machine: NTM, before: NTMState, after: NTMState, answering: bool) -> NTMState:
    """Keep the memory as it was when the input ended."""
    if not answering:
        return after
    reading = after.weights[:, : machine.cell.read_heads]
    return after._replace(memory=before.memory, reads=read(reading, before.memory))


def harden(machine: NTM, before: NTMState, after: NTMState, answering: bool) -> NTMState:
    """Put all weight of each read head on its largest."""
    reading, writing = after.weights.split(
        (machine.cell.read_heads, machine.cell.write_heads), dim=1
    )
    reading = F.one_hot(reading.argmax(-1), reading.shape[-1]).to(reading.dtype)
    weights = torch.cat((reading, writing), dim=1)
    return after._replace(weights=weights, reads=read(reading, after.memory))


def both(machine: NTM, before: NTMState, after: NTMState, answering: bool) -> NTMState:
    """Keep the memory, and harden the read heads."""
    return hold(machine, before, harden(machine, before, after, answering), answering)


CHANGES: dict[str, tuple[Change, int]] = {  # what is changed, and the slots
    "as trained": (nothing, 128),
    "memory held": (hold, 128),
    "256 slots": (nothing, 256),
    "reads hardened": (harden, 128),
    "both": (both, 128),
}


def answer(machine: NTM, batch: tasks.Batch, change: Change) -> tuple[Tensor, Tensor]:
    """Run over sequences of one length; return logits (B, T, O) and weights (B, T, H, N)."""
    cell, logits, weights = machine.cell, [], []
    state = cell.initial_state(len(batch.inputs))
    for x, counts in zip(batch.inputs.unbind(1), batch.mask.unbind(1), strict=True):
        hidden, after = cell._step(x, state)
        state = change(machine, state, after, bool(counts.all()))
        logits.append(cell._logits(hidden, state.reads))
        weights.append(state.weights)
    return torch.stack(logits, 1), torch.stack(weights, 1)


def resized(machine: NTM, slots: int) -> NTM:
    """Return a machine with other slots: no trained parameter depends on their number."""
    cell = machine.cell
    sizes = (cell.input_size, cell.output_size, slots, cell.width)
    other = NTM(*sizes, controller=copy.deepcopy(cell.controller))
    trained = dict(machine.named_parameters())
    other.load_state_dict({**other.state_dict(), **trained})
    return other.to(default_device())


@torch.no_grad()
def ablate(run: ntm.Run, unfinished: Path, length: int, count: int) -> dict[str, Any]:
    """Return the wrong bits of one trained machine under every change, and its focus."""
    machine = ntm.make_model(run)
    assert isinstance(machine, NTM)
    tensors, _ = checkpoints.load(unfinished / f"{run.name}.safetensors", {"run": run.about()})
    machine.load_state_dict(
        {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")}
    )
    sequences = Generator().manual_seed(ntm.LONGER)
    batch = tasks.copy(count, length=length, generator=sequences, device=default_device())
    wrong, focus = {}, {}
    for name, (change, slots) in CHANGES.items():
        logits, weights = answer(resized(machine, slots), batch, change)
        wrong[name] = ntm.mean([tasks.wrong_bits(logits, batch.targets, batch.mask)])
        focus[name] = weights.amax(-1).mean(0)  # (T, H), of the largest weight
    reading, writing = (
        [round(w, 4) for w in head.tolist()] for head in focus["as trained"].unbind(1)
    )
    return {
        "seed": run.seed,
        "walk": run.recipe.walk,
        "length": length,
        "wrong_bits": wrong,
        "focus": {"read": reading, "write": writing},
    }


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments ntm_ablation", description=__doc__)
    add = parser.add_argument
    add("--seeds", type=int, default=10, help="seeds from 0, each with and without a walk")
    add("--length", type=int, default=120)
    add("--sequences", type=int, default=64)
    add("--results", type=Path, default=records.RESULTS, help="folder of the records")
    add("--unfinished", type=Path, default=UNFINISHED, help="folder of the trained machines")
    options = parser.parse_args(arguments)
    runs = [
        ntm.Run("copy", "ntm", seed, changes=changes)
        for changes in ({"walk": 0.0}, {})
        for seed in range(options.seeds)
    ]
    for run in runs:
        if not (options.unfinished / f"{run.name}.safetensors").exists():
            parser.error(f"no trained machine; first: {run.command}")
    figures = []
    for run in runs:
        figures.append(ablate(run, options.unfinished, options.length, options.sequences))
        print(run.name, figures[-1]["wrong_bits"])
    command = "python -m experiments ntm_ablation"
    print(records.save("ntm_copy_ablation", figures, command=command, folder=options.results))
