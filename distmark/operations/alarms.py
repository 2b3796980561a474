"""Alarms: enrollments that are late, journeys that nobody enters any more, and messages that cannot be made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, case, exists, func, or_, select
from sqlmodel import Session, col

from distmark.campaigns.table import Campaign, CampaignStatus
from distmark.clock import Clock
from distmark.enrollments.model import UNMADE, EnrollmentStatus
from distmark.enrollments.table import Enrollment, Suspension
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.operations.backlog import _late_rows, late_before
from distmark.operations.model import AlarmKind
from distmark.operations.table import Alarm
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require
from distmark.sql import id_of, insert_into

DRY_AFTER = timedelta(days=1)  # of the journeys' clock
DRY_DAYS = 7  # a journey is compared with its own last days
DRY_LEAST = 3  # entries on most of them, or nobody coming for a day means nothing
MOST_ALARMS = 200


@dataclass(frozen=True, slots=True)
class AlarmShown:
    """An alarm with the journey it is about."""

    alarm: Alarm
    journey: str
    version: int


@dataclass(frozen=True, slots=True)
class AlarmChanges:
    """The changes of an update: alarms that were raised, and alarms that are over."""

    raised: tuple[int, ...] = ()
    cleared: tuple[int, ...] = ()


def alarms(session: Session, viewer: Viewer, *, open_only: bool = True) -> list[AlarmShown]:
    """Return the brand's alarms, the newest first; with `open_only` those that are not over."""
    require(viewer, Permission.see_journeys)
    statement = visible(select(Alarm, col(Journey.key), col(JourneyVersion.number)), Alarm, viewer)
    statement = statement.join(Journey, col(Journey.id) == col(Alarm.journey_id))
    statement = statement.join(JourneyVersion, col(JourneyVersion.id) == col(Alarm.version_id))
    if open_only:
        statement = statement.where(col(Alarm.cleared_at).is_(None))
    rows = session.execute(statement.order_by(col(Alarm.id).desc()).limit(MOST_ALARMS))
    return [AlarmShown(alarm, key, number) for alarm, key, number in rows]


def alarm_count(session: Session, viewer: Viewer) -> int:
    """Return how many of the brand's alarms are not over."""
    require(viewer, Permission.see_journeys)
    standing = visible(select(func.count(col(Alarm.id))), Alarm, viewer).where(col(Alarm.cleared_at).is_(None))
    return int(session.execute(standing).scalar_one())


def update_alarms(session: Session, clock: Clock) -> AlarmChanges:
    """Raise an alarm for every version that is late, has run dry or has messages that cannot be made, and clear those that are over."""
    now = clock.now()
    troubles = {**_late(session, late_before(clock), now), **_dry(session, now), **_unmade(session)}
    opened = session.execute(select(Alarm).where(col(Alarm.cleared_at).is_(None)).with_for_update()).scalars().all()
    cleared = [alarm for alarm in opened if (alarm.version_id, alarm.kind) not in troubles]
    for alarm in cleared:
        alarm.cleared_at = now
        session.add(alarm)
    for alarm in opened:
        if alarm.cleared_at is None:
            alarm.detail = troubles[alarm.version_id, alarm.kind]
            session.add(alarm)
    known = {(alarm.version_id, alarm.kind) for alarm in opened}
    raised = _raise(session, {place: detail for place, detail in troubles.items() if place not in known}, now)
    session.flush()
    return AlarmChanges(tuple(raised), tuple(id_of(alarm) for alarm in cleared))


Troubles = dict[tuple[int, AlarmKind], dict[str, Any]]


def _late(session: Session, before: datetime, now: datetime) -> Troubles:
    """Return the versions with enrollments that were due before `before`, with their number and the oldest due time."""
    where = (col(Enrollment.status) == EnrollmentStatus.waiting, col(Enrollment.due_at) < before)
    late = _late_rows(col(Enrollment.version_id), col(Enrollment.due_at), where=where)
    by_version = select(late.c.version_id, func.count(), func.min(late.c.due_at)).group_by(late.c.version_id)
    return {
        (version_id, AlarmKind.late): {
            "count": number,
            "oldest_due_at": oldest.isoformat(),
            "late_seconds": round((now - oldest).total_seconds()),
        }
        for version_id, number, oldest in session.execute(by_version)
    }


