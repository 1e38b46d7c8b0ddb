"""The tests of devices run on the CPU always, and on a GPU where there is one."""

from __future__ import annotations

import os
import time

import pytest
import torch

UNTIL = float(os.environ.get("GPU_TESTS_UNTIL", "inf"))  # set by tools/gpu.py


def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.time() > UNTIL:
        pytest.skip("no time was left")


@pytest.fixture
def cuda() -> str:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return "cuda"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return request.param
