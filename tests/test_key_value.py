"""The key-value memory against a plain Python list of pairs."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch.testing import assert_close

from memlib import KeyValueMemory, KeyValueState, attend, write

SLOTS, BATCH = 4, 2


class Lists(RuleBasedStateMachine):
    """Each row is a list of slots; a slot is None or (order, key). A value is twice its key."""

    when_full = "overwrite"

    @initialize()
    def start(self):
        self.memory = KeyValueMemory(SLOTS, 1, when_full=self.when_full)
        self.state = self.memory.initial_state(BATCH)
        self.rows = [[None] * SLOTS for _ in range(BATCH)]
        self.counter = 0.0

    def put(self, slots, key):
        newest = max((s[0] for s in slots if s), default=0)
        free = [i for i, s in enumerate(slots) if s is None]
        i = free[0] if free else min(range(SLOTS), key=lambda i: slots[i][0])
        slots[i] = (newest + 1, key)

    @rule(pairs=st.integers(0, 11), data=st.data())
    def write(self, pairs, data):
        counts = data.draw(st.lists(st.integers(0, pairs), min_size=BATCH, max_size=BATCH))
        keys = torch.arange(pairs * BATCH).view(BATCH, pairs, 1) + self.counter + 1
        self.counter += pairs * BATCH
        lengths = torch.tensor(counts)
        room = [slots.count(None) for slots in self.rows]
        if self.when_full == "refuse" and any(c > r for c, r in zip(counts, room, strict=True)):
            with pytest.raises(ValueError, match="pairs written must fit in the free slots"):
                self.memory.write(keys, 2 * keys, self.state, lengths=lengths)
            return
        before = [x.clone() for x in self.state]
        after = self.memory.write(keys, 2 * keys, self.state, lengths=lengths)
        assert all(torch.equal(x, y) for x, y in zip(before, self.state, strict=True))
        self.state = after
        for slots, row, count in zip(self.rows, keys[..., 0].tolist(), counts, strict=True):
            for key in row[:count]:
                self.put(slots, key)

    @precondition(lambda self: self.counter)
    @rule(where=st.lists(st.booleans(), min_size=SLOTS * BATCH, max_size=SLOTS * BATCH))
    def delete(self, where):
        self.state = self.memory.delete(torch.tensor(where).view(BATCH, SLOTS), self.state)
        for i, gone in enumerate(where):
            if gone:
                self.rows[i // SLOTS][i % SLOTS] = None

    @invariant()
    def same(self):
        if not hasattr(self, "rows"):
            return
        keys = [[s[1] if s else 0 for s in slots] for slots in self.rows]
        assert self.state.keys[..., 0].tolist() == keys
        assert torch.equal(self.state.values, 2 * self.state.keys)
        assert self.state.lengths.tolist() == [SLOTS - slots.count(None) for slots in self.rows]
        for row, slots in zip(self.state.written.tolist(), self.rows, strict=True):
            assert [w > 0 for w in row] == [s is not None for s in slots]
            age = sorted((s[0], i) for i, s in enumerate(slots) if s)
            assert [i for _, i in age] == [
                i for _, i in sorted((w, i) for i, w in enumerate(row) if w)
            ]


class RefusingLists(Lists):
    when_full = "refuse"


few = settings(max_examples=25, stateful_step_count=8)
Lists.TestCase.settings = RefusingLists.TestCase.settings = few
TestLists = pytest.mark.slow(Lists.TestCase)
TestRefusingLists = pytest.mark.slow(RefusingLists.TestCase)


@settings(max_examples=30)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 4))
def test_one_at_a_time_equals_all_at_once(first, second, filled):
    memory = KeyValueMemory(SLOTS, 2, 1)
    torch.manual_seed(first + 10 * second)
    keys, values = torch.randn(2, 9, 2), torch.randn(2, 9, 1)
    start = memory.write(keys[:, :filled], values[:, :filled], memory.initial_state(2))
    lengths = torch.tensor([first, second])
    at_once = memory.write(keys, values, start, lengths=lengths)
    state = start
    for t in range(9):
        state = memory.write(
            keys[:, t : t + 1], values[:, t : t + 1], state, lengths=(t < lengths).long()
        )
    assert_close(tuple(at_once), tuple(state))


def test_write_is_the_verb_with_one_hot_weights_and_erase_1():
    torch.manual_seed(0)
    memory = KeyValueMemory(3, 2)
    keys, values = torch.randn(1, 5, 2), torch.randn(1, 5, 2)
    state = memory.write(keys, values, memory.initial_state())
    by_verb, one = [torch.zeros(3, 2), torch.zeros(3, 2)], torch.ones(1, 2)
    for t in range(5):
        place = torch.eye(3)[t % 3].unsqueeze(0)
        pair = (keys[0, t : t + 1], values[0, t : t + 1])
        by_verb = [write(m, place, x, one) for m, x in zip(by_verb, pair, strict=True)]
    assert_close(state.keys[0], by_verb[0])
    assert_close(state.values[0], by_verb[1])


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"strength": torch.rand(2, 3)}])
def test_read_is_attend_over_the_filled_slots(options):
    torch.manual_seed(0)
    memory = KeyValueMemory(6, 4, 2, measure="negative_squared_distance")
    keys, values, query = torch.randn(2, 5, 4), torch.randn(2, 5, 2), torch.randn(2, 3, 4)
    lengths = torch.tensor([3, 5])
    state = memory.write(keys, values, memory.initial_state(2), lengths=lengths)
    value, weights = memory.read(query, state, **options, need_weights=True)
    assert_close(memory.read(query, state, **options), value)
    for b, n in enumerate(lengths.tolist()):
        row = {k: v[b] if isinstance(v, torch.Tensor) else v for k, v in options.items()}
        alone = attend(query[b], keys[b, :n], values[b, :n], measure=memory.measure, **row)
        assert_close(value[b], alone)
        assert not weights[b, :, n:].any()


def test_an_empty_memory_reads_zeros_and_learns_nothing():
    memory = KeyValueMemory(3, 2)
    query = torch.randn(1, 1, 2, requires_grad=True)
    value = memory.read(query, memory.initial_state())
    value.sum().backward()
    assert not value.any()
    assert not query.grad.any()


def test_padding_is_not_written_and_gets_no_gradient():
    memory = KeyValueMemory(3, 2)
    keys = torch.tensor([[[1.0, 2.0], [float("nan")] * 2]], requires_grad=True)
    state = memory.write(keys, keys, memory.initial_state(), lengths=torch.tensor([1]))
    memory.read(torch.ones(1, 1, 2), state).sum().backward()
    assert state.lengths.tolist() == [1]
    assert keys.grad[0, 1].tolist() == [0, 0]


def test_gradients_reach_query_keys_and_values():
    memory = KeyValueMemory(3, 2, dtype=torch.float64)
    torch.manual_seed(0)
    tensors = [torch.randn(1, n, 2, dtype=torch.float64, requires_grad=True) for n in (1, 5, 5)]

    def function(query, keys, values):
        state = memory.write(keys, values, memory.initial_state())
        return memory.read(query, memory.delete(torch.tensor([[True, False, False]]), state))

    assert torch.autograd.gradcheck(function, tensors)


def test_a_batch_of_0_and_a_write_of_nothing():
    memory = KeyValueMemory(3, 2)
    none = memory.initial_state(0)
    assert memory.read(torch.ones(0, 1, 2), none).shape == (0, 1, 2)
    one = torch.ones(1, 1, 2)
    state = memory.write(one, one, memory.initial_state())
    assert_close(tuple(memory.write(one[:, :0], one[:, :0], state)), tuple(state))


def test_state_follows_the_module():
    memory = KeyValueMemory(3, 2).double()
    assert memory.initial_state().keys.dtype == torch.float64
    assert KeyValueMemory(3, 2, device="meta").initial_state().written.is_meta
    assert not memory.state_dict()
    assert "slots=3, width=2, value_width=2" in repr(memory)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_refuse_keeps_what_a_full_row_has_where_values_are_not_looked_at():
    memory = KeyValueMemory(2, 1, when_full="refuse")
    old, new = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0]]])
    state = memory.write(old, old, memory.initial_state())
    kept = torch.vmap(lambda *s: memory.write(new, new, type(state)(*s)).keys)(
        *(x.unsqueeze(0) for x in state)
    )
    assert torch.equal(kept[0], old)


def test_a_state_goes_into_safetensors_and_back(tmp_path):
    library = pytest.importorskip("safetensors.torch")
    memory, pairs = KeyValueMemory(3, 2, 4), (torch.randn(2, 5, 2), torch.randn(2, 5, 4))
    empty = memory.initial_state(2)
    query = torch.randn(2, 1, 2)
    for state in (empty, memory.write(*pairs, empty), memory.initial_state(0)):
        library.save_file(state._asdict(), tmp_path / "state")
        again = KeyValueState(**library.load_file(tmp_path / "state"))
        assert all(map(torch.equal, again, state))
        rows = len(state.keys)
        expected = memory.read(query[:rows], state)
        torch.testing.assert_close(memory.read(query[:rows], again), expected)
        again = KeyValueState(*(part.clone() for part in again))  # a file's lie at any address
        assert torch.equal(memory.read(query[:rows], again), expected)
    with pytest.raises(ValueError, match=r"state\.keys must have shape \(B, N, M\) .* M = 3"):
        KeyValueMemory(3, 3, 4).read(torch.randn(2, 1, 3), again)
    with pytest.raises(ValueError, match=r"state\.values must have shape \(B, N, V\) .* V = 5"):
        KeyValueMemory(3, 2, 5).read(query, empty)
