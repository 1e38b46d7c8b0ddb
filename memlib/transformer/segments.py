"""What a Transformer is handed from one segment of a text to the next: inputs, or memory tokens."""

from typing import NamedTuple

import torch
from torch import Tensor

from memlib._files import plain


@plain
class SegmentMemory(NamedTuple):
    r"""What a layer was given in the segment before, for it to read again; without gradient.

    Attributes:
        inputs: (B, N, D), the inputs of the last N tokens, the newest last; 0 where there were
            none.
        seen: (B,) int64, the tokens of each row so far.

    Source:
        Dai et al. 2019, section 3.2 (arXiv 1901.02860).
    """

    inputs: Tensor
    seen: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of B N D numbers and B counts."""
        return self.inputs.nbytes + self.seen.nbytes

    def _positions(self, tokens: int) -> Tensor:
        """Return the positions of its tokens and of the next ones, (B, N + T); below 0 is none."""
        slots = self.inputs.shape[1]
        steps = torch.arange(-slots, tokens, device=self.seen.device)
        return self.seen.unsqueeze(-1) + steps

    def _slide(self, both: Tensor, lengths: Tensor | None) -> "SegmentMemory":
        """Return the memory after `both` its own and the new inputs, (B, N + T, D)."""
        slots = self.inputs.shape[1]
        new = both.shape[1] - slots
        if lengths is None:
            return SegmentMemory(both[:, new:].detach().clone(), self.seen + new)
        index = lengths.unsqueeze(-1) + torch.arange(slots, device=lengths.device)
        return SegmentMemory(_take(both.detach(), index), self.seen + lengths)


def _pack(x: Tensor, memory: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Put memory tokens (B, K, D) before and after the text of each row, its padding behind all."""
    text, tokens = x.shape[1], memory.shape[1]
    x = torch.cat((memory, x, memory), dim=1)
    if lengths is None:
        return x, None
    place, n = torch.arange(x.shape[1], device=x.device), lengths.unsqueeze(-1)
    index = torch.where(place < tokens + n, place, (place + text - n).clamp(max=x.shape[1] - 1))
    return _take(x, index), lengths + 2 * tokens


def _unpack(x: Tensor, tokens: int, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what came out at the text and at the memory tokens after it."""
    text = x.shape[1] - 2 * tokens
    if lengths is None:
        return x[:, tokens : tokens + text], x[:, tokens + text :]
    index = lengths.unsqueeze(-1) + torch.arange(tokens, 2 * tokens, device=x.device)
    return x[:, tokens : tokens + text], _take(x, index)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """(B, N, D), (B, T) -> (B, T, D)."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
