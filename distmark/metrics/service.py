"""The results read from the counts, for pages, command line and artifacts. Reads only; `rolling` writes the counts."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, or_, select
from sqlmodel import Session, col

from distmark.campaigns.offers import offered_journey
from distmark.campaigns.service import get_campaign
from distmark.db import Database
from distmark.errors import NotAllowed, NotFound
from distmark.experiments.service import DecidedExperiments, decide_due_experiments
from distmark.journeys.service import program_of
from distmark.journeys.table import Journey, JourneyVersion
from distmark.metrics.model import (
    EVENT_PREFIX,
    JOURNEY,
    LINK_PREFIX,
    OUTCOME_PREFIX,
    DayResults,
    Key,
    Metric,
    Results,
    RolledUp,
    StepResults,
    Tally,
)
from distmark.metrics.recount import recount
from distmark.metrics.report import results_markdown
from distmark.metrics.rollup import roll_up
from distmark.metrics.table import Count, RollUp
from distmark.partners.model import Permission, Viewer
from distmark.sql import id_of

__all__ = [
    "Results",
    "RolledUp",
    "campaign_results",
    "count_and_decide",
    "home_numbers",
    "journey_results",
    "journeys_with_results",
    "metrics",
    "recount",
    "results",
    "results_markdown",
    "roll_up",
]

SERIES_DAYS = 30
Counts = dict[str, int]


def count_and_decide(db: Database, now: datetime) -> DecidedExperiments:
    """Roll up everything written so far and decide every due experiment; simulations call it now and then."""
    roll_up(db, now)
    return decide_due_experiments(db, now)


def metrics(session: Session, version_ids: Iterable[int] | None = None) -> dict[Key, Tally]:
    """Return the rolled-up counts that are not zero; `recount` gives the same from the raw rows."""
    query = select(*(col(getattr(Count, name)) for name in (*Key._fields, "count", "value"))).where(
        or_(col(Count.count) != 0, col(Count.value) != 0)
    )
    if version_ids is not None:
        query = query.where(col(Count.version_id).in_(list(version_ids)))
    return {Key(*row[:6]): Tally(row[6], row[7]) for row in session.execute(query).all()}


def results(
    session: Session,
    viewer: Viewer,
    journey_key: str,
    *,
    version: int | None = None,
    campaign_id: int | None = None,
    days: int = SERIES_DAYS,
    lang: str = "",
) -> Results:
    """Return the results of a journey of the viewer's brand, named in `lang` or the viewer's language; a partner sees their own contacts.

    Raises NotFound and NotAllowed.
    """
    _require(viewer)
    journey = offered_journey(session, viewer, journey_key)
    if campaign_id is not None and get_campaign(session, viewer, campaign_id).journey_id != journey.id:
        raise NotFound(f"There is no campaign {campaign_id} of this journey among yours.")
    return journey_results(
        session,
        journey,
        version=version,
        campaign_id=campaign_id,
        partner_id=viewer.partner_id,
        days=days,
        lang=lang or viewer.language,
    )


def campaign_results(session: Session, viewer: Viewer, campaign_id: int, days: int = SERIES_DAYS) -> Results:
    """Return the results of one campaign; a partner sees their own contacts only. Raises NotFound, NotAllowed."""
    _require(viewer)
    campaign = get_campaign(session, viewer, campaign_id)
    journey = session.get_one(Journey, campaign.journey_id)
    return journey_results(session, journey, campaign_id=campaign_id, partner_id=viewer.partner_id, days=days, lang=viewer.language)


def journey_results(
    session: Session,
    journey: Journey,
    *,
    version: int | None = None,
    campaign_id: int | None = None,
    partner_id: int | None = None,
    days: int = SERIES_DAYS,
    lang: str = "ja",
) -> Results:
    """Return a journey's results over all its versions, or one. The steps come in the order of the newest version counted."""
    versions = _versions_of(session, journey, version)
    rows = _counts(session, [v.id for v in versions if v.id is not None], campaign_id, partner_id)
    rolled_up_at = session.scalars(select(func.max(col(RollUp.at)))).one()
    totals, by_step, by_day, value = _fold(rows)
    return Results(
        title=str(journey.name.get(lang) or journey.key),
        steps=_step_results(session, versions, by_step),
        totals=totals,
        days=_day_results(by_day, rolled_up_at, days),
        versions=tuple(v.number for v in versions),
        value=value,
        rolled_up_at=rolled_up_at,
        outcomes=_family(totals, OUTCOME_PREFIX),
        links=_family(totals, LINK_PREFIX),
        events=_family(totals, EVENT_PREFIX),
    )


