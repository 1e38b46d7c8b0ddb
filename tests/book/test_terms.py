"""No term before its place: each is defined in one cell, and no sentence before it uses the term.

The words of titles, goals, the introduction and the maps may run ahead: they say what will come.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
import reading

ORDER = reading.order()
AHEAD = {"title", "goals", "map"}  # ids of cells that say what will come
TITLES = r"\[[^\]]*\]\((?:\w+\.ipynb|references\.md)[^)]*\)"  # of chapters and of sources
ASIDE = re.compile(
    rf"{TITLES}|\]\([^)]*\)|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|<[^>]*>|^#[^\n]*", re.S | re.M
)


@dataclass(frozen=True)
class Term:
    """A term: where it is defined, and how it is written."""

    cell: str  # chapter:cell
    written: str  # a regular expression, without regard to case


TERMS = {
    "validation set": Term("key_value:exp-choose-text", r"validation set"),
    "similarity": Term("key_value:idea", r"similarit\w*"),
    "slot": Term("key_value:idea", r"slots?"),
    "strength": Term("key_value:predict", r"strengths?"),
    "softmax": Term("key_value:equations", r"softmax"),
    "erase vector": Term("key_value:equations", r"erase vectors?"),
    "add vector": Term("key_value:equations", r"add vectors?"),
    "one-hot": Term("key_value:equations", r"one[- ]hot"),
    "mask": Term("key_value:watching", r"masks?"),
    "content addressing": Term("content:idea", r"content[- ]address\w*"),
    "Hopfield network": Term("content:equations", r"hopfield"),
    "energy": Term("content:idea", r"energ(y|ies)"),
    "separation": Term("content:correlated-words", r"separation"),
    "metastable state": Term("content:fixed-points-kinds", r"metastable"),
    "top-k": Term("content:ex-5-text", r"top[- ]k"),
    "head": Term("addressable:first-look-what", r"heads?"),
    "controller": Term("addressable:idea", r"controllers?"),
    "gate": Term("addressable:idea-gate", r"gates?"),
    "shift": Term("addressable:idea-shift", r"shifts?"),
    "sharpening": Term("addressable:idea-sharpen", r"sharpen\w*"),
    "logit": Term("ntm:first-look", r"logits?"),
    "bAbI": Term("memn2n:first-look", r"babi"),
    "hop": Term("memn2n:first-after", r"hops?"),
    "position encoding": Term("memn2n:idea-after", r"position encoding"),
    "empty slot": Term("memn2n:idea-after", r"empty slots?"),
    "linear start": Term("memn2n:live", r"linear start"),
    "epoch": Term("memn2n:live", r"epochs?"),
    "token": Term("transformer:idea", r"tokens?"),
    "KV cache": Term("transformer:idea-after", r"kv cache"),
    "feed-forward layer": Term("transformer:idea-after", r"feed-forward (layer|memor)\w*"),
    "rotary positions": Term("transformer:equations", r"rotary"),
    "induction head": Term("transformer:live", r"induction heads?"),
    "prefix-matching score": Term("transformer:live", r"prefix[- ]matching"),
    "window": Term("transformer:keep", r"windows?"),
    "segment memory": Term("transformer:keep", r"segments?"),
    "memory token": Term("transformer:keep", r"memory tokens?"),
    "fast weights": Term("fast_weights:idea", r"fast weights"),
    "crosstalk": Term("fast_weights:idea-after", r"crosstalk"),
    "decay": Term("fast_weights:idea-after", r"decay\w*"),
    "delta rule": Term("fast_weights:first-after", r"delta rule"),
    "chunk": Term("fast_weights:equations", r"chunks?"),
    "gated delta rule": Term("fast_weights:idea-after", r"gated delta( rule)?"),
    "free gate": Term("dnc:predict", r"free gates?"),
    "usage": Term("dnc:first-see", r"usage"),
    "allocation": Term("dnc:idea", r"allocat\w+"),
    "read mode": Term("dnc:idea-gates", r"read modes?"),
    "retention": Term("dnc:equations", r"retention"),
    "precedence": Term("dnc:equations", r"precedence"),
    "perplexity": Term("models:units", r"perplexit\w+"),
    "bits per character": Term("models:units", r"bits (per|a) character"),
    "compressed memory": Term("models:compressive", r"compressed"),
    "kNN-LM": Term("models:knnlm", r"knn-lm"),
    "RAG": Term("models:rag", r"rag"),
    "RETRO": Term("models:retro", r"retro"),
    "memory layer": Term("models:memlayers", r"memory layers?"),
    "test-time training": Term("models:titans", r"test-time training"),
    "conditional memory": Term("models:engram", r"conditional memor\w+"),
    "index": Term("store:idea", r"index(es)?"),
    "IVF": Term("store:equations", r"ivf"),
    "HNSW": Term("store:equations", r"hnsw"),
    "faiss": Term("store:approximate", r"faiss"),
}


def words(cell: reading.Cell) -> str:
    """What a cell of text says: neither formulas, code and addresses nor titles."""
    return ASIDE.sub(" ", reading.source(cell)) if cell["cell_type"] == "markdown" else ""


def told(name: str) -> list[tuple[reading.Cell, bool]]:
    """The cells of a chapter in their order, and whether what they say must wait for its place."""
    return [(cell, cell["id"] not in AHEAD) for cell in reading.load(name)]


Chapters = dict[str, list[tuple[reading.Cell, bool]]]


def early(term: Term, chapters: Chapters) -> list[str]:
    """Where a term is used before the cell that defines it."""
    pattern, found = re.compile(rf"\b(?:{term.written})\b", re.I), []
    for name, cells in chapters.items():
        for cell, counts in cells:
            if f"{name}:{cell['id']}" == term.cell:
                return found
            text = words(cell) if counts else ""
            found += [
                f"{name}:{cell['id']}: {text[max(0, m.start() - 40) : m.end() + 30]!r}"
                for m in pattern.finditer(text)
            ]
    raise LookupError(f"there is no cell {term.cell}")


@pytest.fixture(scope="module")
def chapters() -> Chapters:
    return {name: told(name) for name in ORDER}


@pytest.mark.parametrize("name", TERMS)
def test_no_term_before_its_place(name: str, chapters: Chapters) -> None:
    assert early(TERMS[name], chapters) == []


@pytest.mark.parametrize("name", TERMS)
def test_its_place_introduces_it(name: str, chapters: Chapters) -> None:
    """In bold, in italics, as a heading, in a table, or as a link to the glossary."""
    chapter, place = TERMS[name].cell.split(":")
    (text,) = (reading.source(c) for c, _ in chapters[chapter] if c["id"] == place)
    mark = rf"(?:\*|\[|\||^#[^\n]*)[^*\]\n]*\b(?:{TERMS[name].written})\b"
    assert re.search(mark, text, re.I | re.M), f"{TERMS[name].cell} does not introduce {name}"


def test_the_glossary_names_the_same_chapters() -> None:
    glossary = (reading.BOOK / "notation.md").read_text(encoding="utf-8").split("## Glossary")[1]
    entries = re.findall(r"^\*\*(.+?)\*\*$|</a>\*\*(.+?)\*\*$", glossary, re.M)
    names = [(a or b).lower() for a, b in entries]
    homes = [re.findall(r"\((\w+)\.ipynb\)", part) for part in glossary.split("→")[1:]]
    assert len(names) == len(homes) > 40
    said = {name.lower(): term.cell.split(":")[0] for name, term in TERMS.items()}
    wrong = {
        n: home for n, home in zip(names, homes, strict=True) if said.get(n, home[0]) != home[0]
    }
    assert wrong == {}
    assert len(said.keys() & set(names)) > 25


def test_a_term_that_runs_ahead_is_found() -> None:
    def cell(name: str, text: str) -> reading.Cell:
        return {"cell_type": "markdown", "id": name, "source": text}

    cells = [cell("a", "# Hops\n\n[Hops](x.ipynb) in `hops`, $hop$."), cell("b", "A *hop* is.")]
    term = Term("one:b", r"hops?")
    assert early(term, {"one": [(c, True) for c in cells]}) == []
    cells[0]["source"] += "\n\nIt hops ahead."
    assert len(early(term, {"one": [(c, True) for c in cells]})) == 1
    with pytest.raises(LookupError, match="no cell one:b"):
        early(term, {"one": []})
