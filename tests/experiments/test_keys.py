"""The key of a record: what it sees, what it does not, and what it is the same after."""

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("experiments")  # a part of the repository, not of the package
pytest.importorskip("safetensors")
pytest.importorskip("tqdm")

from experiments import check, keys, ntm

NAMES = sorted({group.maker for group in check.groups()})

ENTRY = """
import math
import torch
from memlib import checks, read
from memlib.verbs import write as put

SIZE = 3

def run(x, *, scale=2.0):
    checks.shape(x)
    return put(read(x) * scale, torch.relu(x), width=SIZE, depth=1)
"""
LIBRARY = {
    "memlib/__init__.py": "from memlib.verbs import read\n",
    "memlib/checks.py": "def shape(x):\n    if not x.shape:\n        raise ValueError(x)\n",
    "memlib/verbs.py": """
STEP = 1

def read(x):
    return _read(x) + STEP

def _read(x):
    return x - 1

def write(x, y, width, depth):
    return x + y * width ** depth

def unused(x):
    return x
""",
}


def key(folder, entry=ENTRY, name="experiments.entry", **files):
    """The key of a small project, some of its files changed."""
    shutil.rmtree(folder, ignore_errors=True)
    package, _, stem = name.partition(".")
    for path, text in {**LIBRARY, f"{package}/{stem}.py": entry, **files.pop("files", {})}.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            place.write_text(text)
    return keys.Project(folder).key(name)


@pytest.fixture
def project(tmp_path):
    return tmp_path / "project"


def swapped(old, new, text=ENTRY):
    assert text.count(old) == 1
    return text.replace(old, new)


def verbs(old, new):
    return {"files": {"memlib/verbs.py": swapped(old, new, LIBRARY["memlib/verbs.py"])}}


# What it does not see


@pytest.mark.parametrize(
    "entry",
    [
        '"""What it does."""\n' + ENTRY,
        swapped("    checks.shape(x)\n", '    """Run."""\n    checks.shape(x)  # first\n\n'),
        swapped("SIZE = 3", "SIZE: int = 0x3"),
        swapped("(x, *, scale=2.0):", "(x: torch.Tensor, *, scale: float = 2.00) -> torch.Tensor:"),
        swapped("import math\nimport torch\n", "import torch, math\n"),
        swapped("import torch\n", "import torch as t\n").replace("torch.relu", "t.relu"),
        swapped("import torch\n", "from torch import relu\n").replace("torch.relu", "relu"),
        swapped("checks, read", "read, checks as rules").replace("checks.shape", "rules.shape"),
        swapped("from memlib import checks, read", "import memlib")
        .replace("checks.shape", "memlib.checks.shape")
        .replace("read(x)", "memlib.read(x)"),
        swapped("def run", "__all__ = ['run']\n__version__ = '2'\n\ndef run"),
        swapped("def run", "import typing\nif typing.TYPE_CHECKING:\n    A = 1\ndef run"),
        swapped("def run", "import typing\n@typing.overload\ndef run(x: int) -> int: ...\ndef run"),
        swapped("(x) * scale, torch", "(x)\n        * (scale), torch"),
        swapped("    checks.shape(x)\n", "    import os\n    checks.shape(x)\n"),
    ],
    ids=range(14),
)  # fmt: skip
def test_what_no_number_depends_on_leaves_it(entry, project):
    assert key(project, entry) == key(project)


def test_what_is_not_used_leaves_it(project):
    assert key(project, **verbs("def unused(x):\n    return x", "def unused(x):\n    return 2 * x"))
    left = key(project, **verbs("    return x\n", "    return 2 * x\n"))
    assert left == key(project)


def test_what_an_error_says_leaves_it_and_its_kind_does_not(project):
    text = LIBRARY["memlib/checks.py"]
    said = {"memlib/checks.py": swapped("ValueError(x)", "ValueError(f'no {x}')", text)}
    kind = {"memlib/checks.py": swapped("ValueError(x)", "TypeError(x)", text)}
    assert key(project, files=said) == key(project)
    assert key(project, files=kind) != key(project)


