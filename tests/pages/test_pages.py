"""Every built page in headless Chromium, with every outside host blocked (`make pages`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import archive
import checks
import controls
import picture
import pytest
import setup_cell
from checks import HTML
from playwright.sync_api import Browser

PAGES = sorted(page.relative_to(HTML).as_posix() for page in HTML.rglob("*.html"))
PAGES = [page for page in PAGES if page != "index.html" and not page.startswith("_static/")]
CHAPTERS = [page for page in PAGES if page.startswith("book/")]
NOTEBOOKS = {f"book/{path.stem}.html" for path in setup_cell.stored()}
SCHEMES = ("light", "dark")


def test_the_book_is_built() -> None:
    assert {"search.html", "genindex.html"} <= set(PAGES), "run `make book` first"
    assert len(CHAPTERS) >= 10


def test_front_page_leads_into_the_book(browser: Browser, book: str) -> None:
    page = browser.new_page()
    page.goto(f"{book}/index.html", wait_until="commit")
    page.wait_for_url("**/book/intro.html")
    page.close()


# An explorable starts when it comes near, not before.
EXPLORABLES = """[...document.querySelectorAll('.ml-explore')].map(e => ({
    started: e.explore.started > 0,
    near: e.getBoundingClientRect().top < innerHeight + 300,
}))"""


@pytest.mark.parametrize("size", checks.SIZES)
@pytest.mark.parametrize("path", PAGES)
def test_page(browser: Browser, book: str, disk: str, path: str, size: str) -> None:
    """As it opens, with every control used, with every folded part open, and in the other scheme.

    Axe takes longest. It sees the whole page once all is open; before that, and in the other
    scheme, what may look otherwise there. Each width begins with a scheme of its own. The wide
    page comes from a server, the narrow one from the archive that is read offline.
    """
    first, second = SCHEMES if size == "wide" else reversed(SCHEMES)
    with checks.visit(browser, book if size == "wide" else disk, path, size, first) as one:
        assert not checks.faults(one, checks.SHUT)
        if size == "wide":
            assert not checks.weight(one)
        if size == "wide" and path in NOTEBOOKS:
            assert not checks.listings(one)
            assert not [e for e in one.page.evaluate(EXPLORABLES) if e["started"] != e["near"]]
        if path in CHAPTERS:
            assert not controls.used(one)
            controls.unfold(one)
        assert not checks.faults(one)
        checks.recolor(one, second)
        assert one.page.evaluate("document.documentElement.dataset.theme") == second
        assert not checks.faults(one, checks.RECOLORED)


COLOR = "getComputedStyle(document.querySelector('table th, h1')).color"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_page_has_its_colors_before_the_scripts_of_the_theme(
    browser: Browser, book: str, scheme: str
) -> None:
    with checks.visit(browser, book, "book/map.html", scheme=scheme) as one:
        color = one.page.evaluate(COLOR)
        one.page.route("**/pydata-sphinx-theme.js*", lambda route: route.abort())
        one.page.evaluate("localStorage.clear()")  # a reader who comes for the first time
        one.page.reload()
        assert one.page.evaluate("document.documentElement.dataset.theme") == scheme
        assert one.page.evaluate(COLOR) == color


def test_with_reduced_motion_the_other_scheme_is_there_at_once(browser: Browser, book: str) -> None:
    other = "document.documentElement.dataset.theme = 'dark'"
    with checks.visit(browser, book, "book/map.html") as one:
        now = one.page.evaluate(f"{other}; {COLOR}")
        under_way = one.page.evaluate("document.getAnimations().length")
        checks.drawn(one)
        assert one.page.evaluate(COLOR) == now
        assert under_way == 0


SEARCHES = """() => {
    let searches = 0;
    for (const from of [Document.prototype, Element.prototype]) {
        const all = from.querySelectorAll;
        from.querySelectorAll = function(...given) { searches += 1; return all.apply(this, given) };
    }
    document.querySelector('article h1').click();
    return searches;
}"""


def test_a_click_searches_the_page_twice_at_most(browser: Browser, book: str) -> None:
    with checks.visit(browser, book, "book/map.html") as one:
        assert one.page.evaluate(SEARCHES) <= 2
        one.page.get_by_label("Download this page").click()
        one.page.locator(".dropdown-menu.show").wait_for()
        one.page.locator("article h1").click()
        one.page.locator(".dropdown-menu.show").wait_for(state="hidden")


def dead(html: str) -> list[str]:
    """The links of a page's quiz that lead to no page."""
    links = re.findall(r'class="ml-more">Read more: <a href="([^"#]+)', html)
    return [link for link in links if not (HTML / "book" / link).is_file()]


