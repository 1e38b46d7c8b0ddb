"""Every public tensor function of memlib as a row of one table, for the tests of properties.

A case names its tensors and their shapes; what is drawn for a tensor follows from its name. The
batch comes first in every tensor, so that one row alone can be run too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import memlib
from memlib import programs

SIZES = {
    "B": 2,
    "L": 3,
    "N": 5,
    "M": 4,
    "V": 3,
    "H": 2,
    "S": 3,
    "T": 4,
    "D": 6,
    "9": 9,
    "1": 1,
    "0": 0,
}

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One way to call one public function.

    Attributes:
        name: shown by pytest.
        call: takes the module (or None) and the tensors by name.
        shapes: of each tensor, letters of `SIZES`.
        out: shape of the (first) result.
        module: makes the module from dtype and device.
        constant: tensors without gradient.
        empty: sizes that may be 0.
    """

    name: str
    call: Callable[..., Any]
    shapes: Mapping[str, str]
    out: str
    module: Callable[..., nn.Module] = lambda **_: nn.Identity()
    constant: frozenset[str] = field(default=frozenset({"mask", "written", "lengths", "where"}))
    empty: str = "BLN"

    def draw(
        self,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
        seed: int = 0,
        **sizes: int,
    ) -> Tensors:
        random = torch.Generator().manual_seed(seed)
        size = SIZES | sizes
        return {
            name: _draw(name, [size[s] for s in letters.split()], random, dtype).to(device)
            for name, letters in self.shapes.items()
        }

    def make(self, dtype: torch.dtype = torch.float64, device: str = "cpu") -> nn.Module:
        torch.manual_seed(0)  # parameters are drawn from torch's global state
        return self.module(dtype=dtype, device=device)

    def run(self, tensors: Tensors, module: nn.Module | None = None) -> tuple[Tensor, ...]:
        """Call and return the results as a flat tuple."""
        first = next(iter(tensors.values()))
        module = self.make(first.dtype, str(first.device)) if module is None else module
        return flat(self.call(module, **tensors))

    @property
    def differentiable(self) -> list[str]:
        return [name for name in self.shapes if name not in self.constant]


