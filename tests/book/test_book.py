"""The frame: contents, configuration, references, pins and the address fit together."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import address
import lowest
import pytest
import setup_cell
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = setup_cell.ROOT
BOOK = ROOT / "book"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXT = {
    path: path.read_text(encoding="utf-8") for path in [*setup_cell.stored(), *BOOK.rglob("*.md")]
}


def tracked() -> list[Path]:
    command = ["git", "ls-files", "-coz", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if (ROOT / name).is_file()]


def test_contents_list_every_page_once() -> None:
    listed = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]
    written = sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in TEXT)
    assert sorted(listed) == written


def test_systems_stand_in_the_order_of_the_chapters_and_are_complete() -> None:
    table = (BOOK / "map.md").read_text(encoding="utf-8").partition("## Same formula")[0]
    header, *rows = re.split(r"(?m)^\* - ", table.partition("list-table}")[2])[1:]
    columns = re.findall(r"(?m)^  - (.+)$", header)
    toc = [c["file"].removeprefix("book/") for part in TOC["parts"] for c in part["chapters"]]
    chapters = [toc.index(re.search(r"\]\((\w+)\.ipynb", row)[1]) for row in rows]
    assert chapters == sorted(chapters)
    assert {len(re.findall(r"(?m)^  - \S", row)) for row in rows} == {len(columns)}
    assert any(row.startswith("[Fast weights]") for row in rows)
    style = (BOOK / "_static" / "book.css").read_text()  # on a phone each part has its label
    assert (
        re.findall(r'\.ml-cards td:nth-child\(\d\)::before \{ content: "(.+?)"', style) == columns
    )


def entries() -> dict[str, str]:
    text = (BOOK / "references.bib").read_text()
    return dict(re.findall(r"^@\w+\{([^,]+),\n(.*?)^\}", text, flags=re.M | re.S))


@pytest.mark.parametrize("key", entries())
def test_entry_can_be_found(key: str) -> None:
    assert re.search(r"^\s*(doi|eprint|url)\s*=", entries()[key], flags=re.M), key


def test_configuration() -> None:
    sphinx = CONFIG["sphinx"]["config"]
    assert CONFIG["execute"]["execute_notebooks"] == "off"  # tools/build.py executes
    assert CONFIG["sphinx"]["recursive_update"] is True
    assert ".venv/**" in CONFIG["exclude_patterns"]
    assert CONFIG["launch_buttons"]["thebe"] is False
    assert sphinx["html_context"]["default_mode"] == "auto"
    assert "tex" not in sphinx["mathjax3_config"], "macros of the book are red in Jupyter"
    assert (ROOT / CONFIG["html"]["favicon"]).exists()
    assert (ROOT / CONFIG["logo"]).exists()
    assert all((BOOK / "_static" / name).exists() for name in sphinx["html_css_files"])
    assert not list((BOOK / "_static").rglob("*.js")), "they would load on every page"


def test_nothing_of_ours_is_excused_from_nitpicking() -> None:
    for _, pattern in CONFIG["sphinx"]["config"]["nitpick_ignore_regex"]:
        assert not re.fullmatch(pattern, "memlib.attend")
        assert not re.fullmatch(pattern, "attend")


# ---- The lock ----

LOCK = [
    line
    for name in ("requirements.txt", "requirements-ci.txt")
    for line in (ROOT / name).read_text().splitlines()
    if line and not line.startswith("#")
]


def test_every_pin_is_exact_and_public() -> None:
    assert [line for line in LOCK if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    names = [canonicalize_name(line.split("==")[0]) for line in LOCK]
    assert len(set(names)) == len(names)


def test_the_lock_satisfies_every_range() -> None:
    pins = {canonicalize_name(n): v for n, v in (line.split("==") for line in LOCK)}
    pins["memlib"] = PROJECT["version"]  # the book's extra names that of the notebooks
    extras = PROJECT["optional-dependencies"].values()
    ranges = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for requirement in map(Requirement, [*ranges, *system]):
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), f"{requirement} against {pin}"


def test_every_range_has_one_lower_bound(tmp_path: Path) -> None:
    extras = PROJECT["optional-dependencies"].values()
    ranges = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    names = {Requirement(line).name for line in ranges} - {"memlib"} | {"hatchling"}
    bounds = [Requirement(line) for line in lowest.lowest()]
    assert {bound.name for bound in bounds} == names
    assert len(bounds) == len(names)
    text = (ROOT / "pyproject.toml").read_text()
    for good, bad in (('"tqdm>=', '"tqdm<'), ('"tqdm>=', '"safetensors>='), ('"tqdm>=', '"tqdm!=')):
        (tmp_path / "pyproject.toml").write_text(text.replace(good, bad))
        with pytest.raises(ValueError, match=r"must (be name>=version|have one lower bound)"):
            lowest.lowest(tmp_path)


def test_the_library_needs_torch_and_numpy_alone() -> None:
    assert {Requirement(line).name for line in PROJECT["dependencies"]} == {"torch", "numpy"}
    assert not [line for line in PROJECT["dependencies"] if "==" in line]


# ---- The address ----

URL = "https://github.com/an-owner/a-book"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the files that hold the address."""
    for name in ("pyproject.toml", "_config.yml", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "book").mkdir()
    for path in BOOK.glob("*.ipynb"):
        shutil.copy(path, tmp_path / "book")
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_address_is_written_everywhere_and_twice_is_once(copy: Path) -> None:
    address.write(URL, copy)
    once = contents(copy)
    assert all(URL in text for text in once.values())
    config = yaml.safe_load(once["_config.yml"])
    assert config["repository"]["url"] == URL
    assert config["html"]["use_repository_button"] is True
    assert config["launch_buttons"]["colab_url"]
    assert yaml.safe_load(once["CITATION.cff"])["repository-code"] == URL
    assert setup_cell.repository(copy) == URL
    address.write(URL, copy)
    assert contents(copy) == once


