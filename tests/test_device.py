"""The default device: the environment first, then the best there is."""

import pytest
import torch

from memlib import default_device


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_best_device_is_chosen(monkeypatch, cuda, mps, expected):
    monkeypatch.delenv("MEMLIB_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert default_device() == torch.device(expected)


def test_the_environment_decides(monkeypatch):
    monkeypatch.setenv("MEMLIB_DEVICE", "meta")
    assert default_device() == torch.device("meta")
    monkeypatch.setenv("MEMLIB_DEVICE", "toaster")
    with pytest.raises(ValueError, match=r"MEMLIB_DEVICE must name a torch device .* 'toaster'"):
        default_device()
