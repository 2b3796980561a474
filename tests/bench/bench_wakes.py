"""Wakes per second, one contact per run: ours with and without steps on the run's page, against Prefect's stock worker and the ceiling.

The ceiling is what one Prefect API process gives for the three state transitions of a wake and nothing else. Everything is measured in one
run, on the same server, one after another. Sizes: BENCH_RUNS (240), BENCH_STOCK_RUNS (12); BENCH_PREFECT_DATABASE_URL gives Prefect another
database.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from distmark.tables import create_all
from tests.bench.report import report
from tests.bench.stand import BRANCH_AND_WAIT, say, size
from tests.prefect_server import prefect_server

RUNS = size("RUNS", 240)
STOCK_RUNS = size("STOCK_RUNS", 12)
LONGEST_SECONDS = 240.0  # for any one of the measurements
CONCURRENCY = 4  # what Prefect's SQLite takes without answering that it is locked
ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Measure, and print JSON lines."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with prefect_server(home / "prefect", os.environ.get("BENCH_PREFECT_DATABASE_URL", "")) as url:
            os.environ |= {
                "PREFECT_API_URL": url,
                "PREFECT_HOME": str(home / "prefect"),
                "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
                "DISTMARK_MODE": "test",
                "DISTMARK_DATA_DIR": str(home),
                "DISTMARK_PREFECT_API_URL": url,
                "DISTMARK_POLL_SECONDS": "0.2",
                "DISTMARK_WORKER_CONCURRENCY": str(CONCURRENCY),
                "DO_NOT_TRACK": "1",
            }
            asyncio.run(_measure())


async def _measure() -> None:
    campaign, stage = _stage()
    stock = await _stock(stage, campaign)
    report("wakes_stock_process_worker", stock, "wakes/s")
    first_ceiling = await _ceiling()
    traced = await _ours(stage, campaign, trace=True)
    bare = await _ours(stage, campaign, trace=False)
    ceiling = (first_ceiling + await _ceiling()) / 2  # before and after: the server slows a little as it fills
    report("wakes_ceiling_three_calls", ceiling, "wakes/s", stock)
    report("wakes_steps_visible_vs_stock", traced, "wakes/s", stock)
    report("wakes_steps_visible_vs_ceiling", traced, "wakes/s", ceiling)
    report("wakes_no_tracing_vs_stock", bare, "wakes/s", stock)
    report("wakes_no_tracing_vs_ceiling", bare, "wakes/s", ceiling)


def _stage() -> tuple[object, object]:
    from distmark.clock import FixedClock, wall_now
    from distmark.db import get_database
    from tests.driver import Stage

    db = get_database()
    create_all(db)
    stage = Stage(db, FixedClock(wall_now()))
    campaign = stage.journey(BRANCH_AND_WAIT)
    return campaign, stage


async def _enrolled(stage: object, campaign: object, count: int, deployment_id: str) -> None:
    from sqlalchemy import update

    from distmark.clock import wall_now
    from distmark.journeys.table import JourneyVersion
    from flows.launch import launch

    with stage.db.writing() as session:
        session.execute(update(JourneyVersion).values(deployment_id=deployment_id))
    people = [stage.contact() for _ in range(count)]
    stage.clock.move_to(wall_now())
    stage.enrol(campaign, *people)
    async with _client() as client:
        while await launch(stage.db, client, "default", wall_now()):
            pass


@asynccontextmanager
async def _client() -> AsyncIterator[object]:
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        yield client


async def _deployment(pool: str, pool_type: str, flow: str, **more: object) -> str:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    async with _client() as client:
        with suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(name=pool, type=pool_type))
        flow_id = await client.create_flow_from_name(flow)
        return str(
            await client.create_deployment(
                flow_id=flow_id, name="v1", work_pool_name=pool, work_queue_name="default", enforce_parameter_schema=False, **more
            )
        )


async def _ours(stage: object, campaign: object, *, trace: bool) -> float:
    from distmark.settings import get_settings
    from flows.worker import JourneyWorker

    say(f"ours, steps {'shown' if trace else 'not shown'}: {RUNS} runs")
    deployment_id = await _deployment("journeys", JourneyWorker.type, "trial")
    await _enrolled(stage, campaign, RUNS, deployment_id)
    get_settings().trace_steps = trace
    worker = JourneyWorker(work_pool_name="journeys", work_queues=["default"], name=f"bench-{trace}")
    running = asyncio.create_task(worker.start(printer=lambda *_: None))
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            while worker.wakes == 0:
                await asyncio.sleep(0.002)
            start, before = time.perf_counter(), worker.wakes
            while worker.wakes < RUNS:
                await asyncio.sleep(0.002)
            return (worker.wakes - before) / (time.perf_counter() - start)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _ceiling() -> float:
    from distmark.clock import wall_now
    from flows.states import claiming, running, waiting

    say(f"the ceiling: {RUNS} times three calls")
    deployment_id = await _deployment("ceiling", "journey", "ceiling")
    body = [
        {"name": "x", "parameters": {"run_key": "x"}, "state": {"type": "SCHEDULED", "name": "Enrolled"}, "work_queue_name": "default"}
        for _ in range(100)
    ]
    async with _client() as client:
        ids: list[UUID] = []
        while len(ids) < RUNS:
            made = await client.request(
                "POST", "/deployments/{id}/create_flow_run/bulk", path_params={"id": deployment_id}, json=body, timeout=60
            )
            ids += [UUID(each["flow_run_id"]) for each in made.json()["results"]]
        slots = asyncio.Semaphore(CONCURRENCY)

        async def one(flow_run_id: UUID) -> None:
            async with slots:
                await client.set_flow_run_state(flow_run_id, claiming())
                await client.set_flow_run_state(flow_run_id, running())
                await client.set_flow_run_state(flow_run_id, waiting(wall_now() + timedelta(days=400), "asleep"))

        start = time.perf_counter()
        async with asyncio.timeout(LONGEST_SECONDS):
            await asyncio.gather(*(one(each) for each in ids[:RUNS]))
        return RUNS / (time.perf_counter() - start)


async def _stock(stage: object, campaign: object) -> float:
    from sqlmodel import func, select

    from distmark.enrollments.table import Enrollment

    say(f"Prefect's stock worker: {STOCK_RUNS} runs")
    deployment_id = await _deployment(
        "stock",
        "process",
        "stock",
        entrypoint="tests/bench/stock_flow.py:stock",
        path=str(ROOT),
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
    )
    await _enrolled(stage, campaign, STOCK_RUNS, deployment_id)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "stock", "--type", "process", "--limit", "4"]
    env = {**os.environ, "PREFECT_WORKER_QUERY_SECONDS": "2", "PYTHONPATH": str(ROOT)}
    with Path(stage_log()).open("wb") as log:
        worker = subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            start = time.perf_counter()
            done = 0
            while done < STOCK_RUNS and time.perf_counter() - start < LONGEST_SECONDS:
                await asyncio.sleep(0.1)
                with stage.db.reading() as session:
                    done = session.exec(select(func.count()).where(Enrollment.step_id == "rest")).one()
            return done / (time.perf_counter() - start)
        finally:
            worker.terminate()
            with suppress(subprocess.TimeoutExpired):
                worker.wait(timeout=20)
            with suppress(ProcessLookupError):  # it leaves the processes of its runs behind when it does not end in time
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(timeout=20)


def stage_log() -> str:
    """Where the stock worker's own words go."""
    return str(Path(os.environ["DISTMARK_DATA_DIR"]) / "stock-worker.log")


if __name__ == "__main__":
    main()
