r"""One matrix as memory, written while it is read: what each token erases and adds.

A fact is :math:`k v^T`, and the matrix S a sum of facts. A read with q is :math:`q^T S`, which is
`memlib.read` with q as weights, for S has a slot for each number of a key. The rules of the field
are settings of one write:

=============== ========= ========= =========
rule            erase b   write w   decay d
=============== ========= ========= =========
sum             None      1         None
decayed sum     None      1         a head, or a channel
delta           β         β         None
gated delta     β         β         a head
KDA             β         β         a channel
general         a channel a channel a channel
=============== ========= ========= =========
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from memlib import _checks as checks
from memlib.attention.scores import HALF, _single
from memlib.attention.verbs import _read, _write
from memlib.fast_weights.chunks import by_chunks, in_turn
from memlib.transformer.positions import _check_mask


def matrix_memory(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    state: Tensor | None = None,
    *,
    write: float | Tensor = 1.0,
    erase: float | Tensor | None = None,
    decay: float | Tensor | None = None,
    mask: Tensor | None = None,
    chunk: int = 16,
) -> tuple[Tensor, Tensor]:
    r"""Write, then read: :math:`S_t = (I - k (b \odot k)^T) D S_{t-1} + k (w \odot v)^T`.

    A token reads :math:`o_t = S_t^T q_t`, what it has written included. Keys are taken as they
    are: where they have length 1, and b = w = 1, a value takes the place of the one before it.

    Args:
        query: (B, H, T, M), q.
        keys: (B, H, T, M), k.
        values: (B, H, T, V), v.
        state: (B, H, M, V), the matrix so far; None is zeros, in float32 at least. Detached, it
            ends the way of gradients into the tokens before.
        write: w, how much of a value is written; a number, or a tensor that broadcasts to
            (B, H, T, V).
        erase: b, how much of what the key finds is erased; a number, or a tensor that broadcasts
            to (B, H, T, M). None erases nothing.
        decay: d in [0, 1], the diagonal of D, how much of the matrix stays; a number, or a tensor
            that broadcasts to (B, H, T, M). None keeps all.
        mask: bool (B, T), True = a token. Padding writes, erases, decays and reads nothing, and
            what it holds is not looked at.
        chunk: tokens computed at once, a power of two; 1 is the formula, one token after the
            other. All give the same results, and more than 1 does so many times faster.

    Returns:
        Reads (B, H, T, V), 0 at padding, and the matrix after, (B, H, M, V), with the dtype of
        the one before.

    Accuracy: float32 1e-5, bfloat16 8e-3, float16 1e-3, of the largest number held or read on the
    way, times its condition. Token by token, what is erased takes its roundings along; in a chunk
    they stay.

    Raises:
        TypeError: no floating-point tensor, dtypes that differ, a mask that is not bool.
        ValueError: shapes that do not fit, a decay outside [0, 1], a chunk that is no power of
            two, or NaN.

    Source:
        The general write: Gated DeltaNet-2 (arXiv 2605.22791); in chunks: Yang et al. 2024,
        section 3 (arXiv 2406.06484).

    Example:
        >>> import torch
        >>> from memlib import matrix_memory, read
        >>> key = torch.tensor([1.0, 0.0]).expand(1, 1, 2, 2)
        >>> values = torch.tensor([[3.0], [5.0]]).expand(1, 1, 2, 1)
        >>> _, added = matrix_memory(key, key, values)
        >>> _, replaced = matrix_memory(key, key, values, erase=1.0)
        >>> [read(key[:, :, :1], state).item() for state in (added, replaced)]
        [8.0, 5.0]
    """
    chunk = _check(query, keys, values, state, mask, chunk)
    write = checks.one_each("write", write, values.shape, query, -torch.inf)
    if erase is not None:
        erase = checks.one_each("erase", erase, keys.shape, query, -torch.inf)
    if decay is not None:  # what padding holds of it is not looked at
        limits = (-torch.inf,) if isinstance(decay, Tensor) else (0.0, 1.0)
        decay = _each(checks.one_each("decay", decay, keys.shape, query, *limits), keys)
        checks.within("decay", decay := _at_tokens(decay, mask, elsewhere=1.0), 0, 1)
    options: dict[str, Any] = {"write": write, "erase": erase, "decay": decay}
    reads, after = _matrix_memory(query, keys, values, state, **options, mask=mask, chunk=chunk)
    tensors = {"query": query, "keys": keys, "values": values}
    tokens = {name: _at_tokens(x, mask) for name, x in tensors.items()}
    for result in (reads, after):
        checks.finite(result, **tokens, state=state, **options)
    return reads, after


# The formulas, each in one place. They trust their arguments.


def _matrix_memory(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    state: Tensor | None,
    *,
    write: float | Tensor = 1.0,
    erase: float | Tensor | None = None,
    decay: float | Tensor | None = None,
    mask: Tensor | None = None,
    chunk: int = 16,
) -> tuple[Tensor, Tensor]:
    q, k, v = (_at_tokens(_single(x), mask) for x in (query, keys, values))
    written = _at_tokens(v * write, mask)
    erasing = None if erase is None else _at_tokens(k * erase, mask)
    if decay is not None:
        decay = _at_tokens(_each(decay, keys), mask, elsewhere=1.0)
    before = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1]) if state is None else state
    run = _by_steps if chunk == 1 or query.shape[2] < 2 else by_chunks
    with _exactly(query):
        reads, after = run(q, k, written, erasing, decay, _single(before), chunk)
    return reads.to(query.dtype), after.to(before.dtype)


def _by_steps(
    query: Tensor,
    keys: Tensor,
    written: Tensor,
    erasing: Tensor | None,
    decay: Tensor | None,
    state: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """One token after the other, in memlib's verbs."""
    reads = [written[:, :, :0]]
    tokens = (x if x is None else x.unsqueeze(-2) for x in (query, keys, written, erasing, decay))
    for q, k, v, b, d in in_turn(2, *tokens):
        state = state if d is None else d.mT * state  # D S
        add = v if b is None else v - _read(b, state)  # w v - S^T (b k)
        state = _write(state, k, add)  # a slot for each number of the key
        reads.append(_read(q, state))
    return torch.cat(reads, dim=2), state


