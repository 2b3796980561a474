"""The language of conditions, texts and message templates: its allowed parts, and the bounds of their evaluation.

One allow-list of nodes, filters, tests and methods; everything else is refused with its line when a template is read. Nothing is
evaluated while a template is compiled. The rooms add their names and meanings: `journeys.expressions`, `personalisation.sandbox`.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial, wraps
from itertools import islice
from typing import Any, TypeVar

from jinja2 import TemplateSyntaxError, Undefined, nodes, pass_context, pass_eval_context
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS as JINJA_TESTS
from markupsafe import Markup, escape

from distmark.numbers import read_number

_Tree = TypeVar("_Tree", bound=nodes.Node)

MAX_DEPTH = 80  # nodes in nodes: a longer chain could be read but not compiled
MAX_LOOP_DEPTH = 2
MAX_ROUNDS = 50  # of one loop
MAX_STEPS = 200_000  # nodes evaluated, when every loop has all its rounds
MAX_VALUE_CHARACTERS = 20_000  # of one value
MAX_WORK = 5_000_000  # characters of all values that one rendering makes on its way
MAX_INTEGER_BITS = 128
MAX_PLACES = 10  # of a rounded number
MAX_FORMAT = 50

_VALUES = (
    "Name", "Const", "Getattr", "Getitem", "Slice", "Call", "Filter", "Keyword", "Test", "Compare", "Operand", "And", "Or", "Not",
    "CondExpr", "Concat", "Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Neg", "Pos", "List", "Tuple",
)  # fmt: skip
_STATEMENTS = ("Template", "Output", "TemplateData", "For", "If")

FILTERS = (
    "abs", "capitalize", "d", "default", "first", "float", "int", "join", "last", "length", "lower", "replace", "round", "sort", "string",
    "title", "trim", "truncate", "unique", "upper",
)  # fmt: skip
MESSAGE_FILTERS = (*FILTERS, "date", "e", "escape", "number")
TESTS = (
    "defined", "undefined", "none", "in", "eq", "equalto", "==", "ne", "!=", "lt", "lessthan", "<", "le", "<=", "gt", "greaterthan", ">",
    "ge", ">=", "string", "number", "true", "false", "boolean", "integer", "float", "odd", "even", "divisibleby", "mapping", "sequence",
    "iterable", "lower", "upper",
)  # fmt: skip
LOOP_FACTS = ("index", "index0", "revindex", "first", "last", "length")
_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "lteq": operator.le, "gt": operator.gt, "gteq": operator.ge,
}  # fmt: skip
_COMPARING_TESTS = {
    "eq": "eq", "equalto": "eq", "==": "eq", "ne": "ne", "!=": "ne", "lt": "lt", "lessthan": "lt", "<": "lt", "le": "lteq", "<=": "lteq",
    "gt": "gt", "greaterthan": "gt", ">": "gt", "ge": "gteq", ">=": "gteq",
}  # fmt: skip

# How people call what a template must not hold, where the node's own name would tell them nothing.
_NODE_WORDS = {
    "Assign": "{% set %}", "AssignBlock": "{% set %}", "Macro": "{% macro %}", "CallBlock": "{% call %}", "FilterBlock": "{% filter %}",
    "With": "{% with %}", "Block": "{% block %}", "Extends": "{% extends %}", "Include": "{% include %}", "Import": "{% import %}",
    "FromImport": "{% from %}", "ScopedEvalContextModifier": "{% autoescape %}", "Pow": "**", "Mul": "*", "Div": "/", "FloorDiv": "//",
    "Mod": "%", "Dict": "{...}", "Pair": "{...}", "Slice": "[a:b]",
}  # fmt: skip


class LanguageError(TemplateSyntaxError):
    """A template holds something outside the language; `message` says it in English, `japanese` in Japanese."""

    def __init__(self, message: str, japanese: str, line: int) -> None:
        super().__init__(message, line)
        self.japanese = japanese


class UnknownFilter(LanguageError):
    """A template uses a filter that does not exist: `filter`."""

    def __init__(self, name: str, known: Sequence[str], line: int) -> None:
        names = ", ".join(known)
        self.filter = name
        super().__init__(f"there is no filter {name}; use one of {names}", f"フィルター {name} はありません。使えるもの：{names}", line)


class BoundExceeded(TemplateRuntimeError):
    """A value or an output grew past its bound."""


@dataclass(frozen=True, slots=True)
class Language:
    """One of the three uses of the language: its nodes, filters and tests, and the functions and methods that may be called."""

    filters: tuple[str, ...]
    statements: bool = True
    functions: bool = True
    arithmetic: bool = True

    @property
    def nodes(self) -> frozenset[str]:
        """The names of the nodes that a template of this use may hold."""
        without = ({"Mul", "Div", "FloorDiv", "Mod", "Pos", "Slice"} if not self.arithmetic else set()) | (
            {"Call"} if not self.functions else set()
        )
        return frozenset({*_VALUES, *(_STATEMENTS if self.statements else ())} - without)


CONDITIONS = Language(FILTERS, statements=False)
TEXTS = Language(FILTERS)
MESSAGES = Language(MESSAGE_FILTERS, functions=False, arithmetic=False)


# --- reading -----------------------------------------------------------------------------------------------------------------------------


def parse_template(environment: "BoundedEnvironment", source: str, language: Language) -> nodes.Template:
    """Return the parsed template; TemplateSyntaxError, mostly LanguageError, with the line of the first thing outside the language."""
    return _accepted(read_template(environment, source), language)


def read_template(environment: "BoundedEnvironment", source: str) -> nodes.Template:
    """Return the parsed template, whatever it holds; TemplateSyntaxError when it cannot be read at all."""
    tree: nodes.Template = _read_tree(environment, source, None)
    return tree


def parse_expression(environment: "BoundedEnvironment", source: str, language: Language = CONDITIONS) -> nodes.Expr:
    """Return the parsed expression; TemplateSyntaxError as in `parse_template`."""
    tree: nodes.Expr = _read_tree(environment, source, "variable")
    return _accepted(tree, language)


def _read_tree(environment: "BoundedEnvironment", source: str, state: str | None) -> Any:
    parser = None
    try:
        parser = Parser(environment, source, state=state)
        tree = parser.parse() if state is None else parser.parse_expression()
    except RecursionError:
        raise _too_deep(_line_of(parser)) from None
    except (ValueError, OverflowError) as error:  # a number of thousands of digits
        raise LanguageError(
            "a number or a text in it cannot be read", "読み取れない数値または文字列があります", _line_of(parser)
        ) from error
    if state is not None and not parser.stream.eos:
        found = parser.stream.current
        raise TemplateSyntaxError(f"unexpected {found}", found.lineno, None, None)
    tree.set_environment(environment)
    return tree


def _line_of(parser: Parser | None) -> int:
    return parser.stream.current.lineno if parser is not None else 1


def _too_deep(line: int) -> LanguageError:
    return LanguageError(
        f"it nests deeper than {MAX_DEPTH} levels; write it shorter", f"入れ子が {MAX_DEPTH} 段を超えています。短くしてください", line
    )


def _accepted(tree: _Tree, language: Language) -> _Tree:
    violation = next(violations(tree, language), None)
    if violation is not None:
        raise violation
    return tree


def violations(tree: nodes.Node, language: Language) -> Iterator[LanguageError]:
    """Yield the parts of the tree that are not of the language or make its evaluation too long, in the order of the text."""
    allowed, steps, line = language.nodes, 0, 1
    waiting: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    while waiting:
        node, depth, loops = waiting.pop()
        line = node.lineno or line
        if depth > MAX_DEPTH:
            yield _too_deep(line)
            return
        try:
            _refuse_node(node, language, allowed, line)
        except LanguageError as error:
            yield error
        if isinstance(node, nodes.For):
            loops += 1
        if loops > MAX_LOOP_DEPTH:
            yield LanguageError(
                f"loops nest deeper than {MAX_LOOP_DEPTH}; prepare the list in the data instead",
                f"繰り返しの入れ子は {MAX_LOOP_DEPTH} 段までです。データの側で一覧を用意してください",
                line,
            )
            return
        steps += MAX_ROUNDS**loops
        if steps > MAX_STEPS:
            yield LanguageError(
                f"its loops could take more than {MAX_STEPS:,} steps; write less inside of them",
                f"繰り返しの処理が {MAX_STEPS:,} 回を超えるおそれがあります。中身を減らしてください",
                line,
            )
            return
        waiting.extend((child, depth + 1, loops) for child in reversed(list(node.iter_child_nodes())))


def _refuse_node(node: nodes.Node, language: Language, allowed: frozenset[str], line: int) -> None:
    kind = type(node).__name__
    if kind not in allowed:
        shown = _NODE_WORDS.get(kind, kind.lower())
        raise LanguageError(
            f"{shown} is not part of the template language; use slots, conditions, loops and filters",
            f"{shown} は使えません。差し込み、条件、繰り返し、フィルターで書いてください",
            line,
        )
    if check := _CHECKS.get(type(node)):
        check(node, language, line)


def _check_filter(node: nodes.Filter, language: Language, line: int) -> None:
    _check_arguments(node, line)
    if node.name not in language.filters:
        raise UnknownFilter(node.name, language.filters, line)
    places = next(iter(node.args), None) or next((each.value for each in node.kwargs if each.key == "precision"), None)
    if node.name == "round" and isinstance(places, nodes.Const) and not _are_places(places.value):
        raise LanguageError(f"round takes {-MAX_PLACES} to {MAX_PLACES} places", f"round の桁数は {-MAX_PLACES}〜{MAX_PLACES} です", line)


def _are_places(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_PLACES


def _check_test(node: nodes.Test, language: Language, line: int) -> None:
    _check_arguments(node, line)
    if node.name not in TESTS:
        names = ", ".join(name for name in TESTS if name.isalpha())
        raise LanguageError(
            f"there is no test {node.name}; use one of {names}", f"テスト {node.name} はありません。使えるもの：{names}", line
        )


def _check_arguments(node: nodes.Call | nodes.Filter | nodes.Test, line: int) -> None:
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        raise LanguageError("arguments cannot be unpacked with *", "引数を * で展開することはできません", line)


def _check_call(node: nodes.Call, language: Language, line: int) -> None:
    _check_arguments(node, line)
    if isinstance(node.node, nodes.Name) or (isinstance(node.node, nodes.Getattr) and node.node.attr in METHODS):
        return
    name = node.node.attr if isinstance(node.node, nodes.Getattr) else "..."
    methods = ", ".join(METHODS)
    raise LanguageError(
        f"{name}(...) cannot be called; of a value one may call {methods}",
        f"{name}(...) は呼び出せません。値に対して使えるもの：{methods}",
        line,
    )


def _check_attribute(node: nodes.Getattr, language: Language, line: int) -> None:
    if node.attr.startswith("__"):
        raise LanguageError(f"there is no way to {node.attr}", f"{node.attr} は使えません", line)


def _check_name(node: nodes.Name, language: Language, line: int) -> None:
    if node.name == "self" or node.name.startswith("__"):  # self is the one name that Jinja itself puts into every template
        raise LanguageError(f"there is no name {node.name}", f"{node.name} という名前はありません", line)


def _check_constant(node: nodes.Const, language: Language, line: int) -> None:
    value = node.value
    if value.bit_length() > MAX_INTEGER_BITS if isinstance(value, int) else isinstance(value, float) and not math.isfinite(value):
        raise LanguageError("a number in it is too long", "桁数の多すぎる数値があります", line)
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise LanguageError("a text in it holds half of a character", "文字の半分だけを含む文字列があります", line)


def _check_repeat(node: nodes.BinExpr, language: Language, line: int) -> None:
    # Whatever is no constant is looked at when it is evaluated.
    if any(_is_text(side) for side in ((node.left,) if node.operator == "%" else (node.left, node.right))):
        raise LanguageError(f"{node.operator} is for numbers, not for texts", f"{node.operator} は数値にだけ使えます", line)


def _is_text(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.List | nodes.Tuple | nodes.Concat) or (isinstance(node, nodes.Const) and isinstance(node.value, str))


def _check_slice(node: nodes.Slice, language: Language, line: int) -> None:
    if node.step is not None:
        raise LanguageError("a part is written [a:b], without a step", "範囲は [a:b] の形で、間隔なしで書いてください", line)


def _check_loop(node: nodes.For, language: Language, line: int) -> None:
    if node.recursive:
        raise LanguageError("a loop cannot call itself", "繰り返しの中で自分自身は呼び出せません", line)
    for name in node.target.find_all(nodes.Name):
        if name.name == "loop":
            raise LanguageError("a loop's own name cannot be loop", "繰り返しの変数名に loop は使えません", line)


_CHECKS: Mapping[type[nodes.Node], Callable[[Any, Language, int], None]] = {
    nodes.Filter: _check_filter,
    nodes.Test: _check_test,
    nodes.Call: _check_call,
    nodes.Getattr: _check_attribute,
    nodes.Name: _check_name,
    nodes.Const: _check_constant,
    nodes.Mul: _check_repeat,
    nodes.Mod: _check_repeat,
    nodes.Slice: _check_slice,
    nodes.For: _check_loop,
}


class _Guarded:
    """Puts the bounded forms in place of loops, of joined texts and of comparisons, just before a tree is compiled."""

    def __init__(self, environment: "BoundedEnvironment") -> None:
        self._environment = environment

    def tree(self, tree: nodes.Node) -> nodes.Node:
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = self._call("_loop_items", loop.iter, [], loop.lineno)
        # Children before their parents, so that what a parent takes over is guarded already.
        for node in reversed([tree, *tree.find_all(nodes.Node)]):
            for name, value in list(node.iter_fields()):
                if isinstance(value, list):
                    setattr(node, name, [self._guarded(item) for item in value])
                else:
                    setattr(node, name, self._guarded(value))
        return tree

    def _guarded(self, node: Any) -> Any:
        if isinstance(node, nodes.Concat):
            return self._call("_joined", nodes.List(node.nodes, lineno=node.lineno), [], node.lineno)
        if isinstance(node, nodes.Compare) and all(each.op in _COMPARISONS for each in node.ops):
            others = [part for each in node.ops for part in (nodes.Const(each.op, lineno=node.lineno), each.expr)]
            return self._call("_compared", node.expr, others, node.lineno)
        return node

    def _call(self, name: str, value: nodes.Node, args: list[nodes.Expr], line: int) -> nodes.Filter:
        made = nodes.Filter(value, name, args, [], None, None, lineno=line)
        made.environment = self._environment
        return made


# --- evaluating --------------------------------------------------------------------------------------------------------------------------

_work: ContextVar[list[int] | None] = ContextVar("work", default=None)


@contextmanager
def bounded_work(limit: int = MAX_WORK) -> Iterator[None]:
    """Within it, the values that templates make on their way may have `limit` characters in all; BoundExceeded past that."""
    mark = _work.set([limit])
    try:
        yield
    finally:
        _work.reset(mark)


def spend(amount: int) -> None:
    """Count `amount` characters against the bound of this rendering, if there is one."""
    left = _work.get()
    if left is not None:
        left[0] -= amount + 1
        if left[0] < 0:
            raise BoundExceeded("it takes too much work to fill in; write less inside of its loops")


def gathered(pieces: Iterable[str], limit: int) -> str:
    """Return the joined pieces of a rendering; BoundExceeded as soon as they are longer than `limit`."""
    found, length = [], 0
    for piece in pieces:
        length += len(piece)
        if length > limit:
            raise BoundExceeded(f"it comes out longer than {limit} characters")
        found.append(piece)
    return "".join(found)


def _sized(value: Any) -> Any:
    """Return the value when its size is within the bound; BoundExceeded otherwise."""
    if isinstance(value, str | list | tuple):
        _fits(len(value))
    return value


def _fits(length: int) -> None:
    if length > MAX_VALUE_CHARACTERS:
        raise BoundExceeded(f"a value comes out longer than {MAX_VALUE_CHARACTERS} characters")
    spend(length)


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the filter with its result bounded, and with every odd argument told as an error of the template."""

    @wraps(function)
    def run(*args: Any, **named: Any) -> Any:
        try:
            return _sized(function(*args, **named))
        except (AssertionError, AttributeError, LookupError, RecursionError) as error:
            raise TemplateRuntimeError(f"{function.__name__.removeprefix('do_').strip('_')} cannot be used like this ({error})") from error

    return run


