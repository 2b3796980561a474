"""What a person does under any address, as a contact of any partner of the brand, counts in all journeys that the person is in."""

from datetime import timedelta

import pytest

from distmark.clock import FixedClock
from distmark.contacts.consents import record_consent
from distmark.contacts.fields import ContactInput
from distmark.contacts.service import update_contact
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.engagement.service import record_event, resubscribe, unsubscribe
from distmark.engagement.table import Event
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.service import wake_person
from distmark.entries.api_calls import EntryCall, RequestedContact, enter_by_call
from distmark.entries.model import EnrolVerdict
from distmark.entries.service import enrol
from distmark.journeys.table import Journey
from distmark.partners.table import Brand, Partner
from distmark.sql import id_of
from tests import factories
from tests.driver import Stage

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
OLD, NEW = "hanako@exmaple.com", "hanako@example.com"
WAITING = """
  - {id: first, send: email, message: one}
  - {id: booking, wait: {event: booked, timeout: 7 days, on_timeout: remind}}
  - {id: done, exit: booked}
  - {id: remind, send: email, message: two}
"""
HEAD = "events: [booked, joined, lapsed]\ngoal: {when: \"converted('joined')\"}\nexit: [{when: \"happened('lapsed')\", reason: lapsed}]"
CAPPED = "  - {id: first, send: email, message: one}\n  - {id: rest, wait: {for: 1 hour}}\n  - {id: second, send: email, message: two}\n"


class TwoBooks(Stage):
    """A stage with a second partner of the same brand."""

    def __post_init__(self) -> None:
        super().__post_init__()
        with self.db.writing() as session:
            self.neighbour = factories.make_partner(session, session.get_one(Brand, self.brand.id))
            self.neighbour_viewer = factories.make_viewer(session, partner=self.neighbour)

    def neighbours(self, **fields: object) -> Contact:
        with self.db.writing() as session:
            contact = factories.make_contact(session, session.get_one(Partner, self.neighbour.id), **fields)
            record_consent(session, id_of(contact), "email", given=True, now=self.clock.now(), source="test")
            return contact

    def enrol_theirs(self, campaign, *contacts: Contact):
        with self.db.writing() as session:
            return enrol(session, self.neighbour_viewer, campaign.id, [contact.id for contact in contacts], self.clock.now())

    def correct(self, contact: Contact, **fields: object) -> None:
        viewer = self.viewer if contact.partner_id == self.partner.id else self.neighbour_viewer
        with self.db.writing() as session:
            update_contact(session, viewer, id_of(contact), ContactInput(**fields), self.clock.now())

    def happen(self, name: str, email: str, partner: Partner | None = None) -> None:
        with self.db.writing() as session:
            record_event(session, self.brand.id, name, self.clock.now(), email=email, partner_id=partner.id if partner else None)

    def tell(self, contact: Contact, *, given: bool, channel: str = "email") -> None:
        """Record what the contact told its partner, as its page does."""
        with self.db.writing() as session:
            record_consent(session, id_of(contact), channel, given=given, now=self.clock.now(), source="told the partner")
            wake_person(session, self.brand.id, contact.person_key, self.clock.now())

    def unsubscribe(self, contact: Contact) -> None:
        with self.db.writing() as session:
            unsubscribe(session, self.messages(contact)[0].token, self.clock.now())


@pytest.fixture
def stage(db: Database, clock: FixedClock) -> TwoBooks:
    return TwoBooks(db, clock)


@pytest.mark.parametrize("event", ["booked", "joined", "lapsed"])
@pytest.mark.parametrize("address", [OLD, NEW])
async def test_event_under_either_address_reaches_the_journey(stage: TwoBooks, event: str, address: str):
    contact = stage.contact(email=OLD)
    stage.enrol(stage.journey(WAITING, HEAD), contact)
    await stage.run_for(HOUR)
    stage.correct(contact, email=NEW)

    stage.happen(event, address)
    await stage.run_for(HOUR)

    assert stage.enrollment(contact).status is EnrollmentStatus.ended


@pytest.mark.parametrize("event", ["booked", "joined", "lapsed"])
@pytest.mark.parametrize("by_partner", [True, False])
async def test_event_of_one_partners_contact_ends_the_journeys_of_both(stage: TwoBooks, event: str, by_partner: bool):
    mine, theirs = stage.contact(email=NEW), stage.neighbours(email=NEW)
    stage.enrol(stage.journey(WAITING, HEAD), mine)
    stage.enrol_theirs(stage.journey(WAITING, HEAD), theirs)
    await stage.run_for(HOUR)

    stage.happen(event, NEW, stage.neighbour if by_partner else None)
    await stage.run_for(HOUR)

    assert [stage.enrollment(each).status for each in (mine, theirs)] == [EnrollmentStatus.ended] * 2
    assert len(stage.messages()) == 2


