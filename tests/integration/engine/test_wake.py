"""One wake after another: what happens to a contact, whatever goes wrong on the way."""

from datetime import UTC, datetime, timedelta

import pytest

from distmark.channels.memory import Fault
from distmark.engagement.service import click, open_pixel, record_event, unsubscribe
from distmark.enrollments.control import pause, resume, stop
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.suspensions import Scope
from distmark.entries.model import EnrolVerdict
from distmark.messages.model import MessageStatus
from tests.driver import PHONE, Stage

DAY = timedelta(days=1)


async def test_contact_gets_each_message_once_and_completes(stage: Stage) -> None:
    campaign = stage.journey(
        "  - {id: first, send: email, message: one}\n"
        "  - {id: pause, wait: {for: 3 days, until: '09:00'}}\n"
        "  - {id: second, send: email, message: two}\n"
    )
    hanako = stage.contact()
    stage.enrol(campaign, hanako)

    await stage.run_for(10 * DAY)

    assert [message.subject for message in stage.mail.accepted] == ["one", "two"]
    assert stage.mail.accepted[1].sent_at == datetime(
        2026, 11, 28, 0, 0, tzinfo=UTC
    )  # 24 Nov 10:00 + 3 days -> 27 Nov 10:00 -> 28 Nov 09:00 JST
    enrollment = stage.enrollment(hanako)
    assert (enrollment.status, enrollment.outcome) == (EnrollmentStatus.ended, "completed")
    assert [message.status for message in stage.messages(hanako)] == [MessageStatus.sent] * 2


async def test_waking_again_and_again_changes_nothing(stage: Stage) -> None:
    campaign = stage.journey("  - {id: first, send: email, message: one}\n  - {id: pause, wait: {for: 3 days}}\n")
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(hours=1))
    before = stage.enrollment(hanako)

    for _again in range(3):
        await stage.wake(before)

    after = stage.enrollment(hanako)
    assert len(stage.mail.accepted) == 1
    assert (after.step_id, after.due_at, after.arrived_at) == (before.step_id, before.due_at, before.arrived_at)


async def test_double_click_on_enrol_enrols_once(stage: Stage) -> None:
    """D9, D13"""
    campaign = stage.journey("  - {id: pause, wait: {for: 3 days}}\n")
    hanako = stage.contact()

    first, second = stage.enrol(campaign, hanako), stage.enrol(campaign, hanako)

    assert [result.verdict for result in (*first, *second)] == [EnrolVerdict.enrolled, EnrolVerdict.already_in]


async def test_click_sends_contact_down_the_other_arm(stage: Stage) -> None:
    campaign = stage.journey(
        "  - {id: first, send: email, message: one}\n  - {id: read, wait: {for: 2 days}}\n"
        "  - id: engaged\n"
        "    branch:\n"
        "      - {when: \"clicked('first')\", steps: [{id: call, task: {for: partner, title: Call, due: 1 day}}]}\n"
        "      - {otherwise: true, steps: [{id: again, send: email, message: two}]}\n"
    )
    hanako, taro = stage.contact(), stage.contact()
    stage.enrol(campaign, hanako, taro)
    await stage.run_for(timedelta(hours=1))
    with stage.db.writing() as session:
        target = click(session, stage.messages(hanako)[0].token, "link-1", PHONE, stage.clock.now())

    await stage.run_for(5 * DAY)

    assert target == "https://mirai.example/plans"
    assert [task.contact_id for task in stage.tasks()] == [hanako.id]
    assert [message.step_id for message in stage.messages(taro)] == ["first", "again"]


async def test_opens_by_machines_are_kept_but_open_no_branch(stage: Stage) -> None:
    """E2, E3"""
    campaign = stage.journey(
        "  - {id: first, send: email, message: one}\n  - {id: read, wait: {for: 2 days}}\n"
        "  - id: engaged\n    branch:\n      - {when: \"opened('first')\", steps: [{id: again, send: email, message: two}]}\n"
    )
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(hours=1))
    with stage.db.writing() as session:
        open_pixel(session, stage.messages(hanako)[0].token, "Mozilla/5.0", stage.clock.now())

    await stage.run_for(5 * DAY)

    message = stage.messages(hanako)[0]
    assert message.machine_opened_at is not None
    assert message.opened_at is None
    assert len(stage.mail.accepted) == 1


