"""The reference pages: each line of "Same formula, other name", and the names in the API."""

import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memlib import (
    NTM,
    ClassicalHopfield,
    DNCCell,
    FeedForward,
    Gates,
    Hopfield,
    KeyValueMemory,
    MemN2N,
    MemoryAttention,
    NeuralMemory,
    NTMCell,
    Store,
    address,
    allocation,
    attend,
    interpolate,
    knn_lm,
    locate,
    matrix_memory,
    position_encoding,
    programs,
    read,
    sharpen,
    write,
)
from memlib.transformer import window

BOOK = Path(__file__).parents[2] / "book"


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


QUERY, KEYS, VALUES = draw(2, 3, 5), draw(2, 7, 5, seed=1), draw(2, 7, 4, seed=2)
ONE_HOT = F.one_hot(torch.tensor([[4]]), 7).double()  # a head on slot 4


def gates(gate: float, move: int) -> Gates:
    """One head that looks for QUERY's first vector, then moves."""
    ones = torch.ones(2, 1, dtype=torch.float64)
    shift = F.one_hot(torch.full((2, 1), 1 + move), 3).double()
    return Gates(QUERY[:, :1], 5 * ones, gate * ones, shift, ones)


def test_attend():
    weights = address(QUERY, KEYS, strength=2.0)
    torch.testing.assert_close(attend(QUERY, KEYS, VALUES, strength=2.0), read(weights, VALUES))


def test_transformer():
    expected = F.scaled_dot_product_attention(QUERY, KEYS, VALUES)
    torch.testing.assert_close(attend(QUERY, KEYS, VALUES), expected)


def test_hopfield_update():
    expected = attend(QUERY, KEYS, KEYS, measure="dot", strength=0.7)
    torch.testing.assert_close(Hopfield(strength=0.7)(QUERY, KEYS), expected)


def test_kernel_regression():
    sigma = 1.5
    kernel = torch.exp(-torch.cdist(QUERY, KEYS).square() / (2 * sigma**2))
    expected = kernel @ VALUES / kernel.sum(dim=-1, keepdim=True)
    strength = 1 / (2 * sigma**2)
    got = attend(QUERY, KEYS, VALUES, measure="negative_squared_distance", strength=strength)
    torch.testing.assert_close(got, expected)


def test_nearest_neighbor():
    nearest = torch.cdist(QUERY, KEYS).argmin(dim=-1, keepdim=True)
    expected = VALUES.gather(1, nearest.expand(-1, -1, 4))
    got = attend(QUERY, KEYS, VALUES, measure="negative_squared_distance", strength=1e6)
    torch.testing.assert_close(got, expected)


def test_average():
    expected = VALUES.mean(dim=1, keepdim=True).expand(-1, 3, -1)
    torch.testing.assert_close(attend(QUERY, KEYS, VALUES, strength=0.0), expected)


def test_top_k_of_all():
    got = attend(QUERY, KEYS, VALUES, top_k=7)
    torch.testing.assert_close(got, attend(QUERY, KEYS, VALUES))


def test_overwriting():
    memory = KeyValueMemory(7, 5, 4, dtype=torch.float64)
    full = memory.write(KEYS, VALUES, memory.initial_state(2))
    full = full._replace(written=full.written.roll(4, dims=1))  # slot 4 is the oldest
    new = draw(2, 1, 4, seed=3)
    expected = memory.write(QUERY[:, :1], new, full).values
    got = write(full.values, ONE_HOT.expand(2, 1, 7), new, torch.ones_like(new))
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(got[:, 4], new[:, 0])


def test_delta_rule():
    weights, new = ONE_HOT.expand(2, 1, 7), draw(2, 1, 4, seed=3)
    delta = write(VALUES, weights, new - read(weights, VALUES))
    torch.testing.assert_close(delta, write(VALUES, weights, new, torch.ones_like(new)))


def test_hebbian_storage():
    patterns = draw(3, 6).sign()
    sums = write(torch.zeros(6, 6, dtype=torch.float64), patterns, patterns)
    torch.testing.assert_close(sums, patterns.T @ patterns)
    expected = (sums - sums.diag().diag()) / 6
    torch.testing.assert_close(ClassicalHopfield().connections(patterns), expected)


