"""Walks the tests that people make of journeys on themselves: the real wake on the test's own clock, with real seconds for its waits.

No Prefect in it. Each test is a task of one event loop in a thread of the web process; when that process ends, its tests are interrupted.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock, Thread

from sqlmodel import Session

from distmark.channels.base import Channel, OutgoingMessage, Receipt
from distmark.channels.registry import CHANNELS, make_channels
from distmark.clock import FixedClock, wall_now
from distmark.db import Database
from distmark.delivery.service import Sender
from distmark.engine.wake import EngineContext, wake
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.errors import NotFound
from distmark.journeys.model import Why
from distmark.partners.table import User
from distmark.rehearsals.sandbox import enrollment_on, opened
from distmark.rehearsals.table import Rehearsal, RehearsalStatus
from distmark.settings import Settings
from distmark.sql import id_of

log = logging.getLogger("distmark.rehearse")

TICK_SECONDS = 0.25
SIGN_OF_LIFE_SECONDS = 5.0
LONGEST_RETRY = timedelta(seconds=30)  # a machine that asked for patience is asked again after this at the latest
LONGEST = timedelta(hours=2)  # of real time
MOST_WAKES = 300
MARK = {"ja": "【テスト】", "en": "[Test] "}
MARK_SMS = {"ja": "【テスト・SMS】", "en": "[Test, text message] "}
LONGEST_SMS_SUBJECT = 40


@dataclass(frozen=True, slots=True)
class OwnInbox:
    """A way out that leads to one mail address only, marked as a test and dated now; a text message arrives there as a mail."""

    mail: Channel
    address: str
    is_sms: bool = False

    async def deliver(self, message: OutgoingMessage) -> Receipt:
        """Hand the message to the mail channel. Errors: those of that channel."""
        marks = MARK_SMS if self.is_sms else MARK
        subject = _first_words(message.text) if self.is_sms else message.subject
        marked = f"{marks.get(message.language, marks['en'])}{subject}"
        return await self.mail.deliver(replace(message, to_address=self.address, subject=marked, sent_at=wall_now()))

    async def close(self) -> None:
        """The mail channel belongs to whoever made it."""


def _first_words(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_SMS_SUBJECT else line[:LONGEST_SMS_SUBJECT] + "…"


@dataclass(frozen=True, slots=True)
class RunnerContext:
    """What tests are walked with: the installation's database, where stages are kept, the way out for mail, and who sends."""

    db: Database
    data_dir: Path
    mail: Channel
    sender: Sender


