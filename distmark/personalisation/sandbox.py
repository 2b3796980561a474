"""The template language of messages: its names, its values and its two environments, for text and for HTML."""

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, UndefinedError, nodes, pass_context
from jinja2.runtime import Context, LoopContext

from distmark.numbers import read_number
from distmark.personalisation.model import MAX_TEMPLATE_CHARACTERS, TemplateRefused
from distmark.template_language import LOOP_FACTS, MESSAGES, BoundedEnvironment, compiled_expression

ROOTS = frozenset(
    {
        "contact", "partner", "brand", "campaign", "journey", "blocks", "links",
        "legal_footer", "greeting", "lang", "unsubscribe_url", "pixel_url",
    }
)  # fmt: skip
# HTML is compiled with delimiters that no stylesheet or text holds, so a `{#` in CSS is only CSS.
SLOT_OPEN, SLOT_CLOSE = "\ue000", "\ue001"
TAG_OPEN, TAG_CLOSE = "\ue002", "\ue003"
DELIMITERS = (SLOT_OPEN, SLOT_CLOSE, TAG_OPEN, TAG_CLOSE, "\ue004", "\ue005")


class MissingValue(StrictUndefined):
    """A value that is not there: false in a condition, an error wherever it would be shown."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]
        return False


class TemplateFacts(dict[str, object]):
    """A mapping that knows its name, so that a missing value can be named in full."""

    __slots__ = ("label",)

    def __init__(self, label: str, values: Mapping[str, object]) -> None:
        super().__init__(values)
        self.label = label


class MessageEnvironment(BoundedEnvironment):
    """Reads mappings only, never an object's attributes; an empty fact counts as missing, except for a block left empty on purpose."""

    language = MESSAGES

    def __init__(self, **options: Any) -> None:
        super().__init__(undefined=MissingValue, finalize=_shown, **options)
        self.filters |= {"number": _number, "date": _date}

    def getattr(self, obj: object, attribute: str) -> object:
        return self.getitem(obj, attribute)

    def getitem(self, obj: object, argument: object) -> object:
        if isinstance(obj, TemplateFacts):
            return self._fact(obj, str(argument))
        if isinstance(obj, Mapping):
            return obj.get(str(argument), self.undefined(name=str(argument)))
        if isinstance(obj, LoopContext) and argument in LOOP_FACTS:
            return getattr(obj, str(argument))
        if isinstance(obj, list | tuple) and isinstance(argument, int) and -len(obj) <= argument < len(obj):
            return obj[argument]
        return self.undefined(name=str(argument))

    def _fact(self, facts: TemplateFacts, name: str) -> object:
        value = facts.get(name)
        if value is None or (isinstance(value, str) and not value.strip() and facts.label != "blocks"):
            return self.undefined(name=f"{facts.label}.{name}")
        return value


@pass_context
def _shown(context: Context, value: object) -> object:
    if value is None:
        raise UndefinedError("a slot came out empty")
    if isinstance(value, bool | Mapping | list | tuple):
        raise UndefinedError(f"a slot holds a {type(value).__name__.lower()}, which cannot be shown; name one of its values")
    return value


def _number(value: object) -> str:
    """1234567 as `1,234,567`, and 12.5 as `12.5`; a text as the number that it writes."""
    found = value if isinstance(value, int | float) else read_number(str(value))
    if found is None or not math.isfinite(found):
        raise UndefinedError("a number was expected")
    return f"{found:,}"


_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]
_WEEKDAYS = {"ja": "月火水木金土日", "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")}


@pass_context
def _date(context: Context, value: object, style: str = "long") -> str:
    """A date in the reader's language: 2026年11月21日, 21 November 2026; `weekday` adds the day, `short` leaves out the year."""
    day = dt.date.fromisoformat(value[:10]) if isinstance(value, str) else value
    if not isinstance(day, dt.date):
        raise UndefinedError("a date was expected")
    japanese = context.get("lang") == "ja"
    year = "" if style == "short" else (f"{day.year}年" if japanese else f" {day.year}")
    shown = f"{year}{day.month}月{day.day}日" if japanese else f"{day.day} {_MONTHS[day.month - 1]}{year}"
    if style != "weekday":
        return shown
    weekday = _WEEKDAYS["ja" if japanese else "en"][day.weekday()]
    return f"{shown}（{weekday}）" if japanese else f"{weekday} {shown}"


TEXT = MessageEnvironment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
HTML = MessageEnvironment(
    autoescape=True,
    variable_start_string=DELIMITERS[0],
    variable_end_string=DELIMITERS[1],
    block_start_string=DELIMITERS[2],
    block_end_string=DELIMITERS[3],
    comment_start_string=DELIMITERS[4],
    comment_end_string=DELIMITERS[5],
)