def test_content_alone():
    previous = draw(2, 1, 7, seed=4).softmax(dim=-1)
    expected = address(QUERY[:, :1], KEYS, measure="cosine", strength=5.0)
    torch.testing.assert_close(locate(gates(1.0, 0), KEYS, previous), expected)


def test_location_alone():
    got = locate(gates(0.0, +1), KEYS, ONE_HOT.expand(2, 1, 7))
    torch.testing.assert_close(got, ONE_HOT.expand(2, 1, 7).roll(1, dims=-1))


FAR = -1e3  # a sigmoid or a softplus is 0 there
STILL, FORWARD = [FAR, 0.0, FAR], [FAR, FAR, 0.0]


def machine(**orders: float | list[float]) -> NTMCell:
    """A machine of 7 slots of width 5 that does the same at every step, whatever it sees."""
    cell = NTMCell(3, 2, slots=7, width=5, dtype=torch.float64)
    with torch.no_grad():
        cell.interface.weight.zero_()
        row = {"key": 0.5, "shift": 0.0, "gate": 0.0, "strength": 3.0, "sharpening": FAR} | orders
        sizes = {"key": 5, "shift": 3, "gate": 1, "strength": 1, "sharpening": 1}
        gates = torch.cat([torch.tensor(row[n]).expand(size) for n, size in sizes.items()])
        changes = [torch.tensor(orders.get(n, FAR)).expand(5) for n in ("erase", "add")]
        cell.interface.bias.copy_(torch.cat([gates, gates, *changes]))
    return cell


def test_ntm_by_content():
    cell = machine(gate=-FAR, shift=STILL, add=0.0)
    state = cell.initial_state(2)._replace(memory=KEYS)
    _, after = cell(draw(2, 3), state)
    query = torch.full((2, 1, 5), 0.5, dtype=torch.float64).tanh()
    strength = float(F.softplus(torch.tensor(3.0, dtype=torch.float64)))
    expected = attend(query, KEYS, KEYS, measure="cosine", strength=strength)
    torch.testing.assert_close(after.reads, expected)
    assert torch.equal(after.memory, KEYS)


def test_ntm_on_a_tape():
    cell = machine(gate=FAR, shift=FORWARD, erase=-FAR, add=[0.1, 0.2, 0.3, 0.4, 0.5])
    state = cell.initial_state(1)._replace(memory=KEYS[:1])
    symbol = cell.interface.bias[-5:].detach().tanh()

    def by_hand():
        for _ in range(4):
            yield programs.Step(move=+1, add=symbol)

    trace = programs.run(by_hand(), KEYS[0])
    for t in range(4):
        _, state = cell(draw(1, 3), state)
        torch.testing.assert_close(state.memory[0], trace.memories[t])
        torch.testing.assert_close(state.reads[0, 0], trace.reads[t])


def test_ntm_without_memory():
    ntm = NTM(3, 2, slots=7, width=5, dtype=torch.float64)
    with torch.no_grad():
        ntm.cell.interface.weight.zero_()
        ntm.cell.interface.bias.zero_()  # adds tanh(0) = 0
        state = ntm.initial_state(2)
        state = state._replace(memory=torch.zeros_like(state.memory))
        x = draw(2, 6, 3)
        logits, _ = ntm(x, state)
        lstm = nn.LSTM(3, 100, batch_first=True, dtype=torch.float64)
        lstm.weight_ih_l0.copy_(ntm.cell.controller.weight_ih[:, :3])
        for name in ("weight_hh", "bias_ih", "bias_hh"):
            getattr(lstm, f"{name}_l0").copy_(getattr(ntm.cell.controller, name))
        output = ntm.cell.output
        expected = F.linear(lstm(x)[0], output.weight[:, :100], output.bias)
    torch.testing.assert_close(logits, expected)