# What it sees


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SIZE = 3", "SIZE = 4"),
        ("SIZE = 3", "SIZE = 3.0"),
        ("scale=2.0", "scale=2.5"),
        ("* scale", "+ scale"),
        ("width=SIZE, depth=1", "depth=1, width=SIZE"),
        ("torch.relu", "torch.tanh"),
        ("import torch\n", "import numpy as torch\n"),
        ("def run", "@torch.no_grad()\ndef run"),
        ("    checks.shape(x)\n", ""),
        ("def run", "torch.manual_seed(0)\n\ndef run"),
        ("    checks.shape(x)\n", "    from memlib.verbs import unused as read\n"),
        ("(x, *, scale", "(x, scale"),
    ],
)
def test_what_a_number_may_depend_on_changes_it(old, new, project):
    assert key(project, swapped(old, new)) != key(project)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("STEP = 1", "STEP = 2"),
        ("return x - 1", "return x + 1"),  # two names away
        ("y * width ** depth", "y ** width * depth"),
    ],
)
def test_so_does_what_the_names_lead_to(old, new, project):
    assert key(project, **verbs(old, new)) != key(project)


def test_fields_of_a_class_count_and_their_order(project):
    one = "class A:\n    x: int = 1\n    y: int\n"
    seen = {key(project, ENTRY + text) for text in (one, one.replace("int =", "str ="))}
    seen.add(key(project, ENTRY + "class A:\n    y: int\n    x: int = 1\n"))
    assert len(seen) == 3


def test_what_stands_beside_a_definition_counts(project):
    beside = "\nimport torch\ntorch.set_default_dtype(torch.float64)\n"
    assert key(project, **verbs("STEP = 1", "STEP = 1" + beside)) != key(project)


def test_an_import_within_a_function_counts(project):
    inside = swapped("def run", "def more():\n    from memlib.verbs import unused\n"
                     "    return unused\n\ndef run")  # fmt: skip
    before = key(project, inside)
    assert before != key(project)
    assert before != key(project, inside, **verbs("    return x\n", "    return 2 * x\n"))


def test_a_local_name_is_not_the_global_one(project):
    local = "STEP = 1\n\ndef unused(_read):\n    return [write for write in _read if write]\n"
    entry = "from memlib.verbs import unused\nX = unused\n"
    text = LIBRARY["memlib/verbs.py"].replace("def unused(x):\n    return x\n", local)
    one, other = text, text.replace("x - 1", "x - 2").replace("x + y", "x - y")
    found = [key(project, entry, files={"memlib/verbs.py": v}) for v in (one, other)]
    assert found[0] == found[1]


def test_two_of_one_name_are_told_apart(project):
    """Both are in the closure before and after; only which of them is called has changed."""
    twins = {"memlib/a.py": "def f(x):\n    return x\n", "memlib/b.py": "def f(x):\n    return 1\n"}
    entry = "from memlib import a, b\nX, Y = a.f(1), b.f(2)\n"
    swap = entry.replace("a.f(1), b.f(2)", "b.f(1), a.f(2)")
    assert key(project, entry, files=twins) != key(project, swap, files=twins)


def test_a_module_handed_on_or_an_attribute_that_is_not_there_is_all_of_it(project):
    for use in ("vars(verbs)", "verbs.__doc__"):
        entry = f"from memlib import verbs\nX = {use}\n"
        changed = key(project, entry, **verbs("    return x\n", "    return 2 * x\n"))
        assert changed != key(project, entry)
    entry = "import memlib\nX = memlib.__file__\n"  # and of what it imports from others
    assert key(project, entry, **verbs("x - 1", "x - 2")) != key(project, entry)


# What it is the same after


