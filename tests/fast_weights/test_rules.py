"""A matrix as memory: step by step, by chunks and as a product of matrices, it is one write."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from memlib import attend, matrix_memory, read, write

B, H, T, M, V = 2, 3, 21, 5, 4
CHUNKS = [1, 2, 8, 16, 64]


def draw(*shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64)


def uniform(*shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=random, dtype=torch.float64)


def tokens(length=T):
    """Queries, unit keys, values and a matrix before."""
    query, keys, values = (draw(B, H, length, n, seed=i) for i, n in enumerate((M, M, V)))
    return query, F.normalize(keys, dim=-1), values, draw(B, H, M, V, seed=3)


def small(*shape):
    """Decays from 1 down to 1e-30, some of them 0."""
    decay = 10 ** (-30 * uniform(*shape, seed=4) ** 3)
    return decay.masked_fill(uniform(*shape, seed=5) < 0.05, 0)


def rate(*shape):
    return uniform(*shape, seed=6)


# of each rule: write, erase, decay
RULES = {
    "sum": lambda T: (None, None, None),
    "decayed sum": lambda T: (None, None, small(B, H, T, 1)),
    "sum with decays a channel": lambda T: (None, None, small(B, H, T, M)),
    "delta": lambda T: (rate(B, H, T, 1), rate(B, H, T, 1), None),
    "gated delta": lambda T: (rate(B, H, T, 1), rate(B, H, T, 1), small(B, H, T, 1)),
    "KDA": lambda T: (rate(B, H, T, 1), rate(B, H, T, 1), small(B, H, T, M)),
    "general": lambda T: (rate(B, H, T, V), 2 * rate(B, H, T, M), small(B, H, T, M)),
}
every_rule = pytest.mark.parametrize("rule", RULES)


def of(rule, length=T):
    """The gates of a rule, by name; those it lacks are left out."""
    gates = dict(zip(("write", "erase", "decay"), RULES[rule](length), strict=True))
    return {name: gate for name, gate in gates.items() if gate is not None}


def closed_form(query, keys, values, state, write=1.0, erase=0.0, decay=1.0):
    """The write as it stands in the papers, a product of matrices for each token."""
    write, erase, decay = (
        x.expand_as(y) if isinstance(x, torch.Tensor) else torch.full_like(y, x)
        for x, y in ((write, values), (erase, keys), (decay, keys))
    )
    reads = []
    for t in range(query.shape[2]):
        k, b, d = (x[:, :, t].unsqueeze(-1) for x in (keys, erase, decay))  # columns
        transition = (torch.eye(k.shape[-2], dtype=k.dtype) - k @ (b * k).mT) @ torch.diag_embed(
            d[..., 0]
        )
        state = transition @ state + k @ (write * values)[:, :, t].unsqueeze(-2)
        reads.append((query[:, :, t].unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(reads, dim=2), state


def with_gradients(function, tensors):
    """The results, and the gradients of a sum in which each number has its own weight."""
    tensors = [x.detach().clone().requires_grad_() for x in tensors]
    results = function(*tensors)
    loss = sum((r * torch.arange(r.numel()).view(r.shape).cos()).sum() for r in results)
    return *results, *torch.autograd.grad(loss, tensors)


@every_rule
@pytest.mark.parametrize("chunk", CHUNKS)
def test_steps_chunks_and_the_closed_form_are_one(rule, chunk):
    gates = of(rule)

    def call(function, **options):
        return with_gradients(
            lambda q, k, v, s, *g: function(
                q, k, v, s, **dict(zip(gates, g, strict=True)), **options
            ),
            (*tokens(), *gates.values()),
        )

    assert_close(call(matrix_memory, chunk=chunk), call(closed_form), rtol=1e-10, atol=1e-10)


@every_rule
@pytest.mark.parametrize("length", [1, 7, 8, 9])
def test_no_length_has_to_be_a_multiple_of_the_chunk(rule, length):
    results = [matrix_memory(*tokens(length), **of(rule, length), chunk=c) for c in (1, 8)]
    assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 16])
@pytest.mark.parametrize("smallest", [1e-30, 1e-300])
def test_a_decay_may_be_as_small_as_a_number_is(chunk, smallest):
    """And so is what comes after: neither a quotient nor a logarithm of it is taken."""
    query, keys, values, state = tokens()
    decay = torch.where(uniform(B, H, T, M, seed=8) < 0.5, smallest, uniform(B, H, T, M))
    options = {"write": 0.5, "erase": 0.5}

    def call(function, **more):
        return with_gradients(
            lambda *x: function(*x[:4], decay=x[4], **options, **more),
            (query, keys, values, state, decay),
        )

    found, wanted = call(matrix_memory, chunk=chunk), call(closed_form)
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    for x in found[6:]:  # what a decay would have kept is its gradient, however small it is
        assert x.abs().amax() > 0.1


@every_rule
def test_float32_is_float64_rounded(rule):
    """Small decays included."""
    exact = matrix_memory(*tokens(64), **of(rule, 64))
    single = matrix_memory(
        *(x.float() for x in tokens(64)), **{n: x.float() for n, x in of(rule, 64).items()}
    )
    for found, wanted in zip(single, exact, strict=True):
        assert_close(found.double(), wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


# What the settings are


@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_sum_is_masked_attention_without_softmax(chunk):
    query, keys, values, _ = tokens()
    reads, state = matrix_memory(query, keys, values, chunk=chunk)
    assert_close(reads, read((query @ keys.mT).tril(), values))
    assert_close(state, write(torch.zeros(B, H, M, V).double(), keys, values))


@pytest.mark.parametrize("chunk", CHUNKS)
def test_it_is_the_verbs(chunk):
    """The delta rule adds what a read with the key lacks: a key is a weighting of the slots."""
    query, keys, values, state = tokens()
    beta = rate(B, H, T, 1)
    found, after = matrix_memory(query, keys, values, state, write=beta, erase=beta, chunk=chunk)
    for t in range(T):
        at = slice(t, t + 1)
        error = values[:, :, at] - read(keys[:, :, at], state)
        state = write(state, keys[:, :, at], beta[:, :, at] * error)
        assert_close(found[:, :, at], read(query[:, :, at], state))
    assert_close(after, state)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_what_the_general_form_is_without_its_gates(chunk):
    query, keys, values, state = tokens()
    beta = rate(B, H, T, 1)
    ones, nothing = torch.ones(B, H, T, M).double(), torch.zeros(B, H, T, M).double()

    def general(write, erase, decay):
        return matrix_memory(
            query, keys, values, state, write=write, erase=erase, decay=decay, chunk=chunk
        )

    wide = beta.expand(B, H, T, V), beta.expand(B, H, T, M)
    delta = matrix_memory(query, keys, values, state, write=beta, erase=beta, chunk=chunk)
    assert_close(general(*wide, ones), delta)
    assert_close(general(*wide, 1.0), delta)
    added = matrix_memory(query, keys, values, state, chunk=chunk)
    assert_close(general(torch.ones_like(values), nothing, ones), added)
    assert_close(general(1.0, 0.0, 1.0), added)


@pytest.mark.parametrize(
    "shape", [(), (1,), (T, 1), (H, 1, 1), (B, 1, 1, 1), (1, H, T, 1)], ids=str
)
def test_gates_broadcast(shape):
    gates = {name: uniform(*shape, seed=i) for i, name in enumerate(("write", "erase", "decay"))}
    whole = {"write": (B, H, T, V), "erase": (B, H, T, M), "decay": (B, H, T, M)}
    wide = {name: gate.expand(whole[name]) for name, gate in gates.items()}
    assert_close(matrix_memory(*tokens(), **gates), matrix_memory(*tokens(), **wide))
    if shape == ():
        numbers = {name: gate.item() for name, gate in gates.items()}
        assert_close(matrix_memory(*tokens(), **numbers), matrix_memory(*tokens(), **wide))


def test_orthonormal_keys_fill_all_slots_and_are_overwritten():
    keys = torch.eye(M).double().expand(B, H, M, M)
    first, second = draw(B, H, M, V, seed=1), draw(B, H, M, V, seed=2)
    for erase in (None, 1.0):
        _, state = matrix_memory(keys, keys, first, erase=erase)
        assert_close(read(keys, state), first)
        _, state = matrix_memory(keys, keys, second, state, erase=erase)
        assert_close(read(keys, state), second if erase else first + second)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_along_the_axes_it_is_the_erase_and_add_of_the_ntm(chunk):
    """Keys that are one slot each, and one number for a gate."""
    slots = torch.arange(T).remainder(M).roll(3)
    keys = F.one_hot(slots, M).double().expand(B, H, T, M)
    _, _, values, before = tokens()
    erase, add = rate(B, H, T, 1), uniform(B, H, T, 1, seed=7)
    _, after = matrix_memory(keys, keys, values, before, write=add, erase=erase, chunk=chunk)
    memory = before
    for t in range(T):
        at = slice(t, t + 1)
        gate = erase[:, :, at].expand(B, H, 1, V)
        memory = write(memory, keys[:, :, at], add[:, :, at] * values[:, :, at], gate)
    assert_close(after, memory)


def test_elsewhere_it_is_not_that_of_the_ntm():
    """Its erase has rank one, and the gate is of the key; that of the NTM is of the value."""
    _, keys, values, before = tokens(1)
    gate = rate(B, H, 1, 1)
    nothing = torch.zeros_like(values)
    _, after = matrix_memory(keys, keys, nothing, before, erase=gate)
    assert (torch.linalg.matrix_rank(after - before) == 1).all()
    erased = write(before, keys.abs(), nothing, gate.expand(B, H, 1, V))
    assert (torch.linalg.matrix_rank(erased - before) == min(M, V)).all()
    # a gate a channel: of the key's numbers, so that all numbers of a value go, or none
    slot = F.one_hot(torch.tensor([[[2]]]), M).double().expand(B, H, 1, M)
    one_number = F.one_hot(torch.tensor([[[1]]]), V).double().expand(B, H, 1, V)
    ntm = write(before, slot, nothing, one_number)
    assert (ntm[:, :, 2] == before[:, :, 2] * (1 - one_number[:, :, 0])).all()
    for channel in range(M):
        erase = F.one_hot(torch.tensor(channel), M).double()
        _, after = matrix_memory(slot, slot, nothing, before, erase=erase)
        kept = after[:, :, 2] / before[:, :, 2]
        assert_close(kept, torch.full_like(kept, float(channel != 2)))


def features(x, directions):
    """Positive random features: the mean of f(q) f(k) over directions is exp(q . k)."""
    scores = x @ directions.mT - x.square().sum(-1, keepdim=True) / 2
    return scores.exp() / math.sqrt(len(directions))


def test_linear_attention_with_random_features_approaches_attention():
    """Choromanski et al. 2020 (arXiv 2009.14794), lemma 1; the error falls as R^-1/2."""
    length = 12
    query, keys, values, _ = tokens(length)
    query = F.normalize(query, dim=-1)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    exact = attend(query, keys, values, measure="dot", mask=causal)
    counted = F.pad(values, (0, 1), value=1.0)  # the last number adds the weights up
    counts, errors = [64, 256, 1024, 4096], []
    for count in counts:
        off = []
        for seed in range(6):
            f = [features(x, draw(count, M, seed=seed + 10)) for x in (query, keys)]
            reads, _ = matrix_memory(*f, counted)
            off.append((reads[..., :-1] / reads[..., -1:] - exact).square().mean().item())
        errors.append(np.mean(off) ** 0.5)
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -0.6 < slope < -0.4, (slope, errors)
    assert errors[-1] < 0.05


# Padding, states, sizes and dtypes


def padded(rule, where):
    """The gates and tokens of a rule, with NaN and the like at padding; lengths are kept."""
    hidden = ~where[:, None, :, None]
    query, keys, values, state = tokens()
    bad = [
        x.masked_fill(hidden, x_bad)
        for x, x_bad in zip((query, keys, values), (math.nan, math.inf, -math.inf), strict=True)
    ]
    gates = {n: x.masked_fill(hidden, math.nan) for n, x in of(rule).items()}
    return (*bad, state), gates


@every_rule
@pytest.mark.parametrize("chunk", [1, 8])
def test_padding_is_as_if_it_were_not_there(rule, chunk):
    where = uniform(B, T, seed=9) < 0.6
    (query, keys, values, state), gates = padded(rule, where)
    learned = [x.requires_grad_() for x in (query, keys, values, state, *gates.values())]
    reads, after = matrix_memory(query, keys, values, state, **gates, mask=where, chunk=chunk)
    assert not reads.transpose(1, 2)[~where].any()
    for row in range(B):
        kept = where[row].nonzero().flatten()
        alone = [x[row : row + 1].index_select(2, kept) for x in (query, keys, values)]
        own = {n: x[row : row + 1].index_select(2, kept) for n, x in gates.items()}
        found = matrix_memory(*alone, state[row : row + 1], **own, chunk=1)
        assert_close((reads[row : row + 1].index_select(2, kept), after[row : row + 1]), found)
    for x in torch.autograd.grad(reads.sum() + after.sum(), learned):
        assert x.isfinite().all()
        if x.shape[2] == T:
            assert not x.transpose(1, 2)[~where].any()


def test_nothing_but_padding_changes_nothing():
    query, keys, values, state = tokens()
    nowhere = torch.zeros(B, T, dtype=torch.bool)
    reads, after = matrix_memory(query, keys, values, state, erase=1.0, decay=0.5, mask=nowhere)
    assert not reads.any()
    assert torch.equal(after, state)


@every_rule
@pytest.mark.parametrize("cut", [1, 8, 13])
def test_a_text_goes_on_where_it_stopped(rule, cut):
    query, keys, values, state = tokens()
    gates = of(rule)
    reads = []
    for at in (slice(0, cut), slice(cut, T)):
        part = (x[:, :, at] for x in (query, keys, values))
        own = {n: x[:, :, at] for n, x in gates.items()}
        found, state = matrix_memory(*part, state, **own, chunk=8)
        reads.append(found)
    whole = matrix_memory(*tokens(), **gates)
    assert_close((torch.cat(reads, dim=2), state), whole, rtol=1e-10, atol=1e-10)


@every_rule
@pytest.mark.parametrize("chunk", [1, 2])
def test_second_derivatives_are_those_of_differences(rule, chunk):
    length = 3
    *inputs, state = (x[:1, :1, :, :2] for x in tokens(length))
    inputs.append(state[:, :, :2])
    gates = {n: x[:1, :1, :, :2] / 2 + 0.25 for n, x in of(rule, length).items()}
    leaves = [x.clone().requires_grad_() for x in (*inputs, *gates.values())]

    def call(q, k, v, s, *g):
        return matrix_memory(q, k, v, s, **dict(zip(gates, g, strict=True)), chunk=chunk)

    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("length", [0, 5])
def test_no_rows_and_no_tokens(rows, length):
    x = torch.ones(rows, H, length, M)
    state = torch.ones(rows, H, M, M)
    for chunk in (1, 4):
        reads, after = matrix_memory(x, x, x, state, erase=1.0, decay=0.5, chunk=chunk)
        assert reads.shape == x.shape
        assert after.shape == state.shape
        assert length or torch.equal(after, state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    """A sum of many small numbers would stand still in half precision."""
    x = torch.ones(1, 1, 4096, 1, dtype=dtype)
    small = torch.full_like(x, 2**-6)
    for chunk in (1, 64):
        reads, after = matrix_memory(x, x, small, chunk=chunk)
        assert reads.dtype == dtype
        assert after.dtype == torch.float32
        assert reads[0, 0, -1].item() == after.item() == 64
        _, after = matrix_memory(x, x, small, after, chunk=chunk)
        assert after.dtype == torch.float32
        _, after = matrix_memory(x, x, small, after.to(dtype), chunk=chunk)
        assert after.dtype == dtype


def test_under_autocast_nothing_is_rounded_on_the_way():
    inputs = [x.float() for x in tokens(64)]
    gates = {n: x.float() for n, x in of("general", 64).items()}
    expected = matrix_memory(*inputs, **gates)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(matrix_memory(*inputs, **gates), expected, rtol=0, atol=0)


@pytest.mark.needs_torch("2.13")
@pytest.mark.parametrize("rule", ["delta", "general"])
def test_compiles_to_one_graph_with_its_gradients(rule):
    torch._dynamo.reset()
    gates = of(rule)
    results = [
        with_gradients(
            lambda q, k, v, s, *g, f=f: f(q, k, v, s, **dict(zip(gates, g, strict=True)), chunk=8),
            (*tokens(), *gates.values()),
        )
        for f in (matrix_memory, torch.compile(matrix_memory, fullgraph=True, backend="aot_eager"))
    ]
    assert_close(*results)


def test_roundings_of_what_is_erased_stay_in_a_chunk_alone():
    """Sixteen times nearly all is erased; what a chunk is off by is of the matrix before it."""
    key = torch.ones(1, 1, 16, 1)
    before = torch.full((1, 1, 1, 1), 1e8)
    gates = {"write": 0.5, "erase": torch.tensor(0.999)}
    states = [matrix_memory(key, key, key, before, **gates, chunk=chunk)[1] for chunk in (1, 16)]
    exact = matrix_memory(*(x.double() for x in (key, key, key, before)), write=0.5, erase=0.999)[1]
    off = [abs(state.item() - exact.item()) for state in states]
    assert off[0] < 1e-6
    assert off[0] < off[1] < 1e-5 * before.item()
