"""Real wakes without Prefect, on a clock that is moved from one due time to the next."""

from datetime import datetime, timedelta

from sqlalchemy import func, or_
from sqlmodel import Session, col, select

from distmark.clock import FixedClock
from distmark.engine.wake import EngineContext, wake
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment

STEP = timedelta(0)


async def drive(context: EngineContext, clock: FixedClock, until: datetime, *, together: timedelta = STEP) -> int:
    """Wake every run that falls due up to `until`, in the order of time, moving `clock` to each moment; return the count of wakes.

    Wakes closer to each other than `together` happen at the same moment, the latest of them. The clock stands at `until` afterwards.
    """
    wakes = 0
    while True:
        with context.db.reading() as session:
            run_keys = _due(session, clock.now())
            following = None if run_keys else _next_due(session)
        for run_key in run_keys:
            await wake(context, run_key)
            wakes += 1
        if run_keys:
            continue
        if following is None or following > until:
            clock.move_to(max(until, clock.now()))
            return wakes
        clock.move_to(max(min(following + together, until), clock.now()))


def _due(session: Session, now: datetime) -> list[str]:
    statement = (
        select(Enrollment.run_key)
        .where(
            Enrollment.status == EnrollmentStatus.waiting,
            col(Enrollment.claimed_by).is_(None),
            or_(col(Enrollment.due_at) <= now, col(Enrollment.woken_at) <= now),
        )
        .group_by(col(Enrollment.run_key))
        .order_by(func.min(Enrollment.due_at), func.min(Enrollment.id))
    )
    return list(session.exec(statement).all())


def _next_due(session: Session) -> datetime | None:
    # An enrollment claimed by another worker is left to that worker: here it would stay due forever.
    free = select(func.min(Enrollment.due_at)).where(Enrollment.status == EnrollmentStatus.waiting, col(Enrollment.claimed_by).is_(None))
    return session.exec(free).one()
