"""Which device to use when the caller has no opinion."""

import os

import torch


def default_device() -> torch.device:
    """Return the best device here: CUDA, then Apple's MPS, then the CPU.

    The environment variable ``MEMLIB_DEVICE`` overrides the choice. The library itself follows
    its inputs and never moves a tensor; notebooks and experiments use this function.

    Returns:
        A `torch.device`.

    Raises:
        ValueError: ``MEMLIB_DEVICE`` names no device that torch knows.

    Example:
        >>> import torch, memlib
        >>> x = torch.ones(2, device=memlib.default_device())
    """
    name = os.environ.get("MEMLIB_DEVICE")
    if name:
        try:
            return torch.device(name)
        except RuntimeError:
            raise ValueError(
                f"MEMLIB_DEVICE must name a torch device such as cpu, cuda or mps; got {name!r}"
            ) from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
