"""Join ES modules into one inline script: browsers refuse to import modules from `file://`.

A module becomes a function that is called at once and returns what it exports; an import becomes
a look at that. The modules keep to a small part of the language, and anything else is refused:
`import { a, b as c } from "./file.js";` and `export` before a function, class or const.
"""

import re
from pathlib import Path

JS = Path(__file__).parent / "js"
_IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.\.?/[\w./]+\.js)";$', re.M)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|class|const) (\w+))", re.M)
_OTHER = re.compile(r"^\s*(?:import\b|export\b).*|\bimport\(.*|<(?:/script|!--).*", re.M)
_COMMENT = re.compile(r"^\s*(?:/\*(?:(?!\*/).)*\*/|//[^\n]*)\n", re.M | re.S)


def join(*names: str, root: Path = JS) -> str:
    """Return one script in which each module is a constant: `pages/ntm.js` is `$pages_ntm`.

    Args:
        *names: Modules that are wanted, by their path below `root`; what they import comes along.
        root: The folder of the modules.

    Raises:
        FileNotFoundError: There is no such module.
        ValueError: Modules import one another in a circle, or use what is not understood here.
    """
    return '"use strict";\n' + "".join(_modules(names, root).values())


def styles(*names: str, root: Path = JS) -> str:
    """Return the style sheets that stand beside modules and what they import, without indents."""
    sheets = ((root / name).with_suffix(".css") for name in _modules(names, root))
    text = "".join(sheet.read_text(encoding="utf-8") for sheet in sheets if sheet.exists())
    return re.sub(r"\s*\n\s*", " ", text)  # a space, which may part two words


def constant(name: str) -> str:
    """Return the name of a module's constant in the joined script."""
    return "$" + name.removesuffix(".js").replace("/", "_")


def _modules(names: tuple[str, ...], root: Path) -> dict[str, str]:
    """Each module by its path, joined, after all that it imports."""
    done: dict[str, str] = {}
    for name in names:
        _add((root / name).resolve(), root.resolve(), done, [])
    return done


def _add(path: Path, root: Path, done: dict[str, str], above: list[str]) -> None:
    name = path.relative_to(root).as_posix()
    if name in above:
        raise ValueError(f"modules must not import in a circle: {' > '.join([*above, name])}")
    if name in done:
        return
    text = _COMMENT.sub("", path.read_text(encoding="utf-8") + "\n")
    for match in _IMPORT.finditer(text):
        _add((path.parent / match[2]).resolve(), root, done, [*above, name])
    exports = ", ".join(match[1] for match in _EXPORT.finditer(text))
    body = _IMPORT.sub(lambda match: _look(match, path, root), text)
    body = _EXPORT.sub("", body).strip()
    if wrong := _OTHER.search(body):
        raise ValueError(f"{name}: this form is not joined: {wrong[0].strip()!r}")
    done[name] = f"const {constant(name)} = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();\n"


def _look(match: re.Match[str], path: Path, root: Path) -> str:
    module = (path.parent / match[2]).resolve().relative_to(root).as_posix()
    names = " ".join(match[1].split()).rstrip(",").replace(" as ", ": ")
    return f"const {{ {names} }} = {constant(module)};"
