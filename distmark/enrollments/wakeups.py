"""Wake-ups by triggers: opened, clicked, the name of an event, a change of the contact or its segments. One query for many persons."""

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import lru_cache

from sqlalchemy import select
from sqlmodel import Session, col

from distmark.enrollments.service import wake
from distmark.enrollments.table import Enrollment
from distmark.enrollments.wait_estimates import WaitEstimator, lock_enrollments
from distmark.journeys.expressions import names_used
from distmark.journeys.program import Program
from distmark.journeys.service import program_of
from distmark.sql import among, batches


def wake_waiting(session: Session, brand_id: int, person_keys: Collection[str], triggers: Collection[str], now: datetime) -> int:
    """Wake the sleeping enrollments of these persons that any of the triggers may move, and return how many."""
    return wake_waiting_by_person(session, brand_id, dict.fromkeys(person_keys, triggers), now)


def wake_waiting_by_person(session: Session, brand_id: int, triggers_of: Mapping[str, Collection[str]], now: datetime) -> int:
    """Wake the sleeping enrollments that the triggers of their own person (person key -> triggers) may move, and return how many.

    All enrollments of these persons stay locked until the unit of work ends, in the order in which wakes lock them. A wake that claims one
    of them either came before, and its claim is seen here, or comes after, and sees what happened.
    """
    programs: dict[int, Program] = {}
    row = Enrollment
    of_persons = select(col(row.id), col(row.person_key), col(row.version_id), col(row.awaits), col(row.claimed_by)).where(
        among(session, col(row.person_key), triggers_of), col(row.brand_id) == brand_id, col(row.ended_at).is_(None)
    )
    rows = session.execute(of_persons.order_by(col(row.id)).with_for_update(key_share=True)).all()
    woken: list[int] = []
    for row_id, person_key, version_id, awaits, claimed_by in rows:
        if version_id not in programs:
            programs[version_id] = program_of(session, version_id)
        triggers = triggers_of[person_key]
        # An enrollment that is claimed gathered its facts before the trigger, and may start waiting for it after.
        if row_id and triggers and (claimed_by or any(is_triggered_by(programs[version_id], awaits, each) for each in triggers)):
            woken.append(row_id)
    return sum(wake(session, ids, now) for ids in batches(woken))


def wake_recomputed(session: Session, contact_ids: Collection[int], now: datetime) -> int:
    """Wake the sleeping enrollments of these contacts, which just changed, that go on at another time now, and return how many.

    The time is computed again only at steps with `time_inputs`, the inputs from which a step computes its time. A wake that has claimed an
    enrollment gathered its facts before the change, so such an enrollment wakes once more.
    """
    estimator = WaitEstimator(session, now)
    of_contacts = [among(session, col(Enrollment.contact_id), contact_ids), col(Enrollment.ended_at).is_(None)]
    dependent = [
        each
        for rows in lock_enrollments(session, [*of_contacts, col(Enrollment.step_id).is_not(None)], wait=True)
        for each in rows
        if estimator.time_inputs(each)
    ]
    sleeps = estimator.waits_of([(each, each.arrived_at) for each in dependent if each.arrived_at is not None and not each.is_held])
    woken = [each.id for each in dependent if each.is_claimed or each.id not in sleeps or sleeps[each.id].until != each.due_at]
    return sum(wake(session, ids, now) for ids in batches(woken))


ANY_TRIGGER = "*"
NAMED = ("converted", "happened", "value_of")


def is_triggered_by(program: Program, awaits: str | None, trigger: str) -> bool:
    """Return whether the trigger may end the wait for `awaits`, reach the journey's goal, or fulfil an exit rule."""
    return awaits in (trigger, ANY_TRIGGER) or trigger in program.listens_to


def goal_events(program: Program) -> frozenset[str]:
    """Return the names of the events in the journey's goal: these are its conversions."""
    goal = program.definition.goal
    return frozenset() if goal is None else _named(str(goal.when))


@lru_cache(maxsize=1024)
def _named(expression: str) -> frozenset[str]:
    return frozenset(str(call.args[0]) for call in names_used(expression).called(*NAMED) if call.args)