async def test_unsubscribe_ends_a_waiting_enrollment_at_once(stage: Stage) -> None:
    campaign = stage.journey(
        "  - {id: first, send: email, message: one}\n  - {id: pause, wait: {for: 30 days}}\n  - {id: second, send: email, message: two}\n",
        "entry: {reentry: any_time}",
    )
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(DAY)
    with stage.db.writing() as session:
        unsubscribe(session, stage.messages(hanako)[0].token, stage.clock.now())

    await stage.run_for(timedelta(minutes=1))

    enrollment = stage.enrollment(hanako)
    assert (enrollment.outcome, enrollment.ended_at) == ("unsubscribed", stage.clock.now() - timedelta(minutes=1))
    assert stage.enrol(campaign, hanako)[0].verdict is EnrolVerdict.suppressed


async def test_unsubscribed_between_enrolling_and_sending_gets_nothing(stage: Stage) -> None:
    """U4"""
    campaign = stage.journey(
        "  - {id: first, send: email, message: one}\n  - {id: pause, wait: {for: 1 day}}\n  - {id: text, send: sms, message: nudge}\n",
        "entry: {reentry: any_time}",
    )
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(minutes=1))
    stage.enrol(campaign, hanako)
    with stage.db.writing() as session:
        unsubscribe(session, stage.messages(hanako)[0].token, stage.clock.now())

    await stage.run_for(2 * DAY)

    assert len(stage.mail.accepted) == 1
    assert stage.sms.accepted == []


async def test_goal_ends_the_journey_in_the_middle_of_a_wait(stage: Stage) -> None:
    campaign = stage.journey(
        "  - {id: pause, wait: {for: 30 days}}\n  - {id: first, send: email, message: one}\n",
        "goal: {when: \"converted('opened_account')\"}\nevents: [opened_account]",
    )
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(DAY)
    with stage.db.writing() as session:
        record_event(session, stage.brand.id, "opened_account", stage.clock.now(), contact_id=hanako.id, value=120_000.0)

    await stage.run_for(timedelta(minutes=1))

    assert stage.enrollment(hanako).outcome == "goal"
    assert stage.mail.accepted == []


async def test_event_ends_a_wait_before_its_timeout(stage: Stage) -> None:
    campaign = stage.journey(
        "  - {id: booking, wait: {event: booked, timeout: 7 days, on_timeout: remind}}\n"
        "  - {id: thanks, send: email, message: one}\n"
        "  - {id: done, exit: booked}\n"
        "  - {id: remind, send: email, message: two}\n",
        "events: [booked]",
    )
    hanako, taro = stage.contact(), stage.contact()
    stage.enrol(campaign, hanako, taro)
    await stage.run_for(DAY)
    with stage.db.writing() as session:
        record_event(session, stage.brand.id, "booked", stage.clock.now(), contact_id=hanako.id)

    await stage.run_for(9 * DAY)

    assert [message.step_id for message in stage.messages(hanako)] == ["thanks"]
    assert [message.step_id for message in stage.messages(taro)] == ["remind"]


async def test_quiet_hours_hold_a_send_and_say_so(stage: Stage) -> None:
    stage.clock.move_to(datetime(2026, 11, 24, 13, 0, tzinfo=UTC))  # 22:00 in Tokyo
    campaign = stage.journey("  - {id: first, send: email, message: one}\n", 'send_policy: {quiet_hours: "21:00-08:00", caps: none}')
    hanako = stage.contact()
    stage.enrol(campaign, hanako)

    await stage.run_for(timedelta(hours=1))

    held = stage.enrollment(hanako)
    assert (held.why, held.due_at) == ("held", datetime(2026, 11, 24, 23, 0, tzinfo=UTC))  # 25 Nov 08:00 in Tokyo
    assert any(move.kind is TimelineKind.held for move in stage.moves(hanako))
    await stage.run_for(DAY)
    assert len(stage.mail.accepted) == 1