async def test_event_counts_in_the_journey_that_has_it_as_its_goal_though_the_person_entered_another_later(stage: TwoBooks):
    contact = stage.contact(email=NEW)
    stage.enrol(stage.journey(WAITING, HEAD), contact)
    await stage.run_for(HOUR)
    goal_of = stage.enrollment(contact)
    stage.enrol(stage.journey(WAITING, "events: [booked]"), contact)
    await stage.run_for(HOUR)

    with stage.db.writing() as session:
        recorded = record_event(session, stage.brand.id, "joined", stage.clock.now(), email=NEW)
        event = session.get_one(Event, recorded.event_id)

    assert (event.kind, event.enrollment_id) == ("converted", goal_of.id)


async def test_unsubscribe_from_one_partners_mail_ends_the_journeys_of_both_under_different_addresses(stage: TwoBooks):
    mine, theirs = stage.contact(email=OLD), stage.neighbours(email=OLD)
    stage.enrol(stage.journey(WAITING), mine)
    stage.enrol_theirs(stage.journey(WAITING), theirs)
    await stage.run_for(HOUR)
    stage.correct(theirs, email=NEW)

    stage.unsubscribe(mine)
    await stage.run_for(HOUR)

    assert [stage.enrollment(each).outcome for each in (mine, theirs)] == ["unsubscribed"] * 2
    assert stage.enrol_theirs(stage.journey(WAITING), theirs)[0].verdict is EnrolVerdict.suppressed


async def test_person_who_takes_an_unsubscribe_back_is_written_to_again_under_the_corrected_address(stage: TwoBooks):
    contact = stage.contact(email=OLD)
    stage.enrol(stage.journey(WAITING), contact)
    await stage.run_for(HOUR)
    stage.unsubscribe(contact)
    stage.correct(contact, email=NEW)

    with stage.db.writing() as session:
        shown = resubscribe(session, stage.messages(contact)[0].token, stage.clock.now())

    assert shown is not None
    assert not shown.done
    assert stage.enrol(stage.journey(WAITING), contact)[0].verdict is EnrolVerdict.enrolled


@pytest.mark.parametrize("fields", [{"email": NEW}, {"email": NEW, "phone": "090-1111-2222"}, {"phone": "090-1111-2222"}])
async def test_person_inside_does_not_enter_again_under_a_corrected_address(stage: TwoBooks, fields: dict[str, str]):
    contact, campaign = stage.contact(email=OLD), stage.journey(WAITING)
    stage.enrol(campaign, contact)
    await stage.run_for(HOUR)

    stage.correct(contact, **fields)

    assert stage.enrol(campaign, contact)[0].verdict is EnrolVerdict.already_in
    theirs = stage.neighbours(email="taro@example.com")
    stage.correct(theirs, email=fields.get("email", OLD))
    assert stage.enrol_theirs(campaign, theirs)[0].verdict is EnrolVerdict.other_partner


async def test_two_live_enrollments_of_two_persons_that_prove_to_be_one_both_go_on_and_nobody_enters_a_third_time(stage: TwoBooks):
    mine, theirs, campaign = stage.contact(email=OLD), stage.neighbours(email=NEW), stage.journey(CAPPED)
    stage.enrol(campaign, mine)
    stage.enrol_theirs(campaign, theirs)
    await stage.run_for(timedelta(minutes=10))

    stage.correct(mine, email=NEW)
    assert stage.enrol(campaign, mine)[0].verdict is EnrolVerdict.other_partner
    await stage.run_for(DAY)

    assert [stage.enrollment(each).outcome for each in (mine, theirs)] == ["completed"] * 2
    assert stage.enrollment(mine).person_key == stage.enrollment(theirs).person_key


async def test_cap_counts_messages_under_all_addresses_and_of_all_partners(stage: TwoBooks):
    capped = "send_policy: {caps: 1 per week}"
    mine, theirs = stage.contact(email=OLD), stage.neighbours(email=OLD)
    stage.enrol(stage.journey(CAPPED, capped), mine)
    await stage.run_for(timedelta(minutes=10))
    stage.correct(mine, email=NEW)
    stage.correct(theirs, email=NEW)

    stage.enrol_theirs(stage.journey(CAPPED, capped), theirs)
    await stage.run_for(2 * DAY)

    assert len(stage.messages()) == 1


