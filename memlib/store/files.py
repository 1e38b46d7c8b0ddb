"""Files of a store: tensors and what they are about, whole or absent, vouched for by a checksum.

They are safetensors files, which hold numbers and nothing that could be run. The checksum tells
damage from health, not friend from foe: faiss trusts the bytes of an index, so open a file from a
stranger with ``backend="exact"``, which leaves them alone.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memlib._files import replacing

FORMAT = "memlib.Store"
VERSION = 1


def safetensors() -> Any:
    """Return the module.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import safetensors.torch
    except ImportError:
        message = "files of a store need safetensors: pip install 'memlib[store]'"
        raise ImportError(message) from None
    return safetensors


def write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and what they are `about` (JSON): whole, or not at all.

    Raises:
        OSError: it cannot be written; what was at `path` is as it was.
    """
    library = safetensors()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": FORMAT, "version": str(VERSION), "about": json.dumps(about)}
    metadata["sha256"] = checksum(tensors, metadata)
    with replacing(path) as beside:
        try:
            library.torch.save_file(tensors, beside, metadata)
        except library.SafetensorError as error:
            raise OSError(f"{path.name} could not be written: {error}") from error


def read(path: Path, **expected: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file back: its tensors, on the CPU, and what they are about.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no store, of another version, damaged, or not about what is `expected`
            (None expects nothing); says which.
    """
    library = safetensors()
    with path.open("rb"):  # Python's own errors name the file
        pass
    try:
        with library.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except library.SafetensorError as error:
        raise ValueError(f"{path.name} must be a whole safetensors file; got {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path.name} must hold a {FORMAT}; got {metadata.get('format')}")
    if metadata.get("version") != str(VERSION):
        got = metadata.get("version")
        raise ValueError(f"{path.name} must be of version {VERSION}; got version {got}")
    written, found = metadata.pop("sha256", None), checksum(tensors, metadata)
    if written != found:
        raise ValueError(f"{path.name} is damaged: its checksum must be {written}; got {found}")
    about = json.loads(metadata["about"])
    for name, wanted in expected.items():
        if wanted not in (None, about[name]):
            raise ValueError(f"{name} of {path.name} must be {wanted}; got {about[name]}")
    return tensors, about


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of the metadata and of each tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
