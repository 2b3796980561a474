"""What every test may ask for: a database of each kind, a clock that stands still, and what time it is."""

import os

os.environ.setdefault("DISTMARK_MODE", "test")

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import make_url

from distmark.clock import FixedClock
from distmark.db import Database
from distmark.tables import create_all
from tests.postgres import NoPostgres, PostgresServer
from tests.prefect_server import prefect_api  # noqa: F401  (a fixture)

DATABASES = {"sqlite": ("sqlite",), "postgres": ("postgres",), "both": ("sqlite", "postgres")}
KINDS = DATABASES[os.environ.get("DISTMARK_TEST_DATABASES", "both")]
TUESDAY_TEN_IN_TOKYO = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)


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


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of our own with every table and no row; the test runs once on SQLite and once on Postgres."""
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


@pytest.fixture(params=KINDS)
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
