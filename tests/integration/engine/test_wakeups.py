"""Wake-ups and wakes at the same time: a waiting enrollment is woken by its event, and no two transactions wait for each other."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlmodel import Session, col, select

from distmark.delivery.send_rate_spacing import RateScope, throttle_rule
from distmark.delivery.send_rates import open_throttle_batch, remove_rate, set_rate
from distmark.engagement.service import NewEvent, Reading, click, record_event, record_events, record_readings
from distmark.engine.wake import wake
from distmark.enrollments.run_repairs import release_queue
from distmark.enrollments.table import Enrollment
from distmark.partners.model import Role
from distmark.partners.table import Brand
from distmark.sql import id_of
from tests import factories
from tests.driver import PHONE, Stage
from tests.postgres import wait_until_blocked

WAITING = "  - {id: first, send: email, message: one}\n  - {id: booking, wait: {event: booked, timeout: 7 days}}\n"


@pytest.fixture
def two_writers(stage: Stage) -> Stage:
    if stage.db.is_sqlite:
        pytest.skip("A writing session on SQLite is alone")
    return stage


async def test_click_of_a_reader_without_images_ends_a_wait_for_the_open(stage: Stage) -> None:
    campaign = stage.journey(
        "  - {id: first, send: email, message: one}\n"
        "  - {id: reading, wait: {event: opened, of: first, timeout: 7 days, on_timeout: late}}\n"
        "  - {id: second, send: email, message: two}\n"
        "  - {id: late, wait: {for: 1 day}}\n"
    )
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(minutes=1))
    with stage.db.writing() as session:
        click(session, stage.messages(hanako)[0].token, "link-1", PHONE, stage.clock.now())

    await stage.run_for(timedelta(minutes=1))

    assert [message.step_id for message in stage.messages(hanako)] == ["first", "second"]


async def test_message_right_behind_an_update_says_what_was_updated(stage: Stage) -> None:
    text = {f"one.{lang}.text.txt": "{{ contact.plan }} {{ contact.first_name }} {{ legal_footer }}\n" for lang in ("ja", "en")}
    campaign = stage.journey(
        "  - {id: better, update: {plan: gold, first_name: 金子}}\n  - {id: first, send: email, message: one}\n",
        "contact_fields: {plan: text}",
        text,
    )
    hanako = stage.contact(attributes={"plan": "silver"})
    stage.enrol(campaign, hanako)

    await stage.run_for(timedelta(minutes=1))

    assert stage.mail.accepted[0].text.startswith("gold 金子")


async def test_split_right_behind_an_update_reads_it_as_the_journey_declares_it(stage: Stage) -> None:
    campaign = stage.journey(
        "  - {id: answered, update: {is_client: 'false'}}\n"
        "  - id: known\n    branch:\n"
        '      - {when: "contact.is_client", steps: [{id: out, exit: a client}]}\n'
        "  - {id: first, send: email, message: one}\n",
        "contact_fields: {is_client: bool}",
    )
    hanako = stage.contact()
    stage.enrol(campaign, hanako)

    await stage.run_for(timedelta(minutes=1))

    assert [message.step_id for message in stage.messages(hanako)] == ["first"]


async def test_news_told_while_a_wake_takes_its_member_up_is_not_lost(two_writers: Stage) -> None:
    """L3"""
    stage = two_writers
    campaign = stage.journey("  - {id: rest, wait: {for: 1 day}}\n  - {id: booking, wait: {event: booked}}\n", "events: [booked]")
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(hours=1))
    stage.clock.move(timedelta(days=1))
    row = stage.enrollment(hanako)

    with stage.db.writing() as session:
        record_event(session, id_of(stage.brand), "booked", stage.clock.now(), contact_id=hanako.id)
        with ThreadPoolExecutor(1) as threads:
            walking = threads.submit(stage_wake, stage, row.run_key)
            wait_until_blocked(stage.db, walking)
            session.commit()
            walking.result(timeout=30)
    await stage.run_for(timedelta(minutes=1))

    assert stage.enrollment(hanako).outcome == "completed"


def stage_wake(stage: Stage, run_key: str) -> None:
    import asyncio

    asyncio.run(wake(stage.context, run_key))


async def test_news_of_many_and_a_wake_of_the_same_people_do_not_wait_for_each_other(two_writers: Stage) -> None:
    stage = two_writers
    campaign = stage.journey(WAITING, "events: [booked]", contacts_per_run=10)
    low, high = stage.contact(), stage.contact()
    stage.enrol(campaign, low, high)
    await stage.run_for(timedelta(minutes=1))
    first, second = stage.enrollment(low), stage.enrollment(high)
    _write_behind(stage, id_of(first))

    with ThreadPoolExecutor(1) as threads, stage.db.writing() as walking:
        _lock(walking, first)
        telling = threads.submit(_book, stage, [id_of(low), id_of(high)])
        wait_until_blocked(stage.db, telling)
        _lock(walking, second)
        walking.commit()
        telling.result(timeout=30)

    assert stage.enrollment(low).woken_at == stage.enrollment(high).woken_at == stage.clock.now()


async def test_readings_of_many_and_a_wake_of_the_same_people_do_not_wait_for_each_other(two_writers: Stage) -> None:
    stage = two_writers
    campaign = stage.journey(
        "  - {id: first, send: email, message: one}\n  - {id: reading, wait: {event: clicked, of: first, timeout: 7 days}}\n",
        contacts_per_run=10,
    )
    low, high = stage.contact(), stage.contact()
    stage.enrol(campaign, low, high)
    await stage.run_for(timedelta(minutes=1))
    first, second = stage.enrollment(low), stage.enrollment(high)
    tokens = {message.enrollment_id: message.token for message in stage.messages()}
    at = stage.clock.now()
    readings = [
        Reading(tokens[id_of(second)], at, PHONE, "link-1"),
        Reading(tokens[id_of(first)], at + timedelta(seconds=1), PHONE, "link-1"),
    ]

    def read() -> None:
        with stage.db.writing() as session:
            record_readings(session, readings)

    with ThreadPoolExecutor(1) as threads, stage.db.writing() as walking:
        _lock(walking, first)
        reading = threads.submit(read)
        wait_until_blocked(stage.db, reading)
        _lock(walking, second)
        walking.commit()
        reading.result(timeout=30)

    assert None not in (stage.enrollment(low).woken_at, stage.enrollment(high).woken_at)


async def test_wake_and_news_take_the_members_of_a_cohort_up_in_one_order(two_writers: Stage) -> None:
    stage = two_writers
    campaign = stage.journey("  - {id: rest, wait: {for: 1 day}}\n", contacts_per_run=10)
    low, high = stage.contact(), stage.contact()
    stage.enrol(campaign, low, high)
    await stage.run_for(timedelta(minutes=1))
    first, second = stage.enrollment(low), stage.enrollment(high)
    _write_behind(stage, id_of(first))
    stage.clock.move(timedelta(days=2))

    with ThreadPoolExecutor(1) as threads, stage.db.writing() as telling:
        _lock(telling, first)
        walking = threads.submit(stage_wake, stage, first.run_key)
        wait_until_blocked(stage.db, walking)
        _lock(telling, second)
        telling.commit()
        walking.result(timeout=30)

    assert stage.enrollment(low).outcome == stage.enrollment(high).outcome == "completed"


async def test_new_owner_of_a_queue_and_news_of_its_people_do_not_wait_for_each_other(two_writers: Stage) -> None:
    stage = two_writers
    campaign = stage.journey("  - {id: rest, wait: {for: 1 day}}\n", contacts_per_run=10)
    low, high = stage.contact(), stage.contact()
    stage.enrol(campaign, low, high)
    await stage.run_for(timedelta(minutes=1))
    first, second = stage.enrollment(low), stage.enrollment(high)
    with stage.db.writing() as session:
        session.execute(update(Enrollment).values(claimed_by="dead"))
    _write_behind(stage, id_of(first))

    def own() -> int:
        with stage.db.writing() as session:
            return release_queue(session, first.queue, stage.clock.now())

    with ThreadPoolExecutor(1) as threads, stage.db.writing() as telling:
        _lock(telling, first)
        owning = threads.submit(own)
        wait_until_blocked(stage.db, owning)
        _lock(telling, second)
        telling.commit()
        freed = owning.result(timeout=30)

    assert freed == 2


async def test_taking_a_rate_away_and_a_wake_of_who_waits_under_it_do_not_wait_for_each_other(two_writers: Stage) -> None:
    stage, rule = two_writers, throttle_rule(RateScope.partner, two_writers.partner.key)
    with stage.db.writing() as session:
        ops = factories.make_viewer(session, Role.ops, session.get_one(Brand, stage.brand.id))
        set_rate(session, ops, RateScope.partner, stage.partner.key, 1, stage.clock.now())
    campaign = stage.journey("  - {id: first, send: email, message: one}\n")
    sooner, later = stage.contact(), stage.contact()
    stage.enrol(campaign, sooner, later)
    await stage.run_for(timedelta(minutes=1))
    held = next(row for row in (stage.enrollment(sooner), stage.enrollment(later)) if row.why == "held")

    def take_away() -> None:
        with stage.db.writing() as session:
            remove_rate(session, ops, RateScope.partner, stage.partner.key, stage.clock.now())

    with ThreadPoolExecutor(1) as threads, stage.db.writing() as walking:
        _lock(walking, held)
        taking = threads.submit(take_away)
        wait_until_blocked(stage.db, taking)
        open_throttle_batch(walking, id_of(stage.brand), [rule], [], stage.clock.now())
        walking.commit()
        taking.result(timeout=30)

    await stage.run_for(timedelta(minutes=1))
    assert len(stage.mail.accepted) == 2


def _lock(session: Session, row: Enrollment) -> None:
    session.exec(select(Enrollment.id).where(Enrollment.id == row.id).with_for_update()).one()


def _write_behind(stage: Stage, row_id: int) -> None:
    """Move the row behind all others, where a scan reads it last."""
    with stage.db.writing() as session:
        session.execute(update(Enrollment).where(col(Enrollment.id) == row_id).values(flow_run_id=str(row_id)))


def _book(stage: Stage, contact_ids: list[int]) -> None:
    with stage.db.writing() as session:
        record_events(session, id_of(stage.brand), [NewEvent("booked", each) for each in contact_ids], stage.clock.now())
