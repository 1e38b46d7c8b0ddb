"""For all tests: the network is off, what hypothesis tries is fixed, and the wheel is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import sites
from hypothesis import HealthCheck, settings

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


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this folder."""
    return sites.build(sites.ROOT, tmp_path_factory.mktemp("wheel"))
