"""What a layer is handed from one segment of a text to the next: its last inputs."""

from typing import NamedTuple

import torch
from torch import Tensor

from memlib.transformer.positions import _next, _take, _tokens_first


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

    def _positions(self, tokens: int, mask: Tensor | None = None) -> Tensor:
        """Return the positions of its tokens and of the next ones, (B, N + T); below 0 is none."""
        old = torch.arange(-self.inputs.shape[1], 0, device=self.seen.device)
        return torch.cat((self.seen.unsqueeze(-1) + old, _next(self.seen, tokens, mask)), dim=1)

    def _slide(self, both: Tensor, mask: Tensor | None) -> "SegmentMemory":
        """Return the memory after `both` its own and the new inputs, (B, N + T, D)."""
        slots, seen = self.inputs.shape[1], self.seen.long()
        new = both.shape[1] - slots
        if mask is None:
            return SegmentMemory(both[:, new:].detach().clone(), seen + new)
        count = mask.sum(-1)
        order = _tokens_first(torch.cat((mask.new_ones(len(mask), slots), mask), dim=1))
        last = count.unsqueeze(-1) + torch.arange(slots, device=mask.device)
        return SegmentMemory(_take(both.detach(), order.gather(1, last)), seen + count)
