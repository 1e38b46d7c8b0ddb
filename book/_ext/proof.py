"""The pages of the part *Proof*: ``<!-- proof: claims -->`` becomes a table, made from records.

What a mark stands for is Markdown, put into the page as it is read. No number of these pages is
typed: claims and verdicts come from `experiments.claims`, ratios from `benchmarks.ratios`, the rest
from `results/status.json` and the records themselves. All of it is imported for a page with a mark.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from sphinx.application import Sphinx

MARK = re.compile(r"<!-- proof: (\w+) -->")


def made() -> dict[str, Callable[[Path], str]]:
    """What there is, by the name of its mark: functions of the folder of the records."""
    from book._ext import measured, reproduced, stores

    return {
        "counts": reproduced.counts,
        "claims": reproduced.of_claims,
        "headlines": reproduced.headlines,
        "caches": reproduced.caches,
        "loses": measured.loses,
        "leads": measured.leads,
        "machines": measured.machines,
        "versions": measured.versions,
        "pages": measured.pages,
        "explorables": measured.explorables,
        "states": measured.states,
        "durable": stores.durable,
        "pgvector": stores.pgvector,
    }


def filled(text: str, folder: Path | None = None) -> str:
    """A page with each mark replaced by what it stands for; an unknown one is an error."""
    from experiments import records

    known = made()
    return MARK.sub(lambda mark: known[mark[1]](folder or records.RESULTS), text)


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Fills a page as it is read."""
    if MARK.search(source[0]):
        source[0] = filled(source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the hook."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
