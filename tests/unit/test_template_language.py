"""Nothing that a template or a condition may hold can stop a process, and all else is refused with its place."""

import time
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from jinja2 import TemplateSyntaxError
from jinja2.exceptions import TemplateError

from distmark.journeys.expressions import SANDBOX, Expression, ExpressionError, Text, namespace
from distmark.journeys.model import EventFact, Facts
from distmark.personalisation import RenderError, TemplateRefused, render
from distmark.personalisation.sandbox import TEXT
from distmark.template_language import (
    CONDITIONS,
    MESSAGES,
    TEXTS,
    BoundExceeded,
    bounded_work,
    gathered,
    parse_expression,
    parse_template,
    spend,
)
from tests.journeys import MAIL, found_in
from tests.personalisation_samples import compiled, context

NOW = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
FACTS = Facts(
    contact={"first_name": "恵", "amount": "12,000", "wide": "１２万", "word": "many", "note": "x" * 2000, "until": date(9999, 12, 31)}
)
NAMES = namespace(FACTS, NOW, ZoneInfo("Asia/Tokyo"), EventFact("bought", NOW, {"amount": "12,000", "word": "many"}))

REFUSED_CONDITIONS = [
    "contact.__class__",
    "''.__class__.__mro__",
    "contact['__class__'].__init__",
    "now.__reduce__",
    "opened.__globals__",
    "opened.__self__",
    "contact.score.__class__.__mro__[1]()",
    "contact | attr('__class__')",
    "[1] | map('upper')",
    "'%s' | format(1)",
    "self",
    "2 ** 9999999",
    "'a' * 100000000",
    "100000000 * 'a'",
    "('a' ~ 'b') * 9",
    "[1] * 9",
    "'%2000000000d' % 1",
    "('%' ~ '9d') % 1",
    "'a'.ljust(2000000000)",
    "'a'.zfill(9)",
    "'a'.center(9)",
    "'a'.expandtabs(9)",
    "'{:9}'.format(1)",
    "(1).to_bytes(9, 'big')",
    "'a'.encode('utf-32')",
    "'a'.translate({97: 'b'})",
    "contact.get('x')",
    "contact.update({'a': 1})",
    "[1].append(2)",
    "{'a': 1}",
    "1 | round(6000000, 'ceil')",
    "1 | round(precision=11)",
    "sent(*contact.items)",
    "sent(**contact)",
    "'abc'[::2]",
    "(" * 900 + "1" + ")" * 900,
    "[" * 900 + "]" * 900,
    "not " * 480 + "true",
    "-" * 900 + "1",
    "contact.a" + ".a" * 200,
    "contact.a" + " | upper" * 200,
    "contact.a or " * 150 + "1",
    "1+" * 900 + "1",
    "1 if " * 300 + "1",
    "9" * 1900,
    "1e999",
    "'\\ud800'",
]


