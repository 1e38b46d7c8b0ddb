r"""Learning while reading: a small network, and a step down its own loss at each token.

A memory :math:`f(x) = W_2^T \phi(x)` holds a fact if its key brings back its value. What it goes
down is the loss :math:`\frac12 |f(k) - v|^2`. The gradients are written out, so that a training
may go through them as through all else: :math:`\partial W_2 = \phi(k)\, e^T`, with the error
:math:`e = f(k) - v`, and :math:`\partial W_1 = k\, (\phi' \odot W_2 e)^T`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from memlib._files import plain
from memlib.attention.scores import _single
from memlib.fast_weights.chunks import _between, _cut
from memlib.fast_weights.rules import _at_tokens, _exactly


@plain
class NeuralState(NamedTuple):
    """The network that is a memory, one a row and head, and where its steps are heading.

    Attributes:
        first: (B, H, M, N), W_1; without hidden units N is 0.
        second: (B, H, N, V), W_2; without hidden units (B, H, M, V).
        momentum_first: as `first`.
        momentum_second: as `second`.
    """

    first: Tensor
    second: Tensor
    momentum_first: Tensor
    momentum_second: Tensor

    def detach(self) -> "NeuralState":
        """Return the same state, through which no gradient flows back."""
        return NeuralState(*(x.detach() for x in self))


class _Steps(NamedTuple):
    """What the weights at each token of a chunk, and the momentum after it, are made of."""

    weights: Tensor  # (..., C, 1), how much of the weights before the chunk
    momentum: Tensor  # (..., C, 1), of the momentum before it
    gradients: Tensor  # (..., C, C), of the gradient of each of its tokens
    last_momentum: Tensor  # (..., 1, 1), of the momentum before, in that after
    last_gradients: Tensor  # (..., C, 1), of each gradient


def learn(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    state: NeuralState,
    *,
    rate: Tensor,
    momentum: Tensor,
    forget: Tensor,
    mask: Tensor | None = None,
    chunk: int = 16,
) -> tuple[Tensor, NeuralState, Tensor, Tensor]:
    r"""Learn, then read, token by token: :math:`o_t = f(q_t)` with the weights :math:`W_t`.

    :math:`S_t = \eta_t S_{t-1} - \theta_t \nabla_t` and :math:`W_t = (1 - \alpha_t) W_{t-1} + S_t`.
    The gradients of a chunk are all taken at the weights before it, so that a chunk takes a few
    products of matrices. It trusts its arguments.

    Args:
        query: (B, H, T, M).
        keys: (B, H, T, M).
        values: (B, H, T, V).
        state: where the text before has led.
        rate: :math:`\theta`, (B, H, T, 1).
        momentum: :math:`\eta` in [0, 1], (B, H, T, 1).
        forget: :math:`\alpha` in [0, 1], (B, H, T, 1).
        mask: bool (B, T), True = a token; padding teaches nothing and reads 0.
        chunk: tokens C whose gradients are taken at once, a power of two. It is a part of the
            rule: the smaller, the fresher the gradients.

    Returns:
        Reads (B, H, T, V); the state after; the weights of the units in each read, (B, H, T, N);
        and the loss of each token at the weights before its chunk, (B, H, T).

    Source:
        Behrouz, Zhong, Mirrokni 2025, eq. 8 to 15 (arXiv 2501.00663); gradients at the weights
        before a chunk: Sun et al. 2024, section 2.4 (arXiv 2407.04620).

    Example:
        >>> import torch
        >>> from memlib.fast_weights.learning import NeuralState, learn
        >>> nothing = torch.zeros(1, 1, 2, 0), torch.zeros(1, 1, 2, 1)
        >>> key, value = torch.tensor([1.0, 0.0]).expand(1, 1, 3, 2), torch.ones(1, 1, 3, 1)
        >>> rate, none = torch.full((1, 1, 3, 1), 0.5), torch.zeros(1, 1, 3, 1)
        >>> start = NeuralState(*nothing, *nothing)
        >>> read, *_ = learn(
        ...     key, key, value, start, rate=rate, momentum=none, forget=none, chunk=1
        ... )
        >>> read.flatten()
        tensor([0.5000, 0.7500, 0.8750])
    """
    q, k, v = (_at_tokens(_single(x), mask) for x in (query, keys, values))
    theta, taught = (_at_tokens(_single(x), mask) for x in (rate, torch.ones_like(rate)))
    eta, kept = (_at_tokens(_single(x), mask, elsewhere=1.0) for x in (momentum, 1 - forget))
    gates = (_cut(x, chunk, fill) for x, fill in ((theta, 0.0), (taught, 0.0), (eta, 1), (kept, 1)))
    W1, W2, S1, S2 = (_single(x).flatten(0, 1) for x in state)
    hidden, widths = W1.shape[-1], (v.shape[-1], W2.shape[-2], 1)
    found = [tuple(W2.new_zeros(len(W2), 0, width) for width in widths)]
    tokens = [_cut(x, chunk) for x in (q, k, v)]  # (T / C, B H, C, ·)
    with _exactly(query):
        for q, k, v, *step in zip(*tokens, *_steps(*gates), strict=True):
            units, slope = _units(k @ W1) if hidden else (k, k)
            error = units @ W2 - v
            if hidden:
                back = slope * (error @ W2.mT)
                q, W1, S1 = _descend(q, W1, S1, k, back, _Steps(*step))
                q, _ = _units(q)
            read, W2, S2 = _descend(q, W2, S2, units, error, _Steps(*step))
            found.append((read, q, error.square().sum(dim=-1, keepdim=True) / 2))
    ends = zip((W1, W2, S1, S2), state, strict=True)
    after = NeuralState(*(end.view_as(start).to(start.dtype) for end, start in ends))
    read, weights, loss = (_join(parts, query) for parts in zip(*found, strict=True))
    return read.to(query.dtype), after, weights.to(query.dtype), loss.squeeze(-1)


def _units(z: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\phi = \text{SiLU}(z) / \sqrt N` and its slope."""
    gate, scale = z.sigmoid(), z.shape[-1] ** -0.5
    return scale * z * gate, scale * gate * (1 + z * (1 - gate))