def test_hop():
    words, slots = 9, 7
    model = MemN2N(words, 4, width=5, hops=1, slots=slots, noise=0.0).double().eval()
    story, question = torch.tensor([[[3, 5], [4, 6], [8, 0]]]), torch.tensor([[7, 3]])

    def encode(sentence: Tensor, matrix: Tensor) -> Tensor:
        sentence = sentence[sentence != 0]
        return (position_encoding(len(sentence), 5).double() * matrix[sentence]).sum(0)

    keys, values = (
        F.pad(
            torch.stack(
                [encode(s, m) + m[words + age] for s, age in zip(story[0], (2, 1, 0), strict=True)]
            ),
            (0, 0, 0, slots - 3),
        )
        for m in model.embeddings
    )
    u = encode(question[0], model.embeddings[0])[None]
    u = u + attend(u, keys, values, measure="dot")
    torch.testing.assert_close(model(story, question), u @ model.embeddings[1][1:5].mT)


def test_dnc_by_content():
    cell = DNCCell(3, 2, slots=7, width=5, dtype=torch.float64)
    key = cell.interface.bias[:5]
    with torch.no_grad():
        cell.interface.weight.zero_()
        cell.interface.bias.zero_()
        key.copy_(QUERY[0, 0])
        cell.interface.bias[-4] = FAR  # the write gate
        cell.interface.bias[-3:] = torch.tensor([FAR, 0.0, FAR])  # neither back nor forth
        _, after = cell(draw(2, 3), cell.initial_state(2)._replace(memory=KEYS))
        strength = 1 + float(F.softplus(torch.zeros((), dtype=torch.float64)))
        expected = attend(key.expand(2, 1, 5), KEYS, KEYS, measure="cosine", strength=strength)
    torch.testing.assert_close(after.reads, expected)
    assert torch.equal(after.memory, KEYS)


def layer_and_text(**options: Any) -> tuple[MemoryAttention, Tensor]:
    torch.manual_seed(0)
    return MemoryAttention(8, 2, dtype=torch.float64, **options), draw(2, 9, 8)


def test_cached_decoding():
    layer, x = layer_and_text(positions="none")
    memory = KeyValueMemory(9, 4, dtype=torch.float64)
    query, keys, values = (
        f(x).unflatten(-1, (2, 4)).transpose(1, 2).flatten(0, 1)  # a row for each head
        for f in (layer.query, layer.key, layer.value)
    )
    state, cache, steps, reads = memory.initial_state(4), layer.cache(2, 9), [], []
    with torch.no_grad():
        for t in range(9):
            steps.append(layer(x[:, t : t + 1], cache)[0])
            state = memory.write(keys[:, t : t + 1], values[:, t : t + 1], state)
            reads.append(memory.read(query[:, t : t + 1], state))
        together = torch.cat(reads, dim=1).unflatten(0, (2, 2)).transpose(1, 2).flatten(2)
        torch.testing.assert_close(torch.cat(steps, dim=1), layer.output(together))


def test_feed_forward():
    torch.manual_seed(0)
    layer = FeedForward(5, 7, activation="softmax", dtype=torch.float64)
    expected = attend(QUERY, layer.keys, layer.values, measure="dot")
    torch.testing.assert_close(layer(QUERY), expected)


def test_segment_memory():
    layer, x = layer_and_text()
    _, memory = layer(x[:, :6], layer.segment_memory(2, 6))
    torch.testing.assert_close(layer(x[:, 6:], memory)[0], layer(x)[0][:, 6:])


def test_ring():
    layer, x = layer_and_text(window=3)
    ring = layer.cache(2)
    with torch.no_grad():
        steps = torch.cat([layer(x[:, t : t + 1], ring)[0] for t in range(9)], dim=1)
        torch.testing.assert_close(steps, layer(x)[0])


FACTS = draw(2, 1, 7, 5, seed=1), draw(2, 1, 7, 4, seed=2)  # keys and values, one head


def told(state: Tensor, keys: Tensor = KEYS, values: Tensor = VALUES, decay: float = 1.0) -> Tensor:
    """The matrix after all pairs by the delta rule at rate 0.3, `write` by `write`."""
    for key, value in zip(keys.split(1, dim=1), values.split(1, dim=1), strict=True):
        state = decay * state
        state = write(state, key, add=0.3 * (value - read(key, state)))
    return state


