# ruff: noqa: E501  (a table of messages)
"""Bad input is refused with a message that names the argument, the rule and the value."""

import inspect
import re

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from cases import BY_NAME, CASES
from hypothesis import HealthCheck, given, settings
from torch import nn

import memlib
from memlib import (
    MEASURES,
    NTM,
    ClassicalHopfield,
    Gates,
    Head,
    Hopfield,
    KeyValueMemory,
    KeyValueState,
    NTMCell,
    NTMState,
    address,
    attend,
    interpolate,
    locate,
    matrix_memory,
    programs,
    read,
    sharpen,
    shift,
    similarity,
    write,
)

NAN = float("nan")
q, k, v = torch.ones(3, 4), torch.ones(5, 4), torch.ones(5, 2)
w = torch.full((3, 5), 0.2)
yes = torch.ones(5, dtype=torch.bool)
bad_k, bad_v = k.clone(), v.clone()
bad_k[1, 2] = bad_v[4, 0] = NAN
memory = KeyValueMemory(5, 4, 2)
full = memory.write(torch.ones(2, 5, 4), torch.ones(2, 5, 2), memory.initial_state(2))
kk, vv, qq = torch.ones(2, 3, 4), torch.ones(2, 3, 2), torch.ones(2, 3, 4)
refusing = KeyValueMemory(5, 4, 2, when_full="refuse")
gates = Gates(torch.ones(2, 1, 4), *torch.ones(2, 2, 1), torch.ones(2, 1, 3) / 3, torch.ones(2, 1))
slots, before = torch.ones(2, 5, 4), torch.ones(2, 1, 5) / 5
ntm = NTM(6, 3, 5, 4, controller=nn.LSTMCell(10, 2))
begun = ntm.initial_state(2)
x, xs = torch.ones(2, 6), torch.ones(2, 3, 6)
t4, s4 = torch.ones(2, 1, 3, 4), torch.ones(2, 1, 4, 4)


def from_state(**changed):
    return lambda: ntm(xs, begun._replace(**changed))


def gated(**changed):
    return lambda: locate(gates._replace(**changed), slots, before)


def learned(value, call="forward"):
    """A Hopfield network whose strength, once good, went where it must not be."""
    net = Hopfield(nn.Parameter(torch.ones(())))
    net.strength.data.fill_(value)
    return lambda: getattr(net, call)(q, k)


