# ruff: noqa: E501  (a table of messages)
"""The differentiable neural computer against the paper's loops, and what it promises beyond."""

import copy
import re
from collections import Counter

import pytest
import reference
import torch
from safetensors.torch import load_file, save_file
from test_ntm import KINDS, VIEWS, Counting, controller_of, draw
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from memlib import DNC, DNCCell, DNCState, allocation, attend, read, write
from memlib.dnc.bookkeeping import _link, _use

DOUBLE = {"dtype": torch.float64}
INPUT, OUTPUT, SLOTS, WIDTH = 3, 2, 6, 4
HEADS = [(1, 1), (2, 1), (1, 2), (3, 2)]
OPTIONS = ("mask_content", "deallocate", "sharpen_links")
PARTS = len(DNCState._fields)


def make(kind="lstm", heads=(1, 1), *, of=DNCCell, seed=0, slots=SLOTS, dtype=torch.float64, **kw):
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


def some_state(cell, batch, seed=2):
    """A state in the middle of a sequence: no part of it is special."""
    start = cell.initial_state(batch)
    state = DNCState(*(draw(*s.shape, seed=seed + i).to(s.dtype) for i, s in enumerate(start)))
    slots = 1 - torch.eye(cell.slots, dtype=state.links.dtype)
    return state._replace(
        weights=0.9 * state.weights.softmax(-1),
        usage=state.usage.sigmoid(),
        links=state.links.softmax(-1) * slots,
        precedence=0.8 * state.precedence.softmax(-1),
    )


def close(state, expected, **tolerance):
    assert isinstance(state, DNCState)
    assert_close(tuple(state), tuple(expected), **tolerance)


def slice_state(state, rows):
    return DNCState(*(part[rows] for part in state))


def leaves(state):
    return DNCState(*(part.detach().clone().requires_grad_() for part in state))


def run(machine, x, state=None):
    """Step by step, which is what the sequence module must equal."""
    logits = []
    for step in x.unbind(1):
        y, state = machine(step, state)
        logits.append(y)
    return torch.stack(logits, 1), state


# Allocation


def test_allocation_offers_the_freest_slot():
    assert_close(allocation(torch.zeros(2, 3)), torch.tensor([1.0, 0, 0]).expand(2, 3))
    assert not allocation(torch.ones(4)).any()
    assert_close(allocation(torch.tensor([1.0, 0.2, 1.0])), torch.tensor([0, 0.8, 0]))
    assert_close(allocation(torch.tensor([0.5, 1.0, 0.0, 0.0])), torch.tensor([0, 0, 1.0, 0]))
    assert allocation(torch.ones(2, 0)).shape == (2, 0)


@pytest.mark.parametrize("slots", [1, 2, 7, 40])
def test_allocation_is_that_of_the_loops(slots):
    usage = draw(3, slots).sigmoid()
    weights = allocation(usage)
    for row, got in zip(usage, weights, strict=True):
        assert_close(got, torch.stack(reference.allocation(list(row))), rtol=0, atol=1e-14)
    assert_close(weights.sum(-1), 1 - usage.prod(-1))


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_the_gradients_of_allocation_away_from_ties(scale):
    usage = (scale * draw(2, 6)).sigmoid().requires_grad_()
    assert torch.autograd.gradcheck(allocation, usage)
    assert torch.autograd.gradgradcheck(allocation, usage)


def test_the_gradient_of_a_free_slot_is_not_lost():
    usage = torch.tensor([0.5, 0.0, 0.7], **DOUBLE).requires_grad_()
    (gradient,) = torch.autograd.grad(allocation(usage)[0], usage)
    assert_close(gradient, torch.tensor([0.0, 0.5, 0.0], **DOUBLE))  # of (1 - u0) u1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("fill", [0.0, 1e-30, 0.5, 1.0])
def test_allocation_at_its_bounds(dtype, fill):
    usage = torch.full((2, 500), fill, dtype=dtype, requires_grad=True)
    weights = allocation(usage)
    weights.square().sum().backward()
    assert weights.dtype == dtype
    assert weights.isfinite().all()
    assert usage.grad.isfinite().all()
    assert (weights >= 0).all()


# Usage and links


def test_a_slot_written_is_used():
    usage = torch.tensor([[0.0, 0.5, 1.0]])
    assert_close(_use(usage, torch.tensor([[[1.0, 0, 0]]])), torch.tensor([[1, 0.5, 1]]))
    both = torch.tensor([[[0.5, 0.5, 0], [0.5, 0, 0.5]]])
    assert_close(_use(usage, both), torch.tensor([[0.75, 0.75, 1]]))


def test_links_tell_the_order_of_writing():
    links, precedence = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4)
    order = [2, 0, 3]
    for slot in order:
        weights = nn.functional.one_hot(torch.tensor([[slot]]), 4).float()
        links, precedence = _link(links, precedence, weights)
        assert torch.equal(precedence, weights)
    expected = torch.zeros(4, 4)
    expected[0, 2] = expected[3, 0] = 1  # slot 0 was written after slot 2, slot 3 after slot 0
    assert torch.equal(links[0, 0], expected)
    still, last = _link(links, precedence, torch.zeros(1, 1, 4))  # no write, nothing forgotten
    assert torch.equal(still, links)
    assert torch.equal(last, precedence)
    again, _ = _link(links, precedence, nn.functional.one_hot(torch.tensor([[0]]), 4).float())
    expected = torch.zeros(4, 4)
    expected[0, 3] = 1  # a slot written again keeps none of its old links
    assert torch.equal(again[0, 0], expected)


