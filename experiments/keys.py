"""The key of a record: a hash of the code that its numbers come from, and of nothing else.

It begins with all top-level statements of the record's own module, ``experiments.NAME`` or
``benchmarks.NAME``, and follows each name that these use to the statement that defines it,
through imports, packages' ``__init__`` and attributes of modules, and so on from there. Whole
modules would be too coarse: the key would change as a file is split. What follows a name stays
the same wherever the statement is moved to, whatever the file is called and however the name was
imported; two statements of one name are told apart by what they say. A class and the private ones
that it is made of, its bases by the name of ``_Name``, are one: as if theirs stood at its end.

A statement counts as a walk over its syntax tree, since `ast.dump` and `ast.unparse` differ from
one version of Python to the next. Not part of the walk, as no number depends on them:

- comments, layout, docstrings and other constants on a line of their own, ``pass``;
- import statements: an imported name stands for what it was imported from, so that ``math.exp``
  and ``torch.exp`` differ, and ``F.relu`` and ``torch.nn.functional.relu`` do not;
- annotations of functions and variables and `typing.overload`; those in the body of a class
  count, since data classes are made of them;
- what an error or an assert says, and the help of a command line;
- ``__all__``, ``__version__``, and what stands below ``if TYPE_CHECKING``;
- modules that only report, `REPORTING`: what is taken from them is one word, whatever it is called.

Of other modules a definition or an assignment counts where its name is used, and any other
statement at the top level counts always. An attribute that a module does not define, or the
module itself handed on, counts as all of the module. What no name leads to is not seen: modules
imported by a string, and data. Of the latter none is in the repository: a record tells the hash
of the texts that it was measured on, or names them, and ``memlib/tasks/babi_en.sha256`` can
only refuse a file.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PROJECT = ("memlib", "experiments", "benchmarks", "tests")
REPORTING = {  # modules that cannot change a number, and why
    "experiments.command_line": "what it sets is told by the record: recipe, seed, threads",
    "experiments.files": "writes whole files, reads none",
    "experiments.keys": "this module",
    "experiments.progress": "draws progress",
    "experiments.records": "writes what it is given, with when and where",
    "memlib._files": "writes whole files, and names what may be read of them",
    "tqdm": "draws progress",
}
UNSEEN = {"annotation", "ctx", "msg", "returns", "type_comment"}  # fields of a node
UNNAMED = {"__all__", "__version__"}
SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp

Origin = tuple[str, str | None]  # where an import takes a name from: a module, and its name there
Scope = Mapping[str, Origin | None]  # what is bound, by an import or (None) otherwise


class Reference(NamedTuple):
    """A name that some module of the project binds; without a name, the whole module."""

    module: str
    name: str | None


@dataclass
class Statement:
    """A top-level statement: its walk, in which a name of the project is a reference."""

    words: list[str | Reference] = field(default_factory=list)
    others: list["Module"] = field(default_factory=list)  # whose private classes it is made of

    @property
    def references(self) -> list[Reference]:
        """The names of the project that it uses."""
        return [word for word in self.words if isinstance(word, Reference)]


class Module:
    """A file: what its statements bind, and what they do.

    Attributes:
        name: dotted.
        imports: names bound by imports.
        defined: the statements that bind each other name.
        effects: the other statements.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.package = name if path.stem == "__init__" else name.rpartition(".")[0]
        self.imports: dict[str, Origin] = {}
        self.defined: dict[str, list[ast.stmt]] = {}
        self.effects: list[ast.stmt] = []
        for statement in ast.parse(path.read_bytes()).body:
            self._sort(statement)

    def _sort(self, statement: ast.stmt) -> None:
        names = bound([statement], self.package)
        self.imports |= {name: origin for name, origin in names.items() if origin}
        names = {name: None for name, origin in names.items() if not origin}
        if not counts(statement) or names.keys() & UNNAMED:
            return
        for name in names:
            self.defined.setdefault(name, []).append(statement)
        simple = ast.Assign | ast.AnnAssign | ast.AugAssign | SCOPES
        if not names or not isinstance(statement, simple):
            self.effects.append(statement)

    @property
    def statements(self) -> list[ast.stmt]:
        """All that count."""
        found = [s for statements in self.defined.values() for s in statements] + self.effects
        return list({id(statement): statement for statement in found}.values())