def test_address_can_be_taken_back(copy: Path) -> None:
    address.write("", copy)
    before = contents(copy)
    address.write(URL, copy)
    address.write("", copy)
    assert contents(copy) == before
    config = yaml.safe_load(before["_config.yml"])
    buttons = ("use_repository_button", "use_issues_button", "use_edit_page_button")
    assert not any(config["html"][button] for button in buttons)
    assert not config["launch_buttons"]["colab_url"]


def test_address_is_the_same_everywhere() -> None:
    url = setup_cell.repository()
    assert CONFIG["repository"]["url"] == url
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text()).get("repository-code", "") == url


@pytest.mark.parametrize("url", ["github.com/a/b", "http://github.com/a/b", "https://github.com/a"])
def test_address_must_be_one(copy: Path, url: str) -> None:
    with pytest.raises(ValueError, match="the address must look like"):
        address.write(url, copy)


def test_citation_agrees_with_the_project() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


# ---- What is handed out ----


def test_readme_example_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_every_test_that_is_named_is_there() -> None:
    """In what people read and what tools run: a move leaves no name behind."""
    texts = [path for path in tracked() if path.suffix in {".md", ".yaml", ".yml", ".ipynb", ".py"}]
    named = {
        (path.name, name)
        for path in texts
        for name in re.findall(r"\btests/[\w/]*\w\.py\b", path.read_text(encoding="utf-8"))
    }
    assert len(named) >= 8
    gone = {(path, name) for path, name in named if not (ROOT / name).exists()}
    assert {(path, name) for path, name in gone if "NAME" not in name} == set()


def test_no_machine_is_named_in_the_repository() -> None:
    words = ["/work" + "/", "/root" + "/", "/opt" + "/", "pypi" + ".org", "registry.npm" + "js"]
    for path in tracked():
        if path.suffix in {".png", ".pt", ".npz", ".safetensors"}:
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        assert not [word for word in words if word in text], path.relative_to(ROOT)
