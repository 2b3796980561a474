"""What benchmarks stand on: throwaway databases, a Prefect server, a mail sink, a worker, and very many contacts.

Everything is in a temporary folder and gone when the block ends. What Postgres has committed here is on the disk, unlike in tests.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from sqlmodel import SQLModel

from distmark.clock import FixedClock, wall_now
from distmark.contacts.model import address_hash
from distmark.contacts.table import Consent, Contact
from distmark.db import Database
from distmark.journeys.source import Source, load_source
from distmark.machine.prefect import POLL_INDEX, PREFECT_SETTINGS
from distmark.sql import id_of
from distmark.tables import create_all
from tests.driver import Stage
from tests.postgres import NoPostgres, PostgresServer
from tests.prefect_server import free_port, prefect_server

ROOT = Path(__file__).resolve().parents[2]
SCALE = float(os.environ.get("BENCH_SCALE", "1"))
DURABLE = ("listen_addresses=", "max_connections=100", "shared_buffers=256MB", "max_wal_size=4GB")
CONCURRENCY = 4  # what Prefect's SQLite takes without answering that it is locked
_began = time.monotonic()
_numbers = count(1)


def size(name: str, default: int) -> int:
    """Return how many: what the variable BENCH_name says, else the default times BENCH_SCALE."""
    told = os.environ.get(f"BENCH_{name}")
    return int(told) if told else max(1, round(default * SCALE))


def say(text: str) -> None:
    """Tell the person who waits how far it is."""
    print(f"[{time.monotonic() - _began:6.1f} s] {text}", file=sys.stderr, flush=True)


def until(holds: Callable[[], bool], seconds: float, what: str, pause: float = 0.1) -> None:
    """Return when `holds` does; TimeoutError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} seconds.")
        time.sleep(pause)


