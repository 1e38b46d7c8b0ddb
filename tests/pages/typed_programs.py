"""Programs as text, read line by line by Python itself and run by memlib."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from memlib import programs
from memlib.addressable.programs import Program, Step, Trace

MEANINGS = [  # what memlib or Python says, and what the page says about the same line
    (r"move must be an integer", r"move must be an integer"),
    (r"move must be in \[-1, 1\]; got (-?\d+)", r"move must be in \[-1, 1\]; got \1"),
    (r"strength must be", r"strength must be"),
    (r"sharpening must be", r"sharpening must be"),
    (r"key must have shape .*at most (M = \d+); got (\(\d+,\))", r"key must .* \1; got \2"),
    (r"add must have shape|Sizes of tensors|expanded size", r"add must have shape"),
    (r"(key|add) must be a torch.Tensor", r"\1 must be a vector"),
    (r"NameError: name '(\w+)'", r"\1 is not known|a line must be a Step"),
    (r"TypeError: .*unexpected keyword argument '(\w+)'", r"a Step has .*; got \1"),
    (r"SyntaxError: keyword argument repeated: (\w+)", r"\1 is given twice"),
    (r"SyntaxError: (?:cannot assign|.*)", r"cannot be a name|here must be|missing|one line|Step"),
    (r"at least one Step; got none", r"at least one Step; got none"),
    (r"number of slots must be at least 3; got 2", r"number of slots must be at least 3; got 2"),
    (r"a vector among numbers", r"here must be a number"),
    (r"slice indices|TypeError: .*index", r"whole numbers|here must be a number"),
    (r"not subscriptable|expected Tensor", r"here must be a vector"),
]


@dataclass
class Typed:
    """A text as a program of memlib; `line` is the one that it stands on."""

    text: str
    names: dict[str, Any]
    line: int = 0
    done: list[int] = field(default_factory=list)

    def steps(self) -> Program:
        """Each line by Python's own reading of it, with vectors for numbers in brackets."""
        for line in self.text.split("\n"):
            self.line += 1
            if not (code := line.split("#")[0].strip()):
                continue
            name, _, rest = re.fullmatch(r"(?:(\S+) = )?(yield )?(.*)", code).groups()  # type: ignore[union-attr]
            tree = ast.fix_missing_locations(Vectors().visit(ast.parse(rest, mode="eval")))
            if name:
                ast.parse(f"{name} = 1")
            read = yield eval(compile(tree, "line", "eval"), dict(self.names))
            self.done.append(self.line)
            if name:
                self.names[name] = read


class Vectors(ast.NodeTransformer):
    """`[1, 0]` is a vector where memlib asks for one."""

    def visit_List(self, node: ast.List) -> ast.AST:
        return ast.Call(ast.Name("vector", ast.Load()), [node], [])


def vector(numbers: list[float]) -> Tensor:
    """What numbers in brackets stand for."""
    assert not any(isinstance(number, Tensor) for number in numbers), "a vector among numbers"
    return torch.tensor(numbers, dtype=torch.float64)


def run(text: str, names: dict[str, Any], memory: Tensor) -> tuple[Trace | None, int, str]:
    """The trace of a program as far as it goes, the line of a refusal, and its reason."""
    known = {"Step": Step, "torch": torch, "vector": vector, **names}
    program = Typed(text, dict(known))
    try:
        return programs.run(program.steps(), memory), 0, ""
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
    if not program.done:
        return None, program.line, why
    good = "\n".join(text.split("\n")[: program.line - 1])
    return programs.run(Typed(good, dict(known)).steps(), memory), program.line, why


def same_meaning(right: str, told: str) -> bool:
    """Whether a refusal of the page says what memlib's says."""
    for ours_, theirs in MEANINGS:
        if match := re.search(ours_, right):
            for number, group in enumerate(match.groups(), 1):
                theirs = theirs.replace(f"\\{number}", re.escape(group))
            return re.search(theirs, told) is not None
    return False
