"""Where the bAbI files are found, and a download that fails in every way it can."""

import gzip
import hashlib
import io
import re
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from memlib.tasks import BabiError, babi_file, babi_files, find_babi, read_babi

REAL = Path(__file__).parents[3] / "shared/data/babi"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the bAbI files are not in {REAL}")
TOP = "tasks_1-20_v1-2"
NAME = f"{TOP}.tar.gz"
STORY = b"1 Nora ran to the attic.\n2 Where is Nora?\tattic\t1\n"
FILES = {
    f"qa{task}_some-{'x' * task}_{split}.txt": STORY.replace(b"Nora", b"Nora%d" % task)
    for task in range(1, 21)
    for split in ("train", "test")
}


def add(tar, name, data=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def packed(sets, *more):
    """An archive of sets, each files by name, and of more members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for subset, files in sets.items():
            add(tar, f"{TOP}/{subset}", type=tarfile.DIRTYPE)
            for name, data in {**files, "out.txt": b"x"}.items():  # the real one has an out.txt too
                add(tar, f"{TOP}/{subset}/{name}", data)
        for name, fields in more:
            add(tar, name, **fields)
    return buffer.getvalue()


SUMS = babi_files._sums  # of the real files
GOOD = packed({"en": FILES, "hn": FILES})


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        start, body = 0, server.body
        if server.status != 200:
            self.send_error(server.status)
            return
        if server.ranges and (asked := self.headers.get("Range")):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if server.sized:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server on loopback in the place of the real one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.body, server.status = [], GOOD, 200
    server.ranges, server.sized, server.cut = True, True, None
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/{NAME}"
    monkeypatch.setattr(babi_files, "URL", url)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """The user's cache, empty, with nothing set; files of en are known by those above."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("MEMLIB_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    monkeypatch.setattr(babi_files, "_sums", lambda: sums)
    return tmp_path / "xdg" / "memlib" / "babi"


def place(folder):
    folder.mkdir(parents=True)
    (folder / "qa1_some_train.txt").write_bytes(STORY)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- where the files are looked for


def test_a_path_comes_before_memlib_data_before_the_cache(monkeypatch, tmp_path, cache):
    with pytest.raises(FileNotFoundError):
        find_babi()
    third, second, first = (place(p / "en") for p in (cache, tmp_path / "b", tmp_path / "a"))
    assert find_babi() == third
    monkeypatch.setenv("MEMLIB_DATA", str(second.parent))
    assert find_babi() == second
    assert find_babi(first.parent) == find_babi(str(first)) == first
    monkeypatch.setenv("MEMLIB_DATA", str(tmp_path / "none"))
    assert find_babi() == third
    monkeypatch.setenv("MEMLIB_DATA", "")
    assert find_babi() == third


@pytest.mark.parametrize("inside", ["", "en", f"{TOP}/en"])
def test_a_folder_its_parent_and_the_unpacked_archive(monkeypatch, tmp_path, inside):
    folder = place(tmp_path / "data" / inside)
    assert find_babi(tmp_path / "data") == folder
    monkeypatch.setenv("MEMLIB_DATA", str(tmp_path / "data"))
    assert find_babi(subset="en") == folder


def test_another_set_is_taken_only_where_that_is_what_was_asked(tmp_path):
    large, small = place(tmp_path / "en-10k"), place(tmp_path / "en")
    assert find_babi(tmp_path) == small
    assert find_babi(tmp_path, subset="en-10k") == find_babi(large) == large
    assert find_babi(large, subset="en-10k") == large
    with pytest.raises(FileNotFoundError, match="of the set en-10k"):
        find_babi(small, subset="en-10k")
    with pytest.raises(FileNotFoundError, match="of the set hn"):
        find_babi(tmp_path, subset="hn")


def test_home_stands_in_for_the_cache_and_for_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    folder = place(tmp_path / ".cache/memlib/babi/en")
    assert find_babi() == folder
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert find_babi() == find_babi("~/.cache/memlib/babi") == folder
    monkeypatch.setenv("MEMLIB_DATA", "~/mine")
    assert find_babi(subset="en") == folder
    mine = place(tmp_path / "mine")
    assert find_babi() == mine


@pytest.fixture
def homeless(monkeypatch):
    """No home: HOME is not set, and the user has no entry among the users."""
    pwd = pytest.importorskip("pwd")

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError):
        Path.home()


