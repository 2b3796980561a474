"""Finding 500 enrollments that are due among 1,000,000 that wait: every call of the worker, the watch and upkeep that looks for some.

Each is called several times; the median counts, and is held against the same call when nobody waits. Sizes: BENCH_WAITING (1,000,000),
BENCH_DUE (500); BENCH_DATABASE measures one database only.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import col, select

from distmark.clock import FixedClock, wall_now
from distmark.db import Database
from distmark.engine.version_moves import forget_positions
from distmark.enrollments import run_repairs
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.service import end_cancelled_runs
from distmark.enrollments.table import Enrollment
from distmark.journeys.table import JourneyVersion
from distmark.operations import alarms, backlog
from distmark.sql import id_of
from tests.bench.report import report
from tests.bench.stand import WAITING, database, fill, go_on_after, kinds, people, say, settle, size, temporary_folder
from tests.driver import Stage

MANY, DUE = size("WAITING", 1_000_000), size("DUE", 500)
JOURNEYS = 4
DAYS = 90  # over which those who wait fall due, and over the last of which they entered
REPEATS = 5
LIMIT_MS = 50.0
OWN = (
    *("journey_id", "version_id", "campaign_id", "contact_id", "person_key", "live_key", "run_key", "flow_run_id"),
    *("arrived_at", "entered_at", "awaits", "due_at", "woken_at", "claimed_by", "claimed_at"),
)


def main() -> None:
    """Measure on one database after another."""
    for kind in kinds():
        with temporary_folder() as folder, database(kind, folder) as db:
            _measure(kind, db)


def _measure(kind: str, db: Database) -> None:
    stage = Stage(db, FixedClock(wall_now()))
    nobody = _times(stage)
    say(f"{kind}: making {MANY:,} contacts and enrollments")
    began = time.perf_counter()
    fill_waiting(stage, people(stage, MANY, consents=False), DUE)
    settle(db)
    report(f"finding_{kind}_made", MANY / (time.perf_counter() - began), "enrollments/s")
    many = _times(stage)
    for name, milliseconds in many.items():
        limit = LIMIT_MS if name not in UNBOUND else None
        report(f"finding_{kind}_{name}", milliseconds, "ms", nobody[name], at_most=limit)


# --- those who wait ---------------------------------------------------------------------------------------------------------------------


def fill_waiting(stage: Stage, contacts: list[int], due: int) -> None:
    """Put each contact into a journey, waiting; so many are due, as many more were woken, and some were claimed by a worker that died."""
    campaigns = [stage.journey("  - {id: hello, send: email, message: one}\n" + WAITING) for _ in range(JOURNEYS)]
    with stage.db.reading() as session:
        versions = {row.journey_id: row.id for row in session.exec(select(JourneyVersion))}
    places = [(campaign.journey_id, versions[campaign.journey_id], campaign.id) for campaign in campaigns]
    like = Enrollment(
        brand_id=id_of(stage.brand),
        journey_id=0,
        version_id=0,
        partner_id=id_of(stage.partner),
        contact_id=0,
        person_key="",
        entered_at=stage.clock.now(),
        run_key="",
        step_id="rest",
        visits={"hello": 1, "rest": 1},
        why="time",
    )
    fill(stage.db, like, OWN, _rows(places, contacts, stage.clock.now(), due))
    go_on_after(stage.db, "enrollment")


def _rows(places: list[tuple[Any, ...]], contacts: list[int], now: datetime, many_due: int) -> Iterator[tuple[Any, ...]]:
    """Yield enrollments, each with a run of its own; the first are due, the next ones were woken, and then come some of a dead worker's."""
    minutes = timedelta(days=DAYS) // timedelta(minutes=1)
    for number, contact_id in enumerate(contacts):
        place = places[number % len(places)]
        minute = timedelta(minutes=number * minutes // len(contacts))
        key = f"{(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128:032x}"  # as random as a real one
        run = SAME_RUN if number < many_due // 2 else key  # half of those due share a run: a cohort
        due, entered = now + timedelta(hours=1) + minute, now - timedelta(hours=1) - minute
        special = (due, None, None, None)
        if number < 2 * many_due + DEAD and many_due:
            special = _special(number, now, due, many_due)
        yield (
            *(*place, contact_id, key, f"{place[0]}:{number:09d}", run, f"{run[:8]}-{run[8:12]}-{run[12:16]}-{run[16:20]}-{run[20:]}"),
            *(entered, entered, "clicked" if number % 10 == 0 else None, *special),
        )


def _special(number: int, now: datetime, due: datetime, many_due: int) -> tuple[Any, ...]:
    """Return due_at, woken_at, claimed_by and claimed_at of one who is due, was woken, or was claimed by a worker that died."""
    if number < many_due:
        return now - timedelta(minutes=30), None, None, None
    if number < 2 * many_due:
        return due, now, None, None
    return now - timedelta(minutes=30), None, "default@gone", now - timedelta(hours=1)


SAME_RUN = f"{7:032x}"
DEAD = 10


# --- what looks for some ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ground:
    """What the calls are given."""

    stage: Stage
    worker: Any
    now: datetime
    runs: list[tuple[str, str]]  # of some who are due: run id, run key


UNBOUND = frozenset({"watch_page", "worker_clears_claims_at_start"})  # counts everybody; happens once in a worker's life


def _calls(ground: _Ground) -> dict[str, Callable[[Any], object]]:
    """Return name -> call, given a session. Every one is the project's own function."""
    from distmark.engine.wake import _claim, wake_result
    from flows.dead_workers import release_claims
    from flows.launch import runs_to_launch

    now, run_ids = ground.now, [run_id for run_id, _key in ground.runs]
    late_before, context = now - timedelta(minutes=5), ground.stage.context
    alone = ground.runs[-1][1] if ground.runs else "none"
    return {
        "worker_any_due": lambda _session: ground.worker._is_any_due(),
        "worker_woken": lambda _session: ground.worker._woken_runs(),
        "worker_outbox": lambda session: runs_to_launch(session, "default", 1000),
        "worker_retries_parked": lambda session: run_repairs.retry_run(session, alone, now),
        "worker_ends_cancelled": lambda session: end_cancelled_runs(session, run_ids[-1:], now),
        "worker_clears_claims_at_start": lambda _session: release_claims(ground.worker.context, "default"),
        "wake_claims_one": lambda _session: _claim(context, alone),
        "wake_rest_of_one": lambda _session: wake_result(context, alone, (), 0),
        "wake_rest_of_cohort": lambda _session: wake_result(context, SAME_RUN, (), 0),
        "watch_lateness": lambda session: backlog.lateness(session, now),
        "watch_look": lambda session: alarms.update_alarms(session, ground.stage.clock),
        "watch_page": lambda session: backlog.watch(session, ground.stage.marketer, now),
        "upkeep_overdue_runs": lambda session: run_repairs.overdue_runs(session, late_before),
        "upkeep_long_claimed": lambda session: run_repairs.long_claimed(session, now - timedelta(minutes=10), now),
        "upkeep_frees_claims": lambda session: run_repairs.free_claims(session, "default", now - timedelta(minutes=10), now),
        "upkeep_strangers": lambda session: run_repairs.unknown_runs(session, ground.runs[:200]),
        "upkeep_launches_anew": lambda session: run_repairs.relaunch_runs(session, run_ids[-10:], now),
        "upkeep_forgets_positions": forget_positions,
    }


def _times(stage: Stage) -> dict[str, float]:
    """Return how many milliseconds each call takes, the median of some; what it changes is taken back."""
    ground = _ground(stage)
    found = {}
    for name, call in _calls(ground).items():
        found[name] = statistics.median(_once(stage.db, call) for _ in range(REPEATS)) * 1000
    return found


def _once(db: Database, call: Callable[[Any], object]) -> float:
    with db._write() as session:  # never committed
        began = time.perf_counter()
        call(session)
        return time.perf_counter() - began


def _ground(stage: Stage) -> _Ground:
    from distmark.settings import Settings
    from flows.worker import JourneyWorker

    with stage.db.reading() as session:
        due = select(Enrollment.flow_run_id, Enrollment.run_key).where(
            Enrollment.status == EnrollmentStatus.waiting, col(Enrollment.due_at) <= stage.clock.now()
        )
        runs = [(str(run_id), run_key) for run_id, run_key in session.exec(due.distinct())]
    runs.sort(key=lambda run: run[1] != SAME_RUN)
    worker = JourneyWorker(work_pool_name="journeys", work_queues=["default"], context=stage.context, settings=Settings(mode="test"))
    return _Ground(stage, worker, stage.clock.now(), runs)
