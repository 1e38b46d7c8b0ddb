"""Nothing is made on, moved to or mixed with another device; no value is waited for.

Where there is no GPU the device ``meta`` stands in for a second device: what meets a tensor of the
CPU there by itself would meet it on a GPU too.
"""

from __future__ import annotations

import inspect
import re

import cases
import devices
import pytest
import torch
from devices import EVERY
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import memlib
from memlib import _checks as checks

every_case = pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
ON_THE_HOST = {"Store", "knn_lm", "MemorizingAttention"}  # a store counts its pairs on the host
WAITS = {  # an operation that makes the host wait for the device, and cannot be captured
    "_local_scalar_dense", "is_nonzero", "item", "masked_select", "nonzero", "unique_dim",
    "_unique2", "equal",
}  # fmt: skip


class OnlyOn(TorchDispatchMode):
    """Refuses an operation with a result on another device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != self.device:
                raise AssertionError(f"{func} gave a tensor on {tensor.device}")
        return result


class WithoutWaiting(TorchDispatchMode):
    """Refuses an operation whose result the host must wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if (name := func._schema.name.split("::")[1]) in WAITS:
            raise AssertionError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))


def test_every_public_name_is_among_the_cases():
    said = inspect.getsource(cases) + inspect.getsource(devices)
    called = set(re.findall(r"memlib\.(\w+)", said))
    assert set(memlib.__all__) - called == devices.ALONE
    assert set(memlib.__all__) >= devices.ALONE


@every_case
def test_nothing_is_made_on_another_device(case):
    if case.name in ON_THE_HOST:
        pytest.skip("a store counts its pairs on the host")
    tensors = case.draw(torch.float32, "meta")
    with OnlyOn("meta"):
        results = case.run(tensors, case.make(torch.float32, "meta"))
    assert all(r.is_meta for r in results if r is not None)


@every_case
def test_the_default_device_does_not_matter(case):
    tensors = case.draw()
    wanted = case.run(tensors, case.make())
    with torch.device("meta"), OnlyOn("cpu"):
        results = case.run(tensors, case.make())
    assert_close(results, wanted)


def halves() -> list:
    """Each tensor of a case that meets others, or parameters."""
    return [
        pytest.param(case, name, id=f"{case.name}-{name}")
        for case in EVERY
        for name in case.shapes
        if len(case.shapes) > 1 or list(case.make().parameters())
    ]


@pytest.mark.parametrize(("case", "name"), halves())
def test_tensors_on_two_devices_are_refused(case, name, device):
    tensors, module = case.draw(device=device), case.make().to(device)
    tensors[name] = tensors[name].to("meta" if device == "cpu" else "cpu")
    with pytest.raises(ValueError, match=r"must be on (the )?device .*; got (cpu|cuda|meta)"):
        case.run(tensors, module)


@every_case
def test_nothing_waits_for_the_device_while_a_graph_is_captured(case, monkeypatch):
    if case.name in ON_THE_HOST:
        pytest.skip("a store counts its pairs on the host")
    tensors, module = case.draw(), case.make()
    wanted = case.run(tensors, module)
    monkeypatch.setattr(checks, "captured", lambda value: True)
    with WithoutWaiting():
        results = case.run(tensors, module)
    if case.name != "KVCache":  # which hands out all slots where it may not know the lengths
        assert_close(results, wanted)
