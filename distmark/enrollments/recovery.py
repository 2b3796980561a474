"""What keeps enrollments and their runs together: each repair is a line in the timeline of those it was about."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, case, distinct, exists, func, or_, select, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from distmark.enrollments.bulk import change, note
from distmark.enrollments.control import unpark
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.service import ASLEEP
from distmark.enrollments.table import Enrollment
from distmark.sql import batches, row_count

ALIVE = (EnrollmentStatus.waiting, EnrollmentStatus.paused)
MOST_OVERDUE = 2000  # runs looked at in one go: asking Prefect for the states of more would hold up those that it serves


def overdue_runs(session: Session, late_before: datetime, after: str = "") -> list[str]:
    """Return the runs, in the order of their ids and behind `after`, that should have woken before then and are not being walked."""
    row = Enrollment
    # Those who are late are found by themselves first: left alone, SQLite reads a million runs in their order and looks which are late.
    late = select(col(row.run_key), col(row.flow_run_id)).where(_is(EnrollmentStatus.waiting), col(row.due_at) < late_before)
    found = late.distinct().cte("late").prefix_with("MATERIALIZED")  # a cohort once, not once for each of its members
    walked = exists(select(col(row.id)).where(col(row.run_key) == found.c.run_key, col(row.claimed_by).is_not(None)))
    runs = select(distinct(found.c.flow_run_id)).where(found.c.flow_run_id > after, ~walked)
    runs = runs.order_by(found.c.flow_run_id).limit(MOST_OVERDUE)
    return [str(run_id) for run_id in session.execute(runs).scalars()]


def launch_anew(session: Session, flow_run_ids: Sequence[str], now: datetime) -> int:
    """Send the live enrollments of runs that are gone back to the outbox, and return how many. Prefect forgot their keys with the runs."""
    launched = 0
    for part in batches(flow_run_ids):
        where = [col(Enrollment.flow_run_id).in_(part), col(Enrollment.status) != EnrollmentStatus.ended]
        launched += change(session, where, {"flow_run_id": None}, TimelineKind.woken, now, {"mended": "run_gone"})
    return launched


def retry_run(session: Session, run_key: str, now: datetime) -> int:
    """Let the parked enrollments of a run that was over, and that somebody retried in the dashboard, try their step again."""
    member = aliased(Enrollment)
    alive = exists(select(col(member.id)).where(col(member.run_key) == run_key, col(member.status).in_(ALIVE)))
    return unpark(session, [col(Enrollment.run_key) == run_key, ~alive], now, None)


def note_repairs(session: Session, flow_run_ids: Sequence[str], what: str, now: datetime) -> None:
    """Note with the live enrollments of these runs what was mended: run_over, asleep_too_long, run_lost."""
    for part in batches(flow_run_ids):
        where = [col(Enrollment.flow_run_id).in_(part), col(Enrollment.status) != EnrollmentStatus.ended]
        note(session, where, TimelineKind.woken, now, {"mended": what})


def unknown_runs(session: Session, runs: Sequence[tuple[str, str]]) -> list[str]:
    """Return which of these runs (run id, run key) carry nobody: no enrollment has their key, or another run has taken it over."""
    carried: dict[str, set[str | None]] = {}
    for part in batches({run_key for _run_id, run_key in runs}):
        rows = session.execute(select(col(Enrollment.run_key), col(Enrollment.flow_run_id)).where(col(Enrollment.run_key).in_(part)))
        for run_key, flow_run_id in rows:
            carried.setdefault(run_key, set()).add(flow_run_id)
    # A key whose enrollments do not know their run yet is being launched.
    return [run_id for run_id, run_key in runs if not ({run_id, None} & carried.get(run_key, set()))]


def long_claimed(session: Session, claimed_before: datetime, now: datetime) -> dict[str, int]:
    """Return how many enrollments that should move each queue's worker has been walking since before then."""
    claimed = select(col(Enrollment.queue), func.count()).where(_claimed(claimed_before, now))
    rows = session.execute(claimed.group_by(col(Enrollment.queue)))
    return dict(rows.tuples().all())


def release_queue(session: Session, queue: str, now: datetime) -> int:
    """Free whatever was claimed of the queue, and return how many. For the queue's new owner: all who claimed before are dead.

    Each looks at the world again at once: what had woken it was taken off when it was claimed, and the dead may not have acted on it.
    """
    claimed = select(col(Enrollment.id)).where(col(Enrollment.claimed_by).is_not(None), col(Enrollment.queue) == queue)
    in_order = claimed.order_by(col(Enrollment.id)).with_for_update()  # as everybody locks enrollments
    again = case((col(Enrollment.status).in_(ASLEEP), now), else_=col(Enrollment.woken_at))
    freed = update(Enrollment).where(col(Enrollment.id).in_(in_order)).values(claimed_by=None, claimed_at=None, woken_at=again)
    result = session.execute(freed, execution_options={"synchronize_session": False})
    return row_count(result)


def free_claims(session: Session, queue: str, claimed_before: datetime, now: datetime) -> int:
    """Let go of what a dead worker of the queue had claimed, and return how many. Only who owns the queue may say that it is dead."""
    where = [col(Enrollment.queue) == queue, _claimed(claimed_before, now)]
    return change(session, where, {"claimed_by": None, "claimed_at": None}, TimelineKind.woken, now, {"mended": "claim_of_the_dead"})


def _claimed(before: datetime, now: datetime) -> ColumnElement[bool]:
    # A claim keeps nobody from moving before they are due or woken, and those two have indices. One of claims would be written anew at
    # each wake, with all other indices of the row.
    should_move = or_(and_(_is(EnrollmentStatus.waiting), col(Enrollment.due_at) <= now), col(Enrollment.woken_at) <= now)
    return should_move & col(Enrollment.claimed_by).is_not(None) & (col(Enrollment.claimed_at) < before)


def _is(status: EnrollmentStatus) -> ColumnElement[bool]:
    return col(Enrollment.status) == status