def test_gradient_step():
    matrix, key, value = draw(5, 3).requires_grad_(), draw(1, 5, seed=1), draw(1, 3, seed=2)
    (read(key, matrix) - value).square().sum().backward()
    ruled = write(matrix, key, add=2 * 0.3 * (value - read(key, matrix)))
    torch.testing.assert_close(ruled, matrix - 0.3 * matrix.grad)


def test_learned_memory():
    torch.manual_seed(0)
    layer = NeuralMemory(5, hidden=0, value_width=4, rate=0.3, chunk=1, dtype=torch.float64)
    with torch.no_grad():
        layer.gates.weight.zero_()
        layer.gates.bias.copy_(torch.tensor([-FAR, FAR, FAR]))  # rate; no momentum, no forgetting
        _, state = layer(KEYS)
        keys, start = F.normalize(layer.key(KEYS), dim=-1), layer.second.expand(2, 5, 4)
        torch.testing.assert_close(state.second[:, 0], told(start, keys, layer.value(KEYS)))


def test_linear_attention():
    query, keys, values = draw(2, 5).exp(), draw(9, 5, seed=1).exp(), draw(9, 3, seed=2)
    matrix = write(torch.zeros(5, 4).double(), keys, F.pad(values, (0, 1), value=1.0))
    both = read(query, matrix)
    weights = query @ keys.mT
    expected = read(weights / weights.sum(-1, keepdim=True), values)
    torch.testing.assert_close(both[:, :-1] / both[:, -1:], expected)


def test_fast_weights_sum():
    reads, state = matrix_memory(FACTS[0], *FACTS)
    torch.testing.assert_close(state[:, 0], write(torch.zeros(2, 5, 4).double(), KEYS, VALUES))
    torch.testing.assert_close(reads[:, 0, -1:], read(KEYS[:, -1:], state[:, 0]))


def test_fast_weights_delta():
    start = draw(2, 5, 4, seed=3)
    _, state = matrix_memory(FACTS[0], *FACTS, start[:, None], erase=0.3, write=0.3)
    torch.testing.assert_close(state[:, 0], told(start))


def test_gated_delta():
    start = draw(2, 5, 4, seed=3)
    _, state = matrix_memory(FACTS[0], *FACTS, start[:, None], erase=0.3, write=0.3, decay=0.9)
    torch.testing.assert_close(state[:, 0], told(start, decay=0.9))


def test_fast_weights_erase_and_add():
    key, value, start = F.one_hot(torch.tensor([[4]]), 7).double(), draw(1, 1, 4), draw(1, 7, 4)
    one = (x[None] for x in (key, value, start))
    _, state = matrix_memory(key[None], *one, erase=0.6, write=0.3)
    erase = torch.full_like(value, 0.6)
    torch.testing.assert_close(state[0], write(start, key, 0.3 * value, erase))


def test_keep_the_newest():
    layer, x = layer_and_text(window=3)
    ring, cache = layer.cache(2), layer.cache(2, 9)
    with torch.no_grad():
        for t in range(9):
            expected = layer(x[:, t : t + 1], ring)[0]
            cache.keep(window(cache), 2)  # and the token that comes
            torch.testing.assert_close(layer(x[:, t : t + 1], cache)[0], expected)
    assert (cache.positions >= 0).sum(1).tolist() == [3, 3]


def test_keep_all():
    layer, x = layer_and_text()
    full, cache = layer.cache(2, 9), layer.cache(2, 9)
    with torch.no_grad():
        for part in x.split(4, dim=1):
            expected = layer(part, full)[0]
            cache.keep(draw(2, 9), 9)
            torch.testing.assert_close(layer(part, cache)[0], expected)


def test_neighbors_vote():
    query, keys, tokens = draw(1, 4), draw(9, 4, seed=1), torch.arange(9) % 3
    distances, nearest = (keys - query).square().sum(-1).topk(4, largest=False)
    votes = torch.zeros(3).double().index_add(0, tokens[nearest], (-distances).softmax(-1))
    one_hot = F.one_hot(tokens, 3).double()
    found = attend(query, keys, one_hot, measure="negative_squared_distance", top_k=4)
    torch.testing.assert_close(found[0], votes)


