"""News about many people at once: whom of them it may move is asked in one look."""

from collections.abc import Collection
from datetime import datetime

from sqlmodel import Session, col, select

from distmark.contacts.many import among, batches
from distmark.enrollments.interest import concerns
from distmark.enrollments.service import wake
from distmark.enrollments.table import Enrollment
from distmark.journeys.program import Program
from distmark.journeys.service import program_of


def tell(session: Session, brand_id: int, person_keys: Collection[str], news: Collection[str], now: datetime) -> int:
    """Wake every sleeping enrollment of these people that any of the `news` concerns, and return how many."""
    programs: dict[int, Program] = {}
    rows = session.exec(
        select(Enrollment.id, Enrollment.version_id, Enrollment.awaits, Enrollment.claimed_by).where(
            among(session, col(Enrollment.person_key), dict.fromkeys(person_keys)),
            Enrollment.brand_id == brand_id,
            col(Enrollment.ended_at).is_(None),
        )
    ).all()
    concerned: list[int] = []
    for row_id, version_id, awaits, claimed_by in rows:
        if version_id not in programs:
            programs[version_id] = program_of(session, version_id)
        # One that is being walked right now gathered its facts before this news, and may come to rest at a wait for it.
        if row_id and (claimed_by or any(concerns(programs[version_id], awaits, each) for each in news)):
            concerned.append(row_id)
    return sum(wake(session, ids, now) for ids in batches(concerned))
