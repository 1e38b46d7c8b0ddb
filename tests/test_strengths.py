"""Every strength is a number, or a tensor that learns; so are the gates that stand beside it."""

import copy

import pytest
import torch
from devices import Lent
from torch import nn
from torch.testing import assert_close

import memlib
from memlib import Hopfield, MemorizingAttention, programs

B, L, N, M, H = 2, 3, 5, 4, 2
random = torch.Generator().manual_seed(0)
query, keys, values, logits = (
    torch.randn(B, n, m, generator=random, dtype=torch.float64)
    for n, m in ((L, M), (N, M), (N, M), (L, N))
)
x = torch.randn(B, L, M, generator=random, dtype=torch.float64)


def stored(value_dtype=None):
    store = memlib.Store(M, 1 if value_dtype else M, batch_size=B, dtype=torch.float64,
                         value_dtype=value_dtype)  # fmt: skip
    store.add(keys, torch.arange(N).expand(B, -1).unsqueeze(-1) if value_dtype else values)
    return store


def held():
    memory = memlib.KeyValueMemory(N, M, dtype=torch.float64)
    return memory, memory.write(keys, values, memory.initial_state(B))


def of_program(strength, sharpening=2.0):
    def program():
        yield programs.Step(key=keys[0, 0], strength=strength)
        yield programs.Step(move=1, sharpening=sharpening)

    return programs.run(program(), keys[0]).reads


def of_layer(strength):
    torch.manual_seed(0)
    layer = MemorizingAttention(M, H, k=2, strength=strength, dtype=torch.float64)
    memory = layer.memory(B)
    _, memory = layer(values[:, :L], memory)
    return layer(x, memory)[0]


def of_matrix(**gates):
    heads = (y.unsqueeze(1) for y in (query, keys[:, :L], values[:, :L]))
    return memlib.matrix_memory(*heads, **gates, chunk=2)[0]


weights = keys.softmax(-1)
# of each use: the call, and the shape that it broadcasts against
USES = {
    "address": (lambda s: memlib.address(query, keys, strength=s), (B, L)),
    "address-top_k": (lambda s: memlib.address(query, keys, strength=s, top_k=2), (B, L)),
    "attend": (lambda s: memlib.attend(query, keys, values, strength=s), (B, L)),
    "KeyValueMemory.read": (lambda s: held()[0].read(query, held()[1], strength=s), (B, L)),
    "Hopfield": (lambda s: Hopfield(s, steps=2)(query, keys), (B, L)),
    "Hopfield.energy": (lambda s: Hopfield(s).energy(query, keys), (B, L)),
    "Store.address": (lambda s: stored().address(query, 2, strength=s)[1], (B, L)),
    "Store.read": (lambda s: stored().read(query, 2, strength=s), (B, L)),
    "Store.read-all": (lambda s: stored().read(query, N, strength=s), (B, L)),
    "retrieve": (lambda s: memlib.retrieve(query, Lent(stored()), 2, strength=s), (B, L)),
    "knn_lm-strength": (
        lambda s: memlib.knn_lm(logits, query, stored(torch.long), 3, strength=s), (B, L)
    ),
    "knn_lm-mix": (
        lambda s: memlib.knn_lm(logits, query, stored(torch.long), 3, mix=s / 9), (B, L)
    ),
    "MemorizingAttention": (of_layer, (B, H, L)),
    "interpolate": (lambda s: memlib.interpolate(weights, weights.flip(-1), s / 9), (B, N)),
    "sharpen": (lambda s: memlib.sharpen(weights, s), (B, N)),
    "fast_weights-write": (lambda s: of_matrix(write=s), (B, 1, L, M)),
    "fast_weights-erase": (lambda s: of_matrix(erase=s), (B, 1, L, M)),
    "fast_weights-decay": (lambda s: of_matrix(decay=s / 9), (B, 1, L, M)),
    "programs.Step.strength": (of_program, ()),
    "programs.Step.sharpening": (lambda s: of_program(1.5, s), ()),
}  # fmt: skip
every_use = pytest.mark.parametrize("name", USES)


@every_use
def test_a_tensor_is_the_number(name):
    call, against = USES[name]
    expected = call(1.7)
    for shape in {(), (1,) * len(against), against}:
        assert_close(call(torch.full(shape, 1.7, dtype=torch.float64)), expected)


@every_use
def test_it_learns(name):
    call, against = USES[name]
    for shape in {(), against[-1:], against}:
        strength = torch.linspace(1.1, 2.0, torch.Size(shape).numel(), dtype=torch.float64)
        strength = strength.view(shape).requires_grad_()
        assert torch.autograd.gradcheck(call, strength)
        learned = nn.Parameter(strength.detach())
        assert call(learned).requires_grad


@pytest.mark.parametrize("make", [Hopfield, lambda s: MemorizingAttention(4, 2, strength=s)])
def test_a_module_keeps_it_as_what_it_is(make):
    of_number = make(2.0)
    assert of_number.strength == 2.0
    assert "strength=2.0" in repr(of_number)
    assert "strength" not in of_number.state_dict()
    learned = make(nn.Parameter(torch.ones(2, 1)))
    assert "strength" in dict(learned.named_parameters())
    assert "strength=Parameter of shape (2, 1)" in repr(learned)
    fixed = make(torch.ones(()))
    assert "strength" in dict(fixed.named_buffers())
    assert "strength" not in dict(fixed.named_parameters())
    assert "strength=Tensor of shape ()" in repr(fixed)
    for module in (learned, fixed):
        assert module.double().strength.dtype == torch.float64
        other = copy.deepcopy(module)
        other.load_state_dict({n: 3 * v for n, v in module.state_dict().items()})
        assert_close(other.strength, 3 * module.strength)
        assert other.strength is not module.strength


def test_a_hopfield_network_without_a_tensor_keeps_nothing():
    assert Hopfield(2.0).state_dict() == {}


def test_a_step_of_an_optimiser_sharpens_what_is_too_blunt():
    net = Hopfield(nn.Parameter(torch.tensor(0.1, dtype=torch.float64)))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.5)
    losses = []
    for _ in range(5):
        loss = (net(keys, keys) - keys).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert net.strength.item() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_query_with_nothing_to_read_gives_a_finite_gradient(dtype):
    mask = torch.tensor([[False] * N, [True] * N, [False] * N])
    for value in (0.01, 1.0, 30.0):
        net = Hopfield(nn.Parameter(torch.tensor(value, dtype=dtype)))
        energy = net.energy(query.to(dtype), keys.to(dtype), mask=mask)
        retrieved = net(query.to(dtype), keys.to(dtype), mask=mask)
        (energy.sum() + retrieved.sum()).backward()
        assert net.strength.grad.isfinite()
        assert_close(energy[:, 0], query[:, 0].square().sum(-1).to(dtype) / 2)


def test_a_layer_refuses_what_became_negative():
    layer = MemorizingAttention(4, 2, strength=nn.Parameter(torch.ones(())))
    layer.strength.data.fill_(-1)
    with pytest.raises(ValueError, match="strength must be at least 0; got -1"):
        layer(torch.ones(1, 2, 4))
    with pytest.raises(ValueError, match="strength must be at least 0; got -1"):
        MemorizingAttention(4, 2, strength=torch.tensor(-1.0))
