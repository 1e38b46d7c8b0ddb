"""Sequences of tokens that a memory is needed for: recall, induction, selective copy."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from memlib import _checks as checks


class Tokens(NamedTuple):
    """Sequences of tokens to be predicted, for B rows of T steps.

    Attributes:
        inputs: (B, T) int64.
        targets: (B, T) int64, the token to name at each step; 0 where none counts.
        mask: (B, T) bool, True = this step's target counts.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor

    def to(self, device: torch.device | str | None) -> "Tokens":
        """Return the same batch on a device."""
        return Tokens(*(x.to(device) for x in self))


def mqar(
    batch_size: int,
    *,
    length: int = 64,
    pairs: int = 4,
    vocab_size: int = 8192,
    power: float = 0.01,
    noise: bool = True,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
) -> Tokens:
    r"""Multi-query associative recall: shown pairs, name the value whenever a key comes again.

    A row shows D pairs key, value, key, value, …; after them each key comes again once, at an
    even distance 2 g from their end, g drawn with chances :math:`\propto (g + 1)^{a - 1}`, no two
    alike, and there its value is the target. The keys of a row differ, and so do its values: keys
    from the lower half of the tokens (but 0), values from the upper half.

    Args:
        batch_size: number of rows B.
        length: steps T of a row, even, at least 4 D.
        pairs: D.
        vocab_size: number of tokens, more than T.
        power: a; 1 asks at all distances alike, less asks sooner.
        noise: fill the other steps after the pairs with random tokens, otherwise with 0.
        generator: the source of chance, on the CPU.
        device: where the batch goes.

    Returns:
        `Tokens`; D targets a row count.

    Raises:
        TypeError: a size is no integer, power no number.
        ValueError: a size below 1, an odd length, more pairs than fit, too few tokens.

    Source:
        Arora et al. 2023, section 4 (arXiv 2312.04927), as in their code.

    Example:
        >>> from memlib import tasks
        >>> batch = tasks.mqar(2, length=16, pairs=4, vocab_size=32)
        >>> batch.inputs.shape, batch.mask.sum(dim=1)
        (torch.Size([2, 16]), tensor([4, 4]))
    """
    batch_size = checks.integer("batch_size", batch_size, 0)
    pairs = checks.integer("pairs", pairs, 1)
    length = checks.integer("length", length, 4 * pairs)
    if length % 2:
        raise ValueError(f"length must be even; got {length}")
    vocab_size = checks.integer("vocab_size", vocab_size, length + 1)
    power = checks.number("power", power, 0)
    half = vocab_size // 2
    keys = 1 + _distinct(batch_size, half - 1, pairs, generator)
    values = half + _distinct(batch_size, vocab_size - half, pairs, generator)
    shown = torch.stack((keys, values), dim=-1).flatten(1)  # (B, 2 D)
    chances = torch.arange(1, length // 2 - pairs + 1, dtype=torch.float64) ** (power - 1)
    chances = chances.expand(batch_size, -1)
    asked = 2 * pairs + 2 * _sample(chances, pairs, generator)  # (B, D), when

    inputs = torch.zeros(batch_size, length, dtype=torch.long)
    targets, mask = torch.zeros_like(inputs), torch.zeros_like(inputs, dtype=torch.bool)
    if noise:
        inputs.random_(0, vocab_size, generator=generator)
    inputs[:, : 2 * pairs] = shown
    inputs.scatter_(1, asked, keys)
    targets.scatter_(1, asked, values)
    mask.scatter_(1, asked, True)
    return Tokens(inputs, targets, mask).to(device)


def induction(
    batch_size: int,
    *,
    length: int = 64,
    period: int | tuple[int, int] = (8, 24),
    vocab_size: int = 64,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
) -> Tokens:
    """Random tokens over and over: from the second time on, each next token can be known.

    A row repeats a block of P tokens, no two alike, until it is full. The target of every step is
    the next token; those count whose input token was seen before: it is the token that followed
    it then, at step t - P + 1. As P differs from row to row, no fixed distance helps.

    Args:
        batch_size: number of rows B.
        length: steps T of a row.
        period: P, or the (lowest, highest) of it, drawn for each row; below T.
        vocab_size: number of tokens, at least P.
        generator: the source of chance, on the CPU.
        device: where the batch goes.

    Returns:
        `Tokens`; T - P targets a row count.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size below 1, an empty range, a period too long for the row or the tokens.

    Source:
        Repeated random tokens: Olsson et al. 2022, "In-context Learning and Induction Heads"
        (arXiv 2209.11895); a period that differs and tokens that differ are ours.

    Example:
        >>> from memlib import tasks
        >>> batch = tasks.induction(1, length=6, period=2)
        >>> bool((batch.targets[:, 2:] == batch.inputs[:, 1:5]).all()), batch.mask
        (True, tensor([[False, False,  True,  True,  True,  True]]))
    """
    batch_size = checks.integer("batch_size", batch_size, 0)
    length = checks.integer("length", length, 2)
    low, high = period if isinstance(period, tuple) and len(period) == 2 else (period, period)
    vocab_size = checks.integer("vocab_size", vocab_size, 1)
    most = min(length - 1, vocab_size)
    low, high = (checks.integer("period", size, 1, most) for size in (low, high))
    if low > high:
        raise ValueError(f"period must be an integer or (lowest, highest); got {period}")
    periods = torch.randint(low, high + 1, (batch_size, 1), generator=generator)
    blocks = _distinct(batch_size, vocab_size, high, generator)
    text = blocks.gather(1, torch.arange(length + 1) % periods)
    mask = torch.arange(length) >= periods
    return Tokens(text[:, :-1].contiguous(), text[:, 1:].contiguous(), mask).to(device)


def selective_copy(
    batch_size: int,
    *,
    length: int = 64,
    items: int = 8,
    vocab_size: int = 16,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
) -> Tokens:
    """Among blanks come a few tokens; name them afterwards, in their order.

    A row takes L + K steps: L in which K tokens from 2 on lie at random places, the others blank
    (token 0), and K steps of token 1 in which they are the targets.

    Args:
        batch_size: number of rows B.
        length: L.
        items: K, at most L.
        vocab_size: number of tokens, blank and marker included.
        generator: the source of chance, on the CPU.
        device: where the batch goes.

    Returns:
        `Tokens`; the last K targets of a row count.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size below 1, more items than steps, fewer than 3 tokens.

    Source:
        Gu and Dao 2023, section 4.1.1 (arXiv 2312.00752), after Jing et al. 2019
        (arXiv 1706.02761).

    Example:
        >>> from memlib import tasks
        >>> batch = tasks.selective_copy(1, length=6, items=2)
        >>> said = batch.inputs[:, :6]
        >>> bool((said[said > 1] == batch.targets[:, 6:]).all())
        True
    """
    batch_size = checks.integer("batch_size", batch_size, 0)
    items = checks.integer("items", items, 1)
    length = checks.integer("length", length, items)
    vocab_size = checks.integer("vocab_size", vocab_size, 3)
    places = _distinct(batch_size, length, items, generator).sort(dim=1).values
    said = torch.randint(2, vocab_size, (batch_size, items), generator=generator)
    inputs = torch.zeros(batch_size, length + items, dtype=torch.long)
    inputs[:, length:] = 1
    inputs.scatter_(1, places, said)
    targets = torch.zeros_like(inputs)
    targets[:, length:] = said
    mask = (torch.arange(length + items) >= length).repeat(batch_size, 1)
    return Tokens(inputs, targets, mask).to(device)


def _distinct(rows: int, of: int, number: int, generator: Generator | None) -> Tensor:
    """Draw `number` different integers in [0, of) for each row, in random order."""
    return torch.rand(rows, of, generator=generator).topk(number, dim=1).indices


def _sample(chances: Tensor, number: int, generator: Generator | None) -> Tensor:
    """Draw `number` different places for each row, one after the other, by their chances."""
    if not len(chances):
        return torch.zeros(0, number, dtype=torch.long)
    return torch.multinomial(chances, number, replacement=False, generator=generator)
