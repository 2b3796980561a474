"""The upkeep flow: finds enrollments and runs that have lost each other, mends them, says what it mended, and raises alarms."""

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
from distmark.delivery.rates import forget_past_slots
from distmark.engine.version_moves import forget_positions
from distmark.enrollments.recovery import MOST_OVERDUE, free_claims, long_claimed, note_repairs, overdue_runs, relaunch_runs, unknown_runs
from distmark.enrollments.service import end_cancelled_runs
from distmark.settings import get_settings
from flows.alarms import sound
from flows.connection import prefect_client
from flows.queue_lock import QueueOwnership
from flows.states import waiting

OVERDUE = timedelta(minutes=5)  # real time, like all of these
CLAIMED_LONG = timedelta(minutes=10)
CANCELLED_WITHIN = timedelta(hours=2)
DAILY = timedelta(days=1)  # of the journeys' clock
PAGE = 200  # Prefect's own limit
MOST_PAGES = 10
GONE, OVER, CANCELLED, LOST, ASLEEP, HELD, QUEUED = "gone", "over", "cancelled", "lost", "asleep", "held", "queued"


@dataclass(frozen=True, slots=True)
class Repaired:
    """How many runs (of `released` and `stuck`: enrollments) were found in each trouble, and mended but for `held` and `stuck`."""

    relaunched: int = 0  # deleted in Prefect: they get another run
    reopened: int = 0  # over in Prefect while somebody in them is not
    recalled: int = 0  # asleep in Prefect past their time
    recovered: int = 0  # Pending or Running with nobody walking them
    cancelled: int = 0  # cancelled in the dashboard: their enrollments are ended
    orphans: int = 0  # without an enrollment: cancelled
    released: int = 0  # claimed by a worker that is dead
    stuck: int = 0  # claimed for long by a worker that lives
    held: int = 0  # suspended in the dashboard: they wait for whoever did it


@dataclass(slots=True)
class Cursor:
    """How far the rounds came that are too long for one go. Lives as long as the worker process; the next one begins anew."""

    overdue_after: str = ""
    runs_offset: int = 0
    forgot_at: datetime | None = None  # when past turns were last swept away


@dataclass(frozen=True, slots=True)
class UpkeepContext:
    """What upkeep works on."""

    db: Database
    clock: Clock
    client: SyncPrefectClient
    pool: str
    data_dir: Path
    rounds: Cursor = field(default_factory=Cursor)

    def ago(self, span: timedelta) -> datetime:
        """Return what the clock read when `span` of real time ago began."""
        now = self.clock.now()
        return now - (self.clock.in_real(span) - now)


_CURSOR = Cursor()


@flow(name="upkeep", retries=0)
def upkeep() -> dict[str, int]:
    """Put back in motion every enrollment that should have moved by now, and every run that has lost its enrollments in order."""
    settings = get_settings()
    # First, so that what keeps the mending from its work does not keep people from hearing of it.
    raised, cleared = sound(get_database(), settings.clock(), settings.alarm_webhook)
    with prefect_client() as client:
        found = asdict(repair(UpkeepContext(get_database(), settings.clock(), client, settings.work_pool, settings.data_dir, _CURSOR)))
    found |= {"alarms_raised": raised, "alarms_cleared": cleared}
    if any(found.values()):
        get_run_logger().warning("Mended: %s", {what: count for what, count in found.items() if count})
    return found


def repair(yard: UpkeepContext) -> Repaired:
    """Find what kept enrollments from moving and runs from carrying anybody, mend it, and return how many of each."""
    cancelled = _end_cancelled(yard)
    released, stuck = _release(yard)
    overdue = _repair_overdue(yard)
    orphans = _cancel_orphans(yard)
    with yard.db.writing() as session:
        forget_positions(session)
    _forget_slots(yard)
    return Repaired(
        relaunched=overdue.get(GONE, 0),
        reopened=overdue.get(OVER, 0),
        recalled=overdue.get(ASLEEP, 0),
        recovered=overdue.get(LOST, 0),
        cancelled=cancelled + overdue.get(CANCELLED, 0),
        orphans=orphans,
        released=released,
        stuck=stuck,
        held=overdue.get(HELD, 0),
    )


def _forget_slots(yard: UpkeepContext) -> None:
    """Once a day, sweep away the turns of throttles that are long past: they hold nobody, and nobody else deletes them."""
    now, before = yard.clock.now(), yard.rounds.forgot_at
    if before is None or now - before >= DAILY:
        with yard.db.writing() as session:
            forget_past_slots(session, now)
        yard.rounds.forgot_at = now


# --- what is overdue ------------------------------------------------------------------------------------------------------------------


def _repair_overdue(yard: UpkeepContext) -> dict[str, int]:
    """Look at some of the runs that should have woken, the next ones next time, and mend each trouble they are in."""
    with yard.db.reading() as session:
        run_ids = overdue_runs(session, yard.ago(OVERDUE), yard.rounds.overdue_after)
    yard.rounds.overdue_after = run_ids[-1] if len(run_ids) == MOST_OVERDUE else ""
    troubles: dict[str, list[str]] = {}
    for start in range(0, len(run_ids), PAGE):
        part = run_ids[start : start + PAGE]
        runs = {run["id"]: run for run in _filter(yard, {"flow_runs": {"id": {"any_": part}}})}
        for run_id in part:
            troubles.setdefault(_fault(runs.get(run_id)), []).append(run_id)
    _repair_runs(yard, troubles)
    return {trouble: len(found) for trouble, found in troubles.items()}


