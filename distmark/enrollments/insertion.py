"""Inserting enrollments: many by one statement, each with the first entry of its timeline."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlmodel import Session

from distmark.contacts.table import Contact
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.sql import id_of, insert_into, rows_of


@dataclass(frozen=True, slots=True)
class EntryBatch:
    """The columns that all enrollments of one insertion share; `detail` is kept with the first entry of each timeline."""

    brand_id: int
    journey_id: int
    version_id: int
    campaign_id: int | None
    entered_at: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewEnrollment:
    """The columns of one enrollment that differ from the others': `live_key` is None when a contact may be inside several times at once."""

    contact: Contact
    member_id: int | None
    live_key: str | None
    data: Mapping[str, Any]
    run_key: str
    due_at: datetime

    def columns(self) -> dict[str, Any]:
        """Return the columns, in the order of `OWN`."""
        return {
            "member_id": self.member_id,
            "partner_id": self.contact.partner_id,
            "contact_id": id_of(self.contact),
            "person_key": self.contact.person_key,
            "live_key": self.live_key,
            "data": dict(self.data),
            "run_key": self.run_key,
        }


OWN = ("member_id", "partner_id", "contact_id", "person_key", "live_key", "data", "run_key")


def insert_enrollments(session: Session, batch: EntryBatch, new: Sequence[NewEnrollment]) -> dict[int, int]:
    """Insert these enrollments and return their ids by contact id.

    A contact that another transaction enrolled first is left as it is, and absent from the result.
    """
    inserted: dict[int, int] = {}
    # Rows of one statement share the time at which they are due; nearly always that is all of them.
    by_due_at: dict[datetime, list[dict[str, Any]]] = {}
    for each in new:
        by_due_at.setdefault(each.due_at, []).append(each.columns())
    for due_at, rows in by_due_at.items():
        inserted.update(_insert_rows(session, _shared(batch, due_at), rows))
    _insert_first_entries(session, list(inserted.values()), batch)
    return inserted


def _shared(batch: EntryBatch, due_at: datetime) -> dict[str, Any]:
    return {
        "brand_id": batch.brand_id,
        "journey_id": batch.journey_id,
        "version_id": batch.version_id,
        "campaign_id": batch.campaign_id,
        "status": EnrollmentStatus.waiting,
        "visits": {},
        "due_at": due_at,
        "why": "time",
        "rules": [],
        "answers": {},
        "entered_at": batch.entered_at,
        "reason": "",
        "queue": "default",
        "wakes": 0,
        "tries": 0,
        "error": "",
    }


def _insert_rows(session: Session, shared: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    table = Enrollment.__table__  # type: ignore[attr-defined]
    statement = insert_into(session, table).from_select([*shared, *OWN], rows_of(session, table, shared, rows, OWN))
    statement = statement.on_conflict_do_nothing(index_elements=["live_key"])
    returned = session.execute(statement.returning(table.c.contact_id, table.c.id))
    return {row[0]: row[1] for row in returned}


def _insert_first_entries(session: Session, enrollment_ids: Collection[int], batch: EntryBatch) -> None:
    if not enrollment_ids:
        return
    shared = {
        "at": batch.entered_at,
        "kind": TimelineKind.entered,
        "step_id": "",
        "visit": 1,
        "detail": dict(batch.detail),
        "rolled": False,
    }
    own, table = ("enrollment_id",), TimelineEntry.__table__  # type: ignore[attr-defined]
    rows = [{"enrollment_id": enrollment_id} for enrollment_id in enrollment_ids]
    session.execute(insert(table).from_select([*shared, *own], rows_of(session, table, shared, rows, own)))
