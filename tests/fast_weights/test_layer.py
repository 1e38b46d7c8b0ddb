# ruff: noqa: E501  (a table of messages)
"""The layer of fast weights: alone, and in the place of attention."""

import copy
import re
from functools import partial

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import nn
from torch.testing import assert_close

from memlib import Decoder, FastWeights, KVCache, read
from memlib.fast_weights.gates import GATES

RULES = list(GATES)
EXACT = {"rtol": 0, "atol": 1e-10}
every_rule = pytest.mark.parametrize("rule", RULES)


def make(rule="gated delta", *, seed=0, **options):
    torch.manual_seed(seed)
    options = {"key_width": 5, "value_width": 3, "dtype": torch.float64} | options
    return FastWeights(6, 2, rule=rule, **options)


def draw(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def model_of(*layer, **options):
    """A small model with lively parameters."""
    torch.manual_seed(0)
    options = {"slots": 6, "dtype": torch.float64} | options
    model = Decoder(11, 8, 2, 2, layer=layer, **options)
    for name, parameter in model.named_parameters():
        if "norm" not in name and "speed" not in name:
            nn.init.normal_(parameter, std=0.5)
    return model


def words(*shape, seed=1):
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(seed))


def by_hand(layer, x):
    """One row and one token after the other, in the letters of the papers."""
    rows = []
    for row in x:
        reads = []
        for h in range(layer.heads):
            S, z, out = x.new_zeros(layer.key_width, layer.value_width), 0, []
            for t in row:

                def part(linear, t=t, h=h):
                    return linear(t).unflatten(-1, (layer.heads, -1))[h]

                q, k, v = (part(f) for f in (layer.query, layer.key, layer.value))
                gates = {name: part(f) for name, f in layer.gates.items()}
                if layer.rule == "linear":
                    q, k = (F.elu(layer.scale[h, 0, 0] * y) + 1 for y in (q, k))
                    z = z + k
                else:
                    q, k = q / q.norm(), k / k.norm()
                b, w, d = 0 * k, 1, 1
                if "rate" in gates:
                    b = w = gates["rate"].sigmoid()
                if layer.rule == "general":
                    b, w = gates["erase"].sigmoid(), gates["write"].sigmoid()
                if "decay" in gates:
                    d = torch.exp(-layer.gates.speed[h, 0].exp() * F.softplus(gates["decay"]))
                    d = d.expand(layer.key_width).unsqueeze(-1)
                S = d * S
                S = S - torch.outer(k, (b * k) @ S) + torch.outer(k, w * v)
                o = q @ S / (q @ z if layer.rule == "linear" else 1)
                out.append(o / (o.square().mean() + 1e-5).sqrt() * layer.norm.weight)
            reads.append(torch.stack(out))
        rows.append(torch.cat(reads, dim=-1))
    return layer.output(torch.stack(rows))


@every_rule
@torch.no_grad()
def test_it_is_its_formula(rule):
    layer, x = make(rule), draw(2, 9, 6)
    nn.init.normal_(layer.norm.weight)
    expected = by_hand(layer, x)
    for chunk in (1, 4, 16):
        layer.chunk = chunk
        assert_close(layer(x)[0], expected, **EXACT)


@every_rule
@settings(max_examples=10)
@given(calls=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4))
@torch.no_grad()
def test_padded_rows_go_on_where_each_of_them_stopped(rule, calls):
    layer = make(rule, chunk=2)
    state, alone = layer.initial_state(2), [None, None]
    for i, call in enumerate(calls):
        x = draw(2, max(call) + 1, 6, seed=i)
        mask = torch.arange(x.shape[1]) < torch.tensor(call).unsqueeze(-1)
        x = x.masked_fill(~mask.unsqueeze(-1), torch.nan)
        before = state.clone()
        y, after = layer(x, state, lengths=torch.tensor(call))
        assert torch.equal(state, before)  # which is another tensor
        assert_close(layer(x.flip(1), state, mask=mask.flip(1))[0].flip(1)[~mask], y[~mask])
        state = after
        for b, n in enumerate(call):
            expected, alone[b] = layer(x[b : b + 1, :n], alone[b])
            assert_close(y[b : b + 1, :n], expected, **EXACT)
            assert not y[b, n:].any()
    assert_close(state, torch.cat(alone), **EXACT)


@every_rule
def test_gradients_are_those_of_finite_differences(rule):
    layer = make(rule, chunk=2)
    x, state = draw(2, 4, 6).requires_grad_(), layer(draw(2, 3, 6, seed=2))[1].detach()
    parameters = dict(layer.named_parameters())

    def function(x, state, *values):
        named = dict(zip(parameters, values, strict=True))
        given = (x, state)
        return torch.func.functional_call(layer, named, given, {"lengths": torch.tensor([4, 2])})

    leaves = (x, state.requires_grad_(), *parameters.values())
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


