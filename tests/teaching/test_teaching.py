"""memlib.teaching: figures, animations, quizzes, files and the exercise machinery."""

import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

mpl = pytest.importorskip("matplotlib")
pytest.importorskip("IPython")
mpl.use("agg")

from memlib import teaching  # noqa: E402
from memlib.teaching import exercises, figures, files, player  # noqa: E402
from memlib.teaching.exercises import Verdict, check, compare, exercise  # noqa: E402
from memlib.teaching.quiz import load, quiz_html, quiz_text, rich, validate  # noqa: E402

ALT = "One slot takes all the weight as the strength grows."
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean():
    with mpl.rc_context():
        teaching.style()
        yield
    import matplotlib.pyplot as plt

    plt.close("all")
    figures._shown.clear()


class Page(HTMLParser):
    """What a test wants to know of a piece of HTML."""

    VOID = frozenset({"input", "meta", "br"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def ids(self):
        return [attrs["id"] for _, attrs in self.tags if "id" in attrs]

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def rich_figure():
    """A figure with all that carries ids: clip paths, markers, hatches, log ticks, an image."""
    fig, axes = teaching.figure(ncols=3)
    axes[0].plot([1, 2, 3], [1, 3, 2], "o-", label="modern")
    axes[0].plot([1, 2, 3], [2, 2, 3], label="classical")
    axes[0].legend()
    axes[1].loglog([1, 10, 100], [1, 20, 300])
    axes[1].fill_between([1, 100], 1, 10, color=teaching.ACCENT, alpha=0.2, hatch="//")
    axes[2].imshow([[0, 1], [1, 0]])
    return fig


def frame(t, slots=16, width=8):
    memory = np.random.default_rng(0).normal(size=(slots, width))
    memory[t + 1 :] = 0
    weights = np.eye(slots)[t]
    return teaching.draw_memory(memory, read=weights, write=weights, vmax=2.5, title=f"t = {t}")


def player_html(frames=6, **options):
    return player.player_html(frame, frames, ALT, "kv-write", **options)


QUIZ = [
    {
        "id": "what-is-read",
        "question": "What does `read` return for $w < 1$?",
        "type": "multiple_choice",
        "answers": [
            {"answer": "A sum & more", "correct": True, "feedback": "It is weighted."},
            {"answer": "A slot", "correct": False, "feedback": "Only if $w$ is one-hot."},
        ],
        "chapter": {"text": "Key-value memory", "href": "key_value.html"},
    },
    {
        "id": "which",
        "question": "Which are memories?",
        "type": "many_choice",
        "answers": [
            {"answer": "A cache", "correct": True, "feedback": "Keys and values."},
            {"answer": "Softmax", "correct": False, "feedback": "A function."},
            {"answer": "An NTM's", "correct": True, "feedback": "Slots."},
        ],
    },
    {
        "id": "how-many",
        "question": "How many?",
        "type": "numeric",
        "answers": [
            {"type": "value", "value": 0.5, "correct": True, "feedback": "Half."},
            {"type": "range", "range": [0.9, 1.1], "correct": False, "feedback": "Twice that."},
            {"type": "default", "correct": False, "feedback": "Count again."},
        ],
    },
]


def pieces():
    """One of each output, as HTML."""
    return {
        "figure": figures.figure_html(rich_figure(), ALT, "kv-rich"),
        "player": player_html(),
        "quiz": quiz_html(QUIZ, "key_value"),
    }


@pytest.fixture(scope="module")
def made():
    with mpl.rc_context():
        teaching.style()
        return pieces()


# ---- What holds for every output


def test_memlib_does_not_import_teaching():
    names = {"matplotlib", "IPython", "memlib.teaching"}
    code = f"import sys, memlib; found = {names} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_teaching_itself_imports_matplotlib_only_when_it_draws():
    code = "import sys; import memlib.teaching; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_outputs_are_the_same_twice(made):
    assert pieces() == made


@pytest.mark.parametrize("piece", ["figure", "player", "quiz"])
class TestOutputs:
    def test_ids_are_unique_and_every_reference_is_met(self, made, piece):
        html = made[piece]
        ids = Page(html).ids()
        assert len(ids) == len(set(ids))
        assert all(i.startswith(("kv-", "quiz-key-value")) for i in ids)
        used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', html)
        assert {a or b for a, b in used} <= set(ids)

    def test_tags_are_balanced(self, made, piece):
        assert Page(made[piece]).open == []

    def test_nothing_comes_from_outside(self, made, piece):
        html = made[piece].replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert "http" not in html
        assert not re.search(r"<script[^>]*src|@import|url\((?!#)|//[a-z]", html)

    def test_no_trace_of_the_run(self, made, piece):
        html = made[piece]
        assert not re.search(r"20\d\d-\d\d|matplotlib|metadata|<style[^>]*>\s*\*", html)

    def test_colors_are_the_pages(self, made, piece):
        html = made[piece]
        assert "var(--ml-accent," in html
        for sentinel in (teaching.INK, teaching.GROUND):
            assert sentinel not in html
        bare = re.sub(r"var\(--[a-z-]+,#[0-9a-f]{6}\)|--ml-[a-z]+:#[0-9a-f]{6}", "", html)
        assert not re.search(r"(fill|stroke|color|border)[^;\"]*#[0-9a-f]{6}", bare)

    def test_scripts_are_small(self, made, piece):
        for script in re.findall(r"<script>(.*?)</script>", made[piece], re.S):
            assert len(script) < (7000 if piece == "quiz" else 2500)
            assert "console" not in script


def test_two_figures_share_no_id():
    pages = [Page(figures.figure_html(rich_figure(), ALT, name)) for name in ("kv-a", "kv-b")]
    assert len(pages[0].ids()) > 3
    assert not set(pages[0].ids()) & set(pages[1].ids())


# ---- Figures


def test_figure_says_what_it_shows_and_fits_its_column():
    page = Page(figures.figure_html(rich_figure(), 'A "quoted" <finding> that is escaped.', "kv-a"))
    (picture,) = page.all("svg")
    assert picture["role"] == "img"
    assert picture["aria-label"] == 'A "quoted" <finding> that is escaped.'
    assert picture["viewbox"] == "0 0 460.8 230.4"
    assert picture["style"] == "max-width:614px"
    assert len(page.all("title")) == 1


def test_text_is_text_in_the_pages_font():
    html = figures.figure_html(rich_figure(), ALT, "kv-a")
    assert ">classical</text>" in html
    assert "font-family" not in html


def test_path_steps_give_back_the_points():
    from memlib.teaching.svg import _path

    data = (
        "M 10.004 20 \nL 10.004 30.456 \nL 5 30.456 \nQ 1 2 3 4 \nz\nM 1 1 \nC 1 2 3 4 5 6 \nL 7 7"
    )
    assert _path(data, 0.01) == "m10 20v10.46h-5q-4-28.46-2-26.46zm-9-19c0 1 2 3 4 5l2 1"


@pytest.mark.parametrize("alt", ["", "   ", "A figure.", None])
def test_alt_must_say_something(alt):
    fig, _ = teaching.figure()
    with pytest.raises(ValueError, match="alt must state the finding"):
        teaching.show(fig, alt=alt, name="kv-a")


@pytest.mark.parametrize("name", ["", "KV", "kv digits", "1kv", "kv_digits", "kv-", None])
def test_name_must_be_an_id(name):
    fig, _ = teaching.figure()
    with pytest.raises(ValueError, match="name must be words"):
        teaching.show(fig, alt=ALT, name=name)


def test_a_cell_may_run_again_but_no_other_may_take_its_name(monkeypatch):
    def run(cell, number):
        monkeypatch.setattr(figures, "this_cell", lambda: (cell, number))
        figures.check_label(ALT, "kv-a")

    run("cell 1", 1)
    run("cell 1", 2)
    with pytest.raises(ValueError, match="'kv-a' is already used"):
        run("cell 2", 3)
    run("cell 1", 4)
    with pytest.raises(ValueError, match="already used"):
        run("cell 1", 4)


def test_names_in_a_real_session():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        shell.run_cell("from memlib.teaching import figures")
        cell = f"figures.check_label({ALT!r}, 'kv-session')"
        assert shell.run_cell(cell, store_history=True).success
        assert shell.run_cell(cell, store_history=True).success
        other = shell.run_cell(cell + " # another cell", store_history=True)
        assert isinstance(other.error_in_exec, ValueError)
    finally:
        InteractiveShell.clear_instance()


def test_show_displays_html_and_the_alt_text_and_closes(monkeypatch):
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    fig, _ = teaching.figure()
    teaching.show(fig, alt=ALT, name="kv-a")
    assert shown[0]["text/plain"] == ALT
    assert shown[0]["text/html"].startswith("<style>")
    assert not plt.fignum_exists(fig.number)


def test_style_makes_lines_differ_without_color():
    with mpl.rc_context():
        teaching.style()
        cycle = list(mpl.rcParams["axes.prop_cycle"])
        assert len({entry["linestyle"] for entry in cycle}) == len(cycle)
        assert mpl.rcParams["svg.hashsalt"] == "memlib"


def test_heat_draws_magnitude_as_opacity_and_sign_as_color_and_frame():
    fig, ax = teaching.figure()
    teaching.heat(ax, torch.tensor([[0.0, 0.5], [-1.0, 1.0]]))
    html = figures.figure_html(fig, ALT, "kv-a")
    cells = re.findall(r'<path d="m[^"]*z"[^>]*style="([^"]*)"[^>]*crispEdges', html)
    half, *full = [cell for cell in cells if "fill:var(--ml-accent" in cell]
    assert "opacity:0.5" in half
    assert len(full) == 1
    assert "opacity" not in full[0]
    assert any("fill:var(--ml-second" in cell for cell in cells)
    assert any("stroke:var(--ml-second" in cell and "fill:none" in cell for cell in cells)


def test_heat_leaves_nan_blank_and_merges_equal_neighbors():
    def cells(matrix):
        _, ax = teaching.figure()
        teaching.heat(ax, matrix, vmax=1)
        return sum(patch.get_path().codes.tolist().count(1) for patch in ax.patches)

    assert cells(np.ones((1, 50))) == 1
    assert cells(np.zeros((50, 50))) == 0
    stripes = 2
    assert cells([[1, 1], [1, np.nan]]) == stripes + 3


@pytest.mark.parametrize(
    ("matrix", "options", "message"),
    [
        ([1, 2], {}, r"matrix must have shape \(rows, columns\); got \(2,\)"),
        (np.zeros((0, 3)), {}, r"matrix must have shape"),
        ([[-1.0]], {"signed": False}, "must not be negative"),
        ([[1.0]], {"vmax": -1}, "vmax must be positive; got -1"),
        ([[1.0]], {"rows": ["a", "b"]}, "rows must hold 1 labels; got 2"),
    ],
)
def test_heat_names_what_is_wrong(matrix, options, message):
    _, ax = teaching.figure()
    with pytest.raises(ValueError, match=message):
        teaching.heat(ax, matrix, **options)


def test_draw_memory_takes_tensors_and_up_to_128_slots():
    fig = teaching.draw_memory(torch.rand(128, 4), read=torch.full((128,), 1 / 128))
    titles = [ax.get_title() or ax.get_title("left") for ax in fig.axes]
    assert titles == ["memory", "read"]
    assert len(figures.figure_html(fig, ALT, "kv-a")) < 60_000


def test_draw_memory_names_what_does_not_fit():
    with pytest.raises(ValueError, match=r"read must have shape \(N,\) = \(3,\); got \(4,\)"):
        teaching.draw_memory(np.zeros((3, 2)), read=np.zeros(4))
    with pytest.raises(ValueError, match=r"memory must have shape \(N, M\); got \(3,\)"):
        teaching.draw_memory(np.zeros(3))


# ---- Animations


def test_frames_are_small_and_share_what_repeats():
    html = player_html(12)
    assert len(html) < 12 * 10_000
    assert html.count(">memory</text>") <= 1
    assert html.count('href="#kv-write-s0"') == 12


def test_one_frame_shows_and_it_is_the_static_one():
    divs = [d for d in Page(player_html(static=2)).all("div") if "ml-frame" in d["class"]]
    assert [i for i, d in enumerate(divs) if "hidden" not in d] == [2]
    assert [i for i, d in enumerate(divs) if "ml-static" in d["class"]] == [2]


def test_controls_are_native_labelled_and_hidden_without_script():
    page = Page(player_html(captions=[f"Slot {t} is written." for t in range(6)]))
    assert [b["aria-label"] for b in page.all("button")] == ["Step back", "Play", "Step forward"]
    (slider,) = page.all("input")
    assert slider["type"] == "range"
    assert slider["aria-label"]
    assert "hidden" in next(d for d in page.all("div") if d["class"] == "ml-bar")
    assert any(span.get("aria-live") == "polite" for span in page.all("span"))
    labels = [s["aria-label"] for s in page.all("svg") if s.get("role") == "img"]
    assert labels[3] == "Slot 3 is written."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 1}, "frames must be at least 2; got 1"),
        ({"captions": ["one"]}, r"captions must hold one a frame \(6\); got 1"),
        ({"static": 6}, "static must be a frame, -6 to 5; got 6"),
    ],
)
def test_player_names_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        player_html(**options)


