"""Run benchmarks by name, or all of them: ``python -m benchmarks [NAME ...]``."""

import argparse
import importlib
from pathlib import Path

from experiments import records

NAMES = ("attend", "import_time", "ntm", "memn2n", "dnc", "store", "decode")
NAMES += ("pretrained", "forget", "fast_weights", "durable", "sharded")
KNOWN = (*NAMES, "gpu", "before", "explore", "pgvector")  # the last only where they are asked for

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(KNOWN)}")
    parser.add_argument("--results", type=Path, help="folder of the records")
    only = parser.add_argument_group("before")
    only.add_argument("--tree", type=Path, metavar="FOLDER", help="a checkout of the older code")
    only.add_argument("--compiled", action="store_true", help="steps of machines compiled as well")
    only.add_argument("--quick", action="store_true", help="small; recorded in --results alone")
    options = parser.parse_args()
    names = options.names or NAMES
    if unknown := set(names) - set(KNOWN):
        parser.error(f"NAME must be one of {', '.join(KNOWN)}; got {', '.join(sorted(unknown))}")
    own = {name: getattr(options, name) for name in ("tree", "compiled", "quick")}
    if any(own.values()) and "before" not in names:
        parser.error("--tree, --compiled and --quick are options of before")
    for name in names:
        module = importlib.import_module(f"benchmarks.{name}")
        figures = module.run(**own) if name == "before" else module.run()
        print(module.report(figures))
        if options.quick and not options.results:
            continue
        command = f"python -m benchmarks {name}"
        if name == "before":  # where the older tree lay is no part of it: its commit is
            command += " --tree FOLDER" + " --compiled" * options.compiled
        path = records.save(f"benchmark_{name}", figures, command=command, folder=options.results)
        print(f"recorded in {path}")
