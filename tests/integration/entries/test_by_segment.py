"""Entry by a segment, and the dispatch of membership changes to enrollments that wait for them."""

from datetime import timedelta

import pytest

from distmark.clock import FixedClock
from distmark.db import Database
from distmark.enrollments.model import EnrollmentStatus
from distmark.segments import service
from tests.entry_stage import EntryStage

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RICH = "contact.balance > 100"


@pytest.fixture
def stage(db: Database, clock: FixedClock) -> EntryStage:
    return EntryStage(db, clock)


def test_members_enter_when_the_journey_begins_and_others_as_they_join(stage: EntryStage):
    there, late = stage.contact(attributes={"balance": 200}), stage.contact(attributes={"balance": 50})
    stage.segment("rich", RICH)
    stage.look()
    journey = stage.registered("{segment: rich}")

    stage.look()
    at_first = stage.contacts_in(journey)
    stage.change(late, attributes={"balance": 101})
    stage.look()
    stage.look()

    assert (at_first, stage.contacts_in(journey)) == ([there.id], [there.id, late.id])


@pytest.mark.parametrize("reentry", ["any_time", "after_exit", "never"])
def test_joining_is_one_entrance_however_often_the_flow_runs(stage: EntryStage, reentry: str):
    """L7"""
    journey = stage.registered(f"{{segment: gold, reentry: {reentry}}}")
    segment_id = stage.segment("gold")
    hanako = stage.contact()
    stage.list_in(segment_id, hanako)  # joins before the segment is read for the first time: read and dispatched, in one run

    for _again in range(3):
        stage.look()
        stage.clock.move(HOUR)

    assert stage.contacts_in(journey) == [hanako.id]


def test_joining_again_is_another_entrance_where_the_journey_allows_it(stage: EntryStage):
    journey, once = stage.registered("{segment: gold, reentry: any_time}"), stage.registered("{segment: gold, reentry: never}")
    segment_id = stage.segment("gold")
    hanako = stage.contact()

    for _again in range(2):
        stage.list_in(segment_id, hanako)
        stage.look()
        stage.clock.move(HOUR)
        stage.unlist(segment_id, hanako)
        stage.look()
        stage.clock.move(HOUR)

    assert stage.contacts_in(journey) == [hanako.id] * 2
    assert stage.contacts_in(once) == [hanako.id]


def test_segment_is_read_at_its_interval_from_registration_on(stage: EntryStage):
    journey = stage.registered("{segment: gold, every: 1 day, reentry: any_time}")
    segment_id = stage.segment("gold")
    hanako, taro = stage.contact(), stage.contact()
    stage.list_in(segment_id, hanako)
    began = stage.clock.now()

    stage.look()
    stage.list_in(segment_id, taro)
    stage.look_every(HOUR, began + 23 * HOUR)
    before = stage.contacts_in(journey)
    stage.look_every(HOUR, began + 50 * HOUR)

    assert before == [hanako.id]
    # Readings at 0, 24 and 48 hours: Hanako in each, Taro in the last two.
    assert [(row.contact_id, row.entered_at - began) for row in stage.entered(journey)] == [
        (hanako.id, 0 * DAY),
        (hanako.id, 1 * DAY),
        (taro.id, 1 * DAY),
        (hanako.id, 2 * DAY),
        (taro.id, 2 * DAY),
    ]


def test_readings_that_were_missed_are_made_up_for_by_one(stage: EntryStage):
    journey = stage.registered("{segment: gold, every: 1 day, reentry: any_time}")
    segment_id = stage.segment("gold")
    hanako = stage.contact()
    stage.list_in(segment_id, hanako)
    stage.look()
    began = stage.clock.now()

    stage.clock.move(10 * DAY + HOUR)
    stage.look()
    stage.look_every(HOUR, began + 11 * DAY)

    assert [row.entered_at - began for row in stage.entered(journey)] == [0 * DAY, 10 * DAY + HOUR, 11 * DAY]


def test_reading_goes_on_where_it_was_interrupted(stage: EntryStage):
    from distmark.entries import by_segment, plans

    journey = stage.registered("{segment: gold, every: 1 day, reentry: any_time}")
    segment_id = stage.segment("gold")
    people = [stage.contact() for _ in range(5)]
    stage.list_in(segment_id, *people)
    with stage.db.writing() as session:
        plans.plan_journeys(session, stage.clock.now())
    with stage.db.writing() as session:
        by_segment.enter_member_batch(session, stage.clock.now(), limit=2)

    stage.clock.move(HOUR)
    stage.look()

    assert stage.contacts_in(journey) == [person.id for person in people]


