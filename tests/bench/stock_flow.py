"""What a wake is under Prefect's stock process worker: a process of its own, our wake, the same run put back to Scheduled."""

import asyncio
from datetime import timedelta

from prefect import flow, runtime
from prefect.client.orchestration import get_client
from prefect.exceptions import Pause
from prefect.utilities.engine import propose_state

from distmark.clock import wall_now
from distmark.engine.runtime import get_engine_context
from distmark.engine.wake import wake
from flows.states import state_of, waiting


@flow(name="stock", retries=0)
async def stock(run_key: str) -> None:
    """Wake the run's enrollments and leave the process with the run asleep."""
    rest = await wake(get_engine_context(), run_key)
    state = waiting(wall_now() + timedelta(days=400), "asleep") if not rest.finished else state_of(rest, get_engine_context().clock)
    async with get_client() as client:
        await propose_state(client, state, flow_run_id=runtime.flow_run.id)
    raise Pause(state=state)


if __name__ == "__main__":
    asyncio.run(stock("none"))
