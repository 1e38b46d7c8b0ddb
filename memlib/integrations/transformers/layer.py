"""What one layer of a model keeps of its text, in buffers that are seldom copied."""

import inspect
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from memlib.transformer.cache import KVCache
from memlib.transformer.forgetting import accumulate
from memlib.transformer.positions import _take
from memlib.transformer.slots import _best

Rule = Callable[..., Tensor]
LAST = 32  # queries whose weights a rule is told, unless it says otherwise


class MemoryLayer(CacheLayerMixin):
    """Keys and values of the tokens so far, in the order of their columns in the padded batch.

    All rows hold as many slots, the newest token in the last. A row of which a token is to go
    loses its padding first: so the d columns of padding that a row still has after n were dropped
    are where the package's own mask, counted from column n, has its padding.

    Args:
        slots: how many slots there are; None for as many as are needed.
        n: how many stay when room is needed.
        rule: gives scores a slot, from `memlib.transformer.forgetting`; None to forget nothing.
        window: how many tokens a query reads, itself among them; None for all.
    """

    def __init__(
        self, slots: int | None = None, n: int = 0, rule: Rule | None = None,
        window: int | None = None,
    ) -> None:  # fmt: skip
        self.slots, self.n, self.rule, self.window = slots, n, rule, window
        self.is_sliding, self.sliding_window = window is not None, window
        self.is_croppable = rule is None
        parameters = inspect.signature(rule).parameters if rule else {}
        self.wants = [name for name in ("total", "weights") if name in parameters]
        last = parameters["last"].default if "last" in parameters else LAST
        self.last = last if isinstance(last, int) else LAST
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.is_initialized, self.seen, self.told = False, 0, 0
        self.keys: Any = None  # (B, G, N, M), what is held of it in the room; None before any came
        self.values: Any = None
        self.given: Any = lambda: None  # the keys of the last call, as long as somebody has them
        self.real: Tensor | None = None  # (B, tokens seen), False = padding; None without any
        self.total: Tensor | None = None  # (B, N), how much each slot was looked at
        self.looks: Tensor | None = None  # (B, H, last, N), weights of the last queries

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the sizes from the first keys and values."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._room = [_empty(x, len(x), 0) for x in (key_states, value_states)]
        self.keys, self.values = self._room
        self._moved = torch.zeros(len(key_states), 0, dtype=torch.long, device=self.device)
        self.is_initialized = True

    @property
    def held(self) -> int:
        """How many slots are taken in each row."""
        return 0 if self.keys is None else self.keys.shape[2]

    @property
    def columns(self) -> Tensor:
        """(B, N), where in the padded batch the token of each slot stands."""
        later = torch.arange(self.seen - self.held + self._moved.shape[1], self.seen)
        later = later.to(self.device).expand(len(self._moved), -1)
        return torch.cat((self._moved, later), dim=1)

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values that there is room for."""
        return sum(x.nbytes for x in self._room) if self.is_initialized else 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append tokens and return all that may be read, (B, G, N, M) and (B, G, N, V)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if len(key_states) != len(self._moved):  # in the first layer, where nothing is changed yet
            raise ValueError(
                f"tokens must come for the {len(self._moved)} rows of the cache; "
                f"got {len(key_states)} rows"
            )
        new = key_states.shape[2]
        self.make_room(new)
        held = self.held
        end, start = held + new, held - self._reach
        past = self.keys, self.values
        if end > self._room[0].shape[2]:
            self._resize(end)
        for room, x in zip(self._room, (key_states, value_states), strict=True):
            room.narrow(2, held, new).copy_(x.detach())
        self.keys, self.values = (room.narrow(2, 0, end) for room in self._room)
        self.seen += new
        keys, values = self.keys, self.values
        if torch.is_grad_enabled():  # what is kept for backward must not lie where we write
            keys = torch.cat((past[0][:, :, start:], key_states), dim=2)
            values = torch.cat((past[1][:, :, start:], value_states), dim=2)
        elif start:
            keys, values = (x.narrow(2, start, end - start) for x in (keys, values))
        if self.wants:
            self.given = weakref.ref(keys)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many slots the next tokens read, and the column that the first one is for."""
        self.make_room(query_length)
        return self._reach + query_length, self.seen - self._reach

    def get_seq_length(self) -> int:
        """Return how many tokens were seen, which may be more than are held."""
        return self.seen

    def get_max_length(self) -> int:
        """Return how long a text may be; -1 for any length."""
        return -1 if self.slots is None or self.rule else self.slots

    def make_room(self, new: int) -> None:
        """Forget all but the n best tokens if there are no slots for so many new ones."""
        if self.slots is None or self.held + new <= self.slots:
            return
        if self.rule is None:
            raise ValueError(
                f"tokens must fit in the {self.slots} slots; got {new} beside the {self.held} held"
            )
        if self.held <= self.n:
            return
        if self.wants and self.told != self.seen:
            raise ValueError(
                "the weights of all tokens must have been told to a rule that needs them; "
                f"got those of {self.told} of {self.seen}: is the cache attached to this model?"
            )
        ledger, columns = self._ledger(), self.columns
        details = {"total": self.total, "weights": self.looks}
        scores = self.rule(ledger, **{name: details[name] for name in self.wants})
        ledger._check_scores(scores, self.n)
        place = scores.argsort(dim=1, descending=True, stable=True).argsort(1)  # 0 is the best
        place = place.masked_fill(ledger.positions < 0, self.held)  # padding goes first
        self._keep(_best(-place.double(), columns, self.n))

    def told_weights(self, weights: Tensor) -> None:
        """Take in the weights (B, H, T, N) of the newest tokens."""
        new = weights.shape[2]
        if self.real is not None:  # padding looks at nothing
            weights = weights * self.real[:, -new:, None][:, None]
        self.told += new
        if "total" in self.wants:
            self.total = accumulate(self._ledger(), weights, self.total)
        if "weights" in self.wants:
            weights = weights[:, :, -self.last :]
            if self.looks is not None:
                old = F.pad(self.looks, (0, weights.shape[3] - self.looks.shape[3]))
                weights = torch.cat((old, weights), dim=2)[:, :, -self.last :]
            self.looks = weights

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the newest tokens, so many as this number is below 0."""
        if not tokens_to_remove or not self.is_initialized:
            return
        if tokens_to_remove > 0 or -tokens_to_remove > self.held:
            raise ValueError(
                f"tokens to remove must be in [-{self.held}, 0]; got {tokens_to_remove}"
            )
        if self.rule is not None:
            raise ValueError(f"a cache that forgets can't be cropped; got {tokens_to_remove}")
        self.seen += tokens_to_remove
        self.keys = self.keys[:, :, :tokens_to_remove]
        self.values = self.values[:, :, :tokens_to_remove]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let row b go on as row ``beam_idx[b]`` was."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Let every row go on so many times."""
        if self.is_initialized:
            rows = torch.arange(len(self._moved), device=self.device)
            self.batch_select_indices(rows.repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Let the rows go on as these were."""
        if not self.is_initialized:
            return
        indices, held = indices.to(self.device), self.held
        for i, room in enumerate(self._room):
            new = _empty(room, len(indices), room.shape[2])
            torch.index_select(room.narrow(2, 0, held), 0, indices, out=new.narrow(2, 0, held))
            self._room[i] = new
        self.keys, self.values = (room.narrow(2, 0, held) for room in self._room)
        for name in ("_moved", "real", "total", "looks"):
            if (x := getattr(self, name)) is not None:
                setattr(self, name, x.index_select(0, indices))

    @property
    def _reach(self) -> int:
        """How many of the slots that are held the next token reads."""
        return self.held if self.window is None else min(self.held, self.window - 1)

    def _resize(self, end: int) -> None:
        """Make room for so many tokens, and for some more where there is no limit."""
        size = end + max(64, end // 4) if self.slots is None else max(end, self.slots)
        for i, room in enumerate(self._room):
            self._room[i] = _empty(room, len(room), size)
            self._room[i].narrow(2, 0, self.held).copy_(room.narrow(2, 0, self.held))

    def _keep(self, stay: Tensor) -> None:
        """Move the tokens of these slots (B, n) to the first ones, and what is known of them."""
        n, columns = stay.shape[1], self.columns
        kept = [_take(x, stay, 2) for x in (self.keys, self.values)]
        slots = self.slots or 0
        if self._room[0].shape[2] > slots:  # after a long prompt
            self._room = [_empty(x, len(x), slots) for x in kept]
        for room, x in zip(self._room, kept, strict=True):
            room.narrow(2, 0, n).copy_(x)
        self.keys, self.values = (room.narrow(2, 0, n) for room in self._room)
        self._moved = columns.gather(1, stay)
        self.total = None if self.total is None else self.total.gather(1, stay)
        self.looks = None if self.looks is None else _take(self.looks, stay, 3)

    def _ledger(self) -> KVCache:
        """Return a cache that holds the positions of the tokens, as rules look at them."""
        padding = self._moved.new_zeros(len(self._moved), 1)
        if self.real is not None:
            padding = (~self.real).sum(-1, keepdim=True)
        ledger = KVCache(len(padding), 1, self.held, 1, device=self.device)
        ledger.positions.copy_((self.columns - padding).clamp(min=-1))
        ledger.lengths.copy_(self.seen - padding.squeeze(-1))
        return ledger


def _empty(like: Tensor, rows: int, size: int) -> Tensor:
    """Return room for (rows, G, size, M), which may be written in and out of inference mode."""
    with torch.inference_mode(False):
        shape = (rows, like.shape[1], size, like.shape[3])
        return torch.empty(shape, dtype=like.dtype, device=like.device)
