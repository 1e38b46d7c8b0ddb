"""The Neural Turing Machine: a controller that learns to use a memory.

Everything it does to the memory is a call of the floors below: `memlib.addressable` finds the
slots, `memlib.attention` reads and writes them. What is new is the controller, a small network
that sets the gates of the heads from what it sees and what it last read.
"""

import math
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from memlib import checks
from memlib.addressable import _gates, _locate
from memlib.attention import _read, _write

InitialMemory = Literal["constant", "learned", "random"]
CONSTANT = 1e-6  # Collier and Beel 2018: a small constant learns fastest


class NTMState(NamedTuple):
    """All that an NTM carries from step to step, for B rows; a new one comes out of every step.

    Attributes:
        memory: (B, N, M).
        reads: (B, R, M), what the R read heads read last.
        weights: (B, R + W, N), where the heads were last: R read heads, then W write heads.
        hidden: (B, D), the controller's hidden state; (B, 0) if it has none.
        cell: (B, D), the LSTM's cell; (B, 0) for any other controller.
    """

    memory: Tensor
    reads: Tensor
    weights: Tensor
    hidden: Tensor
    cell: Tensor

    def detach(self) -> "NTMState":
        """Return the same state without its history, for truncated backpropagation."""
        return NTMState(*(value.detach() for value in self))


