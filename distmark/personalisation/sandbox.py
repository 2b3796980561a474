"""The template language: Jinja2 in a sandbox with no calls, few filters and bounded loops. The only maker of environments."""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from itertools import islice

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, UndefinedError, nodes, pass_context
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from distmark.personalisation.model import MAX_TEMPLATE_CHARACTERS, TemplateRefused

ROOTS = frozenset(
    {
        "contact", "partner", "brand", "campaign", "journey", "blocks", "links",
        "legal_footer", "greeting", "lang", "unsubscribe_url", "pixel_url",
    }
)  # fmt: skip
MAX_ROUNDS = 50
MAX_LOOP_DEPTH = 2
# HTML is compiled with delimiters that no stylesheet or text holds, so a `{#` in CSS is only CSS.
SLOT_OPEN, SLOT_CLOSE = "\ue000", "\ue001"
TAG_OPEN, TAG_CLOSE = "\ue002", "\ue003"
DELIMITERS = (SLOT_OPEN, SLOT_CLOSE, TAG_OPEN, TAG_CLOSE, "\ue004", "\ue005")

# What a template may be made of. Left out on purpose: calls (ljust(10**9)), assignment (doubling a string in a row of lines),
# multiplication and powers, macros, inclusion.
_ALLOWED_NODES = frozenset(
    {
        "Template", "Output", "TemplateData", "For", "If", "Name", "Getattr", "Getitem", "Const", "Filter", "Keyword", "Test", "Compare",
        "Operand", "And", "Or", "Not", "CondExpr", "Concat", "Add", "Sub", "Neg", "List", "Tuple",
    }
)  # fmt: skip
_KEPT_FILTERS = (
    "default", "d", "upper", "lower", "capitalize", "title", "trim", "replace", "truncate", "round", "int", "join", "first", "last",
    "length", "escape", "e", "sort", "unique", "abs", "float", "string",
)  # fmt: skip
_LOOP_FACTS = ("index", "index0", "first", "last", "length")
_KEPT_TESTS = ("defined", "undefined", "none", "in", "eq", "ne", "gt", "ge", "lt", "le", "equalto", "even", "odd", "number", "string")


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


class MessageEnvironment(ImmutableSandboxedEnvironment):
    """Reads mappings only, never an object's attributes; an empty fact counts as missing, except for a block left empty on purpose."""

    def getattr(self, obj: object, attribute: str) -> object:
        return self.getitem(obj, attribute)

    def getitem(self, obj: object, argument: object) -> object:
        if isinstance(obj, TemplateFacts):
            return self._fact(obj, str(argument))
        if isinstance(obj, Mapping):
            return obj.get(str(argument), self.undefined(name=str(argument)))
        if isinstance(obj, LoopContext) and argument in _LOOP_FACTS:
            return getattr(obj, str(argument))
        if isinstance(obj, list | tuple) and isinstance(argument, int) and -len(obj) <= argument < len(obj):
            return obj[argument]
        return self.undefined(name=str(argument))

    def _fact(self, facts: TemplateFacts, name: str) -> object:
        value = facts.get(name)
        if value is None or (isinstance(value, str) and not value.strip() and facts.label != "blocks"):
            return self.undefined(name=f"{facts.label}.{name}")
        return value

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _refuse_forbidden(tree, 0)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_bounded", [], [], None, None)
        return tree


def _refuse_forbidden(node: nodes.Node, depth: int) -> None:
    kind = type(node).__name__
    if kind not in _ALLOWED_NODES:
        raise TemplateSyntaxError(
            f"{kind.lower()} is not part of the template language; use slots, conditions, loops and filters", node.lineno
        )
    if isinstance(node, nodes.Filter | nodes.Test) and node.name not in (filters := _known(node)):
        raise TemplateSyntaxError(f"there is no {kind.lower()} {node.name}; use one of {', '.join(filters)}", node.lineno)
    if isinstance(node, nodes.For):
        depth += 1
        if node.recursive or depth > MAX_LOOP_DEPTH:
            raise TemplateSyntaxError(f"loops nest deeper than {MAX_LOOP_DEPTH}; prepare the list in the data instead", node.lineno)
    for child in node.iter_child_nodes():
        _refuse_forbidden(child, depth)


def _known(node: nodes.Filter | nodes.Test) -> list[str]:
    return sorted(name for name in (TEXT.filters if isinstance(node, nodes.Filter) else TEXT.tests) if not name.startswith("_"))


def _bounded(values: Iterable[object]) -> list[object]:
    if isinstance(values, str | MissingValue):
        raise UndefinedError("a loop needs a list, and this is none")
    rounds = list(islice(values, MAX_ROUNDS + 1))
    if len(rounds) > MAX_ROUNDS:
        raise UndefinedError(f"a loop has more than {MAX_ROUNDS} rounds")
    return rounds


def _shown(value: object) -> object:
    if value is None:
        raise UndefinedError("a slot came out empty")
    if isinstance(value, bool | Mapping | list | tuple):
        raise UndefinedError(f"a slot holds a {type(value).__name__.lower()}, which cannot be shown; name one of its values")
    return value


def _number(value: object) -> str:
    """1234567 as `1,234,567`, and 12.5 as `12.5`."""
    return f"{value:,}" if isinstance(value, int | float) else f"{float(str(value)):,g}"


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


def _equip(environment: MessageEnvironment) -> MessageEnvironment:
    environment.filters = {name: environment.filters[name] for name in _KEPT_FILTERS}
    environment.filters |= {"number": _number, "date": _date, "_bounded": _bounded}
    environment.tests = {name: environment.tests[name] for name in _KEPT_TESTS}
    environment.globals = {}
    return environment


TEXT = _equip(
    MessageEnvironment(undefined=MissingValue, finalize=_shown, trim_blocks=True, lstrip_blocks=True, autoescape=False, cache_size=0)
)
HTML = _equip(
    MessageEnvironment(
        undefined=MissingValue,
        finalize=_shown,
        autoescape=True,
        cache_size=0,
        variable_start_string=DELIMITERS[0],
        variable_end_string=DELIMITERS[1],
        block_start_string=DELIMITERS[2],
        block_end_string=DELIMITERS[3],
        comment_start_string=DELIMITERS[4],
        comment_end_string=DELIMITERS[5],
    )
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
    """Whether `text` is one token and nothing else."""
    return _TOKEN_PATTERN.fullmatch(text.strip()) is not None


def compiled_text(source: str, filename: str) -> Template:
    """Return a text template ready to render."""
    template_tree(source, filename)
    return TEXT.from_string(source)
