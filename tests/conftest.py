"""For all tests: the network is off, what hypothesis tries is fixed, and the wheel is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import sites
import torch
from hypothesis import HealthCheck, settings
from packaging.version import Version

try:
    import guard
except ModuleNotFoundError:  # the source archive holds no tools
    pass
else:
    guard.block()

settings.register_profile(
    "fixed",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fixed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what an older torch, with which the rest works, cannot do yet."""
    for mark in item.iter_markers("needs_torch"):
        if Version(torch.__version__) < Version(mark.args[0]):
            pytest.skip(f"needs torch {mark.args[0]}; got {torch.__version__}")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this folder."""
    return sites.build(sites.ROOT, tmp_path_factory.mktemp("wheel"))