# fmt: off
REFUSALS = [
    # similarity and address
    (lambda: similarity(q.numpy(), k), TypeError, "query must be a torch.Tensor; got ndarray"),
    (lambda: similarity(q, [[1.0]]), TypeError, "keys must be a torch.Tensor; got list"),
    (lambda: similarity(q.long(), k), TypeError, "query must have a floating-point dtype; got torch.int64"),
    (lambda: similarity(q.to_sparse(), k), TypeError, "query must be a dense tensor; got layout torch.sparse_coo"),
    (lambda: similarity(q, k.double()), TypeError, "keys must have the dtype of query, torch.float32; got torch.float64"),
    (lambda: similarity(q, k.to("meta")), ValueError, "keys must be on the device of query, cpu; got meta"),
    (lambda: similarity(q[0], k), ValueError, "query must have shape (..., L, M); got (4,)"),
    (lambda: similarity(q, k[:, :3]), ValueError, "keys must have shape (..., N, M) with M = 4; got (5, 3)"),
    (lambda: similarity(q.expand(2, 3, 4), k.expand(3, 5, 4)), ValueError, "leading dimensions of query, keys must broadcast; got query (2,), keys (3,)"),
    (lambda: similarity(q, k, measure="euclid"), ValueError, "measure must be one of dot, scaled_dot, cosine, negative_squared_distance; got 'euclid'"),
    (lambda: similarity(q[:, :0], k[:, :0]), ValueError, "the width M of query must be at least 1; got 0"),
    (lambda: similarity(q, bad_k), ValueError, "keys must be finite where it is read; got NaN at (1, 2)"),
    (lambda: similarity(q * NAN, k), ValueError, "query must be finite where it is read; got NaN at (0, 0)"),
    (lambda: address(q, k, strength=-1.0), ValueError, "strength must be finite and at least 0; got -1.0"),
    (lambda: address(q, k, strength=NAN), ValueError, "strength must be finite and at least 0; got nan"),
    (lambda: address(q, k, strength=10**400), ValueError, "strength must be finite and at least 0; got 1"),
    (lambda: address(q, k, strength=True), TypeError, "strength must be a number; got bool"),
    (lambda: address(q, k, strength="1"), TypeError, "strength must be a number; got str"),
    (lambda: address(q, k, strength=torch.tensor([1.0, 2.0, -3.0])), ValueError, "strength must be at least 0; got -3"),
    (lambda: address(q, k, strength=torch.ones(4)), ValueError, "strength must broadcast to shape (3,); got (4,)"),
    (lambda: address(q, k, strength=torch.ones(2, 3)), ValueError, "strength must broadcast to shape (3,); got (2, 3)"),
    (lambda: address(q, k, strength=torch.ones(3).long()), TypeError, "strength must have a floating-point dtype; got torch.int64"),
    (lambda: address(q, k, strength=torch.full((3,), NAN)), ValueError, "strength must be finite where it is read; got NaN at (0,)"),
    (lambda: address(q, k, mask=yes.float()), TypeError, "mask must have dtype torch.bool (True = may be read); got torch.float32"),
    (lambda: address(q, k, mask=[True] * 5), TypeError, "mask must be a torch.Tensor; got list"),
    (lambda: address(q, k, mask=yes[:4]), ValueError, "mask must broadcast to scores of shape (3, 5); got (4,)"),
    (lambda: address(q, k, mask=yes.expand(2, 5)), ValueError, "mask must broadcast to scores of shape (3, 5); got (2, 5)"),
    (lambda: address(q, k, mask=yes.expand(1, 3, 5)), ValueError, "mask must broadcast to scores of shape (3, 5); got (1, 3, 5)"),
    (lambda: address(q.expand(1, 3, 4), k, mask=yes.expand(2, 3, 5)), ValueError, "mask must broadcast to scores of shape (1, 3, 5); got (2, 3, 5)"),
    (lambda: address(q, k, mask=yes.to("meta")), ValueError, "mask must be on the device of query, cpu; got meta"),
    (lambda: address(q, k, top_k=6), ValueError, "top_k must be in [1, 5]; got 6"),
    (lambda: address(q, k, top_k=0), ValueError, "top_k must be in [1, 5]; got 0"),
    (lambda: address(q, k, top_k=2.0), TypeError, "top_k must be an integer; got float"),
    (lambda: address(q, k, top_k=True), TypeError, "top_k must be an integer; got bool"),
    (lambda: address(q, bad_k), ValueError, "keys must be finite where it is read; got NaN at (1, 2)"),
    (lambda: address(q, k / 0), ValueError, "keys must be finite where it is read; got infinity at (0, 0)"),
    # read and write
    (lambda: read(w.numpy(), v), TypeError, "weights must be a torch.Tensor; got ndarray"),
    (lambda: read(w, v.long()), TypeError, "values must have a floating-point dtype; got torch.int64"),
    (lambda: read(w, v[:4]), ValueError, "values must have shape (..., N, V) with N = 5; got (4, 2)"),
    (lambda: read(w[0], v), ValueError, "weights must have shape (..., L, N); got (5,)"),
    (lambda: read(w, bad_v), ValueError, "values must be finite where it is read; got NaN at (4, 0)"),
    (lambda: write(k[0], w, q), ValueError, "memory must have shape (..., N, M); got (4,)"),
    (lambda: write(k, w[:, :4], q), ValueError, "weights must have shape (..., H, N) with N = 5; got (3, 4)"),
    (lambda: write(k, w, q[:2]), ValueError, "add must have shape (..., H, M) with H = 3, M = 4; got (2, 4)"),
    (lambda: write(k, w, q, q[:, :3]), ValueError, "erase must have shape (..., H, M) with H = 3, M = 4; got (3, 3)"),
    (lambda: write(k, w, q, 1.0), TypeError, "erase must be a torch.Tensor; got float"),
    (lambda: write(k, w, q.double()), TypeError, "add must have the dtype of memory, torch.float32; got torch.float64"),
    (lambda: write(k, w * NAN, q), ValueError, "weights must be finite where it is read; got NaN at (0, 0)"),
    (lambda: write(k, w, q, q * NAN), ValueError, "erase must be finite where it is read; got NaN at (0, 0)"),
    # attend
    (lambda: attend(q, k, v.numpy()), TypeError, "values must be a torch.Tensor; got ndarray"),
    (lambda: attend(q, k, v[:4]), ValueError, "values must have shape (..., N, V) with N = 5; got (4, 2)"),
    (lambda: attend(q, k, v.half()), TypeError, "values must have the dtype of query, torch.float32; got torch.float16"),
    (lambda: attend(q.expand(2, 3, 4), k, v.expand(3, 5, 2)), ValueError, "leading dimensions of query, keys, values must broadcast; got query (2,), keys (), values (3,)"),
    (lambda: attend(q, bad_k, v), ValueError, "keys must be finite where it is read; got NaN at (1, 2)"),
    (lambda: attend(q, k, bad_v), ValueError, "values must be finite where it is read; got NaN at (4, 0)"),
    (lambda: attend(q, k, bad_v, mask=yes), ValueError, "values must be finite where it is read; got NaN at (4, 0)"),
    (lambda: attend(q, k, bad_v, top_k=2, need_weights=True), ValueError, "values must be finite where it is read; got NaN at (4, 0)"),
    (lambda: attend(1e30 * q, 1e30 * k, v), ValueError, "query, keys, values, strength must be small enough for torch.float32; the result overflowed to NaN"),
    (lambda: attend(q, k[:0], v[:0], top_k=1), ValueError, "top_k must be in [1, 0]; got 1"),
    # fast weights
    (lambda: matrix_memory(t4.numpy(), t4, t4), TypeError, "query must be a torch.Tensor; got ndarray"),
    (lambda: matrix_memory(q, t4, t4), ValueError, "query must have shape (B, H, T, M); got (3, 4)"),
    (lambda: matrix_memory(t4, t4[:, :, :2], t4), ValueError, "keys must have shape (B, H, T, M) with B = 2, H = 1, T = 3, M = 4; got (2, 1, 2, 4)"),
    (lambda: matrix_memory(t4, t4, t4[:1]), ValueError, "values must have shape (B, H, T, V) with B = 2, H = 1, T = 3; got (1, 1, 3, 4)"),
    (lambda: matrix_memory(t4, t4, t4.double()), TypeError, "values must have the dtype of query, torch.float32; got torch.float64"),
    (lambda: matrix_memory(t4, t4, t4, t4), ValueError, "state must have shape (B, H, M, V) with B = 2, H = 1, M = 4, V = 4; got (2, 1, 3, 4)"),
    (lambda: matrix_memory(t4, t4, t4, s4.double()), TypeError, "state must have the dtype of query, torch.float32; got torch.float64"),
    (lambda: matrix_memory(t4, t4, t4, s4.half()), TypeError, "state must have the dtype of query, torch.float32; got torch.float16"),
    (lambda: matrix_memory(t4, t4, t4, s4.to("meta")), ValueError, "state must be on the device of query, cpu; got meta"),
    (lambda: matrix_memory(t4, t4, t4, write="1"), TypeError, "write must be a number; got str"),
    (lambda: matrix_memory(t4, t4, t4, write=torch.ones(2, 3, 4)), ValueError, "write must broadcast to shape (2, 1, 3, 4); got (2, 3, 4)"),
    (lambda: matrix_memory(t4, t4, t4, erase=NAN), ValueError, "erase must be finite; got nan"),
    (lambda: matrix_memory(t4, t4, t4, erase=torch.ones(3)), ValueError, "erase must broadcast to shape (2, 1, 3, 4); got (3,)"),
    (lambda: matrix_memory(t4, t4, t4, decay=1.5), ValueError, "decay must be finite and in [0, 1]; got 1.5"),
    (lambda: matrix_memory(t4, t4, t4, decay=-t4), ValueError, "decay must be in [0, 1]; got -1"),
    (lambda: matrix_memory(t4, t4, t4, decay=2 * t4, chunk=1), ValueError, "decay must be in [0, 1]; got 2"),
    (lambda: matrix_memory(t4, t4, t4, decay=t4 * NAN), ValueError, "decay must be finite where it is read; got NaN at (0, 0, 0, 0)"),
    (lambda: matrix_memory(t4, t4 * NAN, t4), ValueError, "keys must be finite where it is read; got NaN at (0, 0, 0, 0)"),
    (lambda: matrix_memory(t4, t4, t4, s4 * NAN), ValueError, "state must be finite where it is read; got NaN at (0, 0, 0, 0)"),
    (lambda: matrix_memory(t4, 1e30 * t4, 1e30 * t4), ValueError, "must be small enough for torch.float32; the result overflowed to"),
    (lambda: matrix_memory(t4, t4, t4, mask=[True]), TypeError, "mask must be a torch.Tensor; got list"),
    (lambda: matrix_memory(t4, t4, t4, mask=torch.ones(2, 3)), TypeError, "mask must have dtype torch.bool (True = a token); got torch.float32"),
    (lambda: matrix_memory(t4, t4, t4, mask=torch.ones(3, dtype=torch.bool)), ValueError, "mask must have shape (B, T) with B = 2, T = 3; got (3,)"),
    (lambda: matrix_memory(t4, t4, t4, chunk=0), ValueError, "chunk must be at least 1; got 0"),
    (lambda: matrix_memory(t4, t4, t4, chunk=12), ValueError, "chunk must be a power of two; got 12"),
    (lambda: matrix_memory(t4, t4, t4, chunk=8.0), TypeError, "chunk must be an integer; got float"),
    # key-value memory
    (lambda: KeyValueMemory(0, 4), ValueError, "slots must be at least 1; got 0"),
    (lambda: KeyValueMemory(4, 0), ValueError, "width must be at least 1; got 0"),
    (lambda: KeyValueMemory(4, 4, 0), ValueError, "value_width must be at least 1; got 0"),
    (lambda: KeyValueMemory(4.0, 4), TypeError, "slots must be an integer; got float"),
    (lambda: KeyValueMemory(4, True), TypeError, "width must be an integer; got bool"),
    (lambda: KeyValueMemory(4, 4, measure="l2"), ValueError, "measure must be one of"),
    (lambda: KeyValueMemory(4, 4, when_full="drop"), ValueError, "when_full must be one of overwrite, refuse; got 'drop'"),
    (lambda: KeyValueMemory(4, 4, dtype=torch.int32), TypeError, "dtype must have a floating-point dtype; got torch.int32"),
    (lambda: memory.initial_state(-1), ValueError, "batch_size must be at least 0; got -1"),
    (lambda: memory.write(kk, vv, tuple(full)), TypeError, "state must be a KeyValueState; got tuple"),
    (lambda: memory.write(kk[:1], vv, full), ValueError, "keys must have shape (B, T, M) with B = 2, M = 4; got (1, 3, 4)"),
    (lambda: memory.write(kk, vv[:, :2], full), ValueError, "values must have shape (B, T, V) with B = 2, T = 3, V = 2; got (2, 2, 2)"),
    (lambda: memory.write(kk.long(), vv, full), TypeError, "keys must have a floating-point dtype; got torch.int64"),
    (lambda: memory.write(kk, vv.double(), full), TypeError, "values must have the dtype of state, torch.float32; got torch.float64"),
    (lambda: memory.write(kk * NAN, vv, full), ValueError, "keys must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda: memory.write(kk, vv * NAN, full), ValueError, "values must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda: memory.write(kk, vv, full, lengths=torch.tensor([1, 4])), ValueError, "lengths must be in [0, T = 3]; got [1, 4]"),
    (lambda: memory.write(kk, vv, full, lengths=torch.tensor([-1, 3])), ValueError, "lengths must be in [0, T = 3]; got [-1, 3]"),
    (lambda: memory.write(kk, vv, full, lengths=torch.tensor([1])), ValueError, "lengths must have shape (B,) with B = 2; got (1,)"),
    (lambda: memory.write(kk, vv, full, lengths=torch.ones(2)), TypeError, "lengths must be an int32 or int64 tensor; got torch.float32"),
    (lambda: memory.write(kk, vv, full, lengths=[1, 2]), TypeError, "lengths must be an int32 or int64 tensor; got list"),
    (lambda: memory.write(kk, vv, full, lengths=torch.ones(2, device="meta").long()), ValueError, "lengths must be on the device of state, cpu; got meta"),
    (lambda: refusing.write(kk, vv, full), ValueError, "pairs written must fit in the free slots, 0 of 5 in row 0; got 3"),
    (lambda: memory.read(qq, None), TypeError, "state must be a KeyValueState; got NoneType"),
    (lambda: memory.read(qq, KeyValueState(1, 2, 3)), TypeError, "state.keys must be a torch.Tensor; got int"),
    (lambda: memory.read(qq, full._replace(keys=torch.tensor(1.0))), ValueError, "state.keys must have shape (B, N, M) with N = 5, M = 4; got ()"),
    (lambda: memory.read(qq, full._replace(written=full.written.float())), TypeError, "state.written must be an int64 tensor; got torch.float32"),
    (lambda: memory.read(qq, full._replace(written=full.written[:1])), ValueError, "state.written must have shape (B, N) with B = 2, N = 5; got (1, 5)"),
    (lambda: memory.read(qq[0], full), ValueError, "query must have shape (B, L, M) with B = 2, M = 4; got (3, 4)"),
    (lambda: memory.read(qq.double(), full), TypeError, "query must have the dtype of state, torch.float32; got torch.float64"),
    (lambda: memory.read(qq * NAN, full), ValueError, "query must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda: memory.read(qq, full, strength=-2.0), ValueError, "strength must be finite and at least 0; got -2.0"),
    (lambda: memory.read(qq, full, top_k=6), ValueError, "top_k must be in [1, 5]; got 6"),
    (lambda: memory.delete([True], full), TypeError, "where must be a tensor of dtype torch.bool; got list"),
    (lambda: memory.delete(full.written, full), TypeError, "where must be a tensor of dtype torch.bool; got torch.int64"),
    (lambda: memory.delete(yes, full), ValueError, "where must have shape (B, N) with B = 2, N = 5; got (5,)"),
    # Hopfield
    (lambda: Hopfield(0.0), ValueError, "strength must be above 0; got 0"),
    (lambda: Hopfield(-1.0), ValueError, "strength must be finite and at least 0; got -1.0"),
    (lambda: Hopfield(1.0, steps=0), ValueError, "steps must be at least 1; got 0"),
    (lambda: Hopfield(1.0, steps=1.5), TypeError, "steps must be an integer; got float"),
    (lambda: Hopfield(1.0, tolerance=-0.1), ValueError, "tolerance must be finite and at least 0; got -0.1"),
    (lambda: Hopfield()(q, k.numpy()), TypeError, "patterns must be a torch.Tensor; got ndarray"),
    (lambda: Hopfield()(q, k[:, :2]), ValueError, "patterns must have shape (..., N, M) with M = 4; got (5, 2)"),
    (lambda: Hopfield()(q, bad_k), ValueError, "patterns must be finite where it is read; got NaN at (1, 2)"),
    (lambda: Hopfield()(q, k, mask=yes[:3]), ValueError, "mask must broadcast to scores of shape (3, 5); got (3,)"),
    (lambda: Hopfield().energy(q * NAN, k), ValueError, "query must be finite where it is read; got NaN at (0, 0)"),
    (lambda: Hopfield().energy(q, k, mask=yes.long()), TypeError, "mask must have dtype torch.bool"),
    (lambda: Hopfield(torch.tensor(-1.0)), ValueError, "strength must be at least 0; got -1"),
    (lambda: Hopfield(torch.tensor([1.0, 0.0])), ValueError, "strength must be above 0; got 0"),
    (lambda: Hopfield(torch.tensor(1)), TypeError, "strength must have a floating-point dtype; got torch.int64"),
    (lambda: Hopfield(torch.ones(2))(q, k), ValueError, "strength must broadcast to shape (3,); got (2,)"),
    (lambda: Hopfield(torch.tensor(NAN))(q, k), ValueError, "strength must be finite where it is read; got NaN at ()"),
    (learned(-1.0), ValueError, "strength must be above 0; got -1"),
    (lambda: learned(0.0, "energy")(), ValueError, "strength must be above 0; got 0"),
    (lambda: ClassicalHopfield(0), ValueError, "steps must be at least 1; got 0"),
    (lambda: ClassicalHopfield()(q, k[0]), ValueError, "patterns must have shape (..., N, M) with M = 4; got (4,)"),
    (lambda: ClassicalHopfield().connections(k.long()), TypeError, "patterns must have a floating-point dtype; got torch.int64"),
    (lambda: ClassicalHopfield().energy(q * NAN, k), ValueError, "query must be finite where it is read; got NaN at (0, 0)"),
    # location
    (lambda: interpolate(w, w[:2], 0.5), ValueError, "previous must have the shape of content, (3, 5); got (2, 5)"),
    (lambda: interpolate(w, w, 1.5), ValueError, "gate must be finite and in [0, 1]; got 1.5"),
    (lambda: interpolate(w, w, torch.tensor([0.0, 1.0, -0.5])), ValueError, "gate must be in [0, 1]; got -0.5"),
    (lambda: interpolate(w, w, torch.ones(5)), ValueError, "gate must broadcast to shape (3,); got (5,)"),
    (lambda: interpolate(w * NAN, w, 0.5), ValueError, "content must be finite where it is read; got NaN at (0, 0)"),
    (lambda: interpolate(w[:, :0], w[:, :0], 0.5), ValueError, "content must have at least one slot; got (3, 0)"),
    (lambda: interpolate(w, w.double(), 0.5), TypeError, "previous must have the dtype of content, torch.float32; got torch.float64"),
    (lambda: shift(w, torch.ones(2)), ValueError, "shift must have an odd size S of at most N = 5; got S = 2"),
    (lambda: shift(w, torch.ones(7)), ValueError, "shift must have an odd size S of at most N = 5; got S = 7"),
    (lambda: shift(w, torch.ones(0)), ValueError, "shift must have an odd size S of at most N = 5; got S = 0"),
    (lambda: shift(w, torch.ones(2, 3)), ValueError, "shift must broadcast to (..., S) = (3, 3); got (2, 3)"),
    (lambda: shift(w, 1), TypeError, "shift must be a torch.Tensor; got int"),
    (lambda: shift(w[:, :0], torch.ones(1)), ValueError, "weights must have at least one slot; got (3, 0)"),
    (lambda: shift(w, torch.full((3,), NAN)), ValueError, "shift must be finite where it is read; got NaN at (0,)"),
    (lambda: sharpen(w, 0.5), ValueError, "sharpening must be finite and at least 1; got 0.5"),
    (lambda: sharpen(w, torch.tensor(0.5)), ValueError, "sharpening must be at least 1; got 0.5"),
    (lambda: sharpen(-w, 1.5), ValueError, "weights must be at least 0; got -0.2"),
    (lambda: sharpen(w * NAN, 2.0), ValueError, "weights must be finite where it is read; got NaN at (0, 0)"),
    (lambda: locate(tuple(gates), slots, before), TypeError, "gates must be a Gates; got tuple"),
    (lambda: locate(gates, slots[0], before), ValueError, "memory must have shape (B, N, M); got (5, 4)"),
    (lambda: locate(gates, slots, before[..., :4]), ValueError, "previous must have shape (B, H, N) with B = 2, H = 1, N = 5; got (2, 1, 4)"),
    (lambda: locate(gates, slots, before.double()), TypeError, "previous must have the dtype of memory, torch.float32; got torch.float64"),
    (gated(key=torch.ones(2, 1, 3)), ValueError, "key must have shape (B, H, M) with B = 2, M = 4; got (2, 1, 3)"),
    (gated(strength=torch.ones(2)), ValueError, "strength must broadcast to (B, H) = (2, 1); got (2,)"),
    (gated(strength=-torch.ones(2, 1)), ValueError, "strength must be at least 0; got -1"),
    (gated(gate=2 * torch.ones(2, 1)), ValueError, "gate must be in [0, 1]; got 2"),
    (gated(gate=0.5), TypeError, "gate must be a torch.Tensor; got float"),
    (gated(sharpening=torch.zeros(2, 1)), ValueError, "sharpening must be at least 1; got 0"),
    (gated(shift=torch.ones(2, 1, 2)), ValueError, "shift must have an odd size S of at most N = 5; got S = 2"),
    (gated(shift=torch.ones(2, 1, 7)), ValueError, "shift must have an odd size S of at most N = 5; got S = 7"),
    (gated(key=gates.key * NAN), ValueError, "key must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda: Head(0, 4), ValueError, "input_size must be at least 1; got 0"),
    (lambda: Head(3, 4, 0), ValueError, "heads must be at least 1; got 0"),
    (lambda: Head(3, 4, shifts=4), ValueError, "shifts must be odd; got 4"),
    (lambda: Head(3, 4, dtype=torch.int64), TypeError, "dtype must have a floating-point dtype; got torch.int64"),
    (lambda: Head(3, 4)(torch.ones(2, 5), slots, before), ValueError, "x must have shape (B, D) with D = 3; got (2, 5)"),
    (lambda: Head(3, 4)(torch.ones(2, 3).double(), slots, before), TypeError, "x must have the dtype of the head, torch.float32; got torch.float64"),
    (lambda: Head(3, 4, shifts=7)(torch.ones(2, 3), slots, before), ValueError, "shift must have an odd size S of at most N = 5; got S = 7"),
    # the Neural Turing Machine
    (lambda: NTM(0, 3), ValueError, "input_size must be at least 1; got 0"),
    (lambda: NTM(6, 3.0), TypeError, "output_size must be an integer; got float"),
    (lambda: NTM(6, 3, 0), ValueError, "slots must be at least 1; got 0"),
    (lambda: NTM(6, 3, 5, -4), ValueError, "width must be at least 1; got -4"),
    (lambda: NTMCell(6, 3, read_heads=0), ValueError, "read_heads must be at least 1; got 0"),
    (lambda: NTMCell(6, 3, write_heads=True), TypeError, "write_heads must be an integer; got bool"),
    (lambda: NTMCell(6, 3, shifts=2), ValueError, "shifts must be odd; got 2"),
    (lambda: NTMCell(6, 3, 5, shifts=7), ValueError, "shifts must be in [1, 5]; got 7"),
    (lambda: NTMCell(6, 3, initial_memory="zeros"), ValueError, "initial_memory must be one of constant, learned, random; got 'zeros'"),
    (lambda: NTMCell(6, 3, dtype=torch.int64), TypeError, "dtype must have a floating-point dtype; got torch.int64"),
    (lambda: NTMCell(6, 3, controller="lstm"), TypeError, "controller must be a torch.nn.Module; got str"),
    (lambda: NTMCell(6, 3, controller=nn.LSTMCell), TypeError, "controller must be a torch.nn.Module; got type"),
    (lambda: NTMCell(6, 3, 5, 4, controller=nn.LSTMCell(6, 2)), ValueError, "controller must have input size I + R * M = 10; got 6"),
    (lambda: NTMCell(6, 3, 5, 4, controller=nn.Linear(6, 2)), ValueError, "controller must take (B, I + R * M = 10)"),
    (lambda: NTMCell(6, 3, 5, 4, controller=nn.LSTM(10, 2)), ValueError, "controller must return a tensor (B, D); got tuple"),
    (lambda: NTMCell(6, 3, 5, 4, controller=nn.Linear(10, 2, dtype=torch.float64)), TypeError, "controller must have the dtype of the cell, torch.float32; got torch.float64"),
    (lambda: NTMCell(6, 3, 5, 4, controller=nn.GRUCell(10, 2, dtype=torch.float64)), TypeError, "controller must have the dtype of the cell, torch.float32; got torch.float64"),
    (lambda: NTMCell(6, 3, 5, 4, controller=nn.GRUCell(10, 2, device="meta")), ValueError, "controller must be on the device of the cell, cpu; got meta"),
    (lambda: ntm.initial_state(-1), ValueError, "batch_size must be at least 0; got -1"),
    (lambda: ntm.initial_state(2.0), TypeError, "batch_size must be an integer; got float"),
    (lambda: ntm(xs.numpy()), TypeError, "x must be a torch.Tensor; got ndarray"),
    (lambda: ntm(xs.long()), TypeError, "x must have a floating-point dtype; got torch.int64"),
    (lambda: ntm(xs.double()), TypeError, "x must have the dtype of the parameters, torch.float32; got torch.float64"),
    (lambda: ntm(xs.to("meta")), ValueError, "x must be on the device of the parameters, cpu; got meta"),
    (lambda: ntm(x), ValueError, "x must have shape (B, T, I) with I = 6; got (2, 6)"),
    (lambda: ntm(xs[..., :5]), ValueError, "x must have shape (B, T, I) with I = 6; got (2, 3, 5)"),
    (lambda: ntm(xs * NAN), ValueError, "x must be finite where it is read; got NaN at (0, 0, 0)"),
    (lambda: ntm.cell(xs), ValueError, "x must have shape (B, I) with I = 6; got (2, 3, 6)"),
    (lambda: ntm.cell(x * NAN), ValueError, "x must be finite where it is read; got NaN at (0, 0)"),
    (lambda: ntm.cell(x.half()), TypeError, "x must have the dtype of the parameters, torch.float32; got torch.float16"),
    (lambda: ntm(xs, tuple(begun)), TypeError, "state must be an NTMState; got tuple"),
    (lambda: ntm.cell(x, begun._asdict()), TypeError, "state must be an NTMState; got dict"),
    (lambda: ntm(xs, begun.memory), TypeError, "state must be an NTMState; got Tensor"),
    (lambda: ntm(xs, NTMState(1, 2, 3, 4, 5)), TypeError, "state.memory must be a torch.Tensor; got int"),
    (lambda: ntm(xs, ntm.initial_state(3)), ValueError, "state.memory must have shape (B, N, M) with B = 2, N = 5, M = 4; got (3, 5, 4)"),
    (from_state(memory=torch.ones(2, 6, 4)), ValueError, "state.memory must have shape (B, N, M) with B = 2, N = 5, M = 4; got (2, 6, 4)"),
    (from_state(memory=begun.memory.double()), TypeError, "state.memory must have the dtype of x, torch.float32; got torch.float64"),
    (from_state(memory=begun.memory.to("meta")), ValueError, "state.memory must be on the device of x, cpu; got meta"),
    (from_state(memory=begun.memory * NAN), ValueError, "memory must be finite where it is read; got NaN at (0, 0, 0)"),
    (from_state(reads=torch.ones(2, 2, 4)), ValueError, "state.reads must have shape (B, R, M) with B = 2, R = 1, M = 4; got (2, 2, 4)"),
    (from_state(reads=begun.reads * NAN), ValueError, "reads must be finite where it is read; got NaN at (0, 0, 0)"),
    (from_state(weights=torch.ones(2, 1, 5)), ValueError, "state.weights must have shape (B, H, N) with B = 2, H = 2, N = 5; got (2, 1, 5)"),
    (from_state(weights=begun.weights.long()), TypeError, "state.weights must have a floating-point dtype; got torch.int64"),
    (from_state(weights=begun.weights * NAN), ValueError, "weights must be finite where it is read; got NaN at (0, 0, 0)"),
    (from_state(hidden=torch.ones(2, 0)), ValueError, "state.hidden must have shape (B, D) with B = 2, D = 2; got (2, 0)"),
    (from_state(hidden=begun.hidden * NAN), ValueError, "hidden must be finite where it is read; got NaN at (0, 0)"),
    (from_state(cell=torch.ones(2)), ValueError, "state.cell must have shape (B, D) with B = 2, D = 2; got (2,)"),
    (from_state(cell=begun.cell * NAN), ValueError, "cell must be finite where it is read; got NaN at (0, 0)"),
    (lambda: ntm(xs, lengths=[1, 2]), TypeError, "lengths must be an int32 or int64 tensor; got list"),
    (lambda: ntm(xs, lengths=torch.ones(2)), TypeError, "lengths must be an int32 or int64 tensor; got torch.float32"),
    (lambda: ntm(xs, lengths=torch.ones(3).long()), ValueError, "lengths must have shape (B,) with B = 2; got (3,)"),
    (lambda: ntm(xs, lengths=torch.tensor([1, 4])), ValueError, "lengths must be in [0, 3]; got 4"),
    (lambda: ntm(xs, lengths=torch.tensor([-1, 3])), ValueError, "lengths must be in [0, 3]; got -1"),
    (lambda: ntm(xs, lengths=torch.ones(2, device="meta").long()), ValueError, "lengths must be on the device of x, cpu; got meta"),
]
# fmt: on


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    REFUSALS,
    ids=[f"{i}-{m[:40]}" for i, (_, _, m) in enumerate(REFUSALS)],
)
def test_bad_input_is_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)) as caught:
        call()
    assert type(caught.value) is kind


