"""The pages of the part *Proof*: ``<!-- proof: claims -->`` becomes a table, made from records.

What a mark stands for is Markdown, put into the page as it is read. No number of these pages is
typed: claims and verdicts come from `experiments.claims`, ratios from `benchmarks.ratios`, the rest
from `results/status.json` and the records themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from book._ext import measured, stores
from book._ext.tables import SHORT, broken, cited, counted, ordered, table, titled
from experiments import cache_bytes, claims, records, reproduce
from experiments.claims import Claim, Side
from experiments.reproduce import shown
from sphinx.application import Sphinx

MARK = re.compile(r"<!-- proof: (\w+) -->")


def counts(folder: Path) -> str:
    """How many claims have which verdict, chapter by chapter."""
    found = list(claims.claims(folder))
    verdicts = (claims.REACHED, claims.MISSED, claims.APART)
    rows = []
    for page in ordered(claim.page for claim in found):
        mine = [claim.verdict for claim in found if claim.page == page]
        rows.append([titled(page), *(str(mine.count(verdict)) for verdict in verdicts)])
    whole = [claim.verdict for claim in found]
    rows.append(["**all**", *(f"**{whole.count(verdict)}**" for verdict in verdicts)])
    return table(["Chapter", *verdicts], rows, SHORT)


def of_claims(folder: Path) -> str:
    """All claims that a chapter repeats, beside ours, under its title."""
    found, parts = list(claims.claims(folder)), []
    for page in ordered(claim.page for claim in found):
        rows = [_claim(claim) for claim in found if claim.page == page]
        head = ["Claim", "Published", "Here", "Verdict", "Again"]
        parts += [f"### {titled(page)}", table(head, rows)]
    return "\n\n".join(parts)


def _claim(claim: Claim) -> list[str]:
    told = ""
    if claim.published is not None:
        told = f"{shown(claim.published, claim.spread)} {claim.unit}"
    here = [_here(side, claim.unit) for side in claim.sides]
    here[1:] = [f"against {one}" for one in here[1:]]
    why = claim.apart or "; ".join(filter(None, (claim.said, claim.why)))
    again = [f"`{claim.name}`", "no run of its own"]
    if claim.sides:
        state = {side.state for side in claim.sides}
        again = [f"`{claim.name}`", reproduce.cost(claim)]
        again.append(f"record: {max(state, key=claims.STATES.index)}")
    return [
        broken(claim.text, f"{cited(claim.cite)}, {claim.where}"),
        broken(told, claim.words),
        broken(*here) or "none",
        broken(f"**{claim.verdict}**", why),
        broken(*again),
    ]


def _here(side: Side, unit: str) -> str:
    runs = counted(side.count, "run")
    never = [run for run in side.runs if side.value == float("inf")]
    solved = [run for run in never if run.get(side.field)]
    if never:
        return f"in {len(solved)} of {runs}"
    return f"{shown(side.value, side.spread)} {unit}, {runs}"


def headlines(folder: Path) -> str:
    """What the chapter on models quotes, with the claim that stands for it or the reason."""
    known = claims.known(folder)
    rows = []
    for system, name, reason in claims.headlines(folder):
        verdict = known[name].verdict if name else claims.APART
        why = f"see `{name}` above" if name else reason
        for line in system["headlines"] + system.get("sizes", []):
            rows.append(
                [
                    broken(f"{system['name']}: {line['on']}", cited(system["cite"])),
                    broken(_headline(line), *(f"{n}: {x:,}" for n, x in line["beside"].items())),
                    broken(line["source"], f"({line['confidence']})"),
                    broken(f"**{verdict}**", why),
                ]
            )
    return table(["Headline", "Published", "Read in", "Verdict"], rows)


def _headline(line: dict[str, Any]) -> str:
    if "value" not in line:
        return "no number"
    spread = f" ± {line['spread']:,}" if "spread" in line else ""
    return f"{line['value']:,}{spread} {line['unit']}"


def caches(folder: Path) -> str:
    """The shapes of caches that the chapter on the Transformer quotes, and their bytes."""
    models = json.loads((folder / "published_cache.json").read_text(encoding="utf-8"))["models"]
    rows = [
        [
            f"{model['name']}, {model['year']}",
            f"{model['layers']} layers, {counted(model['kv_heads'], 'head')}, "
            f"keys of {model['key_width']}, values of {model['value_width']}",
            f"{cache_bytes.cache_bytes(model, tokens=1):,}",
            model["source"],
        ]
        for model in models
    ]
    return table(["Model", "Published shape", "Bytes of its first token, here", "Read in"], rows)


MADE: dict[str, Callable[[Path], str]] = {
    "counts": counts,
    "claims": of_claims,
    "headlines": headlines,
    "caches": caches,
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


def filled(text: str, folder: Path = records.RESULTS) -> str:
    """A page with each mark replaced by what it stands for; an unknown one is an error."""
    return MARK.sub(lambda mark: MADE[mark[1]](folder), text)


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Fills a page as it is read."""
    if MARK.search(source[0]):
        source[0] = filled(source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the hook."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
