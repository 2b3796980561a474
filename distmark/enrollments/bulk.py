"""Changing very many enrollments by one statement, with a line in the timeline of each, beside wakes that are on their way."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, ColumnElement, Text, and_, cast, column, exists, func, insert, literal, select, update
from sqlmodel import Session, col

from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.sql import among, on_sqlite, row_count

MOST_LOOKS = 200  # at rows that a wake has locked; its transactions take milliseconds
BETWEEN_LOOKS_SECONDS = 0.02

Conditions = Sequence[ColumnElement[bool]]
MOVING: Mapping[str, Any] = {"status": EnrollmentStatus.waiting, "paused_at": None, "alone_since": None}  # what a pause left is gone


def change(
    session: Session, where: Conditions, values: Mapping[str, Any], kind: TimelineKind, now: datetime, told: Mapping[str, Any] | None = None
) -> int:
    """Change all enrollments that meet `where`, which none does any more afterwards, and return how many they were."""
    return sum(_change_free(session, where, values, kind, now, told or {}) for _look in looks(session, where))


def looks(session: Session, where: Conditions) -> Iterator[int]:
    """Iterate until no enrollment meets `where` any more.

    Rows that a wake has locked are passed over and looked at again: a change that waited for them, with thousands of rows locked itself,
    could be what the wake waits for, and the database would end one of the two.
    """
    yield 0
    if on_sqlite(session):  # nobody else writes meanwhile
        return
    for look in range(1, MOST_LOOKS):
        if not session.execute(select(exists().where(and_(*where)))).scalar_one():
            return
        session.execute(select(func.pg_sleep(BETWEEN_LOOKS_SECONDS)))
        yield look


def count(session: Session, where: Conditions) -> int:
    """Return how many enrollments meet `where`."""
    return int(session.execute(select(func.count()).select_from(Enrollment).where(*where)).scalar_one())


def note(session: Session, where: Conditions, kind: TimelineKind, now: datetime, told: Mapping[str, Any]) -> int:
    """Put a line in the timeline of all enrollments that meet `where`, and return how many they are."""
    return row_count(session.execute(_moves_of(_noted(kind, now, told, where))))


def set_columns(session: Session, where: Conditions, **values: Any) -> None:
    """Set these columns of all enrollments that meet `where`, without a line in their timelines."""
    session.execute(_update(where, values))


def set_each(
    session: Session,
    rows: Sequence[Mapping[str, Any]],
    values: Mapping[str, Any],
    kind: TimelineKind,
    now: datetime,
    told: Mapping[str, Any],
) -> None:
    """Set columns of each enrollment (by `id`) to what its row says and others to the same `values`, with a line in each one's timeline.

    The rows travel as one JSON value: a set of parameters for each takes ten times as long.
    """
    if not rows:
        return
    session.execute(_moves_of(_noted(kind, now, told, [among(session, col(Enrollment.id), [row["id"] for row in rows])])))
    table = _as_table(session, rows)
    own = {name: table.c[name] for name in rows[0] if name != "id"}
    session.execute(_update([col(Enrollment.id) == table.c.id], {**values, **own}))


def _as_table(session: Session, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows of enrollment columns as something to select from."""
    columns = Enrollment.__table__.columns  # type: ignore[attr-defined]
    if on_sqlite(session):
        given = func.json_each(json.dumps(rows, default=_sqlite_time)).table_valued("value")
        return select(*(func.json_extract(given.c.value, f"$.{name}").label(name) for name in rows[0])).subquery("given")
    typed = [column(name, columns[name].type) for name in rows[0]]
    return (
        func.json_to_recordset(cast(literal(json.dumps(rows, default=datetime.isoformat), Text), JSON))
        .table_valued(*typed)
        .render_derived(name="given", with_types=True)
    )


def _sqlite_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _change_free(
    session: Session, where: Conditions, values: Mapping[str, Any], kind: TimelineKind, now: datetime, told: Mapping[str, Any]
) -> int:
    if on_sqlite(session):
        session.execute(_moves_of(_noted(kind, now, told, where)))
        return row_count(session.execute(_update(where, values)))
    free = select(col(Enrollment.id)).where(*where).with_for_update(skip_locked=True).correlate(None)
    changed = _update([col(Enrollment.id).in_(free)], values).returning(col(Enrollment.id), col(Enrollment.step_id)).cte("changed")
    noted = session.execute(_moves_of(select(changed.c.id, func.coalesce(changed.c.step_id, ""), *_note(kind, now, told))))
    return row_count(noted)


def _update(where: Conditions, values: Mapping[str, Any]) -> Any:
    return update(Enrollment).where(*where).values(**values).execution_options(synchronize_session=False)


def _noted(kind: TimelineKind, now: datetime, told: Mapping[str, Any], where: Conditions) -> Any:
    return select(col(Enrollment.id), func.coalesce(col(Enrollment.step_id), ""), *_note(kind, now, told)).where(*where)


def _moves_of(rows: Any) -> Any:
    into = insert(TimelineEntry).from_select(["enrollment_id", "step_id", "at", "kind", "visit", "detail", "rolled"], rows)
    return into.execution_options(preserve_rowcount=True)


def _note(kind: TimelineKind, now: datetime, told: Mapping[str, Any]) -> tuple[ColumnElement[Any], ...]:
    columns = TimelineEntry.__table__.columns  # type: ignore[attr-defined]
    return (
        literal(now, columns["at"].type),
        literal(kind, columns["kind"].type),
        literal(1),
        literal(dict(told), columns["detail"].type),
        literal(False),
    )
