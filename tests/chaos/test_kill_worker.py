"""The worker is killed -9 again and again while it works; nobody is lost and nobody gets a message twice."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import update
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

pytestmark = [pytest.mark.chaos, pytest.mark.prefect, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]

PEOPLE, KILLS = 24, 6
SPEED = 86_400.0  # one second is a day
STEPS = (
    "  - {id: first, send: email, message: one}\n  - {id: pause, wait: {for: 2 days}}\n"
    "  - {id: second, send: email, message: two}\n  - {id: again, wait: {for: 2 days}}\n  - {id: third, send: email, message: three}\n"
)
ORIGIN = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)


@contextmanager
def process(*command: str, env: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("ab") as out:
        started = subprocess.Popen([sys.executable, *command], env=env, stdout=out, stderr=out, start_new_session=True)
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()
            started.wait(timeout=10)


def _environment(folder: Path, db: Database, api: str, smtp_port: int, wall_origin: datetime) -> dict[str, str]:
    return {
        **os.environ,
        **SETTINGS,
        "PREFECT_HOME": str(folder / "prefect-home"),
        "PREFECT_API_URL": api,
        "DISTMARK_MODE": "test",
        "DISTMARK_DATA_DIR": str(folder),
        "DISTMARK_DATABASE_URL": db.engine.url.render_as_string(hide_password=False),
        "DISTMARK_PREFECT_API_URL": api,
        "DISTMARK_SMTP_PORT": str(smtp_port),
        "DISTMARK_SMTP_TLS": "off",
        "DISTMARK_POLL_SECONDS": "0.2",
        "DISTMARK_WORK_POOL": f"chaos-{folder.name}"[:60],
        "DISTMARK_SYSTEM_POOL": f"chaos-system-{folder.name}"[:60],
        "DISTMARK_CLOCK_SPEED": str(SPEED),
        "DISTMARK_CLOCK_WALL_ORIGIN": wall_origin.isoformat(),
        "DISTMARK_CLOCK_ORIGIN": ORIGIN.isoformat(),
    }


def _register(stage: Stage, api: str, pool: str) -> None:
    with temporary_settings({PREFECT_API_URL: api}), get_client(sync_client=True) as client:
        for name in (pool, pool.replace("chaos-", "chaos-system-", 1)):
            client.create_work_pool(WorkPoolCreate(name=name, type="journey"))
        deployment = client.create_deployment(
            flow_id=client.create_flow_from_name(f"flow-{pool}"),
            name="v1",
            work_pool_name=pool,
            work_queue_name="default",
            enforce_parameter_schema=False,
        )
    with stage.db.writing() as session:
        session.execute(update(JourneyVersion).values(deployment_id=str(deployment)))


def _live(db: Database) -> int:
    with db.reading() as session:
        return session.exec(select(func.count()).where(Enrollment.status != EnrollmentStatus.ended)).one()


def _completed(api: str, pool: str) -> int:
    body = {"work_pools": {"name": {"any_": [pool]}}, "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    return int(httpx2.post(f"{api}/flow_runs/count", json=body).json())


def test_killing_the_worker_again_and_again_loses_and_doubles_nothing(prefect_api: str, db: Database, tmp_path: Path) -> None:
    """D3, L1, L2"""
    smtp_port, store = free_port(), MailboxStore(tmp_path / "mailbox.sqlite3")
    wall_origin = wall_now()
    env = _environment(tmp_path, db, prefect_api, smtp_port, wall_origin)
    stage = Stage(db, FixedClock(ORIGIN))
    campaign = stage.journey(STEPS)
    people = [stage.contact() for _ in range(PEOPLE)]
    _register(stage, prefect_api, env["DISTMARK_WORK_POOL"])
    stage.clock.move_to(max(FastClock(SPEED, wall_origin, ORIGIN).now(), ORIGIN))
    stage.enrol(campaign, *people)
    mailbox = str(tmp_path / "mailbox.sqlite3")
    catcher = ("-m", "distmark.mailbox.catcher", "--host", "127.0.0.1", "--port", str(smtp_port), "--store", mailbox)

    chance = random.Random(20261124)
    with process(*catcher, env=env, log=tmp_path / "catcher.log"):
        for _kill in range(KILLS):
            with process("-m", "flows.serve", env=env, log=tmp_path / "worker.log") as worker:
                written = store.count()
                deadline = time.monotonic() + 40
                while store.count() == written and _live(db) and time.monotonic() < deadline:
                    time.sleep(0.01)  # it works now
                time.sleep(chance.uniform(0.0, 0.6))
                worker.send_signal(signal.SIGKILL)
        with process("-m", "flows.serve", env=env, log=tmp_path / "worker.log") as worker:
            deadline = time.monotonic() + 120
            while (_live(db) or _completed(prefect_api, env["DISTMARK_WORK_POOL"]) < PEOPLE) and time.monotonic() < deadline:
                time.sleep(0.2)
            worker.send_signal(signal.SIGTERM)
            worker.wait(timeout=30)

    log = (tmp_path / "worker.log").read_text()[-2000:]
    assert _live(db) == 0, log
    assert _completed(prefect_api, env["DISTMARK_WORK_POOL"]) == PEOPLE, log
    with db.reading() as session:
        rows = list(session.exec(select(Message).order_by(col(Message.id))))
    arrived = Counter(item.message_id for item in store.since(0))
    assert len(rows) == 3 * PEOPLE  # three messages each, none missing from the ledger
    assert not [header for header, times in arrived.items() if times > 1]
    assert {row.status for row in rows} <= ACCEPTED | {MessageStatus.uncertain}
    assert {row.header_id for row in rows if row.status in ACCEPTED} <= set(arrived)
    assert set(arrived) <= {row.header_id for row in rows}
