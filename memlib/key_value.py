"""Key-value memory: pairs are written into slots and read back by similarity to their keys."""

from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from memlib import _checks as checks
from memlib._files import plain
from memlib.attention.verbs import MEASURES, Measure, _attend

WhenFull = Literal["overwrite", "refuse"]


@plain
class KeyValueState(NamedTuple):
    """The contents of a `KeyValueMemory`; a new one comes out of every change.

    It is kept as named tensors, like an `memlib.NTMState`: ``save_file(state._asdict(), path)`` of
    safetensors, and ``KeyValueState(**load_file(path))``.

    Attributes:
        keys: (B, N, M); 0 in empty slots.
        values: (B, N, V); 0 in empty slots.
        written: (B, N) int64; 0 for an empty slot, else the order number of its write, so that
            the smallest positive number marks the oldest pair.
    """

    keys: Tensor
    values: Tensor
    written: Tensor

    @property
    def filled(self) -> Tensor:
        """Which slots hold a pair, (B, N) bool."""
        return self.written > 0

    @property
    def lengths(self) -> Tensor:
        """How many pairs each row holds, (B,) int64."""
        return self.filled.sum(dim=-1)


class KeyValueMemory(nn.Module):
    r"""A memory of fixed size that stores pairs and reads :math:`\sum_n w_n v_n`.

    The weights come from `memlib.attend`: softmax of the strength times the similarity of the
    query to each stored key. Writing is `memlib.write` with one-hot weights and erase 1.

    It has no parameters: `DistributedDataParallel` finds nothing to do and refuses it alone.

    Args:
        slots: number of pairs N it can hold.
        width: width M of a key.
        value_width: width V of a value; that of a key when None.
        measure: similarity measure, see `memlib.similarity`.
        when_full: "overwrite" the oldest pair, or "refuse" with a ValueError.
        device: where `initial_state` makes its tensors.
        dtype: their dtype.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size below 1, an unknown measure or `when_full`.

    Source:
        Miller et al. 2016, section 3 (arXiv 1606.03126).

    Example:
        >>> import torch
        >>> from memlib import KeyValueMemory
        >>> memory = KeyValueMemory(slots=4, width=2, value_width=1)
        >>> state = memory.initial_state(batch_size=1)
        >>> keys, values = torch.eye(2).unsqueeze(0), torch.tensor([[[10.0], [20.0]]])
        >>> state = memory.write(keys, values, state)
        >>> memory.read(keys, state, strength=100.0)
        tensor([[[10.],
                 [20.]]])
    """

    def __init__(
        self,
        slots: int,
        width: int,
        value_width: int | None = None,
        *,
        measure: Measure = "scaled_dot",
        when_full: WhenFull = "overwrite",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        value_width = width if value_width is None else value_width
        self.slots = checks.integer("slots", slots, 1)
        self.width = checks.integer("width", width, 1)
        self.value_width = checks.integer("value_width", value_width, 1)
        checks.choice("measure", measure, MEASURES)
        checks.choice("when_full", when_full, ("overwrite", "refuse"))
        self.measure, self.when_full = measure, when_full
        like = torch.empty(0, device=device, dtype=dtype)
        checks.tensor("dtype", like)
        self.register_buffer("_like", like, persistent=False)

    def initial_state(self, batch_size: int = 1) -> KeyValueState:
        """Return an empty memory for `batch_size` rows that never see each other."""
        batch_size = checks.integer("batch_size", batch_size, 0)
        like = self.get_buffer("_like")
        return KeyValueState(
            like.new_zeros(batch_size, self.slots, self.width),
            like.new_zeros(batch_size, self.slots, self.value_width),
            like.new_zeros(batch_size, self.slots, dtype=torch.long),
        )

    def write(
        self, keys: Tensor, values: Tensor, state: KeyValueState, *, lengths: Tensor | None = None
    ) -> KeyValueState:
        """Store pairs in order: in free slots first, then over the oldest.

        Args:
            keys: (B, T, M).
            values: (B, T, V).
            state: the memory before; it stays as it is.
            lengths: (B,) integers in [0, T]; row b writes only its first ``lengths[b]`` pairs.

        Returns:
            The memory after. Gradients flow to keys and values.

        Raises:
            TypeError: wrong dtypes.
            ValueError: wrong shapes; lengths outside [0, T]; NaN in keys or values; with
                ``when_full="refuse"``, too few free slots (not looked at while compiling, where
                a full row keeps what it has).
        """
        self._check_state(state)
        batch, pairs = self._check_pairs(keys, values, state)
        if lengths is None:
            lengths = state.written.new_full((batch,), pairs)
        else:
            self._check_lengths(lengths, batch, pairs, state)
        free = self.slots - state.lengths
        if self.when_full == "refuse":
            if checks.anywhere(lengths > free):
                row = int((lengths > free).nonzero()[0])
                raise ValueError(
                    f"pairs written must fit in the free slots, {int(free[row])} of {self.slots} "
                    f"in row {row}; got {int(lengths[row])}"
                )
            lengths = lengths.minimum(free)

        # Free slots have number 0 and the oldest pair the smallest: rank says whose turn it is.
        order = state.written.argsort(dim=-1, stable=True)
        rank = torch.empty_like(order).scatter_(
            -1, order, torch.arange(self.slots, device=order.device).expand_as(order)
        )
        # Pair t goes to the slot of rank t mod N; of several, the last stays.
        last = lengths.unsqueeze(-1) - 1  # (B, 1)
        pair = rank + (last - rank).div(self.slots, rounding_mode="floor") * self.slots  # (B, N)
        changed = rank <= last
        newest = state.written.amax(dim=-1, keepdim=True)
        result = KeyValueState(
            _take(keys, pair, changed, state.keys),
            _take(values, pair, changed, state.values),
            torch.where(changed, newest + pair + 1, state.written),
        )
        checks.finite(result.keys, keys=keys)
        checks.finite(result.values, values=values)
        return result

    @overload
    def read(
        self,
        query: Tensor,
        state: KeyValueState,
        *,
        strength: float | Tensor = ...,
        top_k: int | None = ...,
        need_weights: Literal[False] = ...,
    ) -> Tensor: ...

    @overload
    def read(
        self,
        query: Tensor,
        state: KeyValueState,
        *,
        strength: float | Tensor = ...,
        top_k: int | None = ...,
        need_weights: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...

    @overload
    def read(
        self,
        query: Tensor,
        state: KeyValueState,
        *,
        strength: float | Tensor = ...,
        top_k: int | None = ...,
        need_weights: bool,
    ) -> Tensor | tuple[Tensor, Tensor]: ...

    def read(
        self,
        query: Tensor,
        state: KeyValueState,
        *,
        strength: float | Tensor = 1.0,
        top_k: int | None = None,
        need_weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Read by similarity to the stored keys: `memlib.attend` over the filled slots.

        Args:
            query: (B, L, M).
            state: the memory, of B rows, or of one row that serves them all.
            strength: a number of at least 0, or a tensor that broadcasts to (B, L).
            top_k: read only the `top_k` most similar pairs.
            need_weights: return the weights too.

        Returns:
            Values (B, L, V), zeros from an empty memory; with `need_weights` also the weights
            (B, L, N).

        Accuracy: float32 1e-4, bfloat16 2e-2, float16 2e-3, of the sum of weights times
        sizes of values while strength times score stays below 100, and beyond it, or beyond
        a width of 128, in proportion.

        Raises:
            TypeError: wrong dtypes.
            ValueError: wrong shapes, negative strength, top_k not in [1, N], NaN in the query.
        """
        self._check_state(state)
        checks.tensor("query", query)
        checks.rows("query", query, "(B, L, M)", len(state.keys), M=self.width)
        checks.alike(state=state.keys, query=query)
        strength = checks.one_each("strength", strength, query.shape[:-1], query, low=0)
        top_k = None if top_k is None else checks.integer("top_k", top_k, 1, self.slots)
        keys, values, mask = state.keys, state.values, state.filled.unsqueeze(-2)  # (B, 1, N)
        if len(keys) != len(query):  # without its dimension of rows, it is one product of matrices
            keys, values, mask = keys[0], values[0], mask[0]
        value, weights = _attend(
            query, keys, values, self.measure, strength, mask, top_k, need_weights
        )
        checks.finite(value, query=query, strength=strength, state=state.values)
        return value if weights is None else (value, weights)

    def delete(self, where: Tensor, state: KeyValueState) -> KeyValueState:
        """Forget the pairs in the slots marked by `where`, (B, N) bool; the slots are free again.

        Raises:
            TypeError: `where` is no bool tensor.
            ValueError: wrong shape.

        Example:
            >>> import torch
            >>> from memlib import KeyValueMemory
            >>> memory = KeyValueMemory(slots=2, width=1)
            >>> one = torch.ones(1, 2, 1)
            >>> state = memory.write(one, one, memory.initial_state())
            >>> memory.delete(torch.tensor([[True, False]]), state).lengths
            tensor([1])
        """
        self._check_state(state)
        if not isinstance(where, Tensor) or where.dtype != torch.bool:
            got = where.dtype if isinstance(where, Tensor) else type(where).__name__
            raise TypeError(f"where must be a tensor of dtype torch.bool; got {got}")
        checks.shape("where", where, "(B, N)", B=state.written.shape[0], N=self.slots)
        checks.together(state=state.keys, where=where)
        return KeyValueState(
            state.keys.masked_fill(where.unsqueeze(-1), 0),
            state.values.masked_fill(where.unsqueeze(-1), 0),
            state.written.masked_fill(where, 0),
        )

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        return (
            f"slots={self.slots}, width={self.width}, value_width={self.value_width}, "
            f"measure={self.measure!r}, when_full={self.when_full!r}"
        )

    def _check_state(self, state: KeyValueState) -> None:
        if not isinstance(state, KeyValueState):
            raise TypeError(f"state must be a KeyValueState; got {type(state).__name__}")
        checks.tensor("state.keys", state.keys)
        checks.tensor("state.values", state.values)
        if not isinstance(state.written, Tensor) or state.written.dtype != torch.long:
            got = getattr(state.written, "dtype", type(state.written).__name__)
            raise TypeError(f"state.written must be an int64 tensor; got {got}")
        batch = state.keys.shape[0] if state.keys.ndim else 0
        checks.shape("state.keys", state.keys, "(B, N, M)", N=self.slots, M=self.width)
        checks.shape(
            "state.values", state.values, "(B, N, V)", B=batch, N=self.slots, V=self.value_width
        )
        checks.shape("state.written", state.written, "(B, N)", B=batch, N=self.slots)
        checks.together(**{f"state.{name}": part for name, part in state._asdict().items()})

    def _check_pairs(self, keys: Tensor, values: Tensor, state: KeyValueState) -> tuple[int, int]:
        checks.tensor("keys", keys)
        checks.tensor("values", values)
        batch = state.keys.shape[0]
        checks.shape("keys", keys, "(B, T, M)", B=batch, M=self.width)
        pairs = keys.shape[1]
        checks.shape("values", values, "(B, T, V)", B=batch, T=pairs, V=self.value_width)
        checks.alike(state=state.keys, keys=keys, values=values)
        return batch, pairs

    def _check_lengths(self, lengths: Tensor, batch: int, pairs: int, state: KeyValueState) -> None:
        if not isinstance(lengths, Tensor) or lengths.dtype not in (torch.int32, torch.int64):
            got = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
            raise TypeError(f"lengths must be an int32 or int64 tensor; got {got}")
        checks.shape("lengths", lengths, "(B,)", B=batch)
        if lengths.device != state.written.device:
            raise ValueError(
                f"lengths must be on the device of state, {state.written.device}; "
                f"got {lengths.device}"
            )
        if checks.anywhere((lengths < 0) | (lengths > pairs)):
            raise ValueError(f"lengths must be in [0, T = {pairs}]; got {lengths.tolist()}")


def _take(new: Tensor, pair: Tensor, changed: Tensor, old: Tensor) -> Tensor:
    """Slot n gets new[pair[n]] where it changed: (B, T, M), (B, N), (B, N), (B, N, M)."""
    if new.shape[1] == 0:
        return old
    index = pair.clamp(0, new.shape[1] - 1).unsqueeze(-1).expand(-1, -1, new.shape[-1])
    return torch.where(changed.unsqueeze(-1), new.gather(1, index), old)
