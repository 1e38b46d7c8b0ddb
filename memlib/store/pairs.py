"""Pairs of keys and values with ids that stay, in slots that are used again: what a store holds."""

import copy
import pickle
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses import FakeTensor

from memlib import _checks as checks
from memlib.store.locks import alone, lock, outlasting
from memlib.transformer.entering import _check_finite
from memlib.transformer.positions import _check_lengths

Ints = NDArray[np.int64]
FEWEST = 16  # slots, once there is a pair


class Pairs:
    """Rows of pairs, changed in place; a pair keeps its id, and the first give way to the last.

    It is to each row what a dict is, with ids that it gives out itself: 0, 1, 2 and so on, none
    twice. A pair that is overwritten keeps its place in the order. After an error all is as it
    was.

    Attributes:
        keys: (B, N, M), in slots without a promised order; N grows up to the capacity.
        values: (B, N, V).
        ids: (B, N) int64; -1 for an empty slot, whose key and value are 0.
    """

    @outlasting
    def __init__(
        self, batch_size: int, width: int, value_width: int, capacity: int | None,
        value_dtype: torch.dtype | None, **factory: Any,
    ) -> None:  # fmt: skip
        batch_size = checks.integer("batch_size", batch_size, 0)
        self.width = width = checks.integer("width", width, 1)
        self.value_width = value_width = checks.integer("value_width", value_width, 1)
        self.capacity = None if capacity is None else checks.integer("capacity", capacity, 1)
        # one empty slot from the start, so that an empty store is read like any other
        self.keys = torch.zeros(batch_size, 1, width, **factory)
        checks.tensor("dtype", self.keys)
        self.values = self.keys.new_zeros(batch_size, 1, value_width, dtype=value_dtype)
        self._check_values("value_dtype", self.values)
        self.ids = self.keys.new_full((batch_size, 1), -1, dtype=torch.long)
        # counted on the host, so that adding need not wait for the device
        self._next: Ints = np.zeros(batch_size, np.int64)  # the id that comes next
        self._held: Ints = np.zeros(batch_size, np.int64)  # how many pairs there are
        self._used = 0  # from this slot on, all are empty
        self._ring = True  # as long as nothing is deleted, id n lies in slot n mod N
        self._lock = lock()

    @outlasting
    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self)] = other = object.__new__(type(self))
        with self._lock:
            other._become(copy.deepcopy(self._parts(), memo))
        return other

    def __copy__(self) -> Self:
        return copy.deepcopy(self)  # else half of it would be shared, what is changed in place

    def __getstate__(self) -> dict[str, Any]:
        # as bytes, which nobody changes later; tensors would be shared with a worker
        with self._lock:
            return {"parts": pickle.dumps(self._parts())}

    @outlasting
    def __setstate__(self, state: dict[str, Any]) -> None:
        self._become(pickle.loads(state["parts"]))

    def _parts(self) -> dict[str, Any]:
        """Return what a copy needs."""
        return {name: part for name, part in vars(self).items() if name != "_lock"}

    def _become(self, parts: Mapping[str, Any]) -> None:
        vars(self).update(parts)
        self._lock = lock()

    @property
    def lengths(self) -> Tensor:
        """How many pairs each row holds, (B,) int64."""
        return torch.from_numpy(self._held.copy()).to(self.ids.device)

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and ids in all N slots; an index comes on top."""
        return self.keys.nbytes + self.values.nbytes + self.ids.nbytes

    @alone
    def add(self, keys: Tensor, values: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """Append pairs; where a row is full, its first pairs make room.

        Args:
            keys: (B, T, M).
            values: (B, T, V).
            lengths: (B,) integers in [0, T]; row b adds only its first ``lengths[b]`` pairs.

        Returns:
            The new ids (B, T) int64; -1 for what is not added.

        Raises:
            TypeError: wrong dtypes.
            ValueError: wrong shapes; lengths outside [0, T]; NaN or infinity.
        """
        new = self._check_pairs(keys, values, lengths)  # (B,)
        self._reserve(int((self._held + new).max(initial=0)))
        slots, order = self.ids.shape[1], np.arange(keys.shape[1])
        ids = np.where(order < new[:, None], self._next[:, None] + order, -1)  # (B, T)
        turn = order - (new - slots).clip(min=0)[:, None]  # of more than N, the last N stay
        row, pair = ((ids >= 0) & (turn >= 0)).nonzero()
        slot = ids[row, pair] % slots
        if not self._ring:  # free slots first, then those of the first pairs
            free = torch.arange(slots, device=self.ids.device) - slots
            age = torch.where(self.ids < 0, free, self.ids)
            first = age.topk(min(int(new.max(initial=0)), slots), largest=False).indices
            slot = first.cpu().numpy()[row, turn[row, pair]]
        given = torch.from_numpy(ids)
        chosen = torch.from_numpy(row), torch.from_numpy(pair)
        self._put(row, slot, keys[chosen], values[chosen], given[chosen])
        self._next, self._held = self._next + new, (self._held + new).clip(max=slots)
        self._used = max(self._used, int(self._held.max(initial=0)))
        return given.to(self.ids.device)

    @alone
    def overwrite(self, ids: Tensor, keys: Tensor, values: Tensor) -> None:
        """Replace pairs, which keep their ids and their places in the order.

        Args:
            ids: (B, T) integers, none twice in a row; -1 leaves a pair out.
            keys: (B, T, M).
            values: (B, T, V).

        Raises:
            TypeError: wrong dtypes.
            ValueError: wrong shapes; an id that is not held, or comes twice; NaN or infinity.
        """
        self._check_pairs(keys, values, None)
        checks.integers("ids", ids)
        checks.shape("ids", ids, "(B, T)", B=len(keys), T=keys.shape[1])
        slots = self._slots(ids)
        row, pair = (ids >= 0).nonzero(as_tuple=True)
        slot, new = slots[row, pair], (keys[row, pair], values[row, pair], ids[row, pair])
        both = (row * self.ids.shape[1] + slot).sort().values
        if checks.anywhere(twice := both[1:] == both[:-1]):
            got = int(self.ids.flatten()[both[1:][twice][0]])
            raise ValueError(f"ids must differ within a row; got {got} twice")
        self._put(row.cpu().numpy(), slot.cpu().numpy(), *new)

    @alone
    def delete(self, ids: Tensor) -> None:
        """Forget pairs, whose keys and values become 0; (B, ...) integers, -1 for none.

        ``store.delete(store.ids)`` forgets them all, ``store.delete(store.near(query, 0.1))``
        those that lie about a query. To a store of one row, all rows of `ids` are
        its own; so they are to `get`.

        Raises:
            TypeError: ids of another dtype.
            ValueError: wrong shape, or an id that is not held.
        """
        _check_plain(ids)
        slots = self._slots(ids)
        row, pair = (slots >= 0).nonzero(as_tuple=True)
        both = row * self.ids.shape[1] + slots[row, pair]  # an id may come twice
        row, slot = np.divmod(both.unique().cpu().numpy(), self.ids.shape[1])
        nothing = self.keys.new_zeros(())
        self._put(row, slot, nothing, nothing, nothing - 1)
        self._held = self._held - np.bincount(row, minlength=len(self._held))
        self._ring = self._ring and not len(row)

    @alone
    def get(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys (..., M) and values (..., V) of ids, (B, ...) integers; 0 for -1.

        Raises:
            TypeError: ids of another dtype.
            ValueError: wrong shape, or an id that is not held.
        """
        slots = self._slots(ids)
        keys, values = (self._at(buffer, slots) for buffer in (self.keys, self.values))
        empty = (slots < 0).unsqueeze(-1)
        keys, values = keys.masked_fill(empty, 0), values.masked_fill(empty, 0)
        return keys.reshape(*ids.shape, self.width), values.reshape(*ids.shape, self.value_width)

    def _all(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys, values and ids of the slots in use."""
        used = max(self._used, 1)
        return self.keys[:, :used], self.values[:, :used], self.ids[:, :used]

    def _at(self, buffer: Tensor, slots: Tensor) -> Tensor:
        """(B or 1, N, M), (B, ...) -> (B, ..., M), and anything for slot -1."""
        slots = slots.clamp(min=0)
        if len(buffer) > 1:  # where all rows are one, each begins further on
            first = buffer.shape[1] * torch.arange(len(buffer), device=slots.device)
            slots = slots + first.view(-1, *[1] * (slots.ndim - 1))
        return F.embedding(slots, buffer.flatten(0, 1))  # whole vectors, sooner than an index

    def _put(self, row: Ints, slot: Ints, keys: Tensor, values: Tensor, ids: Tensor) -> None:
        where = torch.from_numpy(row), torch.from_numpy(slot)
        with torch.no_grad():
            for buffer, new in ((self.keys, keys), (self.values, values), (self.ids, ids)):
                buffer[where] = new.to(buffer)
        self._touch(row, slot)

    def _touch(self, row: Ints, slot: Ints) -> None:
        """Called after a change, with the slots that changed."""

    def _slots(self, ids: Tensor) -> Tensor:
        """Return the slots of ids (B, ...) as (B, T); -1 for -1. One row holds all of any ids."""
        checks.integers("ids", ids)
        ids = ids.long()
        checks.alike(**{"the store's ids": self.ids, "ids": ids})
        checks.rows("ids", ids if ids.ndim < 2 else ids.flatten(1), "(B, T)", len(self.ids))
        ids = ids.reshape(len(self.ids), -1 if len(self.ids) else 0).contiguous()
        last = self.ids.shape[1] - 1
        slots = ids % (last + 1)
        if not self._ring:
            order = self.ids.sort()
            place = torch.searchsorted(order.values, ids).clamp(max=last)
            slots = order.indices.gather(1, place)
        missing = (self.ids.gather(1, slots) != ids) & (ids != -1)
        if checks.anywhere(missing):
            row, pair = (int(x) for x in missing.nonzero()[0])
            raise ValueError(f"ids must be held in their row; got {ids[row, pair]} in row {row}")
        return slots.masked_fill(ids == -1, -1)

    def _tensors(self) -> dict[str, Tensor]:
        """Return all that must be kept of it."""
        keys, values, ids = self._all()
        return {"keys": keys, "values": values, "ids": ids, "next": torch.from_numpy(self._next)}

    def _restore(self, tensors: Mapping[str, Tensor], ring: bool) -> None:
        """Become, from an empty store, what the tensors were kept of."""
        self._used, self._ring = tensors["ids"].shape[1], ring
        self._next, self._held = (
            x.numpy().copy() for x in (tensors["next"], (tensors["ids"] >= 0).sum(dim=1))
        )
        self._reserve(self._used)
        for name in ("keys", "values", "ids"):
            getattr(self, name)[:, : self._used] = tensors[name]

    @outlasting
    def _reserve(self, needed: int) -> None:
        """Have as many slots, or as many as the capacity allows."""
        slots = self.ids.shape[1]
        wanted = max(needed, 2 * slots, FEWEST)
        wanted = wanted if self.capacity is None else min(wanted, self.capacity)
        if needed <= slots or wanted <= slots:
            return
        keys, values, ids = (_longer(x, wanted) for x in (self.keys, self.values, self.ids))
        ids[:, slots:] = -1
        values.requires_grad_(self.values.requires_grad)
        self.keys, self.values, self.ids = keys, values, ids

    def _check_pairs(self, keys: Tensor, values: Tensor, lengths: Tensor | None) -> Ints:
        """Refuse pairs that do not fit; return how many each row has."""
        _check_plain(keys, values)
        checks.tensor("keys", keys)
        self._check_values("values", values)
        batch, pairs = len(self.ids), keys.shape[1] if keys.ndim > 1 else 0
        checks.shape("keys", keys, "(B, T, M)", B=batch, M=self.width)
        checks.shape("values", values, "(B, T, V)", B=batch, T=pairs, V=self.value_width)
        checks.alike(**{"the store's keys": self.keys, "keys": keys})
        checks.alike(**{"the store's values": self.values, "values": values})
        real = values.is_floating_point() and self.values.is_floating_point()
        if not real and values.dtype != self.values.dtype:  # also under autocast
            raise TypeError(f"values must have dtype {self.values.dtype}; got {values.dtype}")
        new = np.full(batch, pairs)
        if lengths is not None:
            _check_lengths(lengths, batch, pairs, self.ids)
            new = lengths.long().cpu().numpy()
            late = torch.from_numpy(np.arange(pairs) >= new[:, None]).unsqueeze(-1).to(keys.device)
            keys, values = keys.masked_fill(late, 0), values.masked_fill(late, 0)
        # as they will lie there: autocast lets through what is wider
        _check_finite(keys.to(self.keys), values.to(self.values), keys=keys, values=values)
        return new

    def _check_values(self, name: str, values: Tensor) -> None:
        if isinstance(values, Tensor) and values.dtype in (torch.int64, torch.int32):
            return
        checks.tensor(name, values)


def _check_plain(*given: object) -> None:
    """Refuse what stands for a tensor while torch works on a function instead of running it."""
    transformed = torch._C._functorch.is_functorch_wrapped_tensor
    for x in given:
        traced = isinstance(x, FakeTensor)
        # torch.compile, which runs what it does not understand, does not understand this either
        if traced or (
            not torch.compiler.is_compiling() and isinstance(x, Tensor) and transformed(x)
        ):
            raise RuntimeError(
                "a store is changed in place, which cannot be where torch.func transforms or "
                "torch.export traces a function"
            )


def _chosen(ids: Tensor, chosen: Tensor) -> Tensor:
    """Return of ids (B, N) those chosen, (B, K), ascending; -1 where a row has fewer."""
    last = torch.iinfo(torch.long).max
    most = int(chosen.sum(dim=1).max()) if chosen.numel() else 0
    found = ids.masked_fill(~chosen, last).sort().values[:, :most]
    return found.masked_fill(found == last, -1)


def _longer(buffer: Tensor, slots: int) -> Tensor:
    """Return a copy with so many slots, the new ones 0."""
    shape = (len(buffer), slots, *buffer.shape[2:])
    if buffer.device.type == "cpu":  # numpy asks for large pages, which are read 1.5 times as fast
        raw = np.zeros((*shape[:-1], shape[-1] * buffer.element_size()), np.uint8)
        longer = torch.from_numpy(raw).view(buffer.dtype)
    else:
        longer = buffer.new_zeros(shape)
    longer[:, : buffer.shape[1]] = buffer.detach()
    return longer
