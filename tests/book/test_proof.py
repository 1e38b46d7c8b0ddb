"""The pages of the part Proof hold what the records say, and no number that somebody typed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import build
import paths
import pytest
import status
import yaml

from book._ext import measured, proof
from experiments import claims, records

BOOK = records.ROOT / "book"
TOC = yaml.safe_load((records.ROOT / "_toc.yml").read_text())
(PART,) = (part["chapters"] for part in TOC["parts"] if part["caption"] == "Proof")
PAGES = {chapter["file"].removeprefix("book/") for chapter in PART}


def source(page: str) -> str:
    return (BOOK / f"{page}.md").read_text(encoding="utf-8")


def typed(text: str) -> list[str]:
    """The numbers of a page's source that are no part of a name, a link or the year of a paper."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|, (19|20)\d\d(?=\])", "", text)
    return re.findall(r"\d+", text)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_no_number_is_typed(page: str) -> None:
    assert typed(source(page)) == []


def test_a_typed_number_is_found() -> None:
    assert typed("It wins by 3.5×, [Graves *et al.*, 2014](references.md#graves2014).") == [
        "3",
        "5",
    ]


def test_every_mark_is_used_once_and_an_unknown_one_is_an_error() -> None:
    marks = [mark for page in {*PAGES, "systems"} for mark in proof.MARK.findall(source(page))]
    assert sorted(marks) == sorted(proof.made())
    with pytest.raises(KeyError, match="nonsense"):
        proof.filled("<!-- proof: nonsense -->")


def scaled(*path: str | int) -> Callable[[Any], None]:
    """A change of one number in a record: 1234.5 in its place."""

    def change(record: Any) -> None:
        *way, last = path
        for name in way:
            record = record[name]
        record[last] = 1234.5

    return change


CHANGES = {
    "ours": ("babi_joint", scaled("mean"), "reproductions"),
    "its spread": ("babi_joint", scaled("sd_of_seeds"), "reproductions"),
    "a run of ours": ("ntm_ngrams", scaled("runs", 0, "final", "bits"), "reproductions"),
    "what a run took": ("babi_joint", lambda r: _seconds(r, 4321.0), "reproductions"),
    "a published number": (
        "published_memn2n",
        scaled("1k", "pe_ls_rn_joint", "mean"),
        "reproductions",
    ),
    "a published spread": ("published_dnc", scaled("rows", 0, 2), "reproductions"),
    "a headline": (
        "published_models",
        scaled("systems", 0, "headlines", 0, "value"),
        "reproductions",
    ),
    "a shape": ("published_cache", scaled("models", 0, "year"), "reproductions"),
    "a claim": (
        "published_claims",
        lambda record: record["claims"][0].update(text="planted"),
        "reproductions",
    ),
    "a timing": ("benchmark_dnc", scaled("figures", "rows", 0, "memlib_ms"), "benchmarks"),
    "a version": ("benchmark_dnc", scaled("versions", "torch"), "benchmarks"),
    "a rate of a folder": (
        "benchmark_durable",
        scaled("figures", "rates", 0, "pairs_a_second"),
        "systems",
    ),
    "kills survived": ("durability", scaled("runs", 0, "kills", "acknowledged"), "systems"),
    "a recall": ("benchmark_pgvector", scaled("figures", "rows", 0, "recall"), "systems"),
    "a weight": ("status", scaled("pages", "ntm", "bytes"), "status"),
    "a version of the build": ("status", scaled("versions", "sphinx"), "status"),
    "an explorable": (
        "benchmark_explore",
        scaled("figures", "pages", "ntm", "median"),
        "status",
    ),
    "a reason": (
        "stale",
        lambda reasons: reasons.update({"ntm_ngrams: lstm": "planted"}),
        "status",
    ),
}


def _seconds(record: Any, seconds: float) -> None:
    for start in record["models"][0]["restarts"]:
        start["seconds"] = seconds


@pytest.mark.parametrize("what", CHANGES)
def test_changing_a_record_changes_the_page(what: str, tmp_path: Path) -> None:
    name, change, page = CHANGES[what]
    one, two = (Path(shutil.copytree(records.RESULTS, tmp_path / n)) for n in ("one", "two"))
    if what == "a reason":
        for folder in (one, two):  # a record whose keys are of no code is stale
            _change(folder / "ntm_ngrams.json", _old)
    _change(two / f"{name}.json", change)
    before, after = (proof.filled(source(page), folder) for folder in (one, two))
    assert before != after
    assert proof.filled(source(page), one) == before, "the same records, the same page"


