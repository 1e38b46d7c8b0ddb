"""The recorded NTMs as the page has them, before any number of slots and with its lesions."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from experiments.ntm_ablation import harden, hold
from memlib import NTM, NTMState
from memlib.teaching.files import find

COPY, RECALL = "results/ntm_copy.safetensors", "results/ntm_associative_recall.safetensors"
SIZES = {COPY: (9, 8), RECALL: (8, 6)}


def trained(file: str, slots: int = 128, rounded: bool = False) -> NTM:
    """A recorded machine, widened as the chapter does it; rounded: as the page has it."""
    machine = NTM(*SIZES[file], slots=slots)
    weights = {**load_file(find(file))}
    weights["cell.initial_memory"] = machine.cell.initial_memory
    if rounded:
        machine.double()
        weights = {name: value.half().double() for name, value in weights.items()}
    machine.load_state_dict(weights)
    return machine


def step(machine: NTM, x: Tensor, state: NTMState, held: bool, hardened: bool) -> Any:
    """One step with its lesions, as the experiment on longer sequences makes them."""
    hidden, after = machine.cell._step(x, state)
    if hardened:
        after = harden(machine, state, after, answering=True)
    after = hold(machine, state, after, answering=held)
    return machine.cell._logits(hidden, after.reads), after


@torch.no_grad()
def run(machine: NTM, x: Tensor, held: float, hardened: bool) -> tuple[Tensor, list[NTMState]]:
    """Logits (B, T, O) and states where the memory is held from step `held` on."""
    state, logits, states = machine.initial_state(len(x)), [], []
    for t, now in enumerate(x.to(machine.cell.initial_reads.dtype).unbind(1)):
        said, state = step(machine, now, state, t >= held, hardened)
        logits.append(said)
        states.append(state)
    return torch.stack(logits, 1), states
