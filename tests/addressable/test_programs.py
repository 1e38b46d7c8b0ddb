"""The programs written by hand copy, reverse and follow links, whatever the sequence."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.testing import assert_close

from memlib import programs
from memlib.addressable.programs import Step, run

lengths = st.integers(1, 6)
EXACT = {"atol": 1e-5, "rtol": 1e-5}


def sequence_of(length, width=3):
    torch.manual_seed(length)
    return torch.randint(0, 2, (length, width)).float()


@settings(max_examples=12)
@given(lengths, st.integers(1, 3))
def test_copy_and_reverse(length, extra):
    x, memory = sequence_of(length), torch.zeros(length + extra + 2, 4)
    trace = run(programs.copy_program(x), memory)
    assert_close(programs.payload(trace), x, **EXACT)
    assert_close(programs.payload(run(programs.reverse_program(x), memory)), x.flip(0), **EXACT)
    assert trace.weights.shape == (2 * length + 1, len(memory))
    assert_close(trace.weights.sum(-1), torch.ones(2 * length + 1))
    assert not memory.any()


def test_linked_list_is_followed_in_its_own_order():
    codes, order = torch.eye(5), [3, 0, 4, 1, 2]
    slots = [
        torch.cat((codes[i], codes[order[(order.index(i) + 1) % 5]], torch.tensor([float(i)])))
        for i in range(5)
    ]
    memory = torch.stack(slots)[torch.tensor([2, 4, 1, 0, 3])]  # anywhere
    trace = run(programs.linked_list_program(codes[3], 5), memory)
    assert_close(trace.reads[:, -1], torch.tensor(order).float(), **EXACT)
    assert not trace.wrote.any()
    assert torch.equal(trace.memories[-1], memory)


def test_a_step_overwrites_and_only_there():
    def program():
        yield Step(add=torch.full((2,), 5.0))
        yield Step(move=-1, add=torch.full((2,), 7.0))

    trace = run(program(), torch.ones(3, 2))
    assert trace.memories[-1].tolist() == [[5, 5], [1, 1], [7, 7]]
    assert trace.reads.tolist() == [[5, 5], [7, 7]]
    assert trace.wrote.tolist() == [True, True]


@pytest.mark.parametrize(
    ("step", "kind", "message"),
    [
        (None, TypeError, "must yield Step; got NoneType"),
        (Step(move=2), ValueError, r"move must be in \[-1, 1\]; got 2"),
        (Step(key=torch.ones(3)), ValueError, r"key must have shape \(M,\), at most M = 2"),
        (Step(key=torch.ones(1, 2)), ValueError, r"key must have shape .* got \(1, 2\)"),
        (Step(key=[1.0]), TypeError, "key must be a torch.Tensor; got list"),
        (Step(add=3.0), TypeError, "add must be a torch.Tensor; got float"),
        (Step(add=torch.ones(3)), ValueError, r"add must have shape .* got \(1, 3\)"),
        (Step(strength=-1.0), ValueError, "strength must be .* at least 0; got -1"),
        (Step(sharpening=0.5), ValueError, "sharpening must be .* at least 1; got 0.5"),
    ],
)
def test_a_bad_step_is_refused(step, kind, message):
    with pytest.raises(kind, match=message):
        run((s for s in [step]), torch.ones(4, 2))


def test_bad_programs_are_refused():
    x = torch.ones(2, 1)
    with pytest.raises(ValueError, match="at least one Step; got none"):
        run((s for s in []), torch.ones(4, 2))
    with pytest.raises(ValueError, match="the number of slots must be at least 3; got 2"):
        run(programs.copy_program(x), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"memory must have shape \(N, M\); got \(4,\)"):
        run(programs.copy_program(x), torch.ones(4))
    with pytest.raises(ValueError, match=r"sequence must have shape \(T, M - 1\); got \(2,\)"):
        run(programs.copy_program(x[:, 0]), torch.ones(4, 2))
    with pytest.raises(ValueError, match="length must be at least 1; got 0"):
        run(programs.linked_list_program(x[0], 0), torch.ones(4, 2))
