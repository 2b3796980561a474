"""The doctor names what is wrong, one thing at a time, and how to mend it."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest
from pydantic import SecretStr
from sqlalchemy import event

from distmark.clock import wall_now
from distmark.commands import doctor
from distmark.commands.doctor import Diagnosis, State, examine
from distmark.db import Database
from distmark.enrollments.model import EnrollmentStatus
from distmark.integrations.webhooks import SIGNATURE, HttpWebhooks
from distmark.mailbox.catcher import Catcher
from distmark.mailbox.store import MailboxStore
from distmark.settings import Mode, Settings
from tests.factories import make_enrollment, make_user, make_version
from tests.smtp_faults import FaultySmtpServer


class StandIn(BaseHTTPRequestHandler):
    """Answers what the doctor asks a Prefect server, as `answers` says."""

    answers: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        body = json.dumps(self.answers.get(self.path)).encode()
        self.send_response(200 if self.path in self.answers else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_DELETE = do_GET

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.do_GET()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


WELL = {"/api/admin/version": "3.8.8", "/api/variables/": {}, f"/api/variables/name/{doctor.PREFECT_PROBE}": None}


def pool(name: str, *, paused: bool = False, silent_for: timedelta = timedelta()) -> dict[str, Any]:
    beat = (wall_now() - silent_for).isoformat()
    return {f"/api/work_pools/{name}": {"is_paused": paused}, f"/api/work_pools/{name}/workers/filter": [{"last_heartbeat_time": beat}]}


@pytest.fixture
def prefect() -> Iterator[str]:
    StandIn.answers = {**WELL, **pool("journeys"), **pool("system")}
    server = HTTPServer(("127.0.0.1", 0), StandIn)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()
    thread.join()


class MailServer(Protocol):
    async def start(self) -> int: ...
    async def stop(self) -> None: ...


@contextmanager
def serving(make: Callable[[], MailServer]) -> Iterator[int]:
    """Run a mail server in a thread, and give its port."""
    ready, stop, port = threading.Event(), asyncio.Event(), []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = make()
        port.append(await server.start())
        ready.set()
        await stop.wait()
        await server.stop()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield port[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture
def smtp_port(tmp_path: Path) -> Iterator[int]:
    """A mail server that takes everything."""
    store = MailboxStore(tmp_path / "mailbox.sqlite3")
    with serving(lambda: Catcher(store, port=0)) as port:
        yield port
    store.close()


@pytest.fixture
def guarded_port() -> Iterator[int]:
    """A mail server that asks the user "brand" for the password "right"."""
    with serving(lambda: FaultySmtpServer(password="right")) as port:
        yield port


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
    assert len(found) == 19
    assert all(diagnosis.found and not diagnosis.mend for diagnosis in found.values())


@pytest.mark.parametrize(
    ("changed", "subject", "state"),
    [
        ({"prefect_api_url": "http://127.0.0.1:9/api"}, "Prefect server", State.bad),
        ({"smtp_port": 9}, "Mail server", State.bad),
        ({"smtp_tls": "starttls"}, "Mail server", State.bad),
        ({"smtp_tls": "sometimes"}, "Mail server", State.bad),
        ({"smtp_tls": "off", "smtp_host": "192.0.2.7", "smtp_username": "brand"}, "Mail password", State.warning),
        ({"smtp_password": SecretStr("right")}, "Mail password", State.warning),
        ({"public_url": "https://mail.example.com"}, "Cookies", State.warning),
        ({"secure_cookies": True}, "Cookies", State.bad),
        ({"webhook_secrets": {"crm": SecretStr("")}}, "Webhook signatures", State.bad),
        ({"audience_secret": "crm"}, "Webhook signatures", State.bad),
        ({"alarm_webhook": "http://127.0.0.1:9/alarms"}, "Receiver of DISTMARK_ALARM_WEBHOOK", State.bad),
        ({"audience_url": "http://"}, "Receiver of DISTMARK_AUDIENCE_URL", State.bad),
        ({"mode": Mode.production}, "Public address", State.warning),
        ({"mode": Mode.production, "public_url": "https://mail.example.com"}, "Sender", State.warning),
    ],
    ids=[
        "no Prefect",
        "no mail server",
        "no STARTTLS",
        "no such TLS",
        "password in the clear",
        "password of nobody",
        "cookies over http",
        "cookies that are never sent",
        "an empty key",
        "no such key",
        "no receiver of alarms",
        "no address of a receiver",
        "nobody can reach the links",
        "the sender is the default one",
    ],
)
def test_what_is_wrong_outside_is_named_with_a_way_to_mend_it(
    settings: Settings, changed: dict[str, Any], subject: str, state: State
) -> None:
    found = look(settings.model_copy(update={"smtp_timeout_seconds": 1.0, **changed}))

    assert found[subject].state is state
    assert found[subject].mend


def test_a_pool_that_is_missing_paused_or_without_a_worker_is_named(settings: Settings) -> None:
    StandIn.answers = {**WELL, **pool("journeys", paused=True), **pool("system", silent_for=timedelta(minutes=5))}

    assert wrong(settings) == {"Work pool journeys": State.warning, "Work pool system": State.bad}
    StandIn.answers = {**WELL, **pool("system")}
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


def with_login(settings: Settings, port: int, password: str) -> Settings:
    return settings.model_copy(update={"smtp_port": port, "smtp_username": "brand", "smtp_password": SecretStr(password)})


def test_mail_server_is_asked_with_the_login_that_messages_use(settings: Settings, guarded_port: int) -> None:
    found = look(with_login(settings, guarded_port, "right"))["Mail server"]

    assert found.state is State.good
    assert "signed in as brand" in found.found


def test_login_that_the_mail_server_refuses_names_its_settings(settings: Settings, guarded_port: int) -> None:
    found = look(with_login(settings, guarded_port, "wrong"))["Mail server"]

    assert found.state is State.bad
    assert "535" in found.found
    assert "DISTMARK_SMTP_USERNAME and DISTMARK_SMTP_PASSWORD" in found.mend
    assert "wrong" not in found.found + found.mend


def test_login_that_the_mail_server_does_not_know_names_its_settings(settings: Settings, smtp_port: int) -> None:
    assert "DISTMARK_SMTP_USERNAME" in look(with_login(settings, smtp_port, "right"))["Mail server"].mend


def test_prefect_that_answers_and_takes_no_change_is_named(settings: Settings) -> None:
    StandIn.answers = {key: answer for key, answer in StandIn.answers.items() if "variables" not in key}

    assert wrong(settings) == {"Prefect's database": State.bad}


def test_database_that_answers_and_takes_no_row_is_named(db: Database, settings: Settings) -> None:
    def read_only(connection: Any, record: object) -> None:
        connection.execute("PRAGMA query_only = ON" if db.is_sqlite else "SET default_transaction_read_only = on")
        if not db.is_sqlite:
            connection.commit()

    event.listen(db.engine, "connect", read_only)
    db.engine.dispose()
    found = look(settings)["Database"]
    event.remove(db.engine, "connect", read_only)
    db.engine.dispose()

    assert (found.state, "takes no row" in found.found) == (State.bad, True)


def test_each_key_of_webhooks_signs_a_call_that_arrives(settings: Settings) -> None:
    keys = {"crm": SecretStr("one"), "shop": SecretStr("鍵")}

    found = look(settings.model_copy(update={"webhook_secrets": keys}))["Webhook signatures"]

    assert (found.state, found.found.endswith("with crm, shop")) == (State.good, True)


def test_signature_that_a_receiver_would_refuse_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpWebhooks, "_headers", lambda webhooks, call, body: {SIGNATURE: f"t={wall_now():%s},v1={'0' * 64}"})

    assert wrong(settings) == {"Webhook signatures": State.bad}


def test_receivers_that_answer_are_good(settings: Settings) -> None:
    found = look(settings.model_copy(update={"alarm_webhook": settings.prefect_api_url + "/alarms?token=hidden"}))

    assert found["Receiver of DISTMARK_ALARM_WEBHOOK"].state is State.warning  # the stand-in knows no HEAD: 501
    assert "hidden" not in str(found)


def test_data_that_other_users_may_read_is_named(settings: Settings) -> None:
    settings.data_dir.mkdir(mode=0o755)
    settings.data_dir.chmod(0o755)
    (settings.data_dir / "secret.key").write_text("secret")
    (settings.data_dir / "secret.key").chmod(0o644)

    found = look(settings)["Readers of the data"]

    assert (found.state, "secret.key" in found.found, "chmod" in found.mend) == (State.warning, True, True)
    settings.data_dir.chmod(0o700)
    assert look(settings)["Readers of the data"].state is State.good
