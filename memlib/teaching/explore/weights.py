"""Weights for the page: what a notebook hands over, as JSON that the engine reads."""

import base64
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def pack(path: Path, *, exact: bool = False) -> dict[str, Any]:
    """Return a checkpoint in half precision, with its metadata.

    Args:
        path: A `.safetensors` file.
        exact: In single precision, for a machine that answers otherwise when it is rounded.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A weight is too large for half precision.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        told = sorted((file.metadata() or {}).items())  # which come in another order each time
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    packed = {name: single(x) if exact else half(x, name) for name, x in tensors.items()}
    return {"metadata": {key: _plain(text) for key, text in told}, "tensors": packed}


def half(tensor: Tensor, name: str = "tensor") -> dict[str, Any]:
    """Return a tensor as its shape and its numbers in half precision, base64.

    Raises:
        ValueError: A number is too large for half precision.
    """
    rounded = tensor.detach().to(torch.float16).contiguous()
    if not rounded.isfinite().all():
        worst = tensor.abs().max().item()
        raise ValueError(f"{name} must fit half precision (at most 65504); got {worst:g}")
    return {"shape": list(tensor.shape), "half": _base64(rounded)}


def single(tensor: Tensor) -> dict[str, Any]:
    """Return a tensor as its shape and its numbers in single precision, base64."""
    whole = tensor.detach().to(torch.float32).contiguous()
    return {"shape": list(tensor.shape), "single": _base64(whole)}


def byte_rows(matrix: Tensor) -> dict[str, Any]:
    """Return a matrix (rows, columns) at 8 bits, each row with a scale of its own.

    Raises:
        ValueError: Not a finite matrix.
    """
    if matrix.dim() != 2 or not matrix.isfinite().all():
        raise ValueError(f"matrix must be finite, (rows, columns); got {tuple(matrix.shape)}")
    scale = matrix.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
    whole = (matrix / scale).round().to(torch.int8)
    return {"shape": list(matrix.shape), "bytes": _base64(whole), "scale": half(scale[:, 0])}


def _base64(tensor: Tensor) -> str:
    return base64.b64encode(tensor.cpu().numpy().tobytes()).decode("ascii")


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
