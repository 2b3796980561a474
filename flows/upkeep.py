"""The upkeep flow: finds enrollments and runs that have lost each other, mends them, and says what it mended."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from sqlalchemy import update
from sqlmodel import col, select

from distmark.clock import wall_now
from distmark.db import Database, get_database
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.service import cancelled_runs
from distmark.enrollments.table import Enrollment
from distmark.settings import get_settings

OVERDUE = timedelta(minutes=5)
BATCH = 200
LIVE_STATES = frozenset({"SCHEDULED", "PENDING", "RUNNING", "PAUSED"})


@dataclass(frozen=True, slots=True)
class Mended:
    """How many of each were found and mended."""

    overdue: int = 0
    without_run: int = 0
    over_in_prefect: int = 0
    cancelled: int = 0


@flow(name="upkeep", retries=0)
def upkeep() -> dict[str, int]:
    """Look at every enrollment that should have moved by now and put it back in motion."""
    mended = mend(get_database())
    found = asdict(mended)
    if any(found.values()):
        get_run_logger().warning("Mended: %s", found)
    return found


def mend(db: Database) -> Mended:
    """Find overdue enrollments and mend what kept each: its run is gone, over, or asleep past its time."""
    clock = get_settings().clock()
    late_before = clock.now() - (clock.in_real(OVERDUE) - clock.now())
    with db.reading() as session:
        overdue = session.exec(
            select(Enrollment.flow_run_id)
            .where(
                Enrollment.status == EnrollmentStatus.waiting,
                col(Enrollment.due_at) < late_before,
                col(Enrollment.flow_run_id).is_not(None),
                col(Enrollment.claimed_by).is_(None),
            )
            .distinct()
        ).all()
    run_ids = [str(run_id) for run_id in overdue]
    gone = over = cancelled = 0
    with get_client(sync_client=True) as client:
        for start in range(0, len(run_ids), BATCH):
            part = run_ids[start : start + BATCH]
            states = _states(client, part)
            gone += _relaunch(db, [run_id for run_id in part if run_id not in states])
            cancelled += _end_cancelled(db, [run_id for run_id, state in states.items() if state in ("CANCELLED", "CANCELLING")])
            ended = [run_id for run_id, state in states.items() if state not in LIVE_STATES and not state.startswith("CANCEL")]
            over += _reopen(client, ended)
            _reschedule(client, [run_id for run_id, state in states.items() if state == "SCHEDULED"])
    return Mended(overdue=len(run_ids), without_run=gone, over_in_prefect=over, cancelled=cancelled)


def _states(client: SyncPrefectClient, run_ids: Sequence[str]) -> dict[str, str]:
    body = {"flow_runs": {"id": {"any_": list(run_ids)}}, "limit": BATCH}
    return {run["id"]: run["state_type"] for run in client.request("POST", "/flow_runs/filter", json=body).json()}


def _relaunch(db: Database, run_ids: Sequence[str]) -> int:
    """Send enrollments whose run was deleted back to the outbox. A new run key, since Prefect may still know the old one."""
    if not run_ids:
        return 0
    with db.writing() as session:
        result = session.execute(
            update(Enrollment)
            .where(col(Enrollment.flow_run_id).in_(list(run_ids)), col(Enrollment.status) != EnrollmentStatus.ended)
            .values(flow_run_id=None)
        )
        return int(getattr(result, "rowcount", 0))


def _end_cancelled(db: Database, run_ids: Sequence[str]) -> int:
    if not run_ids:
        return 0
    with db.writing() as session:
        return cancelled_runs(session, run_ids, get_settings().clock().now())


def _reopen(client: SyncPrefectClient, run_ids: Sequence[str]) -> int:
    """Wake runs that Prefect thinks are over while their enrollment lives."""
    for run_id in run_ids:
        _wake_now(client, run_id)
    return len(run_ids)


def _reschedule(client: SyncPrefectClient, run_ids: Sequence[str]) -> None:
    for run_id in run_ids:
        _wake_now(client, run_id)


def _wake_now(client: SyncPrefectClient, run_id: str) -> None:
    state = {
        "type": "SCHEDULED",
        "name": "Waiting",
        "message": "Overdue; woken by upkeep.",
        "state_details": {"scheduled_time": wall_now().isoformat()},
    }
    client.request("POST", "/flow_runs/{id}/set_state", path_params={"id": run_id}, json={"state": state, "force": False})
