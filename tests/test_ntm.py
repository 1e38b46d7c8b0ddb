"""The Neural Turing Machine against the paper's loops, and what it promises beyond them."""

import copy
import os
import shutil
from collections import Counter

import pytest
import reference
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from memlib import NTM, NTMCell, NTMState, attend, read, write

DOUBLE = {"dtype": torch.float64}
KINDS = ["lstm", "gru", "feed-forward"]
HEADS = [(1, 1), (2, 1), (1, 2), (3, 2)]
SHIFTS = [1, 3, 5]
MEMORIES = ["constant", "learned", "random"]
INPUT, OUTPUT, SLOTS, WIDTH, HIDDEN = 3, 2, 6, 4, 5


def controller_of(kind, size, **where):
    if kind == "lstm":
        return nn.LSTMCell(size, HIDDEN, **where)
    if kind == "gru":
        return nn.GRUCell(size, HIDDEN, **where)
    if kind == "rnn":
        return nn.RNNCell(size, HIDDEN, **where)
    return nn.Sequential(nn.Linear(size, HIDDEN, **where), nn.Tanh())


def make(kind="lstm", heads=(1, 1), *, of=NTMCell, seed=0, slots=SLOTS, dtype=torch.float64, **kw):
    """A small machine with lively parameters, so that no gate is left at its start."""
    torch.manual_seed(seed)
    where = {"dtype": dtype, "device": kw.pop("device", "cpu")}
    controller = controller_of(kind, INPUT + heads[0] * WIDTH, **where)
    options = {"read_heads": heads[0], "write_heads": heads[1], "controller": controller}
    machine = of(INPUT, OUTPUT, slots, WIDTH, **options, **kw, **where)
    for parameter in machine.parameters():
        if not parameter.is_meta:
            nn.init.normal_(parameter, std=0.5)
    return machine


