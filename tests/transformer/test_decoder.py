# ruff: noqa: E501  (a table of messages)
"""The small Transformer: whatever carries its memory, and however long the text."""

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

from memlib import Decoder, KVCache, MemoryAttention, SegmentMemory
from memlib.transformer.layers import _turn_at

VOCAB = 11
EXACT = {torch.float64: {"rtol": 0, "atol": 1e-12}, torch.float32: {"rtol": 0, "atol": 1e-5}}


def make(*, seed=0, **options):
    """A small model with lively parameters: a fresh one hardly tells tokens apart."""
    torch.manual_seed(seed)
    options = {"kv_heads": 1, "slots": 6, "length": 64, "dtype": torch.float64} | options
    model = Decoder(VOCAB, 8, 2, 2, **options)
    for name, parameter in model.named_parameters():
        if not parameter.is_meta and "norm" not in name:
            nn.init.normal_(parameter, std=0.5)
    return model


def draw(*shape, seed=1):
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def in_chunks(model, tokens, sizes, memory):
    outputs = []
    for chunk in tokens.split(sizes, dim=1):
        logits, memory = model(chunk, memory)
        outputs.append(logits)
    return torch.cat(outputs, dim=1), memory


SIZES = st.lists(st.integers(0, 5), min_size=1, max_size=6)
OPTIONS = st.fixed_dictionaries(
    {
        "positions": st.sampled_from(["rotary", "learned", "none"]),
        "window": st.none() | st.integers(1, 9),
        "slots": st.sampled_from([0, 6]),
        "dtype": st.sampled_from([torch.float32, torch.float64]),
    }
)


@settings(max_examples=50)
@given(sizes=SIZES, options=OPTIONS, ring=st.booleans())
@torch.no_grad()
def test_chunks_and_steps_are_the_whole(sizes, options, ring):
    model, tokens = make(**options), draw(2, sum(sizes))
    whole, none = model(tokens)
    assert none is None
    cache = model.cache(2, None if ring and options["window"] else max(1, sum(sizes)))
    for memory in (cache, model.segment_memory(2, sum(sizes))):
        parts, after = in_chunks(model, tokens, sizes, memory)
        assert_close(parts, whole, **EXACT[options["dtype"]])
        kind = KVCache if memory is cache else SegmentMemory
        assert [type(part) for part in after] == [kind] * 2
    assert all(a.lengths.tolist() == [sum(sizes)] * 2 for a in cache)


@settings(max_examples=40)
@given(
    calls=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4),
    positions=st.sampled_from(["rotary", "learned", "none"]),
    window=st.none() | st.integers(1, 6),
    kind=st.sampled_from(["cache", "segment", "tokens"]),
)
@torch.no_grad()
def test_padded_rows_go_on_where_each_of_them_stopped(calls, positions, window, kind):
    model = make(positions=positions, window=window, memory_tokens=3 * (kind == "tokens"))
    longest = max(1, *(sum(call[b] for call in calls) for b in (0, 1)))

    def start(batch):
        if kind == "tokens":
            return model.memory_tokens(batch)
        return model.cache(batch, longest) if kind == "cache" else model.segment_memory(batch, 3)

    memory, alone = start(2), [start(1), start(1)]
    for i, call in enumerate(calls):
        tokens = draw(2, max(call) + 1, seed=i)
        logits, memory = model(tokens, memory, lengths=torch.tensor(call))
        for b, n in enumerate(call):
            expected, alone[b] = model(tokens[b : b + 1, :n], alone[b])
            assert_close(logits[b : b + 1, :n], expected, rtol=0, atol=1e-12)
            assert not logits[b, n:].any()
    if kind == "tokens":
        assert_close(memory, torch.cat(alone), rtol=0, atol=1e-12)


def test_a_model_is_its_blocks():
    model, tokens = make(), draw(2, 7)
    logits, _, weights = model(tokens, need_weights=True)
    x = model.embedding[tokens]
    for block, where in zip(model.blocks, weights, strict=True):
        y, _, expected = block.attention(block.attention_norm(x), need_weights=True)
        assert_close(where, expected)
        x = x + y
        x = x + block.feed_forward(block.feed_forward_norm(x))
    assert_close(logits, F.linear(model.norm(x), model.embedding))
    assert [
        layer is block.attention for layer, block in zip(model.attention, model.blocks, strict=True)
    ] == [True] * 2