def _exactly(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autocast, where it is on, rounds nothing to half precision."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def _at_tokens(x: Tensor, mask: Tensor | None, elsewhere: float = 0.0) -> Tensor:
    """Replace what padding holds, (B, H, T, M), whatever it is."""
    return x if mask is None else x.masked_fill(~mask[:, None, :, None], elsewhere)


def _each(decay: float | Tensor, keys: Tensor) -> Tensor:
    """Return the decay of each token, (B, H, T, M), or (B, H, T, 1) where one number says it."""
    if not isinstance(decay, Tensor):
        return torch.full_like(_single(keys[..., :1]), decay)
    return _single(decay).expand(*keys.shape[:-1], decay.shape[-1] if decay.ndim else 1)


def _check(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    state: Tensor | None,
    mask: Tensor | None,
    chunk: int,
) -> int:
    """Return the chunk, as Python's own number."""
    checks.tensor("query", query)
    checks.shape("query", query, "(B, H, T, M)")
    B, H, T, M = query.shape
    checks.tensor("keys", keys)
    checks.shape("keys", keys, "(B, H, T, M)", B=B, H=H, T=T, M=M)
    checks.tensor("values", values)
    checks.shape("values", values, "(B, H, T, V)", B=B, H=H, T=T)
    checks.alike(query=query, keys=keys, values=values)
    if state is not None:
        checks.tensor("state", state)
        checks.shape("state", state, "(B, H, M, V)", B=B, H=H, M=M, V=values.shape[-1])
        checks.together(query=query, state=state)
        if not (query.dtype in HALF and state.dtype == torch.float32):
            checks.alike(query=query, state=state)
    if mask is not None:
        _check_mask(mask, B, T, query)
    return checks.power_of_two("chunk", chunk)