def test_another_version_of_python(project):
    """The key is that of 3.11, 3.12 and 3.13: their trees differ in what is here."""
    rich = """
import asyncio
import re as pattern

def rich(x, /, *rest, sep=f"{'-' * 3}", **more) -> None:
    first, *others = rest
    text = f"a{first!r:>{len(others)}}" "b" f"{x=}{'é'}" f"{{}}{x:}" u"c"
    class Inner(object, metaclass=type):
        x = [y async for y in x if (z := y)]
        def method(self): return lambda a, b=x: a[1:, ..., ::2] @ b
    match x:
        case {"k": [1, *_], **other} | Inner(other) if other: del first
        case None: pass
    try:
        with open(x) as file, file: yield {**more, 1: 1_000j, b"x": -1.5e3}
    except* pattern.error as error:
        raise KeyError(text) from error
    finally:
        nonlocal_ = {a for a in x for b in a}
    return (yield from asyncio.run(x)) if x else not x < 1 <= 2
"""
    assert key(project, rich) == "932b62e75ec96b6c"


def test_a_renamed_module(project):
    moved = {"memlib/_checks.py": LIBRARY["memlib/checks.py"], "memlib/checks.py": None}
    entry = ENTRY.replace("checks", "_checks")
    assert key(project, entry, files=moved) == key(project)


WHOLE = """
import torch
from memlib.verbs import read

class Memory(torch.nn.Module):
    def first(self, x):
        return self.second(x)
    def second(self, x):
        return read(x) + self.third()
    def third(self):
        return 3
"""
PARTS = {
    "memlib/whole.py": """
import torch as t
from memlib.part import _Part

class Memory(_Part):
    def first(self, x):
        return self.second(x)
""",
    "memlib/part.py": """
from memlib.end import _End
from memlib.verbs import read as look

class _Part(_End):
    \"\"\"What stands in the middle.\"\"\"
    def second(self, x):
        return look(x) + self.third()
""",
    "memlib/end.py": """
from torch.nn import Module

class _End(Module):
    def third(self):
        return 3
""",
}
MEMORY = "from memlib.whole import Memory\nX = Memory()\n"


def parts(file="memlib/end.py", old="", new=""):
    return {"files": {**PARTS, file: swapped(old, new, PARTS[file]) if old else PARTS[file]}}


def test_a_class_that_was_cut_into_private_ones(project):
    whole = key(project, MEMORY, files={"memlib/whole.py": WHOLE})
    assert key(project, MEMORY, **parts()) == whole


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("memlib/end.py", "return 3", "return 4"),
        ("memlib/end.py", "torch.nn import Module", "torch.jit import Module"),
        ("memlib/end.py", "class _End", "STEP = print()\nprint()\nclass _End"),
        ("memlib/part.py", "look(x) +", "look(x) -"),
        ("memlib/whole.py", "(_Part)", "(_Part, t.nn.Module)"),
    ],
)
def test_each_of_them_counts(file, old, new, project):
    assert key(project, MEMORY, **parts(file, old, new)) != key(project, MEMORY, **parts())


def test_what_they_use_counts_and_a_public_one_is_a_class_of_its_own(project):
    used = {"memlib/verbs.py": swapped("x - 1", "x - 2", LIBRARY["memlib/verbs.py"])}
    changed = key(project, MEMORY, files={**PARTS, **used})
    assert changed != key(project, MEMORY, **parts())
    public = {name: text.replace("_End", "End") for name, text in PARTS.items()}
    assert key(project, MEMORY, files=public) != key(project, MEMORY, **parts())


def test_a_module_that_became_a_package_in_parts(project):
    head, tail = LIBRARY["memlib/verbs.py"].split("def write")
    parts = {
        "memlib/verbs.py": None,
        "memlib/__init__.py": "from .verbs import read\n",
        "memlib/verbs/__init__.py": "from .reading import read\nfrom .writing import write\n",
        "memlib/verbs/reading.py": head.split("def _read")[0] + "from ._inner import _read\n",
        "memlib/verbs/_inner.py": "def _read" + head.split("def _read")[1],
        "memlib/verbs/writing.py": "def write" + tail,
    }
    assert key(project, files=parts) == key(project)
    parts["memlib/verbs/_inner.py"] = parts["memlib/verbs/_inner.py"].replace("1", "2")
    assert key(project, files=parts) != key(project)


