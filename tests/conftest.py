"""Fixtures of all tests: databases, a clock that stands still, the present time; and the kinds of database that each test runs on.

A test that asks for `db` runs on SQLite and on Postgres where the database matters: SQL, locks, isolation, migrations, entering, control,
the ledger, roll-ups, and who may open which route. Pages, commands, rehearsals, the demo and tests beside a Prefect server say the same on
either, and run on SQLite alone, unless they carry the marker `both_databases`. `DISTMARK_TEST_DATABASES=sqlite|postgres` narrows all of
them to one.
"""

import os

os.environ.setdefault("DISTMARK_MODE", "test")

import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import make_url

from distmark.clock import FixedClock
from distmark.db import Database
from distmark.partners import service as partners
from distmark.tables import create_all
from tests.depth import DEPTH
from tests.postgres import NoPostgres, PostgresServer
from tests.prefect_server import prefect_api, start_if_needed, stop_if_started  # noqa: F401  (prefect_api is a fixture)

ROOT = Path(__file__).resolve().parents[1]
if TYPE_CHECKING:
    from tests.driver import Stage

DATABASES = {"sqlite": ("sqlite",), "postgres": ("postgres",), "both": ("sqlite", "postgres")}
KINDS = DATABASES[os.environ.get("DISTMARK_TEST_DATABASES", "both")]
# Folders and files whose tests run on SQLite alone, and the marker that says the same of tests beside a Prefect server.
ON_SQLITE_ALONE = (
    "tests/web/",
    "tests/integration/commands/",
    "tests/integration/demo/",
    "tests/integration/mailbox/",
    "tests/integration/rehearsals/",
)
ON_BOTH = ("tests/web/test_routes.py", "tests/web/test_route_verdicts.py")
CHEAPEST_HASH = Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1)
TUESDAY_TEN_IN_TOKYO = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)


settings.register_profile("ci", max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
settings.register_profile("long", settings.get_profile("ci"), max_examples=50 * DEPTH)
settings.load_profile("long" if DEPTH > 1 else "ci")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a database once on each kind on which it must hold."""
    for name in ("db", "empty_db"):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, kinds_of(metafunc.definition), indirect=True)


def kinds_of(item: pytest.Item) -> Sequence[str]:
    """Return the kinds of database on which a test runs."""
    path = item.path.relative_to(ROOT).as_posix()
    alone = path.startswith(ON_SQLITE_ALONE) and path not in ON_BOTH
    beside_prefect = item.get_closest_marker("prefect") is not None
    if (alone or beside_prefect) and item.get_closest_marker("both_databases") is None:
        return ("sqlite",) if "sqlite" in KINDS else KINDS
    return KINDS


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each of two processes begin with tests that take half a minute, so that neither waits for one of them in the end."""
    slow = [item for item in items if item.get_closest_marker("chaos")]
    quick = [item for item in items if not item.get_closest_marker("chaos")]
    half = len(quick) // 2
    items[:] = [*slow[::2], *quick[:half], *slow[1::2], *quick[half:]]


def pytest_collection_finish(session: pytest.Session) -> None:
    start_if_needed(session)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write down how the run ended: a run that broke off must not count as one in which few tests failed (`.ci/gate.py`)."""
    cache = getattr(session.config, "cache", None)
    if cache is not None and not hasattr(session.config, "workerinput"):
        cache.set("distmark/exit", int(exitstatus))


def pytest_unconfigure(config: pytest.Config) -> None:
    stop_if_started(config)


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Passwords are hashed at the lowest cost; `tests/unit/partners/test_partners_sign_in.py` holds what everybody else pays."""
    real, partners._passwords = partners._passwords, PasswordHash((CHEAPEST_HASH,))
    yield
    partners._passwords = real


@pytest.fixture
def now() -> datetime:
    """Tuesday 24 November 2026, 10:00 in Tokyo."""
    return TUESDAY_TEN_IN_TOKYO


@pytest.fixture
def clock(now: datetime) -> FixedClock:
    """A clock that stands at `now` until it is moved."""
    return FixedClock(now)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A Postgres server that lives as long as the test session."""
    try:
        server = PostgresServer()
    except NoPostgres as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table and no row, to be copied."""
    path = tmp_path_factory.mktemp("template") / "distmark.sqlite3"
    _create_tables(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_database(postgres_server: PostgresServer) -> str:
    """The address of a database with every table, emptied between tests: far cheaper than making one for each."""
    url = postgres_server.url(postgres_server.create())
    _create_tables(url)
    return url


@pytest.fixture
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of our own with every table and no row; of SQLite or of Postgres; see `kinds_of`."""
    if request.param == "sqlite":
        path = tmp_path / "distmark.sqlite3"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield from _open(f"sqlite:///{path}")
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url: str = request.getfixturevalue("postgres_database")
    try:
        yield from _open(url)
    finally:
        server.empty(str(make_url(url).database))


@pytest.fixture
def stage(db: Database, clock: FixedClock) -> "Stage":
    """A small brand with one partner and a journey to run through."""
    from tests.driver import Stage  # the engine is loaded by tests that run it

    return Stage(db, clock)


@pytest.fixture
def empty_db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without any table, for migrations."""
    if request.param == "sqlite":
        yield from _open(f"sqlite:///{tmp_path / 'empty.sqlite3'}")
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create()
    try:
        yield from _open(server.url(name))
    finally:
        server.drop(name)


def _open(url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


def _create_tables(url: str) -> None:
    database = Database(url)
    try:
        create_all(database)
    finally:
        database.close()
