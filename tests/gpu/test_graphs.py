"""Steps as CUDA graphs: compiled with ``reduce-overhead``, and captured by hand.

A graph is replayed at the same addresses: what a step gave is overwritten by the next, and what
the host knew while it was captured is known to every replay.
"""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

import memlib
from memlib import _checks as checks

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, as it compiles
    pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning"),  # dynamo looks at all
]
STEPS = 5
CELLS = {
    "NTM": lambda **where: memlib.NTMCell(4, 3, 16, 8, **where),
    "NTM of four heads": lambda **where: memlib.NTMCell(
        4, 3, 16, 8, read_heads=2, write_heads=2, **where
    ),
    "DNC": lambda **where: memlib.DNCCell(4, 3, 16, 8, read_heads=2, **where),
    "DNC of two write heads": lambda **where: memlib.DNCCell(
        4, 3, 16, 8, write_heads=2, mask_content=True, deallocate=True, sharpen_links=True, **where
    ),
}
MACHINES = {
    "NTM": lambda **where: memlib.NTM(4, 3, 16, 8, **where),
    "DNC": lambda **where: memlib.DNC(4, 3, 16, 8, read_heads=2, **where),
}
every_cell = pytest.mark.parametrize("make", CELLS.values(), ids=CELLS)
every_machine = pytest.mark.parametrize("make", MACHINES.values(), ids=MACHINES)


def compiled(function, device):
    """Compiled into CUDA graphs on a GPU; on a CPU only traced, which takes less long."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    how = {"mode": "reduce-overhead"} if device == "cuda" else {"backend": "aot_eager"}
    return torch.compile(function, **how)


def replayed(device):
    """Nothing that was compiled had to go without a graph."""
    counters = torch._dynamo.utils.counters
    assert not counters["inductor"]["cudagraph_skips"], counters["inductor"]
    assert not counters["graph_break"], counters["graph_break"]


def make_on(device, make, seed=0):
    torch.manual_seed(seed)
    return make().to(device)  # drawn on the CPU: the same numbers everywhere


def copies(state):
    return type(state)(*(part.clone() for part in state))


@pytest.mark.needs_torch("2.11")
@pytest.mark.parametrize(
    "make", [CELLS["NTM"], CELLS["DNC of two write heads"]], ids=["NTM", "DNC"]
)
@torch.no_grad()
def test_a_compiled_step_is_a_step(make, device):
    cell = make_on(device, make)
    step = compiled(cell, device)
    now = then = cell.initial_state(2)
    for x in torch.randn(STEPS, 2, 4).to(device):
        wanted, now = cell(x, now)
        y, then = step(x, copies(then))
        y, then = y.clone(), copies(then)
        assert_close((y, *then), (wanted, *now), rtol=1e-4, atol=1e-5)
    replayed(device)


@pytest.mark.parametrize(
    ("make", "learning"),
    [(MACHINES["NTM"], False), (MACHINES["DNC"], True)],
    ids=["NTM in use", "DNC in training"],
)
def test_a_machine_of_compiled_steps_is_the_machine(make, learning, device):
    torch._dynamo.reset()
    plain, machine = make_on(device, make), make_on(device, make)
    machine.compile(**{"mode": "reduce-overhead"} if device == "cuda" else {"backend": "aot_eager"})
    x = torch.randn(2, STEPS, 4).to(device)
    results = []
    for net in (plain, machine):
        with torch.set_grad_enabled(learning):
            for _ in range(2):  # the second time a graph is replayed
                net.zero_grad()
                y, state, weights = net(x, need_weights=True)
                if learning:
                    y.square().sum().backward()
        grads = [p.grad for p in net.parameters() if p.grad is not None]
        assert bool(grads) == learning
        results.append([y, *state, weights, *grads])
    assert_close(*results, rtol=1e-4, atol=1e-5)


@every_machine
@torch.no_grad()
def test_what_a_replay_overwrites_was_copied_before(make):
    """The next step overwrites what a step gave, as a CUDA graph does; on any machine."""
    plain, machine = make_on("cpu", make), make_on("cpu", make)
    step, given = machine._take, []

    def replay(*arguments):
        hidden, state = step(*arguments)
        if not given:
            given.extend((hidden.clone(), copies(state)))
        for kept, new in zip((given[0], *given[1]), (hidden, *state), strict=True):
            kept.copy_(new)
        return given

    machine.compile(mode="reduce-overhead")
    machine._take = replay
    x = torch.randn(2, STEPS, 4)
    for got, wanted in zip(
        (machine(x, need_weights=True)), plain(x, need_weights=True), strict=True
    ):
        assert_close(got, wanted)


def decoder(device, layers=1, **options):
    return make_on(device, lambda: memlib.Decoder(11, 16, layers, 4, kv_heads=2, **options))


@pytest.mark.needs_torch("2.11")
@pytest.mark.parametrize("window", [None, 4], ids=["all", "ring"])
@torch.no_grad()
def test_compiled_decoding_is_decoding(window, device):
    model = decoder(device, window=window)
    torch.manual_seed(1)
    tokens = torch.randint(11, (2, 12)).to(device)
    wanted, _ = model(tokens)
    cache = model.cache(2, None if window else 12)
    first, _ = model(tokens[:, :5], cache)
    step = compiled(model, device)
    parts = [first]
    for t in range(5, 10):
        parts.append(step(tokens[:, t : t + 1].clone(), cache)[0].clone())
    replayed(device)
    parts += [model(tokens[:, t : t + 1], cache)[0] for t in (10, 11)]  # eager again
    assert_close(torch.cat(parts, 1), wanted, rtol=1e-4, atol=1e-5)
    assert cache[0].lengths.tolist() == [12, 12]


@pytest.mark.needs_torch("2.11")
@torch.no_grad()
def test_decoding_writes_only_where_a_graph_may():
    """A graph may change what keeps its address: the buffers of the caches."""
    from torch._dynamo.backends.common import aot_autograd

    found = []

    def note(graph, inputs):
        seen = torch._guards.TracingContext.get().fw_metadata
        found.append((set(seen.mutated_inp_runtime_indices), set(seen.static_input_indices)))
        found[-1] += (set(seen.mutated_graph_handled_indices_seen_by_autograd),)
        return lambda arguments: graph(*arguments)

    note._boxed_call = True
    backend = aot_autograd(fw_compiler=note, inference_compiler=note,
                           keep_inference_input_mutations=True)  # fmt: skip
    model = decoder("cpu", layers=2)
    cache = model.cache(2, 12)
    torch._dynamo.reset()
    model(torch.zeros(2, 3, dtype=torch.long), cache)
    try:
        torch.compile(model, backend=backend)(torch.zeros(2, 1, dtype=torch.long), cache)
    except Exception:
        if not found:
            raise
    ((outside, static, inside),) = found
    assert not outside
    assert len(inside) == 4 * len(cache)  # keys, values, positions, lengths
    assert inside <= static


@torch.no_grad()
def test_a_cache_that_a_graph_has_written_to_trusts_the_device(monkeypatch):
    """A replay changes lengths and positions and not their version; on any machine."""

    def replay(tokens):
        unseen = torch.autograd._unsafe_preserve_version_counter
        with unseen(cache.lengths), unseen(cache.positions):
            here = slice(int(cache.lengths), int(cache.lengths) + tokens)
            cache.positions[:, here] = torch.arange(8)[here]
            cache.lengths.add_(tokens)

    cache = memlib.KVCache(1, 1, 8, 2)
    token = torch.ones(1, 1, 1, 2)
    cache.extend(token, token)
    with monkeypatch.context() as capture:
        capture.setattr(checks, "captured", lambda value: True)
        keys, _, mask = cache.extend(token, token)
    assert keys.shape[2] == 8  # all slots: a replay may find it at any length
    assert mask.sum() == 2
    replay(3)
    assert cache._bounds()[:2] == (5, 5)
    assert cache.extend(token, token)[0].shape[2] == 6
    replay(1)
    assert cache._bounds()[:2] == (7, 7)


def capture(step):
    """Warm up beside, capture, and return the graph; PyTorch's own recipe."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    return graph, result