@pytest.mark.parametrize(
    "entry",
    [
        "from benchmarks.room import case\nX = case.f\n",
        "from benchmarks.room.case import f\nX = f\n",
    ],
)
def test_a_folder_without_an_init_is_followed(entry, project):
    case = {"benchmarks/room/case.py": "def f():\n    return 1\n"}
    changed = {"benchmarks/room/case.py": "def f():\n    return 2\n"}
    assert key(project, entry, files=case) != key(project, entry, files=changed)


@pytest.mark.parametrize("text", ["from ..verbs import unused", "from .. import verbs"])
def test_relative_imports_are_followed(text, project):
    entry = "from memlib.room import inner\nX = inner.f\n"
    use = "unused" if "unused" in text else "verbs.unused"
    room = {"memlib/room/__init__.py": "", "memlib/room/inner.py": f"{text}\nf = {use}\n"}
    before = key(project, entry, files=room)
    changed = swapped("    return x\n", "    return 2 * x\n", LIBRARY["memlib/verbs.py"])
    assert before != key(project, entry, files={**room, "memlib/verbs.py": changed})


def test_circles_end(project):
    circle = {
        "memlib/a.py": "from memlib.b import g, lost, missing\ndef f():\n    return g, lost\n",
        "memlib/b.py": "from memlib.a import f, lost, missing\ndef g():\n    return f, missing\n",
    }
    entry = "from memlib.a import f\nX = f\n"
    changed = {**circle, "memlib/b.py": circle["memlib/b.py"].replace("f, missing\n", "f\n")}
    assert key(project, entry, files=circle) != key(project, entry, files=changed)


def test_a_star_cannot_be_followed_and_says_so(project):
    with pytest.raises(ValueError, match="must be imported by name"):
        key(project, "from memlib.verbs import *\n")
    with pytest.raises(ModuleNotFoundError, match=r"no module experiments\.none"):
        keys.Project(project).key("experiments.none")


# The project itself


@pytest.fixture
def tree(tmp_path):
    """A copy of the code."""
    for package in keys.PROJECT:
        shutil.copytree(keys.ROOT / package, tmp_path / package,
                        ignore=shutil.ignore_patterns("__pycache__", "node_modules"))  # fmt: skip
    return tmp_path


def all_keys(folder):
    project = keys.Project(folder)
    return {name: project.key(name) for name in NAMES}


def home(folder, function):
    """The dotted name of the one module below memlib that defines a function."""
    found = [
        path
        for path in (folder / "memlib").rglob("*.py")
        if re.search(rf"^def {function}\(", path.read_text(), re.MULTILINE)
    ]
    assert len(found) == 1
    return ".".join(found[0].relative_to(folder).with_suffix("").parts)


@pytest.mark.parametrize(
    ("function", "old", "new", "left"),
    [
        # the DNC sharpens what its links say, and shifts nothing
        ("_sharpen", ".log()", ".exp()", set()),
        ("_shift", ".roll(j,", ".roll(-j,", {"benchmarks.dnc"}),
    ],
)
def test_a_changed_formula_makes_those_records_stale_that_depend_on_it(
    function, old, new, left, tree
):
    path = tree.joinpath(*home(tree, function).split(".")).with_suffix(".py")
    text = path.read_text()
    begin = text.index(f"def {function}(")
    assert old in text[begin:]
    path.write_text(text[:begin] + text[begin:].replace(old, new, 1))
    now, before = all_keys(tree), all_keys(keys.ROOT)
    stale = {name for name in NAMES if now[name] != before[name]}
    # the NTM is run by the experiment of the DNC, too, and every function by that of numbers
    machines = {"ntm", "ntm_ablation", "dnc", "numbers"}
    timed = {"ntm", "dnc", "import_time", "gpu", "before"}  # the last two only where recorded
    depend = {f"experiments.{n}" for n in machines} | {f"benchmarks.{n}" for n in timed}
    assert stale == (depend & set(NAMES)) - left
    assert stale < set(NAMES)


