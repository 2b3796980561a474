"""Recovery: repairs of enrollments whose runs or workers are gone. Each repair is noted in the timelines of its enrollments."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, case, distinct, exists, func, or_, select, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from distmark.enrollments.bulk import add_timeline_entries, change
from distmark.enrollments.control import unpark
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.service import ASLEEP
from distmark.enrollments.table import Enrollment
from distmark.sql import batches, row_count

ALIVE = (EnrollmentStatus.waiting, EnrollmentStatus.paused)
MOST_OVERDUE = 2000  # runs per query: to ask Prefect for the states of more would hold up its other work


def overdue_runs(session: Session, late_before: datetime, after: str = "") -> list[str]:
    """Return the ids of runs that should have woken before `late_before` and have no claimed enrollment, ascending from after `after`."""
    row = Enrollment
    # Late enrollments are found in a step of their own: otherwise SQLite reads a million runs in their order to see which are late.
    late = select(col(row.run_key), col(row.flow_run_id)).where(_is(EnrollmentStatus.waiting), col(row.due_at) < late_before)
    found = late.distinct().cte("late").prefix_with("MATERIALIZED")  # a cohort once, not once for each of its members
    claimed = exists(select(col(row.id)).where(col(row.run_key) == found.c.run_key, col(row.claimed_by).is_not(None)))
    runs = select(distinct(found.c.flow_run_id)).where(found.c.flow_run_id > after, ~claimed)
    runs = runs.order_by(found.c.flow_run_id).limit(MOST_OVERDUE)
    return [str(run_id) for run_id in session.execute(runs).scalars()]


def relaunch_runs(session: Session, flow_run_ids: Sequence[str], now: datetime) -> int:
    """Return the live enrollments of these runs, which are gone, to the outbox, and return how many: their run keys are free again."""
    launched = 0
    for part in batches(flow_run_ids):
        where = [col(Enrollment.flow_run_id).in_(part), col(Enrollment.status) != EnrollmentStatus.ended]
        launched += change(session, where, {"flow_run_id": None}, TimelineKind.woken, now, {"mended": "run_gone"})
    return launched


def retry_run(session: Session, run_key: str, now: datetime) -> int:
    """Let the parked enrollments of a finished run try their step again, since a person retried the run; return how many."""
    member = aliased(Enrollment)
    alive = exists(select(col(member.id)).where(col(member.run_key) == run_key, col(member.status).in_(ALIVE)))
    return unpark(session, [col(Enrollment.run_key) == run_key, ~alive], now, None)


def note_repairs(session: Session, flow_run_ids: Sequence[str], repair: str, now: datetime) -> None:
    """Note the repair in the timelines of the live enrollments of these runs: run_over, asleep_too_long or run_lost."""
    for part in batches(flow_run_ids):
        where = [col(Enrollment.flow_run_id).in_(part), col(Enrollment.status) != EnrollmentStatus.ended]
        add_timeline_entries(session, where, TimelineKind.woken, now, {"mended": repair})


def unknown_runs(session: Session, runs: Sequence[tuple[str, str]]) -> list[str]:
    """Return the ids of the runs (run id, run key) without enrollments: none has the key, or another run took the key over."""
    carried: dict[str, set[str | None]] = {}
    for part in batches({run_key for _run_id, run_key in runs}):
        rows = session.execute(select(col(Enrollment.run_key), col(Enrollment.flow_run_id)).where(col(Enrollment.run_key).in_(part)))
        for run_key, flow_run_id in rows:
            carried.setdefault(run_key, set()).add(flow_run_id)
    # Enrollments without a run id yet are being launched under their key.
    return [run_id for run_id, run_key in runs if not ({run_id, None} & carried.get(run_key, set()))]


def long_claimed(session: Session, claimed_before: datetime, now: datetime) -> dict[str, int]:
    """Return by queue how many enrollments that should move its worker has had claimed since before `claimed_before`."""
    claimed = select(col(Enrollment.queue), func.count()).where(_claimed(claimed_before, now))
    rows = session.execute(claimed.group_by(col(Enrollment.queue)))
    return dict(rows.tuples().all())


def release_queue(session: Session, queue: str, now: datetime) -> int:
    """Free all claimed enrollments of the queue, and return how many. Only for the queue's new owner: earlier owners are dead.

    Each enrollment is woken at once: the claim took its wake-up away, and the dead worker may not have acted on it.
    """
    claimed = select(col(Enrollment.id)).where(col(Enrollment.claimed_by).is_not(None), col(Enrollment.queue) == queue)
    in_order = claimed.order_by(col(Enrollment.id)).with_for_update()  # the order in which all transactions lock enrollments
    woken_at = case((col(Enrollment.status).in_(ASLEEP), now), else_=col(Enrollment.woken_at))
    freed = update(Enrollment).where(col(Enrollment.id).in_(in_order)).values(claimed_by=None, claimed_at=None, woken_at=woken_at)
    result = session.execute(freed, execution_options={"synchronize_session": False})
    return row_count(result)


def free_claims(session: Session, queue: str, claimed_before: datetime, now: datetime) -> int:
    """Free the enrollments that a dead worker of the queue had claimed, and return how many. Only the queue's owner may call it."""
    where = [col(Enrollment.queue) == queue, _claimed(claimed_before, now)]
    return change(session, where, {"claimed_by": None, "claimed_at": None}, TimelineKind.woken, now, {"mended": "claim_of_the_dead"})


def _claimed(before: datetime, now: datetime) -> ColumnElement[bool]:
    # A claim matters only to an enrollment that is due or woken, and these two columns have indices. An index of claims would be written
    # at each wake, with all other indices of the row.
    should_move = or_(and_(_is(EnrollmentStatus.waiting), col(Enrollment.due_at) <= now), col(Enrollment.woken_at) <= now)
    return should_move & col(Enrollment.claimed_by).is_not(None) & (col(Enrollment.claimed_at) < before)


def _is(status: EnrollmentStatus) -> ColumnElement[bool]:
    return col(Enrollment.status) == status
