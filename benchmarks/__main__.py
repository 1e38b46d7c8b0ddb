"""Run benchmarks by name, or all of them: ``python -m benchmarks [NAME ...]``."""

import argparse
import importlib
from pathlib import Path

from experiments import records

NAMES = ("attend", "import_time", "ntm", "memn2n", "dnc", "store", "decode")
KNOWN = (*NAMES, "gpu")  # the last only where it is asked for

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(KNOWN)}")
    parser.add_argument("--results", type=Path, default=records.RESULTS, help="of the records")
    options = parser.parse_args()
    names = options.names or NAMES
    if unknown := set(names) - set(KNOWN):
        parser.error(f"NAME must be one of {', '.join(KNOWN)}; got {', '.join(sorted(unknown))}")
    for name in names:
        module = importlib.import_module(f"benchmarks.{name}")
        figures = module.run()
        command = f"python -m benchmarks {name}"
        path = records.save(f"benchmark_{name}", figures, command=command, folder=options.results)
        print(module.report(figures))
        print(f"recorded in {path}")
