"""The benchmark of durable stores: whose memory it tells."""

from pathlib import Path

import pytest
import torch

from benchmarks import durable


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system tells no peaks")
def test_the_benchmark_tells_the_memory_of_each_process(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "HUGE", 20_000)
    monkeypatch.setattr(durable, "PART", 10_000)
    ballast = torch.ones(250_000_000)  # a GB, here alone
    found = durable.huge(tmp_path)
    assert found["pairs"] == 20_000
    assert max(found["peak bytes"], found["peak bytes of the writer"]) < ballast.nbytes
