"""Which sleeping enrollments a piece of news concerns. A wake costs Prefect three transitions, so only those it may move are woken."""

from datetime import datetime
from functools import lru_cache

from sqlmodel import Session, col, select

from distmark.enrollments.service import ASLEEP, wake
from distmark.enrollments.table import Enrollment
from distmark.journeys.expressions import names_used
from distmark.journeys.program import Program
from distmark.journeys.service import program_of

ANY_NEWS = "*"
NAMED = ("converted", "happened", "value_of")


def concerns(program: Program, awaits: str | None, news: str) -> bool:
    """Say whether `news` (opened, clicked, an event's name, contact ...) may end this wait, reach the goal, or fulfil an exit rule."""
    return awaits in (news, ANY_NEWS) or news in program.listens_to


def goal_events(program: Program) -> frozenset[str]:
    """Return the names of the events that the journey's goal speaks of: these are its conversions."""
    goal = program.definition.goal
    return frozenset() if goal is None else _named(str(goal.when))


@lru_cache(maxsize=1024)
def _named(expression: str) -> frozenset[str]:
    return frozenset(str(call.args[0]) for call in names_used(expression).called(*NAMED) if call.args)


def wake_concerned(session: Session, brand_id: int, person_key: str, news: str, now: datetime) -> int:
    """Wake every sleeping enrollment of this person that the news concerns, and return how many."""
    rows = session.exec(
        select(Enrollment.id, Enrollment.version_id, Enrollment.awaits, Enrollment.claimed_by).where(
            Enrollment.person_key == person_key, Enrollment.brand_id == brand_id, col(Enrollment.status).in_(ASLEEP)
        )
    ).all()
    # One that is being walked right now gathered its facts before this news, and may come to rest at a wait for it.
    woken = [
        row_id
        for row_id, version_id, awaits, claimed_by in rows
        if row_id and (claimed_by or concerns(program_of(session, version_id), awaits, news))
    ]
    return wake(session, woken, now) if woken else 0
