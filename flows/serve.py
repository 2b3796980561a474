"""The worker process: `python -m flows.serve` runs the workers of both pools, journeys and system flows, until it is stopped."""

import asyncio
import logging
import signal
import sys

from prefect.client.orchestration import get_client

from distmark.engine.runtime import get_engine_context
from distmark.settings import get_settings
from flows.connection import connected
from flows.worker import JourneyWorker

log = logging.getLogger("distmark.worker")


async def serve() -> None:
    """Run the worker of the journeys' pool and the worker of the system flows' pool in this process, until a signal stops them."""
    settings = get_settings()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await _wait_for_prefect(stop)
    workers = [
        JourneyWorker(work_pool_name=settings.work_pool, work_queues=[settings.work_queue], name=f"journeys-{settings.work_queue}"),
        JourneyWorker(work_pool_name=settings.system_pool, work_queues=["default"], name="system", limit=2),
    ]
    running_workers = [asyncio.create_task(worker.start(printer=log.info)) for worker in workers]
    stopped = asyncio.create_task(_until_set(stop))
    done, _pending = await asyncio.wait([*running_workers, stopped], return_when=asyncio.FIRST_COMPLETED)
    for task in running_workers:
        task.cancel()
    await asyncio.gather(*running_workers, return_exceptions=True)
    for channel in get_engine_context().channels.values():
        await channel.close()
    for task in done:
        if task is not stopped:
            task.result()


async def _until_set(event: asyncio.Event) -> None:
    await event.wait()


async def _wait_for_prefect(stop: asyncio.Event) -> None:
    logged = False
    async with get_client() as client:
        while not stop.is_set() and await client.api_healthcheck() is not None:
            if not logged:
                log.warning("Prefect does not answer yet at %s; waiting.", get_settings().prefect_api_url)
                logged = True
            await asyncio.sleep(0.5)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with connected():
        asyncio.run(serve())


if __name__ == "__main__":
    main()