def _unmade(session: Session) -> Troubles:
    """Return the versions with enrollments whose message cannot be made, with their number."""
    where = (col(Enrollment.status) == EnrollmentStatus.parked, col(Enrollment.why) == UNMADE)
    by_version = select(col(Enrollment.version_id), func.count()).where(*where).group_by(col(Enrollment.version_id))
    return {(version_id, AlarmKind.unmade): {"count": number} for version_id, number in session.execute(by_version)}


def _dry(session: Session, now: datetime) -> Troubles:
    """Return the newest registered versions of journeys without an entry for a day, although most days before had one.

    The same day a week ago counts apart, so that an office's weekend is no trouble. A journey that people paused, let run dry or whose
    campaigns are closed may stand still.
    """
    found: Troubles = {}
    for journey_id, version_id, days in _quiet(session, now):
        usual = sorted(days)[len(days) // 2]
        if usual >= DRY_LEAST and days[0] > 0 and not _is_meant(session, journey_id, version_id):
            found[version_id, AlarmKind.dry] = {
                "usual_per_day": usual,
                "same_day_last_week": days[0],
                "since": (now - DRY_AFTER).isoformat(),
            }
    return found


def _quiet(session: Session, now: datetime) -> Iterator[tuple[int, int, list[int]]]:
    """Yield journeys without an entry for a day: newest registered version, and entries on each of the seven days before, oldest first."""
    newest = (
        select(col(JourneyVersion.journey_id), func.max(col(JourneyVersion.number)).label("number"))
        .where(col(JourneyVersion.status) == VersionStatus.registered)
        .group_by(col(JourneyVersion.journey_id))
        .subquery()
    )
    recent = exists().where(col(Enrollment.journey_id) == newest.c.journey_id, col(Enrollment.entered_at) > now - DRY_AFTER)
    versions = select(newest.c.journey_id, col(JourneyVersion.id)).join(
        JourneyVersion, and_(col(JourneyVersion.journey_id) == newest.c.journey_id, col(JourneyVersion.number) == newest.c.number)
    )
    for journey_id, version_id in session.execute(versions.where(~recent)).all():
        yield journey_id, version_id, _entries_by_day(session, journey_id, now)


def _entries_by_day(session: Session, journey_id: int, now: datetime) -> list[int]:
    starts = [now - DRY_AFTER - DRY_AFTER * number for number in range(DRY_DAYS, 0, -1)]
    entered = col(Enrollment.entered_at)
    counts = [func.count(case((and_(entered > start, entered <= start + DRY_AFTER), 1))) for start in starts]
    row = session.execute(select(*counts).where(col(Enrollment.journey_id) == journey_id, entered > starts[0])).one()
    return [int(number) for number in row]


def _is_meant(session: Session, journey_id: int, version_id: int) -> bool:
    """Return whether the journey is paused, drained or without an open campaign, so that no entries are expected."""
    of_journey = or_(col(Suspension.journey_id) == journey_id, col(Suspension.version_id) == version_id)
    whole = and_(*(getattr(Suspension, part).is_(None) for part in ("campaign_id", "partner_id", "contact_id")))
    if session.execute(select(col(Suspension.id)).where(of_journey, whole, col(Suspension.lifted_at).is_(None)).limit(1)).first():
        return True
    states = set(session.execute(select(col(Campaign.status)).where(col(Campaign.journey_id) == journey_id).distinct()).scalars())
    return bool(states) and CampaignStatus.open not in states


def _raise(session: Session, troubles: Mapping[tuple[int, AlarmKind], dict[str, Any]], now: datetime) -> Sequence[int]:
    """Store an open alarm for each, and return those that are new: another process may have raised the same a moment ago."""
    if not troubles:
        return []
    ids = {version_id for version_id, _kind in troubles}
    versions = select(col(JourneyVersion.id), col(JourneyVersion.journey_id), col(Journey.brand_id)).join(
        Journey, col(Journey.id) == col(JourneyVersion.journey_id)
    )
    of = {
        version_id: (journey_id, brand_id)
        for version_id, journey_id, brand_id in session.execute(versions.where(col(JourneyVersion.id).in_(ids)))
    }
    rows = [
        {
            "brand_id": of[version_id][1],
            "journey_id": of[version_id][0],
            "version_id": version_id,
            "kind": kind,
            "detail": detail,
            "raised_at": now,
        }
        for (version_id, kind), detail in troubles.items()
    ]
    return list(session.execute(insert_into(session, Alarm).values(rows).on_conflict_do_nothing().returning(col(Alarm.id))).scalars())
