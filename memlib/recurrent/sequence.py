"""A recurrent machine over sequences: step by step, with rows of any length and with checkpoints.

What a step does is its cell's: `memlib.NTM` and `memlib.DNC` are machines around theirs.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from memlib import _checks as checks
from memlib.recurrent.cell import Cell, State

S = TypeVar("S")
Outcome = tuple[Tensor, Tensor, Tensor]  # of a step: the controller's output, reads, weights


class Machine(nn.Module, Generic[S]):
    """A cell over sequences; its state is a named tuple of kind S."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell
        self._take = type(cell)._step  # a plain function: a copy of the module takes its own steps
        self._replayed = False  # whether the next step overwrites what a step gave

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Let `torch.compile` translate one step, which then serves sequences of every length.

        The first call takes a minute, later ones about half their time; results stay the same up
        to rounding. A whole sequence would be translated step by step, and anew for every length.
        With ``mode="reduce-overhead"`` a step on a GPU is a CUDA graph; what it gave is copied out
        of the graph, whose next replay overwrites it.

        Args:
            args: of `torch.compile`.
            kwargs: of `torch.compile`.
        """
        self._take = torch.compile(type(self.cell)._step, *args, **kwargs)
        self._replayed = _makes_graphs(**kwargs)

    def reset_parameters(self) -> None:
        """Draw new parameters."""
        self.cell.reset_parameters()

    @overload
    def forward(
        self,
        x: Tensor,
        state: S | None = ...,
        *,
        lengths: Tensor | None = ...,
        need_weights: Literal[False] = ...,
        checkpoint_every: int | None = ...,
    ) -> tuple[Tensor, S]: ...

    @overload
    def forward(
        self,
        x: Tensor,
        state: S | None = ...,
        *,
        lengths: Tensor | None = ...,
        need_weights: Literal[True],
        checkpoint_every: int | None = ...,
    ) -> tuple[Tensor, S, Tensor]: ...

    @overload
    def forward(
        self,
        x: Tensor,
        state: S | None = ...,
        *,
        lengths: Tensor | None = ...,
        need_weights: bool,
        checkpoint_every: int | None = ...,
    ) -> tuple[Tensor, S] | tuple[Tensor, S, Tensor]: ...

    def forward(
        self,
        x: Tensor,
        state: S | None = None,
        *,
        lengths: Tensor | None = None,
        need_weights: bool = False,
        checkpoint_every: int | None = None,
    ) -> tuple[Tensor, S] | tuple[Tensor, S, Tensor]:
        """Run over a sequence.

        Args:
            x: (B, T, I).
            state: where the last sequence ended; None starts anew.
            lengths: (B,) integers in [0, T]: row b stops after ``lengths[b]`` steps, as if run
                alone; its later logits and weights are 0 and its padding is not looked at.
            need_weights: return the weights of every step too.
            checkpoint_every: keep for the backward pass the state after every `checkpoint_every`
                steps only, and run the steps between again when their turn comes: the same
                gradients with memory for T / c states and c steps instead of T steps, at the cost
                of one more forward pass. About the square root of T needs the least.

        Returns:
            Logits (B, T, O) and the state after the last step of each row; with `need_weights`
            also the weights (B, T, R + W, N), read heads first.

        Raises:
            TypeError: wrong dtypes, or a state of another machine.
            ValueError: wrong shapes, lengths outside [0, T], `checkpoint_every` below 1, or NaN.
        """
        cell = self.cell
        checks.tensor("x", x)
        checks.shape("x", x, "(B, T, I)", I=cell.input_size)
        before = now = cell._checked_state(x[:, 0] if x.shape[1] else x.sum(1), state)
        going = None if lengths is None else _going(lengths, x)  # (B, T)
        if going is not None:
            x = x.masked_fill(~going.unsqueeze(-1), 0)

        # time first: steps are contiguous, so a compiled one is never compiled again for strides
        steps = x.transpose(0, 1).contiguous()
        outcomes: list[Outcome] = []
        if checkpoint_every is None:
            outcomes, now = self._unroll(steps, going, now)
        else:
            checkpoint_every = checks.integer("checkpoint_every", checkpoint_every, 1)
            for t in range(0, len(steps), checkpoint_every):
                chunk = slice(t, t + checkpoint_every)
                part = None if going is None else going[:, chunk]
                more, now = checkpoint(self._unroll, steps[chunk], part, now, use_reentrant=False)
                outcomes += more
        if not outcomes:
            none = x.new_zeros(x.shape[0], 0, cell.output_size)
            nowhere = now.weights.unsqueeze(1)[:, :0]
            return (none, now, nowhere) if need_weights else (none, now)

        hidden, reads, weights = zip(*outcomes, strict=True)
        logits = cell._logits(torch.stack(hidden, 1), torch.stack(reads, 1))  # (B, T, O)
        if going is not None:
            logits = logits.masked_fill(~going.unsqueeze(-1), 0)
        checks.finite(logits, x=x, **before._asdict())
        if not need_weights:
            return logits, now
        moves = torch.stack(weights, 1)  # (B, T, R + W, N)
        return logits, now, moves if going is None else moves * going[..., None, None]

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module says that it returns Any

    def _unroll(
        self, steps: Tensor, going: Tensor | None, state: State
    ) -> tuple[list[Outcome], State]:
        """Return the outcome of each step, and the state at the end."""
        outcomes = []
        for t, step in enumerate(steps):
            hidden, after = self._take(self.cell, step, state)
            if self._replayed:
                hidden, after = hidden.clone(), type(after)(*(part.clone() for part in after))
            state = after if going is None else _keep(going[:, t], after, state)
            outcomes.append((hidden, after.reads, after.weights))
        return outcomes, state


def _makes_graphs(
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    backend: Any = "",
    **_: Any,
) -> bool:
    """Whether `torch.compile` with these arguments makes CUDA graphs."""
    asked = mode in ("reduce-overhead", "max-autotune") or backend == "cudagraphs"
    return asked or bool((options or {}).get("triton.cudagraphs"))


def _going(lengths: Tensor, x: Tensor) -> Tensor:
    """Return which steps (B, T) of each row lie within its length."""
    batch, steps = x.shape[:2]
    if not isinstance(lengths, Tensor) or lengths.dtype != torch.long:
        got = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(f"lengths must be an int64 tensor; got {got}")
    checks.shape("lengths", lengths, "(B,)", B=batch)
    if lengths.device != x.device:
        raise ValueError(f"lengths must be on the device of x, {x.device}; got {lengths.device}")
    checks.within("lengths", lengths, 0, steps)
    return torch.arange(steps, device=x.device) < lengths.unsqueeze(-1)


def _keep(going: Tensor, after: State, before: State) -> State:
    """Return the state after in rows that are going, the one before in the others."""
    return type(after)(
        *(
            torch.where(going.view(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(after, before, strict=True)
        )
    )
