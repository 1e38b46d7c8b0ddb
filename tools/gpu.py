"""Tests and measures memlib on a GPU, in under eight minutes (`make gpu`).

    python tools/gpu.py                      tests, then benchmarks, with this very Python
    python tools/gpu.py --only bench         one of the two: tests or bench
    python tools/gpu.py --device cpu --toy   the same code on the CPU, small, to see that it runs

Needs torch, numpy and pytest, no network and no environment of the project's own; what else it
could compare with is left out where it is missing, and said to be. Without a GPU it says what it
would run, and ends well. The times go to results/benchmark_gpu.json.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = {"tests": 260, "bench": 200}  # after which they are ended
SOONER = 30  # seconds before that, nothing new is begun
OPTIONAL = {
    "faiss": "stores that search by faiss",
    "safetensors": "files of stores",
    "transformers": "decoding beside transformers",
}
MARKS = ("gpu: needs a CUDA device", "needs_torch(version): what an older torch cannot do")
PYTEST = [
    "-m", "pytest", "-c", os.devnull, f"--rootdir={ROOT}", "--confcutdir=tests/gpu",
    "--import-mode=importlib", "-p", "no:cacheprovider", "-o", f"markers={chr(10).join(MARKS)}",
    "--color=no", "--tb=short", "-q", "-rfE", "--durations=5",
]  # fmt: skip


def tests() -> list[str]:
    """The files of the tests, those that compile last."""
    found = (ROOT / "tests" / "gpu").glob("test_*.py")
    return [str(p.relative_to(ROOT)) for p in sorted(found, key=lambda p: ("graphs" in p.stem, p))]


def surroundings() -> dict[str, str]:
    """What a child process sees: this checkout, and no settings for pytest from outside."""
    ours = {
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
        "PYTHONUNBUFFERED": "1",
        "PYTEST_ADDOPTS": "",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "GPU_TESTS_UNTIL": str(time.time() + SECONDS["tests"] - SOONER),
    }
    return os.environ | ours


def lines(arguments: list[str], seconds: float) -> Iterator[str]:
    """Run this Python, yield what it prints line by line, and end it when its time is up.

    Raises:
        TimeoutError: it was ended.
        subprocess.CalledProcessError: it failed.
    """
    command, late = [sys.executable, *arguments], threading.Event()
    with subprocess.Popen(
        command, cwd=ROOT, env=surroundings(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that compile for it

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            assert process.stdout is not None
            yield from process.stdout
            process.wait()
        finally:
            timer.cancel()
    if late.is_set():
        raise TimeoutError(f"ended after its {seconds:g} s")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command[:3])


def say(line: str) -> None:
    """Print a line at once, whoever reads along."""
    print(line.rstrip("\n"), flush=True)


def follow(name: str, arguments: list[str]) -> bool:
    """Run one half; return whether all of it went well."""
    say(f"== {name}, at most {SECONDS[name]} s")
    start = time.perf_counter()
    try:
        for line in lines(arguments, SECONDS[name]):
            say(line)
    except (TimeoutError, subprocess.CalledProcessError) as error:
        say(f"== {name} FAILED after {time.perf_counter() - start:.0f} s: {error}")
        return False
    say(f"== {name} done in {time.perf_counter() - start:.0f} s")
    return True


def plan() -> None:
    """Say what a GPU would run: tests with how often, and benchmarks with their sizes."""
    count: dict[str, int] = {}
    for line in lines([*PYTEST, "--collect-only", "-m", "gpu", *tests()], SECONDS["tests"]):
        if name := re.match(r"(tests/gpu/\w+\.py::\w+)", line):
            count[name[1]] = count.get(name[1], 0) + 1
    say(f"tests that it would run, {sum(count.values())}:")
    for test, times in count.items():
        say(f"    {times:4} {test}")
    say("benchmarks that it would measure:")
    for line in lines(["-m", "benchmarks.gpu", "--plan"], SECONDS["bench"]):
        say(f"    {line}")


def main() -> int:
    """Run what was asked for; 0 if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=tuple(SECONDS), help="one half")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toy", action="store_true", help="small sizes")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="of the record")
    asked = parser.parse_args()
    if missing := [name for name in ("torch", "numpy", "pytest") if find_spec(name) is None]:
        say(f"needs {', '.join(missing)} in this Python; make gpu PYTHON=... names another")
        return 2
    import torch

    say(f"Python {sys.version.split()[0]}, torch {torch.__version__}")
    for package, use in OPTIONAL.items():
        if find_spec(package) is None:
            say(f"SKIPPED: {use}; {package} is not installed")
    if asked.device == "cuda" and not torch.cuda.is_available():
        say("SKIPPED: everything; there is no CUDA device here, so nothing is tested or measured")
        plan()
        return 0
    say(f"on {torch.cuda.get_device_name() if asked.device == 'cuda' else 'the CPU'}")
    chosen = "gpu" if asked.device == "cuda" else "not gpu"
    bench = ["-m", "benchmarks.gpu", "--device", asked.device, *["--toy"] * asked.toy]
    bench += ["--results", str(asked.results.resolve())]
    bench += ["--seconds", str(SECONDS["bench"] - SOONER)]
    halves = {"tests": [*PYTEST, "-m", chosen, *tests()], "bench": bench}
    went = [follow(name, halves[name]) for name in ([asked.only] if asked.only else halves)]
    return 0 if all(went) else 1


if __name__ == "__main__":
    sys.exit(main())