def test_gradients_flow_from_call_to_call_until_they_are_detached():
    layer, x = make(), draw(1, 4, 6).requires_grad_()
    _, state = layer(x)
    for before, flows in ((state, True), (state.detach(), False)):
        (grad,) = torch.autograd.grad(
            layer(draw(1, 2, 6, seed=2), before)[0].sum(), x, allow_unused=True, retain_graph=True
        )
        assert (grad is not None and bool(grad.any())) == flows


@torch.no_grad()
def test_with_linear_and_no_norm_it_is_attention_without_softmax():
    layer, x = make("linear"), draw(2, 9, 6)
    layer.norm = nn.Identity()

    def of(linear):
        return linear(x).unflatten(-1, (2, -1)).transpose(1, 2)

    query, keys = (F.elu(layer.scale * of(f)) + 1 for f in (layer.query, layer.key))
    weights = (query @ keys.mT).tril()
    mean = weights / weights.sum(-1, keepdim=True) @ of(layer.value)
    y, state = layer(x)
    assert_close(y, layer.output(mean.transpose(1, 2).flatten(2)), **EXACT)
    assert_close(state[..., -1], keys.sum(2), **EXACT)


@torch.no_grad()
def test_at_rate_1_a_value_takes_the_place_of_the_one_before():
    layer = FastWeights(2, rule="delta", dtype=torch.float64)
    nn.init.constant_(layer.gates["rate"].bias, 50.0)  # beta = 1
    nn.init.zeros_(layer.gates["rate"].weight)
    for linear in (layer.query, layer.key, layer.value):
        nn.init.eye_(linear.weight)
    x = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]], dtype=torch.float64)  # a key twice
    _, state = layer(x)
    assert_close(state[0, 0], torch.tensor([[3.0, 0.0], [0.0, 2.0]], dtype=torch.float64))


@every_rule
@torch.no_grad()
def test_its_weights_are_what_the_matrix_is_read_with(rule):
    layer, x = make(rule), draw(2, 4, 6)
    y, state, weights = layer(x, lengths=torch.tensor([4, 0]), need_weights=True)
    assert weights.shape == (2, 2, 4, 5)
    assert not weights[1].any()
    value = read(weights[:1, :, 3:], state[:1])
    if rule == "linear":
        value = value[..., :-1] / value[..., -1:]
    assert_close(layer.output(layer.norm(value).transpose(1, 2).flatten(2)), y[:1, 3:])


@torch.no_grad()
def test_decays_begin_with_steps_as_those_of_mamba_2():
    decay = make("kda", key_width=200).gates(torch.zeros(1, 1, 6, dtype=torch.float64))["decay"]
    assert decay.shape == (1, 2, 1, 200)
    assert 0.001 <= -decay.max().log() < 0.002
    assert 0.05 < -decay.min().log() <= 0.1


@every_rule
def test_reset_parameters_draws_anew(rule):
    layer = make(rule)
    before = copy.deepcopy(layer.state_dict())
    layer.reset_parameters()
    same = {n for n, x in layer.state_dict().items() if torch.equal(before[n], x)}
    assert same <= {"norm.weight", "scale", "gates.speed"}


@every_rule
def test_the_state_is_float32_at_least(rule):
    x = draw(2, 7, 6)
    expected, after = make(rule)(x)
    for dtype, within in ((torch.float32, 1e-5), (torch.bfloat16, 0.4), (torch.float16, 0.1)):
        layer = make(rule).to(dtype)
        y, state = layer(x.to(dtype))
        assert (y.dtype, state.dtype) == (dtype, torch.float32)
        assert layer.initial_state().dtype == state.dtype
        assert layer(x.to(dtype), state)[1].dtype == state.dtype
        assert_close(y.double(), expected, rtol=0, atol=within)
    layer = make(rule).float()
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer(x.float(), layer.initial_state(2))
    assert state.dtype == torch.float32
    assert_close(y.double(), expected, rtol=0, atol=0.4)
    y, state = make(rule, device="meta")(torch.empty(2, 7, 6, dtype=torch.float64, device="meta"))
    assert y.is_meta
    assert state.shape == after.shape


def test_nothing_at_all():
    layer = make()
    for batch, length in ((0, 3), (2, 0), (0, 0)):
        for lengths in (None, torch.zeros(batch, dtype=torch.long)):
            y, state = layer(draw(batch, length, 6), lengths=lengths)
            assert y.shape == (batch, length, 6)
            assert not state.any()


# In the place of attention


@every_rule
@settings(max_examples=6)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5), mixed=st.booleans())
@torch.no_grad()
def test_a_decoder_of_it_goes_on_where_it_stopped(rule, sizes, mixed):
    make_layer = partial(FastWeights, rule=rule, chunk=2)
    model = model_of(make_layer, *(None,) * mixed)
    tokens = words(2, sum(sizes))
    whole, none = model(tokens)
    assert none is None
    for memory in (model.cache(2, max(1, sum(sizes))), model.segment_memory(2, sum(sizes))):
        assert isinstance(memory[0], torch.Tensor)
        parts, carried = [], memory
        for chunk in tokens.split(sizes, dim=1):
            logits, carried = model(chunk, carried)
            parts.append(logits)
        assert_close(torch.cat(parts, dim=1), whole, **EXACT)
        assert [type(part) for part in carried] == [type(part) for part in memory]


