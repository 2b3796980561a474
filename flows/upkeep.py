"""The upkeep flow: repairs enrollments and flow runs that no longer match each other, counts the repairs, and raises alarms."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound

from distmark.clock import Clock, wall_now
from distmark.db import Database, get_database
from distmark.delivery.send_rates import forget_past_slots
from distmark.engine.version_moves import forget_positions
from distmark.enrollments.run_repairs import (
    MOST_OVERDUE,
    free_claims,
    long_claimed,
    note_repairs,
    overdue_runs,
    relaunch_runs,
    unknown_runs,
)
from distmark.enrollments.service import end_cancelled_runs
from distmark.settings import get_settings
from flows.alarms import raise_alarms
from flows.connection import prefect_client
from flows.queue_lock import QueueLock
from flows.restoration import restore_deployments
from flows.states import waiting

OVERDUE = timedelta(minutes=5)  # real time, like all of these
CLAIMED_LONG = timedelta(minutes=10)
CANCELLED_WITHIN = timedelta(hours=2)
DAILY = timedelta(days=1)  # of the journeys' clock
PAGE = 200  # Prefect's own limit
MOST_PAGES = 10
DELETED, OVER, CANCELLED, ABANDONED, ASLEEP, HELD, QUEUED = "gone", "over", "cancelled", "lost", "asleep", "held", "queued"


@dataclass(frozen=True, slots=True)
class Repaired:
    """Counts of runs (`released` and `stuck`: of enrollments) by fault. All are repaired except `held` and `stuck`."""

    relaunched: int = 0  # deleted in Prefect: they get another run
    reopened: int = 0  # over in Prefect while an enrollment in them is not
    recalled: int = 0  # asleep in Prefect past their due time
    recovered: int = 0  # Pending or Running while no worker executes them
    cancelled: int = 0  # cancelled in the dashboard: their enrollments are ended
    orphans: int = 0  # without an enrollment: cancelled
    released: int = 0  # claimed by a worker that is dead
    stuck: int = 0  # claimed for long by a worker that is alive
    held: int = 0  # suspended in the dashboard: they wait to be resumed there


@dataclass(slots=True)
class Cursor:
    """The positions at which the next upkeep continues scans that are too long for one. Lost with the process; the next starts anew."""

    overdue_after: str = ""
    runs_offset: int = 0
    forgot_at: datetime | None = None  # when past reservations of throttles were last deleted


@dataclass(frozen=True, slots=True)
class UpkeepContext:
    """The parts that upkeep uses. `cursor` is kept from one upkeep to the next."""

    db: Database
    clock: Clock
    client: SyncPrefectClient
    pool: str
    data_dir: Path
    cursor: Cursor = field(default_factory=Cursor)

    def ago(self, span: timedelta) -> datetime:
        """Return the clock's time `span` of real time ago."""
        now = self.clock.now()
        return now - (self.clock.in_real(span) - now)


_CURSOR = Cursor()


@flow(name="upkeep", retries=0)
def upkeep() -> dict[str, int]:
    """Repair overdue enrollments, runs without enrollments and claims of dead workers, raise alarms, and return the counts."""
    settings = get_settings()
    # Alarms first: a fault that makes the repair fail must not silence them.
    raised, cleared = raise_alarms(get_database(), settings.clock(), settings.alarm_webhook)
    with prefect_client() as client:
        restored = restore_deployments(get_database(), client, settings, settings.clock().now())
        found = asdict(repair(UpkeepContext(get_database(), settings.clock(), client, settings.work_pool, settings.data_dir, _CURSOR)))
    found |= {"alarms_raised": raised, "alarms_cleared": cleared}
    found |= {"deployments_restored": restored.deployments, "deployments_lost": restored.failed}
    if any(found.values()):
        get_run_logger().warning("Repaired: %s", {what: count for what, count in found.items() if count})
    return found


def repair(context: UpkeepContext) -> Repaired:
    """Repair every fault found, and return the counts."""
    cancelled = _end_cancelled(context)
    released, stuck = _release_claims(context)
    overdue = _repair_overdue(context)
    orphans = _cancel_orphans(context)
    with context.db.writing() as session:
        forget_positions(session)
    _forget_slots(context)
    return Repaired(
        relaunched=overdue.get(DELETED, 0),
        reopened=overdue.get(OVER, 0),
        recalled=overdue.get(ASLEEP, 0),
        recovered=overdue.get(ABANDONED, 0),
        cancelled=cancelled + overdue.get(CANCELLED, 0),
        orphans=orphans,
        released=released,
        stuck=stuck,
        held=overdue.get(HELD, 0),
    )


def _forget_slots(context: UpkeepContext) -> None:
    """Once a day, delete the reservations of throttles that are long past. Nothing else deletes them."""
    now, before = context.clock.now(), context.cursor.forgot_at
    if before is None or now - before >= DAILY:
        with context.db.writing() as session:
            forget_past_slots(session, now)
        context.cursor.forgot_at = now


# --- what is overdue ---------------------------------------------------------------------------------------------------------------------


