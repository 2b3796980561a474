"""The conditions and texts of a journey: Jinja in a sandbox with fixed names. Knows what they may say and mean; fetches nothing."""

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any, Self
from zoneinfo import ZoneInfo

from jinja2 import ChainableUndefined, Undefined, nodes
from jinja2.exceptions import TemplateError
from jinja2.runtime import Context

from distmark.errors import DistmarkError
from distmark.journeys.fields import Written, problem
from distmark.journeys.model import Attributes, EventFact, Facts, SentFact
from distmark.journeys.times import as_date, days_between
from distmark.template_language import (
    BoundedEnvironment,
    LanguageError,
    bounded_work,
    gathered,
    parse_expression,
    result_tree,
    shown_value,
)

LONGEST_EXPRESSION = 2_000
LONGEST_TEXT = 20_000
LONGEST_OUTPUT = 50_000
LONGEST_LOOK_BACK = 36_500  # days; further back is nothing, and what is too far back is no date
BY = ("human", "any")


class ExpressionError(DistmarkError):
    """An expression could not be evaluated for this contact; the text names the expression and the reason."""


class Missing(ChainableUndefined):
    """A value that the contact does not have: false, empty, equal only to nothing, and neither before nor after anything."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Undefined)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(None)

    def _never(self, other: object) -> bool:
        return False

    def _nothing(self, *others: object, **named: object) -> Self:
        return self

    def _zero(self) -> int:
        return 0

    def _zero_point(self) -> float:
        return 0.0

    # Undefined declares its operators as never returning.
    __int__ = _zero  # type: ignore[assignment]
    __float__ = _zero_point  # type: ignore[assignment]
    __call__ = _nothing  # type: ignore[assignment]
    __lt__ = __le__ = __gt__ = __ge__ = _never  # type: ignore[assignment]
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _nothing  # type: ignore[assignment]
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __neg__ = __pos__ = __abs__ = __round__ = _nothing  # type: ignore[assignment]


class Sandbox(BoundedEnvironment):
    """The bounded Jinja of conditions and texts: a missing value is no error, and only a wrong type is one."""

    def __init__(self) -> None:
        super().__init__(undefined=Missing, autoescape=False)

    def is_ours(self, function: Any) -> bool:
        return isinstance(getattr(function, "__self__", None), FactFunctions)


SANDBOX = Sandbox()


@dataclass(frozen=True, slots=True)
class Documented:
    """A name that expressions may use: how it is written, and what it means in both languages."""

    form: str
    en: str
    ja: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


NAMES: Mapping[str, Documented] = {
    "contact": Documented("contact.city", "an attribute of the contact", "お客様の項目"),
    "journey": Documented("journey.topic", "data frozen when the contact entered", "開始時に固定されたデータ"),
    "partner": Documented("partner.office", "an attribute of the partner", "担当者の項目"),
    "campaign": Documented("campaign.key", "an attribute of the campaign", "キャンペーンの項目"),
    "brand": Documented("brand.name", "an attribute of the brand", "本部の項目"),
    "event": Documented(
        "event.data.amount", "the event being looked at, in the `where` of a wait or an entry", "`where` で調べているイベント"
    ),
    "now": Documented("now", "the present moment in the contact's time zone", "お客様の地域の現在日時"),
    "today": Documented("today", "today's date in the contact's time zone", "お客様の地域の今日の日付"),
}
FUNCTIONS: Mapping[str, Documented] = {
    "sent": Documented("sent('welcome')", "that message was handed over", "そのメッセージを送信した", ("step",)),
    "delivered": Documented("delivered('welcome')", "it was sent and did not bounce", "送信し、不達になっていない", ("step",)),
    "opened": Documented(
        "opened('welcome', by='any')",
        "a person opened it; by='any' counts machines too",
        "人が開封した。by='any' は機械も数える",
        ("step",),
        ("by",),
    ),
    "clicked": Documented(
        "clicked('welcome', 'plans')",
        "a person clicked it, or that link",
        "人がクリックした（リンクの指定も可）",
        ("step",),
        ("link", "by"),
    ),
    "replied": Documented("replied('welcome')", "the contact replied to it", "返信があった", ("step",)),
    "bounced": Documented("bounced('welcome')", "it came back", "不達になった", ("step",)),
    "unsubscribed": Documented(
        "unsubscribed('welcome')", "the contact unsubscribed through it", "そのメッセージから配信停止した", ("step",)
    ),
    "converted": Documented("converted('account_opened')", "that conversion happened since entry", "開始後にその成果があった", ("name",)),
    "happened": Documented(
        "happened('visit', days=7)",
        "that event happened since entry, or within so many days",
        "開始後（または直近の日数内）にその出来事があった",
        ("name",),
        ("days",),
    ),
    "value_of": Documented("value_of('purchase')", "the sum of that event's values since entry", "開始後のその出来事の金額合計", ("name",)),
    "in_segment": Documented("in_segment('vip')", "the contact is in that segment now", "今そのセグメントに入っている", ("key",)),
    "written": Documented(
        "written(7)",
        "how many messages of any journey the contact got in so many days",
        "直近の日数内に送ったメッセージの数",
        (),
        ("days",),
    ),
    "answer": Documented("answer('score').body.points", "what a webhook step answered", "Webhook の応答", ("step",)),
    "days_since": Documented("days_since(contact.birthday)", "whole days from that date to today", "その日から今日までの日数", ("day",)),
    "days_until": Documented(
        "days_until(contact.renewal_date)", "whole days from today to that date", "今日からその日までの日数", ("day",)
    ),
}
STEP_FUNCTIONS = ("sent", "delivered", "opened", "clicked", "replied", "bounced", "unsubscribed")
ENGAGEMENT_FUNCTIONS = ("opened", "clicked", "replied")
EVENT_FUNCTIONS = ("converted", "happened", "value_of")
_UTC = ZoneInfo("UTC")
BRINGS_NO_NEWS = ("failed", "rejected", "suppressed", "queued", "sending", "deferred")


class FactFunctions:
    """The functions of expressions over one contact's facts at one moment."""

    __slots__ = ("facts", "now", "zone")

    def __init__(self, facts: Facts, now: datetime, zone: ZoneInfo) -> None:
        self.facts, self.now, self.zone = facts, now, zone

    def sent(self, step: str) -> bool:
        fact = self.facts.sent.get(step)
        return fact is not None and fact.status not in BRINGS_NO_NEWS

    def delivered(self, step: str) -> bool:
        fact = self.facts.sent.get(step)
        return fact is not None and fact.status in ("sent", "delivered") and fact.bounced_at is None

    def opened(self, step: str, by: str = "human") -> bool:
        fact = self.facts.sent.get(step)
        if fact is None:
            return False
        # A human click implies an open: images may have been off.
        return bool(fact.opened_at or fact.clicked or (by == "any" and fact.machine_opened_at))

    def clicked(self, step: str, link: str | None = None, by: str = "human") -> bool:
        fact = self.facts.sent.get(step)
        return fact is not None and (bool(fact.clicked) if link is None else link in fact.clicked)

    def replied(self, step: str) -> bool:
        return self._has(step, "replied_at")

    def bounced(self, step: str) -> bool:
        return self._has(step, "bounced_at")

    def unsubscribed(self, step: str) -> bool:
        return self._has(step, "unsubscribed_at")

    def _has(self, step: str, what: str) -> bool:
        fact: SentFact | None = self.facts.sent.get(step)
        return fact is not None and getattr(fact, what) is not None

    def happened(self, name: str, days: int | None = None) -> bool:
        since = None if days is None else self._days_ago(days)
        return any(event.name == name and (since is None or event.at >= since) for event in self.facts.events)

    def converted(self, name: str) -> bool:
        return self.happened(name)

    def value_of(self, name: str) -> float:
        return sum(event.value or 0.0 for event in self.facts.events if event.name == name)

    def in_segment(self, key: str) -> bool:
        return key in self.facts.segments

    def written(self, days: int = 7) -> int:
        since = self._days_ago(days)
        return sum(1 for at in self.facts.written_at if since < at <= self.now)

    def _days_ago(self, days: float) -> datetime:
        return self.now - timedelta(days=max(-LONGEST_LOOK_BACK, min(days, LONGEST_LOOK_BACK)))

    def answer(self, step: str) -> Attributes:
        return self.facts.answers.get(step, {})

    def days_since(self, day: object) -> object:
        found = self._day(day)
        return Missing() if found is None else days_between(found, self.today)

    def days_until(self, day: object) -> object:
        found = self._day(day)
        return Missing() if found is None else days_between(self.today, found)

    def _day(self, day: object) -> date | None:
        return None if isinstance(day, Undefined) else as_date(day, self.zone)

    @property
    def today(self) -> date:
        return self.now.astimezone(self.zone).date()


