"""All processes of one machine, each as its real self: started in order, watched, started again when they die, stopped together.

What the next start needs stands in the data folder: the ports (links in old mail keep working), the running processes (so that leftovers of
a killed machine can be ended), the settings handed to the processes (so that other commands find them), and how far virtual time got.
"""

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import httpx2
from pydantic import SecretStr
from sqlalchemy import make_url

from distmark.clock import Clock, wall_now
from distmark.errors import DistmarkError, Refused, SettingsError
from distmark.machine.processes import Mark, choose_port, end_groups, is_the_same, mark_of, start_process
from distmark.settings import ROOT, Mode, Settings

STATE_FILE = "machine.json"
CLOCK_FILE = "clock.json"
LOCK_FILE = "machine.lock"
MAILBOX_FILE = "mailbox.sqlite3"
START_SECONDS = 120.0
STOP_SECONDS = {"worker": 12.0, "web": 5.0, "catcher": 3.0, "server": 8.0}
FIRST_PAUSE_SECONDS = 0.5  # doubled with every death in a row
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0  # a process that lived this long starts again at once when it dies
TOKYO = ZoneInfo("Asia/Tokyo")

# PREFECT.md of the design names each; the dashboard, the events and the retention stay on.
PREFECT_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_API_DEFAULT_LIMIT": "1000",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P1D",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_WORKER_PREFETCH_SECONDS": "0",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # a server that is away is waited for, never replaced by one of its own
}
# Without statistics, which Prefect never gathers, SQLite would read every sleeping run at each poll.
POLL_INDEX = "CREATE INDEX IF NOT EXISTS ix_flow_run__distmark_poll ON flow_run (state_type, next_scheduled_start_time)"


# In a process of its own: importing Prefect here would cost the watcher 100 MB for as long as it lives.
REGISTER = """
import sys
from deployments.register import register_system_flows, register_version
from distmark.db import get_database
register_system_flows()
for version_id in sys.argv[1:]:
    register_version(get_database(), int(version_id))
"""


class MachineStopped(DistmarkError):
    """Somebody asked the machine to stop while it was starting or at work."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process: how it is started, how one knows that it answers, and where it can be reached."""

    name: str
    command: tuple[str, ...]
    answers: Callable[[], bool]
    address: str = ""


@dataclass(slots=True)
class Child:
    """A part's process as it runs now."""

    part: Part
    process: "subprocess.Popen[bytes]"
    started: float
    pause: float = FIRST_PAUSE_SECONDS
    restarts: int = 0
    due: float | None = None  # when it is started again


@dataclass(frozen=True, slots=True)
class News:
    """Something about one process that a person should see."""

    part: str
    state: str  # starting | ready | ended | restarting | stopping | stopped
    detail: str = ""


