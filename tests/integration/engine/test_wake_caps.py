"""How often a person is written to, whichever journey, partner or worker asks."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from distmark.channels.memory import Fault
from distmark.contacts.consents import record_consent
from distmark.enrollments.model import TimelineKind
from distmark.enrollments.table import Enrollment
from distmark.entries.service import enrol
from distmark.journeys.table import JourneyVersion
from distmark.messages.model import MessageStatus
from tests import factories
from tests.driver import Stage, wake_together

DAY = timedelta(days=1)
ONE_MAIL = "  - {id: first, send: email, message: one}\n"
ONE_SMS = "  - {id: text, send: sms, message: nudge}\n"
ONE_A_DAY = "send_policy: {caps: 1 per day}"
# The clock stands at Tuesday 24 November 2026, 10:00 in Tokyo.
MIDNIGHT = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)  # 25 November 00:00 in Tokyo


def in_other_book(stage: Stage, email: str):
    """Return a viewer of another partner of the brand, and that partner's contact with the same mail address."""
    with stage.db.writing() as session:
        other = factories.make_partner(session, session.get_one(type(stage.brand), stage.brand.id))
        viewer = factories.make_viewer(session, partner=other)
        contact = factories.make_contact(session, other, email=email)
        record_consent(session, contact.id, "email", given=True, now=stage.clock.now(), source="test")
    return viewer, contact


async def test_cap_counts_the_messages_of_every_journey(stage: Stage) -> None:
    first, second = stage.journey(ONE_MAIL, ONE_A_DAY), stage.journey(ONE_MAIL, ONE_A_DAY)
    hanako = stage.contact()
    stage.enrol(first, hanako)
    await stage.run_for(timedelta(hours=1))
    stage.enrol(second, hanako)

    await stage.run_for(timedelta(hours=1))

    held = stage.enrollment(hanako)
    assert (held.why, held.rules, held.due_at) == ("held", ["cap_day:1"], MIDNIGHT)
    await stage.run_for(DAY)
    assert len(stage.mail.accepted) == 2
    assert stage.enrollment(hanako).outcome == "completed"


async def test_cap_counts_the_person_and_not_the_row_in_one_book(stage: Stage) -> None:
    own_contact = stage.contact(email="hanako@example.com")
    viewer, same = in_other_book(stage, "Hanako@Example.com")
    first, second = stage.journey(ONE_MAIL, ONE_A_DAY), stage.journey(ONE_MAIL, ONE_A_DAY)
    stage.enrol(first, own_contact)
    with stage.db.writing() as session:
        enrol(session, viewer, second.id, [same.id], stage.clock.now())

    await stage.run_for(timedelta(hours=1))

    assert len(stage.mail.accepted) == 1
    assert stage.enrollment(same).rules == ["cap_day:1"]


async def test_cap_counts_what_is_being_sent_in_the_same_breath(stage: Stage) -> None:
    campaign = stage.journey(ONE_MAIL, ONE_A_DAY + "\nentry: {reentry: any_time}")
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    stage.enrol(campaign, hanako)
    with stage.db.writing() as session:  # one run carries both
        session.execute(update(Enrollment).values(run_key="together"))

    await stage.run_for(timedelta(hours=1))

    assert len(stage.mail.accepted) == 1


async def test_two_messages_of_one_wake_are_two(stage: Stage) -> None:
    campaign = stage.journey(ONE_MAIL + "  - {id: second, send: email, message: two}\n", ONE_A_DAY)
    hanako = stage.contact()
    stage.enrol(campaign, hanako)

    await stage.run_for(timedelta(hours=1))

    assert [message.step_id for message in stage.messages(hanako)] == ["first"]
    assert (stage.enrollment(hanako).step_id, stage.enrollment(hanako).rules) == ("second", ["cap_day:1"])


async def test_each_channel_has_its_own_count(stage: Stage) -> None:
    campaign = stage.journey(ONE_MAIL + ONE_SMS, ONE_A_DAY)
    hanako = stage.contact()
    stage.enrol(campaign, hanako)

    await stage.run_for(timedelta(hours=1))

    assert (len(stage.mail.accepted), len(stage.sms.accepted)) == (1, 1)


async def test_caps_neither_hold_nor_count_transactional_messages(stage: Stage) -> None:
    """U5"""
    service = "  - {id: receipt, send: email, message: two, kind: transactional}\n"
    campaign = stage.journey(ONE_MAIL + service, ONE_A_DAY)
    receipts = stage.journey(service, "send_policy: {caps: none}")
    hanako, taro = stage.contact(), stage.contact()
    stage.enrol(receipts, taro)
    await stage.run_for(timedelta(minutes=1))
    stage.enrol(campaign, hanako, taro)

    await stage.run_for(timedelta(hours=1))

    assert [message.step_id for message in stage.messages(hanako)] == ["first", "receipt"]
    assert [message.step_id for message in stage.messages(taro)] == ["receipt", "first", "receipt"]


