"""What conditions and texts may say, and what they mean for a contact."""

# ruff: noqa: E501  (a row of a table stays on its line)

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from distmark.journeys.expressions import FUNCTIONS, NAMES, Expression, ExpressionError, Text, Texts, names_used, namespace
from distmark.journeys.model import EventFact, Facts, SentFact

TOKYO = ZoneInfo("Asia/Tokyo")
NOW = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
EARLIER = NOW - timedelta(days=3)

FACTS = Facts(
    contact={"first_name": "恵", "phone": "+81", "score": 4, "renewal_date": "2026-12-24", "birthday": date(1990, 11, 24), "nothing": None, "items": "a,b"},
    journey={"topic": "pension"},
    brand={"name": "Acme"},
    sent={
        "seen": SentFact(EARLIER, opened_at=EARLIER),
        "machine": SentFact(EARLIER, machine_opened_at=EARLIER),
        "clicked": SentFact(EARLIER, clicked={"plans": EARLIER}),
        "answered": SentFact(EARLIER, replied_at=EARLIER, unsubscribed_at=EARLIER),
        "back": SentFact(EARLIER, status="bounced", bounced_at=EARLIER),
        "never": SentFact(EARLIER, status="suppressed"),
        "refused": SentFact(EARLIER, status="rejected"),
    },
    events=(EventFact("bought", EARLIER, {"sku": "x"}, 120.0), EventFact("bought", NOW, {}, 80.0), EventFact("visit", EARLIER)),
    segments=frozenset({"vip"}),
    written_at=(NOW - timedelta(days=8), EARLIER, NOW),
    answers={"score": {"ok": True, "body": {"points": 7}}},
)  # fmt: skip


def value(text: str, facts: Facts = FACTS) -> object:
    return Expression.read(text).value(namespace(facts, NOW, TOKYO))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Human by default; a human click implies an open.
        ("opened('seen')", True),
        ("opened('machine')", False),
        ("opened('machine', by='any')", True),
        ("opened('clicked')", True),
        ("opened('unknown')", False),
        ("clicked('clicked')", True),
        ("clicked('clicked', 'plans')", True),
        ("clicked('clicked', 'book')", False),
        ("clicked('clicked', link='plans')", True),
        ("clicked('seen')", False),
        ("replied('answered')", True),
        ("unsubscribed('answered')", True),
        ("bounced('back')", True),
        ("delivered('back')", False),
        ("delivered('seen')", True),
        ("sent('back')", True),
        ("sent('never')", False),
        ("sent('refused')", False),
        ("converted('bought')", True),
        ("happened('visit', days=2)", False),
        ("happened('visit', days=4)", True),
        ("value_of('bought')", 200.0),
        ("value_of('sold')", 0),
        ("in_segment('vip')", True),
        # Within 7 days: three days ago and now.
        ("written(7)", 2),
        ("written()", 2),
        ("written(30)", 3),
        ("answer('score').body.points > 5", True),
        ("answer('none').body.points > 5", False),
        # 24 November to 24 December.
        ("days_until(contact.renewal_date)", 30),
        ("days_since(contact.renewal_date)", -30),
        ("days_since(contact.unknown)", None),
        ("days_until(contact.renewal_date) <= 30", True),
        ("today.isoformat() if false else today", date(2026, 11, 24)),
        # A date may be a text, as contacts have it, or a date.
        ("contact.renewal_date > today", True),
        ("today < contact.renewal_date", True),
        ("contact.renewal_date <= today", False),
        ("contact.birthday < today", True),
        ("today == contact.renewal_date", False),
        ("today == '2026-11-24' and today.month == 11", True),
        ("contact.unknown < today or contact.nothing > today or today < contact.unknown", False),
        ("now.hour", 10),
        ("contact.first_name ~ 'さん'", "恵さん"),
        ("contact.first_name | upper | length", 1),
        ("journey.topic in ['pension', 'car']", True),
        ("brand.name == 'Acme' and not contact.is_client", True),
        # A key comes before anything that the data itself can do.
        ("contact.items", "a,b"),
        ("contact['first_name']", "恵"),
    ],
)
def test_an_expression_means(text: str, expected: object) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("contact.unknown", None),
        ("contact.unknown.deeper.still", None),
        ("contact.nothing", None),
        ("contact.unknown > 3", False),
        ("contact.unknown < 3", False),
        ("3 > contact.nothing", False),
        ("contact.unknown + 1 > 0", False),
        ("contact.unknown == none", True),
        ("contact.nothing is none", True),
        ("contact.nothing is defined", False),
        ("contact.unknown == 'x'", False),
        ("contact.unknown != 'x'", True),
        ("contact.unknown | default('x')", "x"),
        ("'a' in contact.unknown", False),
        ("contact.unknown | int > 5", False),
        ("contact.unknown | abs > 5 or contact.unknown | round > 5", False),
        ("contact.unknown | length > 0", False),
        ("contact.unknown.upper() == 'X'", False),
        ("-contact.unknown < 5", False),
        ("not contact.unknown", True),
    ],
)
def test_a_missing_value_is_false_and_never_an_error(text: str, expected: object) -> None:
    """L5: one contact without an attribute must not stop the journey."""
    assert value(text) == expected


