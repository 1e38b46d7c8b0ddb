"""What the live run of the chapter comes to: task 1 of bAbI, one fact, from ten starts.

A short version of the recipe of `experiments.babi`, whose loop and record it uses: the chapter
takes its constants from the record and trains the first of these starts before the reader's eyes.
"""

from experiments import babi, records

# Half a minute on one core is what a page may take.
SHORT = {"linear_epochs": 10, "epochs": 40, "halve": 10}
SEEDS = 10
NAME = "babi_live.json"


def main(arguments: list[str]) -> None:
    """Train and record; words of `experiments.babi` that follow count, the last of each kind."""
    changes = [word for name, value in SHORT.items() for word in ("--set", f"{name}={value}")]
    out = ["--out", str(records.RESULTS / NAME)]
    babi.main(["--tasks", "1", "--restarts", str(SEEDS), *changes, *out, *arguments])
