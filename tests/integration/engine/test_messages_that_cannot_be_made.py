"""A message that cannot be made parks its person, is shown and sounds an alarm; nobody ends as completed who was not written to."""

from dataclasses import replace
from datetime import timedelta

import pytest

from distmark.channels.base import OutgoingMessage, Receipt
from distmark.channels.email.mime import build
from distmark.channels.memory import MemoryChannel
from distmark.clock import FixedClock
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.engine.wake import EngineContext
from distmark.enrollments.model import UNMADE, EnrollmentStatus, TimelineKind
from distmark.journeys.service import newest_registered, program_of, source_of
from distmark.messages.makeable import unmakeable
from distmark.messages.model import MessageStatus
from distmark.operations.alarms import update_alarms
from distmark.operations.model import AlarmKind
from distmark.operations.parked import parked, retry_parked
from distmark.operations.table import Alarm
from distmark.operations.unmade import unmade_count, unmade_in
from distmark.partners.table import Brand
from tests.driver import Stage

ONE = "  - {id: first, send: email, message: one}\n"
NAMED = {"one.ja.subject.txt": "{{ contact.first_name }}さんへ"}


@pytest.fixture
def stage(db: Database, clock: FixedClock) -> Stage:
    return Stage(db, clock)


def alarms_of(stage: Stage) -> list[tuple[AlarmKind, dict[str, object]]]:
    with stage.db.writing() as session:
        changes = update_alarms(session, stage.clock)
        return [(row.kind, row.detail) for row in (session.get_one(Alarm, alarm_id) for alarm_id in changes.raised)]


async def test_a_person_whose_value_is_missing_is_parked_at_once_and_the_others_go_on(stage: Stage) -> None:
    nameless, hanako = stage.contact(first_name=""), stage.contact(first_name="花子")
    campaign = stage.journey(ONE, templates=NAMED)
    stage.enrol(campaign, nameless, hanako)

    await stage.run_for(timedelta(minutes=1))

    row = stage.enrollment(nameless)
    assert (row.status, row.why, row.rules, row.step_id) == (EnrollmentStatus.parked, UNMADE, ["unmade:contact.first_name"], "first")
    assert "contact.first_name" in row.error
    assert stage.messages(nameless) == []
    assert stage.moves(nameless)[-1].kind is TimelineKind.error
    assert (stage.enrollment(hanako).outcome, len(stage.mail.accepted)) == ("completed", 1)
    with stage.db.reading() as session:
        assert unmade_count(session, stage.marketer) == 1
        assert [(contact.id, why) for contact, why in unmade_in(session, stage.marketer, campaign.id).first] == [
            (nameless.id, "unmade:contact.first_name")
        ]
        assert [shown.enrollment.id for shown in parked(session, stage.marketer)] == [row.id]


async def test_messages_that_cannot_be_made_sound_an_alarm_until_they_can(stage: Stage) -> None:
    people = [stage.contact(first_name="") for _ in range(3)]
    stage.enrol(stage.journey(ONE, templates=NAMED), *people)
    await stage.run_for(timedelta(minutes=1))

    assert alarms_of(stage) == [(AlarmKind.unmade, {"count": 3})]

    with stage.db.writing() as session:
        for person in people:
            session.get_one(Contact, person.id).first_name = "花子"
    with stage.db.writing() as session:
        retry_parked(session, stage.marketer, [stage.enrollment(person).id for person in people], stage.clock.now())
    await stage.run_for(timedelta(minutes=1))

    assert [stage.enrollment(person).outcome for person in people] == ["completed"] * 3
    assert len(stage.mail.accepted) == 3
    assert alarms_of(stage) == []
    with stage.db.reading() as session:
        assert unmade_count(session, stage.marketer) == 0


async def test_a_template_that_fails_for_this_person_alone_parks_this_person(stage: Stage) -> None:
    odd, usual = stage.contact(attributes={"url": "javascript:x"}), stage.contact(attributes={"url": "https://a.example/x"})
    body = (
        "<mjml><mj-body><mj-section><mj-column><mj-button href='{{ contact.url }}'>x</mj-button>"
        "<mj-text>{{ legal_footer }}</mj-text></mj-column></mj-section></mj-body></mjml>"
    )
    stage.enrol(stage.journey(ONE, head="contact_fields: {url: text}\n", templates={"one.ja.mjml": body}), odd, usual)

    await stage.run_for(timedelta(minutes=1))

    assert stage.enrollment(odd).rules == ["unmade:links.link-1"]
    assert stage.enrollment(usual).outcome == "completed"


class PickyChannel(MemoryChannel):
    """Writes a message as mail, as the channel of mail does before it asks a server."""

    async def deliver(self, message: OutgoingMessage) -> Receipt:
        build(message)
        return await super().deliver(message)


async def test_a_sender_that_cannot_be_written_parks_everybody_and_each_gets_one_mail_once_it_can(stage: Stage) -> None:
    stage.mail, person = PickyChannel(), stage.contact()
    with stage.db.writing() as session:
        session.get_one(Brand, stage.brand.id).mail_from = "nobody"
    stage.enrol(stage.journey(ONE), person)

    await stage.run_for(timedelta(minutes=1))

    assert (stage.enrollment(person).status, stage.enrollment(person).why) == (EnrollmentStatus.parked, UNMADE)
    assert [row.status for row in stage.messages(person)] == [MessageStatus.deferred]

    with stage.db.writing() as session:
        session.get_one(Brand, stage.brand.id).mail_from = "hello@mirai.example"
    with stage.db.writing() as session:
        retry_parked(session, stage.marketer, [stage.enrollment(person).id], stage.clock.now())
    await stage.run_for(timedelta(minutes=1))

    assert stage.enrollment(person).outcome == "completed"
    assert [row.status for row in stage.messages(person)] == [MessageStatus.sent]
    assert len(stage.mail.accepted) == 1


async def test_a_channel_that_the_installation_lacks_parks_and_finishes_nobody(db: Database, clock: FixedClock) -> None:
    class WithoutMail(Stage):
        @property
        def context(self) -> EngineContext:
            return replace(super().context, channels={})

    stage = WithoutMail(db, clock)
    person = stage.contact()
    stage.enrol(stage.journey(ONE), person)

    await stage.run_for(timedelta(minutes=1))

    assert (stage.enrollment(person).status, stage.enrollment(person).outcome) == (EnrollmentStatus.parked, None)
    assert "no channel" in stage.enrollment(person).error


def test_before_anybody_begins_it_is_known_whom_no_message_can_be_made_for(stage: Stage) -> None:
    nameless, hanako = stage.contact(first_name=""), stage.contact(first_name="花子")
    campaign = stage.journey(ONE, templates=NAMED)

    with stage.db.reading() as session:
        version = newest_registered(session, campaign.journey_id)
        assert version is not None
        found = unmakeable(session, program_of(session, version.id), source_of(version), campaign, [nameless, hanako])

    assert [(each.contact.id, each.step.id, each.slot) for each in found] == [(nameless.id, "first", "contact.first_name")]