def test_quizzes_lead_to_pages() -> None:
    pages = [(HTML / path).read_text(encoding="utf-8") for path in CHAPTERS]
    assert sum("Read more: <a" in page for page in pages) >= 3
    assert [link for page in pages for link in dead(page)] == []
    assert dead('<p class="ml-more">Read more: <a href="intro.ipynb#the-idea">') == ["intro.ipynb"]


@pytest.mark.parametrize("name", [p.stem for p in setup_cell.stored()])
def test_the_download_button_gives_the_stored_notebook(name: str) -> None:
    (stored,) = (path for path in setup_cell.stored() if path.stem == name)
    place = stored.relative_to(setup_cell.ROOT)
    html = (HTML / place.with_suffix(".html")).read_text(encoding="utf-8")
    (link,) = set(re.findall(r'href="([^"]*_sources/[^"]*\.ipynb)"', html))
    given = (HTML / place).parent / link
    assert given.resolve().read_bytes() == stored.read_bytes()


LABELS = {"Answer", "Code", "Every answer explained", "Output", "Solution"}


def labels(html: str) -> set[str]:
    """What the folds of a page are called, open or shut."""
    summaries = re.findall(r"<summary[^>]*>(.*?)</summary>", html, flags=re.S)
    words = (re.findall(r"[^<>]+(?=<|$)", summary) for summary in summaries)
    return {word.strip() for found in words for word in found if word.strip()}


@pytest.mark.parametrize("path", CHAPTERS)
def test_folds_are_labelled_alike_and_the_set_up_cell_is_not_shown(path: str) -> None:
    html = (HTML / path).read_text(encoding="utf-8")
    assert labels(html) <= LABELS
    assert "Set-up, to run first" not in re.sub("<[^>]+>", "", html)


def test_a_label_of_another_kind_is_found() -> None:
    planted = '<summary aria-label="x">\n<p>Show code cell content</p>\n<p>Code</p>\n</summary>'
    assert labels(planted) - LABELS == {"Show code cell content"}


def test_readme_shows_the_picture_of_the_introduction() -> None:
    drawn = picture.source().replace("\n", "")
    stored = picture.PICTURE.read_text().replace("\n", "")
    assert stored == drawn, "run `python tools/picture.py`"


@pytest.mark.parametrize("place", ["book", "disk"])
def test_search_finds_a_word(browser: Browser, place: str, request: pytest.FixtureRequest) -> None:
    base = request.getfixturevalue(place)
    with checks.visit(browser, base, "search.html?q=memory") as one:
        one.page.wait_for_selector("#search-results li:nth-child(10)")
        assert not checks.faults(one)


# ---- The archive that is read offline ----


def test_the_start_page_leads_into_the_book(browser: Browser, disk: str) -> None:
    start = re.sub("<meta http-equiv.*>", "", (unpacked(disk) / archive.START).read_text("utf-8"))
    page = browser.new_page()
    page.goto(f"{disk}/{archive.START}", wait_until="commit")
    page.wait_for_url("**/book/intro.html")
    page.set_content(start)
    assert page.get_by_role("link").get_attribute("href") == archive.FIRST
    page.close()


def test_all_of_the_archive_is_the_book_and_links_stay_inside(disk: str) -> None:
    folder = unpacked(disk)
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*.html")} == {
        archive.START, "index.html", *PAGES,
    }  # fmt: skip
    private = [f"{setup_cell.ROOT}/", f"{HTML}/"]
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert path.suffix in SUFFIXES, path
        text = path.read_bytes().decode("utf-8", errors="ignore")
        assert [word for word in private if word in text] == [], path
        if path.suffix == ".html":
            assert missing(path, text) == [], path


SUFFIXES = {
    ".css", ".html", ".inv", ".ipynb", ".js", ".md", ".png", ".svg", ".ttf", ".txt", ".woff",
    ".woff2",
}  # fmt: skip


def unpacked(address: str) -> Path:
    return Path(unquote(address.removeprefix("file://")))


