"""Results of a journey: its main numbers, the numbers of each step, and those of each day. The page defines each number."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session

from distmark.campaigns import offers
from distmark.campaigns import service as campaigns
from distmark.enrollments import service as enrollments
from distmark.journeys import service as journeys
from distmark.journeys.program import Program
from distmark.journeys.service import newest_by_journey
from distmark.journeys.table import Journey, VersionStatus
from distmark.metrics import service as metrics
from distmark.metrics.definitions import define, outcome_name
from distmark.metrics.model import Metric, Results, StepResults, rate
from distmark.partners.model import Permission
from distmark.sql import id_of
from distmark.web import charts
from distmark.web.charts import Series
from distmark.web.i18n import N_
from distmark.web.ids import Id
from distmark.web.permissions import needs
from distmark.web.status_text import step_name
from distmark.web.visit import Visit

router = APIRouter()
DAYS = (7, 30, 90)
DAILY = (Metric.entered, Metric.sent, Metric.clicked)
SHOWN_METRICS = (Metric.sent, Metric.opened, Metric.clicked, Metric.unsubscribed)
# An enrollment that goes on from a step is counted in exactly one of these.
LEAVING = (
    Metric.passed,
    Metric.branched,
    Metric.task,
    Metric.skipped,
    Metric.sent,
    Metric.failed,
    Metric.suppressed,
    Metric.uncertain,
)
FAILURES = (Metric.failed, Metric.suppressed, Metric.uncertain, Metric.bounced)


@dataclass(frozen=True, slots=True)
class StepResultRow:
    """One step in the table of results; `reached` enrollments arrived at it, and `share` is their share of all that entered, 0 to 1."""

    step_id: str
    name: str
    kind: str
    reached: int
    share: float | None
    here: int
    counts: dict[str, int]
    rates: dict[str, float | None]
    failures: int


@router.get("/results")
def results_list(visit: Visit = needs(Permission.see_results)) -> Response:
    """List the published journeys, each with its main numbers."""
    with visit.reading() as session:
        found = [(journey, metrics.results(session, visit.viewer, journey.key)) for journey in _journeys(session, visit)]
    return visit.page("results/list.html", found=found, rate=rate, Metric=Metric)


def _journeys(session: Session, visit: Visit) -> list[Journey]:
    published = newest_by_journey(session, visit.viewer, (VersionStatus.registered, VersionStatus.retired))
    return [journey for journey in offers.offered_journeys(session, visit.viewer) if journey.id in published]


@router.get("/results/{key}")
def results_page(
    key: str,
    visit: Visit = needs(Permission.see_results),
    version: Id | None = None,
    campaign: Id | None = None,
    days: Id = 30,
) -> Response:
    """Show the results of a journey, of one version or of one campaign."""
    days = days if days in DAYS else DAYS[1]
    with visit.reading() as session:
        journey = offers.offered_journey(session, visit.viewer, key)
        offered = [row for row in campaigns.list_campaigns(session, visit.viewer) if row.journey_id == journey.id]
        found = metrics.results(session, visit.viewer, key, version=version, campaign_id=campaign, days=days)
        versions = [row for row in journeys.versions_of(session, id_of(journey)) if row.registered_at is not None]
        newest = next((row for row in versions if version in (None, row.number)), None)
        program = journeys.program_of(session, id_of(newest)) if newest else None
        here = _people_at_steps(session, visit, newest.id if newest else None, campaign)
    rows = step_rows(visit, found, program, here)
    daily = [Series(visit.translator.named(_name(metric)), tuple(float(day.count(metric)) for day in found.days)) for metric in DAILY]
    return visit.page(
        "results/page.html",
        journey=journey,
        results=found,
        campaigns=offered,
        versions=versions,
        chosen_version=version,
        chosen_campaign=campaign,
        days=days,
        all_days=DAYS,
        rows=rows,
        worst=worst_of(rows),
        sentence=sentence_of(visit, found, program),
        goal=program.definition.goal if program else None,
        converted=rate(found.totals, Metric.converted, Metric.entered),
        daily=daily,
        daily_metrics=DAILY,
        chart=charts.lines(daily),
        chart_top=charts.top_of(daily),
        chart_key=charts.key,
        bar=charts.bar,
        shown=SHOWN_METRICS,
        outcome_name=outcome_name,
    )


def _name(metric: Metric) -> dict[str, str]:
    return define(metric).name


def _people_at_steps(session: Session, visit: Visit, version_id: int | None, campaign_id: int | None) -> dict[str, int]:
    if campaign_id is not None:
        return enrollments.step_counts(session, visit.viewer, campaign_id=campaign_id)
    return enrollments.step_counts(session, visit.viewer, version_id=version_id) if version_id is not None else {}


def step_rows(visit: Visit, found: Results, program: Program | None, here: dict[str, int]) -> list[StepResultRow]:
    """Return one row per step, in the order of the definition."""
    entered = found.count(Metric.entered)
    rows = []
    for step in found.steps:
        placed = program.steps.get(step.step_id) if program else None
        reached = left_of(step) + here.get(step.step_id, 0)
        rows.append(
            StepResultRow(
                step_id=step.step_id,
                name=step_name(placed, visit.translator) if placed else step.step_id,
                kind=step.kind,
                reached=reached,
                share=min(1.0, reached / entered) if entered else None,
                here=here.get(step.step_id, 0),
                counts={metric: step.count(metric) for metric in SHOWN_METRICS},
                rates={metric: step.rate(metric) for metric in SHOWN_METRICS},
                failures=sum(step.count(metric) for metric in FAILURES),
            )
        )
    return rows


def left_of(step: StepResults) -> int:
    """Return the number of enrollments that went on from the step."""
    return sum(step.count(metric) for metric in LEAVING)


def worst_of(rows: Sequence[StepResultRow]) -> StepResultRow | None:
    """Return the step with the most live enrollments; None when no step has any."""
    occupied = [row for row in rows if row.here]
    return max(occupied, key=lambda row: row.here, default=None)


def sentence_of(visit: Visit, found: Results, program: Program | None) -> str:
    """Return the page's sentence: how many began, and the rate of the goal beside its target."""
    entered = found.count(Metric.entered)
    if not entered:
        return visit.gettext(N_("Nobody has begun this journey yet."))
    text = visit.translator.ngettext("%(n)s person began.", "%(n)s people began.", entered)
    goal = program.definition.goal if program else None
    if goal is None:
        return text
    reached = rate(found.totals, Metric.converted, Metric.entered)
    if goal.target is None:
        return visit.translator.joined(text, visit.gettext(N_("%(rate)s reached the goal."), rate=visit.translator.percent(reached)))
    goal_sentence = visit.gettext(
        N_("%(rate)s reached the goal; the target is %(target)s."),
        rate=visit.translator.percent(reached),
        target=visit.translator.percent(goal.target.rate),
    )
    return visit.translator.joined(text, goal_sentence)
