"""The roll-up: moves and engagement events become counts, each row once. Writes its room's tables and the rows' `rolled`, nothing else."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Interval, Row, func, literal, not_, or_, select, text, update
from sqlmodel import Session, col

from distmark.clock import stopwatch
from distmark.db import Database
from distmark.engagement.model import CLOCKS_DIFFER, EARLIEST, EventKind, Verdict, is_possible
from distmark.engagement.table import Event
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.experiments.service import entries_of, note_entries
from distmark.journeys.table import JourneyVersion
from distmark.messages.table import Message
from distmark.metrics.model import (
    ONCE_BY_ANYBODY,
    ONCE_BY_HUMANS,
    Key,
    Place,
    RawEvent,
    RolledUp,
    Tally,
    metrics_of_event,
    metrics_of_move,
    once_metric,
)
from distmark.metrics.send_times import add_hours
from distmark.metrics.table import Count, RollUp
from distmark.sql import insert_into, on_sqlite

log = logging.getLogger("distmark.metrics")
BATCH = 5_000
ROLL_UP_LOCK = 0x64697374  # any constant: the advisory lock that lets one roll-up run at a time on Postgres

Deltas = dict[Key, Tally]


class Subject(NamedTuple):
    """The thing for which an event counts once: a message, or an enrollment where there is no message."""

    kind: EventKind
    of: str
    id: int


def roll_up(db: Database, now: datetime, batch: int = BATCH) -> RolledUp:
    """Every move and event written so far is in the counts, each exactly once, however often and wherever this was interrupted."""
    started = stopwatch()
    versions: set[int] = set()
    moves = _drain(db, _take_moves, batch, versions)
    events = _drain(db, _take_events, batch, versions)
    seconds = stopwatch() - started
    with db.writing() as session:
        session.add(RollUp(at=now, events=events, moves=moves, seconds=seconds))
        journey_ids = _journeys_of(session, versions)
    return RolledUp(events=events, moves=moves, seconds=seconds, journey_ids=journey_ids)


def _drain(db: Database, take: Callable[[Session, int], tuple[int, Deltas]], batch: int, versions: set[int]) -> int:
    """Take batches, one transaction each, until one comes back short. Returns how many rows were taken."""
    taken = 0
    while True:
        with db.writing() as session:
            _wait_for_my_turn(session)
            count, deltas = take(session, batch)
            _add(session, deltas)
        taken += count
        versions.update(key.version_id for key in deltas)
        if count < batch:
            return taken


def _wait_for_my_turn(session: Session) -> None:
    # On SQLite the writing session already holds the only write lock.
    if not on_sqlite(session):
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ROLL_UP_LOCK})


def _take_moves(session: Session, batch: int) -> tuple[int, Deltas]:
    rows = session.execute(
        select(
            col(TimelineEntry.id),
            col(TimelineEntry.at),
            col(TimelineEntry.kind),
            col(TimelineEntry.step_id),
            col(TimelineEntry.detail),
            col(TimelineEntry.enrollment_id),
            col(Enrollment.contact_id),
            col(Enrollment.version_id),
            col(Enrollment.campaign_id),
            col(Enrollment.partner_id),
        )
        .join(Enrollment, col(Enrollment.id) == col(TimelineEntry.enrollment_id))
        .where(not_(col(TimelineEntry.rolled)))
        .order_by(col(TimelineEntry.id))
        .limit(batch)
    ).all()
    deltas: Deltas = {}
    for row in rows:
        place = Place(row.version_id, row.step_id, row.campaign_id or 0, row.partner_id)
        for whole, metric in metrics_of_move(row.kind, row.detail):
            _bump(deltas, (place.journey() if whole else place).key(row.at.date(), metric), Tally(1))
    note_entries(session, entries_of(rows))
    _mark(session, TimelineEntry, [row.id for row in rows])
    return len(rows), deltas


def _take_events(session: Session, batch: int) -> tuple[int, Deltas]:
    taken = session.execute(_unrolled_events(batch)).all()
    rows = [row for row in taken if is_possible(row.at, row.received_at)]
    if len(rows) < len(taken):
        log.warning("events with impossible times are counted nowhere: %s", sorted({row.id for row in taken} - {row.id for row in rows}))
    deltas: Deltas = {}
    places = {row.id: place for row in rows if (place := _place_of(row)) is not None}
    for row in rows:
        if row.id not in places:
            continue  # what belongs to no journey, such as an offline purchase, is kept raw and counted nowhere
        fact = RawEvent(row.kind, row.verdict, row.name, row.link, row.first, row.value)
        of_journey = row.kind in (EventKind.converted, EventKind.custom)
        place = places[row.id].journey() if of_journey else places[row.id]
        for metric, tally in metrics_of_event(fact):
            _bump(deltas, place.key(row.at.date(), metric), tally)
    _count_once(session, rows, places, deltas)
    add_hours(session, rows)
    _mark(session, Event, [row.id for row in taken])
    return len(taken), deltas


def _unrolled_events(batch: int) -> Any:
    enrollment_id = func.coalesce(col(Event.enrollment_id), col(Message.enrollment_id))
    return (
        select(
            col(Event.id),
            col(Event.at),
            col(Event.received_at),
            col(Event.kind),
            col(Event.verdict),
            col(Event.name),
            col(Event.link),
            col(Event.first),
            col(Event.value),
            col(Event.message_id),
            col(Event.enrollment_id),
            col(Event.brand_id),
            col(Event.contact_id),
            col(Event.partner_id).label("of_partner_id"),
            func.coalesce(col(Message.step_id), "").label("step_id"),
            func.coalesce(col(Message.version_id), col(Enrollment.version_id)).label("version_id"),
            func.coalesce(col(Message.campaign_id), col(Enrollment.campaign_id), 0).label("campaign_id"),
            func.coalesce(col(Message.partner_id), col(Enrollment.partner_id)).label("partner_id"),
        )
        .outerjoin(Message, col(Message.id) == col(Event.message_id))
        .outerjoin(Enrollment, col(Enrollment.id) == enrollment_id)
        .where(not_(col(Event.rolled)))
        .order_by(col(Event.id))
        .limit(batch)
    )


def _place_of(row: Row[Any]) -> Place | None:
    return None if row.version_id is None else Place(row.version_id, row.step_id, row.campaign_id, row.partner_id)


def _count_once(session: Session, rows: Sequence[Row[Any]], places: Mapping[int, Place], deltas: Deltas) -> None:
    """Count each subject of this batch on the day of its earliest event; one that was counted on a later day moves to this day.

    So the counts do not depend on the order in which events arrive or become visible.
    """
    earliest: dict[Subject, tuple[datetime, Place]] = {}
    for row in rows:
        subject = _subject_of(row)
        if subject is not None and row.id in places and (subject not in earliest or row.at < earliest[subject][0]):
            earliest[subject] = (row.at, places[row.id])
    counted = _counted_at(session, earliest)
    for subject, (at, where) in earliest.items():
        place = where.journey() if subject.kind is EventKind.converted else where
        metric = ONCE_BY_ANYBODY.get(subject.kind) or ONCE_BY_HUMANS[subject.kind]
        before = counted.get(subject)
        if before is None:
            _bump(deltas, place.key(at.date(), metric), Tally(1))
        elif at.date() < before.date():
            _bump(deltas, place.key(before.date(), metric), Tally(-1))
            _bump(deltas, place.key(at.date(), metric), Tally(1))


def _subject_of(row: Row[Any]) -> Subject | None:
    if once_metric(row.kind, row.verdict) is None:
        return None
    if row.enrollment_id is not None and (row.kind is EventKind.converted or row.message_id is None):
        return Subject(row.kind, "enrollment", row.enrollment_id)
    return None if row.message_id is None else Subject(row.kind, "message", row.message_id)


def _counted_at(session: Session, subjects: Iterable[Subject]) -> dict[Subject, datetime]:
    """Return when each subject that is already counted did it first."""
    ids: dict[str, list[int]] = defaultdict(list)
    for subject in subjects:
        ids[subject.of].append(subject.id)
    counted: dict[Subject, datetime] = {}
    for of, column, apart in (
        ("message", col(Event.message_id), or_(col(Event.kind) != EventKind.converted, col(Event.enrollment_id).is_(None))),
        ("enrollment", col(Event.enrollment_id), or_(col(Event.kind) == EventKind.converted, col(Event.message_id).is_(None))),
    ):
        if of in ids:
            once = select(col(Event.kind), column, func.min(col(Event.at))).where(column.in_(ids[of]), col(Event.rolled), apart, _once())
            once = once.where(_was_counted(session))
            for kind, id_, at in session.execute(once.group_by(col(Event.kind), column)).all():
                counted[Subject(kind, of, id_)] = at
    return counted


def _was_counted(session: Session) -> Any:
    """Return the condition that the event's time is possible; see `is_possible`."""
    at, received_at = col(Event.at), col(Event.received_at)
    if on_sqlite(session):  # which compares texts, and knows no year of three digits
        ahead = CLOCKS_DIFFER.total_seconds() / 86_400
        return func.julianday(at).between(literal(2_440_587.5), func.julianday(received_at) + literal(ahead))
    return at.between(EARLIEST, received_at + literal(CLOCKS_DIFFER, Interval()))


