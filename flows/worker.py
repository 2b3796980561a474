"""The journey worker: a Prefect worker type that runs many runs concurrently in one process.

A wake is three state transitions around our own code. The stock way (a process per run, or the flow engine in process) costs the Prefect
server two to four times as much and the machine up to eighty times as much; the transitions, and so all that ops see and do in the
dashboard, are the same.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, select

from distmark.clock import stopwatch, wall_now
from distmark.engine.runtime import get_engine_context
from distmark.engine.wake import EngineContext, wake, wake_result
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.recovery import relaunch_runs, release_queue, retry_run
from distmark.enrollments.service import end_cancelled_runs
from distmark.enrollments.table import Enrollment
from distmark.errors import DistmarkError
from distmark.settings import Settings, get_settings
from flows.alarms import sound_alone
from flows.launch import launch
from flows.queue_lock import QueueOwnership
from flows.states import claiming, running, state_of, waiting
from flows.task_runs import show_steps

log = logging.getLogger("distmark.worker")

POLL_LIMIT = 100
EARLY_LIMIT = 200
LOOK_ANYWAY_SECONDS = 3.0  # ops may have rescheduled a run in the dashboard, which our own tables do not know
CANCELLED_EVERY_SECONDS = 3.0
ALARMS_EVERY_SECONDS = 60.0
STAND_BY_SECONDS = 2.0
DRAIN_SECONDS = 15.0

TROUBLE = (httpx.HTTPError, PrefectException, SQLAlchemyError, DistmarkError, OSError)


class OwnershipLost(Exception):
    """The queue that this worker served is no longer its own."""


class JourneyWorker(BaseWorker[BaseJobConfiguration, BaseVariables, BaseWorkerResult]):
    """Claims runs of one work pool and wakes what they carry; owns one work queue. System flows of its pool run in threads beside."""

    type = "journey"
    job_configuration = BaseJobConfiguration
    job_configuration_variables = BaseVariables
    _description = "Runs customer journeys: many runs concurrently in one process, asleep between steps at no cost."
    _display_name = "Journey"

    def __init__(self, *arguments: Any, world: EngineContext | None = None, settings: Settings | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.settings = settings or get_settings()
        self._world = world
        self.queue = next(iter(sorted(self._work_queues)), self.settings.work_queue)
        self._work_queues = {self.queue}
        self._slots = asyncio.Semaphore(self._limit or self.settings.worker_concurrency)
        self._in_flight: set[UUID] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._unsettled: dict[UUID, str] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._last_look = 0.0
        self.wakes = 0

    # --- Prefect's side of a worker -----------------------------------------------------------------------------------------------------

    async def setup(self) -> None:
        """Connect, and start looking for work once this process owns its queue."""
        await super().setup()
        self._loops = [asyncio.create_task(self._work(), name=f"journey-worker:{self.queue}")]

    async def teardown(self, *exc_info: Any) -> None:
        """Take no more work, let wakes in flight end, then disconnect. A wake lasts seconds; its waits are kept by Prefect."""
        self._stopping.set()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._serving:
            await asyncio.wait(self._serving, timeout=DRAIN_SECONDS)
        await super().teardown(*exc_info)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Prefect's polling loop calls this too seldom for us; our own loop does the work, and this only says that we are alive.

        Raises what ended our own loop, if anything did: then the process ends, rather than being heard and doing nothing.
        """
        for loop in self._loops:
            if loop.done() and not self._stopping.is_set():
                loop.result()
        self._last_polled_time = wall_now()
        return []

    async def run(
        self, flow_run: FlowRun, configuration: BaseJobConfiguration, task_status: anyio.abc.TaskStatus[int] | None = None
    ) -> BaseWorkerResult:
        """Run one flow run now, whatever asked for it."""
        await self._serve(flow_run)
        return BaseWorkerResult(identifier=str(flow_run.id), status_code=0)

    # --- our loops ----------------------------------------------------------------------------------------------------------------------

    @property
    def world(self) -> EngineContext:
        """What wakes work on; this process's own unless another was given."""
        return self._world or get_engine_context()

    @property
    def is_system(self) -> bool:
        """Whether this worker serves the pool of system flows, which carry no enrollments."""
        return self._work_pool_name == self.settings.system_pool

    async def _work(self) -> None:
        if self.is_system:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._for_ever(self._sound, lambda: ALARMS_EVERY_SECONDS))
                await self._again("recover", self._recover_runs)
                loops.create_task(self._for_ever(self._poll, lambda: self.settings.poll_seconds))
            return
        while True:
            await self._work_as_owner(QueueOwnership(self.world.db, self.queue, self.settings.data_dir))
            # What a wake of ours must still write, it insists on; not before may all claims be taken for those of the dead.
            if self._serving:
                await asyncio.wait(self._serving)

    async def _work_as_owner(self, ownership: QueueOwnership) -> None:
        """Work from when the queue is ours until it is ours no longer: a database that was away has let go of the lock."""
        await self._own(ownership)
        try:
            await self._again("recover claims", self._recover_claims)
            await self._again("recover", self._recover_runs)
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._for_ever(self._poll, lambda: self.settings.poll_seconds))
                loops.create_task(self._for_ever(self._wake_early, lambda: min(self.settings.poll_seconds, 0.25)))
                loops.create_task(self._for_ever(self._launch, lambda: min(self.settings.poll_seconds, 0.5)))
                loops.create_task(self._for_ever(self._mirror_cancelled, lambda: CANCELLED_EVERY_SECONDS))
                loops.create_task(self._for_ever(self._settle_again, lambda: 1.0))
                loops.create_task(self._watch(ownership))
        except* OwnershipLost:
            log.error("Queue %s is no longer ours: the database let go of the lock. Resting until it is ours again.", self.queue)
        finally:
            ownership.let_go()

    async def _own(self, ownership: QueueOwnership) -> None:
        told = False
        while not await self._again("own the queue", lambda: asyncio.to_thread(ownership.take)):
            if not told:
                log.warning("Queue %s is owned by another worker; standing by.", self.queue)
                told = True
            await asyncio.sleep(STAND_BY_SECONDS)

    async def _watch(self, ownership: QueueOwnership) -> None:
        while True:
            await asyncio.sleep(STAND_BY_SECONDS)
            if not await asyncio.to_thread(ownership.is_held):
                raise OwnershipLost

    async def _for_ever(self, once: Callable[[], Awaitable[int]], pause: Callable[[], float]) -> None:
        """Call `once` again and again, resting when it found nothing; trouble is logged and waited out, longer each time."""
        failures = 0
        while True:
            try:
                found = await once()
                failures = 0
            except TROUBLE as error:
                failures += 1
                log.warning("%s: %s (try %d)", getattr(once, "__name__", "work"), _brief(error), failures)
                await asyncio.sleep(min(0.5 * 2**failures, 10.0))
                continue
            if not found:
                await asyncio.sleep(pause())

    async def _again(self, what: str, once: Callable[[], Awaitable[int]]) -> int:
        """Call `once` until it succeeds, and return what it found."""
        failures = 0
        while True:
            try:
                found = await once()
            except TROUBLE as error:
                failures += 1
                log.warning("%s: %s (try %d)", what, _brief(error), failures)
                await asyncio.sleep(min(0.5 * 2**failures, 10.0))
                continue
            if found:
                log.info("%s: %d", what, found)
            return found

    async def _poll(self) -> int:
        """Claim and serve runs that Prefect says are due."""
        if not self._has_successfully_synced or not await self._should_look():
            return 0
        response = await self.client.request(
            "POST",
            f"/work_pools/{self._work_pool_name}/get_scheduled_flow_runs",  # type: ignore[arg-type]
            json={"scheduled_before": wall_now().isoformat(), "work_queue_names": [self.queue], "limit": POLL_LIMIT},
        )
        self._last_look = stopwatch()
        runs = [FlowRun.model_validate(entry["flow_run"]) for entry in response.json()]
        fresh = [run for run in runs if run.id not in self._in_flight]
        for flow_run in fresh:
            await self._start(flow_run)
        return len(fresh)

    async def _should_look(self) -> bool:
        """Our own index knows whether anything is due; Prefect is asked then, and now and again anyway."""
        if self.is_system or stopwatch() - self._last_look >= LOOK_ANYWAY_SECONDS:
            return True
        return await asyncio.to_thread(self._any_due)

    def _any_due(self) -> bool:
        with self.world.db.reading() as session:
            due = (
                select(Enrollment.id)
                .where(
                    Enrollment.status == EnrollmentStatus.waiting,
                    col(Enrollment.due_at) <= self.world.clock.now(),
                    col(Enrollment.claimed_by).is_(None),
                    col(Enrollment.flow_run_id).is_not(None),
                    Enrollment.queue == self.queue,
                )
                .limit(1)
            )
            return session.exec(due).first() is not None

    async def _wake_early(self) -> int:
        """Serve runs whose contact did something: claimed at once, with no need to reschedule them first."""
        woken = await asyncio.to_thread(self._woken)
        fresh = [(flow_run_id, run_key) for flow_run_id, run_key in woken if flow_run_id not in self._in_flight]
        if not fresh or await self._is_held():
            return 0
        for flow_run_id, run_key in fresh:
            await self._start(FlowRun(id=flow_run_id, flow_id=flow_run_id, parameters={"run_key": run_key}))
        return len(fresh)

    def _woken(self) -> list[tuple[UUID, str]]:
        with self.world.db.reading() as session:
            rows = session.exec(
                select(Enrollment.flow_run_id, Enrollment.run_key)
                .where(
                    col(Enrollment.woken_at) <= self.world.clock.now(),
                    Enrollment.status != EnrollmentStatus.paused,  # what happened meanwhile waits with it
                    col(Enrollment.claimed_by).is_(None),
                    col(Enrollment.flow_run_id).is_not(None),
                    Enrollment.queue == self.queue,
                )
                .order_by(col(Enrollment.woken_at))
                .limit(EARLY_LIMIT)
            ).all()
        return list({UUID(str(flow_run_id)): run_key for flow_run_id, run_key in rows}.items())

    async def _is_held(self) -> bool:
        """Whether ops paused the pool or our queue: then nobody moves, whatever they did."""
        pool = await self.client.read_work_pool(self._work_pool_name)
        if pool.is_paused:
            return True
        queue = await self.client.read_work_queue_by_name(self.queue, work_pool_name=self._work_pool_name)
        return bool(queue.is_paused)

    async def _launch(self) -> int:
        return await launch(self.world.db, self.client, self.queue, wall_now())

    async def _mirror_cancelled(self) -> int:
        """End in our tables what ops cancelled in the dashboard while it slept."""
        response = await self.client.request(
            "POST",
            "/flow_runs/filter",
            json={
                "flow_runs": {"state": {"type": {"any_": ["CANCELLED", "CANCELLING"]}}},
                "work_pools": {"name": {"any_": [self._work_pool_name]}},
                "sort": "END_TIME_DESC",
                "limit": 200,
            },
        )
        ids = [run["id"] for run in response.json()]
        return await asyncio.to_thread(self._end_cancelled, ids) if ids else 0

    async def _sound(self) -> int:
        """Sound alarms while Prefect is away; always says that nothing was found, so that it rests in between."""
        await sound_alone(self.world.db, self.world.clock, self.settings.alarm_webhook, self.client)
        return 0

    def _launch_anew(self, flow_run_id: str) -> int:
        with self.world.db.writing() as session:
            return relaunch_runs(session, [flow_run_id], self.world.clock.now())

    def _retry_parked(self, run_key: str) -> int:
        with self.world.db.writing() as session:
            return retry_run(session, run_key, self.world.clock.now())

    def _end_cancelled(self, ids: list[str]) -> int:
        with self.world.db.writing() as session:
            return end_cancelled_runs(session, ids, self.world.clock.now())

    # --- recovery -----------------------------------------------------------------------------------------------------------------------

    async def _recover_claims(self) -> int:
        return await asyncio.to_thread(self._clear_claims)

    def _clear_claims(self) -> int:
        """Let go of rows claimed by workers of this queue that are dead: we own the queue now, so all of them are."""
        with self.world.db.writing() as session:
            return release_queue(session, self.queue, self.world.clock.now())

    async def _recover_runs(self) -> int:
        """Put back to Waiting every run that a dead worker had claimed. Nobody else recovers Pending or Running runs."""
        found = 0
        while True:
            response = await self.client.request(
                "POST",
                "/flow_runs/filter",
                json={
                    "flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}},
                    "work_pools": {"name": {"any_": [self._work_pool_name]}},
                    "work_pool_queues": {"name": {"any_": [self.queue]}},
                    "limit": 200,
                },
            )
            dead = [UUID(run["id"]) for run in response.json() if UUID(run["id"]) not in self._in_flight]
            for flow_run_id in dead:
                await self.client.set_flow_run_state(flow_run_id, waiting(wall_now(), "Goes on: the worker that had it ended."))
            found += len(dead)
            if not dead:
                return found

    # --- one run ------------------------------------------------------------------------------------------------------------------------

    async def _start(self, flow_run: FlowRun) -> None:
        await self._slots.acquire()
        self._in_flight.add(flow_run.id)
        task = asyncio.create_task(self._serve_and_free(flow_run))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve_and_free(self, flow_run: FlowRun) -> None:
        try:
            await self._serve(flow_run)
        except TROUBLE as error:
            log.warning("run %s: %s", flow_run.id, _brief(error))
        except Exception:
            log.exception("run %s", flow_run.id)
        finally:
            self._in_flight.discard(flow_run.id)
            self._slots.release()

    async def _serve(self, flow_run: FlowRun) -> None:
        run_key = (flow_run.parameters or {}).get("run_key")
        if run_key is None:
            if await self._claim(flow_run.id):
                await self._run_system_flow(flow_run)
            return
        self._unsettled[flow_run.id] = str(run_key)  # before the claim: its answer may be lost after Prefect took it
        try:
            claimed = await self._claim(flow_run.id)
        except ObjectNotFound:
            log.warning("run %s was deleted; its enrollments get another.", flow_run.id)
            await asyncio.to_thread(self._launch_anew, str(flow_run.id))
            claimed = False
        if not claimed:
            self._unsettled.pop(flow_run.id, None)
            return
        if flow_run.deployment_id is not None:  # Prefect said that it is due, and not we: perhaps because it was retried in the dashboard
            await asyncio.to_thread(self._retry_parked, str(run_key))
        await self._wake(flow_run.id, str(run_key))

    async def _claim(self, flow_run_id: UUID) -> bool:
        answer = await self.client.set_flow_run_state(flow_run_id, claiming())
        if answer.status is SetStateStatus.ACCEPT:
            return True
        if self.is_system:
            return False
        if answer.status is SetStateStatus.REJECT and answer.state is not None and answer.state.is_cancelled():
            await asyncio.to_thread(self._end_cancelled, [str(flow_run_id)])
            return False
        # Only we claim runs of our queue, so one that is Pending is ours: the client repeats a call whose answer it did not hear.
        state = (await self.client.read_flow_run(flow_run_id)).state
        return state is not None and state.is_pending()

    async def _wake(self, flow_run_id: UUID, run_key: str) -> None:
        await self.client.set_flow_run_state(flow_run_id, running())
        rest = await wake(self.world, run_key)
        self.wakes += 1
        if self.settings.trace_steps and rest.steps:
            show_steps(flow_run_id, rest.steps, int(wall_now().timestamp() * 1000))
        await self._settle(flow_run_id, state_of(rest, self.world.clock))

    async def _settle(self, flow_run_id: UUID, state: State[Any]) -> None:
        await self.client.set_flow_run_state(flow_run_id, state)
        self._unsettled.pop(flow_run_id, None)

    async def _settle_again(self) -> int:
        """Say again how runs go on whose last word Prefect did not hear."""
        settled = 0
        for flow_run_id, run_key in list(self._unsettled.items()):
            if flow_run_id in self._in_flight:
                continue
            rest = await asyncio.to_thread(wake_result, self.world, run_key, (), 0)
            await self._settle(flow_run_id, state_of(rest, self.world.clock))
            settled += 1
        return settled

    async def _run_system_flow(self, flow_run: FlowRun) -> None:
        """Run a flow of the system pool through Prefect's own engine, in a thread: it may take its time, and signals stay ours."""
        from flows.system import run_in_thread

        await run_in_thread(flow_run)


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