def test_frames_must_have_one_size():
    with pytest.raises(ValueError, match="all frames must have one size"):
        player.player_html(lambda t: teaching.figure(3 + t, 2)[0], 2, ALT, "kv-a")


# ---- Quizzes


def test_quiz_shows_its_file_in_one_call(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book" / "quizzes").mkdir(parents=True)
    (tmp_path / "book" / "quizzes" / "key_value.json").write_text(json.dumps(QUIZ))
    before = random.getstate()
    teaching.quiz("key_value")
    assert random.getstate() == before
    assert len(shown) == 1
    assert "1. What does `read` return" in shown[0]["text/plain"]
    assert shown[0]["text/html"] == quiz_html(QUIZ, "key_value")


def test_every_input_has_a_label_and_every_question_a_legend():
    html = quiz_html(QUIZ, "key_value")
    page = Page(html)
    assert len(page.all("fieldset")) == len(page.all("legend")) == len(QUIZ)
    assert [i["type"] for i in page.all("input")] == ["radio"] * 2 + ["checkbox"] * 3 + ["text"]
    assert len(page.all("label")) == len(page.all("input"))
    assert len([p for p in page.all("p") if p.get("role") == "status"]) == len(QUIZ) + 1


def test_text_of_a_quiz_is_escaped_and_math_and_code_are_set():
    html = rich("`a<b` & $x < y$ costs < 5")
    assert html == (
        '<code>a&lt;b</code> &amp; <span class="math notranslate nohighlight">'
        "\\(x &lt; y\\)</span> costs &lt; 5"
    )


def test_numeric_bounds_stand_in_the_page():
    html = quiz_html(QUIZ, "key_value")
    assert 'data-low="0.9" data-high="1.1"' in html
    assert html.count("data-low") == 2


def test_text_fallback_lists_questions_and_options():
    assert quiz_text(QUIZ).splitlines()[:2] == [
        "1. What does `read` return for $w < 1$?",
        "   - A sum & more",
    ]


def broken(path, value):
    """Return the quiz with the field at `path` replaced, or removed where value is None."""
    items = json.loads(json.dumps(QUIZ))
    *way, last = path
    place = items
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return items


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({}, "quiz must hold a list of items; got dict"),
        ([], "quiz must hold a list"),
        (["x"], "quiz, item 1 must be an object; got str"),
        (broken([0, "id"], None), "item 1: id is missing"),
        (broken([0, "id"], "A b"), "id must be unique"),
        (broken([1, "id"], "what-is-read"), "id must be unique"),
        (broken([0, "question"], " "), "question must be a non-empty string; got ' '"),
        (broken([0, "type"], "string"), "type must be one of"),
        (broken([0, "hint"], "x"), "unknown field 'hint'"),
        (broken([0, "answers", 1, "feedback"], None), "answer 2: feedback is missing"),
        (broken([0, "answers", 1, "correct"], "no"), "correct must be a non-empty true or false"),
        (broken([0, "answers", 1, "correct"], True), "exactly one answer must be correct; got 2"),
        (broken([0, "answers", 0, "correct"], False), "exactly one answer must be correct; got 0"),
        (broken([1, "answers"], QUIZ[1]["answers"][1:2]), "at least one answer must be correct"),
        (broken([1, "answers"], QUIZ[1]["answers"][:1]), "answers must hold at least 2; got 1"),
        (broken([0, "chapter", "href"], "https://a.org"), "href must be relative"),
        (broken([2, "answers"], QUIZ[2]["answers"][:2]), "the last answer must be the default"),
        (broken([2, "answers", 0, "type"], "word"), "type must be one of"),
        (broken([2, "answers", 1, "range"], [2, 1]), r"range must be \[low, high\]; got \[2, 1\]"),
        (broken([2, "answers", 1, "range"], [2]), r"range must be \[low, high\]"),
        (
            [{**QUIZ[0], "id": f"q{i}"} for i in range(4)],
            "the right option stands in the same place in every item",
        ),
    ],
)
def test_schema_errors_name_the_item(items, message):
    with pytest.raises(ValueError, match=message):
        validate(items)


