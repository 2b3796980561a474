"""The Prefect server on its embedded SQLite, with its writers in a queue: `python -m flows.server` is `prefect server start` otherwise.

Prefect opens many connections to the one file and lets them compete for its write lock. Each connection waits in a thread of its own, in
no order, for up to a minute. A transaction that read before it writes is refused at once. When the garbage collector meets a cursor of a
waiting connection, the event loop waits too, and so does the task that holds the lock. Measured on two cores: the server stood still for
60 seconds every few minutes, answered 503 "database is locked", and kept one caller waiting for as long as others came. With a queue none
of this happens, and nothing is slower: SQLite takes one writer at a time anyway. Postgres is not affected.
"""

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from prefect.server.database.configurations import AioSqliteConfiguration

STARTED_UP_SECONDS = 30.0
COLLECT_SECONDS = 2.0
FULL_EVERY = 15
QUEUE_TIMEOUT_SECONDS = 10.0  # a task that has waited longer goes on without its turn and competes for the lock as Prefect does


class WriterQueue:
    """A queue of tasks that want to write, first come first served. A task that has its turn may enter again within it."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Give this task its turn for the length of the block, or let it go on without one after `QUEUE_TIMEOUT_SECONDS`."""
        task = asyncio.current_task()
        if task is self._holder or not await self._acquire():
            yield
            return
        self._holder = task
        try:
            yield
        finally:
            self._holder = None
            self._lock.release()

    async def _acquire(self) -> bool:
        try:
            return await asyncio.wait_for(self._lock.acquire(), QUEUE_TIMEOUT_SECONDS)
        except TimeoutError:
            return False


_queues: WeakKeyDictionary[asyncio.AbstractEventLoop, WriterQueue] = WeakKeyDictionary()


def queue_writers() -> None:
    """Let the transactions of this process on Prefect's SQLite take turns from now on."""
    begin_unqueued = AioSqliteConfiguration.begin_transaction

    @asynccontextmanager
    async def begin_in_turn(self: AioSqliteConfiguration, session: Any, with_for_update: bool = False) -> AsyncIterator[Any]:
        queue = _queues.setdefault(asyncio.get_running_loop(), WriterQueue())
        async with queue.turn():
            # Always as a writer: a transaction that begins as a reader is refused as stale when it comes to write.
            transaction: AbstractAsyncContextManager[Any] = begin_unqueued(self, session, True)
            async with transaction as begun:
                yield begun

    AioSqliteConfiguration.begin_transaction = begin_in_turn  # type: ignore[method-assign]


def collect_garbage_in_thread() -> None:
    """Collect garbage in a thread of its own from now on: that thread may wait for a busy connection without blocking the event loop."""
    gc.disable()
    threading.Thread(target=_collect_forever, name="garbage", daemon=True).start()


def _collect_forever() -> None:
    time.sleep(STARTED_UP_SECONDS)
    gc.collect()
    gc.freeze()  # objects from the start are code and routes: examining them again would take half a second each time
    for number in count(1):
        time.sleep(COLLECT_SECONDS)
        gc.collect(2 if number % FULL_EVERY == 0 else 1)


def main() -> None:
    """Start the Prefect server with the arguments of `prefect server start`."""
    from prefect.cli import app

    queue_writers()
    if not os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL", "sqlite").startswith("postgres"):
        collect_garbage_in_thread()
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    app()


if __name__ == "__main__":
    main()
