"""Waiting until something holds, rather than for as long as it usually takes."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

SECONDS = 30.0
PAUSE_SECONDS = 0.02


def wait_until(holds: Callable[[], object], seconds: float = SECONDS, what: str = "It", pause: float = PAUSE_SECONDS) -> None:
    """Return as soon as `holds` does; AssertionError that names `what` when it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:.0f} seconds."
        time.sleep(pause)


async def until(holds: Callable[[], object | Awaitable[object]], seconds: float = SECONDS, what: str = "It") -> None:
    """Do the same while other tasks go on; `holds` may also return something to be awaited."""
    deadline = time.monotonic() + seconds
    while not await _told(holds()):
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:.0f} seconds."
        await asyncio.sleep(PAUSE_SECONDS)


async def _told(held: object) -> object:
    return await held if inspect.isawaitable(held) else held