def _loop_items(values: Any) -> list[Any]:
    if isinstance(values, str | Undefined | Mapping) or not isinstance(values, Iterable):
        raise TemplateRuntimeError("a loop needs a list, and this is none")
    items = list(islice(values, MAX_ROUNDS + 1))
    if len(items) > MAX_ROUNDS:
        raise TemplateRuntimeError(f"a loop has more than {MAX_ROUNDS} rounds")
    spend(len(items))
    return items


@pass_eval_context
def _joined(context: nodes.EvalContext, values: Sequence[Any]) -> str:
    written = [value if isinstance(value, str) else str(value) for value in values]
    _fits(sum(len(each) for each in written))
    if context.autoescape:
        return Markup("").join(escape(value) for value in values)
    return "".join(written)


def is_number(value: object) -> bool:
    """Return whether the value is a number; yes and no are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_operands(left: Any, right: Any) -> tuple[Any, Any]:
    """Return both sides of a comparison or a sum: a text beside a number is read as the number that it writes, when it writes one."""
    if isinstance(left, str) and is_number(right):
        found = read_number(left)
        return (left if found is None else found), right
    if isinstance(right, str) and is_number(left):
        found = read_number(right)
        return left, (right if found is None else found)
    return left, right


def _compared(left: Any, *others: Any) -> bool:
    if len(others) == 2 and type(left) is type(others[1]):  # most comparisons
        return bool(_COMPARISONS[others[0]](left, others[1]))
    for name, right in zip(others[::2], others[1::2], strict=True):
        if not _COMPARISONS[name](*as_operands(left, right)):
            return False
        left = right
    return True


def _comparing_test(name: str) -> Callable[[Any, Any], bool]:
    def holds(value: Any, other: Any) -> bool:
        return _compared(value, name, other)

    return holds


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    if isinstance(value, str):
        value = _number_of(value)
    if not _are_places(precision):
        raise TemplateRuntimeError(f"round takes {-MAX_PLACES} to {MAX_PLACES} places")
    if method not in ("common", "ceil", "floor"):
        raise TemplateRuntimeError("round is common, ceil or floor")
    if isinstance(value, Undefined) or method == "common":
        return round(value, precision)
    return getattr(math, method)(value * 10**precision) / 10**precision


def _number_of(written: str) -> int | float:
    found = read_number(written)
    if found is None:
        raise TemplateRuntimeError("a text is no number")
    return found


def _int(value: Any, default: Any = 0) -> Any:
    found = _read(value)
    return default if found is None else int(found)


def _float(value: Any, default: Any = 0.0) -> Any:
    found = _read(value)
    return default if found is None else float(found)


def _read(value: Any) -> int | float | None:
    if isinstance(value, str):
        return read_number(value)
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _replace(value: Any, old: Any, new: Any, count: int = -1) -> str:
    text, before, after = str(value), str(old), str(new)
    if before == "":
        raise TemplateRuntimeError("replace needs a text to look for")
    found = text.count(before) if count < 0 else min(text.count(before), count)
    _fits(len(text) + found * (len(after) - len(before)))
    if isinstance(value, Markup):
        return value.replace(before, escape(new), count)
    return text.replace(before, after, count)


def _join(values: Any, separator: Any = "") -> str:
    if isinstance(values, str | Undefined) or not isinstance(values, Iterable):
        return str(values)
    written, between = [str(value) for value in values], str(separator)
    _fits(sum(len(each) for each in written) + len(between) * len(written))
    return between.join(written)


@pass_eval_context
def _join_in_context(context: nodes.EvalContext, values: Any, d: Any = "") -> str:
    joined = _join(values, d)
    if context.autoescape and not isinstance(values, str | Undefined):
        return escape(d).join(escape(value) for value in values)
    return joined


def _strftime(value: date, form: str) -> str:
    # A width such as %999999999Y fills the memory.
    if len(form) > MAX_FORMAT or re.search(r"%[^A-Za-z%]", form):
        raise TemplateRuntimeError("strftime takes letters such as %Y and %m, without widths")
    return value.strftime(form)


_TEXT_METHODS: Mapping[str, Callable[..., Any]] = {
    "replace": _replace,
    **{
        name: getattr(str, name)
        for name in (
            "capitalize", "count", "endswith", "find", "isalpha", "isdigit", "lower", "lstrip", "removeprefix", "removesuffix", "rstrip",
            "split", "startswith", "strip", "title", "upper",
        )
    },
}  # fmt: skip
_DATE_FACTS = ("year", "month", "day", "hour", "minute", "second")
_DATE_METHODS: Mapping[str, Callable[..., Any]] = {
    "date": lambda value: value.date() if isinstance(value, datetime) else value,
    "isoformat": lambda value: value.isoformat(),
    "isoweekday": lambda value: value.isoweekday(),
    "strftime": _strftime,
    "weekday": lambda value: value.weekday(),
}
METHODS = tuple(sorted({*_TEXT_METHODS, *_DATE_METHODS}))
_OWN_FILTERS: Mapping[str, Callable[..., Any]] = {
    "float": _float,
    "int": _int,
    "join": _join_in_context,
    "replace": _replace,
    "round": _round,
}


def shown_value(value: Any) -> Any:
    """Return the value; TemplateRuntimeError for a method that was named but not called."""
    if callable(value) and not isinstance(value, Undefined | Markup):
        raise TemplateRuntimeError("a function is called with brackets, such as upper()")
    return value


@pass_context
def _at_run(context: Any, value: Any) -> Any:
    return shown_value(value)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja that reads keys of mappings, a few facts of dates and loops, and calls only the functions and methods of the language."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])
    language = TEXTS

    def __init__(self, finalize: Callable[..., Any] = _at_run, **options: Any) -> None:
        # A finalizer that needs the context keeps Jinja from evaluating constants while it compiles.
        super().__init__(finalize=finalize, optimized=False, cache_size=0, **options)
        self.globals.clear()
        known = {**JINJA_FILTERS, **_OWN_FILTERS}
        self.filters = {name: _bounded(known[name]) for name in self.language.filters if name in known}
        self.filters |= {"_loop_items": _loop_items, "_joined": _joined, "_compared": _compared}
        self.tests = {name: JINJA_TESTS[name] for name in TESTS}
        self.tests |= {name: _comparing_test(operation) for name, operation in _COMPARING_TESTS.items()}
        self.tests["none"] = lambda value: value is None or isinstance(value, Undefined)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return parse_template(self, source, self.language)

    def _generate(self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False) -> str:
        return super()._generate(_Guarded(self).tree(source), name, filename, defer_init)  # type: ignore[arg-type]

    def _compile(self, source: str, filename: str) -> Any:
        try:
            return super()._compile(source, filename)
        except (SyntaxError, RecursionError, MemoryError, OverflowError) as error:
            raise _too_deep(1) from error

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict or isinstance(obj, Mapping):
            value = obj.get(attribute)
            return self.undefined(obj=obj, name=attribute) if value is None else value
        if isinstance(obj, LoopContext):
            return getattr(obj, attribute) if attribute in LOOP_FACTS else self.undefined(obj=obj, name=attribute)
        if isinstance(obj, str) and attribute in _TEXT_METHODS:
            return partial(_TEXT_METHODS[attribute], obj)
        if isinstance(obj, date):
            return self._of_date(obj, attribute)
        if isinstance(obj, timedelta) and attribute == "days":
            return obj.days
        return self.undefined(obj=obj, name=attribute)

    def _of_date(self, day: date, attribute: str) -> Any:
        if attribute in _DATE_METHODS:
            return partial(_DATE_METHODS[attribute], day)
        return self._present(getattr(day, attribute, None) if attribute in _DATE_FACTS else None, day, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Mapping):
            return self._present(obj.get(argument) if isinstance(argument, str | int) else None, obj, argument)
        if isinstance(argument, slice) and isinstance(obj, str | list | tuple):
            return obj[argument]
        if isinstance(obj, str | list | tuple) and isinstance(argument, int) and -len(obj) <= argument < len(obj):
            return obj[argument]
        return self.getattr(obj, argument) if isinstance(argument, str) else self.undefined(obj=obj, name=str(argument))

    def _present(self, value: Any, obj: Any, name: Any) -> Any:
        return self.undefined(obj=obj, name=str(name)) if value is None else value

    def call(self, context: Any, function: Any, *args: Any, **named: Any) -> Any:
        if isinstance(function, Undefined | partial) or self.is_ours(function):
            return function(*args, **named)
        raise SecurityError("this cannot be called")

    def is_ours(self, function: Any) -> bool:
        """Return whether a template may call `function`; methods of texts and dates it always may."""
        return False

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        left, right = as_operands(left, right)
        if isinstance(left, str | list | tuple) or isinstance(right, str | list | tuple):
            return self._of_texts(operator, left, right)
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > 2 * MAX_INTEGER_BITS:
            raise SecurityError("a number grows too long")
        return super().call_binop(context, operator, left, right)

    def _of_texts(self, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, Undefined) or isinstance(right, Undefined):
            return super().call_binop(None, operator, left, right)  # type: ignore[arg-type]
        if isinstance(left, str) and isinstance(right, str) and operator in ("-", "*", "/", "//"):
            left, right = _number_of(left), _number_of(right)
            return super().call_binop(None, operator, left, right)  # type: ignore[arg-type]
        if operator != "+" or not any(isinstance(left, kind) and isinstance(right, kind) for kind in (str, list, tuple)):
            raise TypeError(f"{operator} is for numbers, and one side is a text or a list")
        _fits(len(left) + len(right))
        return left + right


def result_tree(environment: BoundedEnvironment, expression: nodes.Expr) -> nodes.Template:
    """Return a template that shows nothing and leaves the value of the expression under the name `result`."""
    tree = nodes.Template([nodes.Assign(nodes.Name("result", "store"), expression, lineno=1)], lineno=1)
    tree.set_environment(environment)
    return tree


def compiled_expression(environment: BoundedEnvironment, source: str, language: Language) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function from names to the value of the expression; TemplateSyntaxError as in `parse_template`."""
    template = environment.from_string(result_tree(environment, parse_expression(environment, source, language)))

    def value(names: Mapping[str, Any]) -> Any:
        context = template.new_context(dict(names))
        for _ in template.root_render_func(context):
            pass
        return shown_value(context.vars["result"])

    return value