def flat(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _draw(name: str, shape: list[int], random: torch.Generator, dtype: torch.dtype) -> Tensor:
    def uniform() -> Tensor:
        return torch.rand(shape, generator=random, dtype=torch.float64)

    if name == "mask":  # the first query of a row may read nothing
        mask = uniform() < 0.6
        if mask.shape[-2:].numel():
            mask[..., -1] = True
            if mask.shape[-2] > 1:
                mask[..., 0, :] = False
        return mask
    if name == "written":  # two free slots, the rest in a stirred order
        order = torch.arange(shape[-1]).roll(2).expand(shape)
        return (order - 1).clamp_min(0)
    if name in ("lengths", "seen"):
        return torch.arange(shape[0]) + 1
    if name in ("tokens", "story", "question"):  # words; 0 is padding
        return (uniform() * 9).long()
    if name == "where":
        return uniform() < 0.5
    if name in ("content", "previous", "weights", "shift"):
        return uniform().add(0.1).log().softmax(-1).to(dtype)
    if name in ("gate", "write", "erase", "decay"):
        return uniform().mul(0.9).add(0.05).to(dtype)
    if name in ("strength", "sharpening"):
        return uniform().add(1.1).to(dtype)
    if name in ("signs", "patterns_of_signs"):
        return uniform().sub(0.5).sign().to(dtype)
    return torch.randn(shape, generator=random, dtype=torch.float64).to(dtype)


def _kv(**options: Any) -> Callable[..., nn.Module]:
    return lambda **where: memlib.KeyValueMemory(5, 4, 3, **options, **where)


def _kv_state(keys: Tensor, values: Tensor, written: Tensor) -> memlib.KeyValueState:
    return memlib.KeyValueState(keys, values, written)


def _ntm(
    kind: Any, controller: Callable[..., nn.Module] = nn.LSTMCell, **options: Any
) -> Callable[..., nn.Module]:
    """One read head, so that the controller sees D + M = 10 numbers, and gives V."""
    options |= {"slots": 5, "width": 4}
    return lambda **where: kind(6, 3, controller=controller(10, 3, **where), **options, **where)


def _step(net: nn.Module, x: Tensor, **state: Tensor) -> tuple[Tensor, ...]:
    y, after = net(x, memlib.NTMState(**state) if state else None)
    return y, *after


def _sequence(ntm: nn.Module, x: Tensor, lengths: Tensor, **state: Tensor) -> tuple[Tensor, ...]:
    start = memlib.NTMState(**state)
    y, after, weights = ntm(x, start, lengths=lengths, need_weights=True)
    return y, *after, weights


def _hopfield_that_learns(**where: Any) -> nn.Module:
    return memlib.Hopfield(nn.Parameter(torch.full((), 0.5, **where)), steps=2)


def _attention(**options: Any) -> Callable[..., nn.Module]:
    return lambda **where: memlib.MemoryAttention(6, 3, 1, **options, **where)


def _fast_layer(kind: Any, **options: Any) -> Callable[..., nn.Module]:
    return lambda **where: kind(6, 2, chunk=2, **options, **where)


def _segment(
    layer: nn.Module, x: Tensor, inputs: Tensor, seen: Tensor, lengths: Tensor
) -> tuple[Tensor, ...]:
    y, after, weights = layer(
        x, memlib.SegmentMemory(inputs, seen), lengths=lengths, need_weights=True
    )
    return y, *after, weights


def _matrix_memory(
    _: nn.Module, query: Tensor, keys: Tensor, values: Tensor, **options: Any
) -> Any:
    """As in a text of three chunks; from zeros, the matrix after is float32 at least."""
    results = memlib.matrix_memory(query, keys, values, **{"chunk": 2} | options)
    return results if "state" in options else results[0]


QKV = {"query": "B L M", "keys": "B N M", "values": "B N V"}
STATE = {"state_keys": "B N M", "state_values": "B N V", "written": "B N"}
QP = {"query": "B L M", "patterns": "B N M"}
NTM_STATE = {
    "memory": "B N M",
    "reads": "B 1 M",
    "weights": "B H N",
    "hidden": "B V",
    "cell": "B V",
}
TOKENS = {"query": "B H D M", "keys": "B H D M", "values": "B H D V"}
FAST_GATES = {"write": "B H D V", "erase": "B H D M", "decay": "B H D M"}
GATES = {
    "key": "B H M",
    "strength": "B H",
    "gate": "B H",
    "shift": "B H S",
    "sharpening": "B H",
}

CASES = [
    *(
        Case(
            f"similarity-{measure}",
            lambda _, query, keys, m=measure: memlib.similarity(query, keys, measure=m),
            {"query": "B L M", "keys": "B N M"},
            "B L N",
        )
        for measure in memlib.MEASURES
    ),
    *(
        Case(
            f"address-{measure}",
            lambda _, query, keys, strength, m=measure: memlib.address(
                query, keys, measure=m, strength=strength
            ),
            {"query": "B L M", "keys": "B N M", "strength": "B L"},
            "B L N",
        )
        for measure in memlib.MEASURES
    ),
    Case(
        "address-mask",
        lambda _, query, keys, mask: memlib.address(query, keys, mask=mask),
        {"query": "B L M", "keys": "B N M", "mask": "B L N"},
        "B L N",
    ),
    Case(
        "address-top_k",
        lambda _, query, keys, mask: memlib.address(query, keys, mask=mask, top_k=2),
        {"query": "B L M", "keys": "B N M", "mask": "B 1 N"},
        "B L N",
        empty="BL",
    ),
    Case(
        "read",
        lambda _, weights, values: memlib.read(weights, values),
        {"weights": "B L N", "values": "B N V"},
        "B L V",
    ),
    Case(
        "write",
        lambda _, memory, weights, add, erase: memlib.write(memory, weights, add, erase),
        {"memory": "B N M", "weights": "B H N", "add": "B H M", "erase": "B H M"},
        "B N M",
        empty="BHN",
    ),
    Case(
        "write-one-head",
        lambda _, memory, weights, add, erase: memlib.write(memory, weights, add, erase),
        {"memory": "B N M", "weights": "B 1 N", "add": "B 1 M", "erase": "B 1 M"},
        "B N M",
        empty="BN",
    ),
    Case(
        "write-no-erase",
        lambda _, memory, weights, add: memlib.write(memory, weights, add),
        {"memory": "B N M", "weights": "B H N", "add": "B H M"},
        "B N M",
        empty="BHN",
    ),
    *(
        Case(
            f"attend-{measure}",
            lambda _, query, keys, values, strength, m=measure: memlib.attend(
                query, keys, values, measure=m, strength=strength
            ),
            QKV | {"strength": "B L"},
            "B L V",
        )
        for measure in memlib.MEASURES
    ),
    Case(
        "attend-mask",
        lambda _, mask, **qkv: memlib.attend(**qkv, mask=mask),
        QKV | {"mask": "B L N"},
        "B L V",
    ),
    Case(
        "attend-mask-of-slots",
        lambda _, mask, **qkv: memlib.attend(**qkv, mask=mask),
        QKV | {"mask": "B 1 N"},
        "B L V",
    ),
    Case(
        "attend-wide-values",
        lambda _, **qkv: memlib.attend(**qkv),
        QKV | {"values": "B N D"},
        "B L D",
    ),
    Case(
        "attend-weights",
        lambda _, mask, **qkv: memlib.attend(**qkv, mask=mask, need_weights=True),
        QKV | {"mask": "B L N"},
        "B L V",
    ),
    Case(
        "attend-top_k",
        lambda _, **qkv: memlib.attend(**qkv, top_k=2),
        QKV,
        "B L V",
        empty="BL",
    ),
    Case(
        "interpolate",
        lambda _, content, previous, gate: memlib.interpolate(content, previous, gate),
        {"content": "B H N", "previous": "B H N", "gate": "B H"},
        "B H N",
        empty="BH",
    ),
    *(
        Case(
            f"shift-{letter}",
            lambda _, weights, shift: memlib.shift(weights, shift),
            {"weights": "B H N", "shift": f"B H {letter}"},
            "B H N",
            empty="BH",
        )
        for letter in "1SN"
    ),
    Case(
        "sharpen",
        lambda _, weights, sharpening: memlib.sharpen(weights, sharpening),
        {"weights": "B H N", "sharpening": "B H"},
        "B H N",
        empty="BH",
    ),
    Case(
        "locate",
        lambda _, memory, previous, **gates: memlib.locate(memlib.Gates(**gates), memory, previous),
        {"memory": "B N M", "previous": "B H N"} | GATES,
        "B H N",
        empty="BH",
    ),
    Case(
        "Head",
        lambda head, x, memory, previous: head(x, memory, previous),
        {"x": "B D", "memory": "B N M", "previous": "B H N"},
        "B H N",
        module=lambda **where: memlib.Head(6, 4, 2, **where),
        empty="B",
    ),
    Case(
        "Head.gates",
        lambda head, x: head.gates(x),
        {"x": "B D"},
        "B H M",
        module=lambda **where: memlib.Head(6, 4, 2, **where),
        empty="B",
    ),
    Case(
        "KeyValueMemory.write",
        lambda memory, keys, values, lengths, **state: memory.write(
            keys, values, _kv_state(*state.values()), lengths=lengths
        ),
        {"keys": "B T M", "values": "B T V", "lengths": "B"} | STATE,
        "B N M",
        module=_kv(),
        empty="B",
    ),
    Case(
        "KeyValueMemory.write-refuse",
        lambda memory, keys, values, **state: memory.write(
            keys, values, _kv_state(*state.values())
        ),
        {"keys": "B 1 M", "values": "B 1 V"} | STATE,
        "B N M",
        module=_kv(when_full="refuse"),
        empty="B",
    ),
    Case(
        "KeyValueMemory.read",
        lambda memory, query, strength, **state: memory.read(
            query, _kv_state(*state.values()), strength=strength
        ),
        {"query": "B L M", "strength": "B L"} | STATE,
        "B L V",
        module=_kv(measure="cosine"),
        empty="BL",
    ),
    Case(
        "KeyValueMemory.delete",
        lambda memory, where, **state: memory.delete(where, _kv_state(*state.values())),
        STATE | {"where": "B N"},
        "B N M",
        module=_kv(),
        empty="B",
    ),
    Case(
        "Hopfield",
        lambda net, query, patterns, mask: net(query, patterns, mask=mask),
        QP | {"mask": "B L N"},
        "B L M",
        module=lambda **_: memlib.Hopfield(2.0, steps=3),
    ),
    Case(
        "Hopfield-tolerance",
        lambda net, query, patterns: net(query, patterns, need_weights=True),
        QP,
        "B L M",
        module=lambda **_: memlib.Hopfield(1.5, steps=4, tolerance=0.05),
    ),
    Case(
        "Hopfield.energy",
        lambda net, query, patterns, mask: net.energy(query, patterns, mask=mask),
        QP | {"mask": "B L N"},
        "B L",
        module=lambda **_: memlib.Hopfield(2.0),
    ),
    Case(
        "Hopfield-learned",
        lambda net, query, patterns, mask: net(query, patterns, mask=mask),
        QP | {"mask": "B L N"},
        "B L M",
        module=_hopfield_that_learns,
    ),
    Case(
        "Hopfield.energy-learned",
        lambda net, query, patterns, mask: net.energy(query, patterns, mask=mask),
        QP | {"mask": "B L N"},
        "B L",
        module=_hopfield_that_learns,
    ),
    Case(
        "ClassicalHopfield",
        lambda net, signs, patterns_of_signs: net(signs, patterns_of_signs),
        {"signs": "B L M", "patterns_of_signs": "B N M"},
        "B L M",
        module=lambda **_: memlib.ClassicalHopfield(steps=2),
        constant=frozenset({"signs", "patterns_of_signs"}),
    ),
    Case(
        "ClassicalHopfield.connections",
        lambda net, patterns: net.connections(patterns),
        {"patterns": "B N M"},
        "B M M",
        module=lambda **_: memlib.ClassicalHopfield(),
        empty="BN",
    ),
    Case(
        "ClassicalHopfield.energy",
        lambda net, query, patterns: net.energy(query, patterns),
        QP,
        "B L",
        module=lambda **_: memlib.ClassicalHopfield(),
    ),
    Case(
        "NTMCell",
        _step,
        {"x": "B D"} | NTM_STATE,
        "B V",
        module=_ntm(memlib.NTMCell),
        empty="B",
    ),
    Case(
        "NTMCell-start",
        _step,
        {"x": "B D"},
        "B V",
        module=_ntm(memlib.NTMCell, initial_memory="learned"),
        empty="B",
    ),
    Case(
        "NTM-feed-forward",
        _step,
        {"x": "B H D"} | NTM_STATE | {"hidden": "B 0", "cell": "B 0"},  # of two steps
        "B H V",
        module=_ntm(memlib.NTM, nn.Linear),
        constant=frozenset({"hidden", "cell"}),
        empty="B",
    ),
    Case(
        "NTM-lengths",
        _sequence,
        {"x": "B T D", "lengths": "B"} | NTM_STATE,
        "B T V",
        module=_ntm(memlib.NTM),
        empty="B",
    ),
    *(
        Case(
            f"MemoryAttention-{positions}",
            lambda layer, x: layer(x)[0],
            {"x": "B T D"},
            "B T D",
            module=_attention(positions=positions, window=3),
            empty="BT",
        )
        for positions in ("rotary", "learned", "none")
    ),
    Case(
        "MemoryAttention-mask",
        lambda layer, x, mask: layer(x, mask=mask)[0],
        {"x": "B T D", "mask": "B T"},
        "B T D",
        module=_attention(window=3),
        empty="BT",
    ),
    Case(
        "MemoryAttention-segment",
        _segment,
        {"x": "B T D", "inputs": "B N D", "seen": "B", "lengths": "B"},
        "B T D",
        module=_attention(),
        constant=frozenset({"inputs", "seen", "lengths"}),
        empty="BN",
    ),
    *(
        Case(
            f"fast_weights-{name}",
            partial(_matrix_memory, **options),
            TOKENS | gates,
            "B H D V",
            empty="BD",
        )
        for name, options, gates in (
            ("sum", {}, {}),
            ("delta", {"write": 0.5, "erase": 0.5}, {"state": "B H M V"}),
            ("general", {}, {"state": "B H M V"} | FAST_GATES),
            ("steps", {"chunk": 1}, {"state": "B H M V"} | FAST_GATES),
            ("mask", {}, {"state": "B H M V", "decay": "B H D 1", "mask": "B D"}),
        )
    ),
    *(
        Case(
            f"FastWeights-{rule}",
            lambda layer, x, lengths: layer(x, lengths=lengths)[0],
            {"x": "B T D", "lengths": "B"},
            "B T D",
            module=_fast_layer(memlib.FastWeights, rule=rule),
            empty="B",
        )
        for rule in ("linear", "gated delta", "general")
    ),
    *(
        Case(
            f"NeuralMemory-{hidden}",
            lambda layer, x, lengths: layer(x, lengths=lengths)[0],
            {"x": "B T D", "lengths": "B"},
            "B T D",
            module=_fast_layer(memlib.NeuralMemory, hidden=hidden),
            empty="B",
        )
        for hidden in (0, 5)
    ),
    Case(
        "NeuralMemory.loss",
        lambda layer, x, mask: layer.loss(x, mask=mask),
        {"x": "B T D", "mask": "B T"},
        "B H T",
        module=_fast_layer(memlib.NeuralMemory, hidden=5),
        empty="BT",
    ),
    Case(
        "FeedForward",
        lambda layer, x: layer(x),
        {"x": "B T D"},
        "B T D",
        module=lambda **where: memlib.FeedForward(6, 5, activation="gelu", **where),
        empty="BT",
    ),
    Case(
        "programs.run",
        lambda _, sequence, memory: programs.run(programs.reverse_program(sequence), memory),
        {"sequence": "S S", "memory": "N M"},
        "D M",
        empty="",
    ),
]

BY_NAME = {case.name: case for case in CASES}