class NTMCell(nn.Module):
    r"""One step of a Neural Turing Machine.

    The controller sees the input and the last reads, :math:`h_t = c(x_t, r_{t-1}, h_{t-1})`; one
    linear layer turns :math:`h_t` into the gates of every head, found by `memlib.locate` on the
    memory as it was; then :math:`M_t` is `memlib.write`, :math:`r_t` is `memlib.read` of the new
    memory, and the logits are linear in :math:`(h_t, r_t)`.

    Args:
        input_size: size I of an input vector.
        output_size: size O of an output vector.
        slots: number of slots N.
        width: width M of a slot.
        read_heads: number of read heads R.
        write_heads: number of write heads W; they write at once, all erasing before any adds.
        shifts: number of shifts S of a head, odd; 3 allows one slot back, none, one forward.
        controller: an `torch.nn.LSTMCell`, `torch.nn.GRUCell` or `torch.nn.RNNCell` of input size
            I + R * M, or any other module (B, I + R * M) -> (B, D), taken as feed-forward. None
            is the paper's LSTM of size 100.
        initial_memory: what lies in the slots at first: "constant" (1e-6), "learned", or
            "random", drawn once and kept.
        walk: added at first to the bias by which a write head steps on to the next slot. At 4 an
            untrained machine leaves each input in a slot of its own, which is easier to learn
            from than all inputs in one slot; 0 is the paper's.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: a size is no integer, the controller no module, or the dtype not real.
        ValueError: a size below 1, an even number of shifts or more than slots, an unknown
            initial memory, a controller of the wrong input size, a walk without a shift.

    Source:
        Graves, Wayne, Danihelka 2014 (arXiv 1410.5401), sections 3 and 4; constant memory:
        Collier and Beel 2018 (arXiv 1807.08518). Where we deviate: every head starts on slot 0
        (the paper learns where), and erase and add are those of all heads together.

    Example:
        >>> import torch
        >>> from memlib import NTMCell
        >>> cell = NTMCell(input_size=9, output_size=8)
        >>> logits, state = cell(torch.randn(2, 9), cell.initial_state(batch_size=2))
        >>> logits.shape, state.memory.shape
        (torch.Size([2, 8]), torch.Size([2, 128, 20]))
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        slots: int = 128,
        width: int = 20,
        *,
        read_heads: int = 1,
        write_heads: int = 1,
        shifts: int = 3,
        controller: nn.Module | None = None,
        initial_memory: InitialMemory = "constant",
        walk: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = {"input_size": input_size, "output_size": output_size, "slots": slots}
        sizes |= {"width": width, "read_heads": read_heads, "write_heads": write_heads}
        for name, size in sizes.items():
            checks.integer(name, size, 1)
        checks.integer("shifts", shifts, 1, slots)
        if shifts % 2 == 0:
            raise ValueError(f"shifts must be odd; got {shifts}")
        checks.choice("initial_memory", initial_memory, ("constant", "learned", "random"))
        checks.number("walk", walk, -math.inf)
        if walk and shifts == 1:
            raise ValueError(f"walk must be 0 with shifts = 1, which never move; got {walk}")
        like = torch.empty(0, device=device, dtype=dtype)
        checks.tensor("dtype", like)

        self.input_size, self.output_size, self.slots, self.width = (
            input_size, output_size, slots, width,
        )  # fmt: skip
        self.read_heads, self.write_heads, self.shifts = read_heads, write_heads, shifts
        self.kind, self.walk = initial_memory, walk
        factory: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        seen = input_size + read_heads * width
        self.controller = nn.LSTMCell(seen, 100, **factory) if controller is None else controller
        size, hidden, cell = _sizes(self.controller, seen, like)

        heads = read_heads + write_heads
        # what the controller says to the heads: their gates, and what the write heads write
        self._per_head = width + shifts + 3
        self._split = (heads * self._per_head, write_heads * 2 * width)
        self.interface = nn.Linear(size, sum(self._split), **factory)
        self.output = nn.Linear(size + read_heads * width, output_size, **factory)
        self.initial_reads = nn.Parameter(torch.empty(read_heads, width, **factory))
        self.initial_hidden = nn.Parameter(torch.empty(hidden, **factory))
        self.initial_cell = nn.Parameter(torch.empty(cell, **factory))
        memory = torch.empty(slots, width, **factory)
        if initial_memory == "learned":
            self.initial_memory = nn.Parameter(memory)
        else:
            self.register_buffer("initial_memory", memory)
        self._reset_start()

    def reset_parameters(self) -> None:
        """Draw new parameters: linear layers and controller as PyTorch does."""
        for module in (*self.controller.modules(), self.interface, self.output):
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        self._reset_start()

    def initial_state(self, batch_size: int = 1) -> NTMState:
        """Return the learned state before the first step, every head on slot 0."""
        checks.integer("batch_size", batch_size, 0)
        learned = (self.initial_reads, self.initial_hidden, self.initial_cell)
        reads, hidden, cell = (x.expand(batch_size, *x.shape).clone() for x in learned)
        memory = self.initial_memory.expand(batch_size, -1, -1).clone()
        weights = torch.zeros_like(memory[:, :1, :1])
        weights = weights.repeat(1, self.read_heads + self.write_heads, self.slots)
        weights[..., 0] = 1
        return NTMState(memory, reads, weights, hidden, cell)

    def forward(self, x: Tensor, state: NTMState | None = None) -> tuple[Tensor, NTMState]:
        """Take one step.

        Args:
            x: (B, I).
            state: where the last step ended; None starts anew.

        Returns:
            Logits (B, O), and the new state; the old one stays as it is.

        Raises:
            TypeError: wrong dtypes, or a state that is no `NTMState`.
            ValueError: wrong shapes, or NaN.
        """
        checks.tensor("x", x)
        checks.shape("x", x, "(B, I)", I=self.input_size)
        state = self._checked_state(x, state)
        hidden, after = self._step(x, state)
        logits = self._logits(hidden, after.reads)
        checks.finite(logits, x=x, **state._asdict())
        return logits, after

    def _step(self, x: Tensor, state: NTMState) -> tuple[Tensor, NTMState]:
        """Everything but the output layer; trusts its arguments."""
        seen = torch.cat((x, state.reads.flatten(1)), dim=-1)
        h, hidden, cell = self._control(seen, state)

        gates, changes = self.interface(h).split(self._split, dim=-1)
        gates = gates.unflatten(-1, (-1, self._per_head))
        weights = _locate(_gates(gates, self.width), state.memory, state.weights)  # (B, R + W, N)

        erase, add = changes.unflatten(-1, (2, self.write_heads, self.width)).unbind(1)
        reading, writing = weights.split((self.read_heads, self.write_heads), dim=1)
        memory = _write(state.memory, writing, add.tanh(), erase.sigmoid())  # eq. 3, 4
        reads = _read(reading, memory)  # eq. 2
        return h, NTMState(memory, reads, weights, hidden, cell)

    def _control(self, seen: Tensor, state: NTMState) -> tuple[Tensor, Tensor, Tensor]:
        """Return the controller's output, its hidden state and its cell."""
        if isinstance(self.controller, nn.LSTMCell):
            hidden, cell = self.controller(seen, (state.hidden, state.cell))
            return hidden, hidden, cell
        if isinstance(self.controller, nn.GRUCell | nn.RNNCell):
            hidden = self.controller(seen, state.hidden)
            return hidden, hidden, state.cell
        return self.controller(seen), state.hidden, state.cell

    def _logits(self, hidden: Tensor, reads: Tensor) -> Tensor:
        logits: Tensor = self.output(torch.cat((hidden, reads.flatten(-2)), dim=-1))
        return logits

    def _checked_state(self, x: Tensor, state: NTMState | None) -> NTMState:
        """Return the state to start from, refusing one that is not this machine's."""
        checks.alike(**{"the parameters": self.interface.weight, "x": x})
        if state is None:
            return self.initial_state(x.shape[0])
        if not isinstance(state, NTMState):
            raise TypeError(f"state must be an NTMState; got {type(state).__name__}")
        sizes = {"B": x.shape[0], "N": self.slots, "M": self.width, "R": self.read_heads}
        sizes |= {"H": self.read_heads + self.write_heads}
        hidden = {"B": x.shape[0], "D": self.initial_hidden.numel()}
        cell = {"B": x.shape[0], "D": self.initial_cell.numel()}
        rules = [("(B, N, M)", sizes), ("(B, R, M)", sizes), ("(B, H, N)", sizes)]
        rules += [("(B, D)", hidden), ("(B, D)", cell)]
        for (name, value), (rule, known) in zip(state._asdict().items(), rules, strict=True):
            checks.tensor(f"state.{name}", value)
            checks.shape(f"state.{name}", value, rule, **known)
            checks.alike(**{"x": x, f"state.{name}": value})
        return state

    def _reset_start(self) -> None:
        with torch.no_grad():
            if self.walk:
                gates = self.interface.bias[: self._split[0]].unflatten(0, (-1, self._per_head))
                gates[self.read_heads :, self.width + self.shifts // 2 + 1] += self.walk
            for value in (self.initial_reads, self.initial_hidden, self.initial_cell):
                value.zero_()
            if self.kind == "constant":
                self.initial_memory.fill_(CONSTANT)
            else:  # the scale of a linear layer's weights
                self.initial_memory.uniform_(-(self.width**-0.5), self.width**-0.5)

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        return (
            f"{self.input_size}, {self.output_size}, slots={self.slots}, width={self.width}, "
            f"read_heads={self.read_heads}, write_heads={self.write_heads}, "
            f"shifts={self.shifts}, initial_memory={self.kind!r}, walk={self.walk:g}"
        )


class NTM(nn.Module):
    r"""A Neural Turing Machine over sequences; ``NTM(9, 8)`` is the paper's copy machine.

    Args:
        input_size: size I of an input vector.
        output_size: size O of an output vector.
        slots: number of slots N.
        width: width M of a slot.
        read_heads: number of read heads R.
        write_heads: number of write heads W.
        shifts: number of shifts S of a head, odd.
        controller: see `NTMCell`, as all of these.
        initial_memory: "constant", "learned" or "random".
        walk: 0 is the paper's, 4 learns faster and more reliably.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: a size is no integer, the controller no module, or the dtype not real.
        ValueError: see `NTMCell`.

    Source:
        Graves, Wayne, Danihelka 2014 (arXiv 1410.5401).

    Example:
        >>> import torch
        >>> from memlib import NTM
        >>> ntm = NTM(input_size=9, output_size=8)
        >>> x = torch.randn(2, 41, 9)
        >>> logits, state = ntm(x[:, :20])
        >>> more, state = ntm(x[:, 20:], state)  # goes on where it stopped
        >>> torch.allclose(torch.cat((logits, more), dim=1), ntm(x)[0])
        True
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        slots: int = 128,
        width: int = 20,
        *,
        read_heads: int = 1,
        write_heads: int = 1,
        shifts: int = 3,
        controller: nn.Module | None = None,
        initial_memory: InitialMemory = "constant",
        walk: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.cell = NTMCell(
            input_size, output_size, slots, width, read_heads=read_heads, write_heads=write_heads,
            shifts=shifts, controller=controller, initial_memory=initial_memory, walk=walk,
            device=device, dtype=dtype,
        )  # fmt: skip
        self._take = NTMCell._step  # a plain function: a copy of the module takes its own steps

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Let `torch.compile` translate one step, which then serves sequences of every length.

        The first call takes a minute, later ones about half their time; results stay the same up
        to rounding. A whole sequence would be translated step by step, and anew for every length.

        Args:
            args: of `torch.compile`.
            kwargs: of `torch.compile`.
        """
        self._take = torch.compile(NTMCell._step, *args, **kwargs)

    def reset_parameters(self) -> None:
        """Draw new parameters."""
        self.cell.reset_parameters()

    def initial_state(self, batch_size: int = 1) -> NTMState:
        """Return the learned state before the first step, every head on slot 0."""
        return self.cell.initial_state(batch_size)

    @overload
    def forward(
        self,
        x: Tensor,
        state: NTMState | None = ...,
        *,
        lengths: Tensor | None = ...,
        need_weights: Literal[False] = ...,
    ) -> tuple[Tensor, NTMState]: ...

    @overload
    def forward(
        self,
        x: Tensor,
        state: NTMState | None = ...,
        *,
        lengths: Tensor | None = ...,
        need_weights: Literal[True],
    ) -> tuple[Tensor, NTMState, Tensor]: ...

    def forward(
        self,
        x: Tensor,
        state: NTMState | None = None,
        *,
        lengths: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, NTMState] | tuple[Tensor, NTMState, Tensor]:
        """Run over a sequence.

        Args:
            x: (B, T, I).
            state: where the last sequence ended; None starts anew.
            lengths: (B,) integers in [0, T]: row b stops after ``lengths[b]`` steps, as if run
                alone; its later logits and weights are 0 and its padding is not looked at.
            need_weights: return the weights of every step too.

        Returns:
            Logits (B, T, O) and the state after the last step of each row; with `need_weights`
            also the weights (B, T, R + W, N), read heads first.

        Raises:
            TypeError: wrong dtypes, or a state that is no `NTMState`.
            ValueError: wrong shapes, lengths outside [0, T], or NaN.
        """
        cell = self.cell
        checks.tensor("x", x)
        checks.shape("x", x, "(B, T, I)", I=cell.input_size)
        before = state = cell._checked_state(x[:, 0] if x.shape[1] else x.sum(1), state)
        going = None if lengths is None else _going(lengths, x)  # (B, T)
        if going is not None:
            x = x.masked_fill(~going.unsqueeze(-1), 0)

        hidden, reads, weights = [], [], []
        # time first: steps are contiguous, so a compiled one is never compiled again for strides
        for t, step in enumerate(x.transpose(0, 1).contiguous()):
            h, after = self._take(cell, step, state)
            state = after if going is None else _keep(going[:, t], after, state)
            hidden.append(h)
            reads.append(after.reads)
            weights.append(after.weights)
        if not hidden:
            none = x.new_zeros(x.shape[0], 0, cell.output_size)
            nowhere = state.weights.unsqueeze(1)[:, :0]
            return (none, state, nowhere) if need_weights else (none, state)

        logits = cell._logits(torch.stack(hidden, 1), torch.stack(reads, 1))  # (B, T, O)
        if going is not None:
            logits = logits.masked_fill(~going.unsqueeze(-1), 0)
        checks.finite(logits, x=x, **before._asdict())
        if not need_weights:
            return logits, state
        moves = torch.stack(weights, 1)  # (B, T, R + W, N)
        return logits, state, moves if going is None else moves * going[..., None, None]


def _sizes(controller: nn.Module, seen: int, like: Tensor) -> tuple[int, int, int]:
    """Return the sizes of a controller's output, hidden state and cell."""
    if not isinstance(controller, nn.Module):
        raise TypeError(f"controller must be a torch.nn.Module; got {type(controller).__name__}")
    for parameter in controller.parameters():
        checks.alike(**{"the cell": like, "controller": parameter})
    if isinstance(controller, nn.RNNCellBase):
        if controller.input_size != seen:
            raise ValueError(
                f"controller must have input size I + R * M = {seen}; got {controller.input_size}"
            )
        size = controller.hidden_size
        return size, size, size if isinstance(controller, nn.LSTMCell) else 0
    try:
        with torch.no_grad():
            out = controller(like.new_zeros(1, seen))
    except RuntimeError as error:
        raise ValueError(f"controller must take (B, I + R * M = {seen}); got {error}") from None
    if not isinstance(out, Tensor) or out.ndim != 2:
        raise ValueError(f"controller must return a tensor (B, D); got {type(out).__name__}")
    return out.shape[1], 0, 0


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


def _keep(going: Tensor, after: NTMState, before: NTMState) -> NTMState:
    """Return the state after in rows that are going, the one before in the others."""
    return NTMState(
        *(
            torch.where(going.view(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(after, before, strict=True)
        )
    )