def test_without_a_home_all_other_places_are_looked_in(homeless, monkeypatch, tmp_path):
    folder = place(tmp_path / "data/en")
    assert find_babi(folder) == find_babi(tmp_path / "data") == folder
    for told in (folder, tmp_path / "data"):
        monkeypatch.setenv("MEMLIB_DATA", str(told))
        assert find_babi() == folder
    monkeypatch.delenv("MEMLIB_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached = place(tmp_path / "memlib/babi/en")
    assert find_babi() == cached


def test_without_a_home_nothing_is_found_in_it(homeless, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for told in ("", "~/mine", "~nobody/mine"):
        monkeypatch.setenv("MEMLIB_DATA", told)
        looked = f"MEMLIB_DATA, {told or 'not set'}; the cache, not set"
        with pytest.raises(FileNotFoundError, match=looked):
            find_babi()
        with pytest.raises(FileNotFoundError, match="set XDG_CACHE_HOME to an absolute path"):
            find_babi(download=True)
    with pytest.raises(FileNotFoundError, match="looked in: path, ~/mine"):
        find_babi("~/mine")
    assert names(tmp_path) == []


def test_nothing_found_says_where_and_how_to_get_it(monkeypatch, tmp_path, cache):
    with pytest.raises(FileNotFoundError) as caught:
        find_babi()
    expected = f"of the set en; looked in: MEMLIB_DATA, not set; the cache, {cache}. find_babi(down"
    assert expected in str(caught.value)
    assert babi_files.URL in str(caught.value)
    monkeypatch.setenv("MEMLIB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        find_babi(subset="hn")
    assert f"of the set hn; looked in: MEMLIB_DATA, {tmp_path}; the" in str(caught.value)
    assert "find_babi(subset='hn', download=True)" in str(caught.value)


def test_a_path_that_is_given_is_the_only_place(server, tmp_path, cache):
    place(cache / "en")
    for download in (False, True):
        with pytest.raises(FileNotFoundError, match=f"looked in: path, {tmp_path}/none"):
            find_babi(tmp_path / "none", download=download)
    assert server.asked == []


def test_the_network_is_used_only_when_asked_and_needed(server, monkeypatch, tmp_path, cache):
    with pytest.raises(FileNotFoundError):
        find_babi()
    with pytest.raises(FileNotFoundError):
        find_babi(subset="hn")
    assert not cache.exists()
    assert server.asked == []
    place(tmp_path / "en")
    monkeypatch.setenv("MEMLIB_DATA", str(tmp_path))
    find_babi(download=True)
    assert server.asked == []


def test_the_file_of_a_task(tmp_path):
    for name in ("qa1_a_train.txt", "qa10_b_train.txt", "qa1_valid.txt", "qa1_c_retrain.txt"):
        (tmp_path / name).touch()
    (tmp_path / "._qa1_a_train.txt").touch()
    assert babi_file(tmp_path, 1, "train").name == "qa1_a_train.txt"
    assert babi_file(str(tmp_path), 10, "train").name == "qa10_b_train.txt"
    assert babi_file(tmp_path, 1, "valid").name == "qa1_valid.txt"
    with pytest.raises(FileNotFoundError, match=r"must hold qa1_\*_test.txt; got none"):
        babi_file(tmp_path, 1, "test")
    with pytest.raises(FileNotFoundError, match="got none"):
        babi_file(tmp_path / "none", 1, "test")
    (tmp_path / "qa1_z_train.txt").touch()
    with pytest.raises(BabiError, match=r"must hold one .*; got qa1_a_train.txt, qa1_z_train.txt"):
        babi_file(tmp_path, 1, "train")


REFUSALS = [
    (lambda: find_babi(subset="de"), ValueError, "subset must be one of en, en-10k, en-valid, "),
    (lambda: babi_file(".", 0, "train"), ValueError, "task must be in [1, 20]; got 0"),
    (lambda: babi_file(".", "1", "train"), TypeError, "task must be an integer; got str"),
    (lambda: babi_file(".", 1, "dev"), ValueError, "split must be one of train, valid, test; got"),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS, ids=[m for _, _, m in REFUSALS])
def test_bad_input_is_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()


# --- a download


def test_a_download_fills_the_cache_once(server, cache):
    folder = find_babi(download=True)
    assert folder == cache / "en"
    assert contents(folder) == FILES
    assert find_babi(download=True) == find_babi() == folder
    assert find_babi(subset="hn", download=True) == cache / "hn"  # from the archive that is there
    assert contents(cache / "hn") == FILES
    assert names(cache) == ["en", "hn", NAME]
    assert server.asked == [None]


def test_what_was_interrupted_goes_on_where_it_stopped(server, cache):
    for cut in (1000, 1500):
        server.cut = cut
        with pytest.raises(ConnectionError, match=f"broke off after {cut} of {len(GOOD)} bytes"):
            find_babi(download=True)
        assert names(cache) == [NAME + ".partial"]
    server.cut = None
    assert contents(find_babi(download=True)) == FILES
    assert server.asked == [None, "bytes=1000-", "bytes=1500-"]
    assert names(cache) == ["en", NAME]


def test_an_exception_on_the_way_keeps_what_has_come(server, monkeypatch, cache):
    def stop(pieces, done, total):
        yield next(iter(pieces))
        raise KeyboardInterrupt

    monkeypatch.setattr(babi_files, "_shown", stop)
    server.body = GOOD + b"\0" * 100_000  # more than one piece; gzip allows zeros at the end
    with pytest.raises(KeyboardInterrupt):
        find_babi(download=True)
    done = (cache / (NAME + ".partial")).stat().st_size
    assert 0 < done < len(server.body)


def test_a_server_that_cannot_go_on_begins_anew(server, cache):
    server.ranges, server.cut = False, 1000
    with pytest.raises(ConnectionError):
        find_babi(download=True)
    server.cut = None
    assert contents(find_babi(download=True)) == FILES
    assert server.asked == [None, "bytes=1000-"]


def test_a_download_that_was_whole_is_not_repeated(server, cache):
    cache.mkdir(parents=True)
    (cache / (NAME + ".partial")).write_bytes(GOOD)
    assert contents(find_babi(download=True)) == FILES
    assert server.asked == [f"bytes={len(GOOD)}-"]


def test_what_was_begun_with_another_file_is_removed(server, cache):
    cache.mkdir(parents=True)
    (cache / (NAME + ".partial")).write_bytes(b"x" * 1000)
    with pytest.raises(BabiError, match=f"^{re.escape(NAME)} was corrupt and is removed: "):
        find_babi(download=True)
    assert names(cache) == []
    assert contents(find_babi(download=True)) == FILES


def test_a_server_that_does_not_tell_the_size(server, cache):
    server.sized, server.cut = False, 1000
    with pytest.raises(BabiError, match="ended before the end-of-stream marker"):
        find_babi(download=True)
    assert names(cache) == []
    server.cut = None
    assert contents(find_babi(download=True)) == FILES


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_refuses(server, cache, status):
    server.status = status
    with pytest.raises(ConnectionError, match=rf"{NAME} cannot be downloaded: HTTP Error {status}"):
        find_babi(download=True)
    assert names(cache) == []


def test_no_server(server, monkeypatch):
    monkeypatch.setattr(babi_files, "URL", "http://127.0.0.1:9/" + NAME)
    with pytest.raises(ConnectionError, match=r"cannot be downloaded: .*refused"):
        find_babi(download=True)


def test_a_download_without_tqdm(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert contents(find_babi(download=True)) == FILES


def test_the_bar_knows_where_it_begins(server, monkeypatch):
    pytest.importorskip("tqdm")
    bars = []

    class Bar:
        def __init__(self, **about):
            self.about, self.n = about, about["initial"]
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self, n):
            self.n += n

    monkeypatch.setattr("tqdm.tqdm", Bar)
    server.cut = 1000
    with pytest.raises(ConnectionError):
        find_babi(download=True)
    server.cut = None
    find_babi(download=True)
    assert [bar.about["initial"] for bar in bars] == [0, 1000]
    assert [bar.n for bar in bars] == [1000, len(GOOD)]
    assert all(bar.about["total"] == len(GOOD) for bar in bars)
    assert all(bar.about["disable"] is None for bar in bars)  # nothing is drawn but on a terminal


def without(name):
    return {n: data for n, data in FILES.items() if n != name}


def damaged(at):
    body = bytearray(GOOD)
    body[at] ^= 0xFF
    return bytes(body)


FIRST = "qa1_some-x_test.txt"
LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
OUT = b"1 Out.\n2 Out?\tout\t1\n"
BROKEN = {
    "not gzip": (b"<html>not here</html>", "Not a gzipped file"),
    "empty": (b"", ""),
    "cut": (GOOD[:-20], "end-of-stream"),
    "gzip of something else": (gzip.compress(b"x" * 2000), "must hold|could not be opened|invalid"),
    "a byte in the middle": (damaged(len(GOOD) // 2), ""),
    "a byte of the checksum": (damaged(-6), "CRC check failed"),
    "rubbish behind": (GOOD + b"rubbish", "Not a gzipped file"),
    "no such set": (packed({"hn": FILES}), r"must hold qa1_\*_train.txt; got none"),
    "a file is missing": (packed({"en": without(FIRST)}), r"must hold qa1_\*_test.txt; got none"),
    "another text": (
        packed({"en": {**FILES, FIRST: OUT}}),
        f"{FIRST} must have its known SHA-256; got {hashlib.sha256(OUT).hexdigest()}",
    ),
    "an unknown file": (packed({"en": {**FILES, "qa21_x_test.txt": OUT}}), "qa21_x_test.txt must"),
    "two of a kind": (packed({"en": {**FILES, "qa1_x_test.txt": OUT}}), "must hold one qa1"),
    "a path above": (
        packed({"en": FILES}, (f"{TOP}/en/../../../../out/qa1_x_test.txt", {"data": OUT})),
        "a path must stay in its folder; got 'tasks_1-20_v1-2/en/../../../../out/qa1_x_test.txt'",
    ),
    "an absolute path": (
        packed({"en": FILES}, ("/tmp/en/qa1_x_test.txt", {"data": OUT})),
        "a path must stay in its folder; got '/tmp/en/qa1_x_test.txt'",
    ),
    "a link": (
        packed({"en": FILES}, (f"{TOP}/en/{FIRST}", LINK)),
        f"{TOP}/en/{FIRST} must be a plain file",
    ),
    "a folder": (
        packed({"en": FILES}, (f"{TOP}/en/{FIRST}", {"type": tarfile.DIRTYPE})),
        "must be a plain file",
    ),
}


@pytest.mark.parametrize(("body", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_archive_leaves_the_cache_as_it_was(server, tmp_path, cache, body, words):
    place(cache / "shuffled")
    (tmp_path / "out").mkdir()
    before = names(tmp_path)
    server.body = body
    message = rf"{NAME} was corrupt and is removed: .*(?:{words})"
    with pytest.raises(BabiError, match=message):
        find_babi(download=True)
    assert names(cache) == ["shuffled"]
    assert names(tmp_path) == before
    assert names(tmp_path / "out") == []
    server.body = GOOD
    assert contents(find_babi(download=True)) == FILES


def test_another_set_must_be_readable(server, cache):
    server.body = packed({"en": FILES, "hn": {**FILES, FIRST: b"1 Nora ran.\n3 Nora hid.\n"}})
    find_babi(download=True)
    with pytest.raises(BabiError, match=f"{FIRST}, line 2: must be number 2 of its story"):
        find_babi(subset="hn", download=True)
    assert names(cache) == ["en"]


def test_a_set_with_a_split_more(server, cache):
    more = {f"qa{task}_{split}.txt": STORY for task in range(1, 21)
            for split in ("train", "valid", "test")}  # fmt: skip
    server.body = packed({"en-valid": more})
    folder = find_babi(subset="en-valid", download=True)
    assert contents(folder) == more
    assert babi_file(folder, 3, "valid").name == "qa3_valid.txt"


def test_another_process_may_be_first(server, monkeypatch, cache):
    check = babi_files._check

    def late(folder):
        check(folder)
        place(cache / "en")

    monkeypatch.setattr(babi_files, "_check", late)
    assert names(find_babi(download=True)) == ["qa1_some_train.txt"]  # theirs
    assert names(cache) == ["en", NAME]


def test_a_folder_of_something_else_is_not_replaced(server, cache):
    (cache / "en").mkdir(parents=True)
    (cache / "en" / "notes.txt").touch()
    with pytest.raises(OSError, match="not empty"):
        find_babi(download=True)
    assert names(cache / "en") == ["notes.txt"]


# --- the real files


def test_the_address_is_that_of_the_archive():
    assert babi_files.URL.startswith("https://")
    assert babi_files.URL.endswith("/" + NAME)


@real
def test_the_sums_are_those_beside_the_data():
    listed = [line.split() for line in (REAL / "SHA256SUMS").read_text().splitlines()]
    known = {name[3:]: digest for digest, name in listed if name.startswith("en/")}
    assert SUMS() == known
    assert len(known) == 40


@real
def test_the_real_files_through_a_download(server, monkeypatch, cache):
    monkeypatch.setattr(babi_files, "_sums", SUMS)
    files = contents(REAL / "en")
    server.body = packed({"en": files})
    assert contents(find_babi(download=True)) == files
    (cache / "en").rename(cache / "gone")
    (cache / NAME).write_bytes(
        packed({"en": {**files, "qa1_single-supporting-fact_test.txt": OUT}})
    )
    with pytest.raises(BabiError, match="must have its known SHA-256"):
        find_babi(download=True)


@real
def test_all_twenty_tasks_are_read(record_testsuite_property):
    began = time.perf_counter()
    folder = find_babi(REAL)
    every = [
        read_babi(babi_file(folder, task, split), task=task)
        for task in range(1, 21)
        for split in ("train", "test")
    ]
    record_testsuite_property("seconds to read bAbI", time.perf_counter() - began)
    assert [len(questions) for questions in every] == [1000] * 40
