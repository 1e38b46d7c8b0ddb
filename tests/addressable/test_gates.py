"""Location: interpolate, shift and sharpen against the paper's loops; locate and Head."""

import hypothesis.strategies as st
import pytest
import reference
import torch
from hypothesis import given, settings
from torch.testing import assert_close

from memlib import Gates, Head, address, interpolate, locate, sharpen, shift

DOUBLE = {"dtype": torch.float64}


def weighting(*shape, seed=0):
    torch.manual_seed(seed)
    return torch.randn(*shape, **DOUBLE).softmax(-1)


def as_double(x):
    return torch.as_tensor(x, **DOUBLE)


@pytest.mark.parametrize("steps", [1, 3, 5, 7])
def test_shift_is_its_formula(steps):
    weights, moves = weighting(2, 3, 7), weighting(2, 3, steps, seed=1)
    result = shift(weights, moves)
    for b in range(2):
        for h in range(3):
            assert_close(result[b, h], as_double(reference.shift(weights[b, h], moves[b, h])))
    shared = torch.stack([shift(w, moves[0, 0]) for w in weights.flatten(0, 1)])
    assert_close(shift(weights, moves[0, 0]), shared.view(2, 3, 7))


@settings(max_examples=40)
@given(st.integers(3, 9), st.data())
def test_a_hard_shift_rolls_the_weights(slots, data):
    reach = data.draw(st.integers(0, (slots - 1) // 2))
    move = data.draw(st.integers(-reach, reach))
    weights = weighting(slots)
    one_hot = torch.eye(2 * reach + 1, **DOUBLE)[reach + move]
    assert_close(shift(weights, one_hot), weights.roll(move))
    assert_close(shift(weights, weighting(2 * reach + 1)).sum(), as_double(1.0))


@pytest.mark.parametrize("sharpening", [1.0, 1.5, 2.0, 20.0])
def test_sharpen_is_its_formula(sharpening):
    weights = weighting(2, 5)
    loops = torch.stack([as_double(reference.sharpen(w, sharpening)) for w in weights])
    assert_close(sharpen(weights, sharpening), loops)
    assert_close(sharpen(weights, torch.full((2,), sharpening, **DOUBLE)), loops)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sharpening", [1.0, 30.0, 1e4])
def test_sharpen_is_stable(sharpening, dtype):
    weights = torch.tensor([[1e-3, 2e-3, 5e-4, 0.0], [0.25, 0.25, 0.25, 0.25]]).to(dtype)
    weights.requires_grad_()
    result = sharpen(weights, sharpening)
    result[:, 1].sum().backward()
    error = torch.finfo(dtype).eps * 4
    assert_close(result.sum(-1), torch.ones(2, dtype=dtype), atol=error, rtol=error)
    assert_close(result[1], torch.full((4,), 0.25, dtype=dtype))
    assert weights.grad.isfinite().all()
    if sharpening > 1:
        assert result[0].tolist() == pytest.approx([0, 1, 0, 0], abs=1e-6)


def test_sharpening_nothing_gives_nothing():
    weights = torch.zeros(3, requires_grad=True)
    result = sharpen(weights, 2.0)
    result.sum().backward()
    assert result.tolist() == [0, 0, 0]
    assert weights.grad.isfinite().all()


@pytest.mark.parametrize("gate", [0.0, 0.3, 1.0])
def test_interpolate_is_its_formula(gate):
    content, previous = weighting(2, 5), weighting(2, 5, seed=1)
    loops = as_double(reference.interpolate(content, previous, gate))
    assert_close(interpolate(content, previous, gate), loops)
    assert_close(interpolate(content, previous, torch.full((2,), gate, **DOUBLE)), loops)
    if gate in (0, 1):
        assert torch.equal(interpolate(content, previous, gate), content if gate else previous)


def some_gates(seed=0, **changed):
    torch.manual_seed(seed)
    gates = Gates(
        key=torch.randn(2, 3, 4, **DOUBLE),
        strength=torch.rand(2, 3, **DOUBLE) * 5,
        gate=torch.rand(2, 3, **DOUBLE),
        shift=weighting(2, 3, 3),
        sharpening=1 + torch.rand(2, 3, **DOUBLE),
    )
    return gates._replace(**changed), torch.randn(2, 6, 4, **DOUBLE), weighting(2, 3, 6, seed=9)


def test_locate_is_equations_5_to_9():
    gates, memory, previous = some_gates()
    result = locate(gates, memory, previous)
    for b in range(2):
        content = reference.address(gates.key[b], memory[b], "cosine", gates.strength[b])
        for h in range(3):
            w = reference.interpolate(content[h], previous[b, h], float(gates.gate[b, h]))
            w = reference.shift(w, gates.shift[b, h])
            w = reference.sharpen(w, float(gates.sharpening[b, h]))
            assert_close(result[b, h], as_double(w))
    assert_close(result.sum(-1), torch.ones(2, 3, **DOUBLE))


def test_locate_without_location_is_address_by_cosine():
    one = torch.ones(2, 3, **DOUBLE)
    still = torch.tensor([0.0, 1.0, 0.0], **DOUBLE).expand(2, 3, 3)
    gates, memory, previous = some_gates(gate=one, shift=still, sharpening=one)
    content = address(gates.key, memory, measure="cosine", strength=gates.strength)
    assert_close(locate(gates, memory, previous), content)


def test_locate_without_content_stays():
    one = torch.ones(2, 3, **DOUBLE)
    gates, memory, previous = some_gates(gate=0 * one, sharpening=one, shift=one.unsqueeze(-1))
    assert_close(locate(gates, memory, previous), previous)


def test_head_gates_are_in_their_ranges_and_its_weights_are_those_of_locate():
    torch.manual_seed(0)
    head = Head(5, 4, 3, shifts=5, dtype=torch.float64)
    x, memory = 9 * torch.randn(2, 5, **DOUBLE), torch.randn(2, 6, 4, **DOUBLE)
    gates = head.gates(x)
    assert [tuple(g.shape) for g in gates] == [(2, 3, 4), (2, 3), (2, 3), (2, 3, 5), (2, 3)]
    assert gates.key.abs().max() <= 1
    assert gates.strength.min() > 0
    assert gates.gate.min() >= 0
    assert gates.gate.max() <= 1
    assert_close(gates.shift.sum(-1), torch.ones(2, 3, **DOUBLE))
    assert gates.sharpening.min() >= 1
    previous = weighting(2, 3, 6)
    assert torch.equal(head(x, memory, previous), locate(gates, memory, previous))


def test_a_head_with_zero_parameters_has_the_gates_of_the_formulas():
    head = Head(2, 3)
    torch.nn.init.zeros_(head.linear.weight)
    torch.nn.init.zeros_(head.linear.bias)
    key, strength, gate, moves, sharpening = head.gates(torch.ones(1, 2))
    assert not key.any()
    log_2 = torch.tensor(2.0).log()
    assert_close(strength, log_2.expand(1, 1))
    assert gate.tolist() == [[0.5]]
    assert_close(moves, torch.full((1, 1, 3), 1 / 3))
    assert_close(sharpening, 1 + log_2.expand(1, 1))
    head.reset_parameters()
    assert head.linear.weight.abs().max() > 0
    assert "width=3, heads=1, shifts=3" in repr(head)