def test_a_renamed_file_makes_none_stale(tree):
    old = home(tree, "shift")
    path = tree.joinpath(*old.split(".")).with_suffix(".py")
    path.rename(path.with_stem("elsewhere"))
    new = old.rpartition(".")[0] + ".elsewhere"
    changed = 0
    for file in tree.rglob("*.py"):
        text = file.read_text()
        file.write_text(re.sub(rf"\b{re.escape(old)}\b", new, text))
        changed += text != file.read_text()
    assert changed > 3
    assert all_keys(tree) == all_keys(keys.ROOT)


def told(module):
    """The words of the walks over a module of the repository that come from outside."""
    project = keys.Project(keys.ROOT)
    found = project.find(module)
    walks = [project.walk(found, statement) for statement in found.statements]
    return [word for walk in walks for word in walk.words]


def drawn(words):
    """What of these names can change a number: of PyTorch, of NumPy, of the project."""
    harmless = {"torch.__version__", "torch.get_num_threads", "numpy.__version__"}
    harmless |= {"torch.backends.cpu.get_cpu_capability", "torch.serialization.add_safe_globals"}
    outside = {w for w in words if isinstance(w, str)} - harmless
    names = {w for w in outside if re.match(r"(torch|numpy|random|safetensors)\b", w)}
    # those of the project lead to modules that are left out, too; memlib tells its version
    names |= {f"{w.module}.{w.name}" for w in words if isinstance(w, keys.Reference)
              if w.module not in keys.REPORTING and w != ("memlib", "__version__")}  # fmt: skip
    return names


def test_what_is_left_out_cannot_change_a_number():
    own = [name for name in keys.REPORTING if keys.Project(keys.ROOT).find(name)]
    assert len(own) >= 4
    for name in own:
        assert not drawn(w for w in told(name) if not own_name(w, name)), name
    assert {"torch.manual_seed", "memlib.ntm.NTM"} < drawn(told("experiments.ntm"))  # the control


def own_name(word, module):
    return isinstance(word, keys.Reference) and word.module == module


def test_what_runs_is_in_the_key(tmp_path, monkeypatch):
    """All functions of the project that a run calls, but of what is left out."""
    monkeypatch.setitem(ntm.BEYOND, "copy", [{"length": 2}])
    tiny = {"slots": 8, "width": 6, "hidden": 8, "every": 4, "exam": 2, "sequences": 4}
    sets = [w for name, value in tiny.items() for w in ("--set", f"{name}={value}")]
    places = ["--results", str(tmp_path), "--unfinished", str(tmp_path)]
    called, root = set(), str(keys.ROOT)

    def look(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(root):
            called.add((Path(frame.f_code.co_filename), frame.f_lineno))

    threads = torch.get_num_threads()
    sys.setprofile(look)
    try:
        ntm.main([*sets, *places])
    finally:
        sys.setprofile(None)
        torch.set_num_threads(threads)
    counted, left = sorted_out(called, "experiments.ntm")
    assert len(counted) > 20
    assert not left
    assert {name for name, _ in sorted_out(called, "experiments.babi")[1]} > {"memlib.ntm"}


def sorted_out(called, maker):
    """What was called at these places, in a module's key and not in it."""
    project = keys.Project(keys.ROOT)
    closure = project.closure(maker)
    counted, left = set(), set()
    for path, line in called:
        name = ".".join(path.relative_to(keys.ROOT).with_suffix("").parts)
        module = project.find(name)  # None of a test
        for statement in () if module is None or keys.reports(name) else module.statements:
            first = min([statement.lineno, *(d.lineno for d in decorators(statement))])
            if first <= line <= statement.end_lineno:
                (counted if id(statement) in closure else left).add((name, first))
    return counted, left


def decorators(statement):
    scopes = ast.FunctionDef | ast.ClassDef
    return statement.decorator_list if isinstance(statement, scopes) else []
