# ruff: noqa: E501  (a table of messages)
"""The feed-forward layer of a Transformer: a memory learned in training."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from memlib import FeedForward, attend, read, similarity

DOUBLE = {"dtype": torch.float64}
WIDTH = 8
NAN = float("nan")
X = torch.ones(2, 3, WIDTH)


def draw(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_a_feed_forward_layer_is_a_memory():
    x = draw(2, 3, WIDTH)
    for activation, function in (("relu", nn.ReLU()), ("gelu", nn.GELU())):
        memory = FeedForward(WIDTH, 5, activation=activation, **DOUBLE)
        usual = nn.Sequential(
            nn.Linear(WIDTH, 5, bias=False, **DOUBLE), function,
            nn.Linear(5, WIDTH, bias=False, **DOUBLE),
        )  # fmt: skip
        usual[0].weight, usual[2].weight = memory.keys, nn.Parameter(memory.values.mT)
        assert_close(memory(x), usual(x))
        weights = function(similarity(x, memory.keys, measure="dot"))
        assert_close(memory.address(x), weights)
        assert_close(memory(x), read(weights, memory.values))
    memory = FeedForward(WIDTH, 5, activation="softmax", **DOUBLE)
    assert_close(memory(x), attend(x, memory.keys, memory.values, measure="dot"))
    assert torch.autograd.gradcheck(memory, x.requires_grad_(), fast_mode=True)


def test_a_feed_forward_layer_bears_what_a_module_must():
    memory = FeedForward(WIDTH, 5)
    assert repr(memory) == f"FeedForward({WIDTH}, slots=5, activation='relu')"
    assert FeedForward(WIDTH, 5, device="meta")(torch.ones(2, WIDTH, device="meta")).is_meta
    before = copy.deepcopy(memory)
    memory.reset_parameters()
    assert not any(map(torch.equal, before.parameters(), memory.parameters()))
    x = draw(3, 2, WIDTH, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(memory(x).float(), memory.float()(x).float(), rtol=0.1, atol=0.1)


# fmt: off
REFUSALS = [
    (lambda: FeedForward(8, 0), ValueError, "slots must be at least 1; got 0"),
    (lambda: FeedForward(8, 4, activation="tanh"), ValueError, "activation must be one of relu, gelu, softmax; got 'tanh'"),
    (lambda: FeedForward(8, 4, dtype=torch.bool), TypeError, "dtype must have a floating-point dtype; got torch.bool"),
    (lambda: FeedForward(8, 4)(X[..., :3]), ValueError, "x must have shape (..., T, D) with D = 8; got (2, 3, 3)"),
    (lambda: FeedForward(8, 4)(X.double()), TypeError, "x must have the dtype of the parameters, torch.float32; got torch.float64"),
    (lambda: FeedForward(8, 4).address(NAN * X), ValueError, "x must be finite where it is read; got NaN at (0, 0, 0)"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[m for _, _, m in REFUSALS])
def test_bad_input_is_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)) as caught:
        call()
    assert type(caught.value) is kind
