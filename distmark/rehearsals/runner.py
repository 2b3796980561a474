"""The runner of rehearsals: real wakes on the rehearsal's own clock, with a few real seconds for each wait. Imports no Prefect.

Each rehearsal is a task of one event loop in a thread of the web process. When that process ends, its rehearsals are interrupted.
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
from distmark.rehearsals.sandbox import enrollment_in, open_sandbox
from distmark.rehearsals.table import Rehearsal, RehearsalStatus
from distmark.settings import Settings
from distmark.sql import id_of

log = logging.getLogger("distmark.rehearse")

TICK_SECONDS = 0.25
SIGN_OF_LIFE_SECONDS = 5.0
LONGEST_RETRY = timedelta(seconds=30)  # in real time, until a failed delivery is tried again
LONGEST_RUN = timedelta(hours=2)  # of real time
MOST_WAKES = 300
MARK = {"ja": "【テスト】", "en": "[Test] "}
MARK_SMS = {"ja": "【テスト・SMS】", "en": "[Test, text message] "}
LONGEST_SMS_SUBJECT = 40


@dataclass(frozen=True, slots=True)
class OwnInbox:
    """A channel that sends every message to one mail address, marked as a test and dated now. Text messages arrive there as mails."""

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
        """Do nothing: the mail channel is closed by its owner."""


def _first_words(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_SMS_SUBJECT else line[:LONGEST_SMS_SUBJECT] + "…"


@dataclass(frozen=True, slots=True)
class RunnerContext:
    """The parts that rehearsals share: the installation's database, the folder of the sandboxes, the mail channel and the sender."""

    db: Database
    data_dir: Path
    mail: Channel
    sender: Sender


class RehearsalRunner:
    """Runs rehearsals in a thread of this process."""

    def __init__(self, settings: Settings, db: Database, *, mail: Callable[[], Channel] | None = None) -> None:
        self._settings, self._db = settings, db
        self._mail = mail or (lambda: make_channels(settings)["email"])
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._context: RunnerContext | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, rehearsal_id: int) -> None:
        """Start the rehearsal in the thread, and return at once."""
        loop = self._running()
        loop.call_soon_threadsafe(self._walk, rehearsal_id)

    def close(self) -> None:
        """Stop running rehearsals where they are. They are shown as interrupted."""
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
        if self._context is None:
            settings = self._settings
            sender = Sender(settings.base_url, settings.mail_from, settings.mail_domain)
            self._context = RunnerContext(self._db, settings.data_dir, self._mail(), sender)
        task = asyncio.ensure_future(rehearse(self._context, rehearsal_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._context is not None:
            await self._context.mail.close()
            self._context = None


async def rehearse(context: RunnerContext, rehearsal_id: int) -> None:
    """Run the rehearsal until its journey has ended, somebody stops it, or `LONGEST_RUN` has passed."""
    try:
        row, address = await asyncio.to_thread(_loaded, context.db, rehearsal_id)
        with open_sandbox(context.data_dir, row.key) as sandbox:
            status, reason = await _RehearsalRun(context, row, sandbox, address).run()
    except Exception as error:  # any fault, so that the rehearsal's page shows it
        log.exception("test %d could not go on", rehearsal_id)
        status, reason = RehearsalStatus.failed, f"{type(error).__name__}: {error}"[:500]
    await asyncio.to_thread(_write, context.db, rehearsal_id, {"status": status, "reason": reason, "next_at": None, "next_set_at": None})


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


class _RehearsalRun:
    """One rehearsal being run."""

    def __init__(self, context: RunnerContext, row: Rehearsal, sandbox: Database, address: str) -> None:
        self._context, self._sandbox, self._id, self._row = context, sandbox, id_of(row), row
        self._clock = FixedClock(row.clock_at)
        self._began = wall_now()
        sender = replace(context.sender, base_url=f"{context.sender.base_url}/t/{row.key}")
        channels = {key: OwnInbox(context.mail, address, is_sms=not kind.html) for key, kind in CHANNELS.items()}
        self._engine = EngineContext(sandbox, self._clock, channels, sender, f"test@{row.key}")

    async def run(self) -> tuple[RehearsalStatus, str]:
        """Wake the journey again and again; return the final status, and the reason when the journey did not end by itself."""
        for _wake in range(MOST_WAKES):
            enrollment = await asyncio.to_thread(self._enrollment)
            result = await wake(self._engine, enrollment.run_key)
            if result.finished:
                await self._stop_clock()
                return (RehearsalStatus.failed, result.text) if result.failed else (RehearsalStatus.finished, "")
            enrollment = await asyncio.to_thread(self._enrollment)
            until = await self._wait(enrollment)
            if until is None:
                await self._stop_clock()
                return RehearsalStatus.stopped, "left_alone" if self._is_too_long() else ""
            self._clock.move_to(max(until, self._clock.now()))
        await self._stop_clock()
        return RehearsalStatus.stopped, "too_many_wakes"

    def _enrollment(self) -> Enrollment:
        with self._sandbox.reading() as session:
            return enrollment_in(session)

    async def _stop_clock(self) -> None:
        await self._update(clock_at=self._clock.now(), set_at=wall_now(), next_at=None, next_set_at=None)

    async def _wait(self, enrollment: Enrollment) -> datetime | None:
        """Wait a few real seconds, or until an event wakes the journey; return the time to move the clock to, or None to stop."""
        wall, due_at = wall_now(), enrollment.due_at
        ends = None if due_at is None else wall + self._real_span(enrollment, due_at)
        await self._update(clock_at=self._clock.now(), set_at=wall, next_at=due_at, next_set_at=ends, go_on_asked=False)
        written_at = wall
        while not self._is_too_long():
            row = await asyncio.to_thread(self._reload)
            wall = wall_now()
            if row is None or row.stop_asked:
                return None
            if await asyncio.to_thread(self._has_wakeup):
                return row.now(wall)
            if due_at is not None and (row.go_on_asked or (ends is not None and wall >= ends)):
                return due_at
            if (wall - written_at).total_seconds() > SIGN_OF_LIFE_SECONDS:
                written_at = wall
                await self._update()
            await asyncio.sleep(TICK_SECONDS)
        return None

    def _real_span(self, enrollment: Enrollment, due_at: datetime) -> timedelta:
        """Return the length of the wait in real time. A retry takes its full time up to `LONGEST_RETRY`, since the other side needs it."""
        span = max(due_at - self._clock.now(), timedelta(0))
        longest = LONGEST_RETRY if enrollment.why == Why.retry else timedelta(seconds=self._row.seconds_per_wait)
        return min(span, longest)

    def _reload(self) -> Rehearsal | None:
        with self._context.db.reading() as session:
            return session.get(Rehearsal, self._id)

    def _has_wakeup(self) -> bool:
        with self._sandbox.reading() as session:
            return _is_woken(session)

    def _is_too_long(self) -> bool:
        return wall_now() - self._began > LONGEST_RUN

    async def _update(self, **values: object) -> None:
        await asyncio.to_thread(_write, self._context.db, self._id, values)


def _is_woken(sandbox: Session) -> bool:
    row = enrollment_in(sandbox)
    return row.woken_at is not None and row.status is EnrollmentStatus.waiting