def _once() -> Any:
    by_humans = col(Event.kind).in_(list(ONCE_BY_HUMANS)) & (col(Event.verdict) != Verdict.machine)
    return or_(col(Event.kind).in_(list(ONCE_BY_ANYBODY)), by_humans)


def _bump(deltas: Deltas, key: Key, by: Tally) -> None:
    old = deltas.get(key, Tally(0))
    deltas[key] = Tally(old.count + by.count, old.value + by.value)


def _mark(session: Session, table: type[TimelineEntry] | type[Event], ids: list[int]) -> None:
    if ids:
        session.execute(update(table).where(col(table.id).in_(ids)).values(rolled=True), execution_options={"synchronize_session": False})


def _add(session: Session, deltas: Deltas) -> None:
    changes = {key: tally for key, tally in deltas.items() if tally != Tally(0)}
    if not changes:
        return
    insert = insert_into(session, Count)
    statement = insert.on_conflict_do_update(
        index_elements=list(Key._fields),
        set_={"count": col(Count.count) + insert.excluded.count, "value": col(Count.value) + insert.excluded.value},
    )
    rows = [{**key._asdict(), "count": changes[key].count, "value": changes[key].value} for key in sorted(changes)]
    session.connection().execute(statement, rows)


def _journeys_of(session: Session, version_ids: set[int]) -> tuple[int, ...]:
    query = select(col(JourneyVersion.journey_id)).where(col(JourneyVersion.id).in_(version_ids)).distinct()
    return tuple(sorted(session.scalars(query)))