@contextmanager
def process(*command: str, log: Path, env: dict[str, str] | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `python COMMAND` until the block ends. TimeoutError names its log when it does not want to end."""
    with log.open("ab") as out:
        started = subprocess.Popen([sys.executable, *command], env={**os.environ, **(env or {})}, cwd=ROOT, stdout=out, stderr=out)
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(timeout=30)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait(timeout=10)
                say(f"{command} had to be killed")


# --- databases --------------------------------------------------------------------------------------------------------------------------


def kinds() -> list[str]:
    """Return the databases to measure one after another: both, or what BENCH_DATABASE says."""
    told = os.environ.get("BENCH_DATABASE", "")
    return [told] if told else ["sqlite", "postgres"]


def kind() -> str:
    """Return the database of a bench that measures one: Postgres, or what BENCH_DATABASE says."""
    return os.environ.get("BENCH_DATABASE", "") or "postgres"


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """Run a Postgres server until the block ends."""
    try:
        server = PostgresServer(DURABLE)
    except NoPostgres as missing:
        raise SystemExit(f"{missing} Or set BENCH_DATABASE=sqlite.") from missing
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def database(kind: str, folder: Path) -> Iterator[Database]:
    """Give an empty database with every table."""
    with ExitStack() as stack:
        if kind == "sqlite":
            url = f"sqlite:///{folder / 'distmark.sqlite3'}"
        else:
            server = stack.enter_context(postgres())
            url = server.url(server.create())
        db = Database(url)
        stack.callback(db.close)
        create_all(db)
        yield db


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder that is gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="distmark-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


# --- very many rows ---------------------------------------------------------------------------------------------------------------------


def fill(db: Database, like: SQLModel, own: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Insert a row for each of `rows`: its `own` columns as told there, all others as in `like`.

    By COPY on Postgres, by executemany on SQLite, without looking whether what is referred to is there; indices are built afterwards.
    """
    table = type(like).__table__  # type: ignore[attr-defined]
    others = [column.name for column in table.columns if column.name not in own]
    same = {name: value for name in others if (value := getattr(like, name)) is not None}
    dialect = db.engine.dialect
    binders = {name: table.c[name].type.dialect_impl(dialect).bind_processor(dialect) for name in (*same, *own)}
    remembering = {name: lru_cache(maxsize=1000)(binder) for name, binder in binders.items() if binder is not None}  # neighbours are alike
    fixed = tuple(_bound(binders[name], value) for name, value in same.items())
    to_bind = [(place, remembering[name]) for place, name in enumerate(own) if name in remembering]
    for index in table.indexes:
        index.drop(db.engine)
    (_executemany if db.is_sqlite else _copy)(db, table.name, [*same, *own], (fixed + _bind(row, to_bind) for row in rows))
    for index in table.indexes:
        index.create(db.engine)


def _bound(binder: Callable[[Any], Any] | None, value: Any) -> Any:
    return value if binder is None else binder(value)


def _bind(row: Sequence[Any], to_bind: Sequence[tuple[int, Callable[[Any], Any]]]) -> tuple[Any, ...]:
    bound = list(row)
    for place, binder in to_bind:
        bound[place] = binder(bound[place])
    return tuple(bound)


def _copy(db: Database, table: str, names: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    with db.engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        with raw.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")
            with cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            cursor.execute("SET session_replication_role = DEFAULT")
        raw.commit()


def _executemany(db: Database, table: str, names: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    with sqlite3.connect(str(db.engine.url.database), timeout=60) as connection:
        for pragma in ("synchronous=OFF", "cache_size=-400000"):
            connection.execute(f"PRAGMA {pragma}")
        marks = ", ".join("?" * len(names))
        connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)
    connection.close()


def settle(db: Database) -> None:
    """Let Postgres look at its new tables, as autovacuum does within a minute. SQLite is left as it is: nobody does it there."""
    if not db.is_sqlite:
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


def people(stage: Stage, many: int, consents: bool = True) -> list[int]:
    """Put so many contacts, who agree to mail, into the partner's book, and return their ids."""
    now, brand_id, first = stage.clock.now(), id_of(stage.brand), _next_id(stage.db, "contact")
    like = Contact(brand_id=brand_id, partner_id=id_of(stage.partner), person_key="", created_at=now, updated_at=now, unread=False)
    like.last_name, like.first_name, like.city, like.birthday, like.phone = "鈴木", "花子", "名古屋市", date(1980, 4, 1), "+819012345678"
    ids = range(first, first + many)
    named = ((each, (email := f"contact{each}@crowd.example"), email, address_hash(brand_id, email)) for each in ids)
    fill(stage.db, like, ("id", "email", "email_key", "person_key"), named)
    if consents:
        yes = Consent(contact_id=0, channel="email", given=True, at=now, source="bench")
        fill(stage.db, yes, ("contact_id",), ((each,) for each in ids))
    go_on_after(stage.db, "contact")
    return list(ids)


def _next_id(db: Database, table: str) -> int:
    with db.engine.connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").scalar_one())


def go_on_after(db: Database, table: str) -> None:
    """Let the next row's id come after those that were given."""
    if not db.is_sqlite:
        with db.engine.begin() as connection:
            following = _next_id(db, table)
            connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {following}, false)")


# --- journeys ---------------------------------------------------------------------------------------------------------------------------

WAITING = "  - {id: rest, wait: {for: 400 days}}\n"
BRANCH_AND_WAIT = "  - id: who\n    branch: {random: [{name: a, share: 50%, steps: []}, {name: b, share: 50%, steps: []}]}\n" + WAITING


def real_journey(key: str, steps: str) -> Source:
    """Return a sample journey with its messages and other steps, which nobody leaves, sending at any hour: the bench may run at night."""
    source = load_source(ROOT / "journey_defs" / key)
    told = yaml.safe_load(source.definition)
    head = {name: value for name, value in told.items() if name not in ("goal", "exit", "steps")}
    head |= {"key": f"{key}-{next(_numbers)}", "send_policy": {"caps": "none"}}
    return Source(yaml.safe_dump(head, allow_unicode=True, sort_keys=False) + "steps:\n" + steps, source.templates, key)


# --- everything at once -----------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Sink:
    """A running mail sink and what it wrote down."""

    port: int
    path: Path
    _read: int = 0
    _lines: list[tuple[float, str, str]] = field(default_factory=list)

    def arrived(self) -> list[tuple[float, str, str]]:
        """Return every mail so far: seconds since 1970, recipient, Message-ID."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode().splitlines():
            at, recipient, message_id, _bytes = line.split(" ")
            self._lines.append((float(at), recipient, message_id))
        return self._lines

    def mean_bytes(self) -> float:
        """Return how large the mails were on average."""
        sizes = [int(line.rsplit(" ", 1)[1]) for line in self.path.read_text().splitlines()]
        return sum(sizes) / max(1, len(sizes))


@contextmanager
def sink(folder: Path) -> Iterator[Sink]:
    """Run a mail sink until the block ends."""
    path = folder / "sink.txt"
    path.touch()
    command = [sys.executable, "-m", "tests.bench.sink", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield Sink(int(running.stdout.readline()), path)
        finally:
            running.terminate()
            running.wait(timeout=10)


@dataclass(frozen=True, slots=True)
class Plant:
    """A whole installation but for its worker and web: database, Prefect server, mail sink, and a stage to act on."""

    folder: Path
    stage: Stage
    sink: Sink
    web_port: int

    @property
    def db(self) -> Database:
        return self.stage.db


@contextmanager
def plant(*, with_prefect: bool = True) -> Iterator[Plant]:
    """Run database, mail sink and Prefect server until the block ends. Settings are put into this process's environment, once.

    Prefect keeps its rows in SQLite, or in Postgres with BENCH_PREFECT=postgres.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        server = stack.enter_context(postgres()) if "postgres" in (kind(), os.environ.get("BENCH_PREFECT")) else None
        url = server.url(server.create()) if server and kind() == "postgres" else f"sqlite:///{folder / 'distmark.sqlite3'}"
        mail, web_port = stack.enter_context(sink(folder)), free_port()
        os.environ.update(_settings(folder, url, mail.port, web_port))
        if with_prefect:
            stack.enter_context(_prefect(folder, server if os.environ.get("BENCH_PREFECT") == "postgres" else None))
        db = Database(url)
        stack.callback(db.close)
        create_all(db)
        yield Plant(folder, Stage(db, FixedClock(wall_now())), mail, web_port)


@contextmanager
def _prefect(folder: Path, server: PostgresServer | None) -> Iterator[None]:
    of_prefect = server.url(server.create()).replace("+psycopg", "+asyncpg") if server else ""
    with prefect_server(folder / "prefect", of_prefect) as api:
        os.environ.update({"PREFECT_API_URL": api, "DISTMARK_PREFECT_API_URL": api})
        if server is None:
            with sqlite3.connect(folder / "prefect" / "prefect.db", timeout=60) as connection:
                connection.execute(POLL_INDEX)
            connection.close()
        yield


def _settings(folder: Path, url: str, smtp_port: int, web_port: int) -> dict[str, str]:
    return {
        **PREFECT_SETTINGS,
        "PREFECT_HOME": str(folder / "prefect"),
        "DISTMARK_MODE": "test",
        "DISTMARK_DATA_DIR": str(folder),
        "DISTMARK_DATABASE_URL": url,
        "DISTMARK_SMTP_PORT": str(smtp_port),
        "DISTMARK_SMTP_TLS": "off",
        "DISTMARK_PORT": str(web_port),
        "DISTMARK_POLL_SECONDS": "0.2",
        "DISTMARK_WORKER_CONCURRENCY": os.environ.get("BENCH_CONCURRENCY", str(CONCURRENCY)),
    }


@contextmanager
def worker(plant: Plant) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the real worker process, with the system flows on their schedules, until the block ends. It is at work when the block begins."""
    import httpx2

    from deployments.register import register_system_flows

    register_system_flows()
    started = wall_now()

    def is_heard() -> bool:
        if running.poll() is not None:
            raise RuntimeError(f"The worker ended: {(plant.folder / 'worker.log').read_text()[-2000:]}")
        try:
            told = httpx2.post(f"{os.environ['PREFECT_API_URL']}/work_pools/journeys/workers/filter", json={}, timeout=10, trust_env=False)
        except httpx2.HTTPError:
            return False
        beats = [each["last_heartbeat_time"] for each in told.json()] if told.status_code == 200 else []
        return any(beat and datetime.fromisoformat(beat) >= started for beat in beats)

    with process("-m", "flows.serve", log=plant.folder / "worker.log") as running:
        until(is_heard, 120, "The worker is not heard", pause=0.2)
        yield running


@contextmanager
def web(plant: Plant) -> Iterator[str]:
    """Run the real web process until the block ends; give its address."""
    import httpx2

    address = f"http://127.0.0.1:{plant.web_port}"

    def answers() -> bool:
        try:
            return httpx2.get(f"{address}/healthz", timeout=2, trust_env=False).status_code == 200
        except httpx2.HTTPError:
            return False

    with process("-m", "distmark.web.serve", log=plant.folder / "web.log"):
        until(answers, 60, "The web process does not answer")
        yield address


def register(plant: Plant, version_id: int) -> str:
    """Make the version's Prefect deployment, as the command does, and return its id."""
    from deployments.register import register_version

    return register_version(plant.db, version_id)
