"""Execution of flow runs inside the worker process: each run is claimed in Prefect, woken, and given its next state."""

import asyncio
import logging
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound

from distmark.clock import wall_now
from distmark.engine.wake import EngineContext, wake, wake_result
from distmark.enrollments.run_repairs import relaunch_runs, retry_run
from distmark.enrollments.service import end_cancelled_runs
from flows.loops import RETRYABLE, brief
from flows.prefect_api import QueueApi
from flows.run_logs import RunLogs
from flows.states import claiming, running, state_of
from flows.system import run_in_thread
from flows.task_runs import show_steps

log = logging.getLogger("distmark.worker")


class RunExecutor:
    """Executes flow runs, at most `limit` at once, in tasks of the running event loop. `wakes` counts those that carried enrollments."""

    def __init__(self, api: QueueApi, context: EngineContext, limit: int, *, trace_steps: bool, base_url: str = "") -> None:
        self._api, self._context, self._trace_steps = api, context, trace_steps
        self._logs = RunLogs(base_url)
        self._slots = asyncio.Semaphore(limit)
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight: set[UUID] = set()
        self._unsettled: dict[UUID, str] = {}  # run -> run key, of runs whose next state Prefect has not acknowledged
        self.wakes = 0

    def is_in_flight(self, flow_run_id: UUID) -> bool:
        """Return whether the run is being executed in this process now."""
        return flow_run_id in self._in_flight

    async def start(self, flow_run: FlowRun) -> None:
        """Execute the run in a task of its own as soon as a slot is free. Its errors are logged, not raised."""
        await self._slots.acquire()
        self._in_flight.add(flow_run.id)
        task = asyncio.create_task(self._execute_in_slot(flow_run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, timeout_seconds: float | None = None) -> None:
        """Wait until the runs in flight have ended, at most so long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_seconds)

    async def _execute_in_slot(self, flow_run: FlowRun) -> None:
        try:
            await self.execute(flow_run)
        except RETRYABLE as error:
            log.warning("run %s: %s", flow_run.id, brief(error))
        except Exception:
            log.exception("run %s", flow_run.id)
        finally:
            self._in_flight.discard(flow_run.id)
            self._slots.release()

    async def execute(self, flow_run: FlowRun) -> None:
        """Claim the run, wake its enrollments, and set its next state; nothing when the claim is refused.

        The enrollments of a run that was deleted in Prefect are launched anew. A run without a run key is one of a system flow.
        """
        run_key = (flow_run.parameters or {}).get("run_key")
        if run_key is None:
            await self._execute_system(flow_run)
        else:
            await self._execute_journey(flow_run, str(run_key))

    async def _execute_system(self, flow_run: FlowRun) -> None:
        answer = await self._api.set_state(flow_run.id, claiming())
        if answer.status is SetStateStatus.ACCEPT:
            await run_in_thread(flow_run)

    async def _execute_journey(self, flow_run: FlowRun, run_key: str) -> None:
        self._unsettled[flow_run.id] = run_key  # before the claim: its answer may be lost after Prefect took it
        try:
            claimed = await self._claim(flow_run.id)
        except ObjectNotFound:
            log.warning("run %s was deleted; its enrollments get another.", flow_run.id)
            await asyncio.to_thread(self._launch_anew, str(flow_run.id))
            claimed = False
        if not claimed:
            self._unsettled.pop(flow_run.id, None)
            return
        # Prefect found this run due, not our own tables: perhaps because it was retried in the dashboard.
        if flow_run.deployment_id is not None:
            await asyncio.to_thread(self._retry_parked, run_key)
        await self._wake(flow_run.id, run_key)

    async def _claim(self, flow_run_id: UUID) -> bool:
        answer = await self._api.set_state(flow_run_id, claiming())
        if answer.status is SetStateStatus.ACCEPT:
            return True
        if answer.status is SetStateStatus.REJECT and answer.state is not None and answer.state.is_cancelled():
            await asyncio.to_thread(self.end_cancelled, [str(flow_run_id)])
            return False
        # Only this worker claims runs of its queue, so a Pending one is ours: the client repeats a call whose answer was lost.
        return await self._api.is_pending(flow_run_id)

    async def _wake(self, flow_run_id: UUID, run_key: str) -> None:
        await self._api.set_state(flow_run_id, running())
        result = await wake(self._context, run_key)
        self.wakes += 1
        if self._trace_steps:
            show_steps(flow_run_id, result.steps, int(wall_now().timestamp() * 1000))
            self._logs.add(flow_run_id, result)
        await self._settle(flow_run_id, state_of(result, self._context.clock))

    async def _settle(self, flow_run_id: UUID, state: State[Any]) -> None:
        await self._api.set_state(flow_run_id, state)
        self._unsettled.pop(flow_run_id, None)

    async def settle_again(self) -> int:
        """Set the next state of the runs for which Prefect has not acknowledged one, and return how many."""
        settled = 0
        for flow_run_id, run_key in list(self._unsettled.items()):
            if self.is_in_flight(flow_run_id):
                continue
            result = await asyncio.to_thread(wake_result, self._context, run_key, (), 0)
            await self._settle(flow_run_id, state_of(result, self._context.clock))
            settled += 1
        return settled

    async def send_logs(self) -> int:
        """Send log lines of past wakes to Prefect in one call, and return how many."""
        lines = self._logs.next_lines()
        if lines:
            await self._api.add_logs(lines)
            self._logs.sent(lines)
        return len(lines)

    def end_cancelled(self, flow_run_ids: list[str]) -> int:
        """End the enrollments of these cancelled runs, and return how many."""
        with self._context.db.writing() as session:
            return end_cancelled_runs(session, flow_run_ids, self._context.clock.now())

    def _launch_anew(self, flow_run_id: str) -> int:
        with self._context.db.writing() as session:
            return relaunch_runs(session, [flow_run_id], self._context.clock.now())

    def _retry_parked(self, run_key: str) -> int:
        with self._context.db.writing() as session:
            return retry_run(session, run_key, self._context.clock.now())
