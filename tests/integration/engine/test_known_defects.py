"""What went wrong in other systems that do this job, and must not here: each whole, through the engine, where no other test has it."""

from datetime import UTC, datetime, timedelta

import pytest
from prefect.settings import Settings
from sqlmodel import select

from distmark.channels.memory import Fault
from distmark.delivery.send_rates import set_rate
from distmark.delivery.table import RateScope
from distmark.engagement.service import record_event
from distmark.enrollments.control import pause, resume, stop
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.service import wake_person
from distmark.enrollments.suspensions import Scope
from distmark.enrollments.table import Enrollment
from distmark.entries.model import EnrolVerdict
from distmark.journeys.service import newest_registered
from distmark.journeys.source import Source
from distmark.journeys.table import Journey
from distmark.machine.prefect import PREFECT_SETTINGS
from distmark.messages.model import MessageStatus
from distmark.partners.model import Role
from distmark.partners.table import Brand
from tests import factories
from tests.driver import HEAD, Stage, _templates

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
TWO_MAILS = "  - {id: first, send: email, message: one}\n  - {id: rest, wait: {for: 3 days}}\n  - {id: second, send: email, message: two}\n"


# --- double sends -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", ["campaign", "version", "journey"])
async def test_copy_begins_with_nobody_and_sends_nothing(stage: Stage, copied: str) -> None:
    """D11: a copied journey takes neither the enrollments nor the times of the original."""
    original, (hanako, taro) = stage.journey(TWO_MAILS), (stage.contact(), stage.contact())
    stage.enrol(original, hanako)
    await stage.run_for(DAY)

    with stage.db.writing() as session:
        journey = session.get_one(Journey, original.journey_id)
        version = newest_registered(session, original.journey_id)
        if copied == "journey":
            source = Source(HEAD.format(key="copy") + f"send_policy: {{caps: none}}\nsteps:\n{TWO_MAILS}", _templates(), path="copy")
            version = factories.make_version(session, session.get_one(Brand, stage.brand.id), source=source)
        elif copied == "version":
            version = factories.make_version(session, journey=journey, source=Source.from_json(version.source))
        copy = factories.make_campaign(session, version)
    await stage.run_for(5 * DAY)
    with stage.db.reading() as session:
        entered = session.exec(select(Enrollment).where(Enrollment.campaign_id == copy.id)).all()
    assert entered == []
    assert [message.step_id for message in stage.messages()] == ["first", "second"]

    stage.enrol(copy, taro)
    began = stage.clock.now()
    await stage.run_for(5 * DAY)

    assert [message.sent_at for message in stage.messages(taro)] == [began, began + 3 * DAY]  # times of its own


async def test_news_that_come_together_are_one_message_also_when_it_is_tried_again(stage: Stage) -> None:
    """D12: events that come during a wait are neither answered with one message each, nor dropped."""
    steps = "  - {id: booking, wait: {event: booked, timeout: 7 days}}\n  - {id: thanks, send: email, message: one}\n"
    campaign, people = stage.journey(steps, "events: [booked]", contacts_per_run=10), [stage.contact() for _person in range(3)]
    stage.enrol(campaign, *people)
    await stage.run_for(HOUR)
    for person in people:
        stage.mail.fail_address(person.email, Fault.temporary, times=2)

    for number in range(5):
        with stage.db.writing() as session:
            for person in people:
                record_event(session, stage.brand.id, "booked", stage.clock.now(), contact_id=person.id, key=f"{person.id}-{number}")
    await stage.run_for(9 * DAY)

    assert sorted(message.to_address for message in stage.mail.accepted) == sorted(person.email for person in people)
    assert {stage.enrollment(person).outcome for person in people} == {"completed"}


# --- lost or stuck ----------------------------------------------------------------------------------------------------------------------


async def test_every_step_after_a_message_is_done_and_the_last_wait_is_waited_out(stage: Stage) -> None:
    """L5, L8: a message right after a condition is sent; the step after a message is done; a wait at the end does not end the journey."""
    campaign = stage.journey(
        "  - {id: first, send: email, message: one}\n"
        "  - {id: which, branch: [{when: \"not opened('first')\", steps: [{id: second, send: email, message: two}]}]}\n"
        "  - {id: call, task: {for: partner, title: Call, due: 1 day}}\n"
        "  - {id: third, send: email, message: three}\n"
        "  - {id: last, wait: {for: 3 days}}\n"
    )
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    began = stage.clock.now()

    await stage.run_for(3 * DAY - MINUTE)
    before = stage.enrollment(hanako)
    await stage.run_for(2 * MINUTE)

    assert [message.step_id for message in stage.messages(hanako)] == ["first", "second", "third"]
    assert len(stage.tasks()) == 1
    assert (before.status, before.step_id, before.due_at) == (EnrollmentStatus.waiting, "last", began + 3 * DAY)
    assert stage.enrollment(hanako).outcome == "completed"


