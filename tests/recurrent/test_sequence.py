"""What every machine promises of its sequences, whatever its cell: the NTM and the DNC alike."""

import pytest
import torch

from memlib import DNC, NTM
from memlib.recurrent import Machine

MACHINES = {"NTM": NTM, "DNC": DNC}


@pytest.fixture(params=MACHINES)
def machine(request):
    torch.manual_seed(0)
    return MACHINES[request.param](3, 2, slots=5, width=4).double()


@pytest.fixture
def x():
    return torch.randn(3, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def same(one, other):
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_a_machine_is_its_cell_over_the_steps(machine, x):
    assert isinstance(machine, Machine)
    logits, end = machine(x)
    state = machine.initial_state(3)
    for t in range(7):
        step, state = machine.cell(x[:, t], state)
        torch.testing.assert_close(logits[:, t], step, rtol=1e-12, atol=1e-12)
    same([t for t in end if torch.is_tensor(t)], [t for t in state if torch.is_tensor(t)])


@pytest.mark.parametrize("cut", [0, 3, 7])
def test_it_goes_on_where_it_stopped(machine, x, cut):
    whole, end = machine(x)
    first, state = machine(x[:, :cut])
    second, last = machine(x[:, cut:], state)
    torch.testing.assert_close(torch.cat((first, second), dim=1), whole, rtol=1e-12, atol=1e-12)
    same([t for t in end if torch.is_tensor(t)], [t for t in last if torch.is_tensor(t)])


def test_a_row_ends_at_its_length_as_if_alone(machine, x):
    padded = x.clone()
    padded[1, 4:] = float("nan")
    logits, _, weights = machine(padded, lengths=torch.tensor([7, 4, 0]), need_weights=True)
    alone, _, there = machine(x[1:2, :4], need_weights=True)
    torch.testing.assert_close(logits[1:2, :4], alone, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(weights[1:2, :4], there, rtol=1e-12, atol=1e-12)
    assert logits[1, 4:].abs().max() == 0
    assert logits[2].abs().max() == 0
    machine.zero_grad()
    logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in machine.parameters() if p.grad is not None)


@pytest.mark.parametrize("every", [1, 3, 20])
def test_checkpoints_change_nothing(machine, x, every):
    def gradients(**options):
        machine.zero_grad()
        machine(x, **options)[0].square().sum().backward()
        return [p.grad.clone() for p in machine.parameters() if p.grad is not None]

    same(gradients(checkpoint_every=every), gradients())


@pytest.mark.parametrize(
    ("options", "error", "rule"),
    [
        ({"lengths": torch.tensor([8, 0, 0])}, ValueError, r"lengths must be .*7.*got 8"),
        ({"lengths": torch.tensor([1.0, 0, 0])}, TypeError, r"lengths must be .*float32"),
        ({"checkpoint_every": 0}, ValueError, r"checkpoint_every must be at least 1; got 0"),
    ],
)
def test_what_cannot_be_is_refused(machine, x, options, error, rule):
    with pytest.raises(error, match=rule):
        machine(x, **options)
