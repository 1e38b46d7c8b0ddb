"""What PyTorch's attention is helped with on a GPU, in the same words on every device."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from memlib.attention import gpu, streaming

SHAPES = {  # batch, heads, queries, slots, width, value width
    "few queries": (2, 3, 4, 300, 16, 8),
    "many queries": (1, 2, 80, 90, 16, 16),
    "odd widths": (2, 2, 20, 33, 5, 7),
    "many rows": (16, 8, 3, 40, 12, 4),
}


def draw(shape, device, dtype=torch.float64):
    torch.manual_seed(0)
    batch, heads, queries, slots, width, value_width = shape
    sizes = ((queries, width), (slots, width), (slots, value_width))
    parts = [torch.randn(batch, heads, *size, dtype=torch.float64) for size in sizes]
    mask = torch.rand(batch, 1, queries, slots) < 0.3
    mask[:, :, 0], mask[:, :, 1, 1:] = False, False
    return [x.to(device, dtype).requires_grad_() for x in parts], mask.to(device)


def plain(query, keys, values, mask):
    scores = query @ keys.mT
    if mask is None:
        return scores.softmax(-1) @ values
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return weights.masked_fill(~mask, 0) @ values


def outcome(function, tensors, mask):
    value = function(*tensors, mask)
    grads = torch.autograd.grad((value * value.cos()).sum(), tensors)
    return value, *grads


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("dtype", "error"),
    [(torch.float64, 1e-9), (torch.float32, 1e-4), (torch.float16, 2e-2), (torch.bfloat16, 0.1)],
)
def test_it_is_the_formula(shape, masked, dtype, error, device):
    tensors, mask = draw(shape, device, dtype)
    mask = mask if masked else None
    found = outcome(gpu.attend, tensors, mask)
    wanted = outcome(plain, [x.detach().double().requires_grad_() for x in tensors], mask)
    for got, right in zip(found, [x.detach() for x in wanted], strict=True):
        assert got.dtype == dtype
        assert_close(got.double(), right, rtol=error, atol=error * right.abs().max().item())
    if masked:
        assert not found[0][:, :, 0].any()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_kernels_are_asked_what_all_of_them_can(shape, monkeypatch):
    """Widths that they take without building the scores, and no query that reads nothing."""
    asked, kernel = [], torch.nn.functional.scaled_dot_product_attention

    def ask(query, keys, values, mask=None, **options):
        asked.append((query.shape[-1], values.shape[-1], mask is None or mask.any(-1).all()))
        return kernel(query, keys, values, mask, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", ask)
    tensors, mask = draw(shape, "cpu", torch.float16)
    gpu.attend(*tensors)
    gpu.attend(*tensors, mask)
    assert [width % 8 for *widths, _ in asked for width in widths] == [0] * 4
    assert all(reads for *_, reads in asked)


def test_a_gpu_is_read_by_its_own_engine(monkeypatch):
    """All reads of a device of the type cuda pass through it."""
    tensors, mask = draw(SHAPES["odd widths"], "cpu")
    wanted = streaming.attend(*tensors, mask)
    monkeypatch.setattr(streaming, "_is_gpu", lambda tensor: True)
    monkeypatch.setattr(streaming, "_parts", None)  # what is for the CPU alone is not asked
    assert_close(streaming.attend(*tensors, mask), wanted)
    assert_close(streaming.attend(*tensors), gpu.attend(*tensors))


def test_few_queries_of_a_large_memory_are_no_task_for_one_multiprocessor():
    keys = torch.empty(1, 1, 1 << 20, 64, device="meta")
    assert gpu._few(torch.empty(1, 1, 1, 64, device="meta"), keys)
    assert gpu._few(torch.empty(1, 1, 64, 64, device="meta"), keys)
    assert not gpu._few(torch.empty(1, 1, 65, 64, device="meta"), keys)  # more scores than keys
    assert not gpu._few(torch.empty(8, 8, 1, 64, device="meta"), keys)
    assert not gpu._few(torch.empty(1, 1, 1, 64, device="meta", dtype=torch.float16), keys)


@pytest.mark.gpu
@pytest.mark.parametrize("width", [16, 20, 33])
def test_a_mask_never_builds_the_scores(width, cuda):
    """With the kernels that build them switched off, a read still works."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        (query, keys, values), mask = draw((2, 2, 128, 512, width, width), cuda, dtype)
        with sdpa_kernel(fused):
            for readable in (None, mask):
                streaming.attend(query, keys, values, readable).sum().backward()
