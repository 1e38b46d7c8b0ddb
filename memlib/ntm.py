"""The Neural Turing Machine: a controller that learns to use a memory.

Everything it does to the memory is a call of the floors below: `memlib.addressable` finds the
slots, `memlib.attention` reads and writes them. What is new is the controller, a small network
that sets the gates of the heads from what it sees and what it last read.
"""

import math
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from memlib import _checks as checks
from memlib._files import plain
from memlib.addressable.gates import _gates, _locate
from memlib.attention.verbs import _read, _write
from memlib.recurrent.cell import Cell, InitialMemory
from memlib.recurrent.sequence import Machine


@plain
class NTMState(NamedTuple):
    """All that an NTM carries from step to step, for B rows; a new one comes out of every step.

    It is kept as named tensors; a machine refuses the state of one of other sizes. `torch.save` and
    `torch.load` take it as it is.

    Attributes:
        memory: (B, N, M).
        reads: (B, R, M), what the R read heads read last.
        weights: (B, R + W, N), where the heads were last: R read heads, then W write heads.
        hidden: (B, D), the controller's hidden state; (B, 0) if it has none.
        cell: (B, D), the LSTM's cell; (B, 0) for any other controller.

    Example:
        >>> import torch
        >>> from safetensors.torch import load, save
        >>> from memlib import NTM, NTMState
        >>> ntm, x = NTM(input_size=9, output_size=8), torch.randn(1, 2, 9)
        >>> kept = save(ntm(x)[1]._asdict())  # or save_file, load_file
        >>> logits, state = ntm(x, NTMState(**load(kept)))
    """

    memory: Tensor
    reads: Tensor
    weights: Tensor
    hidden: Tensor
    cell: Tensor

    def detach(self) -> "NTMState":
        """Return the same state without its history, for truncated backpropagation."""
        return NTMState(*(value.detach() for value in self))


class NTMCell(Cell):
    r"""One step of a Neural Turing Machine.

    The controller sees the input and the last reads, :math:`h_t = c(x_t, r_{t-1}, h_{t-1})`; one
    linear layer turns :math:`h_t` into the gates of every head, found by `memlib.locate` on the
    memory as it was; then :math:`M_t` is `memlib.write`, :math:`r_t` is `memlib.read` of the new
    memory, and the logits are linear in :math:`(h_t, r_t)`.

    `torch.func.vmap` has no rule for an LSTM and refuses it; other controllers it takes. With
    `DistributedDataParallel`, a state that is passed in leaves the learned one without a gradient:
    say ``find_unused_parameters=True``.

    Args:
        input_size: size I of an input vector.
        output_size: size O of an output vector.
        slots: number of slots N.
        width: width M of a slot.
        read_heads: number of read heads R.
        write_heads: number of write heads W; they write at once, all erasing before any adds.
        shifts: number of shifts S of a head, odd; 3 allows one slot back, none, one forward.
        controller: an `torch.nn.LSTMCell`, `torch.nn.GRUCell` or `torch.nn.RNNCell` of input size
            I + R * M, or any other module (B, I + R * M) -> (B, D), taken as feed-forward: it is
            tried on zeros, in evaluation mode, and what it draws or counts then is undone. None
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

    state_type = ("an NTMState", NTMState)
    state_shapes = ("(B, N, M)", "(B, R, M)", "(B, H, N)", "(B, D)", "(B, D)")

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
        self._size(input_size=input_size, output_size=output_size, slots=slots, width=width)
        self._size(read_heads=read_heads, write_heads=write_heads)
        shifts = checks.integer("shifts", shifts, 1, slots)
        if shifts % 2 == 0:
            raise ValueError(f"shifts must be odd; got {shifts}")
        walk = checks.number("walk", walk, -math.inf)
        if walk and shifts == 1:
            raise ValueError(f"walk must be 0 with shifts = 1, which never move; got {walk}")
        self.shifts, self.walk = shifts, walk
        # what the controller says to the heads: their gates, and what the write heads write
        self._per_head = self.width + shifts + 3
        heads = self.read_heads + self.write_heads
        self._split = (heads * self._per_head, self.write_heads * 2 * self.width)
        self._build(sum(self._split), controller, initial_memory, device, dtype)
        self._reset_start()

    def initial_state(self, batch_size: int = 1) -> NTMState:
        """Return the learned state before the first step, every head on slot 0."""
        start = self._begin(batch_size)
        weights = torch.zeros_like(start["memory"][:, :1, :1])
        weights = weights.repeat(1, self.read_heads + self.write_heads, self.slots)
        weights[..., 0] = 1
        return NTMState(weights=weights, **start)

    def forward(self, x: Tensor, state: NTMState | None = None) -> tuple[Tensor, NTMState]:
        """Take one step.

        Args:
            x: (B, I).
            state: where the last step ended; None starts anew.

        Returns:
            Logits (B, O), and the new state; the old one stays as it is.

        Accuracy: float32 2e-6, bfloat16 1e-1, float16 1e-2, of the largest result, times its
        condition.

        Raises:
            TypeError: wrong dtypes, or a state that is no `NTMState`.
            ValueError: wrong shapes, or NaN.
        """
        return self._checked_step(x, state)

    if TYPE_CHECKING:
        __call__ = forward  # nn.Module says that it returns Any

    def _step(self, x: Tensor, state: NTMState) -> tuple[Tensor, NTMState]:
        """Everything but the output layer; trusts its arguments."""
        h, hidden, cell = self._control(x, state)

        gates, changes = self.interface(h).split(self._split, dim=-1)
        gates = gates.unflatten(-1, (-1, self._per_head))
        weights = _locate(_gates(gates, self.width), state.memory, state.weights)  # (B, R + W, N)

        erase, add = changes.unflatten(-1, (2, self.write_heads, self.width)).unbind(1)
        reading, writing = weights.split((self.read_heads, self.write_heads), dim=1)
        memory = _write(state.memory, writing, add.tanh(), erase.sigmoid())  # eq. 3, 4
        reads = _read(reading, memory)  # eq. 2
        return h, NTMState(memory, reads, weights, hidden, cell)

    def _reset_start(self) -> None:
        super()._reset_start()
        if self.walk:
            with torch.no_grad():
                gates = self.interface.bias[: self._split[0]].unflatten(0, (-1, self._per_head))
                gates[self.read_heads :, self.width + self.shifts // 2 + 1] += self.walk

    def extra_repr(self) -> str:
        """Return the sizes shown by ``print(module)``."""
        return (
            f"{self.input_size}, {self.output_size}, slots={self.slots}, width={self.width}, "
            f"read_heads={self.read_heads}, write_heads={self.write_heads}, "
            f"shifts={self.shifts}, initial_memory={self.kind!r}, walk={self.walk:g}"
        )


class NTM(Machine[NTMState]):
    r"""A Neural Turing Machine over sequences; ``NTM(9, 8)`` is the paper's copy machine.

    `torch.func.vmap` has no rule for an LSTM and refuses it. After `compile` a machine can be
    copied and pickled; the copy compiles its step anew.

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
        cell = NTMCell(
            input_size, output_size, slots, width, read_heads=read_heads, write_heads=write_heads,
            shifts=shifts, controller=controller, initial_memory=initial_memory, walk=walk,
            device=device, dtype=dtype,
        )  # fmt: skip
        super().__init__(cell)

    def initial_state(self, batch_size: int = 1) -> NTMState:
        """Return the learned state before the first step, every head on slot 0."""
        return cast(NTMState, self.cell.initial_state(batch_size))
