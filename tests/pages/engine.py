"""The page's engine (memlib/teaching/explore/js) called from a test, in a blank page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page

from memlib.teaching.explore.join import constant, join


@contextmanager
def engine(browser: Browser, *modules: str, plant: tuple[str, str] = ("", "")) -> Iterator[Page]:
    """A blank page with modules of the engine; `plant` replaces a piece of them by a fault."""
    script = join(*modules)
    assert plant[0] in script, f"nothing to plant the fault in: {plant[0]}"
    script = script.replace(*plant) if plant[0] else script
    for module in modules:
        script += f"Object.assign(window, {constant(module)});\n"
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    try:
        page.goto("about:blank")
        page.evaluate(script)
        yield page
        assert not faults
    finally:
        page.close()


def ask(page: Page, function: str, cases: list[Any]) -> Any:
    """What a function of JavaScript, `(case) => ...`, says to each case, as nested lists."""
    back = (
        "(key, value) => ArrayBuffer.isView(value) ? Array.from(value)"
        " : typeof value === 'number' && !Number.isFinite(value) ? String(value) : value"
    )
    asked = f"cases => JSON.stringify(JSON.parse(cases).map({function}), {back})"
    return json.loads(page.evaluate(asked, json.dumps(cases, default=lambda x: x.tolist())))


def worst(ours: Any, theirs: Any) -> float:
    """The largest difference between numbers, by shape and place; infinite where one is none."""
    a, b = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    assert a.shape == b.shape, (a.shape, b.shape)
    with np.errstate(invalid="ignore"):
        off = np.where(a == b, 0, np.abs(a - b))
    return float(np.nan_to_num(off, nan=np.inf).max()) if a.size else 0.0