def test_broken_json_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[{]")
    with pytest.raises(ValueError, match=r"x\.json must be JSON"):
        load(path)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "book" / "quizzes").glob("*.json")), ids=lambda path: path.stem
)
def test_the_books_quizzes_follow_the_schema(path):
    items = load(path)
    assert len(items) >= (2 if path.stem == "intro" else 5)  # the introduction is no chapter
    page = Page(quiz_html(items, path.stem))
    assert len(page.ids()) == len(set(page.ids()))


# ---- Files


def test_find_walks_up_and_into_book(tmp_path, monkeypatch):
    monkeypatch.delenv("MEMLIB_BOOK", raising=False)
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "book" / "quizzes").mkdir(parents=True)
    (tmp_path / "book" / "quizzes" / "x.json").touch()
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(deep)
    assert teaching.find("quizzes/x.json") == tmp_path / "book" / "quizzes" / "x.json"
    assert teaching.find("results") == tmp_path / "results"


def test_find_honors_the_variable(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "only-here.json").touch()
    monkeypatch.setenv("MEMLIB_BOOK", str(tmp_path))
    assert teaching.find("results/only-here.json").parent == tmp_path / "results"


def test_find_knows_the_repository_of_an_editable_install(tmp_path, monkeypatch):
    monkeypatch.delenv("MEMLIB_BOOK", raising=False)
    monkeypatch.chdir(tmp_path)
    assert teaching.find("quizzes/ntm.json") == files.CHECKOUT / "book" / "quizzes" / "ntm.json"


