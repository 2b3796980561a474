"""Every number has a meaning in both languages, and the report shows it."""

import pytest

from distmark.enrollments.model import TimelineKind
from distmark.metrics.definitions import DEFINITIONS, FAMILIES, define, outcome_name
from distmark.metrics.model import Metric, Results, StepResults, metrics_of_move, rate
from distmark.metrics.report import funnel, results_markdown, summary


@pytest.fixture
def results() -> Results:
    welcome = {Metric.sent: 8, Metric.opened: 6, Metric.clicked: 2, Metric.unsubscribed: 1, Metric.suppressed: 1}
    return Results(
        title="Welcome | ようこそ",
        steps=(StepResults("welcome", "send", welcome, "welcome"), StepResults("pause", "wait", {"passed": 8})),
        totals={**welcome, Metric.entered: 9, Metric.ended: 5},
        days=(),
        outcomes={"completed": 4, "unsubscribed": 1},
    )


@pytest.mark.parametrize("definition", [*DEFINITIONS.values(), *FAMILIES.values()], ids=lambda definition: definition.metric)
def test_every_metric_is_defined_in_both_languages(definition) -> None:
    for words in (definition.name, definition.numerator, definition.denominator, definition.unit):
        assert set(words) == {"ja", "en"}
        assert all(words.values())


def test_no_metric_is_without_a_definition() -> None:
    assert set(DEFINITIONS) == set(Metric)


@pytest.mark.parametrize("metric", ["ended:goal", "link:plans", "event:appointment_booked"])
def test_a_metric_of_a_family_has_the_definition_of_the_family(metric: str) -> None:
    assert define(metric) is FAMILIES[metric.partition(":")[0] + ":"]


@pytest.mark.parametrize("kind", list(TimelineKind))
def test_every_count_that_a_move_adds_is_defined(kind: TimelineKind) -> None:
    assert all(define(metric) for _, metric in metrics_of_move(kind, {"outcome": "goal"}))


def test_an_outcome_without_words_is_shown_as_it_is() -> None:
    assert outcome_name("goal", "en") == "Reached the goal"
    assert outcome_name("abducted", "en") == "abducted"


def test_a_rate_of_nothing_is_no_rate() -> None:
    assert rate({"opened": 3}, "opened", "sent") is None
    assert rate({"opened": 3, "sent": 4}, "opened", "sent") == 0.75  # 3 / 4


def test_the_funnel_has_a_row_per_sending_step_and_the_sum_last(results: Results) -> None:
    table = funnel(results, "en")

    assert [row[0] for row in table.rows] == ["welcome", "All"]
    assert table.rows[0][1:6] == ("8", "0", "1", "0", "6 (75.0%)")  # 6 / 8


def test_the_summary_says_who_is_inside_and_how_the_others_ended(results: Results) -> None:
    assert summary(results, "en") == "Entered 9 · Inside 4 · Ended 5 (Completed 4, Unsubscribed 1)"  # 9 - 5 = 4


@pytest.mark.parametrize("lang", ["ja", "en"])
def test_the_artifact_escapes_titles_and_explains_each_number(results: Results, lang: str) -> None:
    text = results_markdown(results, lang)

    assert "## Welcome \\| ようこそ" in text
    assert "| welcome | 8 |" in text
    assert define(Metric.opened).numerator[lang] in text


def test_the_artifact_of_a_journey_nobody_entered_says_so() -> None:
    empty = Results(title="Welcome", steps=(), totals={}, days=())

    assert "Nothing was sent yet." in results_markdown(empty, "en")