def missing(page: Path, html: str) -> list[str]:
    """The files that a page names and that are not there."""
    named = r'<(?:a|img|link|script)\s[^>]*?(?:href|src)="(?!\w+:|#)([^"#?]+)'
    found = re.findall(named, html)
    return [name for name in found if not (page.parent / unquote(unescape(name))).is_file()]


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    (tmp_path / "one.html").write_text("")
    html = '<a href="one.html#x">1</a><img src="two.png?v=1"><a href="https://example.org">3</a>'
    assert missing(tmp_path / "one.html", html) == ["two.png"]


# ---- The gates catch what they are for ----

HEAD = "<!DOCTYPE html><html lang=en><title>t</title><link rel=icon href=data:,>"
BODY = HEAD + "<main><article><h1>h</h1>{}</article></main></html>"
OPTION = "<input type=radio name=a><input type=radio name=a>"
LISTING = "<div><div class=highlight><pre>{}</pre></div></div>"
KEY = "<div class=ml-key><p data-right=1></p><p data-right=0></p></div>"
QUIZ = f"<div class=ml-quiz><fieldset>{OPTION}<button>Check</button>{{}}{KEY}</fieldset></div>"
PLAYER = "<figure class=ml-player><input type=range {}><p aria-live=polite></p>{}</figure>"
EXPLORE = "<div class=ml-explore><div class=ml-lab {}><p>a</p>{}<p class=ml-said></p></div></div>"
BUTTONS = "<button>Step back</button><button>Step forward</button>"
PLANTED = {
    "outside request": (checks.requests, "<img alt=x src='https://example.org/x.png'>", "outside"),
    "missing file": (checks.requests, "<img alt=x src=none.png>", "404"),
    "uncaught error": (checks.errors, "<script>throw new Error('planted')</script>", "planted"),
    "console error": (checks.errors, "<script>console.error('planted')</script>", "planted"),
    "undrawn math": (checks.math, r"<span class=math>\(x\)</span>", "not drawn"),
    "stray dollars": (checks.math, "<p>so $$x$$ is</p>", "not drawn"),
    "sideways scroll": (checks.scroll, "<div style='width:2000px'>wide</div>", "sideways"),
    "wide line": (checks.listings, "<pre style='overflow:auto'>" + "x" * 300 + "</pre>", "px, "),
    "long line": (checks.listings, "<pre style='font-size:2px'>" + "x" * 73 + "</pre>", "columns"),
    "low contrast": (checks.axe, "<p style='color:#bbb;background:#fff'>pale</p>", "contrast"),
    "pale token": (
        checks.axe,
        LISTING.format("<span>if</span> <span>if</span> <span style='color:#bbb'>pale</span>"),
        "contrast",
    ),
    "pale control": (
        checks.axe_of_controls,
        "<details><summary style='color:#bbb;background:#fff'>pale</summary></details>",
        "contrast",
    ),
    "input without label": (checks.axe, "<input type=text>", "label"),
    "small target": (
        checks.axe,
        "<button style='width:9px;height:9px' aria-label=a></button>" * 2,
        "target-size",
    ),
    "two search fields": (checks.search, "<input type=search><input type=search>", "2 search"),
    "heavy page": (checks.weight, "<!--" + "x" * checks.HEAVY + "-->", "weighs"),
    "image without alt": (
        checks.pictures,
        "<img src=data:,>",
        "alt",
    ),
    "figure without finding": (
        checks.pictures,
        "<figure class=ml-figure><svg role=img aria-label=Plot></svg></figure>",
        "no finding",
    ),
    "figure without label": (
        checks.pictures,
        "<figure class=ml-figure><svg></svg></figure>",
        "without label",
    ),
    "id twice": (checks.ids, "<p id=a>1</p><p id=a>2</p>", "twice"),
    "dead quiz": (controls.quizzes, QUIZ.format("<p role=status></p>"), "not announced"),
    "silent quiz": (controls.quizzes, QUIZ.format(""), "not announced"),
    "quiz that cannot be chosen": (
        controls.quizzes,
        QUIZ.format("").replace("<input", "<input onclick='return false'"),
        "chosen",
    ),
    "quiz with a wrong verdict": (
        controls.quizzes,
        QUIZ.format("<p role=status></p>").replace(
            "<button>",
            "<button onclick=\"this.parentNode.dataset.state='right';"
            "this.nextSibling.textContent='Right'\">",
        ),
        "wrong verdict",
    ),
    "explorable that does not start": (controls.explorables, EXPLORE.format("hidden", ""), "start"),
    "explorable without things to try": (
        controls.explorables,
        EXPLORE.format("", ""),
        "nothing can",
    ),
    "dead explorable": (
        controls.explorables,
        EXPLORE.format("", "<button>Show me</button><button>Reset</button>"),
        "thing 1 to try changes nothing",
    ),
    "silent explorable": (
        controls.explorables,
        EXPLORE.format(
            "",
            '<button onclick="this.after(1)">Show me</button><button>Reset</button>',
        ),
        "nothing is said",
    ),
    "player without slider": (controls.players, "<figure class=ml-player></figure>", "no slider"),
    "slider without label": (controls.players, PLAYER.format("", BUTTONS), "no label"),
    "dead player": (controls.players, PLAYER.format("aria-label=Step", BUTTONS), "mouse"),
    "player that plays by itself": (
        controls.players,
        PLAYER.format("aria-label=Step value=1", BUTTONS)
        + "<script>setInterval(() => document.querySelector('input').stepUp(), 20)</script>",
        "by itself",
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_gate_catches(
    fault: str, browser: Browser, serve: Callable[[Path], str], tmp_path: Path
) -> None:
    gate, body, message = PLANTED[fault]
    (tmp_path / "bad.html").write_text(BODY.format(body), encoding="utf-8")
    base = serve(tmp_path)
    with checks.visit(browser, base, "bad.html") as one:
        assert any(message in found for found in gate(one)), gate(one)


def test_gate_catches_what_is_pale_in_the_dark_alone(
    browser: Browser, serve: Callable[[Path], str], tmp_path: Path
) -> None:
    style = "<style>@media (prefers-color-scheme: dark) { p { color: #333; background: #222 } }"
    (tmp_path / "bad.html").write_text(BODY.format(f"{style}</style><p>dim</p>"), encoding="utf-8")
    with checks.visit(browser, serve(tmp_path), "bad.html") as one:
        assert not checks.faults(one, checks.RECOLORED)
        checks.recolor(one, "dark")
        assert any("contrast" in found for found in checks.faults(one, checks.RECOLORED))


def test_a_good_page_passes_every_gate(
    browser: Browser, serve: Callable[[Path], str], tmp_path: Path
) -> None:
    (tmp_path / "good.html").write_text(BODY.format("<p>Quiet.</p>"), encoding="utf-8")
    with checks.visit(browser, serve(tmp_path), "good.html") as one:
        assert not [fault for gate, _, _ in PLANTED.values() for fault in gate(one)]


FORMULA = """<p><mjx-container style="display:inline-block"><mjx-math aria-hidden=true
style="display:inline-block"><b style="display:inline-block;width:2000px">x</b></mjx-math>
<mjx-assistive-mml><i>x</i></mjx-assistive-mml></mjx-container></p>"""


@pytest.mark.parametrize(
    ("body", "parts", "left"),
    [
        (LISTING.format("<span class=k>if</span> <span class=n>a</span> " * 500), "pre span", 2),
        (LISTING.format("<span id=l1><span class=k>if</span> a</span>\n" * 99), "pre span", 100),
        (FORMULA * 99, "mjx-math b, mjx-assistive-mml i", 2),
    ],
)
def test_axe_sees_one_part_of_each_look_and_leaves_the_page_as_it_was(
    browser: Browser, serve: Callable[[Path], str], tmp_path: Path, body: str, parts: str, left: int
) -> None:
    (tmp_path / "code.html").write_text(BODY.format(body), encoding="utf-8")
    with checks.visit(browser, serve(tmp_path), "code.html") as one:
        look = f"""[document.querySelectorAll('{parts}').length, [
            document.documentElement.scrollHeight,
            ...[...document.querySelectorAll('mjx-container')].map(part => part.scrollWidth)]]"""
        before = one.page.evaluate(look)
        seen = one.page.evaluate(f"() => {{ {checks.ONCE} return {look} }}")
        assert seen == [left, before[1]]
        one.page.reload()
        before = one.page.content()
        assert not checks.axe(one)
        assert one.page.content() == before


def test_gate_catches_a_page_that_needs_a_server(browser: Browser, tmp_path: Path) -> None:
    script = "<script>fetch('data.json')</script>"
    (tmp_path / "bad.html").write_text(BODY.format(script), encoding="utf-8")
    with checks.visit(browser, f"file://{tmp_path}", "bad.html") as one:
        assert checks.requests(one) + checks.errors(one)
