"""Keys of events: one partner's own and of one name; a repetition is answered as such, another content is refused."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlmodel import Session, select

from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.engagement.events import NewEvent, RecordedEvent, record_events
from distmark.engagement.table import Event
from distmark.errors import DistmarkError, Refused
from distmark.partners.table import Brand
from distmark.sql import id_of
from tests import factories as make
from tests.factories import NOW


def contacts_of_two_partners(session: Session) -> tuple[Contact, Contact]:
    brand = make.make_brand(session)
    return make.make_contact(session, make.make_partner(session, brand)), make.make_contact(session, make.make_partner(session, brand))


def told(
    session: Session, contact: Contact, *, by_brand: bool = False, name: str = "booked", **fields: Any
) -> RecordedEvent | DistmarkError:
    event = NewEvent(name, id_of(contact), **fields)
    partner_id = None if by_brand else contact.partner_id
    return record_events(session, contact.brand_id, [event], NOW, partner_id=partner_id)[0]


def test_key_of_another_partner_is_free(db: Database):
    with db.writing() as session:
        mine, theirs = contacts_of_two_partners(session)

        first, second = told(session, mine, key="1"), told(session, theirs, key="1")

    assert isinstance(first, RecordedEvent)
    assert isinstance(second, RecordedEvent)
    assert not second.repeated
    assert second.contact_id == theirs.id


def test_key_of_the_brand_is_free_for_a_partner_and_the_other_way_round(db: Database):
    with db.writing() as session:
        mine, theirs = contacts_of_two_partners(session)

        answers = [told(session, mine, by_brand=True, key="1"), told(session, theirs, key="1"), told(session, mine, key="1")]

    assert [getattr(answer, "repeated", answer) for answer in answers] == [False, False, False]


def test_key_of_another_name_is_free(db: Database):
    with db.writing() as session:
        mine, _theirs = contacts_of_two_partners(session)

        answers = [told(session, mine, name=name, key="1") for name in ("booked", "bought")]

    assert [getattr(answer, "repeated", answer) for answer in answers] == [False, False]


@pytest.mark.parametrize(
    "other",
    [
        {"value": 9800.0},
        {"data": {"seats": 3}},
        {"at": NOW - timedelta(days=1)},
        {"conversion": True},
    ],
)
def test_other_content_under_the_same_key_is_refused_and_changes_nothing(db: Database, other: dict[str, Any]):
    with db.writing() as session:
        mine, _theirs = contacts_of_two_partners(session)
        told(session, mine, key="1")

        answer = told(session, mine, key="1", **other)

        assert isinstance(answer, Refused)
        assert 'The key "1"' in str(answer)
        (event,) = session.exec(select(Event)).all()
        assert (event.value, event.data) == (None, {})


def test_other_contact_under_the_same_key_is_refused_without_the_first_contacts_id(db: Database):
    with db.writing() as session:
        mine, _theirs = contacts_of_two_partners(session)
        colleague = make.make_contact(session, session.get(type(make.make_partner(session)), mine.partner_id))
        told(session, mine, key="booking-x")

        answer = told(session, colleague, key="booking-x")

    assert isinstance(answer, Refused)
    assert str(mine.id) not in str(answer).replace("booking-x", "")


def test_same_content_under_the_same_key_is_a_repetition_in_whatever_zone_its_time_is_written(db: Database):
    at = NOW - timedelta(hours=3)
    with db.writing() as session:
        mine, _theirs = contacts_of_two_partners(session)
        first = told(session, mine, key="1", at=at, value=10, data={"a": 1, "b": [2]})

        again = told(session, mine, key="1", at=at.astimezone(timezone(timedelta(hours=9))), value=10.0, data={"b": [2], "a": 1})

    assert isinstance(first, RecordedEvent)
    assert again == RecordedEvent(first.event_id, first.contact_id, repeated=True)


def test_in_one_list_a_repetition_is_told_from_other_content(db: Database):
    with db.writing() as session:
        mine, _theirs = contacts_of_two_partners(session)
        events = [NewEvent("booked", id_of(mine), key="1", value=value) for value in (5, 5, 6)]

        answers = record_events(session, mine.brand_id, events, NOW, partner_id=mine.partner_id)

    assert [getattr(answer, "repeated", type(answer).__name__) for answer in answers] == [False, True, "Refused"]


def test_two_events_of_one_moment_without_a_key_are_both_recorded_and_each_only_once(db: Database):
    at = datetime(2026, 11, 20, tzinfo=UTC)
    with db.writing() as session:
        mine, _theirs = contacts_of_two_partners(session)

        answers = [told(session, mine, name="bought", at=at, value=value) for value in (100.0, 200.0, 100.0)]

    assert [getattr(answer, "repeated", answer) for answer in answers] == [False, False, True]


def test_brand_is_not_named_by_a_key(db: Database):
    """The same key in two brands, both told by the brand."""
    with db.writing() as session:
        contacts = [make.make_contact(session, make.make_partner(session, make.make_brand(session))) for _ in range(2)]

        answers = [told(session, contact, by_brand=True, key="1") for contact in contacts]

        assert [getattr(answer, "repeated", answer) for answer in answers] == [False, False]
        assert len(session.exec(select(Brand)).all()) == 2
