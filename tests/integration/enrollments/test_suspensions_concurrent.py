"""Suspensions beside workers and enrolling partners: a pause holds every enrollment, nothing is sent twice, nothing deadlocks."""

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta

import pytest
from sqlmodel import col, select

from distmark.contacts.table import Contact
from distmark.engine.wake import wake
from distmark.enrollments.control import pause, resume, stop
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.suspensions import Scope
from distmark.enrollments.table import Enrollment
from distmark.entries.service import enrol
from distmark.messages.table import Message
from distmark.sql import id_of
from flows.launch import runs_to_launch
from tests.driver import Stage
from tests.postgres import wait_until_blocked
from tests.waiting import wait_until

MAILS = "".join(f"  - {{id: mail-{number}, send: email, message: one}}\n" for number in range(6))


def rows(stage: Stage) -> list[Enrollment]:
    with stage.db.reading() as session:
        return list(session.exec(select(Enrollment).order_by(col(Enrollment.id))))


def test_pausing_and_resuming_beside_wakes_of_cohorts_loses_and_doubles_nothing(stage: Stage) -> None:
    campaign = stage.journey(MAILS, contacts_per_run=15)
    people = [stage.contact() for _ in range(60)]
    stage.enrol(campaign, *people)
    keys = {row.run_key for row in rows(stage)}
    scope, over = Scope(campaign_id=campaign.id), threading.Event()

    async def work(key: str) -> None:
        while not over.is_set():
            rest = await wake(stage.context, key)
            if rest.finished:
                return
            await asyncio.sleep(0.01)

    def pause_and_resume() -> int:
        flips = 0
        for _time in range(6):
            for act in (pause, resume):
                with stage.db.writing() as session:
                    act(session, stage.marketer, scope, stage.clock.now())
                flips += 1
            enough = min(len(stage.mail.accepted) + 1, len(people) * 6)
            wait_until(lambda enough=enough: len(stage.mail.accepted) >= enough, what="A mail between two pauses")
        return flips

    with ThreadPoolExecutor(len(keys) + 1) as threads:
        working = [threads.submit(asyncio.run, work(key)) for key in keys]
        flips = threads.submit(pause_and_resume).result(timeout=120)
        wait(working, timeout=120)
        over.set()
        for each in working:
            each.result(timeout=10)

    with stage.db.reading() as session:
        sent = Counter((row.contact_id, row.step_id) for row in session.exec(select(Message)))
    assert flips == 12
    assert {row.outcome for row in rows(stage)} == {"completed"}
    assert len(stage.mail.accepted) == len(people) * 6
    assert set(sent.values()) == {1}


def test_every_enrollment_inserted_beside_a_pause_is_paused(stage: Stage) -> None:
    campaign, scope = stage.journey(MAILS), None
    scope = Scope(campaign_id=campaign.id)
    people = [stage.contact() for _ in range(40)]
    begin = threading.Barrier(5)

    def enter(part: list[Contact]) -> None:
        begin.wait()
        for person in part:
            with stage.db.writing() as session:
                enrol(session, stage.viewer, id_of(campaign), [id_of(person)], stage.clock.now())

    def pause_all() -> None:
        begin.wait()
        wait_until(lambda: rows(stage), what="The first entry")  # some are in, and some not yet
        with stage.db.writing() as session:
            pause(session, stage.marketer, scope, stage.clock.now())

    with ThreadPoolExecutor(5) as threads:
        for each in [*(threads.submit(enter, people[number::4]) for number in range(4)), threads.submit(pause_all)]:
            each.result(timeout=60)

    assert {row.status for row in rows(stage)} == {EnrollmentStatus.paused}
    assert len(rows(stage)) == len(people)


async def test_pause_passes_over_locked_enrollments_and_pauses_them_a_moment_later(stage: Stage) -> None:
    campaign, people = stage.journey(MAILS), [stage.contact() for _ in range(3)]
    stage.enrol(campaign, *people)
    if stage.db.is_sqlite:
        pytest.skip("A writing session on SQLite is alone")

    with stage.db.writing() as session:
        session.exec(select(Enrollment).where(Enrollment.contact_id == people[0].id).with_for_update()).one()

        def act() -> int:
            with stage.db.writing() as other:
                return pause(other, stage.marketer, Scope(campaign_id=campaign.id), stage.clock.now())

        with ThreadPoolExecutor(1) as threads:
            pausing = threads.submit(act)
            wait_until_blocked(stage.db, pausing)
            session.commit()
            paused = pausing.result(timeout=30)

    assert paused == 3


async def test_paused_or_stopped_before_the_start_gets_no_run_until_resumed(stage: Stage) -> None:
    campaign, people = stage.journey(MAILS), [stage.contact() for _ in range(3)]
    ids = [result.enrollment_id or 0 for result in stage.enrol(campaign, *people)]
    with stage.db.writing() as session:
        pause(session, stage.viewer, Scope.listed(ids[:1]), stage.clock.now())
        stop(session, stage.viewer, Scope.listed(ids[1:2]), "not now", stage.clock.now())

    def to_launch() -> set[str]:
        with stage.db.reading() as session:
            return {each.run_key for each in runs_to_launch(session, "default", 10)}

    first = to_launch()
    with stage.db.writing() as session:
        resume(session, stage.viewer, Scope.listed(ids[:1]), stage.clock.now() + timedelta(hours=1))

    keys = [row.run_key for row in rows(stage)]
    assert first == {keys[2]}
    assert to_launch() == {keys[0], keys[2]}
