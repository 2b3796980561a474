"""The calls that a worker makes to the Prefect server, for the runs of one work pool and one of its queues."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import OrchestrationResult

from distmark.clock import wall_now

PAGE = 200  # Prefect's own limit


@dataclass(frozen=True, slots=True)
class QueueApi:
    """Prefect's API, narrowed to the runs of one work queue. Errors: those of the client when Prefect is away."""

    client: PrefectClient
    pool: str
    queue: str

    async def scheduled_runs(self, limit: int) -> list[FlowRun]:
        """Return runs of the queue that are due by the wall clock, at most `limit`."""
        response = await self.client.request(
            "POST",
            f"/work_pools/{self.pool}/get_scheduled_flow_runs",  # type: ignore[arg-type]
            json={"scheduled_before": wall_now().isoformat(), "work_queue_names": [self.queue], "limit": limit},
        )
        return [FlowRun.model_validate(entry["flow_run"]) for entry in response.json()]

    async def is_paused(self) -> bool:
        """Return whether operations paused the pool or the queue in the dashboard."""
        pool = await self.client.read_work_pool(self.pool)
        if pool.is_paused:
            return True
        queue = await self.client.read_work_queue_by_name(self.queue, work_pool_name=self.pool)
        return bool(queue.is_paused)

    async def cancelled_run_ids(self) -> list[str]:
        """Return the runs of the pool that were cancelled, the latest first, at most one page."""
        return await self._run_ids(
            {
                "flow_runs": {"state": {"type": {"any_": ["CANCELLED", "CANCELLING"]}}},
                "work_pools": {"name": {"any_": [self.pool]}},
                "sort": "END_TIME_DESC",
            }
        )

    async def claimed_run_ids(self) -> list[UUID]:
        """Return the runs of the queue that are Pending or Running, at most one page."""
        ids = await self._run_ids(
            {
                "flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}},
                "work_pools": {"name": {"any_": [self.pool]}},
                "work_pool_queues": {"name": {"any_": [self.queue]}},
            }
        )
        return [UUID(each) for each in ids]

    async def _run_ids(self, filters: dict[str, Any]) -> list[str]:
        response = await self.client.request("POST", "/flow_runs/filter", json={**filters, "limit": PAGE})
        return [run["id"] for run in response.json()]

    async def set_state(self, flow_run_id: UUID, state: State[Any]) -> OrchestrationResult[Any]:
        """Propose the state for the run, and return the server's answer. ObjectNotFound when the run was deleted."""
        return await self.client.set_flow_run_state(flow_run_id, state)

    async def add_logs(self, lines: list[dict[str, Any]]) -> None:
        """Put lines into the logs of their runs."""
        await self.client.create_logs(lines)

    async def is_pending(self, flow_run_id: UUID) -> bool:
        """Return whether the run is Pending now."""
        state = (await self.client.read_flow_run(flow_run_id)).state
        return state is not None and state.is_pending()
