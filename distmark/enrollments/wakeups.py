"""News about many people at once: whom of them it may move is asked in one look."""

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import lru_cache

from sqlalchemy import select
from sqlmodel import Session, col

from distmark.enrollments.service import wake
from distmark.enrollments.table import Enrollment
from distmark.journeys.expressions import names_used
from distmark.journeys.program import Program
from distmark.journeys.service import program_of
from distmark.sql import among, batches


def wake_waiting(session: Session, brand_id: int, person_keys: Collection[str], news: Collection[str], now: datetime) -> int:
    """Wake every sleeping enrollment of these people that any of the `news` concerns, and return how many."""
    return wake_waiting_each(session, brand_id, dict.fromkeys(person_keys, news), now)


def wake_waiting_each(session: Session, brand_id: int, told: Mapping[str, Collection[str]], now: datetime) -> int:
    """Wake every sleeping enrollment that news of its own person (person key -> news) concerns, and return how many.

    Everything that these people are in stays locked until the unit of work ends, in the order in which wakes lock theirs. A wake that takes
    one of them up meanwhile either was before, and is seen here, or comes after, and sees the news.
    """
    programs: dict[int, Program] = {}
    row = Enrollment
    theirs = select(col(row.id), col(row.person_key), col(row.version_id), col(row.awaits), col(row.claimed_by)).where(
        among(session, col(row.person_key), told), col(row.brand_id) == brand_id, col(row.ended_at).is_(None)
    )
    rows = session.execute(theirs.order_by(col(row.id)).with_for_update(key_share=True)).all()
    concerned: list[int] = []
    for row_id, person_key, version_id, awaits, claimed_by in rows:
        if version_id not in programs:
            programs[version_id] = program_of(session, version_id)
        news = told[person_key]
        # One that is being walked right now gathered its facts before this news, and may come to rest at a wait for it.
        if row_id and news and (claimed_by or any(is_triggered_by(programs[version_id], awaits, each) for each in news)):
            concerned.append(row_id)
    return sum(wake(session, ids, now) for ids in batches(concerned))


ANY_NEWS = "*"
NAMED = ("converted", "happened", "value_of")


def is_triggered_by(program: Program, awaits: str | None, news: str) -> bool:
    """Say whether `news` (opened, clicked, an event's name, contact ...) may end this wait, reach the goal, or fulfil an exit rule."""
    return awaits in (news, ANY_NEWS) or news in program.listens_to


def goal_events(program: Program) -> frozenset[str]:
    """Return the names of the events that the journey's goal speaks of: these are its conversions."""
    goal = program.definition.goal
    return frozenset() if goal is None else _named(str(goal.when))


@lru_cache(maxsize=1024)
def _named(expression: str) -> frozenset[str]:
    return frozenset(str(call.args[0]) for call in names_used(expression).called(*NAMED) if call.args)
