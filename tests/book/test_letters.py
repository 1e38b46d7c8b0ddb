"""The letters of the numbered equations are those of the notation page, in the reading order."""

from __future__ import annotations

import re

import pytest
import reading

NAMED = r"\\(?:text|operatorname|tag|begin|end)\s*\{[^{}]*\}"  # words, not letters
ACCENTS = r"\\(?:tilde|widetilde|hat|bar)\s*"  # another state of the same letter
GREEK = "alpha|beta|gamma|Delta|eta|theta|kappa|lambda|nu|xi|pi|rho|phi|psi"
ORDER = reading.order()
SIGN = re.compile(rf"\\math(?:bf|cal)\s*\{{?\w\}}?|\\(?:{GREEK})(?![A-Za-z])")
COMMAND = re.compile(r"\\[A-Za-z]+")
SCRIPT = re.compile(
    r"(?P<base>\S?)(?P<kind>[_^])(?:\{(?P<long>[^{}]*)\}|(?P<short>\\[A-Za-z]+|\S))"
)


def letters(formula: str) -> tuple[set[str], set[str]]:
    """The letters of a formula, powers too; and those of its lower indices.

    A single letter above is a label, as in $w^c$, and does not count; nor does Euler's number.
    """
    text, low = re.sub(rf"{NAMED}|{ACCENTS}", " ", formula), ""
    while match := SCRIPT.search(text):
        base, above = match["base"], match["kind"] == "^"
        power = match["long"] if above else None
        if not above:
            low += f" {match['long'] if match['long'] is not None else match['short']}"
        elif base == "e":
            base, power = "", match["long"] or match["short"]
        text = f"{text[: match.start()]}{base} {power or ''} {text[match.end() :]}"
    return _found(text), _found(low)


def _found(text: str) -> set[str]:
    signs = {re.sub(r"[\s{}]", "", sign) for sign in SIGN.findall(text)}
    return signs | set(re.findall("[A-Za-z]", COMMAND.sub(" ", SIGN.sub(" ", text))))


def equations(name: str) -> list[tuple[str, str]]:
    """The numbered equations of a chapter: number and formula."""
    text = "\n".join(reading.source(c) for c in reading.load(name) if c["cell_type"] == "markdown")
    found = [m for m in re.findall(r"\$\$(.*?)\$\$", text, re.S) if "\\tag" in m]
    return [(re.findall(r"\\tag\{(\d+)\}", m)[0], m) for m in found]


def listed() -> dict[str, list[set[str]]]:
    """The letters of the notation page: for each chapter, those of each of its rows."""
    rows: dict[str, list[set[str]]] = {name: [] for name in ORDER}
    for row in re.findall(r"^\| (\$.*) \|$", PAGE, re.M):
        symbol, *_, used = row.split(" | ")
        formulas = ", ".join(re.findall(r"\$([^$]*)\$", symbol))
        (chapter,) = re.findall(r"\((\w+)\.ipynb\)", used)
        rows[chapter].append(letters(formulas)[0])
    return rows


def unlisted(formula: str, known: set[str]) -> set[str]:
    """The letters of a formula that no row so far has: neither shapes nor what only counts."""
    main, low = letters(formula)
    return (main - SHAPES - COUNTING - known) | (low - SHAPES - COUNTING - known - LABELS)


PAGE = (reading.BOOK / "notation.md").read_text(encoding="utf-8").split("## Conventions")[0]
SHAPES = set(re.findall(r"`([A-Zd])`", PAGE.split("**Letters of shapes.**")[1]))
COUNTING = set(re.findall(r"`([a-z])`", PAGE.split("**Letters of shapes.**")[1])) - SHAPES
LABELS = {"Q", "O", "a"}  # of $W_Q$ and $W_O$; the age in $T_{a_i}$


@pytest.mark.parametrize("name", [name for name in ORDER if equations(name)])
def test_every_letter_is_on_the_notation_page(name: str) -> None:
    """In a row of this chapter or of one before it."""
    rows = listed()
    known = set().union(*(row for one in ORDER[: ORDER.index(name) + 1] for row in rows[one]))
    missing = {number: unlisted(formula, known) for number, formula in equations(name)}
    assert {number: left for number, left in missing.items() if left} == {}


@pytest.mark.parametrize("name", ORDER)
def test_the_notation_page_lists_what_is_written(name: str) -> None:
    """Each row's letter stands in a formula or a sentence of the chapter that it names."""
    cells = [c for c in reading.load(name) if c["cell_type"] == "markdown"]
    formulas = re.findall(r"\$\$.*?\$\$|\$[^$]+\$", "\n".join(map(reading.source, cells)), re.S)
    written = [letters(formula.strip("$")) for formula in formulas]
    used = set().union(*(part for pair in written for part in pair))
    assert [row for row in listed()[name] if row - used - COUNTING] == []


def test_letters_are_found() -> None:
    assert letters(r"w_n = e^{\beta K(q, k_n)} \tag{2}") == ({"w", r"\beta", "K", "q", "k"}, {"n"})
    assert letters(r"\tilde w_t(i)^{\gamma_t} w^c") == ({"w", "i", r"\gamma"}, {"t"})
    assert letters(r"\mathbf{M}_t \odot \text{erase}") == ({r"\mathbfM"}, {"t"})


def test_a_letter_without_a_row_is_found() -> None:
    assert unlisted(r"w_n = Z q", {"w", "q"}) == {"Z"}
    assert unlisted(r"w_n = q", {"w", "q"}) == set()
