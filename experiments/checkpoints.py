"""Checkpoints: tensors and what they are about, in one safetensors file that vouches for itself.

Nothing is pickled. The file's metadata holds a description (JSON) and the SHA-256 of the whole
file, the digest's own place taken as zeros, so a change of any byte is noticed.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from experiments import files

BLANK = b"0" * 64
DIGEST = re.compile(rb'(?<="sha256":")[0-9a-f]{64}(?=")')


class CheckpointError(ValueError):
    """A checkpoint that is corrupt, or not the one meant."""


def save(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and what they are `about` (JSON) to a safetensors file, whole or not at all.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "two.safetensors"
        ...     save(path, {"x": torch.ones(2)}, {"seed": 0})
        ...     load(path, {"seed": 0})
        ({'x': tensor([1., 1.])}, {'seed': 0})
    """
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    metadata = {"about": json.dumps(about), "sha256": BLANK.decode()}
    data = safetensors.save(tensors, metadata)
    files.write(path, DIGEST.sub(checksum(data), data, count=1))


def load(
    path: Path,
    expected: Mapping[str, Any] | None = None,
    like: Mapping[str, Tensor] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint back, if it is sound and the one meant.

    Args:
        path: the file.
        expected: what the file must be about, as far as these keys go.
        like: tensors whose names, shapes and dtypes the file's must have.

    Returns:
        The tensors, on the CPU, and what they are about.

    Raises:
        CheckpointError: the file is corrupt, or it is another one; says what differs.
    """
    data = path.read_bytes()
    digest = DIGEST.search(data)
    if not digest or digest.group() != checksum(data):
        raise CheckpointError(f"{path.name} is corrupt: its contents do not match its checksum")
    tensors = dict(sorted(safetensors.load(data).items()))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about = json.loads(header["__metadata__"]["about"])
    faults = differences(expected or {}, {key: about.get(key) for key in expected or {}})
    if like is not None:
        faults += differences(shapes(like), shapes(tensors))
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise CheckpointError(f"{path.name} does not fit: {'; '.join(faults[:5])}{more}")
    return tensors, about


def checksum(data: bytes) -> bytes:
    """Return the SHA-256 of a checkpoint whose own digest is taken as zeros."""
    return hashlib.sha256(DIGEST.sub(BLANK, data, count=1)).hexdigest().encode()


def differences(expected: Any, found: Any, name: str = "") -> list[str]:
    """Say where two JSON values differ, key by key.

    Example:
        >>> differences({"seed": 1, "task": {"bits": 8}}, {"seed": 0, "task": {"items": 6}})
        ['seed must be 1; got 0', 'task.bits is missing', 'task.items is unexpected']
    """
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        keys, dot = [*expected, *(key for key in found if key not in expected)], name and "."
        lines = []
        for key in keys:
            if key in expected and key in found:
                lines += differences(expected[key], found[key], f"{name}{dot}{key}")
            else:
                fault = "missing" if key in expected else "unexpected"
                lines.append(f"{name}{dot}{key} is {fault}")
        return lines
    expected = json.loads(json.dumps(expected))  # a tuple comes back from a file as a list
    return [] if expected == found else [f"{name} must be {expected}; got {found}"]


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return each tensor's dtype and shape, such as ``float32 (3, 4)``."""
    return {n: f"{str(t.dtype)[6:]} {tuple(t.shape)}" for n, t in tensors.items()}


def flatten(
    model: nn.Module, optimizer: Optimizer, generators: Mapping[str, Generator]
) -> dict[str, Tensor]:
    """Return all tensors that training changes: ``model.*``, ``optimizer.*``, ``generator.*``."""
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, Tensor):
                raise TypeError(f"optimizer state {key} of {name} must be a tensor; got {value!r}")
            tensors[f"optimizer.{name}.{key}"] = value
    return tensors | {f"generator.{name}": g.get_state() for name, g in generators.items()}


def unflatten(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: Optimizer,
    generators: Mapping[str, Generator],
) -> None:
    """Put tensors from `flatten` back to where they came from."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "generator": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    model.load_state_dict(parts["model"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for key, value in optimizer.state[parameter].items():
                value.copy_(parts["optimizer"][f"{name}.{key}"])
    for name, generator in generators.items():
        generator.set_state(parts["generator"][name])


def prime(optimizer: Optimizer) -> None:
    """Let a new optimizer make its state, to be compared with a checkpoint and filled from it.

    It takes a step with gradients of 0. With weight decay that moves the parameters, so they
    are to be filled too.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
