"""Loops of a worker: calling something again and again, and waiting out errors of the network, of Prefect and of the database."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import httpx
from prefect.exceptions import PrefectException
from sqlalchemy.exc import SQLAlchemyError

from distmark.errors import DistmarkError

log = logging.getLogger("distmark.worker")

RETRYABLE = (httpx.HTTPError, PrefectException, SQLAlchemyError, DistmarkError, OSError)
LONGEST_PAUSE_SECONDS = 10.0


async def repeat_forever(once: Callable[[], Awaitable[int]], pause_seconds: Callable[[], float]) -> None:
    """Call `once` forever, with a pause after each call that found nothing to do (0).

    An error in `RETRYABLE` is logged, and the next call comes after 1, 2, 4 ... seconds, at most `LONGEST_PAUSE_SECONDS`. Raises any other.
    """
    failures = 0
    while True:
        try:
            found = await once()
            failures = 0
        except RETRYABLE as error:
            failures += 1
            await _wait_out(getattr(once, "__name__", "work"), error, failures)
            continue
        if not found:
            await asyncio.sleep(pause_seconds())


async def retry_until_done(what: str, once: Callable[[], Awaitable[int]]) -> int:
    """Call `once` until it raises nothing in `RETRYABLE`, and return its count. `what` names the work in the log."""
    failures = 0
    while True:
        try:
            found = await once()
        except RETRYABLE as error:
            failures += 1
            await _wait_out(what, error, failures)
            continue
        if found:
            log.info("%s: %d", what, found)
        return found


async def _wait_out(what: str, error: BaseException, failures: int) -> None:
    log.warning("%s: %s (try %d)", what, brief(error), failures)
    await asyncio.sleep(min(0.5 * 2**failures, LONGEST_PAUSE_SECONDS))


def brief(error: BaseException) -> str:
    """Return the type of the error and the first line of its text, for a log line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
