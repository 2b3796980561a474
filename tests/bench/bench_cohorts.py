"""Wakes and members per second with one, 50 and 500 contacts per run, through the real worker and a real Prefect server.

Each member walks a branch and comes to rest at a wait. Sizes, in runs: BENCH_SINGLES (240), BENCH_FIFTIES (60), BENCH_COHORTS (30).
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from distmark.sql import id_of
from tests.bench.report import report
from tests.bench.stand import BRANCH_AND_WAIT, Plant, people, plant, register, say, size

RUNS = {1: size("SINGLES", 240), 50: size("FIFTIES", 60), 500: size("COHORTS", 30)}
LONGEST_SECONDS = 150.0


def main() -> None:
    """Measure one size after another, on the same servers."""
    with plant() as here:
        asyncio.run(_measure(here))


async def _measure(here: Plant) -> None:
    members: dict[int, float] = {}
    for per_run, runs in RUNS.items():
        wakes = await _wakes_per_second(here, per_run, runs)
        members[per_run] = wakes * per_run
        report(f"cohorts_{per_run}_wakes", wakes, "wakes/s", members[1])
        report(f"cohorts_{per_run}_members", members[per_run], "members/s", members[1])


async def _wakes_per_second(here: Plant, per_run: int, runs: int) -> float:
    from prefect.client.orchestration import get_client

    from distmark.clock import wall_now
    from distmark.settings import get_settings
    from flows.launch import launch
    from flows.worker import JourneyWorker

    await asyncio.to_thread(enrolled, here, per_run, runs)
    async with get_client() as client:
        while await launch(here.db, client, "default", wall_now()):
            pass
    worker = JourneyWorker(work_pool_name=get_settings().work_pool, work_queues=["default"], name=f"bench-{per_run}")
    running: asyncio.Task[Any] = asyncio.create_task(worker.start(printer=lambda *_: None))
    try:
        await _until(lambda: worker.wakes > 0)
        start, before = time.perf_counter(), worker.wakes
        await _until(lambda: worker.wakes >= runs)
        return (worker.wakes - before) / (time.perf_counter() - start)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONGEST_SECONDS):
        while not holds():
            await asyncio.sleep(0.002)


def enrolled(here: Plant, per_run: int, runs: int) -> None:
    """Enter so many new contacts, per run, into a journey of their own that is registered."""
    from sqlmodel import select

    from distmark.clock import wall_now
    from distmark.entries.service import enrol
    from distmark.journeys.table import JourneyVersion

    say(f"{runs} runs of {per_run}: enrolling")
    campaign = here.stage.journey(BRANCH_AND_WAIT, contacts_per_run=per_run)
    with here.db.reading() as session:
        (version_id,) = session.exec(select(JourneyVersion.id).where(JourneyVersion.journey_id == campaign.journey_id))
    register(here, version_id or 0)
    ids = people(here.stage, per_run * runs)
    here.stage.clock.move_to(wall_now())
    with here.db.writing() as session:
        enrol(session, here.stage.viewer, id_of(campaign), ids, here.stage.clock.now())