def test_find_comes_to_the_files_in_the_package_last(tmp_path, monkeypatch):
    (tmp_path / "data" / "results").mkdir(parents=True)
    for name in ("own.json", "ntm_copy.json"):
        (tmp_path / "data" / "results" / name).touch()
    monkeypatch.setattr(files, "OWN", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert teaching.find("results/own.json").parent == tmp_path / "data" / "results"
    assert teaching.find("results/ntm_copy.json").parent == files.CHECKOUT / "results"


def test_find_takes_site_packages_for_no_repository(tmp_path, monkeypatch):
    (tmp_path / "site" / "results").mkdir(parents=True)
    (tmp_path / "site" / "results" / "strange.json").touch()
    monkeypatch.setattr(files, "CHECKOUT", tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        teaching.find("results/strange.json")


def test_ready_names_what_is_missing_with_its_range(monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda module: None if module == "faiss" else module)
    with pytest.raises(ImportError, match=r"run `pip install 'faiss-cpu>=[\d.]+'`$"):
        teaching.ready()


def test_ready_where_memlib_is_not_installed_but_run_from_its_folder(monkeypatch):
    def none(name):
        raise files.PackageNotFoundError(name)

    monkeypatch.setattr(files, "requires", none)
    monkeypatch.setattr(files, "find_spec", lambda module: None)
    teaching.ready()


def test_find_names_what_and_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no 'results/none\.json'") as error:
        teaching.find("results/none.json")
    assert str(tmp_path) in str(error.value)
    with pytest.raises(ValueError, match="name must be a relative path"):
        teaching.find("")


# ---- Exercises


def mean(x):
    return x.mean(-1)


CASES = [(torch.arange(6.0).reshape(2, 3),), (torch.ones(4, 2) * 3,)]
MISTAKES = {"you summed": lambda x: x.sum(-1), "you averaged the rows": lambda x: x.mean(0)}


def judge(answer):
    return check(answer, mean, CASES, mistakes=MISTAKES)


def spoil(x):
    x += 1
    return x.mean(-1) - 1


def todo(x):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x.sum(-1), "you summed"),
        (lambda x: x.numpy().sum(-1), "you summed"),
        (lambda x: x.mean(0), "you averaged the rows"),
        (
            lambda x: x.mean(-1, keepdim=True),
            r"x of shape (2, 3), the shape must be (2,); got (2, 1)",
        ),
        (lambda x: x.mean(-1) + torch.tensor(1.0), "the value at [0] must be 1; got 2"),
        (lambda x: x.mean(-1) > 0, "the dtype must be float64; got bool"),
        (lambda x: x.mean(-1) * torch.nan, "the result holds NaN"),
        (lambda x: x[99], "with x of shape (2, 3), your function raised IndexError"),
        (lambda: 1, "your function raised TypeError"),
        (lambda x: None, "not written yet: with x of shape (2, 3), it returned None"),
        (lambda x: ..., "not written yet: "),
        (todo, "not written yet: "),
        (None, "not written yet: "),
        (..., "not written yet: "),
        (spoil, "your function changed its input x"),
        (5, "a function was expected; got 5"),
        (lambda x: "text", "was expected; got 'text'"),
        (lambda x: (x, x), "the shape must be"),
        (lambda x: object(), "was expected; got a object"),
    ],
)
def test_check_says_what_is_wrong(answer, message):
    verdict = judge(answer)
    assert not verdict
    assert message in verdict.message


