"""What every machine promises of its controller and its state, the NTM and the DNC alike."""

import copy

import pytest
import torch
from torch import nn

from memlib import DNC, NTM, DNCCell, NTMCell

CELLS = {"NTM": NTMCell, "DNC": DNCCell}
MACHINES = {"NTM": NTM, "DNC": DNC}
SEEN = 7  # three inputs and one read of width 4
SIZES = {"slots": 5, "width": 4}


@pytest.fixture(params=CELLS)
def cell(request):
    return CELLS[request.param]


@pytest.fixture(params=MACHINES)
def machine(request):
    return MACHINES[request.param]


class Counting(nn.Module):
    """Changes buffers and draws whenever it is called, whatever its mode."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(SEEN, 6)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(6), persistent=False)

    def forward(self, x):
        y = self.linear(x) + torch.randn(6)
        self.calls += 1
        self.seen = self.seen + y.mean(0).detach()
        return y


def frozen():
    """Parts of it are in evaluation mode, as of a network that was trained before."""
    net = nn.Sequential(nn.Linear(SEEN, 6), nn.BatchNorm1d(6), nn.Dropout(0.9))
    net[1].eval()
    return net


CONTROLLERS = {
    "batch norm": lambda: nn.Sequential(nn.Linear(SEEN, 6), nn.BatchNorm1d(6)),
    "batch norm without statistics": lambda: nn.Sequential(
        nn.Linear(SEEN, 6), nn.BatchNorm1d(6, track_running_stats=False)
    ),
    "dropout": lambda: nn.Sequential(nn.Linear(SEEN, 6), nn.Dropout(0.5)),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(SEEN, 6)),
    "counting": Counting,
    "partly frozen": frozen,
}


def contents(module):
    return {name: x.clone() for name, x in (*module.named_parameters(), *module.named_buffers())}


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_controller_is_tried_without_a_trace(cell, name):
    controller = CONTROLLERS[name]()
    modes, before = [m.training for m in controller.modules()], contents(controller)
    drawn = torch.get_rng_state()
    built = cell(3, 2, **SIZES, controller=controller)
    with torch.random.fork_rng([]):
        torch.set_rng_state(drawn)
        for layer in (built.interface, built.output):
            layer.reset_parameters()
        if built.kind != "constant":
            built._reset_start()
        assert torch.equal(torch.get_rng_state(), drawn) is False
        after = torch.get_rng_state()
    assert torch.equal(torch.get_rng_state(), after), "only the layers of the cell drew"
    assert [m.training for m in controller.modules()] == modes
    assert all(torch.equal(before[n], x) for n, x in contents(controller).items())
    assert built.interface.in_features == 6
    logits, _ = built(torch.randn(4, 3))
    logits.sum().backward()


def test_a_lazy_controller_draws_its_parameters_once(cell):
    torch.manual_seed(0)
    lazy = cell(3, 2, **SIZES, controller=nn.LazyLinear(6))
    torch.manual_seed(0)
    plain = cell(3, 2, **SIZES, controller=nn.Linear(SEEN, 6))
    assert all(
        torch.equal(x, y) for x, y in zip(lazy.parameters(), plain.parameters(), strict=True)
    )


class Broken(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.linear, self.how = nn.Linear(SEEN, 6), how

    def forward(self, x):
        return self.how(self.linear(x))


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("how", "rule"),
    [
        (
            lambda y: y.sum(0),
            r"controller must return a tensor \(B, D\) for B = 2 rows; got \(6,\)",
        ),
        (lambda y: y[:1], r"controller must return .* for B = 2 rows; got \(1, 6\)"),
        (lambda y: (y, y), r"controller must return a tensor \(B, D\); got tuple"),
        (lambda y: y.view(9), r"controller must take \(B, I \+ R \* M = 7\); got RuntimeError: "),
        (lambda y: _raise(KeyError("k")), r"controller must take .* = 7\); got KeyError: 'k'"),
    ],
)
def test_a_controller_that_does_not_fit_is_refused_and_left_in_its_mode(cell, how, rule):
    controller = Broken(how)
    with pytest.raises(ValueError, match=rule):
        cell(3, 2, **SIZES, controller=controller)
    assert controller.training


def make(machine, kind, **options):
    size = {"slots": 5, "width": 4} | options
    kinds = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell, "feed-forward": nn.Linear}
    seen = 3 + size.get("read_heads", 1) * size["width"]
    return machine(3, 2, **size, controller=kinds[kind](seen, 6))


KINDS = ("LSTM", "GRU", "RNN", "feed-forward")


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_number_and_a_gradient(machine, kind):
    net = make(machine, kind)
    assert all(p.numel() for p in net.parameters())
    net(torch.randn(2, 3, 3))[0].sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_state_dicts_have_the_names_that_they_had(machine, kind):
    names = {f"cell.initial_{name}" for name in ("memory", "reads", "hidden", "cell")}
    parts = {f"cell.{layer}.{x}" for layer in ("interface", "output") for x in ("weight", "bias")}
    found = {n for n in make(machine, kind).state_dict() if ".controller." not in n}
    assert found == names | parts


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_lengths_are_integers_of_either_size(machine, dtype):
    net, x = make(machine, "GRU"), torch.randn(3, 4, 3)
    lengths = torch.tensor([0, 2, 4])
    expected, end = net(x, lengths=lengths)
    logits, state = net(x, lengths=lengths.to(dtype))
    assert torch.equal(logits, expected)
    assert all(map(torch.equal, state, end))


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.bool, torch.float64])
def test_lengths_of_another_dtype_are_refused(machine, dtype):
    net, lengths = make(machine, "GRU"), torch.ones(3, dtype=dtype)
    with pytest.raises(TypeError, match=f"lengths must be an int32 or int64 tensor; got {dtype}"):
        net(torch.randn(3, 4, 3), lengths=lengths)


# States in files


def states(machine, kind, **options):
    """States at the start, after a sequence, of rows that end early, and without rows."""
    net = make(machine, kind, **options)
    lengths = torch.tensor([1, 3])
    yield net, net.initial_state(2)
    yield net, net(torch.randn(2, 3, 3))[1]
    yield net, net(torch.randn(2, 3, 3), lengths=lengths)[1]
    yield net, net(torch.randn(2, 0, 3))[1]
    yield net, net.initial_state(0)


HEADS = {"one head": {}, "many heads": {"read_heads": 3, "write_heads": 2}}


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_goes_into_safetensors_and_back(machine, kind, heads, tmp_path):
    library = pytest.importorskip("safetensors.torch")
    for net, state in states(machine, kind, **HEADS[heads]):
        library.save_file(state._asdict(), tmp_path / "state")
        found = library.load_file(tmp_path / "state")
        again = type(state)(**found)
        assert set(found) == set(state._fields)
        assert all(map(torch.equal, again, state))
        x = torch.randn(len(state.memory), 2, 3)
        # views into a file lie at any address: another order of sums
        torch.testing.assert_close(net(x, again)[0], net(x, state)[0])
        again = type(state)(*(part.clone() for part in again))
        assert torch.equal(net(x, again)[0], net(x, state)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_goes_into_a_file_of_torch_and_back(machine, kind, tmp_path):
    for net, state in states(machine, kind):
        torch.save(state.detach(), tmp_path / "state")
        again = torch.load(tmp_path / "state", weights_only=True)
        assert type(again) is type(state)
        x = torch.randn(len(state.memory), 2, 3)
        assert torch.equal(net(x, again)[0], net(x, state)[0])


OTHERS = {  # machines that differ in one size, and the part of the state by which it is told
    "slots": ({"slots": 6}, r"state\.memory must have shape \(B, N, M\).* N = 6"),
    "width": ({"width": 5}, r"state\.memory must have shape \(B, N, M\).* M = 5"),
    "read heads": ({"read_heads": 2}, r"state\.reads must have shape \(B, R, M\).* R = 2"),
    "write heads": ({"write_heads": 2}, r"state\.weights must have shape \(B, H, N\).* H = 3"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_state_of_a_machine_of_other_sizes_is_refused(machine, other):
    _, state = make(machine, "LSTM")(torch.randn(2, 3, 3))
    options, rule = OTHERS[other]
    with pytest.raises(ValueError, match=rule):
        make(machine, "LSTM", **options)(torch.randn(2, 3, 3), type(state)(**state._asdict()))


@pytest.mark.parametrize("theirs", KINDS)
@pytest.mark.parametrize("ours", KINDS)
def test_a_state_of_a_machine_with_another_controller_is_refused(machine, ours, theirs):
    _, state = make(machine, theirs)(torch.randn(2, 3, 3))
    net, x = make(machine, ours), torch.randn(2, 3, 3)
    if {ours, theirs} <= {"GRU", "RNN"} or ours == theirs:  # their states are of one form
        net(x, state)
    else:
        with pytest.raises(ValueError, match=r"state\.(hidden|cell) must have shape \(B, D\)"):
            net(x, state)


def test_a_state_of_the_other_kind_of_machine_is_refused():
    ntm, dnc, x = make(NTM, "LSTM"), make(DNC, "LSTM"), torch.randn(2, 3, 3)
    ours, theirs = ntm(x)[1], dnc(x)[1]
    with pytest.raises(TypeError, match="state must be an NTMState; got DNCState"):
        ntm(x, theirs)
    with pytest.raises(TypeError, match="unexpected keyword argument 'usage'"):
        type(ours)(**theirs._asdict())
    with pytest.raises(TypeError, match="missing 3 required positional arguments: 'usage'"):
        type(theirs)(**ours._asdict())


@pytest.mark.parametrize("rows", [1, 3])
def test_a_state_of_another_number_of_rows_dtype_or_device_is_refused(machine, rows):
    net, x = make(machine, "LSTM"), torch.randn(2, 3, 3)
    with pytest.raises(ValueError, match=r"state\.memory must have shape .*B = 2"):
        net(x, net.initial_state(rows))
    with pytest.raises(TypeError, match="must have the dtype of x"):
        net(x, copy.deepcopy(net).double().initial_state(2))
    with pytest.raises(ValueError, match="must be on the device of x"):
        net(x, copy.deepcopy(net).to("meta").initial_state(2))
