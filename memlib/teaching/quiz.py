r"""Self-marked questions, one call a chapter, from `book/quizzes/*.json`.

The items follow jupyterquiz's schema, so the files work with it too. It is not used to show them:
it builds its markup by script (no questions without JavaScript or in print, all answers marked as
`<label>`s in a `<div>`), marks a choice while the arrow keys still pass over it, asks a question
with several right answers by radio buttons, fixes colors and sizes in its script, logs to the
console, and may load MathJax from a network. Here the questions are HTML from the start (fieldset,
legend, native inputs), a small script marks them (`explore/js/quiz.js`), a live region says the
result, and what was answered stays in the reader's browser until it is forgotten.
"""

import hashlib
import json
import math
import re
from html import escape
from pathlib import Path
from typing import Any

from memlib.teaching.explore import here
from memlib.teaching.explore.join import constant, join
from memlib.teaching.figures import display_html
from memlib.teaching.files import find
from memlib.teaching.style import KEYS, THEME_CSS

TYPES = ("multiple_choice", "many_choice", "numeric")
_ID = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")

CSS = """\
.ml-quiz{max-width:46rem;text-align:left}
.ml-quiz fieldset{min-width:0;margin:0 0 1.5rem;padding:0 0 0 1rem;border:0;\
border-left:3px solid var(--ml-muted,#747c85)}
.ml-quiz fieldset[data-state=right]{border-left-color:var(--ml-accent,#0e8a9e)}
.ml-quiz fieldset[data-state=wrong]{border-left:3px dashed var(--ml-second,#d9641e)}
.ml-quiz legend{float:left;width:100%;margin:0 0 .4rem;padding:0;font-size:1em;line-height:1.5;\
font-weight:600}
.ml-quiz legend+*{clear:both}
.ml-quiz .ml-option{display:flex;gap:.6rem;align-items:baseline;margin:0;padding:.3rem .5rem;\
border-radius:.3rem;cursor:pointer}
.ml-quiz .ml-option:hover{background:color-mix(in srgb,currentColor 7%,transparent)}
.ml-option input{flex:none;width:1.05rem;height:1.05rem;margin:0;transform:translateY(.15rem);\
accent-color:var(--ml-accent,#0e8a9e)}
.ml-quiz .ml-number{margin:0;padding:.3rem .5rem}
.ml-number input{width:9rem;margin-left:.5rem;padding:.2rem .4rem;font:inherit;color:inherit;\
background:none;border:1px solid var(--ml-muted,#747c85);border-radius:.3rem}
.ml-quiz .ml-check,.ml-quiz .ml-forget{margin:.4rem 0 0 .5rem;padding:.25rem .9rem;font:inherit;\
color:inherit;\
background:none;border:1px solid var(--ml-muted,#747c85);border-radius:.4rem;cursor:pointer}
.ml-quiz .ml-check:hover,.ml-quiz .ml-forget:hover{border-color:var(--ml-accent,#0e8a9e)}
.ml-quiz :focus-visible{outline:2px solid var(--ml-accent,#0e8a9e);outline-offset:2px}
.ml-quiz .ml-said,.ml-quiz .ml-key,.ml-quiz .ml-more{margin:.4rem 0 0 .5rem}
.ml-said b{color:var(--ml-second,#d9641e)}
[data-state=right] .ml-said b{color:var(--ml-accent,#0e8a9e)}
.ml-key ul{margin:.3rem 0 0;padding-left:1.2rem}
.ml-score{font-weight:600}
.ml-quiz .ml-said:empty,.ml-score:empty,.ml-quiz [hidden]{display:none}
@media print{.ml-check,.ml-forget{display:none}}
"""


def quiz(name: str) -> None:
    """Show the questions of `book/quizzes/NAME.json`.

    Args:
        name: The chapter, such as `key_value`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file does not follow the schema; the message names the item.
    """
    items = load(find(f"quizzes/{name}.json"))
    display_html(quiz_html(items, name), quiz_text(items))


def load(path: Path) -> list[dict[str, Any]]:
    """Return the validated items of a quiz file."""
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} must be JSON; {error}") from None
    validate(items, path.name)
    return list(items)


