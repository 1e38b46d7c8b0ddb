"""A pytest plugin: each notebook's wall time and memory, measured, limited and recorded.

nbmake limits single cells only. Here a watcher sums the memory of the kernel (every process below
this one) four times a second and stops a notebook that takes too long or too much.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

SECONDS = float(os.environ.get("NOTEBOOK_SECONDS", 90))
MEGABYTES = float(os.environ.get("NOTEBOOK_MEGABYTES", 2000))


class Watch(threading.Thread):
    """Watches the processes below this one until `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.began = time.monotonic()
        self.seconds = self.megabytes = 0.0
        self.done = False

    def run(self) -> None:
        """Measures until it is told to stop; kills the kernel that goes too far."""
        while not self.done:
            kernels = psutil.Process().children(recursive=True)
            self.megabytes = max(self.megabytes, sum(map(_resident, kernels)) / 1e6)
            self.seconds = time.monotonic() - self.began
            if self.fault():
                for kernel in kernels:
                    kernel.kill()
                return
            time.sleep(0.25)

    def fault(self) -> str:
        """What is over its limit, or nothing."""
        if self.seconds > SECONDS:
            return f"the notebook took {self.seconds:.0f} s; the limit is {SECONDS:.0f} s"
        if self.megabytes > MEGABYTES:
            return f"the notebook took {self.megabytes:.0f} MB; the limit is {MEGABYTES:.0f} MB"
        return ""


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Runs one notebook under watch; a limit's message wins over the error of the killed kernel."""
    watch = Watch()
    watch.start()
    try:
        return (yield)
    finally:
        watch.done = True
        watch.join()
        cost = {"seconds": round(watch.seconds, 1), "megabytes": round(watch.megabytes)}
        item.user_properties.append(("cost", cost))
        if watch.fault():
            pytest.fail(watch.fault(), pytrace=False)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Notes the cost of each notebook that passed beside it (once, in xdist's controller)."""
    if "PYTEST_XDIST_WORKER" in os.environ or report.when != "call" or not report.passed:
        return
    cost: Any = dict(report.user_properties)["cost"]
    path = Path(report.location[0])
    path.with_suffix(".cost.json").write_text(json.dumps(cost))
    print(f"  {path.stem}: {cost['seconds']} s, {cost['megabytes']} MB")
