"""Runs of one work queue that a worker should wake, found by the database alone: nothing here asks Prefect."""

from datetime import datetime
from uuid import UUID

from sqlmodel import Session, col, select

from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment


def is_any_due(session: Session, queue: str, now: datetime) -> bool:
    """Say whether the due time of any launched, unclaimed enrollment of the queue has come."""
    due = (
        select(Enrollment.id)
        .where(
            Enrollment.status == EnrollmentStatus.waiting,
            col(Enrollment.due_at) <= now,
            col(Enrollment.claimed_by).is_(None),
            col(Enrollment.flow_run_id).is_not(None),
            Enrollment.queue == queue,
        )
        .limit(1)
    )
    return session.exec(due).first() is not None


def woken_runs(session: Session, queue: str, now: datetime, limit: int) -> dict[UUID, str]:
    """Return the run key of each flow run with an enrollment that was woken, the earliest wake-up first.

    A paused enrollment keeps its wake-up until it is resumed. At most `limit` enrollments are read.
    """
    rows = session.exec(
        select(Enrollment.flow_run_id, Enrollment.run_key)
        .where(
            col(Enrollment.woken_at) <= now,
            Enrollment.status != EnrollmentStatus.paused,
            col(Enrollment.claimed_by).is_(None),
            col(Enrollment.flow_run_id).is_not(None),
            Enrollment.queue == queue,
        )
        .order_by(col(Enrollment.woken_at))
        .limit(limit)
    ).all()
    return {UUID(str(flow_run_id)): run_key for flow_run_id, run_key in rows}