def validate(items: Any, source: str = "quiz") -> None:
    """Raise ValueError unless items is a list of questions that follow the schema.

    An item holds `id`, `question`, `type` and `answers`, and may hold `chapter` (a link with
    `text` and `href`). An answer holds `answer`, `correct` and `feedback`; one of a numeric item
    holds `type` ("value" with `value` and, if wished, `tolerance`; "range" with `range`;
    "default") in place of `answer`.
    """
    if not isinstance(items, list) or not items:
        raise ValueError(f"{source} must hold a list of items; got {type(items).__name__}")
    seen: set[str] = set()
    for number, item in enumerate(items, 1):
        where = f"{source}, item {number}"
        _need(item, {"id": str, "question": str, "type": str, "answers": list}, where)
        _only(item, {"id", "question", "type", "answers", "chapter"}, where)
        where += f" ({item['id']})"
        if not _ID.fullmatch(item["id"]) or item["id"] in seen:
            raise ValueError(f"{where}: id must be unique, of a-z, 0-9 and '-'; got {item['id']!r}")
        seen.add(item["id"])
        if item["type"] not in TYPES:
            raise ValueError(f"{where}: type must be one of {TYPES}; got {item['type']!r}")
        _validate_answers(item, where)
        if "chapter" in item:
            _need(item["chapter"], {"text": str, "href": str}, f"{where}, chapter")
            if re.match(r"[a-z]+:|/", item["chapter"]["href"]):
                raise ValueError(f"{where}: href must be relative; got {item['chapter']['href']!r}")
    places = {
        tuple(i for i, answer in enumerate(item["answers"]) if answer["correct"])
        for item in items
        if item["type"] == "multiple_choice"
    }
    if len(places) == 1 and sum(item["type"] == "multiple_choice" for item in items) > 3:
        raise ValueError(f"{source}: the right option stands in the same place in every item")


def _validate_answers(item: dict[str, Any], where: str) -> None:
    numeric = item["type"] == "numeric"
    for number, answer in enumerate(item["answers"], 1):
        place = f"{where}, answer {number}"
        common = {"correct": bool, "feedback": str}
        _need(answer, common | ({"type": str} if numeric else {"answer": str}), place)
        if not numeric:
            _only(answer, {"answer", "correct", "feedback"}, place)
            continue
        fields: dict[str, dict[str, Any]] = {
            "value": {"value": (int, float)},
            "range": {"range": list},
            "default": {},
        }
        if answer["type"] not in fields:
            raise ValueError(
                f"{place}: type must be one of {tuple(fields)}; got {answer['type']!r}"
            )
        _need(answer, fields[answer["type"]], place)
        _only(answer, {"type", "value", "tolerance", "range", "correct", "feedback"}, place)
        low, high = _bounds(answer)
        if not low <= high:
            raise ValueError(f"{place}: range must be [low, high]; got {answer.get('range')}")
        if answer["type"] == "default" and (answer["correct"] or answer is not item["answers"][-1]):
            raise ValueError(f"{place}: the default must be wrong and come last")
    right = sum(answer["correct"] for answer in item["answers"])
    if item["type"] == "multiple_choice" and right != 1:
        raise ValueError(f"{where}: exactly one answer must be correct; got {right}")
    if not right:
        raise ValueError(f"{where}: at least one answer must be correct; got none")
    if not numeric and len(item["answers"]) < 2:
        raise ValueError(f"{where}: answers must hold at least 2; got {len(item['answers'])}")
    if numeric and item["answers"][-1]["type"] != "default":
        raise ValueError(f"{where}: the last answer must be the default: feedback on any other")


