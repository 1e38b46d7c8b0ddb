"""How a text is read into a memory: in parts, once, with the model as it is at work."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from memlib import _checks as checks


@contextmanager
def at_work(model: PreTrainedModel) -> Iterator[None]:
    """Switch gradients and dropout off, and back to what they were."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def parts(
    model: PreTrainedModel, ids: Tensor, mask: Tensor | None, segment: int, overlap: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Let the model read a text part by part, each on its own; yields its ids and mask, (B, T).

    Raises:
        TypeError: ids are no integers, or the mask no tensor of bool or integers.
        ValueError: wrong shapes, ids outside the vocabulary, or a segment of no tokens.
    """
    checks.integers("ids", ids)
    checks.shape("ids", ids, "(B, T)")
    segment = checks.integer("segment", segment, 1)
    words = model.get_input_embeddings().weight.shape[0]
    if checks.anywhere(outside := (ids < 0) | (ids >= words)):  # before anything is kept
        raise ValueError(f"ids must be in [0, {words - 1}]; got {int(ids[outside][0])}")
    if mask is None:
        mask = torch.ones_like(ids)
    if not isinstance(mask, Tensor) or mask.is_floating_point() or mask.is_complex():
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a torch.Tensor of bool or integers; got {got}")
    checks.shape("mask", mask, "(B, T)", B=len(ids), T=ids.shape[1])
    with at_work(model):
        for start in range(0, max(ids.shape[1] - overlap, 0), segment):
            stop = start + segment + overlap
            part, real = ids[:, start:stop], mask[:, start:stop].bool()
            if real.any():
                model(input_ids=part, attention_mask=real.long(), use_cache=False)
                yield part, real
