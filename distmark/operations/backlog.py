"""The enrollments at each step: how many wait, are paused, parked, due or late."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CTE, ColumnElement, func, or_, select
from sqlmodel import Session, col

from distmark.clock import Clock
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.journeys.table import Journey, JourneyVersion
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require

LATE_AFTER = timedelta(minutes=5)  # real time


@dataclass(frozen=True, slots=True)
class StepWatch:
    """One step of one version with people at it; "" is the start. Times are aware UTC, lateness is of those that are due."""

    journey: str
    version: int
    version_id: int
    step_id: str
    waiting: int
    paused: int
    parked: int
    due: int
    oldest_due_at: datetime | None = None
    late_p50: timedelta = timedelta(0)
    late_max: timedelta = timedelta(0)


def watch(session: Session, viewer: Viewer, now: datetime) -> list[StepWatch]:
    """Return every step of the brand's journeys with live enrollments, the latest first, then by journey, version and step."""
    require(viewer, Permission.see_journeys)
    versions = _versions_of(session, viewer)
    late = _lateness(session, versions, now)
    rows = []
    for (version_id, step_id), numbers in _counts(session, versions).items():
        journey, number = versions[version_id]
        behind = late.get((version_id, step_id), _Behind())
        at_rest = (journey, number, version_id, step_id, *numbers)
        rows.append(StepWatch(*at_rest, due=behind.due, oldest_due_at=behind.oldest_due_at, late_p50=behind.p50, late_max=behind.most))
    return sorted(rows, key=lambda row: (-row.late_max, row.journey, -row.version, row.step_id))


def late_before(clock: Clock) -> datetime:
    """Return the moment before which nobody should be due any more: five real minutes ago, on the journeys' clock."""
    now = clock.now()
    return now - (clock.in_real(LATE_AFTER) - now)


def lateness(session: Session, now: datetime) -> timedelta:
    """Return how late the oldest enrollment is that should have moved on, of all brands; nothing when none should have."""
    oldest = session.execute(select(func.min(col(Enrollment.due_at))).where(*_due(now))).scalar_one()
    return now - oldest if oldest else timedelta(0)


def _versions_of(session: Session, viewer: Viewer) -> dict[int, tuple[str, int]]:
    mine = visible(select(col(JourneyVersion.id), col(Journey.key), col(JourneyVersion.number)), Journey, viewer)
    rows = session.execute(mine.join(Journey, col(Journey.id) == col(JourneyVersion.journey_id)))
    return {version_id: (key, number) for version_id, key, number in rows if version_id is not None}


def _counts(session: Session, versions: Collection[int]) -> dict[tuple[int, str], tuple[int, int, int]]:
    """Return waiting, paused and parked by version and step: all of it is in the index over version, status and step."""
    place = (col(Enrollment.version_id), col(Enrollment.step_id))
    live = select(*place, col(Enrollment.status), func.count()).where(
        col(Enrollment.version_id).in_(versions), col(Enrollment.status).in_(_LIVE)
    )
    found: dict[tuple[int, str], dict[EnrollmentStatus, int]] = {}
    for version_id, step_id, status, number in session.execute(live.group_by(*place, col(Enrollment.status))):
        found.setdefault((version_id, step_id or ""), {})[status] = number
    return {at: (numbers.get(_LIVE[0], 0), numbers.get(_LIVE[1], 0), numbers.get(_LIVE[2], 0)) for at, numbers in found.items()}


_LIVE = (EnrollmentStatus.waiting, EnrollmentStatus.paused, EnrollmentStatus.parked)


def _due(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return col(Enrollment.status) == EnrollmentStatus.waiting, col(Enrollment.due_at) <= now


def _late_rows(*columns: Any, where: Sequence[ColumnElement[bool]]) -> CTE:
    """Return some columns of the late enrollments, found by themselves first.

    Left alone, SQLite groups a million who wait by an index over versions and looks at the time of each.
    """
    return select(*columns).where(*where).cte("late").prefix_with("MATERIALIZED")


@dataclass(frozen=True, slots=True)
class _Behind:
    """The due enrollments at one step: their number, since when, and how late half of them and the oldest are."""

    due: int = 0
    oldest_due_at: datetime | None = None
    p50: timedelta = timedelta(0)
    most: timedelta = timedelta(0)


def _lateness(session: Session, versions: Collection[int], now: datetime) -> dict[tuple[int, str], _Behind]:
    """Return the due enrollments, by version and step."""
    late = _late_rows(col(Enrollment.version_id), col(Enrollment.step_id), col(Enrollment.due_at), where=_due(now))
    place = (late.c.version_id, late.c.step_id)
    rank = func.row_number().over(partition_by=place, order_by=late.c.due_at).label("rank")
    due = func.count().over(partition_by=place).label("due")
    row = select(*place, late.c.due_at, rank, due).where(late.c.version_id.in_(versions)).subquery()
    oldest_and_median = select(row).where(or_(row.c.rank == 1, row.c.rank == (row.c.due + 1) // 2)).order_by(row.c.due_at)
    found: dict[tuple[int, str], _Behind] = {}
    for version_id, step_id, due_at, _rank, count in session.execute(oldest_and_median):
        oldest = found.get((version_id, step_id or ""), _Behind(oldest_due_at=due_at)).oldest_due_at or due_at
        found[version_id, step_id or ""] = _Behind(count, oldest, now - due_at, now - oldest)
    return found
