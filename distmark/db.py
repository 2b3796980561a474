"""Our database: engine, sessions, and column types that mean the same on SQLite and Postgres."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, DateTime, Engine, event, make_url
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection, Dialect, ExceptionContext
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool
from sqlalchemy.types import TypeDecorator
from sqlmodel import Session, SQLModel, create_engine

from distmark.clock import aware
from distmark.settings import get_settings

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


FIRST_TIME = datetime(1, 1, 2, tzinfo=UTC)  # times outside of these two cannot be shown in every zone
LAST_TIME = datetime(9999, 12, 30, tzinfo=UTC)


class _SqliteDateTime(sqlite_dialect.DATETIME):
    """SQLite's text of a time, also with a year of fewer than four digits, which raw statements have written."""

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        read: Any = super().result_processor(dialect, coltype)

        def process(value: Any) -> datetime | None:
            try:
                found: datetime | None = read(value)
            except ValueError:
                year, _, rest = value.partition("-")
                found = read(f"{year:0>4}-{rest}")
            return found

        return process


_SQLITE_TIME: Any = _SqliteDateTime()  # type: ignore[no-untyped-call]


class UTCDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime. Naive ones are refused on the way in; SQLite's naive ones are made UTC on the way out.

    A stored time at the very edge of the calendar is read as the nearest one that can be shown in every zone.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(_SQLITE_TIME if dialect.name == "sqlite" else self.impl_instance)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else aware(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        read = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return min(max(read, FIRST_TIME), LAST_TIME)


JSON_TYPE = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class Database:
    """One database: `reading()` and `writing()` give sessions whose `with` is the unit of work.

    On SQLite a writing session takes the write lock when it begins. A session that read first and wrote later could be refused at once
    as stale, however long it is willing to wait.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _make_engine(url)
        self._read = sessionmaker(self.engine, class_=Session, expire_on_commit=False)
        self._write = sessionmaker(self.engine.execution_options(distmark_begin="IMMEDIATE"), class_=Session, expire_on_commit=False)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session for reading; nothing is committed."""
        with self._read() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Give a session that commits when the block ends, and rolls back when it raises."""
        with self._write() as session:
            yield session
            session.commit()

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _make_engine(url: str) -> Engine:
    parsed = make_url(url)
    if not parsed.drivername.startswith("sqlite"):
        # In the server's own zone a time near the last day of the calendar cannot be read.
        in_utc = {"options": f"{parsed.query.get('options', '')} -c timezone=UTC".strip()}
        engine = create_engine(url, pool_size=10, max_overflow=10, pool_pre_ping=True, hide_parameters=True, connect_args=in_utc)
        event.listen(engine, "handle_error", _leave_out_values)
        return engine
    in_memory = parsed.database in (None, "", ":memory:")
    if not in_memory:
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": 60}, "hide_parameters": True}
    if in_memory:
        options["poolclass"] = StaticPool
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _leave_out_values(context: ExceptionContext) -> None:
    """Take the row out of an error of Postgres, which tells it under DETAIL: errors are logged, and rows hold addresses and tokens."""
    found: Any = context.original_exception
    main = getattr(getattr(found, "diag", None), "message_primary", None)
    if main is None:
        return
    found.args = (main,)
    if context.sqlalchemy_exception is not None:
        context.sqlalchemy_exception.args = (f"({type(found).__module__}.{type(found).__qualname__}) {main}",)


def _prepare_sqlite(connection: sqlite3.Connection, record: object) -> None:
    connection.isolation_level = None  # the driver must not begin by itself: _begin_sqlite does
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=60000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    kind = connection.get_execution_options().get("distmark_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {kind}")


@cache
def get_database() -> Database:
    """Return this process's database, as the settings say."""
    return Database(get_settings().database)
