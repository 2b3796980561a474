"""Each reason for which a message must not be sent has its own word, in the ledger and on pages, in both languages."""

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from distmark.clock import FixedClock
from distmark.contacts.consents import suppress_contact
from distmark.contacts.model import SuppressionReason
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.entries.model import EnrolVerdict
from distmark.messages.model import MessageStatus
from distmark.web.i18n import LANGUAGES, Translator
from distmark.web.labels import SUPPRESSION, VERDICT
from distmark.web.pages.contact_timeline import message_label
from tests.driver import Stage

WAIT_AND_SEND = "  - {id: pause, wait: {for: 2 hours}}\n  - {id: first, send: email, message: one}\n"


@pytest.fixture
def stage(db: Database, clock: FixedClock) -> Stage:
    return Stage(db, clock)


def stop(stage: Stage, contact: Contact, reason: SuppressionReason) -> None:
    with stage.db.writing() as session:
        suppress_contact(session, session.get_one(Contact, contact.id), "email", reason, stage.clock.now())


@pytest.mark.parametrize("reason", [SuppressionReason.bounced, SuppressionReason.manual])
async def test_a_message_that_a_suppression_stops_says_which(stage: Stage, reason: SuppressionReason) -> None:
    person = stage.contact()
    stage.enrol(stage.journey(WAIT_AND_SEND), person)
    await stage.run_for(timedelta(hours=1))
    stop(stage, person, reason)

    await stage.run_for(timedelta(hours=2))

    [row] = stage.messages(person)
    assert (row.status, row.detail) == (MessageStatus.suppressed, reason.value)
    assert message_label(row) is SUPPRESSION[reason.value]


async def test_a_missing_address_is_not_called_unsubscribed(stage: Stage) -> None:
    steps = "  - {id: pause, wait: {for: 2 hours}}\n  - {id: first, send: sms, message: text}\n"
    person = stage.contact(phone="+819012345679")
    stage.enrol(stage.journey(steps, templates={"text.ja.sms.txt": "x {{ legal_footer }}"}), person)
    await stage.run_for(timedelta(hours=1))
    with stage.db.writing() as session:
        session.get_one(Contact, person.id).phone = None

    await stage.run_for(timedelta(hours=2))

    assert message_label(stage.messages(person)[0]).text == "Not sent: no address for this channel"


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        (SuppressionReason.unsubscribed, EnrolVerdict.suppressed),
        (SuppressionReason.bounced, EnrolVerdict.bounced),
        (SuppressionReason.complained, EnrolVerdict.complained),
        (SuppressionReason.manual, EnrolVerdict.blocked),
    ],
)
def test_a_person_who_cannot_begin_is_told_apart_by_the_reason(stage: Stage, reason: SuppressionReason, verdict: EnrolVerdict) -> None:
    person = stage.contact()
    stop(stage, person, reason)

    assert [each.verdict for each in stage.enrol(stage.journey(WAIT_AND_SEND), person)] == [verdict]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_reasons_share_their_words(language: str) -> None:
    translator = Translator(language, ZoneInfo("Asia/Tokyo"))

    for words in ([label.text for label in SUPPRESSION.values()], list(VERDICT.values())):
        said = [translator.gettext(text) for text in words]
        assert len(set(said)) == len(said)