class Project:
    """The modules below a folder, read when they are asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules: dict[str, Module | None] = {}
        self.walks: dict[int, Statement] = {}

    def find(self, name: str) -> Module | None:
        """Return a module of the project, None if it is not."""
        if name not in self.modules:
            path = self.root.joinpath(*name.split("."))
            paths = (path.with_suffix(".py"), path / "__init__.py")
            own = name.partition(".")[0] in PROJECT
            found = next((path for path in paths if own and path.is_file()), None)
            self.modules[name] = Module(name, found) if found else None
        return self.modules[name]

    def resolve(self, origin: Origin, seen: frozenset[Origin] = frozenset()) -> Reference | str:
        """Follow a name to the module that defines it, or out of the project (then a word)."""
        name, part = origin
        module = self.find(name)
        if module is None:  # or a folder without an __init__
            word = name if part is None else f"{name}.{part}"
            return Reference(word, None) if part and self.find(word) else word
        if part is None or part in module.defined:
            return Reference(name, part)
        if part in module.imports and origin not in seen:  # a circle has no end
            return self.resolve(module.imports[part], seen | {origin})
        if self.find(f"{name}.{part}"):
            return Reference(f"{name}.{part}", None)
        return Reference(name, part)  # not there: the whole module counts

    def named(self, reference: Reference) -> list[tuple[Module, ast.stmt]]:
        """Return the statements that a reference stands for, each with its module."""
        module = self.find(reference.module)
        assert module is not None
        found = module.defined.get(reference.name or "", module.statements)
        return [(module, statement) for statement in found]

    def offered(self, reference: Reference) -> list[Reference]:
        """Return what a module imports from others, where a reference is to all of it."""
        module = self.find(reference.module)
        assert module is not None
        if reference.name in module.defined:
            return []
        found = map(self.resolve, module.imports.values())
        return [r for r in found if isinstance(r, Reference) and not reports(r.module)]

    def walk(self, module: Module, statement: ast.stmt) -> Statement:
        """Return the walk over a statement."""
        if id(statement) not in self.walks:
            walker = _Walker(self, module)
            walker.statements([statement], {}, {})
            self.walks[id(statement)] = walker.found
        return self.walks[id(statement)]

    def closure(self, start: str) -> dict[int, Statement]:
        """Return all statements that count for a module, beginning with its own."""
        first = self.find(start)
        if first is None:
            raise ModuleNotFoundError(f"no module {start} below {self.root}")
        ahead = [(first, statement) for statement in first.statements]
        found: dict[int, Statement] = {}
        followed: set[Reference] = set()
        while ahead:
            module, statement = ahead.pop()
            if id(statement) in found:
                continue
            found[id(statement)] = walk = self.walk(module, statement)
            ahead += [
                (there, effect) for there in (module, *walk.others) for effect in there.effects
            ]
            names = walk.references
            while names:
                if (name := names.pop()) not in followed:
                    followed.add(name)
                    ahead += self.named(name)
                    names += self.offered(name)
        return found

    def digest(self, statement: Statement, deep: bool = True) -> str:
        """Return a hash of a statement, and of what the names say that it uses."""

        def spell(word: str | Reference) -> str:
            if isinstance(word, str):
                return word
            if not deep or not word.name:
                return word.name or "module"
            said = {self.digest(self.walk(*there), deep=False) for there in self.named(word)}
            return f"{word.name} {' '.join(sorted(said))}"

        return _hash(map(spell, statement.words))

    def key(self, name: str) -> str:
        """Return the key of the records that a module makes, such as ``experiments.ntm``."""
        return _hash(sorted({self.digest(s) for s in self.closure(name).values()}))[:16]


@cache
def today(name: str) -> str:
    """Return the key of the records that a module of this repository would make now."""
    return _here().key(name)


@cache
def _here() -> Project:
    return Project(ROOT)


def reports(module: str) -> bool:
    """Whether a module is one of those that cannot change a number."""
    return module in REPORTING or module.partition(".")[0] in REPORTING


def counts(node: ast.AST) -> bool:
    """Whether a statement, or a part of one, can change a number."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(value=ast.Constant()):
            return False
        case ast.AnnAssign(value=None) | ast.keyword(arg="help"):
            return False
        case ast.If(test=ast.Name(id=name) | ast.Attribute(attr=name), orelse=[]):
            return name != "TYPE_CHECKING"
        case ast.FunctionDef(decorator_list=[ast.Name(id=name) | ast.Attribute(attr=name)]):
            return name != "overload"
    return True