async def test_temporary_refusal_is_tried_again_on_the_same_row(stage: Stage) -> None:
    """L15"""
    campaign = stage.journey("  - {id: first, send: email, message: one}\n")
    hanako = stage.contact()
    stage.mail.fail_address(hanako.email, Fault.temporary, times=2)
    stage.enrol(campaign, hanako)

    await stage.run_for(DAY)

    (message,) = stage.messages(hanako)
    assert (message.status, len(stage.mail.accepted)) == (MessageStatus.sent, 1)
    assert stage.enrollment(hanako).outcome == "completed"


async def test_refused_for_good_is_recorded_and_the_journey_goes_on(stage: Stage) -> None:
    """D4, L4"""
    campaign = stage.journey(
        "  - {id: first, send: email, message: one}\n  - {id: pause, wait: {for: 1 day}}\n  - {id: second, send: email, message: two}\n",
        contacts_per_run=10,
    )
    hanako, taro = stage.contact(), stage.contact()
    stage.mail.fail_address(hanako.email, Fault.permanent, times=1)
    stage.enrol(campaign, hanako, taro)

    await stage.run_for(3 * DAY)

    assert [message.status for message in stage.messages(hanako)] == [MessageStatus.rejected, MessageStatus.sent]
    assert [message.status for message in stage.messages(taro)] == [MessageStatus.sent, MessageStatus.sent]


@pytest.mark.parametrize("fault", [Fault.uncertain, Fault.drop])
async def test_what_nobody_can_know_is_uncertain_and_never_sent_again(stage: Stage, fault: Fault) -> None:
    """D3, D6"""
    campaign = stage.journey("  - {id: first, send: email, message: one}\n")
    hanako = stage.contact()
    stage.mail.fail_address(hanako.email, fault)
    stage.enrol(campaign, hanako)

    await stage.run_for(3 * DAY)

    assert [message.status for message in stage.messages(hanako)] == [MessageStatus.uncertain]
    assert stage.mail.calls == 1
    assert stage.enrollment(hanako).outcome == "completed"


async def test_step_that_raises_parks_its_member_and_no_other(stage: Stage) -> None:
    campaign = stage.journey(
        "  - id: odd\n"
        "    branch:\n"
        '      - {when: "10 / contact.amount > 5", steps: [{id: out, exit: rich}]}\n'
        "  - {id: first, send: email, message: one}\n",
        "contact_fields: {amount: number}",
        contacts_per_run=10,
    )
    poison, fine = stage.contact(attributes={"amount": 0}), stage.contact(attributes={"amount": 4})
    stage.enrol(campaign, poison, fine)

    await stage.run_for(DAY)

    parked = stage.enrollment(poison)
    assert (parked.status, parked.tries) == (EnrollmentStatus.parked, 5)
    assert parked.error
    assert stage.enrollment(fine).outcome == "completed"


async def test_pause_freezes_and_resume_keeps_the_clock_or_extends_the_wait(stage: Stage) -> None:
    """L12"""
    campaign = stage.journey("  - {id: pause, wait: {for: 3 days}}\n  - {id: first, send: email, message: one}\n")
    hanako, taro = stage.contact(), stage.contact()
    ids = [result.enrollment_id for result in stage.enrol(campaign, hanako, taro)]
    await stage.run_for(DAY)
    with stage.db.writing() as session:
        pause(session, stage.viewer, Scope.listed(ids), stage.clock.now())
    await stage.run_for(5 * DAY)
    assert stage.mail.accepted == []

    with stage.db.writing() as session:
        resume(session, stage.viewer, Scope.listed(ids[:1]), stage.clock.now())
        resume(session, stage.viewer, Scope.listed(ids[1:]), stage.clock.now(), extend=True)
    await stage.run_for(timedelta(minutes=1))

    assert len(stage.messages(hanako)) == 1
    assert stage.messages(taro) == []
    await stage.run_for(2 * DAY)
    assert len(stage.messages(taro)) == 1


