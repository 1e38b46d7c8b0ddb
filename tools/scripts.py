"""Format, lint and types of the page's engine: `python tools/scripts.py [--fix]`.

Biome and the TypeScript compiler come from npm, as `tools/js/package-lock.json` names them. Without
Node or without a network nothing is checked, and that is said; in CI it is a failure.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "tools" / "js"
MODULES = ROOT / "memlib" / "teaching" / "explore" / "js"


def installed(work: Path) -> str:
    """Installs the tools below `work`, once for each lock; returns what went wrong."""
    lock = (HOME / "package-lock.json").read_bytes()
    if (done := work / "done").exists() and done.read_bytes() == lock:
        return ""
    if shutil.which("npm") is None:
        return "npm is not installed"
    work.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(HOME / name, work / name)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        ran = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "npm ci took more than five minutes"
    if ran.returncode:
        return f"npm ci failed: {ran.stderr.strip()[-500:]}"
    done.write_bytes(lock)
    return ""


def check(work: Path, *, fix: bool = False, modules: Path = MODULES) -> int:
    """Runs both tools over the modules; returns 0 where all is well."""
    tools = work / "node_modules" / ".bin"
    look = [tools / "biome", "check", f"--config-path={HOME}", "--error-on-warnings", modules]
    types = [tools / "tsc", "--project", HOME]
    if fix:
        look.insert(2, "--write")
    failed = 0
    for command in (look, types):
        failed |= subprocess.run(list(map(str, command)), cwd=ROOT).returncode
    return failed


def main() -> int:
    """Checks, or says aloud why not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fix", action="store_true", help="format and mend what can be mended")
    parser.add_argument("--work", type=Path, default=ROOT / ".build" / "js")
    given = parser.parse_args()
    if wrong := installed(given.work):
        print(f"NOT CHECKED: the scripts of the explorables. {wrong}", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    return check(given.work, fix=given.fix)


if __name__ == "__main__":
    raise SystemExit(main())
