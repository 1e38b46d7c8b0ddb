"""A matrix as memory: step by step, by chunks and as a product of matrices, it is one write."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from memlib import fast_weights

B, H, T, M, V = 2, 3, 21, 5, 4
CHUNKS = [1, 2, 8, 16, 64]


def draw(*shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random, dtype=torch.float64)


def uniform(*shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=random, dtype=torch.float64)


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

    assert_close(call(fast_weights, chunk=chunk), call(closed_form), rtol=1e-10, atol=1e-10)
