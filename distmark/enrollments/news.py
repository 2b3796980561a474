"""News about many people at once: whom of them it may move is asked in one look."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import select
from sqlmodel import Session, col

from distmark.contacts.many import among, batches
from distmark.enrollments.interest import concerns
from distmark.enrollments.service import wake
from distmark.enrollments.table import Enrollment
from distmark.journeys.program import Program
from distmark.journeys.service import program_of


def tell(session: Session, brand_id: int, person_keys: Collection[str], news: Collection[str], now: datetime) -> int:
    """Wake every sleeping enrollment of these people that any of the `news` concerns, and return how many."""
    return tell_each(session, brand_id, dict.fromkeys(person_keys, news), now)


def tell_each(session: Session, brand_id: int, told: Mapping[str, Collection[str]], now: datetime) -> int:
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
        if row_id and news and (claimed_by or any(concerns(programs[version_id], awaits, each) for each in news)):
            concerned.append(row_id)
    return sum(wake(session, ids, now) for ids in batches(concerned))