def _need(value: Any, fields: dict[str, Any], where: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object; got {type(value).__name__}")
    for key, kind in fields.items():
        if key not in value:
            raise ValueError(f"{where}: {key} is missing")
        wrong = not isinstance(value[key], kind)
        if wrong or (isinstance(value[key], str) and not value[key].strip()):
            rule = f"{key} must be a non-empty {_kind(kind)}"
            raise ValueError(f"{where}: {rule}; got {value[key]!r}")


def _only(value: dict[str, Any], fields: set[str], where: str) -> None:
    if unknown := sorted(set(value) - fields):
        raise ValueError(f"{where}: unknown field {unknown[0]!r}; known are {sorted(fields)}")


def _kind(kind: Any) -> str:
    names = {str: "string", list: "list", bool: "true or false"}
    return names.get(kind, "number")


def _bounds(answer: dict[str, Any]) -> tuple[float, float]:
    """Return the numbers (low, high) that get this answer of a numeric item."""
    if answer["type"] == "range":
        ends = answer["range"]
        if len(ends) != 2 or not all(isinstance(end, int | float) for end in ends):
            return math.nan, math.nan
        return ends[0], ends[1]
    if answer["type"] == "default":
        return -math.inf, math.inf
    slack = abs(answer.get("tolerance", 1e-9 * max(1.0, abs(answer["value"]))))
    return answer["value"] - slack, answer["value"] + slack


def quiz_text(items: list[dict[str, Any]]) -> str:
    """Return the questions and options as plain text, for where there is no HTML."""
    lines = []
    for number, item in enumerate(items, 1):
        lines.append(f"{number}. {item['question']}")
        lines += [f"   - {a['answer']}" for a in item["answers"] if "answer" in a]
    return "\n".join(lines)


def quiz_html(items: list[dict[str, Any]], name: str) -> str:
    """Return the questions as HTML that stands alone."""
    root = "quiz-" + name.replace("_", "-")
    questions = "".join(_item_html(item, number, root) for number, item in enumerate(items, 1))
    title = "Quiz: " + name.replace("_", " ").replace("-", " ")
    return (
        f"<style>{THEME_CSS}{CSS}</style>"
        f'<div class="ml-quiz" id="{root}" role="group" aria-label="{escape(title)}">'
        f'{questions}<p class="ml-score" role="status"></p>'
        f"<script>(() => {{\n{join('quiz.js')}{constant('quiz.js')}.quiz({here(root)});\n}})();"
        "</script></div>"
    )


def _item_html(item: dict[str, Any], number: int, root: str) -> str:
    key = f"{root}-{item['id']}"
    kind = "checkbox" if item["type"] == "many_choice" else "radio"
    if item["type"] == "numeric":
        options = (
            '<p class="ml-number"><label>Your answer:'
            '<input type="text" inputmode="decimal" autocomplete="off"></label></p>'
        )
    else:
        options = "".join(
            f'<label class="ml-option"><input type="{kind}" name="{key}" {KEYS}>'
            f"<span>{rich(answer['answer'])}</span></label>"
            for answer in item["answers"]
        )
    return (
        f'<fieldset id="{key}" data-type="{item["type"]}" data-digest="{_digest(item)}">'
        f"<legend>{number}. {rich(item['question'])}</legend>{options}"
        '<button type="button" class="ml-check" hidden>Check</button>'
        '<p class="ml-said" role="status"></p>'
        f"{_explanations(item)}</fieldset>"
    )


def _digest(item: dict[str, Any]) -> str:
    """What tells an item from what it was when it was answered."""
    text = json.dumps(item, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _explanations(item: dict[str, Any]) -> str:
    rows = []
    for answer in item["answers"]:
        data = f'data-right="{int(answer["correct"])}"'
        if item["type"] == "numeric" and answer["type"] != "default":
            low, high = _bounds(answer)
            data += f' data-low="{low!r}" data-high="{high!r}"'
        verdict = "right" if answer["correct"] else "wrong"
        rows.append(
            f"<li {data}><strong>{_option(answer)}</strong> ({verdict}): "
            f'<span class="ml-why">{rich(answer["feedback"])}</span></li>'
        )
    link = item.get("chapter")
    read = f'<a href="{escape(link["href"])}">{rich(link["text"])}</a>' if link else ""
    more = f'<p class="ml-more">Read more: {read}</p>' if link else ""
    return (
        '<details class="ml-key"><summary>Every answer explained</summary>'
        f"<ul>{''.join(rows)}</ul></details>{more}"
    )


def _option(answer: dict[str, Any]) -> str:
    if "answer" in answer:
        return rich(answer["answer"])
    if answer["type"] == "range":
        low, high = answer["range"]
        return f"{low:g} to {high:g}"
    return f"{answer['value']:g}" if answer["type"] == "value" else "any other number"


def rich(text: str) -> str:
    """Return text as HTML: escaped, with `code` and $math$ (for the page's MathJax)."""
    parts = re.split(r"(`[^`]+`|\$[^$]+\$)", text)
    return "".join(_rich_part(part) for part in parts)


def _rich_part(part: str) -> str:
    if len(part) > 2 and part[0] == part[-1] == "`":
        return f"<code>{escape(part[1:-1])}</code>"
    if len(part) > 2 and part[0] == part[-1] == "$":
        return f'<span class="math notranslate nohighlight">\\({escape(part[1:-1])}\\)</span>'
    return escape(part, quote=False)