@pytest.mark.parametrize("case", [c for c in CASES if c.differentiable], ids=lambda c: c.name)
def test_nan_in_any_argument_is_refused_by_name(case):
    for name in case.differentiable:
        if name in ("memory", "sequence") and case.name.startswith(("write", "programs")):
            continue  # a write does not read its memory
        if name.startswith("state_") and case.name != "KeyValueMemory.read":
            continue
        tensors = {n: t for n, t in case.draw().items() if n not in ("mask", "lengths")}
        tensors |= {n: torch.ones_like(t) for n, t in case.draw().items() if n == "mask"}
        tensors |= {n: torch.full_like(t, 4) for n, t in case.draw().items() if n == "lengths"}
        tensors[name] = torch.full_like(tensors[name], NAN)
        with pytest.raises(ValueError, match=f"{name.replace('state_', 'state|')} must be finite"):
            case.run(tensors)


def parameters():
    """Every parameter of every public function, class and method."""
    public = [getattr(memlib, name) for name in memlib.__all__]
    public += [thing for thing in vars(programs).values() if inspect.isfunction(thing)]
    classes = [thing for thing in public if inspect.isclass(thing)]
    public += [f for c in classes for f in vars(c).values() if inspect.isfunction(f)]
    return {p for thing in public if callable(thing) for p in inspect.signature(thing).parameters}


