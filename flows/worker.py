"""The journey worker: a Prefect worker type that runs many flow runs concurrently in one process.

A wake is three state transitions around our own code. The stock way (a process per run, or the flow engine in process) costs the Prefect
server two to four times as much and the machine up to eighty times as much; the transitions, and so all that operations see and do in the
dashboard, are the same.
"""

import asyncio
import logging
from contextlib import suppress
from functools import cached_property
from typing import Any

import anyio
import anyio.abc
from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from distmark.clock import stopwatch, wall_now
from distmark.engine.due import is_any_due, woken_runs
from distmark.engine.runtime import get_engine_context
from distmark.engine.wake import EngineContext
from distmark.settings import Settings, get_settings
from flows.alarms import raise_alarms_without_prefect
from flows.dead_workers import recover_claims, recover_runs
from flows.executor import RunExecutor
from flows.journey import WORKER_TYPE
from flows.launch import launch
from flows.loops import RETRYABLE, repeat_forever, retry_until_done
from flows.prefect_api import QueueApi
from flows.queue_lock import QueueLock
from flows.run_logs import LINES_PER_CALL

log = logging.getLogger("distmark.worker")

POLL_LIMIT = 100
EARLY_LIMIT = 200
POLL_ANYWAY_SECONDS = 3.0  # operations may have rescheduled a run in the dashboard, which our own tables do not show
CANCELLED_EVERY_SECONDS = 3.0
ALARMS_EVERY_SECONDS = 60.0
STAND_BY_SECONDS = 2.0
DRAIN_SECONDS = 15.0
LOGS_EVERY_SECONDS = 2.0
LAST_LOGS_SECONDS = 3.0


class OwnershipLost(Exception):
    """Raised when the worker no longer owns its queue."""