class Day(date):
    """A day that compares with dates as contacts have them: dates, or texts such as "2026-12-24". Nothing is before or after no date."""

    def _other(self, other: object) -> date | None:
        if isinstance(other, Undefined) or not isinstance(other, date | str):
            return None
        return other.date() if isinstance(other, datetime) else as_date(other, _UTC)

    def __eq__(self, other: object) -> bool:
        return (found := self._other(other)) is not None and self.toordinal() == found.toordinal()

    def __hash__(self) -> int:
        return super().__hash__()

    def __lt__(self, other: object) -> bool:
        return (found := self._other(other)) is not None and self.toordinal() < found.toordinal()

    def __le__(self, other: object) -> bool:
        return self == other or self < other

    def __gt__(self, other: object) -> bool:
        return (found := self._other(other)) is not None and self.toordinal() > found.toordinal()

    def __ge__(self, other: object) -> bool:
        return self == other or self > other


class Names(dict[str, object]):
    """All names with their meaning for one contact at one moment; shared by the expressions of one decision."""

    __slots__ = ("_context",)

    @property
    def context(self) -> Context:
        """The names as Jinja wants them, made once: making it costs more than most expressions."""
        try:
            return self._context
        except AttributeError:
            self._context: Context = Context(SANDBOX, self, None, {})
            return self._context


