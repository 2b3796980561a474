"""A wake-up is not lost with a process that claimed the enrollment and died before it advanced it."""

from datetime import timedelta

import pytest

import distmark.engine.wake as waking
from distmark.engagement.service import record_event
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.run_repairs import release_queue
from distmark.sql import id_of
from tests.driver import Stage

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
STEPS = "  - {id: first, send: email, message: one}\n  - {id: calm, wait: {for: 30 days}}\n"
GOAL = "events: [booked]\ngoal: {when: \"converted('booked')\"}"


class Killed(BaseException):
    """The process is gone."""


async def waiting_and_woken(stage: Stage):
    campaign = stage.journey(STEPS, GOAL)
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(DAY)
    with stage.db.writing() as session:
        record_event(session, id_of(stage.brand), "booked", stage.clock.now(), contact_id=hanako.id)
    return hanako


async def test_goal_reached_just_before_a_kill_ends_the_journey_after_the_restart(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """L3"""
    hanako = await waiting_and_woken(stage)

    def die(*_given: object) -> None:
        raise Killed

    monkeypatch.setattr(waking, "advance_all", die)
    monkeypatch.setattr(waking, "_release", lambda *_given: None)  # a dead process releases nothing
    with pytest.raises(Killed):
        await stage.wake(stage.enrollment(hanako))
    monkeypatch.undo()
    claimed = stage.enrollment(hanako)
    with stage.db.writing() as session:
        freed = release_queue(session, claimed.queue, stage.clock.now())
    await stage.run_for(MINUTE)

    assert (claimed.claimed_by, claimed.woken_at, freed) == (stage.context.worker, None, 1)
    assert (stage.enrollment(hanako).outcome, stage.enrollment(hanako).claimed_by) == ("goal", None)


async def test_goal_is_seen_soon_when_the_wake_that_should_have_seen_it_failed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """L3"""
    hanako = await waiting_and_woken(stage)

    def fail(*_given: object) -> None:
        raise OSError("The disk is full.")

    monkeypatch.setattr(waking, "_write_round", fail)
    with pytest.raises(OSError, match="full"):
        await stage.wake(stage.enrollment(hanako))
    monkeypatch.undo()
    woken_at = stage.enrollment(hanako).woken_at
    stage.clock.move(MINUTE)
    await stage.run_for(MINUTE)

    assert woken_at == stage.enrollment(hanako).entered_at + DAY + MINUTE
    assert stage.enrollment(hanako).outcome == "goal"


async def test_ended_one_is_not_called_again_when_its_claim_is_freed(stage: Stage) -> None:
    hanako = await waiting_and_woken(stage)
    await stage.run_for(MINUTE)
    with stage.db.writing() as session:
        row = session.get_one(type(stage.enrollment(hanako)), stage.enrollment(hanako).id)
        row.claimed_by, row.claimed_at = "the dead", stage.clock.now()
        session.add(row)

    with stage.db.writing() as session:
        release_queue(session, row.queue, stage.clock.now())

    assert (stage.enrollment(hanako).status, stage.enrollment(hanako).woken_at) == (EnrollmentStatus.ended, None)
