"""For all tests: the network is off, and the properties that hypothesis tries are fixed."""

from __future__ import annotations

import guard
from hypothesis import HealthCheck, settings

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
