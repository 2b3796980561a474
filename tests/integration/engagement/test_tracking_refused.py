"""Opens and clicks of people who refused that they are recorded; and how many rows one holder of a message's links can make."""

from datetime import timedelta

import pytest
from sqlmodel import Session, select

from distmark.contacts.consents import record_consent
from distmark.db import Database
from distmark.engagement.model import EventKind
from distmark.engagement.opens_clicks import MOST_OF_MESSAGE
from distmark.engagement.service import Reading, click, open_pixel, record_readings
from distmark.engagement.table import Event
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.partners.table import Partner
from distmark.sql import id_of
from tests import factories as make
from tests.factories import NOW

PERSON = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"


def sent_message(session: Session, **fields: object) -> Message:
    member = make.make_member(session, contact=make.make_contact(session, **fields))
    enrollment = make.make_enrollment(session, member)
    message = Message(
        token=f"token-{enrollment.id}",
        header_id=f"<{enrollment.id}@distmark.example>",
        enrollment_id=enrollment.id,
        step_id="welcome",
        brand_id=enrollment.brand_id,
        partner_id=enrollment.partner_id,
        contact_id=enrollment.contact_id,
        version_id=enrollment.version_id,
        channel="email",
        name="welcome",
        language="ja",
        subject="x",
        links={"plans": "https://mirai.example/plans", "book": "https://mirai.example/book"},
        status=MessageStatus.sent,
        created_at=NOW - timedelta(hours=1),
        sent_at=NOW - timedelta(hours=1),
    )
    session.add(message)
    session.flush()
    return message


def kinds(session: Session) -> list[EventKind]:
    return list(session.exec(select(Event.kind).order_by(Event.id)))


@pytest.mark.parametrize(
    ("refused", "recorded"),
    [
        ([], [EventKind.opened, EventKind.clicked]),
        (["open_tracking"], [EventKind.clicked]),
        (["click_tracking"], [EventKind.opened]),
        (["open_tracking", "click_tracking"], []),
    ],
)
def test_what_a_person_refused_is_not_recorded_and_the_link_leads_on(db: Database, refused: list[str], recorded: list[EventKind]):
    with db.writing() as session:
        message = sent_message(session)
        for channel in refused:
            record_consent(session, message.contact_id, channel, given=False, now=NOW)

        open_pixel(session, message.token, PERSON, NOW)
        target = click(session, message.token, "plans", PERSON, NOW + timedelta(minutes=1))
        session.refresh(message)

        assert target == "https://mirai.example/plans"
        assert kinds(session) == recorded
        assert (message.opened_at is not None) == (EventKind.opened in recorded)
        assert bool(message.clicks) == (message.clicked_at is not None) == (EventKind.clicked in recorded)


def test_click_implies_no_open_that_was_refused(db: Database):
    with db.writing() as session:
        message = sent_message(session)
        record_consent(session, message.contact_id, "open_tracking", given=False, now=NOW)

        click(session, message.token, "plans", PERSON, NOW)
        session.refresh(message)

        assert kinds(session) == [EventKind.clicked]
        assert message.opened_at is None


def test_newest_word_counts(db: Database):
    with db.writing() as session:
        message = sent_message(session)
        record_consent(session, message.contact_id, "open_tracking", given=False, now=NOW - timedelta(days=2))
        record_consent(session, message.contact_id, "open_tracking", given=True, now=NOW - timedelta(days=1))

        open_pixel(session, message.token, PERSON, NOW)

        assert kinds(session) == [EventKind.opened]


def test_refusal_in_another_partners_book_holds_within_the_brand_only(db: Database):
    with db.writing() as session:
        message = sent_message(session, email="same@example.com")
        brand_id = message.brand_id
        foreign = make.make_contact(session, make.make_partner(session, make.make_brand(session)), email="same@example.com")
        record_consent(session, id_of(foreign), "open_tracking", given=False, now=NOW)
        open_pixel(session, message.token, PERSON, NOW)
        assert kinds(session) == [EventKind.opened]
        brand = session.get_one(Partner, message.partner_id).brand_id
        twin = make.make_contact(
            session, make.make_partner(session, session.get(type(make.make_brand(session)), brand)), email="same@example.com"
        )
        record_consent(session, id_of(twin), "open_tracking", given=False, now=NOW)

        open_pixel(session, message.token, PERSON, NOW + timedelta(hours=1))

        assert brand == brand_id
        assert kinds(session) == [EventKind.opened]


def test_holder_of_a_link_makes_a_bounded_number_of_rows_and_first_clicks_are_still_kept(db: Database):
    with db.writing() as session:
        message = sent_message(session)
        flood = [Reading(message.token, NOW + timedelta(seconds=number), f"{PERSON} {number}") for number in range(3 * MOST_OF_MESSAGE)]

        for part in (flood[:50], flood[50:]):
            record_readings(session, part)
        click(session, message.token, "book", PERSON, NOW + timedelta(days=1))
        session.refresh(message)

        assert len(kinds(session)) == MOST_OF_MESSAGE + 1
        assert list(message.clicks) == ["book"]
