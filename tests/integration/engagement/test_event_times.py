"""Times of events: bounded where they come in, each for itself; and a stored one that is impossible harms no other."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import text
from sqlmodel import select

from distmark.db import Database
from distmark.engagement.events import MOST_DATA_BYTES, NewEvent, RecordedEvent, record_events
from distmark.engagement.model import EventKind
from distmark.engagement.table import Event
from distmark.errors import InvalidInput
from distmark.metrics.recount import recount
from distmark.metrics.rollup import roll_up
from distmark.metrics.service import metrics
from distmark.sql import id_of, sqlite_time
from tests import factories as make
from tests.factories import NOW
from tests.metrics_rows import AT, fill

IMPOSSIBLE = [
    datetime(999, 6, 1, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-12))),
    NOW + timedelta(hours=2),
    datetime(2026, 11, 24, 1, 0),  # noqa: DTZ001  (without a zone)
]


@pytest.mark.parametrize("at", IMPOSSIBLE, ids=str)
def test_impossible_time_is_refused_in_words_and_keeps_no_other_event_out(db: Database, at: datetime):
    with db.writing() as session:
        contact = make.make_contact(session)
        events = [NewEvent("booked", id_of(contact), at=moment) for moment in (NOW - timedelta(days=1), at, None)]

        answers = record_events(session, contact.brand_id, events, NOW)

        assert [type(answer) for answer in answers] == [RecordedEvent, InvalidInput, RecordedEvent]
        assert "time" in str(answers[1])
        assert len(session.exec(select(Event)).all()) == 2


@pytest.mark.parametrize("at", [datetime(1970, 1, 1, tzinfo=UTC), NOW, NOW + timedelta(minutes=10)], ids=str)
def test_possible_time_is_kept(db: Database, at: datetime):
    with db.writing() as session:
        contact = make.make_contact(session)

        (answer,) = record_events(session, contact.brand_id, [NewEvent("booked", id_of(contact), at=at)], NOW)

        assert isinstance(answer, RecordedEvent)
        assert session.exec(select(Event.at)).one() == at


@pytest.mark.parametrize("length", [MOST_DATA_BYTES, MOST_DATA_BYTES // 3])
def test_too_much_data_is_refused(db: Database, length: int):
    with db.writing() as session:
        contact = make.make_contact(session)

        answers = [
            record_events(session, contact.brand_id, [NewEvent("booked", id_of(contact), data={"note": letter * size})], NOW)[0]
            for letter, size in (("予", length), ("a", 100))
        ]

    assert [type(answer) for answer in answers] == [InvalidInput, RecordedEvent]


def stored(db: Database, number: int, at: datetime, **fields: object) -> None:
    with db.writing() as session:
        row = {"natural_key": f"event-{number}", "kind": EventKind.converted, "name": "bought", "at": at, "received_at": AT}
        whose = {"brand_id": 1, "partner_id": 1, "contact_id": 1, "enrollment_id": 1, "value": 5.0}
        session.add(Event(**row, **whose, **fields))


@pytest.mark.parametrize("bad", [datetime(1, 1, 1, tzinfo=UTC), datetime(999, 6, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)])
def test_stored_event_with_an_impossible_time_is_counted_nowhere_and_the_others_are(db: Database, bad: datetime):
    fill(db)
    stored(db, 1, bad, first=True)
    stored(db, 2, AT)

    rolled = roll_up(db, AT)
    stored(db, 3, AT - timedelta(days=2))  # earlier than the one that was counted: the day of the person's conversion moves
    roll_up(db, AT)

    assert rolled.events == 2
    with db.reading() as session:
        assert all(session.exec(select(Event.rolled)).all())
        counted = metrics(session)
        assert counted == recount(session)
        assert sum(tally.count for key, tally in counted.items() if key.metric == "conversions") == 2
        assert [(key.day, tally.count) for key, tally in counted.items() if key.metric == "converted"] == [
            ((AT - timedelta(days=2)).date(), 1)
        ]


def test_sqlites_text_of_a_year_with_three_digits_can_be_read(db: Database):
    if not db.is_sqlite:
        pytest.skip("Postgres keeps no texts of times")
    fill(db)
    stored(db, 1, AT)
    with db.writing() as session:
        session.execute(text("UPDATE engagement_event SET at = '999-06-01 00:00:00.000000'"))
    stored(db, 2, AT)

    roll_up(db, AT)

    with db.reading() as session:
        assert session.exec(select(Event.at).order_by(Event.id)).all() == [datetime(999, 6, 1, tzinfo=UTC), AT]


def test_time_for_sqlite_has_a_year_of_four_digits():
    assert sqlite_time(datetime(999, 6, 1, 12, 30, tzinfo=UTC)) == "0999-06-01 12:30:00.000000"


@pytest.mark.parametrize("at", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC)])
def test_stored_time_at_the_edge_of_the_calendar_can_be_shown_in_every_zone(db: Database, at: datetime):
    fill(db)
    stored(db, 1, at)

    with db.reading() as session:
        read = session.exec(select(Event.at)).one()

    assert all(read.astimezone(timezone(timedelta(hours=hours))) for hours in (-12, 14))
