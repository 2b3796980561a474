"""The enrollments that a person saw before acting on them, so that the act concerns these and no others."""

from dataclasses import dataclass
from typing import Self

from sqlalchemy import ColumnElement, func, select
from sqlmodel import Session, col

from distmark.enrollments.bulk import Conditions, count
from distmark.enrollments.table import Enrollment
from distmark.errors import SelectionChanged


@dataclass(frozen=True, slots=True)
class ShownEnrollments:
    """The number of enrollments that were shown, and the id of the newest of them (0: there was none)."""

    count: int
    newest_id: int = 0

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Return the value of a text made by `str`; None for another text."""
        parts = text.split("-")
        if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 18 for part in parts):
            return None
        return cls(int(parts[0]), int(parts[1]))

    def __str__(self) -> str:
        return f"{self.count}-{self.newest_id}"


def shown_enrollments(session: Session, where: Conditions) -> ShownEnrollments:
    """Return the enrollments that meet the conditions now, as a page shows them."""
    number, newest_id = session.execute(select(func.count(), func.max(col(Enrollment.id))).where(*where)).one()
    return ShownEnrollments(number, newest_id or 0)


def only_shown(session: Session, where: Conditions, shown: ShownEnrollments | None) -> list[ColumnElement[bool]]:
    """Return the conditions, narrowed to the enrollments that were shown; None narrows nothing.

    One that meets them no longer is left out. SelectionChanged when there are more of them than were shown.
    """
    if shown is None:
        return [*where]
    narrowed = [*where, col(Enrollment.id) <= shown.newest_id]
    if (now := count(session, narrowed)) > shown.count:
        raise changed(now, shown.count)
    return narrowed


def changed(now: int, shown: int) -> SelectionChanged:
    """Return the error that says how many people are concerned now and were shown."""
    return SelectionChanged(f"Something changed since this was shown: it concerns {now} people now, not {shown}. Nothing was done.")