def template_tree(source: str, filename: str) -> nodes.Template:
    """Return the parsed `source` of a text template; TemplateRefused names file and line of anything outside the language."""
    if len(source) > MAX_TEMPLATE_CHARACTERS:
        raise TemplateRefused(filename, None, f"is {len(source)} characters long; at most {MAX_TEMPLATE_CHARACTERS} are allowed")
    try:
        tree = TEXT.parse(source)
        raw = next((line for line, kind, _ in TEXT.lex(source) if kind == "raw_begin"), None)
        if raw is not None:
            raise TemplateSyntaxError("raw would show slots unfilled", raw)
        return tree
    except TemplateSyntaxError as error:
        raise TemplateRefused(filename, error.lineno, str(error.message)) from error


def dotted_names(tree: nodes.Template, filename: str) -> frozenset[str]:
    """Return every name that a template reads, such as `contact.first_name` or `greeting`; an unknown root is refused."""
    local = {name.name for loop in tree.find_all(nodes.For) for name in loop.target.find_all(nodes.Name)} | _targets(tree) | {"loop"}
    found: set[str] = set()
    for name in tree.find_all(nodes.Name):
        if name.name in ROOTS:
            found.add(name.name)
        elif name.name not in local:
            raise TemplateRefused(filename, name.lineno, f"{name.name} is not a known name; use one of {', '.join(sorted(ROOTS))}")
    found |= {_dotted(node, filename) for node in (*tree.find_all(nodes.Getattr), *tree.find_all(nodes.Getitem))}
    return frozenset(found - {""})


def _targets(tree: nodes.Template) -> set[str]:
    return {loop.target.name for loop in tree.find_all(nodes.For) if isinstance(loop.target, nodes.Name)}


def _dotted(node: nodes.Expr, filename: str) -> str:
    if not isinstance(node, nodes.Getattr | nodes.Getitem) or not isinstance(node.node, nodes.Name):
        return ""
    root = node.node.name
    if isinstance(node, nodes.Getattr):
        return f"{root}.{node.attr}"
    if isinstance(node.arg, nodes.Const):
        return f"{root}.{node.arg.value}"
    if root in ROOTS:
        raise TemplateRefused(filename, node.lineno, f"{root}[...] needs a fixed name in quotes")
    return ""


_TOKEN_PATTERN = re.compile(r"slotq(\d+)qslot")


def token(number: int) -> str:
    """Return the word that stands for expression `number` while markup is parsed."""
    return f"slotq{number}qslot"


def slots_to_tokens(source: str, filename: str) -> tuple[str, list[str]]:
    """Return `source` with every `{{ ... }}` replaced by a word that survives markup parsers, and the expressions in order.

    Conditions and loops are refused: HTML parsers move them out of tables. Line numbers stay the same.
    """
    template_tree(source, filename)
    if _TOKEN_PATTERN.search(source) or any(mark in source for mark in DELIMITERS):
        raise TemplateRefused(filename, None, "holds characters that are kept for the renderer (slotq..qslot or U+E000 to U+E005)")
    pieces: list[str] = []
    expressions: list[str] = []
    inside = False
    for line, kind, value in TEXT.lex(source):
        if kind in ("block_begin", "comment_begin", "raw_begin"):
            raise TemplateRefused(filename, line, 'MJML may hold only {{ }} slots; hide an empty block with css-class="only-if-BLOCK"')
        if kind == "variable_begin":
            inside, opened = True, len(pieces)
        elif kind == "variable_end":
            inside = False
            expression = "".join(pieces[opened:])
            pieces[opened:] = [token(len(expressions)), "\n" * expression.count("\n")]
            expressions.append(expression.strip())
        else:
            pieces.append(value)
    assert not inside, "a slot that does not end is a syntax error, refused above"
    return "".join(pieces), expressions


def tokens_to_slots(text: str, expressions: list[str], opening: str, closing: str) -> str:
    """Return `text` with every token replaced by its expression between `opening` and `closing`."""
    return _TOKEN_PATTERN.sub(lambda found: f"{opening} {expressions[int(found[1])]} {closing}", text)


def token_numbers(text: str) -> list[int]:
    """Return the numbers of the tokens in `text`, in order."""
    return [int(number) for number in _TOKEN_PATTERN.findall(text)]


def is_only_token(text: str) -> bool:
    """Return whether `text` is one token and nothing else."""
    return _TOKEN_PATTERN.fullmatch(text.strip()) is not None


def compiled_text(source: str, filename: str) -> Template:
    """Return a text template ready to render."""
    template_tree(source, filename)
    return TEXT.from_string(source)


def compiled_slot(expression: str) -> Callable[[Mapping[str, Any]], object]:
    """Return a function from the names of a template to the value of one slot's expression."""
    return compiled_expression(TEXT, expression, MESSAGES)
