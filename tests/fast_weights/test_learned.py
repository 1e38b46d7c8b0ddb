# ruff: noqa: E501  (a table of messages)
"""A memory that is learned while it is read: the formula, its kin, the layer."""

import copy
import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from memlib import Decoder, FastWeights, NeuralMemory, NeuralState, matrix_memory, read
from memlib.fast_weights.learning import learn

B, H, T, M, V = 2, 3, 13, 5, 4
EXACT = {"rtol": 0, "atol": 1e-10}
HIDDEN = pytest.mark.parametrize("hidden", [0, 7])


def draw(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(length=T):
    query, keys, values = (draw(B, H, length, n, seed=i) for i, n in enumerate((M, M, V)))
    return query, F.normalize(keys, dim=-1), values


def gates(length=T):
    names = ("rate", "momentum", "forget")
    return {n: draw(B, H, length, 1, seed=i).sigmoid() for i, n in enumerate(names, 10)}


def start(hidden, seed=20):
    shapes = 2 * [(B, H, M, hidden), (B, H, hidden or M, V)]
    return NeuralState(*(draw(*shape, seed=seed + i) for i, shape in enumerate(shapes)))


def network(x, first, second):
    return (F.silu(x @ first) / first.shape[-1] ** 0.5 if first.shape[-1] else x) @ second


def by_autograd(query, keys, values, state, rate, momentum, forget, mask, chunk):
    """One row, one head, one token after the other; the gradients are autograd's."""
    reads, losses = torch.zeros_like(values), torch.zeros_like(rate[..., 0])
    after = [torch.empty_like(x) for x in state]
    for b, h in torch.cartesian_prod(torch.arange(len(query)), torch.arange(query.shape[1])):
        first, second, *moving = (x[b, h] for x in state)
        weights = [first, second]
        for t in range(query.shape[2]):
            if t % chunk == 0:
                base = [w.detach().requires_grad_() for w in weights]
            if not mask[b, t]:
                continue
            loss = (network(keys[b, h, t], *base) - values[b, h, t]).square().sum() / 2
            slopes = torch.autograd.grad(loss, base, allow_unused=True)
            losses[b, h, t] = loss.detach()
            for i, slope in enumerate(slopes):
                step = 0 if slope is None else rate[b, h, t] * slope
                moving[i] = momentum[b, h, t] * moving[i] - step
                weights[i] = (1 - forget[b, h, t]) * weights[i] + moving[i]
            reads[b, h, t] = network(query[b, h, t], *weights)
        for whole, part in zip(after, (*weights, *moving), strict=True):
            whole[b, h] = part
    return reads, NeuralState(*after), losses


@HIDDEN
@pytest.mark.parametrize("chunk", [1, 4, 16])
def test_gradients_written_out_are_those_of_autograd(hidden, chunk):
    given, state = tokens(), start(hidden)
    mask = torch.rand(B, T, generator=torch.Generator().manual_seed(0)) > 0.3
    expected, after, losses = by_autograd(*given, state, **gates(), mask=mask, chunk=chunk)
    padding = ~mask[:, None, :, None]
    broken = [x.masked_fill(padding, torch.nan) for x in given]
    found, ended, weights, loss = learn(*broken, state, **gates(), mask=mask, chunk=chunk)
    assert_close(found, expected, **EXACT)
    assert_close(loss, losses, **EXACT)
    for one, other in zip(ended, after, strict=True):
        assert_close(one, other, **EXACT)
    assert weights.shape == (B, H, T, hidden or M)


@pytest.mark.parametrize("length", [0, 1, T])
def test_a_linear_network_that_takes_plain_steps_at_each_token_is_the_delta_rule(length):
    query, keys, values = tokens(length)
    state, rate = start(0), gates(length)["rate"]
    plain = NeuralState(state.first, state.second, state.first, 0 * state.second)
    steps = {"rate": rate, "momentum": 0 * rate, "forget": 0 * rate}
    found, after, _, _ = learn(query, keys, values, plain, **steps, chunk=1)
    expected, matrix = matrix_memory(query, keys, values, state.second, write=rate, erase=rate)
    assert_close(found, expected, **EXACT)
    assert_close(after.second, matrix, **EXACT)
    forgetting = {**steps, "forget": gates(length)["forget"]}
    found, *_ = learn(query, keys, values, plain, **forgetting, chunk=1)
    if (
        length
    ):  # which forgets what a step has just learned from, where the gated rule forgets first
        kept = 1 - forgetting["forget"]
        gated, _ = matrix_memory(
            query, keys, values, state.second, write=rate, erase=rate / kept, decay=kept
        )
        assert_close(found, gated, **EXACT)


@HIDDEN
def test_gradients_through_what_was_learned(hidden):
    given, state = [x[:1, :1, :5] for x in tokens()], [x[:1, :1] for x in start(hidden)]
    steps = [x[:1, :1, :5] for x in gates().values()]
    leaves = [x.clone().requires_grad_() for x in (*given, *state, *steps)]

    def function(*x):
        names = dict(zip(("rate", "momentum", "forget"), x[7:], strict=True))
        found, after, _, loss = learn(*x[:3], NeuralState(*x[3:7]), **names, chunk=2)
        return found, *after, loss

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


# The layer


def make(hidden=7, *, seed=0, **options):
    torch.manual_seed(seed)
    options = {"key_width": 5, "value_width": 3, "chunk": 2, "dtype": torch.float64} | options
    layer = NeuralMemory(6, 2, hidden=hidden, **options)
    if not layer.second.is_meta:
        nn.init.normal_(layer.second)
    return layer


@HIDDEN
@torch.no_grad()
def test_padded_rows_go_on_where_each_of_them_stopped(hidden):
    layer, x = make(hidden, chunk=4), draw(2, 12, 6)
    whole, after = layer(x)
    lengths = torch.tensor([4, 0])
    first, state = layer(x[:, :8], lengths=lengths)
    assert_close(first[0, :4], whole[0, :4], **EXACT)
    assert not first[0, 4:].any()
    assert not first[1].any()
    for one, begun in zip(state, layer.initial_state(2), strict=True):
        assert_close(one[1], begun[1], **EXACT)
    rest = torch.stack((x[0, 4:], x[1, :8]))
    before = [part.clone() for part in state]
    second, state = layer(rest, state, mask=torch.ones(2, 8, dtype=torch.bool))
    assert_close(second[0], whole[0, 4:], **EXACT)
    assert_close(second[1], whole[1, :8], **EXACT)
    assert [torch.equal(a, b) for a, b in zip(before, state, strict=True)] != [True] * 4
    for one, other in zip(state, after, strict=True):
        assert_close(one[0], other[0], **EXACT)


@torch.no_grad()
def test_it_is_a_layer_of_the_delta_rule_where_it_is_linear_and_steps_are_plain():
    layer = make(0, chunk=1)
    nn.init.zeros_(layer.second)
    twin = FastWeights(6, 2, rule="delta", key_width=5, value_width=3, dtype=torch.float64)
    for name in ("query", "key", "value", "norm", "output"):
        getattr(twin, name).load_state_dict(getattr(layer, name).state_dict())
    rate, momentum, forget = layer.gates.weight.unflatten(0, (2, 3)).unbind(1)
    twin.gates["rate"].weight.copy_(rate)
    twin.gates["rate"].bias.copy_(layer.gates.bias.unflatten(0, (2, 3))[:, 0])
    for part, at in ((momentum, 1), (forget, 2)):
        part.zero_()
        layer.gates.bias.unflatten(0, (2, 3))[:, at] = -1000.0
    x = draw(2, 9, 6)
    assert_close(layer(x)[0], twin(x)[0], **EXACT)


@HIDDEN
@torch.no_grad()
def test_its_weights_are_what_the_second_layer_is_read_with(hidden):
    layer, x = make(hidden), draw(2, 4, 6)
    y, state, weights = layer(x, lengths=torch.tensor([4, 0]), need_weights=True)
    assert not weights[1].any()
    value = read(weights[:1, :, 3:], state.second[:1])
    assert_close(layer.output(layer.norm(value).transpose(1, 2).flatten(2)), y[:1, 3:])


@HIDDEN
@torch.no_grad()
def test_its_loss_falls_while_it_reads_and_not_without_a_rate(hidden):
    facts = draw(1, 16, 32).repeat(4, 6, 1).float()  # 16 facts, six times
    for rate, falls in ((1.0, True), (0.0, False)):
        losses = []
        for seed in range(5):
            torch.manual_seed(seed)
            layer = NeuralMemory(32, 2, hidden=hidden * 8, rate=rate, chunk=4)
            losses.append(layer.loss(facts).unflatten(2, (6, 16)).mean((0, 1, 3)))
        ratio = torch.stack([loss[-1] / loss[0] for loss in losses])
        assert (ratio < 0.6).all() if falls else (ratio == 1).all(), ratio


def test_gradients_flow_from_call_to_call_until_they_are_detached():
    layer, x = make(), draw(1, 4, 6).requires_grad_()
    _, state = layer(x)
    for before, flows in ((state, True), (state.detach(), False)):
        (grad,) = torch.autograd.grad(
            layer(draw(1, 2, 6, seed=2), before)[0].sum(), x, allow_unused=True, retain_graph=True
        )
        assert (grad is not None and bool(grad.any())) == flows


@HIDDEN
def test_where_it_begins_is_learned(hidden):
    layer = make(hidden)
    layer(draw(2, 5, 6))[0].square().sum().backward()
    assert all(parameter.grad.any() for parameter in layer.parameters())


@HIDDEN
@torch.no_grad()
def test_the_state_is_float32_at_least(hidden):
    x = draw(2, 7, 6)
    expected, after = make(hidden)(x)
    for dtype, within in ((torch.float32, 1e-5), (torch.bfloat16, 0.4), (torch.float16, 0.1)):
        layer = make(hidden).to(dtype)
        y, state = layer(x.to(dtype))
        assert {part.dtype for part in state} == {torch.float32}
        assert y.dtype == dtype
        layer(x.to(dtype), state)
        assert_close(y.double(), expected, rtol=0, atol=within)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = make(hidden).float()(x.float())
    assert {part.dtype for part in state} == {torch.float32}
    y, state = make(hidden, device="meta")(torch.empty(2, 7, 6, device="meta").double())
    assert y.is_meta
    assert [part.shape for part in state] == [part.shape for part in after]


def test_reset_parameters_draws_anew():
    layer = make()
    before = copy.deepcopy(layer.state_dict())
    layer.reset_parameters()
    same = {n for n, x in layer.state_dict().items() if torch.equal(before[n], x)}
    assert same == {"norm.weight", "gates.bias"}
    assert not layer.second.any()


@torch.no_grad()
def test_a_decoder_of_it_goes_on_at_the_end_of_a_chunk():
    torch.manual_seed(0)
    model = Decoder(11, 8, 3, 2, layer=(partial(NeuralMemory, chunk=4), None)).double()
    text = torch.randint(11, (2, 11))
    whole, _ = model(text)
    first, memory = model(text[:, :8], model.cache(2, 11))
    second, memory = model(text[:, 8:], memory)
    assert_close(torch.cat((first, second), dim=1), whole, **EXACT)
    assert [type(part).__name__ for part in memory] == ["NeuralState", "KVCache", "NeuralState"]


# Refusals

LAYER, X = make(), draw(2, 3, 6)
STATE = LAYER.initial_state(2)

# fmt: off
REFUSALS = [
    (lambda: NeuralMemory(0), ValueError, "width must be at least 1; got 0"),
    (lambda: NeuralMemory(6, 4), ValueError, "width must be a multiple of heads; got width = 6, heads = 4"),
    (lambda: NeuralMemory(6, hidden=-1), ValueError, "hidden must be at least 0; got -1"),
    (lambda: NeuralMemory(6, rate=-1), ValueError, "rate must be finite and at least 0; got -1"),
    (lambda: NeuralMemory(6, chunk=3), ValueError, "chunk must be a power of two; got 3"),
    (lambda: NeuralMemory(6, dtype=torch.long), TypeError, "dtype must have a floating-point dtype; got torch.int64"),
    (lambda: LAYER(X[0]), ValueError, "x must have shape (B, T, D) with D = 6; got (3, 6)"),
    (lambda: LAYER(X / 0), ValueError, "x must be finite where it is read; got infinity at (0, 0, 0)"),
    (lambda: LAYER.loss(X / 0), ValueError, "x must be finite where it is read; got infinity at (0, 0, 0)"),
    (lambda: LAYER(X, STATE[0]), TypeError, "state must be a NeuralState or None; got Tensor"),
    (lambda: LAYER(X, LAYER.initial_state(1)), ValueError, "state.first must have shape (B, H, M, N) with B = 2, H = 2, M = 5, N = 7; got (1, 2, 5, 7)"),
    (lambda: LAYER(X, STATE._replace(second=STATE.second / 0)), ValueError, "state.second must be finite where it is read; got infinity at (0, 0, 0, 0)"),
    (lambda: LAYER(X, STATE._replace(second=STATE.second.float())), TypeError, "state.second must have the dtype of the initial state, torch.float64; got torch.float32"),
    (lambda: LAYER(X, lengths=torch.tensor([1, 4])), ValueError, "lengths must be in [0, T = 3]; got 4"),
    (lambda: LAYER.initial_state(-1), ValueError, "batch_size must be at least 0; got -1"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[m for _, _, m in REFUSALS])
def test_bad_input_is_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)) as caught:
        call()
    assert type(caught.value) is kind
