"""Processes that objects are sent to, and in which they are trained together."""

import copy
import os
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from life import MODULES, ROWS, Asked, Row
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def compiled() -> Any:
    """A machine that compiles its step."""
    machine = MODULES["NTM GRU"].make()
    machine.compile(backend="eager")
    return machine


def work(objects: dict[str, Any], answers: Any) -> None:
    """In a process of its own: ask of each object what its row asks."""
    torch.set_num_threads(1)
    answers.put({name: _answer(name, it) for name, it in objects.items()})


def _answer(name: str, it: Any) -> Any:
    try:
        return [x.tolist() for x in ROWS[name.removesuffix(" compiled")].run(it)]
    except Exception:
        return traceback.format_exc()


def train_together(rank: int, folder: str, answers: Any) -> None:
    """In one of two processes: train every module by DDP; tell what was refused or went wrong."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    told = {name: _tell(_train, row, rank) for name, row in MODULES.items()}
    for name in ("NTM LSTM", "DNC GRU"):
        told[f"{name} goes on"] = _tell(_go_on, MODULES[name], rank)
    answers.put(told)
    dist.destroy_process_group()


def _tell(job: Callable[[Row, int], None], row: Row, rank: int) -> str | None:
    try:
        job(row, rank)
    except Exception:
        return traceback.format_exc()
    return None


STEPS = 3


def _train(row: Row, rank: int) -> None:
    """A step of DDP is a step with the mean of both gradients."""
    alone = Asked(row.make(), row.call)
    together = DistributedDataParallel(copy.deepcopy(alone), find_unused_parameters=False)
    for step in range(STEPS):
        batches = [row.draw(seed=2 * step + of) for of in (0, 1)]
        (_cost(alone, batches[0]) + _cost(alone, batches[1])).div(2).backward()
        _cost(together, batches[rank]).backward()
        ours, theirs = together.module.named_parameters(), alone.named_parameters()
        for (name, one), (_, other) in zip(ours, theirs, strict=True):
            assert one.grad.isfinite().all()
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
        for module in (alone, together):
            _descend(module)


def _go_on(row: Row, rank: int) -> None:
    """A state is passed on, as in truncated backpropagation."""
    machine = DistributedDataParallel(row.make(), find_unused_parameters=True)
    state = None
    for step in range(STEPS):
        logits, state = machine(row.draw(seed=2 * step + rank)[0], state)
        logits.square().sum().backward()
        state = state.detach()
        _descend(machine)


def _cost(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """The cost of the answer alone, whatever state comes with it."""
    return module(*inputs)[0].square().mean()


def _descend(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
