"""The programs of `memlib.addressable`, under the short name that the chapter uses."""

from memlib.addressable.programs import (
    Program,
    Step,
    Trace,
    copy_program,
    linked_list_program,
    payload,
    reverse_program,
    run,
)

__all__ = [
    "Program",
    "Step",
    "Trace",
    "copy_program",
    "linked_list_program",
    "payload",
    "reverse_program",
    "run",
]