async def test_stopped_by_a_person_ends_with_the_reason(stage: Stage) -> None:
    campaign = stage.journey("  - {id: pause, wait: {for: 3 days}}\n  - {id: first, send: email, message: one}\n")
    hanako = stage.contact()
    (result,) = stage.enrol(campaign, hanako)
    await stage.run_for(DAY)

    with stage.db.writing() as session:
        stop(session, stage.viewer, Scope.listed([result.enrollment_id]), "moved abroad", stage.clock.now())
    await stage.run_for(5 * DAY)

    enrollment = stage.enrollment(hanako)
    assert (enrollment.outcome, enrollment.reason) == ("stopped", "moved abroad")
    assert stage.mail.accepted == []


async def test_person_in_two_books_is_written_to_once_and_the_second_partner_is_told_who(stage: Stage) -> None:
    """D8"""
    from tests import factories

    campaign = stage.journey("  - {id: first, send: email, message: one}\n  - {id: pause, wait: {for: 3 days}}\n")
    hanako = stage.contact(email="hanako@example.com")
    with stage.db.writing() as session:
        other = factories.make_partner(session, session.get_one(type(stage.brand), stage.brand.id))
        viewer = factories.make_viewer(session, partner=other)
        same = factories.make_contact(session, other, email="Hanako@Example.com")
    stage.enrol(campaign, hanako)

    from distmark.contacts.consents import record_consent
    from distmark.entries.service import enrol

    with stage.db.writing() as session:
        record_consent(session, same.id, "email", given=True, now=stage.clock.now(), source="test")
        (result,) = enrol(session, viewer, campaign.id, [same.id], stage.clock.now())

    await stage.run_for(DAY)
    assert (result.verdict, result.partner_name) == (EnrolVerdict.other_partner, stage.partner.name)
    assert [message.to_address for message in stage.mail.accepted] == [hanako.email]


async def test_dead_worker_between_claim_and_answer_leaves_an_uncertain_message(stage: Stage) -> None:
    """D3"""
    campaign = stage.journey(
        "  - {id: first, send: email, message: one}\n  - {id: pause, wait: {for: 1 day}}\n  - {id: second, send: email, message: two}\n"
    )
    hanako = stage.contact()
    stage.enrol(campaign, hanako)

    class Dies(BaseException):
        pass

    async def die(_message: object) -> None:
        raise Dies

    deliver, stage.mail.deliver = stage.mail.deliver, die
    with pytest.raises(Dies):
        await stage.run_for(timedelta(minutes=1))
    stage.mail.deliver = deliver

    await stage.run_for(3 * DAY)

    assert [message.status for message in stage.messages(hanako)] == [MessageStatus.uncertain, MessageStatus.sent]


async def test_news_while_walking_is_not_lost(stage: Stage) -> None:
    """L3"""
    campaign = stage.journey(
        "  - {id: first, send: email, message: one}\n"
        "  - {id: booking, wait: {event: booked, timeout: 7 days}}\n"
        "  - {id: second, send: email, message: two}\n",
        "events: [booked]",
    )
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    deliver = stage.mail.deliver

    async def book_meanwhile(message: object) -> object:
        with stage.db.writing() as session:
            record_event(session, stage.brand.id, "booked", stage.clock.now(), contact_id=hanako.id)
        stage.mail.deliver = deliver
        return await deliver(message)

    stage.mail.deliver = book_meanwhile
    await stage.run_for(timedelta(minutes=1))

    assert [message.step_id for message in stage.messages(hanako)] == ["first", "second"]


async def test_attribute_is_read_as_the_journey_declares_it(stage: Stage) -> None:
    """An imported CSV says "false" in letters; as text it would count as true."""
    campaign = stage.journey(
        '  - id: known\n    branch:\n      - {when: "contact.is_client", steps: [{id: out, exit: a client}]}\n'
        "  - {id: first, send: email, message: one}\n",
        "contact_fields: {is_client: bool}",
    )
    hanako, taro = stage.contact(attributes={"is_client": "false"}), stage.contact(attributes={"is_client": "true"})
    stage.enrol(campaign, hanako, taro)

    await stage.run_for(DAY)

    assert [message.contact_id for message in stage.messages()] == [hanako.id]
    assert stage.enrollment(taro).outcome == "exit"
