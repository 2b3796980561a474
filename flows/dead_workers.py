"""Recovery when a worker becomes the owner of its queue: claims and runs that a dead worker left behind."""

import asyncio
from collections.abc import Callable
from uuid import UUID

from distmark.clock import wall_now
from distmark.engine.wake import EngineContext
from distmark.enrollments.run_repairs import release_queue
from flows.prefect_api import QueueApi
from flows.states import waiting


async def recover_claims(context: EngineContext, queue: str) -> int:
    """Release the claims on enrollments of the queue, and return how many. Only its owner may: then every claim is a dead worker's."""
    return await asyncio.to_thread(release_claims, context, queue)


def release_claims(context: EngineContext, queue: str) -> int:
    """Release every claim on enrollments of the queue, and return how many."""
    with context.db.writing() as session:
        return release_queue(session, queue, context.clock.now())


async def recover_runs(api: QueueApi, is_ours: Callable[[UUID], bool]) -> int:
    """Set to Waiting, due now, every Pending or Running run that is not ours, and return how many. Prefect recovers none by itself."""
    found = 0
    while True:
        abandoned = [flow_run_id for flow_run_id in await api.claimed_run_ids() if not is_ours(flow_run_id)]
        for flow_run_id in abandoned:
            await api.set_state(flow_run_id, waiting(wall_now(), "Goes on: the worker that had it ended."))
        found += len(abandoned)
        if not abandoned:
            return found