NAMES = parameters()

FLOATS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e30, NAN, float("inf")])


@st.composite
def something(draw):
    """A tensor of an odd shape, dtype, device or content, or no tensor at all."""
    if draw(st.integers(0, 4)) == 0:
        odd = [None, True, 1, 0, -1, 2.5, NAN, "cosine", [1.0], np.ones((2, 3)), {}, torch.bool]
        return draw(st.sampled_from(odd))
    shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=4))
    dtype = draw(st.sampled_from([torch.float32] * 5 + [torch.float64, torch.int64, torch.bool]))
    device = draw(st.sampled_from(["cpu"] * 9 + ["meta"]))
    if dtype == torch.bool:
        return torch.zeros(shape, dtype=dtype, device=device)
    return (
        torch.full(shape, draw(FLOATS)).nan_to_num(0.0, 9.0).to(dtype).to(device)
        if (dtype == torch.int64)
        else torch.full(shape, draw(FLOATS), dtype=dtype, device=device)
    )


OPTIONS = {
    "measure": st.sampled_from([*MEASURES, "l2", None, 3]),
    "strength": st.one_of(st.just(1.0), something()),
    "mask": st.one_of(st.none(), something()),
    "top_k": st.one_of(st.none(), st.integers(-1, 4), something()),
    "need_weights": st.booleans(),
    "erase": st.one_of(st.none(), something()),
}


def accepted(name):
    function = getattr(memlib, name)
    parameters = inspect.signature(function).parameters
    return function, {p: OPTIONS.get(p, something()) for p in parameters}


@pytest.mark.parametrize(
    "name", ["similarity", "address", "read", "write", "attend", "interpolate", "shift", "sharpen"]
)
@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_arguments_raise_only_documented_errors(name, data):
    function, strategies = accepted(name)
    check(lambda: function(**{p: data.draw(s, label=p) for p, s in strategies.items()}))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_good_arguments_but_one_raise_only_documented_errors(case, data):
    tensors = case.draw(torch.float32)
    tensors[data.draw(st.sampled_from(sorted(tensors)))] = data.draw(something())
    module = BY_NAME[case.name].make(torch.float32)
    check(lambda: case.call(module, **tensors))


def check(call):
    message = None
    try:
        call()
    except (ValueError, TypeError) as error:
        message = str(error)
    assert message is None or NAMES & set(re.findall(r"[A-Za-z_]+", message)), message
