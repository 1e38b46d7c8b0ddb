"""Run an experiment, or look after the records: ``python -m experiments NAME``."""

import importlib
import shlex
import sys

EXPERIMENTS = {
    "ntm": "the Neural Turing Machine and an LSTM on the paper's five tasks",
    "ntm_ablation": "why some machines copy longer sequences and others do not",
    "dnc": "the differentiable neural computer and an NTM, with enough memory and with less",
    "babi": "end-to-end memory networks on the bAbI tasks, per task and jointly",
    "babi_live": "the short run on task 1 that the chapter shows, from ten starts",
    "babi_reader": "what trained networks need of their memory: empty slots, sentences",
    "mqar": "what mixers recall of key-value pairs, against the bytes they keep",
    "fast_weights": "what trained matrices recall of facts that change, rule by rule",
    "induction": "induction heads: when they appear, in one layer and in two",
    "capitals": "the chapter's small Transformer from ten starts, and what its parts do",
    "lengths": "schemes of positions on rows longer than in training",
    "forgetting": "what a cache may forget: answers kept against slots kept, rule by rule",
    "knn_lm": "a language model of bytes with a memory of text it was not trained on",
    "numbers": "how far each public function is from float64, at hostile scales",
    "durability": "a store in a folder, whose writers are killed and whose files are damaged",
    "cache_bytes": "what the caches of published models take",
}
COMMANDS = {
    "check": "which records the code of today would make again",
    "verify": "run a part of a record again, and compare",
    "reproduce": "one published claim made again, beside the paper's number and the record",
}


def main(arguments: list[str]) -> int:
    """Run the experiment of that name and return the exit status."""
    if not arguments or arguments[0] not in EXPERIMENTS | COMMANDS:
        told = [
            *(f"  {name:14}{text}" for name, text in EXPERIMENTS.items()),
            "and of what is recorded in results/:",
            *(f"  {name:14}{text}" for name, text in COMMANDS.items()),
        ]
        listing = ["python -m experiments NAME [--help]", *told]
        asked = not arguments or arguments[0] in ("-h", "--help")
        print(*listing, sep="\n", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    from experiments.checkpoints import CheckpointError  # PyTorch is not needed for the list
    from experiments.progress import never_silent

    name, *rest = arguments
    again = shlex.join(word for word in arguments if word != "--fresh")
    try:
        with never_silent(name):
            status = importlib.import_module(f"experiments.{name}").main(rest)
    except KeyboardInterrupt as stop:
        print(f"\n{stop or 'stopped'}; to go on: python -m experiments {again}", file=sys.stderr)
        return 130
    except CheckpointError as error:
        print(f"{error}; to start anew: python -m experiments {again} --fresh", file=sys.stderr)
        return 1
    except BlockingIOError as error:
        print(error, file=sys.stderr)
        return 1
    return int(status or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
