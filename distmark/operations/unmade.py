"""Enrollments that stand at a send because their message cannot be made: a value that it shows is missing, or its template is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select

from distmark.contacts.table import Contact
from distmark.enrollments.model import UNMADE, EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.partners.model import Viewer
from distmark.partners.scope import visible

NAMED = 5


@dataclass(frozen=True, slots=True)
class Unmade:
    """The number of enrollments whose message cannot be made, and the contacts of the first of them with the rule that names why."""

    count: int = 0
    first: Sequence[tuple[Contact, str]] = ()


def unmade_count(session: Session, viewer: Viewer) -> int:
    """Return how many of the viewer's enrollments stand because their message cannot be made."""
    return int(session.exec(visible(select(func.count()).select_from(Enrollment), Enrollment, viewer).where(*_is_unmade())).one())


def unmade_in(session: Session, viewer: Viewer, campaign_id: int, named: int = NAMED) -> Unmade:
    """Return the viewer's enrollments of the campaign whose message cannot be made, with the contacts of at most `named`, oldest first."""
    here = [*_is_unmade(), col(Enrollment.campaign_id) == campaign_id]
    counting = visible(select(func.count()).select_from(Enrollment), Enrollment, viewer)
    count = int(session.exec(counting.where(*here)).one())
    if not count or not named:
        return Unmade(count)
    rows = visible(select(Contact, Enrollment.rules).join(Enrollment, col(Enrollment.contact_id) == col(Contact.id)), Enrollment, viewer)
    first = session.exec(rows.where(*here).order_by(col(Enrollment.id)).limit(named))
    return Unmade(count, [(contact, str(next(iter(rules or []), UNMADE))) for contact, rules in first])


def _is_unmade() -> list[ColumnElement[bool]]:
    return [col(Enrollment.status) == EnrollmentStatus.parked, col(Enrollment.why) == UNMADE]
