"""The one form of the text that the book and Jupyter both read: nothing raw, no dead link."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import references
import setup_cell
import yaml
from markdown_it import MarkdownIt

BOOK = setup_cell.ROOT / "book"
NOTEBOOKS = setup_cell.stored()
PAGES = sorted(BOOK.rglob("*.md"))
CONFIG = yaml.safe_load((setup_cell.ROOT / "_config.yml").read_text())["sphinx"]["config"]
COMMONMARK = MarkdownIt("commonmark").enable("table")
CODE = re.compile(r"^(`{3,}|~{3,})[^\n]*\n.*?^\1`*$|(?<!`)(`+)(?!`).+?(?<!`)\2(?!`)", re.M | re.S)
MATH = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.S)
RAW = {  # what a reader of plain Jupyter would see as it is written
    "role": r"\{[\w:+-]+\}CODE",
    "directive": r"^ *(`{3,}|:{3,}|~{3,}) *\{|^:{3,}",
    "fence without its end": r"^ *(`{3,}|~{3,})(?! *\{)",
    "target": r"^\([\w -]+\)=",
    "attributes": r"\{[#.%][^}]*\}|\{\w+=[^}]*\}",
    "label of a formula": r"MATH *\([\w:-]+\)",
    "definition": r"^: ",
    "substitution": r"\{\{",
    "comment": r"^%",
    "break": r"^\+\+\+",
    "footnote": r"\[\^",
    "formula without its dollars": r"\\begin\{|\\\[|\\\(|\$\$",
}
NEEDS = re.compile(r"^% (needs|shown): .*\n(?=% |```python\n)", re.M)  # of a recipe, for its tests
IN_MATH = {  # what MathJax knows in the book alone, or numbers by itself
    "macro": r"\\(softmax|norm)\b",
    "label or reference of TeX": r"\\(label|ref|eqref)\b|\\begin\{(equation|align|gather)\}",
}
HTML = {"a", "details", "summary"}


def cells(path: Path) -> list[str]:
    """The text of the Markdown cells of a notebook, or of a page as it is."""
    if path.suffix == ".md":
        return [path.read_text(encoding="utf-8")]
    stored = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in stored if cell["cell_type"] == "markdown"]


def raw(text: str) -> list[str]:
    """The kinds of syntax in a text that plain Jupyter does not know."""
    formulas = " ".join(MATH.findall(CODE.sub("", text)))
    shown = MATH.sub("MATH", CODE.sub(_code, text))
    found = [kind for kind, form in RAW.items() if re.search(form, shown, flags=re.M)]
    found += [kind for kind, form in IN_MATH.items() if re.search(form, formulas)]
    html = "".join(token.content for token in _tokens(shown) if token.type.startswith("html"))
    return found + ["HTML"] * (not set(re.findall(r"</?(\w+)", html)) <= HTML)


def _code(found: re.Match[str]) -> str:
    """Code is hidden from the search, but for the first line of a directive."""
    first = found[0].splitlines()[0]
    return first if found[1] and "{" in first else "CODE"


def _tokens(text: str) -> Iterator[Any]:
    for block in COMMONMARK.parse(text):
        yield from block.children or [block]


def links(text: str) -> list[tuple[str, str]]:
    """Text and target of each link that stays in the book."""
    found = re.findall(r"(?<!!)\[((?:[^][]|\\.)*)\]\(([^)\s]*)\)", CODE.sub(_kept, text))
    return [link for link in found if not link[1].startswith(("https://", "http://"))]


def _kept(found: re.Match[str]) -> str:
    """A link's text may be code; a listing holds no links, but a directive does."""
    if found[1]:
        return found[0] if "{" in found[0].splitlines()[0] else ""
    return re.sub(r"[][()]", "", found[0])


def dead(path: Path, folder: Path = BOOK) -> list[str]:
    """The links of a file that Jupyter cannot follow: no such file, or no such anchor in it."""
    faults = []
    for text, target in (link for cell in cells(path) for link in links(cell)):
        file, _, name = target.partition("#")
        there = folder / file if file else path
        if not text or not there.is_file() or (name and name not in anchors(there)):
            faults.append(f"[{text}]({target})")
    return faults


def anchors(path: Path) -> list[str]:
    return re.findall(r'<a id="([\w-]+)"></a>', "\n".join(cells(path)))


def citations() -> list[tuple[str, str]]:
    """Text and key of each citation of the book."""
    return [
        (text, target.removeprefix("references.md#"))
        for path in [*NOTEBOOKS, *PAGES]
        for cell in cells(path)
        for text, target in links(cell)
        if target.startswith("references.md#")
    ]


def misquoted(text: str, key: str) -> bool:
    """Whether the text of a citation differs from the authors and the year of its entry."""
    known = references.entries(BOOK / "references.bib").entries
    if key not in known:
        return True
    authors, year = references.label(known[key])
    return text not in {f"{authors}, {year}", f"{authors} ({year})"}


# ---- Nothing raw ----


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_raw_in_a_notebook(path: Path) -> None:
    assert [(kind, cell[:60]) for cell in cells(path) for kind in raw(cell)] == []