@pytest.mark.parametrize("text", REFUSED_CONDITIONS, ids=lambda text: text[:30])
def test_a_condition_outside_the_language_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="bad-expression") as refused:
        Expression.read(text)

    assert refused.value.context["reason"]  # type: ignore[attr-defined]
    assert refused.value.context["reason_ja"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{% set x = 'a' %}", 2),
        ("{% macro m() %}{{ m() }}{% endmacro %}", 2),
        ("{% include '/etc/passwd' %}", 2),
        ("{% import 'x' as y %}", 2),
        ("{% extends 'x' %}", 2),
        ("{% block x %}{% endblock %}", 2),
        ("{% filter upper %}a{% endfilter %}", 2),
        ("{% call x() %}{% endcall %}", 2),
        ("{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}", 2),
        ("{% for a in 'x' %}{% for b in 'x' %}\n{% for c in 'x' %}{% endfor %}{% endfor %}{% endfor %}", 3),
        ("{% if 1 %}" * 1500 + "{% endif %}" * 1500, 2),
        ("{{ range(9) | list }}", 2),
        ("{% for a in [1] %}{% for b in [1] %}" + "{{ a }}" * 100 + "{% endfor %}{% endfor %}", 2),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("language", [TEXTS, MESSAGES])
def test_a_template_outside_the_language_is_refused_with_its_line(text: str, line: int, language: object) -> None:
    environment = SANDBOX if language is TEXTS else TEXT

    with pytest.raises(TemplateSyntaxError) as refused:
        parse_template(environment, f"first\n{text}", language)  # type: ignore[arg-type]

    assert refused.value.lineno == line


@pytest.mark.parametrize(
    "text",
    [
        "contact.note" + " | replace('x', 'xxxxxxxxxx')" * 10,
        "contact.note" + ".replace('x', 'xxxxxxxxxx')" * 10,
        "[contact.note, contact.note] | join('x' ~ contact.note ~ contact.note ~ contact.note ~ contact.note ~ contact.note ~ contact.note)"
        " | replace('x', contact.note)",
        "contact.note" + " ~ contact.note" * 60,
        "contact.note" + " + contact.note" * 40,
        "99999999999999999999999999999" + " * 99999999999999999999999999999" * 30,
        "now.strftime('%999999999Y')",
        "contact.first_name * 9",
        "contact.first_name % 9",
        "contact.note | truncate(1)",
        "1 | round(contact.amount)",
        "contact.note | replace('', 'a')",
    ],
    ids=lambda text: text[:40],
)
def test_what_grows_past_its_bound_is_an_error_at_once(text: str) -> None:
    expression = Expression.read(text)
    began = time.monotonic()

    with pytest.raises(ExpressionError, match="cannot be evaluated"):
        expression.value(NAMES)

    assert time.monotonic() - began < 1


def test_nothing_is_evaluated_while_a_template_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant part that Jinja would compute at once, with all the time that this takes."""
    evaluated: list[object] = []
    monkeypatch.setitem(SANDBOX.filters, "upper", lambda value: evaluated.append(value) or "X")

    text = Text("{{ 'a' | upper }} {{ 'b' | upper if true }}")
    expression = Expression("'c' | upper == 'X' or 1 + 1 == 2")
    assert expression.constant is None
    assert evaluated == []

    assert text.render(NAMES) == "X X"
    assert expression.value(NAMES) is True
    assert evaluated == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("contact.first_name.upper() ~ '様'", "恵様"),
        ("contact.first_name.startswith('恵')", True),
        ("'a,b'.split(',')[1]", "b"),
        ("'a-b'.replace('-', '+')", "a+b"),
        ("'2026-11-24'[:4]", "2026"),
        ("now.strftime('%Y/%m')", "2026/11"),
        ("today.month == 11 and today.weekday() == 1", True),
        ("7 % 4 + 7 // 2 + 2 * 3 - 1", 11),
        ("3.14159 | round(2)", 3.14),
        ("['b', 'a'] | sort | join('/')", "a/b"),
        ("1 < 2 < 3", True),
        ("1 < 3 < 2", False),
        (" or ".join(f"contact.city == '{number}'" for number in range(47)) + " or true", True),
        # A number written in letters is the number, wherever it meets one.
        ("contact.amount > 11999 and contact.amount < 12001", True),
        ("contact.amount == 12000", True),
        ("contact.amount != 12000", False),
        ("contact.amount is gt 100", True),
        ("contact.wide >= 120000", True),
        ("contact.wide * 2 + contact.amount", 252000),
        ("contact.amount | int + 1", 12001),
        ("contact.amount | float / 2", 6000),
        ("contact.word == 5", False),
        ("contact.first_name == '恵'", True),
        # What lies out of every calendar is no reason to stand still.
        ("contact.until > today", True),
        ("happened('x', days=999999999999)", False),
        ("written(99999999999)", 0),
    ],
)
def test_what_people_write_means_what_it_says(text: str, expected: object) -> None:
    assert Expression.read(text).value(NAMES) == expected


def test_a_rendering_ends_when_its_work_or_its_output_grows_too_long() -> None:
    with bounded_work(10), pytest.raises(BoundExceeded):
        spend(10)
    with pytest.raises(BoundExceeded):
        gathered((("x" * 10) for _ in range(10**9)), 1000)
    with pytest.raises(ExpressionError, match="longer than"):
        Text.read("{% for a in [" + "1," * 50 + "] %}" + "y" * 5000 + "{% endfor %}").render(NAMES)
    with pytest.raises(RenderError, match="longer than"):
        render(compiled(text="{% for a in [" + "1," * 50 + "] %}" + "y" * 20_000 + "{% endfor %}"), context())


@pytest.mark.parametrize(
    "slot", ["contact.first_name.upper", "contact.first_name | number", "'x' | sort", "contact.first_name | truncate(0)"]
)
def test_what_cannot_be_shown_is_an_error_of_the_message(slot: str) -> None:
    with pytest.raises((RenderError, TemplateRefused)):
        render(compiled(text="{{ " + slot + " }}"), context())


def test_a_function_that_is_named_but_not_called_is_an_error() -> None:
    with pytest.raises(ExpressionError, match="brackets"):
        Expression.read("contact.first_name.upper").value(NAMES)
    with pytest.raises(ExpressionError, match="brackets"):
        Text.read("あ{{ contact.first_name.upper }}").render(NAMES)


def test_every_filter_answers_or_says_what_is_wrong() -> None:
    """Whatever stands before a filter and behind it, nothing but an error of the template comes out."""
    values = ("contact.first_name", "contact.amount", "contact.unknown", "[1, 'a', none]", "now", "1e308 * 10", "'' ", "true", "contact")
    arguments = ("", "(1)", "('x')", "(none)", "(-5)", "(contact)", "(1, 2, 3)", "(attribute='__class__')")
    for name in CONDITIONS.filters:
        for value in values:
            for argument in arguments:
                try:
                    Expression.read(f"({value}) | {name}{argument}").value(NAMES)
                except (ExpressionError, ValueError):
                    continue


def test_the_check_names_each_place_outside_the_language_in_both_languages() -> None:
    text = "{{ blocks.note }}\n{% set x = 1 %}\n{{ 'a' * 9 }}\n{{ contact.city | uper }}\n{{ legal_footer }}"

    found = [item for item in found_in(templates={**MAIL, "welcome.ja.text.txt": text}) if item.file.endswith("text.txt")]

    assert [(item.code, item.line) for item in found] == [("bad-template", 2), ("bad-template", 3), ("unknown-filter", 4)]
    assert "{% set %}" in found[0].message("en")
    assert "使えません" in found[0].message("ja")


@pytest.mark.parametrize("condition", ["'x' | replace('', 'y')", "1 / 0 > 2", "days_since('soon') > 1", "'abc' | truncate(1)"])
def test_the_check_finds_a_condition_that_fails_for_everybody(condition: str) -> None:
    steps = f'  - id: split\n    branch:\n      - when: "{condition}"\n        steps: [{{id: yes-0, update: {{plan: gold}}}}]\n'

    found = found_in(steps)

    assert [(item.line, item.step) for item in found if item.code == "never-evaluates"] == [(18, "split")]


def test_deep_brackets_in_a_journey_are_found_with_their_place() -> None:
    steps = (
        '  - id: split\n    branch:\n      - when: "'
        + "(" * 900
        + "1"
        + ")" * 900
        + '"\n        steps: [{id: yes-0, update: {plan: gold}}]\n'
    )

    found = [item for item in found_in(steps) if item.code == "bad-expression"]

    assert [(item.line, item.step) for item in found] == [(18, "split")]
    assert "80" in found[0].message("ja")


def test_an_expression_is_refused_by_its_parser_alone() -> None:
    with pytest.raises(TemplateError):
        parse_expression(SANDBOX, "1 +")
