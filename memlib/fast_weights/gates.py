"""What each token says of its own write: how much is erased, written and kept, by each rule."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memlib.attention.scores import _single

Rule = Literal["linear", "sum", "decayed sum", "delta", "gated delta", "kda", "general"]
GATES: dict[str, dict[str, str]] = {  # and their numbers: one, or as many as in a key or a value
    "linear": {},
    "sum": {},
    "decayed sum": {"decay": "1"},
    "delta": {"rate": "1"},
    "gated delta": {"rate": "1", "decay": "1"},
    "kda": {"rate": "1", "decay": "M"},
    "general": {"erase": "M", "write": "V", "decay": "M"},
}


def split(linear: nn.Module, x: Tensor, count: int) -> Tensor:
    """(B, T, D) -> (B, H, T, ·), in numbers that tell a decay from 1."""
    return _single(linear(x).unflatten(-1, (count, -1)).transpose(1, 2))


class Gates(nn.ModuleDict):
    r"""The gates b, w and β as :math:`\sigma(W x + c)`, d as below.

    :math:`d = \exp(-e^a\, \text{softplus}(W x + c))`, with a of each head, as in Mamba-2 (Dao, Gu
    2024, arXiv 2405.21060). It begins with a = 0, not with :math:`e^a` from 1 to 16: there some of
    many heads forget a text within a few tokens, and here that head may be the only one.
    """

    def __init__(self, rule: str, width: int, count: int, M: int, V: int, **factory: Any) -> None:
        sizes = {"1": 1, "M": M, "V": V}
        found = {g: nn.Linear(width, count * sizes[n], **factory) for g, n in GATES[rule].items()}
        super().__init__(found)
        self.count = count
        a_head = torch.empty(count, 1, 1, **factory)
        self.speed = nn.Parameter(a_head) if "decay" in found else None  # a
        self._reset_decay()

    def reset_parameters(self) -> None:
        """Draw new parameters."""
        for linear in self.values():
            linear.reset_parameters()  # type: ignore[operator]
        self._reset_decay()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the gates of a write as `memlib.matrix_memory` takes them, (B, H, T, ·)."""
        said = {gate: split(linear, x, self.count) for gate, linear in self.items()}
        gates = {gate: z.sigmoid() for gate, z in said.items() if gate != "decay"}
        if "rate" in gates:  # beta
            gates["erase"] = gates["write"] = gates.pop("rate")
        if self.speed is not None:
            gates["decay"] = (-_single(self.speed).exp() * F.softplus(said["decay"])).exp()
        return gates

    def _reset_decay(self) -> None:
        if self.speed is None:
            return
        with torch.no_grad():  # a token takes from 0.001 to 0.1 of what is there
            self.speed.zero_()
            bias = self["decay"].get_parameter("bias")
            step = bias.uniform_(math.log(0.001), math.log(0.1)).exp_()
            step += (-torch.expm1(-step)).log()  # c, by the inverse of softplus
