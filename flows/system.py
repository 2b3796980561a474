"""The system flows (entries, results, upkeep), run by Prefect's engine inside the worker process."""

import asyncio
from collections.abc import Callable
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow

from flows.entries import entries
from flows.results import results
from flows.upkeep import upkeep

SYSTEM_FLOWS: dict[str, Flow[..., Any]] = {"results": results, "upkeep": upkeep, "entries": entries}


async def run_in_thread(flow_run: FlowRun) -> None:
    """Run the claimed flow run to its end in a thread of its own; the engine records how it ended."""
    flow = SYSTEM_FLOWS[_name_in(flow_run)]
    # The engine starts a thread, a socket and two blocking waits for every run that has a deployment, to watch for suspension.
    local = flow_run.model_copy(update={"deployment_id": None})
    call: Callable[..., Any] = run_flow
    await asyncio.to_thread(call, flow, flow_run=local, parameters=flow_run.parameters, return_type="state")


def _name_in(flow_run: FlowRun) -> str:
    for tag in flow_run.tags:
        if tag.startswith("system:"):
            return tag.removeprefix("system:")
    raise KeyError(f"Flow run {flow_run.id} names no system flow; register the system flows again.")