@pytest.mark.gpu
@torch.no_grad()
def test_functions_can_be_captured(cuda):
    query, keys, values = (torch.randn(2, n, 16, device=cuda) for n in (3, 40, 40))
    mask = torch.rand(2, 3, 40, device=cuda) < 0.5
    for measure in memlib.MEASURES:

        def read(m=measure):
            return memlib.attend(query, keys, values, measure=m, strength=2.0, mask=mask)

        graph, result = capture(read)
        query.normal_()
        graph.replay()
        assert_close(result, read())


@pytest.mark.gpu
@every_cell
@torch.no_grad()
def test_a_step_can_be_captured(make, cuda):
    cell = make_on(cuda, make)
    x, held = torch.zeros(2, 4, device=cuda), cell.initial_state(2)

    def step():
        y, after = cell(x, held)
        for part, new in zip(held, after, strict=True):
            part.copy_(new)
        return y

    graph, y = capture(step)
    state = cell.initial_state(2)
    for part, start in zip(held, state, strict=True):
        part.copy_(start)
    for step_of_input in torch.randn(STEPS, 2, 4, device=cuda):
        x.copy_(step_of_input)
        graph.replay()
        wanted, state = cell(x, state)
        assert_close((y, *held), (wanted, *state), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@torch.no_grad()
def test_decoding_can_be_captured(cuda):
    model = decoder(cuda)
    tokens = torch.randint(11, (2, 12), device=cuda)
    cache, token = model.cache(2, 12), tokens[:, :1].clone()
    graph, logits = capture(lambda: model(token, cache)[0])
    for part in cache:
        part.crop(0)
    wanted, _ = model(tokens)
    for t in range(8):
        token.copy_(tokens[:, t : t + 1])
        graph.replay()
        assert_close(logits, wanted[:, t : t + 1], rtol=1e-4, atol=1e-5)
    last, _ = model(tokens[:, 8:], cache)  # eager again, from where the replays ended
    assert_close(last, wanted[:, 8:], rtol=1e-4, atol=1e-5)