def draw(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_state(cell, batch, seed=2):
    """A state in the middle of a sequence: no part of it is special."""
    start = cell.initial_state(batch)
    parts = [draw(*s.shape, seed=seed + i).to(s.dtype) for i, s in enumerate(start)]
    return NTMState(*parts)._replace(weights=parts[2].softmax(-1))


def close(state, expected, **tolerance):
    assert isinstance(state, NTMState)
    assert_close(tuple(state), tuple(expected), **tolerance)


def slice_state(state, rows):
    return NTMState(*(part[rows] for part in state))


def run(machine, x, state=None):
    """Step by step, which is what the sequence module must equal."""
    logits = []
    for step in x.unbind(1):
        y, state = machine(step, state)
        logits.append(y)
    return torch.stack(logits, 1), state


# The equations


@pytest.mark.parametrize(
    ("kind", "heads", "shifts", "memory"),
    [
        (kind, heads, SHIFTS[(i + j) % 3], MEMORIES[(i + 2 * j + j // 3) % 3])
        for i, kind in enumerate(KINDS)
        for j, heads in enumerate(HEADS)
    ],
    ids=str,
)
def test_50_steps_and_every_gradient_are_those_of_the_loops(kind, heads, shifts, memory):
    ntm = make(kind, heads, of=NTM, slots=5, shifts=shifts, initial_memory=memory)
    rows = 2 if heads == (1, 1) else 1  # the loops take their time
    x = draw(rows, 50, INPUT).requires_grad_()
    parameters = dict(ntm.cell.named_parameters())
    # between the machine's own start and one amid a sequence, to reach the gradients of both
    amid = NTMState(*(part.requires_grad_() for part in some_state(ntm.cell, rows)))
    first = ntm.initial_state(rows)
    start = NTMState(*((a + b) / 2 for a, b in zip(first, amid, strict=True)))
    logits, after = ntm(x, start)
    sizes = {"reads": heads[0], "writes": heads[1], "shifts": shifts}
    expected, loops = reference.ntm(kind, parameters, x, start, **sizes)
    exact = {"rtol": 1e-10, "atol": 1e-10}
    assert_close(logits, expected, **exact)
    close(after, loops, **exact)

    wanted = {"x": x, **amid._asdict(), **parameters}
    wanted = {n: t for n, t in wanted.items() if t.numel()}

    def gradients(*results):
        total = sum((result * draw(*result.shape)).sum() for result in results)
        return torch.autograd.grad(total, list(wanted.values()), retain_graph=True)

    got, looped = gradients(logits, *after), gradients(expected, *loops)
    for name, ours, theirs in zip(wanted, got, looped, strict=True):
        scale = float(theirs.abs().max())
        assert scale > 0, name
        assert_close(ours, theirs, rtol=1e-10, atol=1e-10 * max(scale, 1), msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind):
    cell = make(kind, (2, 1), slots=4)
    state, x = some_state(cell, 2), draw(2, INPUT).requires_grad_()
    parts = [part.detach().requires_grad_() for part in state]
    parameters = dict(cell.named_parameters())

    def function(x, *rest):
        with torch.nn.utils.stateless._reparametrize_module(
            cell, dict(zip(parameters, rest[5:], strict=True))
        ):
            y, after = cell(x, NTMState(*rest[:5]))
            started, _ = cell(x)  # reaches the learned start
        return y, started, *after

    assert torch.autograd.gradcheck(function, (x, *parts, *parameters.values()), fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_is_its_steps(kind):
    ntm = make(kind, (2, 1), of=NTM)
    x = draw(2, 7, INPUT)
    logits, state, weights = ntm(x, need_weights=True)
    expected, after = run(ntm.cell, x)
    assert_close(logits, expected)
    close(state, after)
    assert weights.shape == (2, 7, 3, SLOTS)
    assert_close(weights[:, -1], state.weights)
    assert_close(weights.sum(-1), torch.ones(2, 7, 3, **DOUBLE))
    assert_close(weights[:, 0], ntm.cell(x[:, 0])[1].weights)
    close(ntm(x, ntm.initial_state(2))[1], state)


@pytest.mark.parametrize("every", [1, 3, 9])
def test_checkpoints_change_no_result_and_no_gradient(every):
    ntm, x, results = make(of=NTM, heads=(2, 1)), draw(2, 7, INPUT), []
    for chunk in (None, every):
        ntm.zero_grad()
        logits, state, weights = ntm(
            x, lengths=torch.tensor([7, 4]), need_weights=True, checkpoint_every=chunk
        )
        (logits.sum() + weights.square().sum() + state.memory.square().sum()).backward()
        gradients = [p.grad.clone() for p in ntm.parameters()]
        results.append([logits, *state, weights, *gradients])
    assert all(map(torch.equal, *results))


def test_an_rnn_is_a_controller_too():
    cell = make("rnn")
    x = draw(2, INPUT)
    start = some_state(cell, 2)
    _, state = cell(x, start)
    together = torch.cat((x, start.reads.flatten(1)), -1)
    assert_close(state.hidden, cell.controller(together, start.hidden))
    assert state.cell.shape == (2, 0)


def test_the_start():
    for memory in MEMORIES:
        ntm = make(of=NTM, heads=(2, 1), initial_memory=memory)
        state = ntm.initial_state(3)
        assert isinstance(state, NTMState)
        sizes = [(3, SLOTS, WIDTH), (3, 2, WIDTH), (3, 3, SLOTS), (3, HIDDEN), (3, HIDDEN)]
        assert [tuple(part.shape) for part in state] == sizes
        assert state.weights[..., 0].eq(1).all()
        assert not state.weights[..., 1:].any()
        for part in state:
            assert torch.equal(part, part[:1].expand_as(part))
        learned = {"reads", "hidden", "cell"} | ({"memory"} if memory == "learned" else set())
        assert {n for n, p in state._asdict().items() if p.requires_grad} == learned
    assert state._asdict()["hidden"].shape == (3, HIDDEN)
    assert make("gru").initial_state(2).cell.shape == (2, 0)
    start = make("feed-forward").initial_state(2)
    assert (start.hidden.shape, start.cell.shape) == ((2, 0), (2, 0))


def test_the_defaults_are_the_papers_copy_machine():
    ntm = NTM(9, 8)
    state = ntm.initial_state()
    assert state.memory.shape == (1, 128, 20)
    assert state.weights.shape == (1, 2, 128)
    assert isinstance(ntm.cell.controller, nn.LSTMCell)
    assert (ntm.cell.controller.input_size, ntm.cell.controller.hidden_size) == (29, 100)
    assert state.memory.unique().numel() == 1
    assert state.memory.any()  # the cosine with a memory of zeros would teach nothing
    assert "slots=128" in repr(ntm)


# Batches and sequences


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_rows(kind):
    ntm = make(kind, (2, 2), of=NTM, shifts=5)
    x = draw(4, 6, INPUT)
    state = some_state(ntm.cell, 4)
    logits, after = ntm(x, state)
    for b in range(4):
        row = slice(b, b + 1)
        alone, end = ntm(x[row], slice_state(state, row))
        assert_close(alone, logits[row])
        close(end, slice_state(after, row))


@pytest.mark.parametrize("padding", [0.0, 1e30, float("nan"), float("inf")])
def test_lengths_give_what_each_sequence_gives_alone(padding):
    ntm = make(of=NTM, heads=(1, 2))
    lengths = torch.tensor([4, 0, 7, 1])
    x, state = draw(4, 7, INPUT), some_state(ntm.cell, 4)
    late = torch.arange(7) >= lengths[:, None]
    padded = x.masked_fill(late[..., None], padding).requires_grad_()
    start = NTMState(*(part.clone().requires_grad_() for part in state))
    logits, after, weights = ntm(padded, start, lengths=lengths, need_weights=True)
    assert not logits[late].any()
    (logits.square().sum() + sum(part.square().sum() for part in after)).backward()
    together = {n: p.grad.clone() for n, p in ntm.named_parameters() if p.grad is not None}
    assert not padded.grad[late].any()

    ntm.zero_grad()
    for b, length in enumerate(lengths.tolist()):
        row = slice(b, b + 1)
        alone = x[row, :length].clone().requires_grad_()
        begin = NTMState(*(part[row].clone().requires_grad_() for part in state))
        y, end, where = ntm(alone, begin, need_weights=True)
        assert_close(logits[row, :length], y)
        assert_close(weights[row, :length], where)
        close(slice_state(after, row), end)
        (y.square().sum() + sum(part.square().sum() for part in end)).backward()
        if length:
            assert_close(padded.grad[row, :length], alone.grad)
        for ours, theirs in zip(start, begin, strict=True):
            assert_close(ours.grad[row], theirs.grad)
    for name, parameter in ntm.named_parameters():
        if parameter.grad is not None:
            assert_close(together[name], parameter.grad, msg=name)


def test_full_lengths_change_nothing():
    ntm = make(of=NTM)
    x = draw(2, 5, INPUT)
    logits, state = ntm(x, lengths=torch.tensor([5, 5]))
    expected, after = ntm(x)
    assert_close(logits, expected)
    close(state, after)


@pytest.mark.parametrize("cut", [0, 1, 4, 8])
def test_a_sequence_can_be_cut_anywhere(cut):
    ntm = make(of=NTM)
    x = draw(2, 8, INPUT)
    whole, end = ntm(x)
    first, middle = ntm(x[:, :cut])
    second, after = ntm(x[:, cut:], middle)
    assert_close(torch.cat((first, second), 1), whole)
    close(after, end)


def test_rows_may_be_cut_at_their_own_lengths():
    ntm = make(of=NTM)
    x, lengths = draw(2, 6, INPUT), torch.tensor([2, 5])
    _, middle = ntm(x, lengths=lengths)
    rest = torch.stack((x[0, 2:6], torch.cat((x[1, 5:6], x[1, :3]))))
    _, after = ntm(rest, middle, lengths=torch.tensor([4, 1]))
    close(after, ntm(x)[1])


def test_detaching_truncates_backpropagation():
    ntm = make(of=NTM)
    x = draw(1, 6, INPUT).requires_grad_()
    _, state = ntm(x[:, :3])
    cut = state.detach()
    assert isinstance(cut, NTMState)
    assert not any(part.requires_grad for part in cut)
    close(cut, [part.detach() for part in state])
    ntm(x[:, 3:], cut)[0].sum().backward()
    assert not x.grad[:, :3].any()
    assert x.grad[:, 3:].any()


def test_a_state_on_disk_continues_exactly(tmp_path):
    ntm = make("lstm", (2, 1), of=NTM, dtype=torch.float32)
    x = draw(2, 8, INPUT, dtype=torch.float32)
    _, end = ntm(x)
    _, middle = ntm(x[:, :5])
    for name, state in (("middle", middle), ("start", ntm.initial_state(2))):
        save_file(state.detach()._asdict(), tmp_path / name)
        assert all(map(torch.equal, NTMState(**load_file(tmp_path / name)), state))
    expected, _ = ntm(x[:, 5:], middle)
    saved = load_file(tmp_path / "middle")
    logits, after = ntm(x[:, 5:], NTMState(**saved))
    assert_close(logits, expected)  # views into a file lie at any address: another order of sums
    close(after, end)
    logits, after = ntm(x[:, 5:], NTMState(**{n: part.clone() for n, part in saved.items()}))
    assert torch.equal(logits, expected)
    assert all(map(torch.equal, after, end))
    for kind in ("gru", "feed-forward"):  # a state with empty parts
        state = make(kind).initial_state(2).detach()
        save_file(state._asdict(), tmp_path / kind)
        assert all(map(torch.equal, NTMState(**load_file(tmp_path / kind)), state))


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_never_changed(kind):
    ntm = make(kind, (2, 2), of=NTM)
    state = some_state(ntm.cell, 2)
    before = [part.clone() for part in state]
    x = draw(2, 4, INPUT)
    ntm.cell(x[:, 0], state)
    ntm(x, state, lengths=torch.tensor([3, 0]))
    assert all(map(torch.equal, state, before)), "a state passed in was changed"
    start = [part.detach().clone() for part in ntm.initial_state(2)]
    for part in ntm.initial_state(2):
        part.detach().add_(1)
    assert all(map(torch.equal, ntm.initial_state(2), start)), "the module's start was changed"


# Gates at their extremes: the biases of the interface say what every head does


FAR = 1000.0  # softplus and sigmoid are exactly 0 or 1 there, softmax exactly one-hot


def told(heads=(1, 1), *, shifts=3, dtype=torch.float64, **orders):
    """A machine whose heads do the same at every step, whatever comes in.

    Orders are `head_gate=value`, head a number or `all`: values before they are squashed.
    """
    cell = make(heads=heads, shifts=shifts, dtype=dtype)
    with torch.no_grad():
        cell.interface.weight.zero_()
        cell.interface.bias.zero_()
        for place in places(cell):
            for name, value in orders.items():
                if name in place:
                    cell.interface.bias[place[name]] = torch.as_tensor(value, dtype=dtype)
    return cell


def places(cell):
    """For each head, where in the interface's output each of its orders lies."""
    outputs = torch.arange(cell.interface.out_features)
    sizes = (cell.read_heads, cell.write_heads, WIDTH, cell.shifts)
    return reference.ntm_split(outputs, *sizes)


def one_hot(place, size=3):
    return [FAR if i == place else -FAR for i in range(size)]


STILL = {"shift": one_hot(1), "sharpening": -FAR}
NO_WRITE = {"erase": -FAR, "add": 0.0}


def test_content_alone_is_attend_by_cosine():
    key = [0.3, -0.2, 0.9, 0.1]
    cell = told((2, 1), gate=FAR, key=key, strength=4.0, **STILL, **NO_WRITE)
    start = some_state(cell, 2)
    _, state = cell(draw(2, INPUT), start)
    assert torch.equal(state.memory, start.memory)
    query = torch.tensor(key, **DOUBLE).tanh().expand(2, 3, WIDTH)
    strength = nn.functional.softplus(torch.tensor(4.0, **DOUBLE)).expand(2, 3)
    value, weights = attend(
        query, start.memory, start.memory, measure="cosine", strength=strength, need_weights=True
    )
    assert_close(state.weights, weights)
    assert_close(state.reads, value[:, :2])


@pytest.mark.parametrize("move", [-1, 0, 1])
def test_location_alone_is_a_moving_head(move):
    cell = told(gate=-FAR, shift=one_hot(1 + move), sharpening=-FAR, **NO_WRITE)
    x = draw(2, INPUT)
    state = start = cell.initial_state(2)._replace(memory=draw(2, SLOTS, WIDTH))
    for t in range(1, 2 * SLOTS):
        _, state = cell(x, state)
        assert torch.equal(state.weights, start.weights.roll(t * move, -1))
        assert torch.equal(state.reads[:, 0], start.memory[:, t * move % SLOTS])


def test_erase_1_overwrites_where_the_head_is_and_the_read_sees_it():
    add = torch.tensor([0.5, -0.5, 2.0, 0.0], **DOUBLE)
    cell = told(gate=-FAR, shift=one_hot(2), sharpening=-FAR, erase=FAR, add=add.tolist())
    start = cell.initial_state(2)._replace(memory=draw(2, SLOTS, WIDTH))
    _, state = cell(draw(2, INPUT), start)
    expected = start.memory.clone()
    expected[:, 1] = add.tanh()
    assert_close(state.memory, expected)
    assert_close(state.reads[:, 0], expected[:, 1])  # the write comes before the read
    _, state = cell(draw(2, INPUT), state)
    expected[:, 2] = add.tanh()
    assert_close(state.memory, expected)


def test_a_step_is_the_verbs():
    """All heads address the memory from before the write; the reads are of the memory after."""
    cell = make(heads=(2, 2))
    start = some_state(cell, 3)
    x = draw(3, INPUT)
    _, state = cell(x, start)
    together = torch.cat((x, start.reads.flatten(1)), -1)
    hidden, memory_cell = cell.controller(together, (start.hidden, start.cell))
    raw = cell.interface(hidden)
    rows = places(cell)[2:]
    erase, add = (torch.stack([raw[:, p[n]] for p in rows], 1) for n in ("erase", "add"))
    after = write(start.memory, state.weights[:, 2:], add.tanh(), erase.sigmoid())
    assert_close(state.memory, after)
    assert_close(state.reads, read(state.weights[:, :2], after))
    assert_close((state.hidden, state.cell), (hidden, memory_cell))


def test_sharpening_at_its_bound_leaves_one_slot():
    cell = told(gate=0.0, key=0.5, strength=0.3, shift=[0.0, 1.0, 0.5], sharpening=1e4)
    _, state = cell(draw(2, INPUT), some_state(cell, 2))
    assert_close(state.weights.amax(-1), torch.ones(2, 2, **DOUBLE))


# Stability


def finite(machine, x):
    machine.zero_grad()
    x = x.clone().requires_grad_()
    logits, state = machine(x)
    assert logits.isfinite().all()
    assert all(part.isfinite().all() for part in state)
    nn.functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()
    for name, parameter in [("x", None), *machine.named_parameters()]:
        grad = x.grad if name == "x" else parameter.grad
        assert grad is None or grad.isfinite().all(), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", MEMORIES)
def test_inputs_a_thousand_times_too_large(kind, memory):
    ntm = make(kind, of=NTM, initial_memory=memory, dtype=torch.float32)
    finite(ntm, 1000 * draw(2, 20, INPUT, dtype=torch.float32))


@pytest.mark.parametrize("strength", [-1e4, 1e4])
@pytest.mark.parametrize("sharpening", [-1e4, 1e4])
@pytest.mark.parametrize("gate", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("move", [[0.0] * 3, [-1e4, -1e4, 1e4]], ids=["blur", "hard"])
def test_gates_at_their_bounds(strength, sharpening, gate, move):
    for memory in ("constant", "random"):
        ntm = make(of=NTM, dtype=torch.float32, initial_memory=memory)
        with torch.no_grad():
            for place in places(ntm.cell):
                ntm.cell.interface.bias[place["strength"]] = strength
                ntm.cell.interface.bias[place["sharpening"]] = sharpening
                ntm.cell.interface.bias[place["gate"]] = gate
                ntm.cell.interface.bias[place["shift"]] = torch.tensor(move)
        # Content alone cannot tell slots of equal content apart: there a difference grows by
        # strength * sharpening / 4 a step, so that float32 holds the gradient of few steps only.
        steps = 5 if memory == "constant" and strength == gate == 1e4 else 20
        finite(ntm, draw(2, steps, INPUT, dtype=torch.float32))


@pytest.mark.parametrize("fill", [0.0, 1e-30, 1e15])
def test_a_memory_of_zeros_or_of_extremes(fill):
    ntm = make(of=NTM, dtype=torch.float32)
    start = ntm.initial_state(1)
    start = start._replace(memory=torch.full_like(start.memory, fill).requires_grad_())
    logits, state = ntm(draw(1, 5, INPUT, dtype=torch.float32), start)
    assert all(part.isfinite().all() for part in (logits, *state))
    state.reads.sum().backward()
    assert start.memory.grad.isfinite().all()


@pytest.mark.slow
@torch.no_grad()
def test_10_000_steps():
    ntm = make(of=NTM, dtype=torch.float32)
    x = draw(1, 1000, INPUT, dtype=torch.float32)
    state = None
    for _ in range(10):
        logits, state = ntm(x, state)
        assert all(part.isfinite().all() for part in (logits, *state))
    assert_close(state.weights.sum(-1), torch.ones(1, 2))


# What a module must bear


def compiled_equals_eager(backend, heads):
    torch._dynamo.reset()
    cell = make(heads=heads, dtype=torch.float32)
    compiled = torch.compile(cell, fullgraph=True, backend=backend)
    x, results = draw(3, INPUT, dtype=torch.float32), []
    for module in (cell, compiled):
        cell.zero_grad()
        start = NTMState(*(part.detach().requires_grad_() for part in some_state(cell, 3)))
        y, state = module(x, start)
        assert isinstance(state, NTMState)
        (y.sum() + sum(part.square().sum() for part in state)).backward()
        grads = [part.grad for part in start] + [p.grad for p in cell.parameters()]
        results.append([y, *state, *(g for g in grads if g is not None)])
    assert len(results[0]) > 12
    assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.needs_torch("2.13")
def test_compiles_to_one_graph():
    compiled_equals_eager("aot_eager", (2, 2))


COMPILERS = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]


@pytest.mark.needs_torch("2.13")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C++ compiler here")
def test_compiles_with_inductor():
    compiled_equals_eager("inductor", (1, 1))


@pytest.mark.needs_torch("2.13")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # dynamo looks at all
def test_a_compiled_step_serves_every_length_and_every_copy():
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    ntm = NTM(INPUT, OUTPUT, SLOTS, WIDTH)
    compiled = copy.deepcopy(ntm)
    compiled.compile(fullgraph=True, backend=backend)
    for steps in (3, 7, 4):
        x = torch.randn(2, steps, INPUT)
        assert_close(compiled(x)[0], ntm(x)[0])
    assert len(graphs) <= 2  # a first step, whose state has other strides, and all others
    other = copy.deepcopy(compiled)
    with torch.no_grad():
        other.cell.output.bias += 1
        other.cell.interface.bias += 1
    other.load_state_dict(ntm.state_dict())
    with torch.no_grad():
        compiled.cell.interface.bias += 1
    assert_close(other(x)[0], ntm(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_runs_on_meta(kind):
    ntm = make(kind, of=NTM, device="meta", initial_memory="learned")
    assert all(p.is_meta for p in (*ntm.parameters(), *ntm.buffers()))
    lengths = torch.ones(2, dtype=torch.long, device="meta")
    results = ntm(torch.ones(2, 4, INPUT, device="meta", **DOUBLE), lengths=lengths)
    assert results[0].shape == (2, 4, OUTPUT)
    assert all(part.is_meta for part in (results[0], *results[1]))


def test_moves_with_to():
    ntm = make(of=NTM, dtype=torch.float32, initial_memory="random").to(torch.float64)
    logits, state = ntm(draw(1, 2, INPUT))
    assert {part.dtype for part in (logits, *state)} == {torch.float64}
    assert all(part.is_meta for part in ntm.to("meta").initial_state())


@pytest.mark.parametrize("kind", KINDS)
def test_autocast(kind):
    ntm = make(kind, of=NTM, dtype=torch.float32)
    x = draw(2, 6, INPUT, dtype=torch.float32)
    expected, _ = ntm(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = ntm(x)
        logits, state = ntm(x, ntm.initial_state(2))
        ntm(x, state)  # what came out goes in again
    assert_close(logits.float(), expected, rtol=0.1, atol=0.1)
    logits.float().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in ntm.parameters())


@pytest.mark.parametrize("memory", MEMORIES)
def test_copies_and_state_dicts_give_the_same(memory):
    ntm, other = (make(of=NTM, seed=seed, initial_memory=memory) for seed in (0, 1))
    x = draw(2, 3, INPUT)
    expected, state = ntm(x)
    assert not torch.equal(other(x)[0], expected)
    other.load_state_dict(ntm.state_dict())
    for twin in (other, copy.deepcopy(ntm)):
        logits, after = twin(x)
        assert torch.equal(logits, expected)
        assert all(map(torch.equal, after, state))


def test_reset_parameters_draws_anew():
    cell = make(initial_memory="random")
    before = copy.deepcopy(cell.state_dict())
    torch.manual_seed(5)
    cell.reset_parameters()
    after = copy.deepcopy(cell.state_dict())
    assert not any(torch.equal(before[n], after[n]) for n in before if n.endswith("weight"))
    torch.manual_seed(5)
    cell.reset_parameters()
    assert all(torch.equal(after[n], p) for n, p in cell.state_dict().items())


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("shifts", [3, 5])
def test_walking_write_heads_use_a_slot_a_step_before_any_training(heads, shifts):
    torch.manual_seed(0)
    ntm = NTM(3, 2, 20, 4, read_heads=heads[0], write_heads=heads[1], shifts=shifts, walk=8.0)
    x = draw(2, 6, 3, dtype=torch.float32)
    for reset in (False, True):
        if reset:
            ntm.reset_parameters()
        with torch.no_grad():
            # the gate follows the place of the step before; where it looks is not the matter here
            gates = ntm.cell.interface.bias[: ntm.cell._split[0]].unflatten(0, (sum(heads), -1))
            gates[:, 4 + shifts] = -20
            _, _, weights = ntm(x, need_weights=True)
        places = weights.argmax(-1)  # (B, T, H)
        walked = torch.arange(1, 7).view(1, 6, 1).expand(2, 6, heads[1])
        assert torch.equal(places[..., heads[0] :], walked)


def test_walk_is_a_bias_alone():
    machines = []
    for walk in (0.0, 3.0):
        torch.manual_seed(0)
        machines.append(NTM(3, 2, walk=walk).state_dict())
    still, walking = machines
    changed = {n: walking[n] - still[n] for n in still if not torch.equal(still[n], walking[n])}
    assert list(changed) == ["cell.interface.bias"]
    assert changed["cell.interface.bias"].nonzero().tolist() == [[26 + 20 + 2]]  # one on
    assert_close(changed["cell.interface.bias"].sum(), torch.tensor(3.0))


@pytest.mark.parametrize(("walk", "error"), [("4", TypeError), (float("nan"), ValueError)])
def test_a_walk_is_a_number(walk, error):
    with pytest.raises(error, match="walk must be"):
        NTM(3, 2, walk=walk)


def test_heads_that_never_move_cannot_walk():
    with pytest.raises(ValueError, match=r"walk must be 0 with shifts = 1.*got 4"):
        NTM(3, 2, shifts=1, walk=4.0)


def test_a_seed_gives_one_machine():
    for memory in MEMORIES:
        first, second = ({}, {})
        for into in (first, second):
            torch.manual_seed(3)
            into |= NTM(3, 2, 6, 4, initial_memory=memory).state_dict()
        assert first.keys() == second.keys()
        assert all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_at_all(kind):
    ntm = make(kind, of=NTM)
    none, state = ntm(draw(0, 4, INPUT))
    assert none.shape == (0, 4, OUTPUT)
    assert [part.shape[0] for part in state] == [0] * 5
    logits, state, weights = ntm(draw(2, 0, INPUT), need_weights=True)
    assert (logits.shape, weights.shape) == ((2, 0, OUTPUT), (2, 0, 2, SLOTS))
    close(state, ntm.initial_state(2))
    empty = torch.zeros(2, dtype=torch.long)
    logits, state = ntm(draw(2, 3, INPUT), lengths=empty)
    assert not logits.any()
    close(state, ntm.initial_state(2))


def test_strides_do_not_matter():
    ntm = make(of=NTM)
    x = draw(2, 4, INPUT)
    expected, after = ntm(x)
    turned = x.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not turned.is_contiguous()
    logits, state = ntm(turned, NTMState(*(p.mT.contiguous().mT if p.ndim > 2 else p
                                           for p in ntm.initial_state(2))))  # fmt: skip
    assert_close(logits, expected)
    close(state, after)


# The cost of a step

# These return another look at the same numbers; no kernel runs, nothing is copied.
VIEWS = {
    "alias", "detach", "expand", "permute", "select", "slice", "split", "split_with_sizes",
    "squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view",
}  # fmt: skip
LOOKS = {"_local_scalar_dense"}  # one number is looked at: no kernel runs either
BUDGET = 55


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.ops = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.ops[func] += 1
        return func(*args, **(kwargs or {}))


def step_of(batch, heads, controller=None, slots=128):
    cell = NTMCell(9, 8, slots, read_heads=heads[0], write_heads=heads[1], controller=controller)
    x = torch.ones(batch, 9)
    with torch.no_grad():
        _, state = cell(x)
        with Counting() as counting:
            cell(x, state)
    return Counter(
        {f: n for f, n in counting.ops.items() if f._overloadpacket.__name__ not in VIEWS | LOOKS}
    )


@pytest.mark.parametrize("batch", [1, 16, 64])
@pytest.mark.parametrize("heads", [(1, 1), (4, 2), (8, 8)])
def test_a_step_costs_at_most_55_operations(batch, heads):
    ops = step_of(batch, heads)
    total = sum(ops.values())
    assert 20 < total <= BUDGET, "\n".join(f"{n:3} {op}" for op, n in ops.most_common())
    assert total == sum(step_of(2, (heads[0], min(heads[1], 2))).values()), "it must not grow"


def test_what_counts_as_a_view_is_one():
    for name in VIEWS - {"_unsafe_view"}:  # that one says of itself that it is none; it is a view
        packet = getattr(torch.ops.aten, name)
        assert any(getattr(packet, o).is_view for o in packet.overloads()), name
    x = torch.ones(4)
    assert torch.ops.aten._unsafe_view(x, (2, 2)).data_ptr() == x.data_ptr()
