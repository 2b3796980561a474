"""Bulk changes of enrollments: one statement for very many, with a timeline entry for each, safe beside wakes that are under way."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ColumnElement, Text, and_, cast, column, exists, func, insert, literal, select, update
from sqlmodel import Session, col

from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.sql import among, on_sqlite, row_count, sqlite_time

MOST_ATTEMPTS = 200  # to change rows that a wake has locked; its transactions take milliseconds
BETWEEN_ATTEMPTS_SECONDS = 0.02

Conditions = Sequence[ColumnElement[bool]]
RESUMED: Mapping[str, Any] = {
    "status": EnrollmentStatus.waiting,
    "paused_at": None,
    "alone_since": None,
}  # the columns of an enrollment that moves again


def change(
    session: Session,
    where: Conditions,
    values: Mapping[str, Any],
    kind: TimelineKind,
    now: datetime,
    detail: Mapping[str, Any] | None = None,
) -> int:
    """Set `values` on all enrollments that meet `where`, with a timeline entry for each, and return how many were changed.

    `values` must end the condition: no enrollment meets `where` afterwards.
    """
    return sum(_change_unlocked(session, where, values, kind, now, detail or {}) for _attempt in until_none_left(session, where))


def until_none_left(session: Session, where: Conditions) -> Iterator[int]:
    """Iterate over attempts to change the enrollments that meet `where`, until there are none left.

    Each attempt passes over rows that a wake has locked, and the next one finds them again. A change that waited for them would hold
    thousands of locks meanwhile, the wake could wait for one of these, and the database would end one of the two.
    """
    yield 0
    if on_sqlite(session):  # no other session writes meanwhile
        return
    for attempt in range(1, MOST_ATTEMPTS):
        if not session.execute(select(exists().where(and_(*where)))).scalar_one():
            return
        session.execute(select(func.pg_sleep(BETWEEN_ATTEMPTS_SECONDS)))
        yield attempt


def count(session: Session, where: Conditions) -> int:
    """Return the number of enrollments that meet `where`."""
    return int(session.execute(select(func.count()).select_from(Enrollment).where(*where)).scalar_one())


def add_timeline_entries(session: Session, where: Conditions, kind: TimelineKind, now: datetime, detail: Mapping[str, Any]) -> int:
    """Add an entry to the timeline of all enrollments that meet `where`, and return how many."""
    return row_count(session.execute(_insert_entries(_entries_for(kind, now, detail, where))))


def set_columns(session: Session, where: Conditions, **values: Any) -> None:
    """Set these columns of all enrollments that meet `where`, without timeline entries."""
    session.execute(_update(where, values))


def set_each(
    session: Session,
    rows: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    kind: TimelineKind,
    now: datetime,
    detail: Mapping[str, Any],
) -> None:
    """Set the columns in each row (named by its `id`), and `values` on all of these enrollments, with a timeline entry for each.

    The rows are sent as one JSON value: a set of parameters for each row takes ten times as long.
    """
    if not rows:
        return
    session.execute(_insert_entries(_entries_for(kind, now, detail, [among(session, col(Enrollment.id), [row["id"] for row in rows])])))
    table = _as_table(session, rows)
    own = {name: table.c[name] for name in rows[0] if name != "id"}
    session.execute(_update([col(Enrollment.id) == table.c.id], {**values, **own}))


def _as_table(session: Session, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return the rows as a table to select from, with the types of the enrollment's columns."""
    columns = Enrollment.__table__.columns  # type: ignore[attr-defined]
    if on_sqlite(session):
        given = func.json_each(json.dumps(rows, default=sqlite_time)).table_valued("value")
        return select(*(func.json_extract(given.c.value, f"$.{name}").label(name) for name in rows[0])).subquery("given")
    typed = [column(name, columns[name].type) for name in rows[0]]
    return (
        func.json_to_recordset(cast(literal(json.dumps(rows, default=datetime.isoformat), Text), JSON))
        .table_valued(*typed)
        .render_derived(name="given", with_types=True)
    )


def _change_unlocked(
    session: Session, where: Conditions, values: Mapping[str, Any], kind: TimelineKind, now: datetime, detail: Mapping[str, Any]
) -> int:
    if on_sqlite(session):
        session.execute(_insert_entries(_entries_for(kind, now, detail, where)))
        return row_count(session.execute(_update(where, values)))
    free = select(col(Enrollment.id)).where(*where).with_for_update(skip_locked=True).correlate(None)
    changed = _update([col(Enrollment.id).in_(free)], values).returning(col(Enrollment.id), col(Enrollment.step_id)).cte("changed")
    noted = session.execute(_insert_entries(select(changed.c.id, func.coalesce(changed.c.step_id, ""), *_entry_columns(kind, now, detail))))
    return row_count(noted)


def _update(where: Conditions, values: Mapping[str, Any]) -> Any:
    return update(Enrollment).where(*where).values(**values).execution_options(synchronize_session=False)


def _entries_for(kind: TimelineKind, now: datetime, detail: Mapping[str, Any], where: Conditions) -> Any:
    return select(col(Enrollment.id), func.coalesce(col(Enrollment.step_id), ""), *_entry_columns(kind, now, detail)).where(*where)


def _insert_entries(rows: Any) -> Any:
    into = insert(TimelineEntry).from_select(["enrollment_id", "step_id", "at", "kind", "visit", "detail", "rolled"], rows)
    return into.execution_options(preserve_rowcount=True)


def _entry_columns(kind: TimelineKind, now: datetime, detail: Mapping[str, Any]) -> tuple[ColumnElement[Any], ...]:
    columns = TimelineEntry.__table__.columns  # type: ignore[attr-defined]
    return (
        literal(now, columns["at"].type),
        literal(kind, columns["kind"].type),
        literal(1),
        literal(dict(detail), columns["detail"].type),
        literal(False),
    )