def test_tokens_may_be_int32():
    model, tokens = make(), draw(2, 5)
    assert torch.equal(model(tokens.int())[0], model(tokens)[0])


def test_the_future_is_not_seen():
    model, tokens = make(), draw(1, 8)
    other = tokens.clone()
    other[:, 5:] = (other[:, 5:] + 1) % VOCAB
    assert_close(model(tokens)[0][:, :5], model(other)[0][:, :5])


# Memory tokens


def test_memory_tokens_are_read_before_the_text_and_written_after_it():
    model, tokens = make(memory_tokens=3), draw(2, 5)
    logits, memory, weights = model(tokens, need_weights=True)
    start = model.memory_tokens(2)
    assert_close(start, model.tokens.expand(2, 3, 8))
    x = torch.cat((start, model.embedding[tokens], start), dim=1)
    for block in model.blocks:
        x, _, _ = block(x, None, None, False)
    x = model.norm(x)
    assert_close(memory, x[:, 8:])
    assert_close(logits, F.linear(x[:, 3:8], model.embedding))
    assert weights[0].shape == (2, 2, 11, 11)
    assert_close(model(tokens, start)[0], logits)
    assert not torch.allclose(model(tokens, memory)[0], logits)


def test_gradients_reach_the_segment_before_through_memory_tokens_alone():
    for model, start in (
        (m := make(memory_tokens=2), m.memory_tokens(1)),
        (m := make(), m.segment_memory(1, 4)),
        (m := make(), m.cache(1, 8)),
    ):
        seen = []
        model.blocks[0].attention_norm.register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(inputs[0])
        )
        _, memory = model(draw(1, 4), start)
        logits, _ = model(draw(1, 4, seed=2), memory)
        (grad,) = torch.autograd.grad(logits.sum(), seen[0], allow_unused=True)
        assert (grad is not None and bool(grad.any())) == (model.tokens is not None)


def test_memory_tokens_tell_of_the_segment_before():
    model, second = make(memory_tokens=2), draw(1, 4)
    read = [model(second, model(draw(1, 4, seed=seed))[1])[0] for seed in (3, 4)]
    assert not torch.allclose(*read)
    memory = None
    for _ in range(20):  # normed on their way out, they stay of one size
        _, memory = model(second, memory)
    assert memory.abs().max() < 10


# Another layer in the place of attention


class Mean(nn.Module):
    """A layer of someone else's: the mean of the tokens so far; its memory is their sum and count."""

    def __init__(self, width, heads, **factory):
        super().__init__()
        self.output = nn.Linear(width, width, **factory)

    def initial_state(self, batch_size):
        return self.output.weight.new_zeros(batch_size, len(self.output.weight) + 1)

    def forward(self, x, memory, *, mask=None):
        x = F.pad(x, (0, 1), value=1.0)
        x = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0)
        total = x.cumsum(1) + (self.initial_state(len(x)) if memory is None else memory)[:, None]
        mean = total[..., :-1] / total[..., -1:].clamp(min=1)
        return self.output(mean), total[:, -1] if x.shape[1] else memory


NEAR = partial(MemoryAttention, window=3)


@torch.no_grad()
@pytest.mark.parametrize("layer", [Mean, (Mean, None), (NEAR, Mean), [NEAR]])
def test_another_layer_takes_the_place_of_attention(layer):
    model, tokens = make(layer=layer), draw(2, 9)
    whole, _ = model(tokens)
    for memory in (model.cache(2, 9), model.segment_memory(2, 9)):
        parts, after = in_chunks(model, tokens, [4, 1, 1, 3], memory)
        assert_close(parts, whole, rtol=0, atol=1e-12)
        assert [type(part) for part in after] == [type(part) for part in memory]
    lengths = torch.tensor([5, 2])
    _, memory = model(tokens[:, :5], model.cache(2, 9), lengths=lengths)
    padded, _ = model(tokens[:, 5:], memory)
    text = torch.cat((tokens[1:, :2], tokens[1:, 5:]), dim=1)
    assert_close(padded[:1], whole[:1, 5:], rtol=0, atol=1e-12)
    assert_close(padded[1:], model(text)[0][:, 2:], rtol=0, atol=1e-12)