class Rehearsals:
    """Walks tests in a thread of this process."""

    def __init__(self, settings: Settings, db: Database, *, mail: Callable[[], Channel] | None = None) -> None:
        self._settings, self._db = settings, db
        self._mail = mail or (lambda: make_channels(settings)["email"])
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._house: RunnerContext | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, rehearsal_id: int) -> None:
        """Walk the test from now on; returns at once."""
        loop = self._running()
        loop.call_soon_threadsafe(self._walk, rehearsal_id)

    def close(self) -> None:
        """Leave every test where it is; they are shown as interrupted."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(self._end(), loop).result(timeout=10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=10)
            loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = Thread(target=self._loop.run_forever, name="tests of journeys", daemon=True)
                self._thread.start()
            return self._loop

    def _walk(self, rehearsal_id: int) -> None:
        if self._house is None:
            settings = self._settings
            sender = Sender(settings.base_url, settings.mail_from, settings.mail_domain)
            self._house = RunnerContext(self._db, settings.data_dir, self._mail(), sender)
        task = asyncio.ensure_future(rehearse(self._house, rehearsal_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._house is not None:
            await self._house.mail.close()
            self._house = None


async def rehearse(house: RunnerContext, rehearsal_id: int) -> None:
    """Walk the test until its journey has ended, somebody stops it, or it was left alone for too long."""
    try:
        row, address = await asyncio.to_thread(_loaded, house.db, rehearsal_id)
        with opened(house.data_dir, row.key) as stage:
            status, reason = await _Walk(house, row, stage, address).run()
    except Exception as error:  # the person who tests must be told, whatever it is
        log.exception("test %d could not go on", rehearsal_id)
        status, reason = RehearsalStatus.failed, f"{type(error).__name__}: {error}"[:500]
    await asyncio.to_thread(_write, house.db, rehearsal_id, {"status": status, "reason": reason, "next_at": None, "next_set_at": None})


def _loaded(db: Database, rehearsal_id: int) -> tuple[Rehearsal, str]:
    with db.reading() as session:
        row = session.get(Rehearsal, rehearsal_id)
        if row is None:
            raise NotFound(f"There is no test {rehearsal_id}; begin one on the journey's page.")
        return row, session.get_one(User, row.user_id).email


def _write(db: Database, rehearsal_id: int, values: Mapping[str, object]) -> None:
    with db.writing() as session:
        row = session.get_one(Rehearsal, rehearsal_id)
        for name, value in {"seen_at": wall_now(), **values}.items():
            setattr(row, name, value)
        session.add(row)


class _Walk:
    """One test on its way."""

    def __init__(self, house: RunnerContext, row: Rehearsal, stage: Database, address: str) -> None:
        self._house, self._stage, self._id, self._row = house, stage, id_of(row), row
        self._clock = FixedClock(row.clock_at)
        self._began = wall_now()
        sender = replace(house.sender, base_url=f"{house.sender.base_url}/t/{row.key}")
        channels = {key: OwnInbox(house.mail, address, is_sms=not kind.html) for key, kind in CHANNELS.items()}
        self._world = EngineContext(stage, self._clock, channels, sender, f"test@{row.key}")

    async def run(self) -> tuple[RehearsalStatus, str]:
        """Return how it ended, and why when not by itself."""
        for _wake in range(MOST_WAKES):
            where = await asyncio.to_thread(self._where)
            rest = await wake(self._world, where.run_key)
            if rest.over:
                await self._stand_still()
                return (RehearsalStatus.failed, rest.text) if rest.failed else (RehearsalStatus.finished, "")
            where = await asyncio.to_thread(self._where)
            until = await self._wait(where)
            if until is None:
                await self._stand_still()
                return RehearsalStatus.stopped, "left_alone" if self._is_long() else ""
            self._clock.move_to(max(until, self._clock.now()))
        await self._stand_still()
        return RehearsalStatus.stopped, "too_many_wakes"

    def _where(self) -> Enrollment:
        with self._stage.reading() as session:
            return enrollment_on(session)

    async def _stand_still(self) -> None:
        await self._tell(clock_at=self._clock.now(), set_at=wall_now(), next_at=None, next_set_at=None)

    async def _wait(self, where: Enrollment) -> datetime | None:
        """Return to which moment the clock moves, after real seconds or when something happens before; None to stop."""
        wall, due_at = wall_now(), where.due_at
        ends = None if due_at is None else wall + self._real(where, due_at)
        await self._tell(clock_at=self._clock.now(), set_at=wall, next_at=due_at, next_set_at=ends, go_on_asked=False)
        told = wall
        while not self._is_long():
            row = await asyncio.to_thread(self._look)
            wall = wall_now()
            if row is None or row.stop_asked:
                return None
            if await asyncio.to_thread(self._is_news):
                return row.now(wall)
            if due_at is not None and (row.go_on_asked or (ends is not None and wall >= ends)):
                return due_at
            if (wall - told).total_seconds() > SIGN_OF_LIFE_SECONDS:
                told = wall
                await self._tell()
            await asyncio.sleep(TICK_SECONDS)
        return None

    def _real(self, where: Enrollment, due_at: datetime) -> timedelta:
        """Return how long the wait takes in real time: what waits for a machine waits as long as that needs."""
        span = max(due_at - self._clock.now(), timedelta(0))
        longest = LONGEST_RETRY if where.why == Why.retry else timedelta(seconds=self._row.seconds_per_wait)
        return min(span, longest)

    def _look(self) -> Rehearsal | None:
        with self._house.db.reading() as session:
            return session.get(Rehearsal, self._id)

    def _is_news(self) -> bool:
        with self._stage.reading() as session:
            return _has_news(session)

    def _is_long(self) -> bool:
        return wall_now() - self._began > LONGEST

    async def _tell(self, **values: object) -> None:
        await asyncio.to_thread(_write, self._house.db, self._id, values)


def _has_news(stage: Session) -> bool:
    row = enrollment_on(stage)
    return row.woken_at is not None and row.status is EnrollmentStatus.waiting
