"""Which sleeping enrollments a piece of news concerns. A wake costs Prefect three transitions, so only those it may move are woken."""

from datetime import datetime

from sqlmodel import Session, col, select

from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.service import wake
from distmark.enrollments.table import Enrollment
from distmark.journeys.program import Program
from distmark.journeys.service import program_of

ANY_NEWS = "*"


def concerns(program: Program, awaits: str | None, news: str) -> bool:
    """Say whether `news` (opened, clicked, an event's name, contact ...) may end this wait, reach the goal, or fulfil an exit rule."""
    if awaits in (news, ANY_NEWS):
        return True
    return news in program.listens_to


def wake_concerned(session: Session, brand_id: int, person_key: str, news: str, now: datetime) -> int:
    """Wake every sleeping enrollment of this person that the news concerns, and return how many."""
    rows = session.exec(
        select(Enrollment.id, Enrollment.version_id, Enrollment.awaits).where(
            Enrollment.person_key == person_key, Enrollment.brand_id == brand_id, col(Enrollment.status) == EnrollmentStatus.waiting
        )
    ).all()
    woken = [row_id for row_id, version_id, awaits in rows if row_id and concerns(program_of(session, version_id), awaits, news)]
    return wake(session, woken, now) if woken else 0
