"""Parked enrollments: those whose step failed again and again, and the retry of their step."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlmodel import Session, col

from distmark.compliance.service import record
from distmark.enrollments.bulk import count
from distmark.enrollments.control import unpark
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.shown import changed
from distmark.enrollments.suspensions import is_held, lock_suspensions
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.errors import InvalidInput, NotFound
from distmark.journeys.service import get_version
from distmark.journeys.table import Journey, JourneyVersion
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import may_see, visible
from distmark.partners.service import require
from distmark.sql import among, id_of

MOST_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Parked:
    """One enrollment whose step raised again and again, with the journey it is in, and since when it stands."""

    enrollment: Enrollment
    journey: str
    version: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Retried:
    """The counts of a retry: `tried` enrollments go on at once, `held` ones stay because a pause holds them."""

    tried: int = 0
    held: int = 0


def parked(session: Session, viewer: Viewer, before: int | None = None, limit: int = 20) -> list[Parked]:
    """Return the brand's parked enrollments, the newest first, those with a smaller id than `before` when it is given."""
    require(viewer, Permission.publish_campaigns)
    statement = visible(select(Enrollment, col(Journey.key), col(JourneyVersion.number)), Enrollment, viewer).where(_is_parked())
    statement = statement.join(Journey, col(Journey.id) == col(Enrollment.journey_id))
    statement = statement.join(JourneyVersion, col(JourneyVersion.id) == col(Enrollment.version_id))
    if before is not None:
        statement = statement.where(col(Enrollment.id) < before)
    rows = session.execute(statement.order_by(col(Enrollment.id).desc()).limit(limit)).all()
    since = _since(session, [id_of(row) for row, _key, _number in rows])
    return [Parked(row, key, number, since.get(id_of(row))) for row, key, number in rows]


def parked_count(session: Session, viewer: Viewer) -> int:
    """Return how many of the brand's enrollments are parked."""
    require(viewer, Permission.publish_campaigns)
    return count(session, [may_see(Enrollment, viewer), _is_parked()])


def retry_parked(session: Session, viewer: Viewer, enrollment_ids: Sequence[int], now: datetime) -> Retried:
    """Let these parked enrollments try their step again at once, with all their tries; one that is not parked any more stays as it is.

    The worker claims their run again, whatever state it ended in. NotFound when one of them is not the viewer's.
    """
    require(viewer, Permission.publish_campaigns)
    if not 0 < len(enrollment_ids) <= MOST_AT_ONCE:
        raise InvalidInput(f"{len(enrollment_ids)} enrollments were chosen; choose 1 to {MOST_AT_ONCE} of them.")
    mine = [may_see(Enrollment, viewer), among(session, col(Enrollment.id), enrollment_ids)]
    if count(session, mine) != len(set(enrollment_ids)):
        raise NotFound(f"Not all of the enrollments {', '.join(map(str, enrollment_ids))} are yours; choose among those that you see.")
    lock_suspensions(session, viewer.brand_id)
    subjects = session.execute(select(col(Enrollment.id)).where(*mine, _is_parked(), ~is_held())).scalars().all()
    retried = _try(session, viewer, mine, now)
    for enrollment_id in subjects:
        record(session, viewer.brand_id, viewer.user_id, "tried_again", "enrollment", enrollment_id or 0, now, None)
    return retried


def retry_parked_at_step(
    session: Session, viewer: Viewer, version_id: int, step_id: str, now: datetime, shown: int | None = None
) -> Retried:
    """Let every enrollment parked at the step of this version try it again at once; "" is the start. NotFound as for `get_version`.

    SelectionChanged when more are parked there than were `shown`.
    """
    require(viewer, Permission.publish_campaigns)
    get_version(session, viewer, version_id)
    there = [may_see(Enrollment, viewer), col(Enrollment.version_id) == version_id, func.coalesce(col(Enrollment.step_id), "") == step_id]
    if shown is not None and (parked_now := count(session, [*there, _is_parked()])) > shown:
        raise changed(parked_now, shown)
    retried = _try(session, viewer, there, now)
    recorded_detail = {"step": step_id, "count": retried.tried}
    record(session, viewer.brand_id, viewer.user_id, "tried_again", "journey_version", version_id, now, None, **recorded_detail)
    return retried


def _try(session: Session, viewer: Viewer, where: list[ColumnElement[bool]], now: datetime) -> Retried:
    lock_suspensions(session, viewer.brand_id)  # a pause made at the same time either is seen here, or sees them
    tried = unpark(session, [*where, ~is_held()], now, viewer.user_id)
    return Retried(tried, count(session, [*where, _is_parked()]))


def _since(session: Session, ids: Sequence[int]) -> dict[int, datetime]:
    """Return when each of these last ran into an error."""
    last: Any = select(col(TimelineEntry.enrollment_id), func.max(col(TimelineEntry.at))).where(
        col(TimelineEntry.enrollment_id).in_(ids), col(TimelineEntry.kind) == TimelineKind.error
    )
    return dict(session.execute(last.group_by(col(TimelineEntry.enrollment_id))).tuples().all())


def _is_parked() -> ColumnElement[bool]:
    return col(Enrollment.status) == EnrollmentStatus.parked