def test_nothing_raw_in_the_pages_that_chapters_lead_to() -> None:
    """The map and the API reference hold what only the book can show: tables, names of memlib."""
    allowed = {"map": {"directive"}, "notation": {"definition"}}
    allowed |= {path.stem: {"directive"} for path in PAGES if path.stem.startswith("api_")}
    found = {path.stem: set(raw(NEEDS.sub("", path.read_text()))) for path in PAGES}
    assert {name: kinds for name, kinds in found.items() if kinds} == allowed


@pytest.mark.parametrize("path", sorted((BOOK / "quizzes").glob("*.json")), ids=lambda p: p.stem)
def test_nothing_raw_in_a_quiz(path: Path) -> None:
    """A quiz knows `code` and $math$, and no other markup."""
    for text in _strings(json.loads(path.read_text())):
        assert not raw(text) + links(text), text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


PLANTED = [
    ("role", "as {cite:p}`graves2014` says"),
    ("role", "by {eq}`eq-kv-read`"),
    ("directive", "```{note}\nMind this.\n```"),
    ("directive", "text\n\n:::{tip}\nMind this.\n:::"),
    ("directive", ":::\n"),
    ("fence without its end", "```python\nx = 1"),
    ("target", "(my-part)=\n## A part"),
    ("attributes", "[Slot]{#term-slot}"),
    ("attributes", "{.wide}\nA paragraph."),
    ("attributes", "![a](b.png){width=50%}"),
    ("label of a formula", "$$\nx = 1\n$$ (eq-one)"),
    ("definition", "Slot\n: One row."),
    ("substitution", "in {{ version }}"),
    ("comment", "% to do"),
    ("break", "+++"),
    ("footnote", "said elsewhere[^1]"),
    ("formula without its dollars", "\\begin{aligned}\nx\n\\end{aligned}"),
    ("formula without its dollars", "so \\(x\\) is"),
    ("formula without its dollars", "a lonely $$ here"),
    ("macro", r"where $\softmax(x)$ is"),
    ("macro", "$$\n\\norm{x}\n$$"),
    ("label or reference of TeX", r"by $\eqref{a}$"),
    ("label or reference of TeX", "$$\n\\begin{equation}\nx\n\\end{equation}\n$$"),
    ("HTML", '<div class="note">x</div>'),
    ("HTML", 'a <span style="color:red">word</span>'),
]


@pytest.mark.parametrize(("kind", "text"), PLANTED)
def test_raw_syntax_is_found(kind: str, text: str) -> None:
    assert kind in raw(text)
    assert kind in raw(f"## A heading\n\nWords before.\n\n{text}\n\nWords after.")


def test_what_both_know_is_not_raw() -> None:
    good = """\
## A heading

By [(1)](#eq-a), *all* of **it** ([Graves *et al.*, 2014](references.md#graves2014)).
In `{x}`, `$$` and `{a}` and `b`.

<a id="eq-a"></a>

$$
\\begin{aligned} x &= \\{1\\} \\\\ y &= 2 \\end{aligned}
\\tag{1}
$$

| a | b |
|---|---|
| $w_{t}$ | 100% |

<details>
<summary>Answer</summary>

No: $x$.

</details>

```python
f"{{x}}", "{role}`x`"  # % +++ <div>
```
"""
    assert not raw(good)


# ---- Links and citations ----


def test_every_link_leads_somewhere() -> None:
    paths = [*NOTEBOOKS, *PAGES]
    assert {path.name: found for path in paths if (found := dead(path))} == {}
    targets = [target for path in paths for cell in cells(path) for _, target in links(cell)]
    assert sum(target.startswith("notation.md#term-") for target in targets) > 80
    assert sum("#eq-" in target for target in targets) > 45


def test_no_anchor_stands_twice() -> None:
    for path in [*NOTEBOOKS, *PAGES]:
        assert len(anchors(path)) == len(set(anchors(path))), path.name


def test_every_citation_agrees_with_its_entry() -> None:
    assert len(citations()) > 140
    assert {"ramsauer2020", "nadaraya1964"} <= {
        target.removeprefix("references.md#") for _, target in links(cells(BOOK / "map.md")[0])
    }, "what stands in the table of the map is looked at, too"
    assert [(text, key) for text, key in citations() if misquoted(text, key)] == []


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Graves *et al.*, 2014", "graves2016"),
        ("Graves and Wayne, 2014", "graves2014"),
        ("Cover *et al.* (1967)", "cover1967"),
        ("Graves et al., 2014", "graves2014"),
        ("Graves *et al.*, 2014", "graves2041"),
    ],
)
def test_a_wrong_citation_is_found(text: str, key: str) -> None:
    assert misquoted(text, key)


def test_authors_are_named_by_the_rule_of_three() -> None:
    known = references.entries(BOOK / "references.bib").entries
    assert references.label(known["hopfield1982"]) == ("Hopfield", "1982")
    assert references.label(known["cover1967"]) == ("Cover and Hart", "1967")
    assert references.label(known["amit1985"]) == ("Amit *et al.*", "1985")
    assert references.label(known["huggingface2024"]) == ("Hugging Face", "2024")
    assert references.label(known["csordas2019"]) == ("Csordás and Schmidhuber", "2019")