def _fault(run: dict[str, Any] | None) -> str:
    if run is None:
        return GONE
    kind, since = run["state_type"], datetime.fromisoformat(run["state"]["timestamp"])
    if kind in ("CANCELLED", "CANCELLING"):
        return CANCELLED
    if kind in ("COMPLETED", "FAILED", "CRASHED"):
        return OVER
    if kind == "PAUSED":
        return HELD
    if kind in ("PENDING", "RUNNING"):
        return LOST if since < wall_now() - OVERDUE else QUEUED
    scheduled = run["next_scheduled_start_time"]
    return ASLEEP if scheduled and datetime.fromisoformat(scheduled) > wall_now() else QUEUED


_WHY = {
    OVER: ("run_over", "Reopened: somebody in it is not through."),
    ASLEEP: ("asleep_too_long", "Its time came earlier than this run knew."),
    LOST: ("run_lost", "Goes on: nobody was walking it."),
}


def _repair_runs(yard: UpkeepContext, troubles: dict[str, list[str]]) -> None:
    now = yard.clock.now()
    with yard.db.writing() as session:
        relaunch_runs(session, troubles.get(GONE, []), now)
        end_cancelled_runs(session, troubles.get(CANCELLED, []), now)
        for trouble, (what, _message) in _WHY.items():
            note_repairs(session, troubles.get(trouble, []), what, now)
    for trouble, (_what, message) in _WHY.items():
        for run_id in troubles.get(trouble, []):
            _set_state(yard, run_id, waiting(wall_now(), message))


# --- runs that ops cancelled, and runs that carry nobody ---------------------------------------------------------------------------------


def _end_cancelled(yard: UpkeepContext) -> int:
    """End what was cancelled in the dashboard lately, however much at once."""
    since = (wall_now() - CANCELLED_WITHIN).isoformat()
    lately = {"state": {"type": {"any_": ["CANCELLED", "CANCELLING"]}}, "end_time": {"after_": since}}
    ended = 0
    for runs in _pages(yard, {"flow_runs": lately, **_in_pool(yard), "sort": "END_TIME_DESC"}, 0):
        with yard.db.writing() as session:
            ended += end_cancelled_runs(session, [run["id"] for run in runs], yard.clock.now())
    return ended


def _cancel_orphans(yard: UpkeepContext) -> int:
    """Cancel sleeping runs that carry nobody; a part of all runs is looked at, the next part next time."""
    asleep = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, **_in_pool(yard), "sort": "ID_DESC"}
    cancelled = looked = 0
    for runs in _pages(yard, asleep, yard.rounds.runs_offset):
        looked += len(runs)
        keyed = [(run["id"], str(run["parameters"]["run_key"])) for run in runs if "run_key" in (run["parameters"] or {})]
        with yard.db.reading() as session:
            found = unknown_runs(session, keyed)
        for run_id in found:
            _set_state(yard, run_id, State(type=StateType.CANCELLED, name="Cancelled", message="No enrollment belongs to this run."))
        cancelled += len(found)
    whole = looked == PAGE * MOST_PAGES
    yard.rounds.runs_offset = yard.rounds.runs_offset + looked - cancelled if whole else 0
    return cancelled


# --- claims of the dead -----------------------------------------------------------------------------------------------------------------


def _release(yard: UpkeepContext) -> tuple[int, int]:
    """Let go of what workers that are dead had claimed. A queue's owner lives as long as it holds the queue's lock."""
    released = stuck = 0
    claimed_before = yard.ago(CLAIMED_LONG)
    with yard.db.reading() as session:
        queues = long_claimed(session, claimed_before, yard.clock.now())
    for queue, count in queues.items():
        ownership = QueueOwnership(yard.db, queue, yard.data_dir)
        if not ownership.take():
            stuck += count
            continue
        try:
            with yard.db.writing() as session:
                released += free_claims(session, queue, claimed_before, yard.clock.now())
        finally:
            ownership.let_go()
    return released, stuck


# --- asking Prefect ---------------------------------------------------------------------------------------------------------------------


def _in_pool(yard: UpkeepContext) -> dict[str, Any]:
    return {"work_pools": {"name": {"any_": [yard.pool]}}}


def _filter(yard: UpkeepContext, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = yard.client.request("POST", "/flow_runs/filter", json={"limit": PAGE, **body})
    runs: list[dict[str, Any]] = answer.json()
    return runs


def _pages(yard: UpkeepContext, body: dict[str, Any], offset: int) -> Iterator[list[dict[str, Any]]]:
    for page in range(MOST_PAGES):
        runs = _filter(yard, body | {"offset": offset + page * PAGE})
        if runs:
            yield runs
        if len(runs) < PAGE:
            return


def _set_state(yard: UpkeepContext, run_id: str, state: State[Any]) -> None:
    try:
        yard.client.set_flow_run_state(UUID(run_id), state)
    except ObjectNotFound:
        return  # deleted since: the next round finds its enrollments without a run