def bound(nodes: Iterable[ast.AST], package: str) -> dict[str, Origin | None]:
    """Return the names that are bound in a scope, not in those within it."""
    found: dict[str, Origin | None] = {}
    outer: set[str] = set()
    ahead = list(nodes)
    while ahead:
        node = ahead.pop()
        match node:
            case ast.Import() | ast.ImportFrom():
                found |= imported(node, package)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found[node.name] = None
                continue
            case ast.Lambda():
                continue
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                ahead += [n.target for n in ast.walk(node) if isinstance(n, ast.NamedExpr)]
                continue
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                found.setdefault(name, None)
            case ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                found[name] = None
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                found[name] = None
            case ast.MatchMapping(rest=str(name)):
                found[name] = None
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                outer.update(names)
        ahead += ast.iter_child_nodes(node)
    return {name: origin for name, origin in found.items() if name not in outer}


def imported(node: ast.Import | ast.ImportFrom, package: str) -> dict[str, Origin]:
    """Return the names that an import binds, and where each comes from."""
    if isinstance(node, ast.Import):
        return {
            alias.asname or alias.name.partition(".")[0]: (
                (alias.name if alias.asname else alias.name.partition(".")[0]),
                None,
            )
            for alias in node.names
        }
    module = node.module or ""
    if node.level:
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        module = ".".join([*above, *([module] if module else [])])
    if any(alias.name == "*" for alias in node.names) and module.partition(".")[0] in PROJECT:
        raise ValueError(f"names must be imported by name; got * from {module} in {package}")
    return {alias.asname or alias.name: (module, alias.name) for alias in node.names}