class JourneyWorker(BaseWorker[BaseJobConfiguration, BaseVariables, BaseWorkerResult]):
    """Claims the runs of one work queue, which it owns alone, and wakes their enrollments.

    A worker of the system pool runs the system flows instead, each in a thread, and owns nothing.
    """

    type = WORKER_TYPE
    job_configuration = BaseJobConfiguration
    job_configuration_variables = BaseVariables
    _description = "Runs customer journeys: many runs concurrently in one process, asleep between steps at no cost."
    _display_name = "Journey"

    def __init__(self, *arguments: Any, context: EngineContext | None = None, settings: Settings | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.settings = settings or get_settings()
        self._given_context = context
        self.queue = next(iter(sorted(self._work_queues)), self.settings.work_queue)
        self._work_queues = {self.queue}
        self._work_loop: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._polled_at = 0.0

    # --- the interface of a Prefect worker -----------------------------------------------------------------------------------------------

    async def setup(self) -> None:
        """Connect, and start looking for work once this process owns its queue."""
        await super().setup()
        self._work_loop = asyncio.create_task(self._work(), name=f"journey-worker:{self.queue}")

    async def teardown(self, *exc_info: Any) -> None:
        """Take no more work, let the wakes in flight end, then disconnect. A wake lasts seconds; the long waits are kept by Prefect."""
        self._stopping.set()
        if self._work_loop is not None:
            self._work_loop.cancel()
            await asyncio.gather(self._work_loop, return_exceptions=True)
            await self.executor.drain(DRAIN_SECONDS)
            with suppress(*RETRYABLE):  # lines are worth a try, not a wait
                await asyncio.wait_for(self.executor.send_logs(), LAST_LOGS_SECONDS)
        await super().teardown(*exc_info)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Report only that this worker is alive: Prefect calls this too seldom for us, so our own loops find and execute the runs.

        Raises the error that ended our loops, if one did: the process then ends, instead of sending heartbeats and doing nothing.
        """
        if self._work_loop is not None and self._work_loop.done() and not self._stopping.is_set():
            self._work_loop.result()
        self._last_polled_time = wall_now()
        return []

    async def run(
        self, flow_run: FlowRun, configuration: BaseJobConfiguration, task_status: anyio.abc.TaskStatus[int] | None = None
    ) -> BaseWorkerResult:
        """Execute one flow run now, for any caller."""
        await self.executor.execute(flow_run)
        return BaseWorkerResult(identifier=str(flow_run.id), status_code=0)

    # --- parts ---------------------------------------------------------------------------------------------------------------------------

    @property
    def context(self) -> EngineContext:
        """The context of the wakes: the given one, or else this process's own."""
        return self._given_context or get_engine_context()

    @property
    def is_system(self) -> bool:
        """Return whether this worker serves the pool of system flows, which carry no enrollments."""
        return self._work_pool_name == self.settings.system_pool

    @property
    def wakes(self) -> int:
        """The number of wakes that this worker has done."""
        return 0 if self._work_loop is None else self.executor.wakes

    @cached_property
    def api(self) -> QueueApi:
        """Prefect's API for our queue. Available once the worker is connected."""
        return QueueApi(self.client, self._work_pool_name, self.queue)

    @cached_property
    def executor(self) -> RunExecutor:
        """The part that executes the runs. Available once the worker is connected."""
        limit = self._limit or self.settings.worker_concurrency
        return RunExecutor(self.api, self.context, limit, trace_steps=self.settings.trace_steps, base_url=self.settings.base_url)

    # --- life ----------------------------------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        await (self._work_on_system_flows() if self.is_system else self._work_on_journeys())

    async def _work_on_system_flows(self) -> None:
        async with asyncio.TaskGroup() as loops:
            loops.create_task(repeat_forever(self._raise_alarms, lambda: ALARMS_EVERY_SECONDS))
            await retry_until_done("recover", self._recover_runs)
            loops.create_task(repeat_forever(self._poll, lambda: self.settings.poll_seconds))

    async def _work_on_journeys(self) -> None:
        while True:
            await self._work_as_owner(QueueLock(self.context.db, self.queue, self.settings.data_dir))
            # A wake of ours retries until its results are written. Until then our claims must not be taken for those of a dead worker.
            await self.executor.drain()

    async def _work_as_owner(self, lock: QueueLock) -> None:
        """Work from the moment the queue is ours until it is lost: the database drops the lock when it restarts."""
        await self._acquire(lock)
        try:
            await retry_until_done("recover claims", lambda: recover_claims(self.context, self.queue))
            await retry_until_done("recover", self._recover_runs)
            async with asyncio.TaskGroup() as loops:
                loops.create_task(repeat_forever(self._poll, lambda: self.settings.poll_seconds))
                loops.create_task(repeat_forever(self._wake_early, lambda: min(self.settings.poll_seconds, 0.25)))
                loops.create_task(repeat_forever(self._launch, lambda: min(self.settings.poll_seconds, 0.5)))
                loops.create_task(repeat_forever(self._end_cancelled, lambda: CANCELLED_EVERY_SECONDS))
                loops.create_task(repeat_forever(self.executor.settle_again, lambda: 1.0))
                loops.create_task(repeat_forever(self._send_logs, lambda: LOGS_EVERY_SECONDS))
                loops.create_task(self._watch(lock))
        except* OwnershipLost:
            log.error("Queue %s is no longer ours: the database let go of the lock. Resting until it is ours again.", self.queue)
        finally:
            lock.release()

    async def _acquire(self, lock: QueueLock) -> None:
        logged = False
        while not await retry_until_done("own the queue", lambda: asyncio.to_thread(lock.acquire)):
            if not logged:
                log.warning("Queue %s is owned by another worker; standing by.", self.queue)
                logged = True
            await asyncio.sleep(STAND_BY_SECONDS)

    async def _watch(self, lock: QueueLock) -> None:
        while True:
            await asyncio.sleep(STAND_BY_SECONDS)
            if not await asyncio.to_thread(lock.is_held):
                raise OwnershipLost

    async def _recover_runs(self) -> int:
        return await recover_runs(self.api, self.executor.is_in_flight)

    # --- what each loop does once: returns how much it found -----------------------------------------------------------------------------

    async def _poll(self) -> int:
        """Start the runs that are due by Prefect's records."""
        if not self._has_successfully_synced or not await self._should_poll():
            return 0
        runs = await self.api.scheduled_runs(POLL_LIMIT)
        self._polled_at = stopwatch()
        return await self._start_new(runs)

    async def _should_poll(self) -> bool:
        """Return whether to ask Prefect: when anything is due by our own index, and every `POLL_ANYWAY_SECONDS` regardless."""
        if self.is_system or stopwatch() - self._polled_at >= POLL_ANYWAY_SECONDS:
            return True
        return await asyncio.to_thread(self._is_any_due)

    def _is_any_due(self) -> bool:
        with self.context.db.reading() as session:
            return is_any_due(session, self.queue, self.context.clock.now())

    async def _wake_early(self) -> int:
        """Start the runs with a woken enrollment: claiming one needs no rescheduling in Prefect first."""
        woken = await asyncio.to_thread(self._woken_runs)
        # Made here, and not asked of Prefect: they have no deployment id.
        runs = [FlowRun(id=flow_run_id, flow_id=flow_run_id, parameters={"run_key": run_key}) for flow_run_id, run_key in woken.items()]
        if all(self.executor.is_in_flight(run.id) for run in runs) or await self.api.is_paused():
            return 0
        return await self._start_new(runs)

    def _woken_runs(self) -> dict[Any, str]:
        with self.context.db.reading() as session:
            return woken_runs(session, self.queue, self.context.clock.now(), EARLY_LIMIT)

    async def _start_new(self, runs: list[FlowRun]) -> int:
        fresh = [run for run in runs if not self.executor.is_in_flight(run.id)]
        for flow_run in fresh:
            await self.executor.start(flow_run)
        return len(fresh)

    async def _launch(self) -> int:
        """Create the runs of new enrollments."""
        return await launch(self.context.db, self.client, self.queue, wall_now())

    async def _end_cancelled(self) -> int:
        """End the enrollments of runs that operations cancelled in the dashboard while they slept."""
        flow_run_ids = await self.api.cancelled_run_ids()
        return await asyncio.to_thread(self.executor.end_cancelled, flow_run_ids) if flow_run_ids else 0

    async def _send_logs(self) -> int:
        """Send the lines logged since. Returns 0 unless more is left, so that the lines of many wakes go together."""
        return int(await self.executor.send_logs() == LINES_PER_CALL)

    async def _raise_alarms(self) -> int:
        """Raise and clear alarms while Prefect is away. Returns 0, so that the loop always pauses."""
        await raise_alarms_without_prefect(self.context.db, self.context.clock, self.settings.alarm_webhook, self.client)
        return 0