def _old(record: Any) -> None:
    for run in record["runs"]:
        run.pop("verified", None)
        run["key"] = "0"


def _change(path: Path, how: Callable[[Any], None]) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    how(record)
    path.write_text(json.dumps(record), encoding="utf-8")


def test_every_claim_headline_and_shape_is_on_the_page() -> None:
    page = proof.filled(source("reproductions"))
    assert [name for name in claims.known() if f"**{name}**" not in page] == []
    systems = json.loads((records.RESULTS / "published_models.json").read_text())["systems"]
    lines = [line["on"] for one in systems for line in one["headlines"] + one.get("sizes", [])]
    assert [line for line in lines if line not in page] == []
    models = json.loads((records.RESULTS / "published_cache.json").read_text())["models"]
    assert [model["name"] for model in models if model["name"] not in page] == []


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_number_and_its_spread_have_the_same_decimals_and_none_an_exponent(page: str) -> None:
    text = proof.filled(source(page))
    assert re.findall(r"\d\.?\d*e[+-]\d+", text) == []
    pairs = re.findall(r"([\d,.]+) ± ([\d,.]*\d)", text)
    assert [pair for pair in pairs if len({len(x.partition(".")[2]) for x in pair}) > 1] == []
    assert bool(pairs) == (page == "reproductions")


def test_a_latent_is_no_head() -> None:
    page = proof.filled(source("reproductions"))
    assert "61 layers, one latent of 512 and one rotary key of 64" in page
    assert "61 layers, 1 head" not in page


def test_a_ratio_says_what_it_leaves_out() -> None:
    """What an approximate search finds, and that processes of one machine are no network."""
    page = proof.filled(source("benchmarks"))
    figures = {name: record["figures"] for name, record in measured.ratios.recorded().items()}
    found = [row["recall"] for row in figures["store"]["facts"]["rows"] if "recall" in row]
    assert f"HNSW: recall {min(found):.3f} to 1" in page
    (row,) = (r for r in figures["pgvector"]["rows"] if r["way"].endswith("at 100"))
    assert f"HNSW at effort 100: recall {row['recall']:.3f}" in page
    assert f"on one machine of {figures['sharded']['cores']} cores, by loopback" in page
    assert "gpu" not in figures, "the page says that nothing of it ran on a GPU"


def test_two_times_are_told_apart() -> None:
    assert measured._apart(13.164, 13.162) == "13.164 ms against 13.162"
    assert measured._apart(57.8, 57.3186) == "57.8 ms against 57.3"
    page = proof.filled(source("benchmarks"))
    pairs = re.findall(r"([\d.,]*\d) ms against ([\d.,]*\d)", page)
    assert pairs
    assert [pair for pair in pairs if len(set(pair)) == 1] == []


def test_a_reason_is_told_once_and_its_commands_are_code(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(records.RESULTS, tmp_path / "results"))
    names, command = ("ntm_ngrams", "ntm_repeat_copy"), "python -m experiments ntm --seed 0"
    for name in names:
        _change(folder / f"{name}.json", _old)
    reasons = {name: f"planted: {command}; one run takes {i} s" for i, name in enumerate(names)}
    _change(folder / "stale.json", lambda record: record.clear() or record.update(reasons))
    page = proof.filled(source("status"), folder)
    assert f"- planted: `{command}`: `ntm_ngrams`, `ntm_repeat_copy`" in page
    assert page.count("planted") == 1
    assert re.findall(r"(?<!\S)--\w", re.sub(r"`[^`]*`", "", page)) == []


def test_where_memlib_loses_comes_first_and_is_told_in_numbers() -> None:
    page = proof.filled(source("benchmarks"))
    lost, whole = page.split("## All comparisons")
    assert lost.index("## Where memlib loses") < lost.index("NTM")
    ratios = [
        float(x) for x in re.findall(r'class="ml-label">Ratio, mean</span> \**([\d.]+)×', whole)
    ]
    assert ratios == sorted(ratios)
    assert 0 < ratios[0] < 1 < ratios[-1]
    below = re.findall(r'class="ml-label">Ratio, mean</span> \*\*([\d.]+)×', whole)
    assert len(below) == sum(ratio < 1 for ratio in ratios), "what loses is marked"


