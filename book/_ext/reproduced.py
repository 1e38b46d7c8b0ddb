"""The tables of the page *Reproductions*: claims beside ours, headlines, shapes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from book._ext.tables import SHORT, broken, cited, counted, ordered, table, titled
from experiments import cache_bytes, claims, reproduce
from experiments.claims import Claim
from experiments.reproduce import recorded, shown


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
    here = [
        f"{recorded(side, claim.unit)}; {seeds(run['seed'] for run in side.runs)}"
        for side in claim.sides
    ]
    here[1:] = [f"against {one}" for one in here[1:]]
    limit = f"judged against {shown(claim.limit)} {claim.unit}, " if claim.limit else ""
    why = claim.apart or "; ".join(filter(None, (claim.said, limit + claim.why)))
    again = [f"**{claim.name}**", "no run of its own"]
    if claim.sides:
        state = {side.state for side in claim.sides}
        units = (reproduce.unit(side) for side in claim.sides)
        commands = (f"`{command}`" for unit in units if unit for command in unit.commands)
        again = [f"**{claim.name}**", reproduce.cost(claim), *dict.fromkeys(commands)]
        again.append(f"record: {max(state, key=claims.STATES.index)}")
    return [
        broken(claim.text, f"{cited(claim.cite)}, {claim.where}"),
        broken(told, claim.words),
        broken(*here) or "none",
        broken(f"**{claim.verdict}**", why),
        broken(*again),
    ]


def seeds(drawn: Iterable[int]) -> str:
    """The seeds of some runs in words.

    Example:
        >>> seeds([0, 1, 2]), seeds([2, 0]), seeds([5])
        ('seeds 0 to 2', 'seeds 0, 2', 'seed 5')
    """
    found = sorted(set(drawn))
    if len(found) == 1:
        return f"seed {found[0]}"
    whole = found == list(range(found[0], found[-1] + 1)) and len(found) > 2
    return f"seeds {found[0]} to {found[-1]}" if whole else f"seeds {', '.join(map(str, found))}"


def headlines(folder: Path) -> str:
    """What the chapter on models quotes, with the claim that stands for it or the reason."""
    known = claims.known(folder)
    rows = []
    for system, name, reason in claims.headlines(folder):
        verdict = known[name].verdict if name else claims.APART
        why = f"see {name} above" if name else reason
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
            f"{model['layers']} layers, {_kept(model)}",
            f"{cache_bytes.cache_bytes(model, tokens=1):,}",
            model["source"],
        ]
        for model in models
    ]
    return table(["Model", "Published shape", "Bytes of its first token, here", "Read in"], rows)


def _kept(model: dict[str, Any]) -> str:
    keys, values = model["key_width"], model["value_width"]
    if model.get("latent"):
        return f"one latent of {keys} and one rotary key of {values}"
    return f"{counted(model['kv_heads'], 'head')}, keys of {keys}, values of {values}"