@torch.no_grad()
def test_a_decoder_looks_with_it():
    model = model_of(FastWeights, None)
    _, _, (fast, slow) = model(words(2, 5), need_weights=True)
    assert fast.shape == (2, 2, 5, 4)
    assert slow.shape == (2, 2, 5, 5)
    assert_close(fast.square().sum(-1), torch.ones(2, 2, 5, dtype=torch.float64))


@torch.no_grad()
@pytest.mark.parametrize("order", [(FastWeights, None), (None, FastWeights)])
def test_after_an_error_every_memory_is_as_it_was(order):
    model, text = model_of(*order), words(2, 8)
    expected, _ = model(text)
    _, memory = model(text[:, :5], model.cache(2, 8))
    cache = next(part for part in memory if isinstance(part, KVCache))
    for layer in (0, 1):
        broken = copy.deepcopy(model)
        broken.attention[layer].value.weight.fill_(torch.nan)
        with pytest.raises(ValueError, match=r"must be (small|finite)"):
            broken(text[:, 5:], memory)
    other = [part[:1] if isinstance(part, torch.Tensor) else part for part in memory]
    with pytest.raises(ValueError, match="state must have shape"):
        model(text[:, 5:], other)
    assert cache.lengths.tolist() == [5, 5]
    assert_close(model(text[:, 5:], memory)[0], expected[:, 5:], **EXACT)


def test_it_learns_to_copy():
    torch.manual_seed(0)
    model = Decoder(6, 16, 2, 2, layer=FastWeights)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    text = (words(8, 4) % 6).repeat(1, 3)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(model(text[:, :-1])[0].flatten(0, 1), text[:, 1:].flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


# Refusals

LAYER, X = make(), draw(2, 3, 6)
STATE = LAYER.initial_state(2)

# fmt: off
REFUSALS = [
    (lambda: FastWeights(0), ValueError, "width must be at least 1; got 0"),
    (lambda: FastWeights(6, 4), ValueError, "width must be a multiple of heads; got width = 6, heads = 4"),
    (lambda: FastWeights(6, 4, key_width=2), ValueError, "width must be a multiple of heads; got width = 6, heads = 4"),
    (lambda: FastWeights(6, key_width=0), ValueError, "key_width must be at least 1; got 0"),
    (lambda: FastWeights(6, value_width=2.0), TypeError, "value_width must be an integer; got float"),
    (lambda: FastWeights(6, rule="hebb"), ValueError, "rule must be one of linear, sum, decayed sum, delta, gated delta, kda, general; got 'hebb'"),
    (lambda: FastWeights(6, chunk=12), ValueError, "chunk must be a power of two; got 12"),
    (lambda: FastWeights(6, dtype=torch.long), TypeError, "dtype must have a floating-point dtype; got torch.int64"),
    (lambda: LAYER(X[0]), ValueError, "x must have shape (B, T, D) with D = 6; got (3, 6)"),
    (lambda: LAYER(X.float()), TypeError, "x must have the dtype of the parameters, torch.float64; got torch.float32"),
    (lambda: LAYER(X / 0), ValueError, "x must be finite where it is read; got infinity at (0, 0, 0)"),
    (lambda: LAYER(X, STATE / 0), ValueError, "state must be finite where it is read; got NaN at (0, 0, 0, 0)"),
    (lambda: LAYER(X, STATE[:1]), ValueError, "state must have shape (B, H, M, V) with B = 2, H = 2, M = 5, V = 3; got (1, 2, 5, 3)"),
    (lambda: LAYER(X, STATE.float()), TypeError, "state must have the dtype of the initial state, torch.float64; got torch.float32"),
    (lambda: LAYER(X, 3), TypeError, "state must be a torch.Tensor; got int"),
    (lambda: make("linear")(X, STATE), ValueError, "state must have shape (B, H, M, V) with B = 2, H = 2, M = 5, V = 4; got (2, 2, 5, 3)"),
    (lambda: LAYER(X, lengths=torch.tensor([1, 4])), ValueError, "lengths must be in [0, T = 3]; got 4"),
    (lambda: LAYER(X, mask=torch.ones(2, 4, dtype=torch.bool)), ValueError, "mask must have shape (B, T) with B = 2, T = 3; got (2, 4)"),
    (lambda: LAYER.initial_state(-1), ValueError, "batch_size must be at least 0; got -1"),
    (lambda: model_of(FastWeights)(words(2, 3), [1, 2]), TypeError, "state must be a torch.Tensor; got int"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[m for _, _, m in REFUSALS])
def test_bad_input_is_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)) as caught:
        call()
    assert type(caught.value) is kind