@pytest.mark.parametrize(
    "link",
    ["[(1)](#eq-none)", "[x](none.ipynb)", "[slot](notation.md#term-slod)", "[](notation.md)"],
)
def test_a_dead_link_is_found(link: str, tmp_path: Path) -> None:
    (tmp_path / "notation.md").write_text('<a id="term-slot"></a>Slot')
    page = tmp_path / "page.md"
    page.write_text("A [slot](notation.md#term-slot), `[x](none.md)` and [a page](https://a.b).")
    assert not dead(page, tmp_path)
    page.write_text(f"A link: {link}.")
    assert dead(page, tmp_path) == [link]


def test_list_of_references_has_every_entry_in_order() -> None:
    page, known = references.page(BOOK / "references.bib"), references.entries
    keys = re.findall(r'^- <a id="([\w-]+)"></a>', page, flags=re.M)
    assert set(keys) == set(known(BOOK / "references.bib").entries)
    assert len(keys) == page.count("\n- ") > 50
    items = [line for line in page.splitlines() if line.startswith("- ")]
    assert not [line for line in items if not re.search(r"\]\(https://\S+\)\.$", line)]
    assert keys.index("graves2016") == keys.index("graves2014") + 1
    assert keys.index("huang2025") + 1 == keys.index("huggingface2024") < keys.index("hunter2007")


# ---- What the book makes of it ----

CHAPTER = """\
# Chapter

A [slot](notation.md#term-slot) is read by [(1)](#eq-a)
([Graves *et al.*, 2014](notation.md#graves2014)).

<a id="eq-a"></a>

$$
\\begin{aligned}
x &= 1 \\\\
y &= 2
\\end{aligned}
\\tag{1}
$$

And [(2)](notation.md#eq-b) elsewhere.
"""
NOTATION = """\
# Notation

<a id="term-slot"></a>Slot
: One row of a memory.
  → [Chapter](chapter.md)

<a id="eq-b"></a>

$$z = 3 \\tag{2}$$

$$z = 4 \\tag{3}$$

- <a id="graves2014"></a>Alex Graves. *Machines*. 2014.
"""


def build(folder: Path, chapter: str) -> subprocess.CompletedProcess[str]:
    """Builds two pages as the book is built: with its extension, and warnings as errors."""
    options = {
        "extensions": ["myst_parser", "anchors"],
        "master_doc": "chapter",
        "myst_enable_extensions": ["deflist", "dollarmath"],
        **{name: CONFIG[name] for name in ("math_numfig", "myst_dmath_double_inline")},
    }
    path = f"import sys; sys.path.insert(0, {str(BOOK / '_ext')!r})\n"
    toc = "\n```{toctree}\nnotation\n```\n"
    (folder / "conf.py").write_text(path + "".join(f"{k} = {v!r}\n" for k, v in options.items()))
    (folder / "chapter.md").write_text(chapter + toc, encoding="utf-8")
    (folder / "notation.md").write_text(NOTATION, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "."]
    return subprocess.run([*command, "html"], cwd=folder, capture_output=True, text=True)


def test_the_book_numbers_links_and_explains(tmp_path: Path) -> None:
    done = build(tmp_path, CHAPTER)
    assert not done.returncode, done.stderr
    page = (tmp_path / "html/chapter.html").read_text()
    formula = re.search(r'<div class="math[^"]*" id="eq-a">\s*<span class="eqno">\(1\)', page)
    assert formula, "the anchor is the formula's, and the number its tag's"
    assert r"\tag" not in page
    assert page.count('id="eq-a"') == 1
    assert "<p></p>" not in page
    assert re.search(r'href="#eq-a">.*?\(1\)', page)
    assert re.search(r'href="notation.html#eq-b"><.*?\(2\)', page)
    assert 'href="notation.html#term-slot" title="One row of a memory."' in page
    assert 'href="notation.html#graves2014" title="Alex Graves. Machines. 2014."' in page
    other = (tmp_path / "html/notation.html").read_text()
    assert re.search(r'id="term-slot"></span>Slot</dt>', other)
    assert re.search(r'id="eq-b">\s*<span class="eqno">\(2\)', other)
    assert re.search(r'id="equation-3">\s*<span class="eqno">\(3\)', other), "without an anchor"


@pytest.mark.parametrize("name", ["term-slot", "graves2014", "eq-a", "eq-b"])
def test_a_typo_in_a_link_stops_the_build(name: str, tmp_path: Path) -> None:
    done = build(tmp_path, CHAPTER.replace(f"#{name})", f"#{name}x)"))
    assert done.returncode
    assert f"{name}x" in done.stderr


def test_an_anchor_that_stands_twice_stops_the_build(tmp_path: Path) -> None:
    done = build(tmp_path, CHAPTER + '\n<a id="eq-a"></a>Again.\n')
    assert done.returncode
    assert "eq-a" in done.stderr