def test_check_passes_what_is_right():
    assert judge(mean)
    assert judge(lambda x: x.numpy().mean(-1))
    assert judge(lambda x: x.double().mean(-1) + 1e-7)


def test_a_mistake_must_agree_on_every_case():
    verdict = judge(lambda x: x.sum(-1) if x.shape == (2, 3) else x.mean(-1) + 1)
    assert "you summed" not in verdict.message


def test_compare_judges_values():
    assert compare(0.5, 0.5)
    assert compare(torch.tensor([1.0, 2.0]), [1.0, 2.0])
    assert compare((1, torch.ones(2)), (1, torch.ones(2)))
    assert compare("softmax", "softmax")
    assert compare(True, True)
    assert compare(2.0, 0.5, mistakes={"upside down": 2.0}).message == "upside down"
    assert compare(3, 0.5).message == "3 is not right"
    assert "not written yet" in compare(..., 1).message
    assert compare("a", "b").message == "'a' is not right"
    assert compare((1,), (1, 2)).message == "2 results were expected; got a tuple of 1"
    assert "result 2 of 2" in compare((1, 3), (1, 2)).message
    assert not compare(1, True)


def test_exercise_prints_once_and_never_raises(capsys):
    @exercise
    def double(answer):
        return compare(answer(2), 4)

    assert double(lambda x: 2 * x)
    assert capsys.readouterr().out == "✓ right.\n"
    assert "could not be checked: ZeroDivisionError" in double(lambda x: x / 0).message
    assert double(todo).message.startswith("not written yet")
    assert double(7).message.startswith("your answer could not be checked: TypeError")


def test_verdict_reads_as_its_sentence():
    assert repr(Verdict(True, "right.")) == str(Verdict(True, "right.")) == "✓ right."
    assert repr(Verdict(False, "wrong.")) == "✗ wrong."


def test_unknown_chapter_is_named():
    with pytest.raises(AttributeError, match="no_such_chapter"):
        exercises.no_such_chapter  # noqa: B018
