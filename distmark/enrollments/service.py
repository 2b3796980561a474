"""Enrollments: reading them, waking them and ending them. Moving them along their journeys is the engine's work."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, update
from sqlmodel import Session, col, select

from distmark.compliance.service import record
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.errors import NotFound
from distmark.journeys.outcomes import Outcome
from distmark.partners.model import Viewer
from distmark.partners.scope import visible
from distmark.sql import among, id_of, row_count

ASLEEP = (EnrollmentStatus.waiting, EnrollmentStatus.paused)


def enrollment_of(session: Session, viewer: Viewer, enrollment_id: int) -> Enrollment:
    """Return the enrollment; NotFound when it is outside the viewer's sight."""
    row = session.exec(visible(select(Enrollment), Enrollment, viewer).where(Enrollment.id == enrollment_id)).first()
    if row is None:
        raise NotFound(f"There is no enrollment {enrollment_id} among yours.")
    return row


def enrollments_of_contact(session: Session, viewer: Viewer, contact_id: int) -> list[Enrollment]:
    """Return the contact's enrollments, newest first."""
    return list(
        session.exec(
            visible(select(Enrollment), Enrollment, viewer).where(Enrollment.contact_id == contact_id).order_by(col(Enrollment.id).desc())
        )
    )


def timeline(session: Session, viewer: Viewer, enrollment_id: int) -> list[TimelineEntry]:
    """Return everything that happened to the enrollment, oldest first."""
    enrollment_of(session, viewer, enrollment_id)
    return list(
        session.exec(
            select(TimelineEntry).where(TimelineEntry.enrollment_id == enrollment_id).order_by(col(TimelineEntry.at), col(TimelineEntry.id))
        )
    )


def newest_enrollments(session: Session, viewer: Viewer, campaign_id: int, contact_ids: Sequence[int]) -> dict[int, Enrollment]:
    """Return each contact's newest enrollment in the campaign, by contact id; a contact without one is absent."""
    rows = session.exec(
        visible(select(Enrollment), Enrollment, viewer)
        .where(Enrollment.campaign_id == campaign_id, col(Enrollment.contact_id).in_(list(contact_ids)))
        .order_by(col(Enrollment.id))
    )
    return {row.contact_id: row for row in rows}


def step_counts(session: Session, viewer: Viewer, *, version_id: int | None = None, campaign_id: int | None = None) -> dict[str, int]:
    """Return the number of live enrollments at each step; under "" the number of those that have not begun."""
    statement = visible(select(Enrollment.step_id, func.count()), Enrollment, viewer).where(Enrollment.status != EnrollmentStatus.ended)
    if version_id is not None:
        statement = statement.where(Enrollment.version_id == version_id)
    if campaign_id is not None:
        statement = statement.where(Enrollment.campaign_id == campaign_id)
    return {step_id or "": count for step_id, count in session.exec(statement.group_by(col(Enrollment.step_id)))}


def wake(session: Session, enrollment_ids: Sequence[int], now: datetime) -> int:
    """Mark the sleeping ones among these enrollments as woken, and return how many. Their worker then wakes them.

    A paused enrollment keeps the mark until it is resumed.
    """
    result = session.execute(
        update(Enrollment).where(col(Enrollment.id).in_(list(enrollment_ids)), col(Enrollment.status).in_(ASLEEP)).values(woken_at=now)
    )
    return row_count(result)


def wake_person(session: Session, brand_id: int, person_key: str, now: datetime) -> int:
    """Mark all sleeping enrollments of this person as woken, and return how many."""
    of_person = (col(Enrollment.person_key) == person_key, col(Enrollment.brand_id) == brand_id, col(Enrollment.status).in_(ASLEEP))
    session.execute(
        select(Enrollment.id).where(*of_person).order_by(col(Enrollment.id)).with_for_update(key_share=True)
    )  # in the order in which wakes lock
    result = session.execute(update(Enrollment).where(*of_person).values(woken_at=now))
    return row_count(result)


def wake_members(session: Session, member_ids: Collection[int], now: datetime) -> int:
    """Mark the sleeping enrollments of these members of campaigns as woken, and return how many."""
    of_members = (among(session, col(Enrollment.member_id), member_ids), col(Enrollment.status).in_(ASLEEP))
    session.execute(select(Enrollment.id).where(*of_members).order_by(col(Enrollment.id)).with_for_update(key_share=True))
    return row_count(session.execute(update(Enrollment).where(*of_members).values(woken_at=now)))


def ended_columns(outcome: Outcome, reason: str, now: datetime) -> dict[str, Any]:
    """Return the columns of an enrollment that has ended."""
    cleared: dict[str, Any] = dict.fromkeys(("live_key", "due_at", "awaits", "woken_at"))
    return {**cleared, "status": EnrollmentStatus.ended, "outcome": outcome.value, "reason": reason, "ended_at": now, "why": ""}


def end(session: Session, enrollment: Enrollment, outcome: Outcome, reason: str, now: datetime, **detail: Any) -> None:
    """End the enrollment: it leaves its step, moves no more, and the person may enter again. A second end changes nothing."""
    if enrollment.status is EnrollmentStatus.ended:
        return
    for name, value in ended_columns(outcome, reason, now).items():
        setattr(enrollment, name, value)
    session.add(enrollment)
    entry_detail = {"outcome": outcome.value, "reason": reason, **detail}
    session.add(
        TimelineEntry(
            enrollment_id=id_of(enrollment), at=now, kind=TimelineKind.ended, step_id=enrollment.step_id or "", detail=entry_detail
        )
    )


def end_cancelled_runs(session: Session, flow_run_ids: Sequence[str], now: datetime) -> int:
    """End the live enrollments of these runs, which were cancelled in the Prefect dashboard, and return how many."""
    reason = "cancelled in the Prefect dashboard"
    rows = session.exec(
        select(Enrollment)
        .where(col(Enrollment.flow_run_id).in_(list(flow_run_ids)), col(Enrollment.status) != EnrollmentStatus.ended)
        .with_for_update()
    ).all()
    for row in rows:
        end(session, row, Outcome.stopped, reason, now)
        record(session, row.brand_id, None, "stopped", "enrollment", id_of(row), now, reason=reason)
    return len(rows)
