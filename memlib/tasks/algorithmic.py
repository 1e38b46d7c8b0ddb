"""Copy, repeat copy, associative recall and priority sort (Graves, Wayne, Danihelka 2014).

Every row has sizes of its own, and all rows are made at once: step t of a row asks for vector
number ``index[t]`` of that row's random vectors, and index is arithmetic on t.
"""

import torch
from torch import Generator, Tensor

from memlib import _checks as checks
from memlib.tasks.batch import Batch

Range = int | tuple[int, int]


def copy(
    batch_size: int,
    *,
    length: Range = (1, 20),
    bits: int = 8,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Batch:
    """Repeat a sequence of random vectors once it is over.

    A row of length L takes 2 L + 1 steps: L vectors, a delimiter on a channel of its own, and L
    steps without input, in which the vectors are the targets.

    Args:
        batch_size: number of rows B.
        length: L, or the (lowest, highest) of it, drawn for each row.
        bits: bits of a vector.
        generator: the source of chance, on the CPU.
        device: where the batch goes.
        dtype: of inputs and targets.

    Returns:
        A `Batch` with bits + 1 inputs and `bits` outputs.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size below 1, or an empty range.

    Source:
        Graves, Wayne, Danihelka 2014, section 4.1.

    Example:
        >>> from memlib import tasks
        >>> batch = tasks.copy(2, length=3)
        >>> bool((batch.targets[:, 4:] == batch.inputs[:, :3, :8]).all())
        True
    """
    rows, longest = _sizes(batch_size, "length", length, generator)
    bits = checks.integer("bits", bits, 1)
    vectors = _vectors(batch_size, longest, bits, generator)
    lengths = 2 * rows + 1
    t, L = _steps(2 * longest + 1, rows)
    answer = (t > L) & (t <= 2 * L)
    inputs = torch.cat((_place(vectors, t, t < L), _mark(t == L)), dim=-1)
    return _batch(inputs, _place(vectors, t - L - 1, answer), answer, lengths, device, dtype)


def repeat_copy(
    batch_size: int,
    *,
    length: Range = (1, 10),
    repeats: Range = (1, 10),
    bits: int = 8,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Batch:
    """Repeat a sequence of random vectors as often as asked, then say that it is over.

    A row takes L + 1 + L n + 1 steps: L vectors; a delimiter, with n on a channel of its own,
    scaled so that 1 to 10 have mean 0 and variance 1; n times the vectors as targets; the end
    marker as the last target, on a channel of its own.

    Args:
        batch_size: number of rows B.
        length: L, or the (lowest, highest) of it, drawn for each row.
        repeats: n, or its (lowest, highest).
        bits: bits of a vector.
        generator: the source of chance, on the CPU.
        device: where the batch goes.
        dtype: of inputs and targets.

    Returns:
        A `Batch` with bits + 2 inputs and bits + 1 outputs.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size below 1, or an empty range.

    Source:
        Graves, Wayne, Danihelka 2014, section 4.2.

    Example:
        >>> from memlib import tasks
        >>> tasks.repeat_copy(1, length=2, repeats=3).mask.int()
        tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1, 1]], dtype=torch.int32)
    """
    rows, longest = _sizes(batch_size, "length", length, generator)
    times, _ = _sizes(batch_size, "repeats", repeats, generator)
    bits = checks.integer("bits", bits, 1)
    vectors = _vectors(batch_size, longest, bits, generator)
    lengths = rows * (times + 1) + 2
    t, L = _steps(int(lengths.max()) if batch_size else 0, rows)
    end = L * (times.unsqueeze(-1) + 1) + 1
    copying = (t > L) & (t < end)
    count = (t == L) * ((times.unsqueeze(-1) - 5.5) / 8.25**0.5)
    inputs = (_place(vectors, t, t < L), _mark(t == L), count.unsqueeze(-1))
    targets = (_place(vectors, (t - L - 1) % L, copying), _mark(t == end))
    return _batch(
        torch.cat(inputs, dim=-1), torch.cat(targets, dim=-1), copying | (t == end), lengths,
        device, dtype,
    )  # fmt: skip


def associative_recall(
    batch_size: int,
    *,
    items: Range = (2, 6),
    item_length: int = 3,
    bits: int = 6,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Batch:
    """Shown a list of items and one of them again, name the item after it.

    A row of K items of l vectors takes K (l + 1) + 2 l + 2 steps: each item behind a delimiter;
    the query between two delimiters of another channel, any item but the last; and l steps in
    which the vectors of the next item are the targets.

    Args:
        batch_size: number of rows B.
        items: K, at least 2, or its (lowest, highest), drawn for each row.
        item_length: vectors of an item, l.
        bits: bits of a vector.
        generator: the source of chance, on the CPU.
        device: where the batch goes.
        dtype: of inputs and targets.

    Returns:
        A `Batch` with bits + 2 inputs and `bits` outputs.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size below 1, fewer than 2 items, or an empty range.

    Source:
        Graves, Wayne, Danihelka 2014, section 4.3.

    Example:
        >>> from memlib import tasks
        >>> batch = tasks.associative_recall(1, items=2)
        >>> bool((batch.targets[:, -3:] == batch.inputs[:, 5:8, :6]).all())  # the second item
        True
    """
    rows, most = _sizes(batch_size, "items", items, generator, least=2)
    item_length = checks.integer("item_length", item_length, 1)
    bits = checks.integer("bits", bits, 1)
    size, block = item_length, item_length + 1
    vectors = _vectors(batch_size, most * size, bits, generator)
    asked = (torch.rand(batch_size, generator=generator) * (rows - 1)).long().unsqueeze(-1)
    lengths = rows * block + 2 * size + 2
    t, K = _steps(most * block + 2 * size + 2, rows)
    shown = t < K * block
    u = t - K * block  # steps since the first query delimiter
    start, query = shown & (t % block == 0), (u > 0) & (u <= size)
    answer = (u > size + 1) & (u <= 2 * size + 1)
    index = torch.where(shown, t // block * size + t % block - 1, asked * size + u - 1)
    inputs = (
        _place(vectors, index, (shown & ~start) | query), _mark(start),
        _mark((u == 0) | (u == size + 1)),
    )  # fmt: skip
    targets = _place(vectors, (asked + 1) * size + u - size - 2, answer)
    return _batch(torch.cat(inputs, dim=-1), targets, answer, lengths, device, dtype)


def priority_sort(
    batch_size: int,
    *,
    items: int = 20,
    kept: int = 16,
    bits: int = 8,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Batch:
    """Shown vectors with priorities, name those of the highest, the highest first.

    A row takes items + 1 + kept steps: the vectors, each with a priority uniform in [-1, 1] on
    a channel of its own; a delimiter; and `kept` steps in which the sorted vectors are targets.

    Args:
        batch_size: number of rows B.
        items: vectors shown.
        kept: vectors asked for, at most `items`.
        bits: bits of a vector.
        generator: the source of chance, on the CPU.
        device: where the batch goes.
        dtype: of inputs and targets.

    Returns:
        A `Batch` with bits + 2 inputs and `bits` outputs.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size below 1, or more kept than shown.

    Source:
        Graves, Wayne, Danihelka 2014, section 4.5.

    Example:
        >>> from memlib import tasks
        >>> batch = tasks.priority_sort(1, items=4, kept=1)
        >>> best = batch.inputs[0, :4, 8].argmax()
        >>> bool((batch.targets[0, -1] == batch.inputs[0, best, :8]).all())
        True
    """
    batch_size = checks.integer("batch_size", batch_size, 0)
    items = checks.integer("items", items, 1)
    kept = checks.integer("kept", kept, 1, items)
    bits = checks.integer("bits", bits, 1)
    vectors = _vectors(batch_size, items, bits, generator)
    priority = 2 * torch.rand(batch_size, items, generator=generator) - 1
    order = priority.argsort(dim=-1, descending=True)[:, :kept]
    lengths = torch.full((batch_size,), items + 1 + kept)
    inputs = vectors.new_zeros(batch_size, items + 1 + kept, bits + 2)
    inputs[:, :items, :bits] = vectors
    inputs[:, :items, bits] = priority
    inputs[:, items, bits + 1] = 1
    targets = vectors.new_zeros(batch_size, items + 1 + kept, bits)
    targets[:, items + 1 :] = vectors.gather(1, order.unsqueeze(-1).expand(-1, -1, bits))
    answer = (torch.arange(items + 1 + kept) > items).repeat(batch_size, 1)
    return _batch(inputs, targets, answer, lengths, device, dtype)


def _sizes(
    batch_size: int, name: str, size: Range, generator: Generator | None, least: int = 1
) -> tuple[Tensor, int]:
    """Draw a size for each row; return them (B,) and the largest."""
    batch_size = checks.integer("batch_size", batch_size, 0)
    low, high = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
    low, high = (checks.integer(name, end, least) for end in (low, high))
    if low > high:
        raise ValueError(f"{name} must be an integer or (lowest, highest); got {size}")
    rows = torch.randint(low, high + 1, (batch_size,), generator=generator)
    return rows, int(rows.max()) if batch_size else 0


def _vectors(batch: int, number: int, bits: int, generator: Generator | None) -> Tensor:
    return torch.randint(0, 2, (batch, number, bits), generator=generator).float()


def _steps(number: int, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the steps (1, T) and the sizes of the rows (B, 1), to be compared."""
    return torch.arange(number).unsqueeze(0), rows.unsqueeze(-1)


def _place(vectors: Tensor, index: Tensor, where: Tensor) -> Tensor:
    """Return vector number index[t] of each row at step t; 0 where `where` is False."""
    index = (index * where).unsqueeze(-1).expand(-1, -1, vectors.shape[-1])
    return vectors.gather(1, index) * where.unsqueeze(-1)


def _mark(where: Tensor) -> Tensor:
    return where.unsqueeze(-1).float()


def _batch(
    inputs: Tensor,
    targets: Tensor,
    mask: Tensor,
    lengths: Tensor,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> Batch:
    return Batch(inputs, targets, mask, lengths).to(device, dtype)
