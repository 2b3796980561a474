"""The doctor names what is wrong, one thing at a time, and how to mend it."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from distmark.clock import wall_now
from distmark.commands import doctor
from distmark.commands.doctor import Diagnosis, State, examine
from distmark.db import Database
from distmark.enrollments.model import EnrollmentStatus
from distmark.mailbox.catcher import Catcher
from distmark.mailbox.store import MailboxStore
from distmark.settings import Mode, Settings
from tests.factories import make_enrollment, make_user, make_version


class StandIn(BaseHTTPRequestHandler):
    """Answers what the doctor asks a Prefect server, as `answers` says."""

    answers: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        body = json.dumps(self.answers.get(self.path)).encode()
        self.send_response(200 if self.path in self.answers else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.do_GET()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


def pool(name: str, *, paused: bool = False, silent_for: timedelta = timedelta()) -> dict[str, Any]:
    beat = (wall_now() - silent_for).isoformat()
    return {f"/api/work_pools/{name}": {"is_paused": paused}, f"/api/work_pools/{name}/workers/filter": [{"last_heartbeat_time": beat}]}


@pytest.fixture
def prefect() -> Iterator[str]:
    StandIn.answers = {"/api/admin/version": "3.8.8", **pool("journeys"), **pool("system")}
    server = HTTPServer(("127.0.0.1", 0), StandIn)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def smtp_port(tmp_path: Path) -> Iterator[int]:
    """A mail server that greets."""
    ready, stop, port = threading.Event(), asyncio.Event(), []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        store = MailboxStore(tmp_path / "mailbox.sqlite3")
        catcher = Catcher(store, port=0)
        port.append(await catcher.start())
        ready.set()
        await stop.wait()
        await catcher.stop()
        store.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield port[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture
def settings(db: Database, tmp_path: Path, prefect: str, smtp_port: int, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation in which everything is as it should be."""
    monkeypatch.setattr(doctor, "get_database", lambda: db)
    monkeypatch.setattr("distmark.migrations.require_newest", lambda database: None)
    with db.writing() as session:
        make_user(session)
    return Settings(
        _env_file=None,
        mode=Mode.test,
        data_dir=tmp_path / "data",
        database_url=db.engine.url.render_as_string(hide_password=False),
        prefect_api_url=prefect,
        smtp_port=smtp_port,
    )


Look = Callable[[Settings], dict[str, Diagnosis]]


def look(settings: Settings) -> dict[str, Diagnosis]:
    return {diagnosis.subject: diagnosis for diagnosis in examine(settings)}


def wrong(settings: Settings) -> dict[str, State]:
    return {subject: found.state for subject, found in look(settings).items() if found.state is not State.good}


def test_an_installation_that_is_well_has_nothing_to_mend(settings: Settings) -> None:
    found = look(settings)

    assert {diagnosis.state for diagnosis in found.values()} == {State.good}
    assert len(found) == 13
    assert all(diagnosis.found and not diagnosis.mend for diagnosis in found.values())


@pytest.mark.parametrize(
    ("changed", "subject", "state"),
    [
        ({"prefect_api_url": "http://127.0.0.1:9/api"}, "Prefect server", State.bad),
        ({"smtp_port": 9}, "Mail server", State.bad),
        ({"mode": Mode.production}, "Public address", State.warning),
        ({"mode": Mode.production, "public_url": "https://mail.example.com"}, "Sender", State.warning),
    ],
    ids=["no Prefect", "no mail server", "nobody can reach the links", "the sender is the default one"],
)
def test_what_is_wrong_outside_is_named_with_a_way_to_mend_it(
    settings: Settings, changed: dict[str, Any], subject: str, state: State
) -> None:
    found = look(settings.model_copy(update=changed))

    assert found[subject].state is state
    assert found[subject].mend


def test_a_pool_that_is_missing_paused_or_without_a_worker_is_named(settings: Settings) -> None:
    StandIn.answers = {"/api/admin/version": "3.8.8", **pool("journeys", paused=True), **pool("system", silent_for=timedelta(minutes=5))}

    assert wrong(settings) == {"Work pool journeys": State.warning, "Work pool system": State.bad}
    StandIn.answers = {"/api/admin/version": "3.8.8", **pool("system")}
    assert wrong(settings) == {"Work pool journeys": State.bad}
    assert "distmark init" in look(settings)["Work pool journeys"].mend


def test_a_folder_that_cannot_be_written_to_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")

    found = look(settings.model_copy(update={"data_dir": tmp_path / "a-file"}))

    assert found["Data folder"].state is State.bad
    assert "DISTMARK_DATA_DIR" in found["Data folder"].mend


def test_rows_that_stand_still_are_counted(db: Database, settings: Settings) -> None:
    now = settings.clock().now()
    with db.writing() as session:
        make_enrollment(session, due_at=now - timedelta(minutes=10), flow_run_id="11111111-2222-3333-4444-555555555555", entered_at=now)
        make_enrollment(session, due_at=now + timedelta(days=1), entered_at=now - timedelta(minutes=10))
        make_enrollment(session, status=EnrollmentStatus.parked, error="no such step", flow_run_id="x", entered_at=now)
        make_version(session, deployment_id=None)

    found = look(settings)

    assert wrong(settings) == dict.fromkeys(("Deployments", "Due enrollments", "Runs", "Failing steps"), State.bad)
    assert found["Due enrollments"].found.startswith("1 are late")
    assert found["Runs"].found.startswith("1 enrollments have no flow run")
    assert "no such step" in found["Failing steps"].found


def test_a_database_of_another_revision_is_named_and_nothing_more_is_asked_of_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distmark.errors import SettingsError

    def refuse(database: Database) -> None:
        raise SettingsError("The database is at revision none, but this program needs 0001; upgrade the database first.")

    monkeypatch.setattr("distmark.migrations.require_newest", refuse)

    found = look(settings)

    assert found["Database"].state is State.bad
    assert "distmark init" in found["Database"].mend
    assert "Runs" not in found
