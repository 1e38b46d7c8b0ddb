"""Hopfield networks: one update is attention, and the energy never rises."""

import hypothesis.strategies as st
import pytest
import reference
import torch
from hypothesis import given, settings
from torch.testing import assert_close

from memlib import ClassicalHopfield, Hopfield, attend, write

seeds = st.integers(0, 10**6)


def draw(seed, queries=3, patterns=5, width=4):
    torch.manual_seed(seed)
    double = {"dtype": torch.float64}
    return torch.randn(queries, width, **double), torch.randn(patterns, width, **double)


@pytest.mark.parametrize("masked", [False, True])
def test_one_update_is_attend_with_keys_as_values(masked):
    query, patterns = draw(0)
    mask = torch.tensor([True, False, True, True, False]) if masked else None
    options = {"measure": "dot", "strength": 1.7, "mask": mask, "need_weights": True}
    ours = Hopfield(1.7)(query, patterns, mask=mask, need_weights=True)
    assert_close(ours, attend(query, patterns, patterns, **options))


@settings(max_examples=40)
@given(seeds, st.floats(0.01, 50), st.integers(1, 6), st.booleans())
def test_energy_never_rises_and_is_never_below_0(seed, strength, count, masked):
    query, patterns = draw(seed, patterns=count)
    mask = torch.rand(3, count) < 0.5 if masked else None
    net = Hopfield(strength)
    energies = [net.energy(query, patterns, mask=mask)]
    for _ in range(4):
        query = net(query, patterns, mask=mask)
        energies.append(net.energy(query, patterns, mask=mask))
    steps = torch.stack(energies)
    assert (steps.diff(dim=0) <= 1e-9).all()
    assert (steps >= -1e-9).all()


def test_energy_is_its_formula():
    query, patterns = draw(1)
    loops = [reference.modern_energy(q, patterns, 1.3) for q in query]
    assert_close(Hopfield(1.3).energy(query, patterns), torch.tensor(loops, dtype=query.dtype))


def test_energy_of_hidden_patterns_is_that_without_them():
    query, patterns = draw(2)
    keep = torch.tensor([True, False, True, True, False])
    dirty = patterns.masked_fill(~keep.unsqueeze(-1), float("nan"))
    net = Hopfield(2.0)
    assert_close(net.energy(query, dirty, mask=keep), net.energy(query, patterns[keep]))
    nothing = torch.zeros(5, dtype=torch.bool)
    assert_close(net.energy(query, dirty, mask=nothing), query.square().sum(-1) / 2)
    assert_close(net.energy(query, patterns[:0]), query.square().sum(-1) / 2)


def test_steps_are_repeated_updates():
    query, patterns = draw(3)
    once = Hopfield(1.5)
    assert_close(Hopfield(1.5, steps=3)(query, patterns),
                 once(once(once(query, patterns), patterns), patterns))  # fmt: skip


def test_a_query_at_rest_stays_while_others_go_on():
    query, patterns = draw(4)
    query[0] = Hopfield(1.0, steps=200)(query[:1], patterns)[0]  # a fixed point
    moved_once = Hopfield(1.0)(query, patterns)
    distance = (moved_once - query).norm(dim=-1)
    assert distance[0] < 1e-6 < distance[1:].min()
    still = Hopfield(1.0, steps=50, tolerance=1e-6)(query, patterns)
    assert torch.equal(still[0], moved_once[0])
    assert_close(still[1:], Hopfield(1.0, steps=50)(query, patterns)[1:], atol=1e-4, rtol=1e-4)
    forever = Hopfield(1.0, steps=9, tolerance=1e9)(query, patterns)
    assert torch.equal(forever, moved_once)


def test_strength_goes_from_the_average_to_exactly_one():
    query, patterns = draw(5)
    average = Hopfield(1e-9)(query, patterns)
    assert_close(average, patterns.mean(0).expand(3, 4), atol=1e-7, rtol=1e-7)
    nearest = patterns[(query @ patterns.mT).argmax(-1)]
    assert_close(Hopfield(1e4)(query, patterns), nearest)


def test_classical_storage_is_write_without_erase():
    signs = draw(6, patterns=3)[1].sign()
    outer = write(torch.zeros(4, 4).double(), signs, signs)
    assert_close(outer, sum(torch.outer(x, x) for x in signs))
    connections = ClassicalHopfield().connections(signs)
    assert_close(connections, torch.tensor(reference.hebbian(signs)))
    assert_close(connections, (outer - outer.diag().diag()) / 4)


@settings(max_examples=20)
@given(seeds, st.integers(1, 4))
def test_classical_energy_never_rises_at_any_unit(seed, count):
    query, patterns = (x.sign() for x in draw(seed, queries=1, patterns=count, width=7))
    net = ClassicalHopfield(steps=2)
    weights = torch.as_tensor(reference.hebbian(patterns))
    state, energy = query.clone(), net.energy(query, patterns)
    assert_close(energy[0], -state[0] @ weights @ state[0] / 2)
    for _ in range(2):
        for unit in range(7):
            field = float(weights[unit] @ state[0])
            state[0, unit] = torch.tensor(field).sign() if field else state[0, unit]
            after = net.energy(state, patterns)
            assert (after <= energy + 1e-12).all()
            energy = after
    assert torch.equal(net(query, patterns), state)


def test_classical_completes_half_a_pattern_and_keeps_its_device():
    torch.manual_seed(0)
    patterns = torch.randn(3, 64).sign()
    query = patterns.clone()
    query[:, 32:] = 0
    assert torch.equal(ClassicalHopfield()(query, patterns), patterns)
    assert repr(ClassicalHopfield(3)) == "ClassicalHopfield(steps=3)"
    assert "strength=2.0, steps=1, tolerance=0.0" in repr(Hopfield(2.0))


def test_nan_is_refused_where_a_sign_would_hide_it():
    good, bad = torch.ones(1, 3), torch.tensor([[1.0, float("nan"), 1.0]])
    with pytest.raises(ValueError, match="query must be finite"):
        ClassicalHopfield()(bad, good)
    with pytest.raises(ValueError, match="patterns must be finite"):
        ClassicalHopfield()(good, bad)