async def test_condition_about_messages_lately_counts_those_of_the_other_partner(stage: TwoBooks):
    asked = "  - {id: asked, branch: [{when: 'written(7) > 0', steps: [{id: out, exit: enough}]}]}\n"
    mine, theirs = stage.contact(email=NEW), stage.neighbours(email=NEW)
    stage.enrol(stage.journey(CAPPED), mine)
    await stage.run_for(timedelta(minutes=10))

    stage.enrol_theirs(stage.journey(asked), theirs)
    await stage.run_for(HOUR)

    assert (stage.enrollment(theirs).step_id, stage.messages(theirs)) == ("out", [])


async def test_call_of_the_api_enters_the_contact_by_its_earlier_address(stage: TwoBooks):
    contact, campaign = stage.contact(email=OLD), stage.journey(WAITING)
    stage.correct(contact, email=NEW)

    with stage.db.writing() as session:
        key = session.get_one(Journey, campaign.journey_id).key
        contacts = [RequestedContact(email=OLD), RequestedContact(email=NEW)]
        answers = enter_by_call(session, stage.viewer, EntryCall(key, contacts), stage.clock.now()).answers

    assert [(each.verdict, each.contact_id) for each in answers] == [("enrolled", contact.id), ("already_in", contact.id)]


async def test_refusal_that_one_partner_was_told_ends_the_journeys_of_both_until_the_other_is_told_an_agreement(stage: TwoBooks):
    mine, theirs = stage.contact(email=NEW), stage.neighbours(email=NEW)
    stage.enrol(stage.journey(WAITING), mine)
    stage.enrol_theirs(stage.journey(WAITING), theirs)
    await stage.run_for(HOUR)

    stage.tell(mine, given=False)
    await stage.run_for(HOUR)

    assert [stage.enrollment(each).outcome for each in (mine, theirs)] == ["unsubscribed"] * 2
    assert stage.enrol_theirs(stage.journey(WAITING), theirs)[0].verdict is EnrolVerdict.no_consent
    stage.clock.move(HOUR)
    stage.tell(theirs, given=True)
    assert stage.enrol_theirs(stage.journey(WAITING), theirs)[0].verdict is EnrolVerdict.enrolled
    assert stage.enrol(stage.journey(WAITING), mine)[0].verdict is EnrolVerdict.no_consent


async def test_refusal_that_was_taken_back_stops_no_other_partner(stage: TwoBooks):
    mine, theirs = stage.contact(email=NEW), stage.neighbours(email=NEW)
    for given in (False, True):
        stage.clock.move(HOUR)
        stage.tell(mine, given=given)

    assert stage.enrol_theirs(stage.journey(WAITING), theirs)[0].verdict is EnrolVerdict.enrolled


async def test_agreement_that_one_partner_was_told_is_none_for_the_other(stage: TwoBooks):
    with stage.db.writing() as session:
        theirs = factories.make_contact(session, session.get_one(Partner, stage.neighbour.id), email=NEW)
    stage.contact(email=NEW)

    assert stage.enrol_theirs(stage.journey(WAITING), theirs)[0].verdict is EnrolVerdict.no_consent


SENDS = {
    "sms": "  - {id: text, send: sms, message: nudge}\n",
    "email": "  - {id: mail, send: email, message: one}\n",
    "none": "  - {id: call, task: {for: partner, title: Call}}\n",
}


@pytest.mark.parametrize(
    ("sends", "refused", "outcome"),
    [
        (["email"], "email", "unsubscribed"),
        (["email"], "sms", "completed"),
        (["sms"], "sms", "unsubscribed"),
        (["sms"], "email", "completed"),
        (["sms", "email"], "sms", "completed"),
        (["sms", "email"], "email", "unsubscribed"),
        (["none"], "email", "unsubscribed"),
        (["none"], "sms", "completed"),
    ],
)
async def test_refusal_of_mail_ends_the_journeys_with_mail_and_of_another_channel_those_that_write_by_it_alone(
    stage: TwoBooks, sends: list[str], refused: str, outcome: str
):
    contact = stage.contact(email=NEW)
    stage.enrol(stage.journey("".join(SENDS[each] for each in sends) + "  - {id: rest, wait: {for: 2 hours}}\n"), contact)
    await stage.run_for(HOUR)

    stage.tell(contact, given=False, channel=refused)
    await stage.run_for(DAY)

    assert stage.enrollment(contact).outcome == outcome