class _Walker:
    """Goes over one statement, depth first, and says what it meets.

    A scope is what is bound around a node; `outer` is what functions within see of it, which is
    the same but in the body of a class.
    """

    def __init__(self, project: Project, module: Module) -> None:
        self.project, self.module = project, module
        self.found = Statement()

    def say(self, *words: str | Reference) -> None:
        self.found.words += words

    def statements(self, nodes: Iterable[ast.AST], scope: Scope, outer: Scope) -> None:
        for node in nodes:
            if counts(node):
                self.node(node, scope, outer)

    def node(self, node: ast.AST, scope: Scope, outer: Scope) -> None:
        match node:
            case ast.Name() | ast.Attribute():
                self.name(node, scope, outer)
            case ast.Constant(value=value):
                said = ascii(value) if isinstance(value, str) else repr(value)
                self.say(f"{type(value).__name__} {said}")
            case ast.JoinedStr(values=values):
                self.say("JoinedStr(")
                for part in _merged(values):
                    self.node(part, scope, outer)
                self.say(")")
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.node(ast.Assign(targets=[target], value=value), scope, outer)
            case ast.Raise(exc=ast.Call(func=func)):
                self.node(ast.Raise(exc=func), scope, outer)
            case ast.ClassDef():
                self.a_class(node, scope, outer)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                self.function(node, scope, outer)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self.comprehension(node, scope, outer)
            case _:
                self.fields(node, scope, outer)

    def fields(
        self,
        node: ast.AST,
        scope: Scope,
        outer: Scope,
        leave: Iterable[str] = (),
        bases: Iterable[tuple["_Walker", ast.expr]] = (),
    ) -> None:
        """Say a node's type and its fields, but for those that are empty: versions add such."""
        self.say(f"{type(node).__name__}(")
        for name, value in ast.iter_fields(node):
            if name == "bases" and bases:
                self.say("bases=")
                for walker, base in bases:
                    walker.node(base, scope if walker is self else {}, outer)
                continue
            if name in UNSEEN or name in leave or value is None or value == []:
                continue
            self.say(f"{name}=")
            parts = value if isinstance(value, list) else [value]
            for part in parts:
                if not isinstance(part, ast.AST):
                    self.say(ascii(part))
                elif counts(part):
                    self.node(part, scope, outer)
        self.say(")")

    def function(
        self,
        node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda,
        scope: Scope,
        outer: Scope,
    ) -> None:
        self.fields(node, scope, outer, leave=("body",))  # decorators and defaults see the scope
        body = node.body if isinstance(node.body, list) else [node.body]
        inner = {**outer, **bound([node.args, *body], self.module.package)}
        self.statements(body, inner, inner)
        self.say(")")

    def a_class(self, node: ast.ClassDef, scope: Scope, outer: Scope) -> None:
        private = list(self.private(node, scope))
        bases = [(self, base) for base in node.bases if not self.base(base, scope)]
        for walker, one in private:
            bases += [(walker, base) for base in one.bases if not walker.base(base, {})]
        self.fields(node, scope, outer, ("bases", "body"), bases)
        self.class_body(node, scope, outer)
        for walker, one in private:
            walker.class_body(one, {}, {})
        self.say(")")

    def private(self, node: ast.ClassDef, scope: Scope) -> Iterator[tuple["_Walker", ast.ClassDef]]:
        """Go through the private classes of the project among a class's bases, and among theirs."""
        for base in node.bases:
            if found := self.base(base, scope):
                yield found
                yield from found[0].private(found[1], {})

    def base(self, base: ast.expr, scope: Scope) -> tuple["_Walker", ast.ClassDef] | None:
        """Return the private class of the project that a base is, with who may walk over it."""
        there = self.meaning(base.id, scope) if isinstance(base, ast.Name) else None
        if not isinstance(there, Reference) or not (there.name or "").startswith("_"):
            return None
        match self.project.named(there):
            case [(module, ast.ClassDef() as node)]:
                walker = _Walker(self.project, module)
                walker.found = self.found
                self.found.others.append(module)
                return walker, node
        return None

    def class_body(self, node: ast.ClassDef, scope: Scope, outer: Scope) -> None:
        own = bound(node.body, self.module.package)
        for name in self.module.defined.keys() | self.module.imports.keys():
            own.pop(name, None)  # it may be the one outside that is read
        inner = {**scope, **own}
        for part in node.body:
            if isinstance(part, ast.AnnAssign):  # a field of a data class or a named tuple
                self.say("field")
                self.node(part.target, inner, outer)
                self.node(part.annotation, inner, outer)
                if part.value:
                    self.node(part.value, inner, outer)
            elif counts(part):
                self.node(part, inner, outer)

    def comprehension(self, node: COMPREHENSIONS, scope: Scope, outer: Scope) -> None:
        inner = dict(scope)
        for part in node.generators:
            inner |= bound([part.target], self.module.package)
        self.say(f"{type(node).__name__}(")
        self.node(node.generators[0].iter, scope, outer)
        for i, part in enumerate(node.generators):
            self.fields(part, inner, inner, leave=("iter",) if i == 0 else ())
        self.fields(node, inner, inner, leave=("generators",))
        self.say(")")

    def name(self, node: ast.Name | ast.Attribute, scope: Scope, outer: Scope) -> None:
        """Say a name, or a chain of attributes, by what it stands for."""
        chain: list[str] = []
        root: ast.expr = node
        while isinstance(root, ast.Attribute):
            chain.insert(0, root.attr)
            root = root.value
        there = None
        if not isinstance(root, ast.Name):
            self.node(root, scope, outer)
        elif not (isinstance(root.ctx, ast.Load) and (there := self.meaning(root.id, scope))):
            self.say(f"Name {root.id}")
        while isinstance(there, Reference) and not there.name and chain:
            there = self.project.resolve((there.module, chain.pop(0)))
        if isinstance(there, Reference):
            self.say("Name", "reports" if reports(there.module) else there)
        elif there:
            out = ".".join([there, *chain])
            self.say("Name", "reports" if reports(there) else out)
            chain = []
        for part in chain:
            self.say(f"Attribute {part}")

    def meaning(self, name: str, scope: Scope) -> Reference | str | None:
        """Return what a name stands for, None if it is a builtin or bound in a scope."""
        if name in scope:
            origin = scope[name]
            return self.project.resolve(origin) if origin else None
        if name in self.module.defined or name in self.module.imports:
            return self.project.resolve((self.module.name, name))
        return None


def _merged(values: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Join neighbours of fixed text in an f-string, which versions of Python split differently."""
    text = ""
    for value in values:
        if isinstance(value, ast.Constant):
            text += str(value.value)
            continue
        if text:
            yield ast.Constant(text)
        text = ""
        yield value
    if text:
        yield ast.Constant(text)


def _hash(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()
