"""What chaos tests stand on: processes that can be killed -9 and started again, and what must hold of messages afterwards."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import update
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlmodel import col, func, select

from distmark.clock import FastClock, FixedClock, wall_now
from distmark.db import Database
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.journeys.table import JourneyVersion
from distmark.mailbox.store import MailboxStore
from distmark.messages.model import ACCEPTED, MessageStatus
from distmark.messages.table import Message
from tests.driver import Stage
from tests.prefect_server import SETTINGS, free_port
from tests.waiting import wait_until

SPEED = 86_400.0  # one second is a day
ORIGIN = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
STEPS = (
    "  - {id: first, send: email, message: one}\n  - {id: pause, wait: {for: 2 days}}\n"
    "  - {id: second, send: email, message: two}\n  - {id: again, wait: {for: 2 days}}\n  - {id: third, send: email, message: three}\n"
)
MAILS_EACH = 3
AWAY = (OperationalError, InterfaceError, httpx2.HTTPError)  # who asks while something is down gets one of these


def wait_through_outages(holds: Callable[[], bool], seconds: float, what: str, pause: float = 0.1) -> None:
    """Return when `holds` does; AssertionError naming `what` after so many seconds. What is down meanwhile does not hold yet."""

    def holds_now() -> bool:
        with suppress(*AWAY):
            return holds()
        return False

    wait_until(holds_now, seconds, what, pause)


@dataclass
class Process:
    """`python COMMAND` in a process group of its own, killed and started again at will; what it says goes to `log`."""

    command: Sequence[str]
    env: dict[str, str]
    log: Path
    starts: int = 0
    _running: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def start(self) -> None:
        """It runs; asked again, it is started only when it has ended."""
        if self._running is None or self._running.poll() is not None:
            with self.log.open("ab") as out:
                command = [sys.executable, *self.command]
                self._running = subprocess.Popen(command, env=self.env, stdout=out, stderr=out, start_new_session=True)
            self.starts += 1

    def kill(self) -> None:
        """It and its children are killed -9 and gone."""
        self._end(signal.SIGKILL, 10)

    def stop(self) -> None:
        """It is asked to end; killed when it has not within half a minute."""
        try:
            self._end(signal.SIGTERM, 30)
        except subprocess.TimeoutExpired:
            self.kill()

    def said(self) -> str:
        """Return the last of what it said."""
        return self.log.read_text(errors="replace")[-2000:]

    def said_how_often(self, word: str) -> int:
        """Return how many times `word` stands in what it said."""
        return self.log.read_text(errors="replace").count(word)

    def _end(self, signum: signal.Signals, seconds: float) -> None:
        if self._running is not None and self._running.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._running.pid, signum)
            self._running.wait(timeout=seconds)


@contextmanager
def process(*command: str, env: dict[str, str], log: Path) -> Iterator[Process]:
    """Run `python COMMAND` until the block ends; then it is killed."""
    made = Process(command, env, log)
    made.start()
    try:
        yield made
    finally:
        made.kill()


def environment(folder: Path, db: Database, api: str, **more: str) -> dict[str, str]:
    """Return the settings of every process of one installation, whose time runs `SPEED` times faster and begins now."""
    return {
        **os.environ,
        **SETTINGS,
        "PREFECT_HOME": str(folder / "prefect-home"),
        "PREFECT_API_URL": api,
        "DISTMARK_MODE": "test",
        "DISTMARK_DATA_DIR": str(folder),
        "DISTMARK_DATABASE_URL": db.engine.url.render_as_string(hide_password=False),
        "DISTMARK_PREFECT_API_URL": api,
        "DISTMARK_SMTP_PORT": str(free_port()),
        "DISTMARK_SMTP_TLS": "off",
        "DISTMARK_POLL_SECONDS": "0.2",
        "DISTMARK_WORK_POOL": f"chaos-{folder.name}"[:60],
        "DISTMARK_SYSTEM_POOL": f"chaos-system-{folder.name}"[:60],
        "DISTMARK_CLOCK_SPEED": str(SPEED),
        "DISTMARK_CLOCK_WALL_ORIGIN": wall_now().isoformat(),
        "DISTMARK_CLOCK_ORIGIN": ORIGIN.isoformat(),
        **more,
    }


@dataclass
class Installation:
    """A database with a journey of three mails, whoever is in it, and the settings that its processes are given."""

    folder: Path
    db: Database
    api: str
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = self.env or environment(self.folder, self.db, self.api)
        self.stage = Stage(self.db, FixedClock(ORIGIN))
        self.mailbox = self.folder / "mailbox.sqlite3"
        self.store = MailboxStore(self.mailbox)
        self.pool = self.env["DISTMARK_WORK_POOL"]

    def catcher(self) -> tuple[str, ...]:
        """Return the command of the mail server: the one of demos, which keeps every mail durably."""
        port = self.env["DISTMARK_SMTP_PORT"]
        return ("-m", "distmark.mailbox.catcher", "--host", "127.0.0.1", "--port", port, "--store", str(self.mailbox))

    def open(self, contacts_per_run: int = 1) -> None:
        """Open a campaign of the journey, and register it with Prefect in pools of its own."""
        self.campaign = self.stage.journey(STEPS, contacts_per_run=contacts_per_run)
        with temporary_settings({PREFECT_API_URL: self.api}), get_client(sync_client=True) as client:
            for name in (self.pool, self.env["DISTMARK_SYSTEM_POOL"]):
                client.create_work_pool(WorkPoolCreate(name=name, type="journey"))
            deployment = client.create_deployment(
                flow_id=client.create_flow_from_name(f"flow-{self.pool}"),
                name="v1",
                work_pool_name=self.pool,
                work_queue_name="default",
                enforce_parameter_schema=False,
            )
        with self.db.writing() as session:
            session.execute(update(JourneyVersion).values(deployment_id=str(deployment)))

    def enrol(self, many: int) -> None:
        """So many new people enter."""
        origin = datetime.fromisoformat(self.env["DISTMARK_CLOCK_WALL_ORIGIN"])
        people = [self.stage.contact() for _person in range(many)]
        self.stage.clock.move_to(max(FastClock(SPEED, origin, ORIGIN).now(), self.stage.clock.now()))
        self.stage.enrol(self.campaign, *people)

    def living(self) -> int:
        """Return how many have not ended."""
        with self.db.reading() as session:
            return session.exec(select(func.count()).where(Enrollment.status != EnrollmentStatus.ended)).one()

    def completed_runs(self) -> int:
        """Return how many runs are completed in Prefect."""
        body = {"work_pools": {"name": {"any_": [self.pool]}}, "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        return int(httpx2.post(f"{self.api}/flow_runs/count", json=body, timeout=30, trust_env=False).raise_for_status().json())

    def wait_for_mail(self, more_than: int, seconds: float = 40.0) -> None:
        """Return as soon as the mail server took a mail beyond so many: its sender may not know yet."""
        wait_through_outages(
            lambda: self.store.count() > more_than or not self.living(), seconds, f"A mail after the first {more_than}", pause=0.005
        )

    def wait_for_all(self, runs: int, worker: Process, seconds: float = 120.0) -> None:
        """Return when everybody has ended, and so many runs in Prefect; a worker that ends meanwhile is started again, as anywhere."""

        def over() -> bool:
            worker.start()
            return not self.living() and self.completed_runs() == runs

        try:
            wait_through_outages(over, seconds, f"The end of everybody and of {runs} runs", pause=0.3)
        except AssertionError as late:
            raise AssertionError(f"{late} {self.living()} live; the worker says: {worker.said()}") from None

    def check_nothing_lost_or_doubled(self, people: int) -> int:
        """Assert that everybody has their three messages, none came twice, and each is told truly; return how many are uncertain."""
        with self.db.reading() as session:
            rows = list(session.exec(select(Message).order_by(col(Message.id))))
        arrived = Counter(item.message_id for item in self.store.since(0))
        assert len(rows) == MAILS_EACH * people  # none missing from the ledger
        assert not [header for header, times in arrived.items() if times > 1]
        assert {row.status for row in rows} <= ACCEPTED | {MessageStatus.uncertain}
        assert {row.header_id for row in rows if row.status in ACCEPTED} <= set(arrived)
        assert set(arrived) <= {row.header_id for row in rows}
        return sum(row.status is MessageStatus.uncertain for row in rows)