def journeys_with_results(session: Session, now: datetime, journey_ids: Iterable[int] | None = None) -> list[tuple[str, Results]]:
    """Return (journey key, results in English) of every journey that anybody entered, or of those of `journey_ids`; sorted by key."""
    entered = select(col(JourneyVersion.journey_id)).join(Count, col(Count.version_id) == col(JourneyVersion.id))
    query = select(Journey).where(col(Journey.id).in_(entered)).order_by(col(Journey.key), col(Journey.id))
    if journey_ids is not None:
        query = query.where(col(Journey.id).in_(list(journey_ids)))
    return [(journey.key, journey_results(session, journey, lang="en")) for journey in session.scalars(query)]


def home_numbers(session: Session, viewer: Viewer, since: date) -> dict[str, int]:
    """Return the viewer's totals per metric from `since` (UTC day, included): a partner's own, or the whole brand's."""
    _require(viewer)
    query = (
        select(col(Count.metric), func.sum(col(Count.count)))
        .join(JourneyVersion, col(JourneyVersion.id) == col(Count.version_id))
        .join(Journey, col(Journey.id) == col(JourneyVersion.journey_id))
        .where(col(Journey.brand_id) == viewer.brand_id, col(Count.day) >= since)
        .group_by(col(Count.metric))
    )
    if viewer.partner_id is not None:
        query = query.where(col(Count.partner_id) == viewer.partner_id)
    return {metric: int(count) for metric, count in session.execute(query).all()}


def _require(viewer: Viewer) -> None:
    if not viewer.may(Permission.see_results):
        raise NotAllowed(f"{viewer.name} ({viewer.role}) may not see results; ask an administrator for the right.")


def _versions_of(session: Session, journey: Journey, number: int | None) -> list[JourneyVersion]:
    query = select(JourneyVersion).where(col(JourneyVersion.journey_id) == journey.id).order_by(col(JourneyVersion.number))
    versions = list(session.scalars(query))
    if number is None:
        return [v for v in versions if v.registered_at is not None] or versions[-1:]
    chosen = [v for v in versions if v.number == number]
    if not chosen:
        raise NotFound(f"Journey {journey.key} has no version {number}; it has {', '.join(str(v.number) for v in versions) or 'none'}.")
    return chosen


def _counts(session: Session, version_ids: list[int], campaign_id: int | None, partner_id: int | None) -> Sequence[Row[Any]]:
    query = (
        select(
            col(Count.step_id),
            col(Count.day),
            col(Count.metric),
            func.sum(col(Count.count)).label("n"),
            func.sum(col(Count.value)).label("value"),
        )
        .where(col(Count.version_id).in_(version_ids))
        .group_by(col(Count.step_id), col(Count.day), col(Count.metric))
    )
    if campaign_id is not None:
        query = query.where(col(Count.campaign_id) == campaign_id)
    if partner_id is not None:
        query = query.where(col(Count.partner_id) == partner_id)
    return session.execute(query).all()


def _fold(rows: Sequence[Row[Any]]) -> tuple[Counts, dict[str, Counts], dict[date, Counts], float]:
    totals: Counts = defaultdict(int)
    by_step: dict[str, Counts] = defaultdict(lambda: defaultdict(int))
    by_day: dict[date, Counts] = defaultdict(lambda: defaultdict(int))
    value = 0.0
    for row in rows:
        for counts in (totals, by_step[row.step_id], by_day[row.day]):
            counts[row.metric] += int(row.n)
        value += row.value if row.metric == Metric.conversions else 0.0
    return dict(totals), by_step, by_day, value


def _step_results(session: Session, versions: list[JourneyVersion], by_step: Mapping[str, Counts]) -> tuple[StepResults, ...]:
    """Return the newest version's steps in order, then those that only older versions have."""
    seen: dict[str, StepResults] = {}
    for version in reversed(versions):
        program = program_of(session, id_of(version))
        for step_id in (placed.step_id for placed in program.order if placed.step_id not in seen):
            step = program.steps[step_id]
            seen[step_id] = StepResults(step_id, step.kind, dict(by_step.get(step_id, {})), getattr(step, "message", None) or "")
    rest = [StepResults(step, "", dict(counts)) for step, counts in sorted(by_step.items()) if step not in seen and step != JOURNEY]
    return (*seen.values(), *rest)


def _day_results(by_day: Mapping[date, Counts], rolled_up_at: datetime | None, days: int) -> tuple[DayResults, ...]:
    last = max([*by_day, *([rolled_up_at.date()] if rolled_up_at else [])], default=None)
    if last is None:
        return ()
    return tuple(DayResults(day, dict(by_day.get(day, {}))) for day in (last - timedelta(days=back) for back in range(days - 1, -1, -1)))


def _family(totals: Mapping[str, int], prefix: str) -> dict[str, int]:
    found = {metric.removeprefix(prefix): count for metric, count in totals.items() if metric.startswith(prefix)}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))
