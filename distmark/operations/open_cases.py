"""Open cases: how many enrollments are parked and how many messages are uncertain, as the start page shows them."""

from dataclasses import dataclass

from sqlmodel import Session, func, select

from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.partners.model import Viewer
from distmark.partners.scope import visible


@dataclass(frozen=True, slots=True)
class OpenCases:
    """The numbers of parked enrollments and of uncertain messages."""

    parked: int
    uncertain: int


def open_cases(session: Session, viewer: Viewer) -> OpenCases:
    """Return the numbers of open cases among the viewer's rows, whatever the viewer's role."""
    parked = visible(select(func.count()).select_from(Enrollment), Enrollment, viewer).where(Enrollment.status == EnrollmentStatus.parked)
    uncertain = visible(select(func.count()).select_from(Message), Message, viewer).where(Message.status == MessageStatus.uncertain)
    return OpenCases(int(session.exec(parked).one()), int(session.exec(uncertain).one()))