@pytest.mark.parametrize("text", ["contact.first_name > 3", "contact.score / 0", "days_since('soon')"])  # fmt: skip
def test_what_cannot_be_evaluated_is_an_error_that_names_the_expression(text: str) -> None:
    with pytest.raises(ExpressionError, match="cannot be evaluated"):
        value(text)


@pytest.mark.parametrize(
    "text", ["clicked('welcome'", "{{ contact }}", "1 +", "a b", "{% if x %}", "contact.x | nothing", "x is nothing", "self"]
)
def test_bad_syntax_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(ValueError, match="bad-expression"):
        Expression.read(text)


@pytest.mark.parametrize("text", ["", "   ", "x" * 2001, 5, None, ["a"]])
def test_what_is_no_expression_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expression"):
        Expression.read(text)


def test_an_expression_says_what_it_uses() -> None:
    uses = names_used("clicked('welcome', link='plans') and contact.city == journey['topic'] or today > x")

    assert uses.names == {"clicked", "contact", "journey", "today", "x"}
    assert uses.attributes == {("contact", "city"), ("journey", "topic")}
    assert [(call.name, call.args, call.named) for call in uses.calls] == [("clicked", ("welcome",), {"link": "plans"})]


@pytest.mark.parametrize(
    ("text", "constant"),
    [("true", True), ("1 == 1", True), ("false", False), ("1 > 2", False), ("not false or contact.x", True), ("not false and contact.x", None), ("contact.x", None), ("opened('a')", None)],
)  # fmt: skip
def test_an_expression_knows_whether_it_depends_on_the_contact(text: str, constant: bool | None) -> None:
    assert Expression.read(text).constant is constant


def test_every_documented_name_means_something() -> None:
    names = namespace(FACTS, NOW, TOKYO, FACTS.events[0])

    assert set(names) == {*NAMES, *FUNCTIONS}
    for name, documented in {**NAMES, **FUNCTIONS}.items():
        assert Expression.read(documented.form).value(names) is not None or name in (
            "contact",
            "journey",
            "partner",
            "campaign",
            "days_since",
            "event",
        ), name
        assert documented.en
        assert documented.ja


def test_the_event_is_seen_only_where_one_is_looked_at() -> None:
    with_event = namespace(FACTS, NOW, TOKYO, FACTS.events[0])

    assert Expression.read("event.data.sku == 'x' and event.value > 100").holds(with_event)
    assert value("event.data.sku") is None


def test_a_text_is_filled_and_a_lone_slot_keeps_its_type() -> None:
    names = namespace(FACTS, NOW, TOKYO)

    assert Text.read("{{ contact.first_name }}様、{{ contact.unknown }}。").render(names) == "恵様、。"
    assert Text.read("{{ contact.score + 1 }}").value(names) == 5
    assert Text.read("点: {{ contact.score }}").value(names) == "点: 4"


def test_texts_are_chosen_by_language() -> None:
    texts = Texts.read({"ja": "電話", "en": "call"})

    assert (texts.text("en").text, texts.text("ja").text, texts.text("fr").text) == ("call", "電話", "電話")
    assert texts.lacks("fr")
    assert not Texts.read("call").lacks("fr")


def test_expressions_are_compiled_once_and_equal_when_written_alike() -> None:
    assert Expression.read("opened('a')") is Expression.read(" opened('a') ")
    assert Expression.read("opened('a')") != Expression.read("opened('b')")


def test_one_expression_leaves_nothing_behind_for_the_next() -> None:
    names = namespace(FACTS, NOW, TOKYO)

    assert Expression.read("contact.score").value(names) == 4
    assert Expression.read("result").value(names) is None
