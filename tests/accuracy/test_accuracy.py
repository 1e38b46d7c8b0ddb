"""Every public function at hostile scales, against float64.

NUMBERS_SEED=7              another draw than the fixed one
NUMBERS_MINUTES=20          for so long, instead of a fixed number of examples
"""

import os
import subprocess
import sys
import time

import pytest

from . import campaign, found

SEED = int(os.environ.get("NUMBERS_SEED", "0"))
SECONDS = 60 * float(os.environ.get("NUMBERS_MINUTES", "0"))
EACH = campaign.each()
MOST = 3  # failures that are told


@pytest.mark.parametrize(("name", "dtype"), EACH)
@pytest.mark.timeout(3600)
def test_each_result_is_that_of_float64(name, dtype):
    told, begin = [], time.monotonic()
    budget = SECONDS / len(EACH)
    for number, example in enumerate(campaign.examples(name, dtype, SEED)):
        enough = time.monotonic() - begin > budget if budget else number >= campaign.count(name)
        if enough or len(told) == MOST:
            break
        if campaign.failing(example):
            small = campaign.shrink(example)
            told.append(campaign.report(small, campaign.failing(small)))
    assert not told, "\n".join(told)


@pytest.mark.parametrize("example", found.FOUND, ids=lambda e: f"{e.name}-{e.dtype}")
def test_what_once_failed_is_right(example):
    error = campaign.failing(example)
    assert error is None, campaign.report(example, error)


LARGE_KEYS = """
import torch
from memlib.store import Store
for measure in ("dot", "negative_squared_distance"):
    store = Store(4, 1, backend="ivf", measure=measure)
    keys = torch.randn(1, 300, 4, generator=torch.Generator().manual_seed(0)) * 1e30
    try:
        store.add(keys, keys[..., :1])
        store.address(keys[:, :2], 3)
    except ValueError as error:
        assert "must" in str(error), error
print("alive")
"""


def test_keys_whose_squares_overflow_do_not_end_the_process():
    """faiss aborts when it learns the clusters of such keys; nobody can catch that."""
    run = subprocess.run([sys.executable, "-c", LARGE_KEYS], capture_output=True, text=True)
    assert run.stdout == "alive\n", run.stderr[-500:]
