"""Second derivatives: right, or refused; never 0 without a word."""

import contextlib

import pytest
import torch
from torch.autograd import grad

import memlib

from . import draws, truth

MEASURES = ("dot", "scaled_dot", "cosine", "negative_squared_distance")
READS = {
    "streamed": {},
    "weights": {"need_weights": True},
    "top_k": {"top_k": 3},
    "masked": {"mask": True},
}
REFUSAL = ("differentiat", "derivative")


@contextlib.contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def second(function, tensors):
    """The gradient of the squared length of the gradient by all tensors."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    first = grad(function(*leaves).sin().sum(), leaves, create_graph=True)
    # beside a term of its own, so that a gradient without a history is not refused for that
    loss = sum(g.square().sum() for g in first) + 0 * sum(x.sum() for x in leaves)
    return grad(loss, leaves)


@pytest.mark.parametrize("slots", [1, 5, 8200])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("how", READS)
def test_of_a_read_it_is_right_or_refused(measure, slots, how):
    wrong = wrong_or_silent(measure, slots, how)
    assert not wrong, wrong


def wrong_or_silent(measure, slots, how):
    """What is wrong with the second derivatives of a read."""
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (3, slots, slots)
    ]
    options = dict(READS[how])
    if options.pop("mask", None):
        options["mask"] = torch.ones(slots, dtype=torch.bool)
    if "top_k" in options:
        options["top_k"] = min(slots, options["top_k"])

    def ours(*tensors):
        got = memlib.attend(*tensors, measure=measure, strength=1.3, **options)
        return got[0] if isinstance(got, tuple) else got

    def ideal(query, keys, values):
        found = truth.look(query, keys, measure, 1.3)
        if "top_k" not in options:
            return found.weights @ values
        kept = found.scores.value.topk(options["top_k"], -1).indices
        mask = torch.zeros_like(found.weights, dtype=torch.bool).scatter(-1, kept, True)
        return truth.look(query, keys, measure, 1.3, mask).weights @ values

    with threads(2):
        try:
            found = second(ours, tensors)
        except RuntimeError as refusal:
            told = any(word in str(refusal) for word in REFUSAL)
            return [] if told else [f"refused without saying why: {refusal}"]
    wanted = second(ideal, tensors)
    size = max(float(w.abs().max()) for w in wanted)
    off = [float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True)]
    return [f"neither right nor refused: off by {x} of {size}" for x in off if x > 1e-9 * size]


@pytest.mark.parametrize("dtype", draws.DTYPES)
def test_of_a_large_read_in_any_dtype_it_is_not_0(dtype):
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(n, 2, generator=generator).to(draws.DTYPES[dtype]) for n in (1, 8200, 8200)
    ]
    with threads(2), contextlib.suppress(RuntimeError):
        found = second(lambda *x: memlib.attend(*x, strength=1.3), tensors)
        assert float(found[0].abs().max()) > 0


SMALL = {
    "address": lambda q, k: memlib.address(q, k, measure="negative_squared_distance"),
    "address-cosine": lambda q, k: memlib.address(q, k, measure="cosine"),
    "similarity": lambda q, k: memlib.similarity(q, k, measure="negative_squared_distance"),
    "similarity-cosine": lambda q, k: memlib.similarity(q, k, measure="cosine"),
    "read": lambda q, k: memlib.read(q, k.mT),
    "write": lambda q, k: memlib.write(k, q @ k.mT, q, q.sigmoid()),
    "energy": lambda q, k: memlib.Hopfield(1.3).energy(q, k),
    "interpolate": lambda q, k: memlib.interpolate(q.sigmoid(), k[:3].sigmoid(), 0.3),
    "shift": lambda q, k: memlib.shift(q, k[:3, :3]),
    "sharpen": lambda q, k: memlib.sharpen(q.sigmoid(), 1.5 + k[:3, 0].sigmoid()),
    "matrix_memory": lambda q, k: memlib.matrix_memory(
        *(x[None, None] for x in (q, k, q)), write=q, erase=k.sigmoid(), decay=q.sigmoid(), chunk=2
    ),
    "allocation": lambda q, k: memlib.allocation(q.sigmoid()),
}


@pytest.mark.parametrize("name", SMALL)
def test_of_each_function_it_is_that_of_differences(name):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (3, 3))
    leaves = (q.requires_grad_(), k.requires_grad_())
    assert torch.autograd.gradgradcheck(SMALL[name], leaves, atol=1e-6)