def test_links_stay_within_their_bounds():
    links, precedence = torch.zeros(3, 2, 5, 5, **DOUBLE), torch.zeros(3, 2, 5, **DOUBLE)
    for t in range(50):
        weights = draw(3, 2, 6, seed=t).softmax(-1)[..., :5]  # some of the write goes nowhere
        links, precedence = _link(links, precedence, weights)
        assert (links >= -1e-12).all()
        for sums in (links.sum(-1), links.sum(-2), precedence.sum(-1)):
            assert (sums <= 1 + 1e-12).all()
        assert not links.diagonal(dim1=-2, dim2=-1).any()


def test_the_gradients_of_links():
    links, precedence, weights = draw(2, 2, 4, 4), draw(2, 2, 4, seed=2), draw(2, 2, 4, seed=3)
    given = [t.sigmoid().requires_grad_() for t in (links, precedence, weights)]
    assert torch.autograd.gradcheck(_link, given)
    assert torch.autograd.gradgradcheck(_link, given)


# The equations together


@pytest.mark.parametrize(
    ("kind", "heads", "options"),
    [
        ("lstm", (1, 1), ()),
        ("gru", (2, 1), ()),
        ("feed-forward", (3, 1), ()),
        ("lstm", (1, 2), ()),
        ("gru", (1, 1), ("mask_content",)),
        ("feed-forward", (1, 1), ("deallocate",)),
        ("lstm", (2, 1), ("sharpen_links",)),
        ("lstm", (2, 2), OPTIONS),
    ],
    ids=str,
)
def test_50_steps_and_every_gradient_are_those_of_the_loops(kind, heads, options):
    dnc = make(kind, heads, of=DNC, slots=4, **dict.fromkeys(options, True))
    rows = 2 if heads == (1, 1) and not options else 1  # the loops take their time
    x = draw(rows, 50, INPUT).requires_grad_()
    parameters = dict(dnc.cell.named_parameters())
    # between the machine's own start and one amid a sequence, to reach the gradients of both
    amid = leaves(some_state(dnc.cell, rows))
    start = DNCState(*((a + b) / 2 for a, b in zip(dnc.initial_state(rows), amid, strict=True)))
    logits, after = dnc(x, start)
    expected, loops = reference.dnc(kind, parameters, x, start, set(options))
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


