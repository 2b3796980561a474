"""The Prefect server on its embedded SQLite, with writers in a queue: `python -m flows.server` is `prefect server start`, nothing else.

Prefect opens many connections to the one file and lets them fight for its write lock. Each waits in a thread of its own, in no order, for
up to a minute; a transaction that read before it writes is refused at once; and when the garbage collector meets a cursor of a connection
that waits, the event loop waits with it, and with the loop the one that holds the lock. Seen on two cores: the server stood still for 60
seconds every few minutes, answered 503 "database is locked", and let one caller wait for as long as others came. In a queue none of it
happens, and nothing is slower: SQLite takes one writer at a time anyway. On Postgres nothing is changed.
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

GROWN_UP_SECONDS = 30.0
COLLECT_SECONDS = 2.0
WHOLE_EVERY = 15
PATIENCE_SECONDS = 10.0  # whoever waits longer goes on without a turn and fights for the lock as Prefect does


class Turns:
    """Whose turn it is to write, first come first served. A task that has the turn may begin again within it."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Within, it is this task's turn."""
        me = asyncio.current_task()
        if me is self._holder or not await self._take():
            yield
            return
        self._holder = me
        try:
            yield
        finally:
            self._holder = None
            self._lock.release()

    async def _take(self) -> bool:
        try:
            return await asyncio.wait_for(self._lock.acquire(), PATIENCE_SECONDS)
        except TimeoutError:
            return False


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def queue_writers() -> None:
    """From now on the transactions of this process on Prefect's SQLite take turns."""
    fight_for_it = AioSqliteConfiguration.begin_transaction

    @asynccontextmanager
    async def take_turns(self: AioSqliteConfiguration, session: Any, with_for_update: bool = False) -> AsyncIterator[Any]:
        turns = _turns.setdefault(asyncio.get_running_loop(), Turns())
        async with turns.turn():
            # Always as a writer: one that begins as a reader is refused as stale when it comes to write.
            transaction: AbstractAsyncContextManager[Any] = fight_for_it(self, session, True)
            async with transaction as begun:
                yield begun

    AioSqliteConfiguration.begin_transaction = take_turns  # type: ignore[method-assign]


def collect_garbage_aside() -> None:
    """From now on garbage is collected in a thread of its own, which may wait for a busy connection without holding up anybody else."""
    gc.disable()
    threading.Thread(target=_collect_for_ever, name="garbage", daemon=True).start()


def _collect_for_ever() -> None:
    time.sleep(GROWN_UP_SECONDS)
    gc.collect()
    gc.freeze()  # what is there by now is code and routes: looking through it again would take half a second each time
    for number in count(1):
        time.sleep(COLLECT_SECONDS)
        gc.collect(2 if number % WHOLE_EVERY == 0 else 1)


def main() -> None:
    """Start the Prefect server with the arguments of `prefect server start`."""
    from prefect.cli import app

    queue_writers()
    if not os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL", "sqlite").startswith("postgres"):
        collect_garbage_aside()
    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    app()


if __name__ == "__main__":
    main()