async def test_hour_is_elapsed_and_day_is_the_contacts_own(stage: Stage) -> None:
    """L16"""
    stage.clock.move_to(datetime(2026, 11, 24, 14, 45, tzinfo=UTC))  # 23:45 in Tokyo
    steps = "".join(f"  - {{id: mail-{number}, send: email, message: one}}\n" for number in range(3))
    by_hour, by_day = stage.journey(steps, "send_policy: {caps: 2 per hour}"), stage.journey(steps, "send_policy: {caps: 2 per day}")
    hanako, taro = stage.contact(), stage.contact()
    stage.enrol(by_hour, hanako)
    stage.enrol(by_day, taro)

    await stage.run_for(timedelta(minutes=1))

    assert stage.enrollment(hanako).due_at == datetime(2026, 11, 24, 15, 45, tzinfo=UTC)  # an hour after the first
    assert stage.enrollment(taro).due_at == MIDNIGHT  # a quarter of an hour later


async def test_several_limits_hold_together(stage: Stage) -> None:
    steps = "".join(f"  - {{id: mail-{number}, send: email, message: one}}\n" for number in range(4))
    campaign = stage.journey(steps, 'send_policy: {caps: ["2 per day", "3 per week"], quiet_hours: "21:00-08:00"}')
    hanako = stage.contact()
    stage.enrol(campaign, hanako)

    await stage.run_for(10 * DAY)

    sent = [(message.sent_at - stage.clock.now() + 10 * DAY).total_seconds() / 3600 for message in stage.mail.accepted]
    # 10:00 twice; the 25th at 8:00, 22 hours on; the first two fall out of seven days on 1 December, 8:00 then is 166 hours on.
    assert sent == [0, 0, 22, 166]
    assert stage.enrollment(hanako).outcome == "completed"


async def test_message_that_may_have_arrived_counts_and_one_that_was_refused_does_not(stage: Stage) -> None:
    campaign = stage.journey(ONE_MAIL + "  - {id: second, send: email, message: two}\n", ONE_A_DAY)
    lost, refused = stage.contact(), stage.contact()
    stage.mail.fail_address(lost.email, Fault.uncertain, times=1)
    stage.mail.fail_address(refused.email, Fault.permanent, times=1)
    stage.enrol(campaign, lost, refused)

    await stage.run_for(timedelta(hours=1))

    assert [message.status for message in stage.messages(lost)] == [MessageStatus.uncertain]
    assert [message.status for message in stage.messages(refused)] == [MessageStatus.rejected, MessageStatus.sent]


async def test_step_that_says_skip_goes_on_without_the_message_and_says_why(stage: Stage) -> None:
    campaign = stage.journey(ONE_MAIL + "  - {id: second, send: email, message: two, if_held: skip}\n" + ONE_SMS, ONE_A_DAY)
    hanako = stage.contact()
    stage.enrol(campaign, hanako)

    await stage.run_for(timedelta(hours=1))

    (skipped,) = [move for move in stage.moves(hanako) if move.kind is TimelineKind.skipped]
    assert (skipped.step_id, skipped.detail["reason"]) == ("second", "cap_day:1")
    assert [message.step_id for message in stage.messages(hanako)] == ["first", "text"]


async def test_send_held_for_what_nobody_can_date_looks_again_each_hour_and_is_counted_once(stage: Stage) -> None:
    campaign = stage.journey(ONE_MAIL)
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    with stage.db.writing() as session:
        version = session.get_one(JourneyVersion, stage.enrollment(hanako).version_id)
        approved, version.approved_hash = version.approved_hash, "withdrawn"
    await stage.run_for(timedelta(hours=5, minutes=30))
    held = stage.enrollment(hanako)
    assert (held.why, held.rules, held.due_at) == ("held", ["not_approved"], stage.clock.now() + timedelta(minutes=30))
    assert [move.detail["rules"] for move in stage.moves(hanako) if move.kind is TimelineKind.held] == [["not_approved"]]

    with stage.db.writing() as session:
        session.get_one(JourneyVersion, version.id).approved_hash = approved
    await stage.run_for(timedelta(hours=1))

    assert stage.enrollment(hanako).outcome == "completed"
    assert len(stage.mail.accepted) == 1


def test_two_workers_at_once_write_to_a_person_no_more_often_than_one_may(stage: Stage) -> None:
    """D2: on Postgres two transactions that did not wait for each other would both count no message yet."""
    people = [stage.contact() for _person in range(8)]
    journeys = [stage.journey(ONE_MAIL, ONE_A_DAY, contacts_per_run=50) for _journey in range(2)]
    runs = []
    for campaign in journeys:
        stage.enrol(campaign, *people)
        runs.append(stage.enrollment(people[0]).run_key)

    wake_together(stage, [[run_key] for run_key in runs])

    assert sorted(message.to_address for message in stage.mail.accepted) == sorted(person.email for person in people)