@pytest.mark.parametrize("options", [(), OPTIONS], ids=str)
def test_gradients_are_those_of_finite_differences(options):
    cell = make("gru", (2, 2), slots=4, **dict.fromkeys(options, True))
    x, parts = draw(2, INPUT).requires_grad_(), leaves(some_state(cell, 2))
    parameters = dict(cell.named_parameters())

    def function(x, *rest):
        with torch.nn.utils.stateless._reparametrize_module(
            cell, dict(zip(parameters, rest[PARTS:], strict=True))
        ):
            y, after = cell(x, DNCState(*rest[:PARTS]))
            return y, *after

    assert torch.autograd.gradcheck(function, (x, *parts, *parameters.values()), fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_is_its_steps(kind):
    dnc = make(kind, (2, 1), of=DNC)
    x = draw(2, 7, INPUT)
    logits, state, weights = dnc(x, need_weights=True)
    expected, after = run(dnc.cell, x)
    assert_close(logits, expected)
    close(state, after)
    assert weights.shape == (2, 7, 3, SLOTS)
    assert_close(weights[:, -1], state.weights)
    assert (weights.sum(-1) <= 1).all()
    assert_close(weights[:, 0], dnc.cell(x[:, 0])[1].weights)
    close(dnc(x, dnc.initial_state(2))[1], state)


def test_a_step_is_the_verbs():
    cell = make(heads=(2, 2))
    start, x = some_state(cell, 3), draw(3, INPUT)
    _, state = cell(x, start)
    hidden, _ = cell.controller(
        torch.cat((x, start.reads.flatten(1)), -1), (start.hidden, start.cell)
    )
    raw, where = cell.interface(hidden), places(cell)
    add, erase = raw[:, where["add"]], raw[:, where["erase"]].sigmoid()
    after = write(start.memory, state.weights[:, 2:], add, erase)
    assert_close(state.memory, after)
    assert_close(state.reads, read(state.weights[:, :2], after))


def test_the_start():
    for memory in ("constant", "learned", "random"):
        state = make(of=DNC, heads=(2, 3), initial_memory=memory).initial_state(2)
        assert isinstance(state, DNCState)
        sizes = [(SLOTS, WIDTH), (2, WIDTH), (5, SLOTS), (SLOTS,), (3, SLOTS, SLOTS), (3, SLOTS)]
        assert [tuple(part.shape[1:]) for part in state[:-2]] == sizes
        assert not any(part.any() for part in state[2:-2])
        learned = {"reads", "hidden", "cell"} | ({"memory"} if memory == "learned" else set())
        assert {n for n, p in state._asdict().items() if p.requires_grad} == learned
    assert make("gru").initial_state(2).cell.shape == (2, 0)
    assert make("feed-forward").initial_state(2).hidden.shape == (2, 0)


def test_the_defaults():
    dnc = DNC(9, 8)
    state = dnc.initial_state()
    assert state.memory.shape == (1, 128, 20)
    assert state.links.shape == (1, 1, 128, 128)
    assert (dnc.cell.controller.input_size, dnc.cell.controller.hidden_size) == (29, 100)
    assert "slots=128" in repr(dnc)
    assert "sharpen_links=False" in repr(dnc)


# Gates at their extremes: the biases of the interface say what every head does

FAR = 1000.0  # a gate as far as it goes: its sigmoid is 0 or 1, exactly
BACK, ALIKE, FORTH = [FAR, 0.0, 0.0], [0.0, FAR, 0.0], [0.0, 0.0, FAR]


def places(cell):
    """Where in the interface's output each order lies, by name, (heads, ...)."""
    outputs = torch.arange(cell.interface.out_features)
    sizes = (cell.read_heads, cell.write_heads, cell.width)
    return reference.dnc_split(outputs, *sizes, cell.mask_content, cell.sharpen_links)


def tell(cell, **orders):
    """Let the heads do the same at every step: values before they are squashed."""
    with torch.no_grad():
        cell.interface.weight.zero_()
        for name, value in orders.items():
            place = places(cell)[name]
            told = torch.as_tensor(value, dtype=cell.interface.bias.dtype)
            cell.interface.bias[place] = told.expand(place.shape)
    return cell


def told(heads=(1, 1), *, width=WIDTH, options=None, **orders):
    cell = make(heads=heads, **(options or {}))
    with torch.no_grad():
        cell.interface.bias.zero_()
    return tell(cell, **orders)


def filled(cell, batch=2):
    return cell.initial_state(batch)._replace(memory=draw(batch, cell.slots, cell.width))


def test_content_alone_is_attend_by_cosine():
    key = [0.3, -0.2, 0.9, 0.1]
    cell = told((2, 1), key=key, strength=4.0, modes=ALIKE, write=-FAR)
    start = some_state(cell, 2)
    _, state = cell(draw(2, INPUT), start)
    assert torch.equal(state.memory, start.memory)
    assert not state.weights[:, 2:].any()
    strength = 1 + nn.functional.softplus(torch.tensor(4.0, **DOUBLE)).expand(2, 2)
    value, weights = attend(
        torch.tensor(key, **DOUBLE).expand(2, 2, WIDTH), start.memory, start.memory,
        measure="cosine", strength=strength, need_weights=True,
    )  # fmt: skip
    assert_close(state.weights[:, :2], weights)
    assert_close(state.reads, value)


def test_a_write_by_content_goes_where_attend_looks():
    cell = told(key=[0.3, -0.2, 0.9, 0.1], strength=4.0, write=FAR, allocation=-FAR)
    start = filled(cell)
    _, state = cell(draw(2, INPUT), start)
    told_ = {"measure": "cosine", "strength": 5.0 + float(torch.tensor(-4.0).exp().log1p())}
    query = torch.tensor([0.3, -0.2, 0.9, 0.1], **DOUBLE).expand(2, 1, WIDTH)
    _, weights = attend(query, start.memory, start.memory, need_weights=True, **told_)
    assert_close(state.weights[:, 1:], weights, rtol=1e-6, atol=1e-6)


def test_allocation_fills_slot_after_slot_and_links_lead_back_and_forth():
    add = torch.tensor([0.5, -0.5, 2.0, 0.0], **DOUBLE)
    cell = told(write=FAR, allocation=FAR, erase=FAR, free=-FAR, add=add.tolist(), modes=ALIKE)
    state = filled(cell)
    slots = torch.eye(SLOTS, **DOUBLE)
    for t in range(4):
        _, state = cell(draw(2, INPUT), state)
        assert_close(state.weights[:, 1], slots[t].expand(2, SLOTS))
        assert_close(state.memory[:, t], add.expand(2, WIDTH))
    _, state = cell(draw(2, INPUT), state)
    expected = torch.cat((torch.ones(4, **DOUBLE), torch.zeros(2, **DOUBLE)))
    assert_close(state.usage, expected.expand(2, SLOTS))

    tell(cell, write=-FAR, modes=FORTH)  # a head on slot 1 steps on to 2, 3, 4, and off the end
    state = state._replace(weights=torch.stack((slots[1], slots[0])).expand(2, 2, SLOTS))
    for t in (2, 3, 4):
        _, state = cell(draw(2, INPUT), state)
        assert_close(state.weights[:, 0], slots[t].expand(2, SLOTS))
    _, end = cell(draw(2, INPUT), state)
    assert_close(end.weights[:, 0], torch.zeros(2, SLOTS, **DOUBLE), atol=1e-12, rtol=0)
    tell(cell, modes=BACK)
    for t in (3, 2, 1, 0):
        _, state = cell(draw(2, INPUT), state)
        assert_close(state.weights[:, 0], slots[t].expand(2, SLOTS))


def test_what_is_freed_is_used_again():
    slots = torch.eye(SLOTS, **DOUBLE)
    cell = told(write=FAR, allocation=FAR, free=FAR, erase=FAR, modes=ALIKE)
    start = filled(cell)._replace(
        usage=torch.ones(2, SLOTS, **DOUBLE),
        weights=torch.stack((slots[3], slots[0])).expand(2, 2, SLOTS),
    )
    _, state = cell(draw(2, INPUT), start)
    assert_close(state.usage, (1 - slots[3]).expand(2, SLOTS))
    assert_close(state.weights[:, 1], slots[3].expand(2, SLOTS))
    tell(cell, free=-FAR)
    _, state = cell(draw(2, INPUT), start)
    assert_close(state.usage, torch.ones(2, SLOTS, **DOUBLE))
    assert_close(state.weights[:, 1], torch.zeros(2, SLOTS, **DOUBLE))  # nothing free: no write


def test_write_heads_take_slots_of_their_own():
    slots = torch.eye(SLOTS, **DOUBLE)
    cell = told((1, 3), write=[FAR, -FAR, FAR], allocation=FAR)
    _, state = cell(draw(2, INPUT), filled(cell))
    assert_close(state.weights[:, 1], slots[0].expand(2, SLOTS))
    assert not state.weights[:, 2].any()  # a head that does not write takes no slot
    assert_close(state.weights[:, 3], slots[1].expand(2, SLOTS))
    _, state = cell(draw(2, INPUT), state)
    assert_close(state.links[:, 0, 2, 0], torch.ones(2, **DOUBLE))  # each head's own order
    assert_close(state.links[:, 2, 3, 1], torch.ones(2, **DOUBLE))
    assert_close(state.links.sum((-2, -1)), torch.tensor([[1.0, 0, 1]] * 2, **DOUBLE))


# The options of Csordás and Schmidhuber


def test_what_is_deallocated_is_erased():
    slots = torch.eye(SLOTS, **DOUBLE)
    for deallocate in (False, True):
        cell = told((2, 1), options={"deallocate": deallocate}, free=[FAR, -FAR], write=-FAR)
        start = filled(cell)._replace(weights=slots[[3, 1, 0]].expand(2, 3, SLOTS))
        _, state = cell(draw(2, INPUT), start)
        expected = start.memory.clone()
        if deallocate:
            expected[:, 3] = 0
        assert_close(state.memory, expected)


def test_a_mask_hides_features():
    key = [1.0, 0.0, 0.0, 0.0]
    cell = told(
        options={"mask_content": True}, write=-FAR, modes=ALIKE, strength=FAR, key=key,
        mask=[FAR, -FAR, FAR, FAR],
    )  # fmt: skip
    memory = torch.ones(1, SLOTS, WIDTH, **DOUBLE)
    memory[0, 2] = torch.tensor([1.0, 3.0, 0.0, 0.0])  # like the key but for the hidden feature
    _, state = cell(draw(1, INPUT), cell.initial_state(1)._replace(memory=memory))
    assert_close(state.weights[0, 0, 2], torch.tensor(1.0, **DOUBLE))
    tell(cell, mask=FAR)
    plain = told(write=-FAR, modes=ALIKE, strength=FAR, key=key)
    start = filled(cell)
    assert_close(cell(draw(2, INPUT), start)[1].reads, plain(draw(2, INPUT), start)[1].reads)


def test_links_can_be_sharpened():
    cell = told(options={"sharpen_links": True}, write=-FAR, modes=FORTH, sharpening=FAR)
    start = some_state(cell, 2)
    _, state = cell(draw(2, INPUT), start)
    followed = read(start.weights[:, :1], start.links[:, 0].mT)[:, 0]
    assert torch.equal(state.weights[:, 0].argmax(-1), followed.argmax(-1))
    assert_close(state.weights[:, 0].amax(-1), torch.ones(2, **DOUBLE))
    tell(cell, sharpening=-FAR)  # a power of 1 only makes the weights sum to 1
    _, state = cell(draw(2, INPUT), start)
    expected = followed / followed.sum(-1, keepdim=True)
    assert_close(state.weights[:, 0], expected, rtol=1e-4, atol=1e-4)


# Batches and sequences


@pytest.mark.parametrize("options", [(), OPTIONS], ids=str)
def test_a_batch_is_its_rows(options):
    dnc = make("gru", (2, 2), of=DNC, **dict.fromkeys(options, True))
    x, state = draw(4, 6, INPUT), some_state(dnc.cell, 4)
    logits, after = dnc(x, state)
    for b in range(4):
        row = slice(b, b + 1)
        alone, end = dnc(x[row], slice_state(state, row))
        assert_close(alone, logits[row])
        close(end, slice_state(after, row))


@pytest.mark.parametrize("every", [None, 3])
@pytest.mark.parametrize("padding", [0.0, 1e30, float("nan"), float("inf")])
def test_lengths_give_what_each_sequence_gives_alone(padding, every):
    dnc = make(of=DNC, heads=(1, 2))
    lengths = torch.tensor([4, 0, 7, 1])
    x, state = draw(4, 7, INPUT), some_state(dnc.cell, 4)
    late = torch.arange(7) >= lengths[:, None]
    padded = x.masked_fill(late[..., None], padding).requires_grad_()
    start = leaves(state)
    logits, after, weights = dnc(
        padded, start, lengths=lengths, need_weights=True, checkpoint_every=every
    )
    assert not logits[late].any()
    assert not weights[late].any()
    (logits.square().sum() + sum(part.square().sum() for part in after)).backward()
    together = {n: p.grad.clone() for n, p in dnc.named_parameters() if p.grad is not None}
    assert not padded.grad[late].any()

    dnc.zero_grad()
    for b, length in enumerate(lengths.tolist()):
        row = slice(b, b + 1)
        alone, begin = x[row, :length].clone().requires_grad_(), leaves(slice_state(state, row))
        y, end, where = dnc(alone, begin, need_weights=True)
        assert_close(logits[row, :length], y)
        assert_close(weights[row, :length], where)
        close(slice_state(after, row), end)
        (y.square().sum() + sum(part.square().sum() for part in end)).backward()
        if length:
            assert_close(padded.grad[row, :length], alone.grad)
        for ours, theirs in zip(start, begin, strict=True):
            assert_close(ours.grad[row], theirs.grad)
    for name, parameter in dnc.named_parameters():
        if parameter.grad is not None:
            assert_close(together[name], parameter.grad, msg=name)


@pytest.mark.parametrize("cut", [0, 1, 4, 8])
def test_a_sequence_can_be_cut_anywhere(cut):
    dnc = make(of=DNC, heads=(2, 1))
    x = draw(2, 8, INPUT)
    whole, end = dnc(x)
    first, middle = dnc(x[:, :cut])
    second, after = dnc(x[:, cut:], middle)
    assert_close(torch.cat((first, second), 1), whole)
    close(after, end)


def test_detaching_truncates_backpropagation():
    dnc = make(of=DNC)
    x = draw(1, 6, INPUT).requires_grad_()
    _, state = dnc(x[:, :3])
    cut = state.detach()
    assert isinstance(cut, DNCState)
    assert not any(part.requires_grad for part in cut)
    dnc(x[:, 3:], cut)[0].sum().backward()
    assert not x.grad[:, :3].any()
    assert x.grad[:, 3:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_on_disk_continues_exactly(kind, tmp_path):
    dnc = make(kind, (2, 2), of=DNC, dtype=torch.float32)
    x = draw(2, 8, INPUT, dtype=torch.float32)
    _, end = dnc(x)
    _, middle = dnc(x[:, :5])
    for name, state in (("middle", middle), ("start", dnc.initial_state(2))):
        save_file(state.detach()._asdict(), tmp_path / name)
        assert all(map(torch.equal, DNCState(**load_file(tmp_path / name)), state))
    expected, _ = dnc(x[:, 5:], middle)
    saved = load_file(tmp_path / "middle")
    logits, after = dnc(x[:, 5:], DNCState(**saved))
    assert_close(logits, expected)  # views into a file lie at any address: another order of sums
    close(after, end)
    logits, after = dnc(x[:, 5:], DNCState(**{n: part.clone() for n, part in saved.items()}))
    assert torch.equal(logits, expected)
    assert all(map(torch.equal, after, end))


def test_a_state_is_never_changed():
    dnc = make("lstm", (2, 2), of=DNC, deallocate=True)
    state = some_state(dnc.cell, 2)
    before = [part.clone() for part in state]
    x = draw(2, 4, INPUT)
    dnc.cell(x[:, 0], state)
    dnc(x, state, lengths=torch.tensor([3, 0]), checkpoint_every=2)
    assert all(map(torch.equal, state, before)), "a state passed in was changed"
    start = [part.detach().clone() for part in dnc.initial_state(2)]
    for part in dnc.initial_state(2):
        part.detach().add_(1)
    assert all(map(torch.equal, dnc.initial_state(2), start)), "the module's start was changed"


# Long sequences


@pytest.mark.parametrize("every", [1, 4, 7, 100])
def test_checkpoints_change_no_result_and_no_gradient(every):
    dnc = make(of=DNC, heads=(2, 1), sharpen_links=True)
    x, results = draw(2, 10, INPUT).requires_grad_(), []
    for chunk in (None, every):
        start = leaves(some_state(dnc.cell, 2))
        logits, state, weights = dnc(x, start, need_weights=True, checkpoint_every=chunk)
        total = logits.sum() + weights.square().sum() + sum(part.square().sum() for part in state)
        wanted = [x, *start, *dnc.parameters()]
        gradients = torch.autograd.grad(total, wanted, allow_unused=True)
        results.append([logits, *state, weights, *(g for g in gradients if g is not None)])
    assert len(results[0]) > 2 * PARTS
    assert all(map(torch.equal, *results))


def test_checkpoints_of_nothing():
    dnc = make(of=DNC)
    logits, state = dnc(draw(2, 0, INPUT), checkpoint_every=3)
    assert logits.shape == (2, 0, OUTPUT)
    close(state, dnc.initial_state(2))
    with torch.no_grad():
        close(dnc(draw(2, 5, INPUT), checkpoint_every=2)[1], dnc(draw(2, 5, INPUT))[1])


class Peak(TorchDispatchMode):
    """The most bytes alive at once of those that were made under it."""

    def __init__(self):
        super().__init__()
        self.alive, self.bytes, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.alive:
                    self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                    self.bytes += storage.nbytes()
        if self.bytes > self.peak:
            for key in [k for k, (ref, _) in self.alive.items() if ref.expired()]:
                self.bytes -= self.alive.pop(key)[1]
            self.peak = max(self.peak, self.bytes)
        return result


def peak(steps, every):
    dnc = make("gru", of=DNC, slots=32, dtype=torch.float32)
    x = draw(1, steps, INPUT, dtype=torch.float32)
    with Peak() as mode:
        dnc(x, checkpoint_every=every)[0].sum().backward()
    return mode.peak


@pytest.mark.slow
def test_a_long_sequence_fits_into_bounded_memory():
    whole, short = peak(64, None), peak(16, None)
    assert 3.5 * short < whole < 4.5 * short, "all steps are kept"
    assert peak(64, 8) < whole / 3
    assert peak(144, 12) < whole / 2  # more than twice as long


# Stability


def finite(machine, x, state=None):
    machine.zero_grad()
    x = x.clone().requires_grad_()
    logits, state = machine(x, state)
    assert logits.isfinite().all()
    assert all(part.isfinite().all() for part in state)
    nn.functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()
    for name, parameter in [("x", x), *machine.named_parameters()]:
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [(), *((o,) for o in OPTIONS), OPTIONS], ids=str)
def test_inputs_a_thousand_times_too_large(kind, options):
    dnc = make(kind, (2, 2), of=DNC, dtype=torch.float32, **dict.fromkeys(options, True))
    finite(dnc, 1000 * draw(2, 20, INPUT, dtype=torch.float32))


@pytest.mark.parametrize("options", [(), OPTIONS], ids=str)
@pytest.mark.parametrize("usage", [0.0, 1.0])
@pytest.mark.parametrize("fill", [None, 0.0, 1e-30, 1e15])
def test_usage_all_0_or_all_1_and_memories_of_extremes(usage, fill, options):
    dnc = make(of=DNC, heads=(2, 2), dtype=torch.float32, **dict.fromkeys(options, True))
    state = dnc.initial_state(2)
    state = state._replace(usage=torch.full_like(state.usage, usage).requires_grad_())
    if fill is not None:
        state = state._replace(memory=torch.full_like(state.memory, fill).requires_grad_())
    finite(dnc, draw(2, 5, INPUT, dtype=torch.float32), state)
    assert state.usage.grad.isfinite().all()
    assert fill is None or state.memory.grad.isfinite().all()


@pytest.mark.parametrize("write_gate", [-1e4, 1e4])
@pytest.mark.parametrize("allocate", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("free", [-1e4, 1e4])
@pytest.mark.parametrize("strength", [-1e4, 1e3])
def test_gates_at_their_bounds(write_gate, allocate, free, strength):
    options = dict.fromkeys(OPTIONS, True)
    dnc = make(of=DNC, heads=(2, 1), dtype=torch.float32, initial_memory="random", **options)
    where = places(dnc.cell)
    orders = {"write": write_gate, "allocation": allocate, "free": free, "strength": strength}
    with torch.no_grad():
        for name, value in orders.items():
            dnc.cell.interface.bias[where[name]] = value
    # content alone cannot tell slots of equal content apart: see the same test of the NTM
    finite(dnc, draw(2, 5 if strength > 0 else 20, INPUT, dtype=torch.float32))


@torch.no_grad()
def test_3000_steps():
    dnc = make(of=DNC, heads=(2, 1), dtype=torch.float32)
    x, state = draw(1, 1000, INPUT, dtype=torch.float32), None
    for _ in range(3):
        logits, state = dnc(x, state)
        assert all(part.isfinite().all() for part in (logits, *state))
    assert (state.usage >= 0).all()
    assert (state.usage <= 1).all()
    assert (state.links.sum(-1) <= 1 + 1e-5).all()


# What a module must bear


@pytest.mark.needs_torch("2.13")
@pytest.mark.parametrize("options", [(), OPTIONS], ids=str)
def test_compiles_to_one_graph(options):
    torch._dynamo.reset()
    cell = make(heads=(2, 2), dtype=torch.float32, **dict.fromkeys(options, True))
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    x, results = draw(3, INPUT, dtype=torch.float32), []
    for module in (cell, compiled):
        cell.zero_grad()
        start = leaves(some_state(cell, 3))
        y, state = module(x, start)
        assert isinstance(state, DNCState)
        (y.sum() + sum(part.square().sum() for part in state)).backward()
        grads = [part.grad for part in start] + [p.grad for p in cell.parameters()]
        results.append([y, *state, *(g for g in grads if g is not None)])
    assert len(results[0]) > 2 * PARTS
    assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.needs_torch("2.13")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # dynamo looks at all
def test_a_compiled_step_serves_every_length_with_checkpoints_too():
    torch._dynamo.reset()
    dnc = DNC(INPUT, OUTPUT, SLOTS, WIDTH)
    compiled = copy.deepcopy(dnc)
    compiled.compile(fullgraph=True, backend="aot_eager")
    for steps, every in ((3, None), (7, None), (5, 2)):
        x = torch.randn(2, steps, INPUT)
        for machine in (dnc, compiled):
            machine.zero_grad()
        expected, logits = dnc(x)[0], compiled(x, checkpoint_every=every)[0]
        assert_close(logits, expected)
        expected.sum().backward()
        logits.sum().backward()
        for ours, theirs in zip(compiled.parameters(), dnc.parameters(), strict=True):
            assert_close(ours.grad, theirs.grad)


@pytest.mark.needs_torch("2.12")
@pytest.mark.parametrize("kind", KINDS)
def test_runs_on_meta(kind):
    options = dict.fromkeys(OPTIONS, True)
    dnc = make(kind, (2, 2), of=DNC, device="meta", initial_memory="learned", **options)
    assert all(p.is_meta for p in (*dnc.parameters(), *dnc.buffers()))
    lengths = torch.ones(2, dtype=torch.long, device="meta")
    x = torch.ones(2, 4, INPUT, device="meta", **DOUBLE)
    logits, state = dnc(x, lengths=lengths)
    assert logits.shape == (2, 4, OUTPUT)
    assert all(part.is_meta for part in (logits, *state))
    logits, _ = dnc(x, checkpoint_every=2)
    logits.sum().backward()
    assert allocation(torch.ones(2, 3, device="meta")).is_meta


@pytest.mark.parametrize("kind", KINDS)
def test_autocast(kind):
    dnc = make(kind, (2, 2), of=DNC, dtype=torch.float32, **dict.fromkeys(OPTIONS, True))
    x = draw(2, 6, INPUT, dtype=torch.float32)
    expected, _ = dnc(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = dnc(x)
        logits, state = dnc(x, dnc.initial_state(2))
        dnc(x, state)  # what came out goes in again
    assert_close(logits.float(), expected, rtol=0.2, atol=0.2)
    logits.float().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in dnc.parameters())


@pytest.mark.parametrize("memory", ["constant", "learned", "random"])
def test_copies_and_state_dicts_give_the_same(memory):
    dnc, other = (make(of=DNC, seed=seed, initial_memory=memory) for seed in (0, 1))
    x = draw(2, 3, INPUT)
    expected, state = dnc(x)
    assert not torch.equal(other(x)[0], expected)
    other.load_state_dict(dnc.state_dict())
    for twin in (other, copy.deepcopy(dnc)):
        logits, after = twin(x)
        assert torch.equal(logits, expected)
        assert all(map(torch.equal, after, state))


def test_reset_parameters_draws_anew():
    dnc = make("feed-forward", of=DNC, initial_memory="random")
    before = copy.deepcopy(dnc.state_dict())
    torch.manual_seed(5)
    dnc.reset_parameters()
    after = copy.deepcopy(dnc.state_dict())
    assert not any(torch.equal(before[n], after[n]) for n in before if n.endswith("weight"))
    torch.manual_seed(5)
    dnc.reset_parameters()
    assert all(torch.equal(after[n], p) for n, p in dnc.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_at_all(kind):
    dnc = make(kind, of=DNC)
    none, state = dnc(draw(0, 4, INPUT))
    assert none.shape == (0, 4, OUTPUT)
    assert [part.shape[0] for part in state] == [0] * PARTS
    logits, state, weights = dnc(draw(2, 0, INPUT), need_weights=True)
    assert (logits.shape, weights.shape) == ((2, 0, OUTPUT), (2, 0, 2, SLOTS))
    close(state, dnc.initial_state(2))
    logits, state = dnc(draw(2, 3, INPUT), lengths=torch.zeros(2, dtype=torch.long))
    assert not logits.any()
    close(state, dnc.initial_state(2))


def test_strides_do_not_matter():
    dnc = make(of=DNC, heads=(2, 1))
    x = draw(2, 4, INPUT)
    expected, after = dnc(x)
    turned = x.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not turned.is_contiguous()
    start = (p.mT.contiguous().mT if p.ndim > 2 else p for p in dnc.initial_state(2))
    logits, state = dnc(turned, DNCState(*start))
    assert_close(logits, expected)
    close(state, after)


# Bad input

dnc = DNC(6, 3, 5, 4, read_heads=2, controller=nn.LSTMCell(14, 2))
begun = dnc.initial_state(2)
xs = torch.ones(2, 3, 6)
NAN = float("nan")


def from_state(**changed):
    return lambda: dnc(xs, begun._replace(**changed))


# fmt: off
REFUSALS = [
    (lambda: allocation([0.5]), TypeError, "usage must be a torch.Tensor; got list"),
    (lambda: allocation(torch.ones(2).long()), TypeError, "usage must have a floating-point dtype; got torch.int64"),
    (lambda: allocation(torch.tensor(1.0)), ValueError, "usage must have shape (..., N); got ()"),
    (lambda: allocation(torch.tensor([0.5, 1.5])), ValueError, "usage must be in [0, 1]; got 1.5"),
    (lambda: allocation(torch.tensor([0.5, NAN])), ValueError, "usage must be finite where it is read; got NaN at (1,)"),
    (lambda: DNC(0, 3), ValueError, "input_size must be at least 1; got 0"),
    (lambda: DNC(6, 3.0), TypeError, "output_size must be an integer; got float"),
    (lambda: DNC(6, 3, 0), ValueError, "slots must be at least 1; got 0"),
    (lambda: DNC(6, 3, 5, -4), ValueError, "width must be at least 1; got -4"),
    (lambda: DNCCell(6, 3, read_heads=0), ValueError, "read_heads must be at least 1; got 0"),
    (lambda: DNCCell(6, 3, write_heads=True), TypeError, "write_heads must be an integer; got bool"),
    (lambda: DNCCell(6, 3, initial_memory="zeros"), ValueError, "initial_memory must be one of constant, learned, random; got 'zeros'"),
    (lambda: DNCCell(6, 3, dtype=torch.int64), TypeError, "dtype must have a floating-point dtype; got torch.int64"),
    (lambda: DNCCell(6, 3, controller="lstm"), TypeError, "controller must be a torch.nn.Module; got str"),
    (lambda: DNCCell(6, 3, 5, 4, controller=nn.LSTMCell(6, 2)), ValueError, "controller must have input size I + R * M = 10; got 6"),
    (lambda: dnc.initial_state(-1), ValueError, "batch_size must be at least 0; got -1"),
    (lambda: dnc(xs.long()), TypeError, "x must have a floating-point dtype; got torch.int64"),
    (lambda: dnc(xs.double()), TypeError, "x must have the dtype of the parameters, torch.float32; got torch.float64"),
    (lambda: dnc(xs[0]), ValueError, "x must have shape (B, T, I) with I = 6; got (3, 6)"),
    (lambda: dnc(xs * NAN), ValueError, "x must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda: dnc.cell(xs), ValueError, "x must have shape (B, I) with I = 6; got (2, 3, 6)"),
    (lambda: dnc(xs, tuple(begun)), TypeError, "state must be a DNCState; got tuple"),
    (lambda: dnc(xs, dnc.initial_state(3)), ValueError, "state.memory must have shape (B, N, M) with B = 2, N = 5, M = 4; got (3, 5, 4)"),
    (from_state(weights=torch.ones(2, 2, 5)), ValueError, "state.weights must have shape (B, H, N) with B = 2, H = 3, N = 5; got (2, 2, 5)"),
    (from_state(usage=torch.ones(2, 4)), ValueError, "state.usage must have shape (B, N) with B = 2, N = 5; got (2, 4)"),
    (from_state(usage=begun.usage.double()), TypeError, "state.usage must have the dtype of x, torch.float32; got torch.float64"),
    (from_state(usage=begun.usage * NAN), ValueError, "usage must be finite where it is read; got NaN at (0, 0)"),
    (from_state(links=torch.ones(2, 5, 5)), ValueError, "state.links must have shape (B, W, N, N) with B = 2, W = 1, N = 5"),
    (from_state(links=begun.links * NAN), ValueError, "links must be finite where it is read; got NaN at (0, 0, 0, 0)"),
    (from_state(precedence=1), TypeError, "state.precedence must be a torch.Tensor; got int"),
    (from_state(precedence=begun.precedence * NAN), ValueError, "precedence must be finite where it is read; got NaN at (0, 0, 0)"),
    (from_state(cell=torch.ones(2, 3)), ValueError, "state.cell must have shape (B, D) with B = 2, D = 2; got (2, 3)"),
    (lambda: dnc(xs, lengths=[1, 2]), TypeError, "lengths must be an int32 or int64 tensor; got list"),
    (lambda: dnc(xs, lengths=torch.tensor([1, 4])), ValueError, "lengths must be in [0, 3]; got 4"),
    (lambda: dnc(xs, checkpoint_every=0), ValueError, "checkpoint_every must be at least 1; got 0"),
    (lambda: dnc(xs, checkpoint_every=2.0), TypeError, "checkpoint_every must be an integer; got float"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[r[2][:50] for r in REFUSALS])
def test_bad_input_is_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)) as caught:
        call()
    assert type(caught.value) is kind


# The cost of a step


def step_of(batch, heads, slots=128, **options):
    cell = DNCCell(9, 8, slots, read_heads=heads[0], write_heads=heads[1], **options)
    x = torch.ones(batch, 9)
    with torch.no_grad():
        _, state = cell(x)
        with Counting() as counting:
            cell(x, state)
    views = VIEWS | {"diagonal"}
    return Counter(
        {f: n for f, n in counting.ops.items() if f._overloadpacket.__name__ not in views}
    )


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("reads", [1, 4, 16])
def test_a_step_costs_at_most_90_operations(batch, reads):
    ops = step_of(batch, (reads, 1))
    total = sum(ops.values())
    assert 20 < total <= 90, "\n".join(f"{n:3} {op}" for op, n in ops.most_common())
    assert total == sum(step_of(2, (2, 1)).values()), "it must not grow"


def test_what_more_a_step_may_cost():
    base = sum(step_of(2, (4, 1)).values())
    assert sum(step_of(2, (4, 3)).values()) <= base + 3 * 20  # allocation goes head by head
    for options, more in (((), 0), *(((o,), 9) for o in OPTIONS), (OPTIONS, 15)):
        assert sum(step_of(2, (4, 1), **dict.fromkeys(options, True)).values()) <= base + more