def _repair_overdue(context: UpkeepContext) -> dict[str, int]:
    """Repair overdue runs, at most `MOST_OVERDUE`; the next upkeep continues behind them. Return the counts by fault."""
    with context.db.reading() as session:
        run_ids = overdue_runs(session, context.ago(OVERDUE), context.cursor.overdue_after)
    context.cursor.overdue_after = run_ids[-1] if len(run_ids) == MOST_OVERDUE else ""
    runs_by_fault: dict[str, list[str]] = {}
    for start in range(0, len(run_ids), PAGE):
        part = run_ids[start : start + PAGE]
        runs = {run["id"]: run for run in _find_runs(context, {"flow_runs": {"id": {"any_": part}}})}
        for run_id in part:
            runs_by_fault.setdefault(_fault(runs.get(run_id)), []).append(run_id)
    _repair_runs(context, runs_by_fault)
    return {fault: len(found) for fault, found in runs_by_fault.items()}


def _fault(run: dict[str, Any] | None) -> str:
    if run is None:
        return DELETED
    kind, since = run["state_type"], datetime.fromisoformat(run["state"]["timestamp"])
    if kind in ("CANCELLED", "CANCELLING"):
        return CANCELLED
    if kind in ("COMPLETED", "FAILED", "CRASHED"):
        return OVER
    if kind == "PAUSED":
        return HELD
    if kind in ("PENDING", "RUNNING"):
        return ABANDONED if since < wall_now() - OVERDUE else QUEUED
    scheduled = run["next_scheduled_start_time"]
    return ASLEEP if scheduled and datetime.fromisoformat(scheduled) > wall_now() else QUEUED


_REPAIRS = {
    OVER: ("run_over", "Reopened: somebody in it is not through."),
    ASLEEP: ("asleep_too_long", "Its time came earlier than this run knew."),
    ABANDONED: ("run_lost", "Goes on: nobody was walking it."),
}


def _repair_runs(context: UpkeepContext, runs_by_fault: dict[str, list[str]]) -> None:
    now = context.clock.now()
    with context.db.writing() as session:
        relaunch_runs(session, runs_by_fault.get(DELETED, []), now)
        end_cancelled_runs(session, runs_by_fault.get(CANCELLED, []), now)
        for fault, (what, _message) in _REPAIRS.items():
            note_repairs(session, runs_by_fault.get(fault, []), what, now)
    for fault, (_what, message) in _REPAIRS.items():
        for run_id in runs_by_fault.get(fault, []):
            _set_state(context, run_id, waiting(wall_now(), message))


# --- runs that ops cancelled, and runs that carry nobody ---------------------------------------------------------------------------------


def _end_cancelled(context: UpkeepContext) -> int:
    """End the enrollments of runs that were cancelled in the dashboard within `CANCELLED_WITHIN`."""
    since = (wall_now() - CANCELLED_WITHIN).isoformat()
    lately = {"state": {"type": {"any_": ["CANCELLED", "CANCELLING"]}}, "end_time": {"after_": since}}
    ended = 0
    for runs in _pages(context, {"flow_runs": lately, **_in_pool(context), "sort": "END_TIME_DESC"}, 0):
        with context.db.writing() as session:
            ended += end_cancelled_runs(session, [run["id"] for run in runs], context.clock.now())
    return ended


def _cancel_orphans(context: UpkeepContext) -> int:
    """Cancel sleeping runs without an enrollment. Each upkeep scans a part of all runs, and the next one the next part."""
    asleep = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, **_in_pool(context), "sort": "ID_DESC"}
    cancelled = looked = 0
    for runs in _pages(context, asleep, context.cursor.runs_offset):
        looked += len(runs)
        keyed = [(run["id"], str(run["parameters"]["run_key"])) for run in runs if "run_key" in (run["parameters"] or {})]
        with context.db.reading() as session:
            found = unknown_runs(session, keyed)
        for run_id in found:
            _set_state(context, run_id, State(type=StateType.CANCELLED, name="Cancelled", message="No enrollment belongs to this run."))
        cancelled += len(found)
    whole = looked == PAGE * MOST_PAGES
    context.cursor.runs_offset = context.cursor.runs_offset + looked - cancelled if whole else 0
    return cancelled


# --- claims of dead workers ---------------------------------------------------------------------------------------------------------------


def _release_claims(context: UpkeepContext) -> tuple[int, int]:
    """Release old claims of dead workers, and return how many were released and how many are stuck: their queue's lock is still held."""
    released = stuck = 0
    claimed_before = context.ago(CLAIMED_LONG)
    with context.db.reading() as session:
        queues = long_claimed(session, claimed_before, context.clock.now())
    for queue, count in queues.items():
        lock = QueueLock(context.db, queue, context.data_dir)
        if not lock.acquire():
            stuck += count
            continue
        try:
            with context.db.writing() as session:
                released += free_claims(session, queue, claimed_before, context.clock.now())
        finally:
            lock.release()
    return released, stuck


# --- asking Prefect ----------------------------------------------------------------------------------------------------------------------


def _in_pool(context: UpkeepContext) -> dict[str, Any]:
    return {"work_pools": {"name": {"any_": [context.pool]}}}


def _find_runs(context: UpkeepContext, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = context.client.request("POST", "/flow_runs/filter", json={"limit": PAGE, **body})
    runs: list[dict[str, Any]] = answer.json()
    return runs


def _pages(context: UpkeepContext, body: dict[str, Any], offset: int) -> Iterator[list[dict[str, Any]]]:
    for page in range(MOST_PAGES):
        runs = _find_runs(context, body | {"offset": offset + page * PAGE})
        if runs:
            yield runs
        if len(runs) < PAGE:
            return


def _set_state(context: UpkeepContext, run_id: str, state: State[Any]) -> None:
    try:
        context.client.set_flow_run_state(UUID(run_id), state)
    except ObjectNotFound:
        return  # deleted since: the next upkeep finds its enrollments without a run
