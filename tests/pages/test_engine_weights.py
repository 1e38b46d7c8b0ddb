"""The page reads the very numbers that Python packed, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from engine import ask, engine
from playwright.sync_api import Browser
from safetensors.torch import save_file

from memlib.teaching.explore import pack


def test_every_number_of_half_precision_arrives(browser: Browser, tmp_path: Path) -> None:
    """All finite ones, subnormals among them, and zeros with their sign."""
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    finite = every[every.isfinite()]
    path = tmp_path / "a.safetensors"
    save_file({"all": finite, "matrix": finite[:24].reshape(2, 3, 4).clone()}, path)
    with engine(browser, "weights.js") as page:
        (found,) = ask(page, "unpack", [pack(path)])
        (zero,) = ask(page, "p => unpack(p).all.findIndex(x => Object.is(x, -0))", [pack(path)])
    assert np.array_equal(np.array(found["all"]), finite.double().numpy())
    assert np.array_equal(np.array(found["matrix"]), finite[:24].double().reshape(2, 3, 4).numpy())
    assert zero == int((finite == 0).nonzero()[1])


def test_exact_numbers_arrive_as_they_are(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    rng = np.random.default_rng(0)
    matrix = torch.tensor(rng.normal(size=(3, 5)) * 10.0 ** rng.integers(-30, 15, (3, 5))).float()
    save_file({"matrix": matrix}, path)
    with engine(browser, "weights.js") as page:
        (found,) = ask(page, "unpack", [pack(path, exact=True)])
    assert np.array_equal(np.array(found["matrix"], dtype=float), matrix.double().numpy())