def test_layers_take_turns_and_only_attention_hears_of_its_options():
    model = Decoder(VOCAB, 8, 5, 2, window=7, layer=(None, Mean, NEAR))
    kinds = [type(layer) for layer in model.attention]
    assert kinds == [MemoryAttention, Mean, MemoryAttention, MemoryAttention, Mean]
    windows = [getattr(layer, "window", None) for layer in model.attention]
    assert windows == [7, None, 3, 7, None]


def test_what_cannot_tell_where_it_looks_is_not_asked():
    model = make(layer=(Mean, None))
    with pytest.raises(TypeError, match="need_weights"):
        model(draw(2, 4), need_weights=True)


@torch.no_grad()
def test_a_block_calls_its_layer_as_a_module():
    """So that hooks see it: the second layer is silent, and the first alone is heard."""
    model, tokens = make(slots=0), draw(2, 6)
    model.attention[1].register_forward_hook(lambda _, given, out: (0 * out[0], *out[1:]))
    first, memory, _ = model.blocks[0](model.embedding[tokens], None, None, False)
    assert memory is None
    expected = F.linear(model.norm(first), model.embedding)
    assert_close(model(tokens)[0], expected)
    assert_close(model(tokens, model.cache(2, 6))[0], expected)
    assert_close(model(tokens, model.segment_memory(2, 6))[0], expected)


# What a module must bear


@pytest.mark.parametrize("kind", ["none", "cache", "segment", "tokens"])
def test_runs_on_meta_and_under_autocast_and_copies(kind):
    for where in ("meta", "cpu"):
        torch.manual_seed(0)
        model = make(device=where, dtype=torch.float32, memory_tokens=2 * (kind == "tokens"))
        tokens = draw(2, 6).to(where)
        starts = {
            "cache": lambda model=model: model.cache(2, 6),
            "segment": lambda model=model: model.segment_memory(2, 4),
        }
        start = starts.get(kind, lambda: None)
        with torch.no_grad():
            logits, memory, weights = model(tokens, start(), need_weights=True)
            twin, _ = copy.deepcopy(model)(tokens, start())
            with torch.autocast(where if where == "cpu" else "cpu", torch.bfloat16):
                half, _ = model(tokens, start())
        assert logits.shape == (2, 6, VOCAB)
        assert len(weights) == 2
        assert str(logits.device) == where
        if where == "cpu":
            assert_close(twin, logits)
            assert_close(half.float(), logits, rtol=0.3, atol=0.5)
            other = make(seed=3, dtype=torch.float32, memory_tokens=2 * (kind == "tokens"))
            other.load_state_dict(model.state_dict())
            assert torch.equal(other(tokens, start())[0], twin)
        assert (memory is None) == (kind == "none")


@pytest.mark.parametrize(
    "options", [{}, {"memory_tokens": 2}, {"slots": 0, "positions": "learned"}]
)
def test_gradients_are_those_of_finite_differences(options):
    model, tokens = make(**options), draw(2, 4)
    parameters = dict(model.named_parameters())

    def function(*values):
        named = dict(zip(parameters, values, strict=True))
        with torch.nn.utils.stateless._reparametrize_module(model, named):
            logits, memory = model(tokens, lengths=torch.tensor([4, 2]))
        return logits if memory is None else (logits, memory)

    assert torch.autograd.gradcheck(function, tuple(parameters.values()), fast_mode=True)


def test_reset_parameters_draws_anew():
    model = make(memory_tokens=2, positions="learned")
    before = copy.deepcopy(model.state_dict())
    model.reset_parameters()
    after = model.state_dict()
    same = {n.rsplit(".", 1)[0] for n in before if torch.equal(before[n], after[n])}
    assert all("norm" in name for name in same)


