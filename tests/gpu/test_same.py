"""Every public function and module gives on a GPU what it gives on the CPU, gradients included.

What it must give is the float64 result of the same stored numbers, computed on the CPU.
"""

from __future__ import annotations

import pytest
import torch
from devices import EVERY
from torch.testing import assert_close

BOUNDS = {  # of results and of gradients
    torch.float32: (1e-5, 2e-5),
    torch.float16: (5e-3, 5e-2),
    torch.bfloat16: (3e-2, 1e-1),
}


def changed(tensors, device, dtype):
    """The same numbers elsewhere and as another dtype, wanting gradients where they are wanted."""
    return {
        name: x.detach().to(device, dtype if x.is_floating_point() else x.dtype)
        for name, x in tensors.items()
    }


def outcome(case, tensors, module):
    """The results, and the gradients of a fixed weighted sum of them."""
    wanting = [tensors[n].requires_grad_() for n in case.differentiable]
    results = [r for r in case.run(tensors, module) if r is not None]
    tracked = [r for r in results if r.requires_grad]
    wanting += module.parameters()
    if not tracked:
        return results, []
    total = sum((r.double() * weights(r)).sum() for r in tracked)
    return results, torch.autograd.grad(total, wanting, allow_unused=True)


def weights(like):
    """Fixed numbers, the same on every device."""
    return torch.linspace(-1, 1, like.numel(), dtype=torch.float64).to(like.device).view(like.shape)


@pytest.mark.parametrize("dtype", BOUNDS, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_results_and_gradients_are_those_of_the_cpu(case, dtype, device):
    stored, module = changed(case.draw(), device, dtype), case.make().to(device, dtype)
    exactly = case.make().to(dtype).double()
    wanted, slopes = outcome(case, changed(stored, "cpu", torch.float64), exactly)
    results, grads = outcome(case, stored, module)
    for result, right in zip(results, wanted, strict=True):
        assert result.device.type == device
        assert result.dtype == (dtype if right.is_floating_point() else right.dtype)
        close(result, right, BOUNDS[dtype][0])
    for grad, right in zip(grads, slopes, strict=True):
        assert (grad is None) == (right is None)
        if grad is not None:
            close(grad, right, BOUNDS[dtype][1])


def close(found, wanted, error):
    """Within the bound of each number, or of the largest."""
    largest = wanted.abs().max().item() if wanted.numel() and wanted.is_floating_point() else 0
    found = found.detach().cpu().to(wanted.dtype)
    assert_close(found, wanted.detach(), rtol=error, atol=error * max(1, largest))


@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_autocast_loses_digits_alone(case, device):
    stored, module = changed(case.draw(), device, torch.float32), case.make().to(device).float()
    wanted, _ = outcome(case, changed(stored, device, torch.float32), module)
    with torch.autocast(device, torch.bfloat16):
        results, grads = outcome(case, stored, module)
    for result, right in zip(results, wanted, strict=True):
        assert result.device.type == device
        close(result, right.cpu(), 0.1)
    assert all(grad.isfinite().all() for grad in grads if grad is not None)