def namespace(facts: Facts, now: datetime, zone: ZoneInfo, event: EventFact | None = None) -> Names:
    """Return every name that an expression may use, for one contact at one moment."""
    functions = FactFunctions(facts, now, zone)
    local = now.astimezone(zone)
    return Names(
        {
            "contact": facts.contact,
            "journey": facts.journey,
            "partner": facts.partner,
            "campaign": facts.campaign,
            "brand": facts.brand,
            "event": None if event is None else {"name": event.name, "at": event.at, "data": event.data, "value": event.value},
            "now": local,
            "today": Day(local.year, local.month, local.day),
            "sent": functions.sent,
            "delivered": functions.delivered,
            "opened": functions.opened,
            "clicked": functions.clicked,
            "replied": functions.replied,
            "bounced": functions.bounced,
            "unsubscribed": functions.unsubscribed,
            "converted": functions.converted,
            "happened": functions.happened,
            "value_of": functions.value_of,
            "in_segment": functions.in_segment,
            "written": functions.written,
            "answer": functions.answer,
            "days_since": functions.days_since,
            "days_until": functions.days_until,
        }
    )


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function call in an expression; an argument that is not a constant is None."""

    name: str
    args: tuple[object, ...]
    named: Mapping[str, object]
    line: int = 1


@dataclass(frozen=True, slots=True)
class Uses:
    """The references of an expression or a text: root names, calls, and attributes such as ("contact", "city")."""

    names: frozenset[str]
    calls: tuple[FunctionCall, ...]
    attributes: frozenset[tuple[str, str]]
    filters: frozenset[str]
    lines: Mapping[str, int]

    def called(self, *names: str) -> Iterator[FunctionCall]:
        """Iterate over the calls of any of `names`."""
        return (call for call in self.calls if call.name in names)


def reasons(error: TemplateError) -> dict[str, str]:
    """Return why a template was refused, in both languages; Jinja's own findings are in English alone."""
    reason = str(error.message).rstrip(".")
    return {"reason": reason, "reason_ja": error.japanese if isinstance(error, LanguageError) else reason}


