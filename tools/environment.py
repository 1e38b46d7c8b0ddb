"""Makes the environment of the book, or brings it up to date: `python tools/environment.py`.

    --out FOLDER   where .venv goes (the repository's folder, if not said)
    -- OPTION ...  handed to pip, such as the index of PyTorch's CPU build

Needs Python 3.11 alone. An environment that has moved, or whose Python is gone, is made anew: its
programs name the place where they were made. One that is up to date costs a fraction of a second.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKED = ("requirements.txt", "pyproject.toml")
SILENCE = 20.0  # seconds between two lines, where no terminal looks on


class Environment:
    """An environment at `place`, for the repository at `root`, made with some options of pip."""

    def __init__(self, place: Path, root: Path = ROOT, options: tuple[str, ...] = ()) -> None:
        self.place, self.root, self.options = place, root, options
        self.python = place / "bin" / "python"
        self.note = place / "made.json"  # where it was made, of what

    def wanted(self) -> dict[str, str]:
        """What the note has to say."""
        total = hashlib.sha256()
        for name in LOCKED:
            total.update((self.root / name).read_bytes())
        return {
            "place": str(self.place),
            "root": str(self.root),
            "pip": " ".join(self.options),
            "locked": total.hexdigest(),
            "python": platform.python_version(),
        }

    def found(self) -> dict[str, str]:
        """What the note says."""
        try:
            return dict(json.loads(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def broken(self) -> str:
        """Why it must be made anew, or nothing: also where there is none yet."""
        if not self.place.exists():
            return ""
        if not self.python.exists():
            return "its Python is gone"
        works = subprocess.run([self.python, "-c", "import pip"], env=calm(), capture_output=True)
        if works.returncode:
            return "its Python does not start, or it has no pip"
        place = self.found().get("place", str(self.place))
        return "" if place == str(self.place) else f"it was made at {place}"

    def stale(self) -> bool:
        """Whether the lock, the options or the repository's place are not those it was made of."""
        return {**self.found(), "python": ""} != {**self.wanted(), "python": ""}

    def renew(self) -> None:
        """Makes what is missing; says what it does.

        Raises:
            SystemExit: it cannot be made; says why.
        """
        if why := self.broken():
            say(f"making {self.place.name} anew: {why}")
            if self.place.is_symlink():
                raise SystemExit(f"{self.place} is a link to another environment: remove it first")
            shutil.rmtree(self.place)
        if not self.python.exists():
            say(f"making an environment in {self.place}")
            self._run([sys.executable, "-m", "venv", str(self.place)], "an environment")
        if not self.stale():
            return
        self.note.unlink(missing_ok=True)
        count = sum(line[:1].isalpha() for line in _lines(self.root / "requirements.txt"))
        pip = [str(self.python), "-m", "pip", "install", "--progress-bar=off", "--no-input"]
        packages = ["--requirement", str(self.root / "requirements.txt")]
        self._run([*pip, *self.options, *packages], "packages", count)
        here = ["--no-deps", "--no-build-isolation", "--editable", str(self.root)]
        self._run([*pip, *here], "memlib itself")
        text = json.dumps(self.wanted(), indent=1)
        self.note.write_text(text + "\n", encoding="utf-8")

    def _run(self, command: list[str], what: str, count: int = 0) -> None:
        """Runs a step; says how far it is, and on failure what it said last."""
        said: list[str] = []
        began = time.monotonic()
        with subprocess.Popen(
            command, env=calm(), cwd=self.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
        ) as process:  # fmt: skip
            assert process.stdout is not None
            reader = threading.Thread(target=said.extend, args=(process.stdout,))
            reader.start()
            while reader.is_alive():
                reader.join(1.0 if sys.stdout.isatty() else SILENCE)
                if reader.is_alive():
                    seconds = time.monotonic() - began
                    say(f"setting up {progress(said, what, count)}, {seconds:.0f} s", passing=True)
        if process.returncode:
            lines = "".join(said[-15:])
            raise SystemExit(f"could not set up {what}; the last that was said:\n{lines}")
        say(f"set up {what} in {time.monotonic() - began:.0f} s")


def progress(said: list[str], what: str, count: int) -> str:
    """How far pip is, by what it has said so far."""
    if not count:
        return what
    if any(line.startswith("Installing collected") for line in said):
        return f"{what}: installing {count} of them"
    met = sum(line.startswith(("Collecting", "Requirement already")) for line in said)
    return f"{what}: {min(met, count)} of {count} found"


def calm() -> dict[str, str]:
    """The person's environment without what would send pip elsewhere or change its Python."""
    leaks = ("PYTHON", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "VIRTUAL_ENV", "PIP_OUT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(leaks)}
    kept |= {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}  # paths may have any letters
    kept |= {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if not os.access(kept.get("HOME", ""), os.W_OK | os.X_OK):  # a cache would go astray
        kept["PIP_NO_CACHE_DIR"] = "1"
    return kept


def say(text: str, *, passing: bool = False) -> None:
    """Prints a line; on a terminal one that passes makes room for the next."""
    terminal = sys.stdout.isatty()
    end = "\r" if terminal and passing else "\n"
    print(f"\x1b[2K{text}" if terminal else text, end=end, flush=True)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def main() -> None:
    """Parses the command line and renews the environment, one at a time."""
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever has an older one is to read this
        raise SystemExit(
            f"Python 3.11 or newer is needed (PYTHON=...); got {sys.version.split()[0]}"
        )
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT)
    parser.add_argument("pip", nargs="*", help="options handed to pip, after --")
    options = parser.parse_args()
    out = options.out.resolve()
    (out / ".build").mkdir(parents=True, exist_ok=True)
    with (out / ".build" / "environment.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Environment(out / ".venv", ROOT, tuple(options.pip)).renew()


if __name__ == "__main__":
    main()