async def test_evaluation_during_a_wait_removes_no_member_and_no_due_time(stage: EntryStage):
    """L7"""
    segment_id = stage.segment("rich", RICH)
    stays, goes = stage.contact(attributes={"balance": 200}), stage.contact(attributes={"balance": 120})
    journey = stage.registered("{segment: rich}", "  - {id: pause, wait: {for: 3 days}}\n  - {id: first, send: email, message: one}\n")
    stage.look()
    stage.look()
    await stage.run_for(DAY)
    before = {row.contact_id: (row.id, row.due_at, row.step_id) for row in stage.entered(journey)}

    with stage.db.writing() as session:
        service.change_rule(session, stage.marketer, segment_id, "contact.balance > 150", stage.clock.now())
    stage.look()
    after = {row.contact_id: (row.id, row.due_at, row.step_id) for row in stage.entered(journey)}
    await stage.run_for(3 * DAY)

    assert set(before) == {stays.id, goes.id}
    assert after == before
    assert len(stage.mail.accepted) == 2  # membership of the segment counts at entry only


BRANCH = (
    "  - {id: pause, wait: {for: 1 day}}\n"
    "  - id: split\n    branch:\n      - {when: \"in_segment('rich')\", steps: [{id: yes, exit: rich}]}\n"
    "      - {otherwise: true, steps: [{id: no, exit: poor}]}\n"
)


async def test_branch_uses_the_present_members_of_a_segment(stage: EntryStage):
    stage.segment("rich", RICH)
    rich, poor = stage.contact(attributes={"balance": 200}), stage.contact(attributes={"balance": 50})
    became = stage.contact(attributes={"balance": 50})
    stage.look()
    stage.enrol(stage.journey(BRANCH, "contact_fields: {balance: number}"), rich, poor, became)
    await stage.run_for(timedelta(hours=23))

    stage.change(became, attributes={"balance": 300})
    await stage.run_for(2 * HOUR)

    assert [stage.enrollment(each).reason for each in (rich, poor, became)] == ["rich", "poor", "rich"]


async def test_joining_wakes_enrollments_that_listen_and_no_others(stage: EntryStage):
    stage.segment("rich", RICH)
    listens = stage.journey(
        "  - {id: pause, wait: {for: 30 days}}\n", "exit: [{when: \"in_segment('rich')\", reason: rich}]\ncontact_fields: {balance: number}"
    )
    deaf = stage.journey("  - {id: pause, wait: {for: 30 days}}\n")
    hanako, taro = stage.contact(attributes={"balance": 50}), stage.contact(attributes={"balance": 50})
    stage.enrol(listens, hanako, taro)
    await stage.run_for(HOUR)
    stage.enrol(deaf, hanako)
    await stage.run_for(HOUR)
    stage.look()

    stage.change(hanako, attributes={"balance": 101})
    stage.look()
    woken = [stage.enrollment(each).woken_at for each in (hanako, taro)]
    await stage.run_for(timedelta(minutes=1))

    assert woken == [None, None]  # her newest enrollment does not listen, and his segment did not change
    ended = {row.contact_id: row.reason for row in _of(stage, listens.journey_id) if row.status is EnrollmentStatus.ended}
    assert ended == {hanako.id: "rich"}
    assert [row.status for row in _of(stage, deaf.journey_id)] == [EnrollmentStatus.waiting]


def _of(stage: EntryStage, journey_id: int):
    from sqlmodel import select

    from distmark.enrollments.table import Enrollment

    with stage.db.reading() as session:
        return list(session.exec(select(Enrollment).where(Enrollment.journey_id == journey_id)))


async def test_leaving_a_segment_wakes_too(stage: EntryStage):
    segment_id = stage.segment("vip")
    campaign = stage.journey("  - {id: pause, wait: {for: 30 days}}\n", "exit: [{when: \"not in_segment('vip')\", reason: left}]")
    hanako = stage.contact()
    stage.list_in(segment_id, hanako)
    stage.look()
    stage.enrol(campaign, hanako)
    await stage.run_for(HOUR)
    inside = stage.enrollment(hanako).status

    stage.unlist(segment_id, hanako)
    stage.look()
    await stage.run_for(timedelta(minutes=1))

    assert inside is EnrollmentStatus.waiting
    assert stage.enrollment(hanako).reason == "left"


async def test_changed_contact_wakes_enrollments_that_listen(stage: EntryStage):
    campaign = stage.journey(
        "  - {id: pause, wait: {for: 30 days}}\n", "exit: [{when: contact.is_client, reason: client}]\ncontact_fields: {is_client: bool}"
    )
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(HOUR)
    stage.look()

    stage.change(hanako, attributes={"is_client": True})
    stage.look()
    await stage.run_for(timedelta(minutes=1))

    assert stage.enrollment(hanako).reason == "client"


def test_partners_own_segment_enters_their_contacts_only(stage: EntryStage):
    journey = stage.registered("{segment: mine}")
    with stage.db.writing() as session:
        service.create_segment(session, stage.viewer, "mine", "Mine", stage.clock.now(), rule="contact.city == '名古屋市'")
    hanako = stage.contact()
    first, stage.partner = stage.partner, stage.partner_in("Asia/Tokyo")
    stage.contact()

    stage.look()
    stage.look()

    assert stage.contacts_in(journey) == [hanako.id]
    assert stage.entered(journey)[0].partner_id == first.id


def test_segment_that_does_not_exist_enters_nobody(stage: EntryStage):
    journey = stage.registered("{segment: nowhere, every: 1 day}")
    stage.contact()

    stage.look()

    assert stage.entered(journey) == []
