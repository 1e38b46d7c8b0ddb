"""The page that a host shows where there is none works at any address below the book."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import checks
import pytest
from checks import HTML
from playwright.sync_api import Browser, Page

MISSING = ("nothing.html", "book/nothing.html", "book/a/b/c/nothing", "book//x/nothing.html")
PLACES = ("", "/a-book", "/an/other place")  # of the book on its host
LINKS = "all => [...new Set(all.map(link => link.href))]"


class Host(http.server.SimpleHTTPRequestHandler):
    """Hands out the book below a place of its own, and 404.html for whatever is not there."""

    place = ""

    def translate_path(self, path: str) -> str:
        inside = path.startswith(f"{quote(self.place)}/")
        return super().translate_path(path[len(quote(self.place)) :] if inside else "/not there")

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def send_error(self, code: int, *_: str | None) -> None:
        page = (HTML / "404.html").read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)


@pytest.fixture(scope="module", params=PLACES)
def host(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of the book on a host that serves its 404 page."""

    class Here(Host):
        place = request.param

        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(HTML))  # type: ignore[arg-type]

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Here)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{quote(request.param)}"
    server.shutdown()
    server.server_close()


def opened(page: Page, address: str) -> None:
    response = page.goto(address, wait_until="load")
    assert response is not None
    assert response.status == 404
    assert page.locator("h1").text_content() == "This page is not here"


@pytest.mark.parametrize("missing", MISSING)
def test_it_works_at_any_address(browser: Browser, host: str, missing: str) -> None:
    page = browser.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    opened(page, f"{host}/{missing}")
    looks = [url for url in asked[1:] if not url.startswith("data:")]
    assert looks[-1] == f"{host}/searchindex.js"
    assert [url for url in looks if not url.endswith("/searchindex.js")] == []
    links = page.eval_on_selector_all("a", LINKS)
    assert len(links) >= len(list((HTML / "book").glob("*.html")))
    assert [link for link in links if page.request.head(link).status != 200] == []
    assert errors == []
    page.close()


def test_its_search_searches_the_book(browser: Browser, host: str) -> None:
    page = browser.new_page()
    opened(page, f"{host}/book/deep/nothing.html")
    page.locator("input[type=search]").fill("memory")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{host}/search.html?q=memory**")
    page.locator("#search-results li a").first.wait_for()
    page.close()


def test_no_address_makes_it_ask_another_host(browser: Browser, host: str) -> None:
    """//name/ in an address is a host of that name; here it is a folder of ours."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    opened(page, f"{host}//another.host//nothing.html")
    ours = re.match(r"http://[^/]+/", f"{host}/")[0]  # type: ignore[index]
    assert [url for url in asked if not url.startswith((ours, "data:"))] == []
    assert len([url for url in asked if url.startswith(ours)]) >= 3
    page.close()


def test_without_javascript_it_says_what_its_links_need(browser: Browser, host: str) -> None:
    for works in (False, True):
        page = browser.new_page(java_script_enabled=works)
        opened(page, f"{host}/book/nothing.html")
        assert ("need JavaScript" in page.locator("main").inner_text()) != works
        page.close()


def test_it_is_a_page_on_a_disk(browser: Browser) -> None:
    with checks.visit(browser, "file://" + quote(str(HTML)), "404.html") as one:
        assert not checks.faults(one, (checks.requests, checks.errors))
        links = one.page.eval_on_selector_all("a", LINKS)
        assert len(links) >= len(list((HTML / "book").glob("*.html")))
        files = [Path(link.removeprefix("file://")) for link in links]
        assert [path for path in files if not path.is_file()] == []


def test_it_is_no_page_of_the_contents() -> None:
    """Nothing leads there, and no search finds it."""
    pages = [path for path in HTML.rglob("*.html") if path.name != "404.html"]
    pages.append(HTML / "searchindex.js")
    assert [path for path in pages if "404.html" in path.read_text(encoding="utf-8")] == []
