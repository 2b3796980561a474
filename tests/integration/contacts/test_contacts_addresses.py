"""Addresses in any spelling at every way in: searches, events, calls of the API; one that cannot be read is not told as unknown."""

from datetime import datetime

import pytest
from sqlmodel import Session, select

from distmark.contacts import service as contacts
from distmark.contacts.people import contacts_by_email
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.engagement.events import NewEvent, RecordedEvent, record_events
from distmark.engagement.table import Event
from distmark.errors import InvalidInput, NotFound
from distmark.sql import id_of
from tests.factories import make_contact, make_partner, make_viewer

SPELLINGS = [
    "Hanako@example.com",
    "ｈａｎａｋｏ＠ｅｘａｍｐｌｅ．ｃｏｍ",
    "mailto:hanako@example.com",
    "鈴木 <hanako@example.com>",
    "hanako@example.com。",
]
PHONES = ["090-1234-5678", "０９０−１２３４−５６７８", "+81 90 1234 5678", "090 1234 5678", "09012345678"]


@pytest.mark.parametrize("written", [*SPELLINGS, *PHONES])
def test_search_finds_an_address_in_any_spelling(db: Database, written: str):
    with db.writing() as session:
        partner = make_partner(session)
        hanako = make_contact(session, partner, email="hanako@example.com", phone="+819012345678")
        make_contact(session, partner, email="other@example.com", phone="+819012345679")

        found = contacts.find_contacts(session, make_viewer(session, partner=partner), written)

        assert [row.id for row in found.rows] == [hanako.id]


@pytest.mark.parametrize("written", ["a..b@docomo.ne.jp", "ａ．．ｂ＠ｄｏｃｏｍｏ．ｎｅ．ｊｐ"])
def test_search_finds_the_address_of_a_carrier(db: Database, written: str):
    with db.writing() as session:
        partner = make_partner(session)
        make_contact(session, partner, email='"a..b"@docomo.ne.jp')

        assert contacts.find_contacts(session, make_viewer(session, partner=partner), written).total == 1


@pytest.mark.parametrize("written", SPELLINGS)
def test_event_by_an_address_in_any_spelling_is_of_the_contact(db: Database, now: datetime, written: str):
    with db.writing() as session:
        hanako = make_contact(session, email="hanako@example.com")

        (answer,) = record_events(session, hanako.brand_id, [NewEvent("booked", email=written, key="k")], now)
        (again,) = record_events(session, hanako.brand_id, [NewEvent("booked", email="hanako@example.com", key="k")], now)

        assert isinstance(answer, RecordedEvent)
        assert answer.contact_id == hanako.id
        assert isinstance(again, RecordedEvent)
        assert again.repeated


def test_event_whose_address_cannot_be_read_is_refused_and_keeps_no_other_out(db: Database, now: datetime):
    with db.writing() as session:
        hanako = make_contact(session, email="hanako@example.com")
        events = [NewEvent("booked", email=email) for email in ("hanako@", "unknown@example.com", "hanako@example.com")]

        answers = record_events(session, hanako.brand_id, events, now)

        assert [type(answer) for answer in answers] == [InvalidInput, NotFound, RecordedEvent]
        assert "hanako" not in str(answers[0])


def test_data_of_an_event_is_cleaned(db: Database, now: datetime):
    with db.writing() as session:
        hanako = make_contact(session)
        data = {"shop": "名古屋\u200b店", "lines": ["a\x07b", {"n": 1}]}

        record_events(session, hanako.brand_id, [NewEvent("booked", id_of(hanako), data=data)], now)

        assert session.exec(select(Event.data)).one() == {"shop": "名古屋店", "lines": ["ab", {"n": 1}]}


def test_contacts_are_found_under_the_spelling_that_was_asked_for(db: Database):
    with db.writing() as session:
        hanako = make_contact(session, email="hanako@example.com")

        found = _found(session, hanako.brand_id, ["ＨＡＮＡＫＯ＠example.com", "hanako@example.com", "other@example.com"])

        assert found == {"ＨＡＮＡＫＯ＠example.com": [hanako.id], "hanako@example.com": [hanako.id]}
        with pytest.raises(InvalidInput):
            _found(session, hanako.brand_id, ["hanako"])


def _found(session: Session, brand_id: int, emails: list[str]) -> dict[str, list[int | None]]:
    found = contacts_by_email(session, select(Contact).where(Contact.brand_id == brand_id), brand_id, emails, None)
    return {email: [row.id for row in rows] for email, rows in found.items()}