# ---- The build ----


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one page and some records."""
    root = tmp_path / "root"
    for name in ("book", "results", "memlib", "experiments", "benchmarks"):
        (root / name).mkdir(parents=True)
        (root / name / "a.txt").write_text("a")
    for name in ("_config.yml", "_toc.yml", "requirements.txt"):
        (root / name).write_text("")
    monkeypatch.setattr(build, "ROOT", root)
    return root


@pytest.mark.parametrize(
    "name", ["results/ntm.json", "results/status.json", "experiments/a.txt", "benchmarks/a.txt"]
)
def test_the_pages_are_made_again_when_what_they_show_changes(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def sphinx(book: build.Book) -> bool:
        made.append(name)
        (book.work / "_build" / "html").mkdir(parents=True)
        return True

    monkeypatch.setattr(build.Book, "_sphinx", sphinx)
    book = build.Book(tmp_path / "work", tmp_path / "out")
    for text, times in (("1", 1), ("1", 1), ("2", 2)):
        (root / name).write_text(text)
        book.stage()
        book.pages()
        assert len(made) == times


def test_a_new_status_runs_no_notebook_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "book" / "one.ipynb").write_text('{"cells": []}')
    ran = []

    def execute(stale: dict[str, Path], work: Path, done: Callable[..., None]) -> None:
        ran.append(set(stale))
        for name in stale:
            done(name, build.Cost(1.0, 1.0, 1.0), None)

    monkeypatch.setattr(build.notebooks, "execute", execute)
    book = build.Book(tmp_path / "work", tmp_path / "out")
    for name, times in (
        ("ntm.json", 1),
        ("status.json", 1),
        ("published_claims.json", 1),
        ("b.json", 2),
    ):
        (root / "results" / name).write_text("new")
        book.execute()
        assert len(ran) == times, name


def test_status_measures_the_built_pages(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    (out / "book").mkdir(parents=True)
    work.mkdir()
    with pytest.raises(FileNotFoundError, match="run `make book` first"):
        status.measure(work, out)
    (out / "book" / "ntm.html").write_text("a" * 5000)
    for name in ("map", "systems", "status", "api_verbs", "gone"):
        (out / "book" / f"{name}.html").write_text("b")
    (work / "executed.json").write_text("{}")
    with pytest.raises(ValueError, match=r"must hold every notebook; it has no \['ntm'\]"):
        status.measure(work, out)
    cost = {"key": "", "cpu": 12.34, "wall": 20.0, "megabytes": 300.4}
    (work / "executed.json").write_text(json.dumps({"ntm": cost}))
    found = status.measure(work, out)
    page = found["pages"]["ntm"]
    assert (page["bytes"], page["cpu"], page["megabytes"]) == (5000, 12.3, 300)
    assert page["gzip"] < 100
    assert page["minutes"] == paths.minutes("[it](ntm.ipynb)") > 10
    for name in ("map", "systems"):
        assert found["pages"][name].keys() == {"bytes", "gzip", "minutes"}
    for name in ("status", "api_verbs", "gone"):  # looked up, not read
        assert found["pages"][name].keys() == {"bytes", "gzip"}
    assert {"torch", "sphinx", "memlib"} <= found["versions"].keys()


def test_every_page_has_its_status() -> None:
    """As far as the book was when `make status` ran last; a page that is gone is no longer told."""
    listed = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]
    measured = json.loads((records.RESULTS / "status.json").read_text())["pages"]
    assert {f"book/{name}" for name in measured} <= set(listed)


@pytest.mark.slow
def test_sphinx_makes_the_tables(tmp_path: Path) -> None:
    path = f"import sys; sys.path[:0] = [{str(BOOK / '_ext')!r}, {str(records.ROOT)!r}]\n"
    options = {
        "extensions": ["myst_parser", "sphinx_design", "proof"],
        "master_doc": "status",
        "myst_enable_extensions": ["colon_fence"],
        "suppress_warnings": ["myst.xref_missing"],  # the other pages are not there
    }
    (tmp_path / "conf.py").write_text(path + "".join(f"{k} = {v!r}\n" for k, v in options.items()))
    shutil.copy(BOOK / "status.md", tmp_path)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", ".", "html"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    page = (tmp_path / "html/status.html").read_text()
    measured = json.loads((records.RESULTS / "status.json").read_text())["pages"]
    assert f"{measured['ntm']['bytes'] / 1000:,.0f} kB" in page
    assert page.count("<table") == 3
    assert "proof:" not in page
