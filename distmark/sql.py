"""Statements that SQLite and Postgres write differently, statements over thousands of rows, and the ids of stored rows."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy import ARRAY, ColumnElement, Integer, Select, String, any_, cast, column, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Session

from distmark.clock import aware

BATCH = 500  # values in one IN (...): well below what either database takes
_Item = TypeVar("_Item")


class _Row(Protocol):
    """A row with a number as its key."""

    id: int | None


def on_sqlite(session: Session) -> bool:
    """Return whether the session's database is SQLite; it is Postgres otherwise."""
    return session.get_bind().dialect.name == "sqlite"


def insert_into(session: Session, table: Any) -> Any:
    """Return an INSERT into `table` in the database's own dialect, which knows ON CONFLICT."""
    return (sqlite if on_sqlite(session) else postgresql).insert(table)


def row_count(result: Any) -> int:
    """Return how many rows an UPDATE, DELETE or INSERT changed."""
    return int(result.rowcount)


def id_of(row: _Row) -> int:
    """Return the id of a stored row; ValueError when the row was never flushed to the database."""
    if row.id is None:
        raise ValueError(f"{type(row).__name__} has no id yet: flush the session before its id is used.")
    return row.id


def by_id(session: Session, table: Any, ids: Iterable[int]) -> dict[int, Any]:
    """Return the rows of `table` with these ids, by id; an id without a row is absent."""
    wanted = set(ids)
    if not wanted:
        return {}
    return {row.id: row for row in session.execute(select(table).where(among(session, table.id, wanted))).scalars()}


def batches(items: Iterable[_Item], size: int = BATCH) -> Iterator[list[_Item]]:
    """Return `items` in lists of at most `size`, in order."""
    whole = list(items)
    return (whole[start : start + size] for start in range(0, len(whole), size))


def among(session: Session, key: Any, ids: Iterable[int] | Iterable[str]) -> ColumnElement[bool]:
    """Return the condition that the column `key` is one of `ids` (all numbers or all texts), however many, as one value of the statement.

    As IN (...) in parts it took Postgres 20 s for 25,000 contacts that were just imported: it compared every row with every id, since its
    statistics still said that there were none.
    """
    wanted = list(ids)
    if len(wanted) == 1:
        only: ColumnElement[bool] = key == wanted[0]
        return only
    if on_sqlite(session):
        value: ColumnElement[Any] = column("value")
        listed = func.json_each(json.dumps(wanted)).table_valued(value)
        found: ColumnElement[bool] = key.in_(select(listed.c.value))
        return found
    # By the column's type, not the values': there may be none.
    of_text = isinstance(getattr(key.type, "impl", key.type), String)
    kind: ARRAY[Any] = ARRAY(String()) if of_text else ARRAY(Integer())
    found = key == any_(literal(wanted, kind))
    return found


def rows_of(session: Session, table: Any, shared: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], own: Sequence[str]) -> Select[Any]:
    """Return a SELECT of one row for each of `rows`: first the columns that all share, then their `own`, in these orders.

    As VALUES with 25 parameters for each row, Postgres and its driver took 5 s for 10,000 rows.
    """
    sqlite_dialect = on_sqlite(session)
    listed_rows = json.dumps(
        [{name: row[name] for name in own} for row in rows], ensure_ascii=False, default=_as_sqlite if sqlite_dialect else _as_text
    )
    if sqlite_dialect:
        value: ColumnElement[Any] = column("value")
        each = func.json_each(listed_rows).table_valued(value)
        parts = [literal(given, table.c[name].type) for name, given in shared.items()]
        picked = [func.json_extract(each.c.value, f"$.{name}").label(name) for name in own]
        # SQLite takes the ON of ON CONFLICT for that of a join unless there is a WHERE.
        return select(*_labelled(shared, parts), *picked).where(literal(1) == 1)
    columns = [column(name, table.c[name].type) for name in own]
    listed = (
        func.jsonb_to_recordset(cast(literal(listed_rows), JSONB)).table_valued(*columns, name="listed").render_derived(with_types=True)
    )
    typed = [cast(literal(given, table.c[name].type), table.c[name].type) for name, given in shared.items()]
    return select(*_labelled(shared, typed), *(listed.c[name] for name in own))


def _as_text(value: object) -> str:
    return aware(value).isoformat() if isinstance(value, datetime) else str(value)


def _as_sqlite(value: object) -> str:
    return sqlite_time(value) if isinstance(value, datetime) else str(value)


def sqlite_time(at: datetime) -> str:
    """Return a time as SQLAlchemy keeps it in SQLite: without its zone, which is UTC, and with a year of four digits."""
    return aware(at).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


def _labelled(shared: Mapping[str, Any], parts: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [part.label(name) for name, part in zip(shared, parts, strict=True)]
