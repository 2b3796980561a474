"""The priority of a journey, as it is written, refused, published, compared and told."""

import pytest

from distmark.journeys.definition import JourneyDefinition, parse
from distmark.journeys.describe import describe_policy
from distmark.journeys.diff import FieldChange, diff
from distmark.journeys.findings import DefinitionError
from distmark.journeys.model import Priority
from distmark.journeys.schema import json_schema
from distmark.journeys.source import Source

TEXT = "key: trial\nname: Trial\nbrand: mirai\nsend_policy: {{{policy}}}\nsteps:\n  - {{id: mail, send: email, message: one}}\n"


def source(policy: str) -> Source:
    return Source(TEXT.format(policy=policy), {}, path="trial")


def read(policy: str) -> JourneyDefinition:
    return parse(source(policy))


def test_priority_is_normal_where_nothing_is_said() -> None:
    assert [read(policy).send_policy.priority for policy in ("", "priority: high")] == [Priority.normal, Priority.high]


def test_other_word_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(DefinitionError) as error:
        read("priority: hihg")

    (found,) = error.value.findings
    assert (found.line, found.field, found.suggestion) == (4, "send_policy.priority", "high")


def test_schema_lists_the_words_and_says_what_they_mean() -> None:
    schema = json_schema()
    field = schema["$defs"]["SendPolicy"]["properties"]["priority"]

    assert schema["$defs"]["Priority"]["enum"] == ["high", "normal", "low"]
    assert "high before normal before low" in field["description"]


def test_change_of_priority_is_told() -> None:
    assert diff(source("caps: marketing"), source("caps: marketing, priority: low")).fields == (
        FieldChange("send_policy.priority", None, "low"),
    )


@pytest.mark.parametrize(
    ("policy", "en", "ja"),
    [
        ("caps: none, priority: high", "", ""),  # without caps it means nothing
        (
            'quiet_hours: "21:00-08:00", days: weekdays, caps: 2 per day, priority: high',
            "not at 21:00-08:00, weekdays only, at most 2 per day, high priority (before other journeys)",
            "21:00-08:00 は送らない・平日のみ・1 日に 2 通まで・優先度：高（他のジャーニーより先）",
        ),
        ("caps: 9 per month, priority: normal", "at most 9 per month", "1 か月に 9 通まで"),
    ],
)
def test_rules_of_sending_read_as_one_line(policy: str, en: str, ja: str) -> None:
    told = read(policy).send_policy

    assert (describe_policy(told, "en"), describe_policy(told, "ja")) == (en, ja)
