"""What a cache knows of its rows without looking at them, and what it refuses to take in."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from memlib import _checks as checks
from memlib.transformer.slots import _bounded, _Bounds, _filled, _held, _taken


class _Known(nn.Module):
    """A cache whose bounds are kept beside its tensors; see `_Bounds`."""

    if TYPE_CHECKING:  # what `KVCache` gives it
        keys: Tensor
        values: Tensor
        positions: Tensor
        lengths: Tensor
        slots: int
        ring: bool
        _known: list[Any]
        _replayed: bool

    def _bounds(self) -> _Bounds | None:
        """Return what is known of all rows; None where values may not be looked at.

        It is kept beside the tensors, so that a decoding step need not wait for the device;
        their versions tell whether they were changed by anything but `_commit`.
        """
        positions, lengths = self.positions, self.lengths
        if torch.compiler.is_compiling() or lengths.is_meta:
            return None
        if checks.captured(lengths):
            self._replayed = True
            return None
        owner, version, of_positions, found = self._known
        known = owner == id(lengths) and not (self._replayed or lengths.is_inference())
        if known and version == lengths._version and of_positions == positions._version:
            bounds: _Bounds = found
            return bounds
        bounds = _bounded(positions, lengths, self.ring)
        self._remember(positions, lengths, bounds)
        return bounds

    def _remember(self, positions: Tensor, lengths: Tensor, bounds: _Bounds) -> None:
        if not lengths.is_inference():  # which has no version
            self._known[:] = id(lengths), lengths._version, positions._version, bounds

    def _check_room(self, tokens: int, mask: Tensor | None) -> None:
        if self.ring or not (bounds := self._bounds()) or bounds.most + tokens <= self.slots:
            return
        free = self.slots - _taken(_held(self.positions, self.lengths), self.ring)
        new = torch.full_like(free, tokens) if mask is None else mask.sum(-1)
        if checks.anywhere(new > free):
            row = int((new > free).nonzero()[0])
            raise ValueError(
                f"new tokens must fit in the free slots, {int(free[row])} of {self.slots} in row "
                f"{row}; got {int(new[row])}"
            )

    def _check_scores(self, scores: Tensor, n: int) -> int:
        checks.untraced()
        checks.tensor("scores", scores)
        batch, slots = self.positions.shape
        checks.shape("scores", scores, "(B, N)", B=batch, N=slots)
        checks.together(**{"the cache": self.keys, "scores": scores})
        wrong = scores.isnan() & (_held(self.positions, self.lengths) >= 0)
        if checks.anywhere(wrong):
            raise ValueError(
                f"scores must be numbers; got NaN at {tuple(wrong.nonzero()[0].tolist())}"
            )
        return checks.integer("n", n, 0)

    def _even(self, mask: Tensor | None) -> int:
        """Return the length of all rows if it is one, and all get as many tokens; else -1."""
        bounds = self._bounds()
        return bounds.low if mask is None and bounds and bounds.even else -1

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Fill in the positions, which older states lack."""
        keys, lengths = state.get(f"{prefix}keys"), state.get(f"{prefix}lengths")
        if f"{prefix}positions" not in state and keys is not None and lengths is not None:
            state[f"{prefix}positions"] = _filled(lengths, keys.shape[2])
        super()._load_from_state_dict(state, prefix, *rest)