def a_store() -> Store:
    store = Store(5, 4, batch_size=2, measure="dot", dtype=torch.float64)
    store.add(KEYS, VALUES)
    return store


def test_store_of_all():
    expected = attend(QUERY, KEYS, VALUES, measure="dot")
    torch.testing.assert_close(a_store().read(QUERY, KEYS.shape[1]), expected)


def test_knn_lm():
    measure, tokens = "negative_squared_distance", torch.arange(14).view(2, 7) % 3
    store = Store(5, 1, batch_size=2, measure=measure, value_dtype=torch.long, dtype=torch.float64)
    store.add(KEYS, tokens.unsqueeze(-1))
    logits = draw(2, 3, 3, seed=3)
    near = attend(QUERY, KEYS, F.one_hot(tokens, 3).double(), measure=measure, top_k=4)
    expected = interpolate(near, logits.softmax(-1), gate=0.3)
    torch.testing.assert_close(knn_lm(logits, QUERY, store, k=4, mix=0.3).exp(), expected)


def test_copying_generator():
    answers = torch.arange(7) % 3  # what each of the seven passages says
    said = F.one_hot(answers, 3).double()  # p(y | x, z), a copy
    where = address(QUERY, KEYS, measure="dot")  # p(z | x)
    expected = torch.stack([where[..., answers == y].sum(-1) for y in range(3)], dim=-1)
    torch.testing.assert_close(read(where, said.expand(2, 7, 3)), expected)


def test_learned_read():
    torch.manual_seed(0)
    layer = nn.Linear(5, 5, bias=False, dtype=torch.float64)
    expected = address(QUERY, KEYS @ layer.weight, measure="dot")  # as if all keys had moved
    torch.testing.assert_close(address(layer(QUERY), KEYS, measure="dot"), expected)


def follow(way: int, **options: Any) -> tuple[DNCCell, Any, Any]:
    """A cell that writes nothing and only goes back (0) or forth (2); its states."""
    cell = DNCCell(3, 2, slots=7, width=5, dtype=torch.float64, **options)
    state = cell.initial_state(2)
    before = draw(2, 2, 7, seed=3).softmax(-1)
    links = draw(2, 1, 7, 7, seed=4).softmax(-1) * (1 - torch.eye(7))
    state = state._replace(memory=KEYS, weights=before, links=links)
    with torch.no_grad():
        cell.interface.weight.zero_()
        cell.interface.bias.zero_()
        cell.interface.bias[-4] = FAR  # the write gate
        cell.interface.bias[-3:] = FAR
        cell.interface.bias[way - 3] = 0.0
        return cell, state, cell(draw(2, 3), state)[1]


def test_dnc_follows_links():
    for way in (0, 2):
        _, state, after = follow(way)
        links = state.links[:, 0] if way == 0 else state.links[:, 0].mT
        torch.testing.assert_close(after.weights[:, :1], read(state.weights[:, :1], links))


def test_allocation_of_whole_slots():
    taken = torch.rand(50, 7, generator=torch.Generator().manual_seed(0)) < 0.7
    taken[0] = True  # and none is free
    first = F.one_hot((~taken).double().argmax(-1), 7) * (~taken).any(-1, keepdim=True)
    torch.testing.assert_close(allocation(taken.double()), first.double())


def test_sharpened_links():
    _, state, after = follow(2, sharpen_links=True)
    moved = read(state.weights[:, :1], state.links[:, 0].mT) + 1e-6
    power = 1 + F.softplus(torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(after.weights[:, :1], sharpen(moved, power))


def test_hashed_slot():
    tokens, table = torch.tensor([3, 1, 4, 1, 5]), draw(7, 4)
    slots = (9 * tokens[:-1] + tokens[1:]) % 7
    torch.testing.assert_close(read(F.one_hot(slots, 7).double(), table), table[slots])


def test_the_page_names_every_test_here_and_no_other():
    named = re.findall(r"`(test_\w+)`", (BOOK / "map.md").read_text(encoding="utf-8"))
    here = {name for name in globals() if name.startswith("test_") and "page" not in name}
    assert len(named) == len(set(named))
    assert set(named) == here
