"""What the controller of a differentiable neural computer tells its heads, and in which order."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

MASK_MIN = 0.1  # of a content mask: no feature is ever quite hidden, or masks would not be learned


class Told(NamedTuple):
    """What the controller tells the heads of a DNC, read heads first."""

    key: Tensor  # k (B, R + W, M), masked already
    strength: Tensor  # β (B, R + W), at least 1
    mask: Tensor  # (B, R + W, M) in [MASK_MIN, 1]; empty unless content is masked
    add: Tensor  # v (B, W, M)
    erase: Tensor  # e (B, W, M) in [0, 1]
    free: Tensor  # f (B, R) in [0, 1]
    allocation: Tensor  # g^a (B, W) in [0, 1]
    write: Tensor  # g^w (B, W) in [0, 1]
    modes: Tensor  # π (B, R, 2 W + 1): backward, content, forward; sums to 1
    sharpening: Tensor  # s (B, 2, W, R), at least 1: backward, forward; or empty


class Interface:
    """Squashes raw numbers (B, size) into the ranges of what they say.

    They come in four parts: bare numbers (keys, what is added), powers (strengths, sharpenings),
    shares (masks, what is erased, gates) and read modes.

    Args:
        width: M of a slot.
        reads: number of read heads R.
        writes: number of write heads W.
        masked: there are masks.
        sharpened: there are sharpenings.
    """

    def __init__(self, width: int, reads: int, writes: int, masked: bool, sharpened: bool) -> None:
        self.width, self.reads, self.writes = width, reads, writes
        self.masked, self.sharpened = masked, sharpened
        heads, links = reads + writes, 2 * writes * reads
        self.powers = (heads, links * sharpened)
        self.shares = (heads * width * masked, writes * width, reads, writes, writes)
        bare, modes = (heads + writes) * width, links + reads
        self.parts = (bare, sum(self.powers), sum(self.shares), modes)
        self.size = sum(self.parts)

    def __call__(self, raw: Tensor) -> Told:
        """Return what is told (B, ...) by raw numbers (B, size)."""
        reads, writes, width = self.reads, self.writes, self.width
        bare, powers, shares, modes = raw.split(self.parts, dim=-1)
        key, add = bare.unflatten(-1, (-1, width)).split((reads + writes, writes), dim=1)
        strength, sharpening = (1 + F.softplus(powers)).split(self.powers, dim=-1)
        mask, erase, free, allocate, write = shares.sigmoid().split(self.shares, dim=-1)
        if self.masked:
            mask = MASK_MIN + (1 - MASK_MIN) * mask.unflatten(-1, (reads + writes, width))
            key = key * mask
        if self.sharpened:
            sharpening = sharpening.unflatten(-1, (2, writes, reads))
        return Told(
            key=key,
            strength=strength,
            mask=mask,
            add=add,
            erase=erase.unflatten(-1, (writes, width)),
            free=free,
            allocation=allocate,
            write=write,
            modes=modes.unflatten(-1, (reads, 2 * writes + 1)).softmax(dim=-1),
            sharpening=sharpening,
        )