def _truth_of(tree: nodes.Expr) -> bool | None:
    found = _known_value(tree)
    return None if found is None else bool(found[0])


def _known_value(node: nodes.Node) -> tuple[object] | None:
    """Return the value that the node always has, wrapped; None when it depends on the contact or is more than a comparison of constants."""
    if isinstance(node, nodes.Const):
        return (node.value,)
    if isinstance(node, nodes.Not):
        found = _known_value(node.node)
        return None if found is None else (not found[0],)
    if isinstance(node, nodes.And | nodes.Or):
        return _known_junction(node)
    if isinstance(node, nodes.Compare) and len(node.ops) == 1 and node.ops[0].op in _PLAIN_COMPARISONS:
        left, right = _known_value(node.expr), _known_value(node.ops[0].expr)
        try:
            return None if left is None or right is None else (_PLAIN_COMPARISONS[node.ops[0].op](left[0], right[0]),)
        except TypeError:
            return None
    return None


def _known_junction(node: nodes.And | nodes.Or) -> tuple[object] | None:
    left = _known_value(node.left)
    if left is None:
        return None
    ends = bool(left[0]) is isinstance(node, nodes.Or)  # a true left side ends an `or`, a false one an `and`
    return left if ends else _known_value(node.right)


_PLAIN_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "lteq": operator.le, "gt": operator.gt, "gteq": operator.ge,
}  # fmt: skip


def _constant(node: nodes.Node) -> object:
    return node.value if isinstance(node, nodes.Const) else None


def _call(node: nodes.Call) -> FunctionCall | None:
    if not isinstance(node.node, nodes.Name):
        return None
    named = {pair.key: _constant(pair.value) for pair in node.kwargs}
    return FunctionCall(node.node.name, tuple(_constant(arg) for arg in node.args), named, node.lineno)


def _attribute(node: nodes.Getattr | nodes.Getitem) -> tuple[str, str] | None:
    if not isinstance(node.node, nodes.Name):
        return None
    if isinstance(node, nodes.Getattr):
        return node.node.name, node.attr
    return (node.node.name, str(_constant(node.arg))) if isinstance(_constant(node.arg), str) else None


def uses_of(tree: nodes.Node) -> Uses:
    """Return what the parsed `tree` refers to; names that it sets itself (loops, `set`) are left out."""
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    calls = tuple(call for node in tree.find_all(nodes.Call) if (call := _call(node)) is not None)
    lines: dict[str, int] = {}
    for name in tree.find_all(nodes.Name):
        lines.setdefault(name.name, name.lineno)
    attributes = set()
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        if isinstance(node, nodes.Getattr | nodes.Getitem) and (pair := _attribute(node)) is not None and pair[0] not in own:
            attributes.add(pair)
            lines.setdefault(f"{pair[0]}.{pair[1]}", node.lineno)
    filters = frozenset(node.name for node in tree.find_all(nodes.Filter))
    return Uses(frozenset(set(lines) - own - {f"{a}.{b}" for a, b in attributes}), calls, frozenset(attributes), filters, lines)