def _steps(theta: Tensor, taught: Tensor, eta: Tensor, kept: Tensor) -> _Steps:
    """Sum up the steps of each chunk; all (T / C, B H, C, 1)."""
    one = torch.ones_like(theta)
    (heading,), (since,), _, _ = _between([one], one, eta)  # what is left of a step as momentum
    (left,), (weights,), _, _ = _between([one], one, kept)  # and as weights
    left = left * taught.mT
    gradients = heading * theta.mT
    last = since[..., -1:, :], gradients[..., -1:, :].mT
    return _Steps(weights, left @ since, left @ gradients, *last)


def _descend(
    x: Tensor, W: Tensor, S: Tensor, at: Tensor, gradient: Tensor, step: _Steps
) -> tuple[Tensor, Tensor, Tensor]:
    """Go through a chunk; a token's gradient is the product of its `at` and `gradient`.

    Returns x_t W_t of each token, and the weights and the momentum after the last.
    """
    new = (x @ at.mT * step.gradients) @ gradient
    through = step.weights * (x @ W) + step.momentum * (x @ S) - new
    weights, momentum, gradients = (part[..., -1:, :] for part in step[:3])
    W = weights * W + momentum * S - (at * gradients.mT).mT @ gradient
    return through, W, step.last_momentum * S - (at * step.last_gradients).mT @ gradient


def _join(chunks: tuple[Tensor, ...], query: Tensor) -> Tensor:
    """Put chunks (B H, C, ·) together: (B, H, T, ·)."""
    tokens = torch.cat(chunks, dim=1)[:, : query.shape[2]]
    joined: Tensor = tokens.unflatten(0, query.shape[:2])
    return joined