def test_the_defaults():
    model = Decoder(100)
    assert model.embedding.shape == (100, 64)
    assert [len(block.feed_forward.keys) for block in model.blocks] == [256, 256]
    assert [(layer.heads, layer.kv_heads, layer.window) for layer in model.attention] == [
        (1, 1, None)
    ] * 2
    assert sum(p.numel() for p in Decoder(100, 8, 1, slots=0).parameters()) == 800 + 4 * 64 + 4 * 8
    loss = F.cross_entropy(
        model(torch.randint(100, (4, 16)))[0].flatten(0, 1), torch.randint(100, (64,))
    )
    assert abs(loss - torch.tensor(100.0).log()) < 0.5


def test_nothing_at_all():
    for model in (make(), make(memory_tokens=2)):
        for batch, tokens in ((0, 3), (2, 0), (0, 0)):
            for lengths in (None, torch.zeros(batch, dtype=torch.long)):
                logits, _ = model(draw(batch, tokens), lengths=lengths)
                assert logits.shape == (batch, tokens, VOCAB)


def test_angles_are_made_once_a_step_for_all_layers():
    torch.manual_seed(0)
    model = Decoder(9, 8, layers=3, heads=2)
    caches, tokens = model.cache(2, 8), torch.randint(9, (2, 6))
    _turn_at.cache_clear()
    whole, _ = model(tokens)
    with torch.inference_mode():  # what is made here must not reach a gradient
        steps = [model(tokens[:, t : t + 1], caches)[0] for t in range(3)]
    for cache in caches:
        cache.crop(0)
    model(tokens[:, :3], caches)
    y, _ = model(tokens[:, 3:4], caches)
    y.sum().backward()
    assert model.attention[0].query.weight.grad.abs().sum() > 0
    torch.testing.assert_close(torch.cat((*steps, y), dim=1), whole[:, :4])
    assert _turn_at.cache_info()[:2] == (2 * 4, 4)  # hits, misses


@pytest.mark.needs_torch("2.13")
@torch.no_grad()
def test_two_compilations_however_long_it_grows():
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model, tokens = make(), draw(2, 30)
    cache = model.cache(2, 30)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    parts, _ = in_chunks(compiled, tokens, [9] + [1] * 21, cache)
    assert_close(parts, model(tokens)[0], rtol=0, atol=1e-12)
    assert len(graphs) == 2