@dataclass
class Machine:
    """The processes of one installation on this machine. `speed` above 1 runs virtual time; only a demo may."""

    settings: Settings
    speed: float = 1.0
    afresh: bool = False  # forget everything in the data folder first
    tell: Callable[[News], None] = lambda news: None
    children: dict[str, Child] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    stop_asked: threading.Event = field(default_factory=threading.Event)
    signal_received: int | None = None
    _lock_file: IO[str] | None = None
    _watcher: threading.Thread | None = None
    _wanted: dict[str, int] = field(default_factory=dict)
    _launched_at: dict[str, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.data_dir = self.settings.data_dir.absolute()
        self.is_demo = self.settings.mode is not Mode.production

    # --- what happens, in order -------------------------------------------------------------------------------------------------------

    def start(self, meanwhile: Callable[[Settings], Sequence[int]] = lambda settings: ()) -> None:
        """Every process runs and answers. `meanwhile` is called while the Prefect server starts, with the settings everybody was given; it
        returns the journey versions to register once the server answers.

        Raises Refused when this data folder's machine runs already, MachineStopped when it was told to stop.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._end_leftovers()
            if self.afresh:
                self._empty()
            self._choose()
            self._launch("server")
            version_ids = meanwhile(self.settings)
            for name in ("catcher", "web") if self.is_demo else ("web",):
                self._launch(name)
            self._wait_for(*self.children)
            self._add_poll_index()
            self.run_once("registration", [sys.executable, "-c", REGISTER, *map(str, version_ids)])
            self._launch("worker")
            self._wait_for("worker")
        except BaseException:
            self.stop()
            raise
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Every process is gone, the last started first. Safe to repeat."""
        self.stop_asked.set()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(10)
        for name in reversed(list(self.children)):
            child = self.children[name]
            self.tell(News(name, "stopping"))
            end_groups([child.process.pid], STOP_SECONDS[name], _is_over(child.process))
            del self.children[name]
            self.tell(News(name, "stopped"))
        if self._lock_file is not None:
            self._write_state()
            self._lock_file.close()
            self._lock_file = None

    @contextmanager
    def obeying_signals(self) -> Iterator[None]:
        """Within, Ctrl-C and SIGTERM ask the machine to stop; a second one kills at once."""

        def on_signal(signum: int, frame: object) -> None:
            if self.stop_asked.is_set():
                for child in list(self.children.values()):
                    with suppress(ProcessLookupError):
                        os.killpg(child.process.pid, signal.SIGKILL)
            self.signal_received = signum
            self.stop_asked.set()

        before = {signum: signal.signal(signum, on_signal) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def wait(self) -> None:
        """Return when the machine was told to stop."""
        while not self.stop_asked.wait(0.5):
            pass

    def check_stop(self) -> None:
        """Raise MachineStopped when somebody asked to stop."""
        if self.stop_asked.is_set():
            raise MachineStopped("The machine was told to stop.")

    @property
    def clock(self) -> Clock:
        return self.settings.clock()

    # --- one at a time ----------------------------------------------------------------------------------------------------------------

    def _take_lock(self) -> None:
        file = (self.data_dir / LOCK_FILE).open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            other = read_state(self.data_dir).get("pid", "?")
            raise Refused(
                f"The folder {self.data_dir} is in use by a running distmark (process {other}); stop that one with Ctrl-C, "
                "or give DISTMARK_DATA_DIR another folder."
            ) from None
        self._lock_file = file

    def _end_leftovers(self) -> None:
        """End the processes of a machine that was killed: only those that carry exactly the marks it wrote down."""
        marks = [Mark(**each) for each in read_state(self.data_dir).get("processes", {}).values()]
        ours = [mark.pid for mark in marks if is_the_same(mark)]
        if ours:
            self.tell(News("leftovers", "stopping", ", ".join(map(str, ours))))
            end_groups(ours, 10.0)
            self.tell(News("leftovers", "stopped"))

    def _empty(self) -> None:
        for path in self.data_dir.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK_FILE:
                path.unlink()

    # --- ports, settings, time --------------------------------------------------------------------------------------------------------

    def _choose(self) -> None:
        state = read_state(self.data_dir)
        if state and state.get("mode", self.settings.mode) != self.settings.mode:
            raise SettingsError(
                f"The folder {self.data_dir} holds data of mode {state['mode']}, not {self.settings.mode}; "
                "give DISTMARK_DATA_DIR another folder."
            )
        wanted = {"web": self.settings.port, "server": urlsplit(self.settings.prefect_api_url).port or 4200}
        if self.is_demo:
            wanted["catcher"] = self.settings.smtp_port
        for name, port in wanted.items():
            before = state.get("ports", {}).get(name, {})
            first = [before["taken"]] if before.get("wanted") == port else []
            self.ports[name] = choose_port(self.settings.host, [*first, port], self.ports.values())
        self._wanted = wanted
        self.settings = self._settings_for_all()
        self._write_state()

    def _settings_for_all(self) -> Settings:
        changes: dict[str, Any] = {
            "data_dir": self.data_dir,
            "port": self.ports["web"],
            "prefect_api_url": f"http://{self.settings.host}:{self.ports['server']}/api",
        }
        if self.is_demo:
            changes |= {"smtp_host": self.settings.host, "smtp_port": self.ports["catcher"], "smtp_tls": "off", "smtp_username": ""}
        if self.speed != 1.0:
            changes |= {"clock_speed": self.speed, "clock_origin": resume_time(self.data_dir), "clock_wall_origin": wall_now()}
        return self.settings.model_copy(update=changes)

    def environment(self) -> dict[str, str]:
        """Return the environment of every process: all our settings spelled out, so that no file nearby says otherwise."""
        home = self.data_dir / "prefect"
        inherited = {name: value for name, value in os.environ.items() if not (self.is_demo and name.startswith("PREFECT_"))}
        prefect = {
            **PREFECT_SETTINGS,
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.settings.prefect_api_url,
            "PREFECT_UI_API_URL": self.settings.prefect_api_url,
            "PREFECT_API_DATABASE_CONNECTION_URL": prefect_database(self.settings),
        }
        return {**inherited, **prefect, **as_environment(self.settings), "PYTHONUNBUFFERED": "1"}

    # --- processes --------------------------------------------------------------------------------------------------------------------

    def _part(self, name: str) -> Part:
        host, python = self.settings.host, sys.executable
        if name == "server":
            port, url = self.ports["server"], self.settings.prefect_api_url
            command: tuple[str, ...] = (python, "-m", "flows.server", "--host", host, "--port", str(port))
            return Part(name, command, lambda: answers(f"{url}/health") and self._server_is_ours(), self.settings.dashboard_url)
        if name == "catcher":
            port = self.ports["catcher"]
            store = str(self.data_dir / MAILBOX_FILE)
            command = (python, "-m", "distmark.mailbox.catcher", "--host", host, "--port", str(port), "--store", store)
            return Part(name, command, lambda: greets(host, port), f"{host}:{port}")
        if name == "web":
            url = f"http://{host}:{self.ports['web']}"
            return Part(name, (python, "-m", "distmark.web.serve"), lambda: answers(f"{url}/healthz"), url)
        return Part(name, (python, "-m", "flows.serve"), self._worker_is_heard)

    def _worker_is_heard(self) -> bool:
        pool = f"{self.settings.prefect_api_url}/work_pools/{self.settings.work_pool}/workers/filter"
        with suppress(httpx2.HTTPError):
            told = httpx2.post(pool, json={}, timeout=5, trust_env=False)
            started = self._launched_at.get("worker", wall_now())
            beats = [worker.get("last_heartbeat_time") for worker in told.json()] if told.status_code == 200 else []
            return any(beat and datetime.fromisoformat(beat) >= started for beat in beats)
        return False

    def _launch(self, name: str) -> None:
        self.check_stop()
        part = self._part(name)
        self.tell(News(name, "starting", part.address))
        self.children[name] = self._spawn(part)
        self._write_state()

    def _spawn(self, part: Part) -> Child:
        self._launched_at[part.name] = wall_now()
        process = start_process(part.command, self.environment(), self.log_of(part.name), ROOT)
        return Child(part, process, time.monotonic())

    def log_of(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"

    def _wait_for(self, *names: str) -> None:
        """Return when all of them answer. One that dies meanwhile is an error: its log is named and its last words are shown."""
        waiting = list(names)
        until = time.monotonic() + START_SECONDS
        while waiting:
            self.check_stop()
            for child in self.children.values():
                self._refuse_dead(child)
            for name in [name for name in waiting if self.children[name].part.answers()]:
                waiting.remove(name)
                self.tell(News(name, "ready", self.children[name].part.address))
            if waiting and time.monotonic() > until:
                raise SettingsError(f"The {waiting[0]} did not answer within {START_SECONDS:.0f} seconds; see {self.log_of(waiting[0])}.")
            time.sleep(0.1 if waiting else 0)

    def _refuse_dead(self, child: Child) -> None:
        code, name = child.process.poll(), child.part.name
        if code is not None:
            raise SettingsError(f"The {name} {_how(code)} as it started; {self.log_of(name)} ends with: {self._last_words(name)}")

    def _last_words(self, name: str) -> str:
        lines = [line for line in self.log_of(name).read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(lines[-3:])

    def _server_is_ours(self) -> bool:
        """Whether our server has made its tables: another's may have taken the port a moment before ours, and answers too."""
        url = make_url(prefect_database(self.settings))
        if url.get_backend_name() != "sqlite" or not url.database:
            return True
        if not Path(url.database).exists():
            return False
        with sqlite3.connect(url.database, timeout=60) as connection:
            return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'flow_run'").fetchone() is not None

    def _add_poll_index(self) -> None:
        url = make_url(prefect_database(self.settings))
        if url.get_backend_name() == "sqlite" and url.database:
            with sqlite3.connect(url.database, timeout=60) as connection:
                connection.execute(POLL_INDEX)

    def run_once(self, name: str, command: list[str]) -> None:
        """Run a short command of ours with everybody's settings; raises SettingsError with its last words when it fails."""
        process = start_process(command, self.environment(), self.log_of(name), ROOT)
        while process.poll() is None:
            if self.stop_asked.wait(0.05):
                end_groups([process.pid], 3.0, _is_over(process))
                self.check_stop()
        if process.returncode:
            raise SettingsError(f"The {name} ended with code {process.returncode}; {self.log_of(name)} ends with: {self._last_words(name)}")

    # --- watching ---------------------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self.stop_asked.wait(0.5):
            self._keep_time()
            for name, child in list(self.children.items()):
                self._look_after(name, child)

    def _look_after(self, name: str, child: Child) -> None:
        now = time.monotonic()
        if child.due is None and (code := child.process.poll()) is not None:
            lived_long = now - child.started > STEADY_SECONDS
            child.pause = min((FIRST_PAUSE_SECONDS if lived_long else child.pause) * 2, LONGEST_PAUSE_SECONDS)
            child.due = now + child.pause
            self.tell(News(name, "ended", f"{_how(code)}; starts again in {child.pause:.0f} s"))
        elif child.due is not None and now >= child.due:
            fresh = self._spawn(child.part)
            fresh.pause, fresh.restarts = child.pause, child.restarts + 1
            self.children[name] = fresh
            self._write_state()
            self.tell(News(name, "restarting", child.part.address))

    def _keep_time(self) -> None:
        if self.speed != 1.0:
            write_json(self.data_dir / CLOCK_FILE, {"virtual": self.clock.now().isoformat()})

    def _write_state(self) -> None:
        marks = {name: mark for name, child in self.children.items() if (mark := mark_of(child.process.pid)) is not None}
        write_json(
            self.data_dir / STATE_FILE,
            {
                "pid": os.getpid(),
                "mode": self.settings.mode.value,
                "ports": {name: {"wanted": self._wanted[name], "taken": port} for name, port in self.ports.items()},
                "processes": {name: {"pid": mark.pid, "born": mark.born, "command": mark.command} for name, mark in marks.items()},
                "environment": as_environment(self.settings, secrets=False),
            },
        )


def read_state(data_dir: Path) -> dict[str, Any]:
    """Return what the machine of this folder wrote down last; empty when it never ran."""
    return read_json(data_dir / STATE_FILE)


def is_running(data_dir: Path) -> bool:
    """Say whether the machine of this folder runs."""
    path = data_dir / LOCK_FILE
    if not path.exists():
        return False
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def resume_time(data_dir: Path) -> datetime:
    """Return where virtual time goes on: where it was, or 10:00 in Tokyo on the next weekday."""
    before = read_json(data_dir / CLOCK_FILE).get("virtual")
    if before:
        return datetime.fromisoformat(before)
    tomorrow = wall_now().astimezone(TOKYO).replace(hour=10, minute=0, second=0, microsecond=0) + timedelta(days=1)
    while tomorrow.weekday() > 4:
        tomorrow += timedelta(days=1)
    return tomorrow.astimezone(UTC)


def prefect_database(settings: Settings) -> str:
    """Return the address of Prefect's own database, with the driver that Prefect needs."""
    home = settings.data_dir.absolute() / "prefect"
    return settings.prefect_database_url.replace("+psycopg", "+asyncpg", 1) or f"sqlite+aiosqlite:///{home / 'prefect.db'}"


def point_prefect_here(settings: Settings) -> None:
    """What is imported of Prefect from now on in this process talks to our server. Its settings are read once, when it is imported.

    Raises Refused when the server does not answer.
    """
    if not answers(f"{settings.prefect_api_url}/health"):
        raise Refused(f"Prefect does not answer at {settings.prefect_api_url}; start it with `distmark up` and try again.")
    for name, value in {**PREFECT_SETTINGS, "PREFECT_API_URL": settings.prefect_api_url}.items():
        os.environ.setdefault(name, value)


def as_environment(settings: Settings, *, secrets: bool = True) -> dict[str, str]:
    """Return the settings as environment variables that give the same settings again."""
    values: dict[str, str] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        hidden = isinstance(value, SecretStr) or _has_password(value)
        if value is not None and (secrets or not hidden):
            values[f"DISTMARK_{name.upper()}"] = _as_text(value)
    return values


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _has_password(value: object) -> bool:
    return isinstance(value, str) and "://" in value and bool(urlsplit(value).password)


def answers(url: str) -> bool:
    """Say whether a web server answers there without an error of its own."""
    try:
        return httpx2.get(url, timeout=2, trust_env=False).status_code < 400
    except httpx2.HTTPError:
        return False


def greets(host: str, port: int) -> bool:
    """Say whether a mail server greets there."""
    import socket

    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; empty when there is none, or when a power cut left half of one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """The file holds `content`, whole: whoever reads sees the old or the new."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    fresh.replace(path)


def _is_over(process: "subprocess.Popen[bytes]") -> Callable[[int], bool]:
    """Return whether our own child has ended; asking also takes it off the system's list."""
    return lambda pid: process.poll() is not None


def _how(code: int) -> str:
    return f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