class Expression(Written):
    """A condition or a value, compiled once. Equal when written alike."""

    __slots__ = ("_run", "constant", "text", "uses")

    def __init__(self, text: str) -> None:
        self.text = text
        tree = parse_expression(SANDBOX, text)
        self.uses = uses_of(nodes.Output([tree]))
        "The references of the expression."
        self.constant = _truth_of(tree)
        "True for an expression that is always true, False for one that is always false, None when it depends on the contact."
        # Last, since compiling changes the tree.
        self._run = SANDBOX.from_string(result_tree(SANDBOX, tree)).root_render_func

    @classmethod
    def read(cls, value: object) -> "Expression":
        """Return the expression that `value` writes; raises `problem("bad-expression")` naming what Jinja found."""
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, str) or not value.strip():
            raise problem("no-expression", value=str(value))
        if len(value) > LONGEST_EXPRESSION:
            raise problem("long-expression", limit=str(LONGEST_EXPRESSION))
        try:
            return _compiled(value.strip())
        except TemplateError as error:
            raise problem("bad-expression", value=value.strip(), **reasons(error)) from error

    @classmethod
    def described(cls) -> dict[str, Any]:
        return {"type": ["string", "boolean"], "examples": ["clicked('welcome')", "not opened('welcome') and contact.phone"]}

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def value(self, names: Names) -> object:
        """Return what the expression means over `names`; None for a missing value. Raises ExpressionError."""
        try:
            context = names.context
            for _ in self._run(context):
                pass
            # Taken out, or the next expression could read it.
            found = shown_value(context.vars.pop("result"))
        except (TemplateError, TypeError, ValueError, ArithmeticError, DistmarkError) as error:
            raise ExpressionError(
                f'The expression "{self.text}" cannot be evaluated: {error}; correct it or the value it reads.'
            ) from error
        return None if isinstance(found, Undefined) else found

    def holds(self, names: Names) -> bool:
        """Return whether the expression is true over `names`. Raises ExpressionError."""
        return bool(self.value(names))


@lru_cache(maxsize=4096)
def _compiled(text: str) -> Expression:
    return Expression(text)


class Text(Written):
    """A text with `{{ }}` slots, compiled once. One that is nothing but a slot has that slot's own value."""

    __slots__ = ("_only", "_template", "text", "uses")

    def __init__(self, text: str) -> None:
        self.text = text
        tree = SANDBOX.parse(text)
        self.uses = uses_of(tree)
        "The references of the text."
        self._template = SANDBOX.from_string(tree)
        self._only = Expression(inner) if (inner := _only_slot(text)) else None

    @classmethod
    def read(cls, value: object) -> "Text":
        """Return the text that `value` writes; raises `problem("bad-text")` naming what Jinja found."""
        if not isinstance(value, str):
            raise problem("not-text", value=str(value))
        if len(value) > LONGEST_TEXT:
            raise problem("long-text", limit=str(LONGEST_TEXT))
        try:
            return _compiled_text(value)
        except TemplateError as error:
            raise problem("bad-expression", value=value, **reasons(error)) from error

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Text({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Text) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def render(self, names: Names) -> str:
        """Return the text with its slots filled from `names`; a missing value is empty. Raises ExpressionError."""
        try:
            with bounded_work():
                return gathered(self._template.generate(names), LONGEST_OUTPUT)
        except (TemplateError, TypeError, ValueError, ArithmeticError, DistmarkError) as error:
            raise ExpressionError(f'The text "{self.text}" cannot be filled: {error}; correct it or the value it reads.') from error

    def value(self, names: Names) -> object:
        """Return the value of the only slot when the text is nothing else, else the filled text."""
        return self._only.value(names) if self._only is not None else self.render(names)


@lru_cache(maxsize=4096)
def _compiled_text(text: str) -> Text:
    return Text(text)


def _only_slot(text: str) -> str | None:
    body = text.strip()
    inner = body[2:-2]
    return inner.strip() if body.startswith("{{") and body.endswith("}}") and "{{" not in inner and "}}" not in inner else None


def names_used(expression: str | Expression) -> Uses:
    """Return what `expression` refers to: names, calls, attributes, filters."""
    return (expression if isinstance(expression, Expression) else Expression.read(expression)).uses


@dataclass(frozen=True, slots=True)
class Texts(Written):
    """A text with slots: one for all languages (under ""), or one per language."""

    texts: Mapping[str, Text]

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the texts written as a text or as {ja: ..., en: ...}."""
        if isinstance(value, Mapping) and value:
            return cls({str(lang): Text.read(text) for lang, text in value.items()})
        return cls({"": Text.read(value)})

    @classmethod
    def described(cls) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}]}

    def __str__(self) -> str:
        return self.text().text

    def text(self, lang: str = "") -> Text:
        """Return the text in `lang`, else the one for all, else the first."""
        return self.texts.get(lang) or self.texts.get("") or next(iter(self.texts.values()))

    def lacks(self, lang: str) -> bool:
        """Return whether there is no text for `lang`."""
        return lang not in self.texts and "" not in self.texts