async def test_reminder_for_who_did_nothing_counts_from_when_the_message_went_not_from_when_it_was_held(stage: Stage) -> None:
    """L10"""
    campaign = stage.journey(
        "  - {id: first, send: email, message: one}\n"
        "  - {id: booking, wait: {event: booked, timeout: 6 hours, on_timeout: remind}}\n"
        "  - {id: done, exit: booked}\n"
        "  - {id: remind, send: email, message: two}\n",
        'events: [booked]\nsend_policy: {quiet_hours: "21:00-08:00", caps: none}',
    )
    stage.clock.move_to(datetime(2026, 11, 24, 13, 0, tzinfo=UTC))  # 22:00 in Tokyo
    hanako = stage.contact()
    stage.enrol(campaign, hanako)

    await stage.run_for(2 * DAY)

    morning = datetime(2026, 11, 24, 23, 0, tzinfo=UTC)  # 08:00 in Tokyo
    assert [(message.step_id, message.sent_at) for message in stage.messages()] == [("first", morning), ("remind", morning + 6 * HOUR)]


async def test_who_did_not_get_it_is_known_by_name_and_what_goes_out_can_be_stopped(stage: Stage) -> None:
    """L13"""
    campaign, people = stage.journey(TWO_MAILS), [stage.contact() for _person in range(6)]
    refused, unwilling = people[0], stage.contact(consent=False)
    stage.mail.fail_address(refused.email, Fault.permanent, times=1)
    with stage.db.writing() as session:
        ops = factories.make_viewer(session, Role.ops, session.get_one(Brand, stage.brand.id))
        set_rate(session, ops, RateScope.campaign, campaign.key, 1, stage.clock.now())
    entered = stage.enrol(campaign, *people, unwilling)
    await stage.run_for(2 * HOUR + MINUTE)

    with stage.db.writing() as session:
        stopped = stop(session, stage.marketer, Scope(campaign_id=campaign.id), "wrong picture", stage.clock.now())
    await stage.run_for(9 * DAY)

    got = {message.to_address for message in stage.mail.accepted}
    kinds_by_email = {person.email: [move.kind for move in stage.moves(person)] for person in people}
    assert stopped == 6
    assert len(got) == len(stage.mail.accepted) == 2  # three had their turn, and one of them was refused
    assert {email for email, kinds in kinds_by_email.items() if TimelineKind.sent in kinds} == got
    assert [message.status for message in stage.messages(refused)] == [MessageStatus.rejected]
    ends = {person.email: (stage.enrollment(person).outcome, stage.enrollment(person).reason) for person in people}
    assert set(ends.values()) == {("stopped", "wrong picture")}
    assert (entered[-1].verdict, stage.messages(unwilling)) == (EnrolVerdict.no_consent, [])


def test_prefect_is_told_to_forget_what_is_long_over_and_knows_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """L14: Prefect's events and finished runs are deleted; a setting that an upgrade of Prefect renames would be ignored silently."""
    for name, value in PREFECT_SETTINGS.items():
        monkeypatch.setenv(name, value)

    settings = Settings()

    assert set(PREFECT_SETTINGS) - {"DO_NOT_TRACK"} <= set(settings.to_environment_variables(exclude_unset=True))
    assert settings.server.events.retention_period == DAY
    assert set(settings.server.services.db_vacuum.enabled) == {"events", "flow_runs"}


# --- time -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [1, 10])
async def test_delay_that_is_edited_changes_no_wait_that_runs_already(stage: Stage, days: int) -> None:
    """T10: an enrollment stays in the version that it entered; a contact that enters from now on has the new delay."""
    campaign, (hanako, taro) = stage.journey(TWO_MAILS), (stage.contact(), stage.contact())
    stage.enrol(campaign, hanako)
    await stage.run_for(2 * DAY)
    due_at = stage.enrollment(hanako).due_at
    with stage.db.writing() as session:
        journey = session.get_one(Journey, campaign.journey_id)
        definition = HEAD.format(key=journey.key) + "send_policy: {caps: none}\nsteps:\n" + TWO_MAILS.replace("3 days", f"{days} days")
        factories.make_version(session, journey=journey, source=Source(definition, _templates(), path=journey.key))

    stage.enrol(campaign, taro)
    began = stage.clock.now()
    with stage.db.writing() as session:
        wake_person(session, stage.brand.id, hanako.person_key, began)
    await stage.run_for(12 * DAY)

    assert stage.messages(hanako)[1].sent_at == due_at
    assert stage.messages(taro)[1].sent_at == began + days * DAY


async def test_time_that_a_person_moved_stays_when_news_make_us_look_again(stage: Stage) -> None:
    """T10"""
    campaign, hanako = stage.journey(TWO_MAILS), stage.contact()
    (result,) = stage.enrol(campaign, hanako)
    await stage.run_for(DAY)
    with stage.db.writing() as session:
        pause(session, stage.viewer, Scope.listed([result.enrollment_id]), stage.clock.now())
    await stage.run_for(4 * DAY)
    with stage.db.writing() as session:
        resume(session, stage.viewer, Scope.listed([result.enrollment_id]), stage.clock.now(), extend=True)
    moved = stage.enrollment(hanako).due_at

    with stage.db.writing() as session:
        wake_person(session, stage.brand.id, hanako.person_key, stage.clock.now())
    await stage.run_for(MINUTE)

    assert moved == stage.clock.now() - MINUTE + 2 * DAY  # one of three days was waited before the pause
    assert stage.enrollment(hanako).due_at == moved
    await stage.run_for(9 * DAY)
    assert stage.messages(hanako)[1].sent_at == moved