def test_it_learns_to_copy():
    """The loss of a repeated block falls: gradients point the right way through every part."""
    torch.manual_seed(0)
    model = Decoder(6, 16, 2, 2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    block = draw(8, 4) % 6
    text = block.repeat(1, 3)
    first = None
    for _ in range(30):
        loss = F.cross_entropy(model(text[:, :-1])[0].flatten(0, 1), text[:, 1:].flatten())
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 2


# Refusals

TOKENS = draw(2, 3)
MODEL, WITH_TOKENS = make(positions="learned", length=8), make(memory_tokens=2)

# fmt: off
REFUSALS = [
    (lambda: Decoder(0), ValueError, "vocab_size must be at least 1; got 0"),
    (lambda: Decoder(4, 0), ValueError, "width must be at least 1; got 0"),
    (lambda: Decoder(4, 8, 0), ValueError, "layers must be at least 1; got 0"),
    (lambda: Decoder(4, 8, 1, 3), ValueError, "width must be a multiple of heads; got width = 8, heads = 3"),
    (lambda: Decoder(4, 8, slots=-1), ValueError, "slots must be at least 0; got -1"),
    (lambda: Decoder(4, 8, memory_tokens=1.0), TypeError, "memory_tokens must be an integer; got float"),
    (lambda: Decoder(4, 8, layer=()), ValueError, "layer must be what makes a layer, or several of them; got none"),
    (lambda: Decoder(4, 8, layer=lambda *_, **__: torch.relu), TypeError, "layer must make a torch.nn.Module; got builtin_function_or_method"),
    (lambda: Decoder(4, 8, dtype=torch.long), TypeError, "dtype must have a floating-point dtype; got torch.int64"),
    (lambda: MODEL(TOKENS.tolist()), TypeError, "tokens must be a torch.Tensor; got list"),
    (lambda: MODEL(TOKENS.double()), TypeError, "tokens must have dtype int64 or int32; got torch.float64"),
    (lambda: MODEL(TOKENS[0]), ValueError, "tokens must have shape (B, T); got (3,)"),
    (lambda: MODEL(torch.tensor([[3, 11]])), ValueError, "tokens must be in [0, 11); got 3 to 11"),
    (lambda: MODEL(torch.tensor([[-1, 4]])), ValueError, "tokens must be in [0, 11); got -1 to 4"),
    (lambda: MODEL(TOKENS, lengths=torch.tensor([1, 4])), ValueError, "lengths must be in [0, T = 3]; got 4"),
    (lambda: MODEL(TOKENS.repeat(1, 3)), ValueError, "positions must be below length = 8; got 8"),
    (lambda: make(positions="learned", length=6, memory_tokens=2)(TOKENS), ValueError, "positions must be below length = 6; got 6"),
    (lambda: MODEL(TOKENS, MODEL.cache(2, 9)[:1]), TypeError, "memory must be a tuple of 2, one a layer; got tuple of 1"),
    (lambda: MODEL(TOKENS, MODEL.cache(2, 9)[0]), TypeError, "memory must be a tuple of 2, one a layer; got KVCache"),
    (lambda: MODEL(TOKENS, WITH_TOKENS.memory_tokens(2)), TypeError, "memory must be a tuple of 2, one a layer; got Tensor"),
    (lambda: MODEL(TOKENS, [1, 2]), TypeError, "memory must be a KVCache, a SegmentMemory or None; got int"),
    (lambda: MODEL(TOKENS, MODEL.segment_memory(1, 2)), ValueError, "memory.inputs must have shape (B, N, D) with B = 2, D = 8; got (1, 2, 8)"),
    (lambda: MODEL(TOKENS, [m._replace(inputs=m.inputs / 0) for m in MODEL.segment_memory(2, 2)]), ValueError, "memory[0].inputs must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda: MODEL.memory_tokens(), ValueError, "memory_tokens of the model must be at least 1; got 0"),
    (lambda: WITH_TOKENS.memory_tokens(-1), ValueError, "batch_size must be at least 0; got -1"),
    (lambda: WITH_TOKENS(TOKENS, MODEL.cache(2, 9)), TypeError, "memory must be a torch.Tensor; got tuple"),
    (lambda: WITH_TOKENS(TOKENS, torch.ones(2, 3, 8, dtype=torch.float64)), ValueError, "memory must have shape (B, K, D) with B = 2, K = 2, D = 8; got (2, 3, 8)"),
    (lambda: WITH_TOKENS(TOKENS, torch.ones(2, 2, 8)), TypeError, "memory must have the dtype of the parameters, torch.float64; got torch.float32"),
    (lambda: WITH_TOKENS(TOKENS, torch.full((2, 2, 8), torch.nan, dtype=torch.float64)), ValueError, "memory must be finite where it is read; got NaN at (0, 0, 0)"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[m for _, _, m in REFUSALS])
def test_bad_input_is_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)) as caught:
        call()
    assert type(caught.value) is kind


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("where", ["first", "last", "norm"])
def test_after_an_error_every_cache_is_as_it_was(where, tokens):
    model, text = make(), draw(2, 8)
    expected, _ = model(text)
    cache = model.cache(2, 8)
    model(text[:, :5], cache)
    broken = copy.deepcopy(model)
    place = {
        "first": broken.blocks[0].attention.key.weight,
        "last": broken.blocks[1].attention.value.weight,
        "norm": broken.norm.weight,
    }
    place[where].fill_(torch.nan)
    with pytest.raises(ValueError, match="must be small enough"):
        broken(text[:, 5 : 5 + tokens], cache)
    assert [part.lengths.tolist() for part in cache] == [[5, 5]] * 2
    with pytest.raises(ValueError, match="new tokens must fit"):
        model(text[:, :4], cache)
    uneven = (model.cache(2, 9)[0], model.cache(2, 4)[0])
    with pytest.raises(ValueError, match="new tokens must fit"):
        model(text[:, :5], uneven)
    assert not any(part.lengths.any() or part.keys.any() for part in uneven)
    assert_close(model(text[:, 5:], cache)[0], expected[:, 5:], rtol=0, atol=1e-12)
