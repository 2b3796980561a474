"""A real Prefect server for tests: its own process, its own folder, gone when the test session ends.

Each test process starts one in the background while its first tests run. Its database is copied from a template that Prefect's migrations
made once on this machine: they take more than half of a server's start.
"""

import fcntl
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = ROOT / ".pytest_cache" / "prefect"
SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_API_DEFAULT_LIMIT": "1000",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
}
START_SECONDS = 120


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def prefect_server(home: Path, database_url: str = "", port: int = 0) -> Iterator[str]:
    """Run a Prefect server until the block ends and give its API address."""
    if not database_url:
        copy_template(home)
    server = PrefectServer(home, database_url, port)
    try:
        server.wait_until_healthy()
        yield server.url
    finally:
        server.stop()


@dataclass
class PrefectServer:
    """A server process that was started on the database in `home`, or at `database_url`."""

    home: Path
    database_url: str = ""
    port: int = 0
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.port = self.port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        env = {**os.environ, **SETTINGS, "PREFECT_HOME": str(self.home), "PREFECT_API_URL": self.url, "PREFECT_UI_API_URL": self.url}
        if self.database_url:
            env["PREFECT_API_DATABASE_CONNECTION_URL"] = self.database_url
        self.home.mkdir(parents=True, exist_ok=True)
        # Dies with this process even if that is killed: nothing is left running.
        guard = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        command = [*guard, sys.executable, "-m", "flows.server", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)

    def wait_until_healthy(self) -> None:
        """Return when the server answers; RuntimeError with its log when it ends before, or takes two minutes."""
        with suppress(AssertionError):
            wait_until(lambda: self._answers() or self.process.poll() is not None, START_SECONDS, pause=0.1)
        if not self._answers():
            raise RuntimeError(f"The Prefect server did not start:\n{(self.home / 'server.log').read_text()[-3000:]}")

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def stop(self) -> None:
        """End the server, by force when it has not ended after a quarter of a minute."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=5)


def copy_template(home: Path) -> None:
    """Put a migrated database into `home`, unless one is there; the first call on a machine makes the template."""
    if (home / "prefect.db").exists():
        return
    home.mkdir(parents=True, exist_ok=True)
    TEMPLATES.mkdir(parents=True, exist_ok=True)
    template = TEMPLATES / f"prefect-{version('prefect')}.sqlite3"
    with (TEMPLATES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other test processes wait for it
        if not template.exists():
            _make_template(template)
    shutil.copy(template, home / "prefect.db")


def _make_template(template: Path) -> None:
    folder = Path(mkdtemp(prefix="distmark-prefect-"))
    try:
        server = PrefectServer(folder)
        try:
            server.wait_until_healthy()
        finally:
            server.stop()
        with closing(sqlite3.connect(folder / "prefect.db")) as database:
            database.execute("VACUUM INTO ?", (str(template.with_suffix(".new")),))
        template.with_suffix(".new").rename(template)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class BackgroundServer:
    """A Prefect server that begins to start at once; `url()` waits until it answers."""

    def __init__(self) -> None:
        self._folder = Path(mkdtemp(prefix="distmark-prefect-"))
        self._pool = ThreadPoolExecutor(1)
        self._starting: Future[PrefectServer] = self._pool.submit(self._start)

    def _start(self) -> PrefectServer:
        copy_template(self._folder)
        return PrefectServer(self._folder)

    def url(self) -> str:
        """Return the API address of the server as soon as it answers."""
        server = self._starting.result()
        server.wait_until_healthy()
        return server.url

    def stop(self) -> None:
        """End the server and remove its folder."""
        with suppress(Exception):
            self._starting.result().stop()
        self._pool.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_api(request: pytest.FixtureRequest) -> Iterator[str]:
    """The API address of the Prefect server of this test process, which lives as long as the test session."""
    server: BackgroundServer = request.config.stash[SERVER]
    before = os.environ.get("PREFECT_API_URL")
    os.environ["PREFECT_API_URL"] = server.url()
    try:
        yield os.environ["PREFECT_API_URL"]
    finally:
        if before is None:
            del os.environ["PREFECT_API_URL"]
        else:
            os.environ["PREFECT_API_URL"] = before


SERVER = pytest.StashKey[BackgroundServer]()


def start_if_needed(session: pytest.Session) -> None:
    """Begin to start the server when a collected test asks for it."""
    if any("prefect_api" in getattr(item, "fixturenames", ()) for item in session.items) and not session.config.option.collectonly:
        session.config.stash[SERVER] = BackgroundServer()


def stop_if_started(config: pytest.Config) -> None:
    """End the server if one was started."""
    if SERVER in config.stash:
        config.stash[SERVER].stop()
        del config.stash[SERVER]
