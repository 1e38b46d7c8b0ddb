"""What one step of every recurrent machine with a memory has: a controller, and what it says.

`Cell` holds the controller, the layers that speak for it, and the start. What a machine does to
its memory is its own, see `memlib.ntm` and `memlib.dnc`; `memlib.recurrent.Machine` runs it over
sequences.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from memlib import _checks as checks

InitialMemory = Literal["constant", "learned", "random"]
CONSTANT = 1e-6  # Collier and Beel 2018: a small constant learns fastest
State = Any  # a NamedTuple of tensors, the batch first: weights, what `Cell._begin` returns, more


class Cell(nn.Module):
    """One step of a recurrent machine: what is the same whatever the memory.

    The controller sees the input and the last reads; one linear layer turns its output into all
    that the heads are told; the logits are linear in its output and the new reads. A machine adds
    `initial_state`, and `_step`, which returns the controller's output and the new state.
    """

    state_type: ClassVar[tuple[str, Any]]  # with its article, for messages
    state_shapes: ClassVar[tuple[str, ...]]

    initial_state: Callable[..., State]
    _step: Callable[..., tuple[Tensor, State]]

    input_size: int
    output_size: int
    slots: int
    width: int
    read_heads: int
    write_heads: int
    initial_memory: Tensor

    def _size(self, **sizes: int) -> None:
        """Check sizes and keep them under their names."""
        for name, size in sizes.items():
            setattr(self, name, checks.integer(name, size, 1))

    def _build(
        self,
        told: int,
        controller: nn.Module | None,
        initial_memory: InitialMemory,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        """Make the controller, the two layers, `told` numbers for the heads, and the start."""
        checks.choice("initial_memory", initial_memory, ("constant", "learned", "random"))
        like = torch.empty(0, device=device, dtype=dtype)
        checks.tensor("dtype", like)
        factory: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        seen = self.input_size + self.read_heads * self.width
        self.controller = nn.LSTMCell(seen, 100, **factory) if controller is None else controller
        size, hidden, cell = _sizes(self.controller, seen, like)

        self.interface = nn.Linear(size, told, **factory)
        self.output = nn.Linear(size + self.read_heads * self.width, self.output_size, **factory)
        self.initial_reads = nn.Parameter(torch.empty(self.read_heads, self.width, **factory))
        self.initial_hidden = nn.Parameter(torch.empty(hidden, **factory))
        self.initial_cell = nn.Parameter(torch.empty(cell, **factory))
        self.kind = initial_memory
        memory = torch.empty(self.slots, self.width, **factory)
        if initial_memory == "learned":
            self.initial_memory = nn.Parameter(memory)
        else:
            self.register_buffer("initial_memory", memory)

    def reset_parameters(self) -> None:
        """Draw new parameters: linear layers and controller as PyTorch does."""
        for module in (*self.controller.modules(), self.interface, self.output):
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        self._reset_start()

    def _reset_start(self) -> None:
        with torch.no_grad():
            for value in (self.initial_reads, self.initial_hidden, self.initial_cell):
                value.zero_()
            if self.kind == "constant":
                self.initial_memory.fill_(CONSTANT)
            else:  # the scale of a linear layer's weights
                self.initial_memory.uniform_(-(self.width**-0.5), self.width**-0.5)

    def _begin(self, batch_size: int) -> dict[str, Tensor]:
        """Return memory, reads, hidden state and cell before the first step."""
        batch_size = checks.integer("batch_size", batch_size, 0)
        learned = {"memory": self.initial_memory, "reads": self.initial_reads}
        learned |= {"hidden": self.initial_hidden, "cell": self.initial_cell}
        return {name: x.expand(batch_size, *x.shape).clone() for name, x in learned.items()}

    def _checked_step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Check, take one step and return its logits and the new state."""
        checks.tensor("x", x)
        checks.shape("x", x, "(B, I)", I=self.input_size)
        state = self._checked_state(x, state)
        hidden, after = self._step(x, state)
        logits = self._logits(hidden, after.reads)
        checks.finite(logits, x=x, **state._asdict())
        return logits, after

    def _control(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Return the controller's output, its hidden state and its cell."""
        seen = torch.cat((x, state.reads.flatten(1)), dim=-1)
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

    def _checked_state(self, x: Tensor, state: State) -> State:
        """Return the state to start from, refusing one that is not this machine's."""
        checks.alike(**{"the parameters": self.interface.weight, "x": x})
        if state is None:
            return self.initial_state(x.shape[0])
        name, kind = self.state_type
        if not isinstance(state, kind):
            raise TypeError(f"state must be {name}; got {type(state).__name__}")
        sizes = {"B": x.shape[0], "N": self.slots, "M": self.width, "R": self.read_heads}
        sizes |= {"W": self.write_heads, "H": self.read_heads + self.write_heads}
        depth = {"hidden": self.initial_hidden.numel(), "cell": self.initial_cell.numel()}
        for (name, value), rule in zip(state._asdict().items(), self.state_shapes, strict=True):
            checks.tensor(f"state.{name}", value)
            checks.shape(f"state.{name}", value, rule, **sizes, D=depth.get(name, 0))
            checks.alike(**{"x": x, f"state.{name}": value})
        return state


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
