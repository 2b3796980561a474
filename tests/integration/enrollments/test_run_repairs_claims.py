"""Recovery: claims of dead workers are found among enrollments that should move, and overdue runs among late enrollments."""

from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlmodel import col

from distmark.contacts.table import Contact
from distmark.enrollments.run_repairs import free_claims, long_claimed, overdue_runs
from distmark.enrollments.table import Enrollment
from tests.driver import Stage

STEPS = "  - {id: rest, wait: {for: 400 days}}\n"
LONG = timedelta(minutes=10)


def _enrolled(stage: Stage, many: int, per_run: int = 1) -> list[Contact]:
    campaign = stage.journey(STEPS, contacts_per_run=per_run)
    people = [stage.contact() for _ in range(many)]
    stage.enrol(campaign, *people)
    return people


def _set(stage: Stage, contact: Contact, **values: object) -> None:
    with stage.db.writing() as session:
        session.execute(update(Enrollment).where(col(Enrollment.contact_id) == contact.id).values(**values))


def _freed(stage: Stage) -> tuple[dict[str, int], int]:
    now = stage.clock.now()
    with stage.db.writing() as session:
        return long_claimed(session, now - LONG, now), free_claims(session, "default", now - LONG, now)


@pytest.mark.parametrize("moves", ["due_at", "woken_at"])
def test_claim_of_a_dead_worker_is_found_once_its_enrollment_should_move(stage: Stage, moves: str) -> None:
    """L3"""
    (hanako,) = _enrolled(stage, 1)
    now = stage.clock.now()
    asleep = {"due_at": now + timedelta(days=3), "woken_at": None}
    _set(stage, hanako, claimed_by="default@gone", claimed_at=now - 2 * LONG, **asleep)

    before = _freed(stage)
    _set(stage, hanako, **{moves: now})
    after = _freed(stage)

    assert before == ({}, 0)  # the claim keeps no enrollment from moving
    assert after == ({"default": 1}, 1)
    assert stage.enrollment(hanako).claimed_by is None


def test_claim_that_is_young_or_of_another_queue_is_left(stage: Stage) -> None:
    young, elsewhere = _enrolled(stage, 2)
    now = stage.clock.now()
    _set(stage, young, claimed_by="default@works", claimed_at=now - LONG / 2)
    _set(stage, elsewhere, claimed_by="other@gone", claimed_at=now - 2 * LONG, queue="other")

    assert _freed(stage) == ({"other": 1}, 0)


def test_late_cohort_is_one_run_and_none_while_a_member_is_claimed(stage: Stage) -> None:
    people = _enrolled(stage, 6, per_run=3)
    now = stage.clock.now()
    for number, contact in enumerate(people):
        _set(stage, contact, flow_run_id=f"run-{number // 3}", due_at=now - LONG)
    _set(stage, people[4], claimed_by="default@works", claimed_at=now, due_at=now + LONG)

    with stage.db.reading() as session:
        assert overdue_runs(session, now) == ["run-0"]
        assert overdue_runs(session, now, after="run-0") == []
        assert overdue_runs(session, now - 2 * LONG) == []
