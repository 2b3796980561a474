"""The entrances of contacts, each used once for its occasion."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import update
from sqlmodel import Session, col, select

from distmark.contacts.table import Contact
from distmark.enrollments.model import EnrolResult, EnrolVerdict
from distmark.entries.admission import enter
from distmark.entries.model import Entrant, EntryContext, EntryPoint
from distmark.entries.open_journeys import note_entries
from distmark.entries.table import Entrance
from distmark.sql import among, id_of, insert_into


def enter_once(session: Session, door: EntryPoint, entrants: Sequence[Entrant], arrival: EntryContext) -> int:
    """Enter those whose occasion was not used before, and keep what became of each; return how many entered."""
    rows = [
        {
            "brand_id": door.brand_id,
            "journey_id": door.journey_id,
            "contact_id": entrant.contact.id,
            "campaign_id": None,
            "source": arrival.by.value,
            "key": entrant.key,
            "waiting_key": None,
            "data": dict(entrant.data),
            "asked_at": arrival.now,
            "settled_at": arrival.now,
            "verdict": "",
        }
        for entrant in entrants
    ]
    if not rows:
        return 0
    claim = insert_into(session, Entrance).on_conflict_do_nothing().returning(col(Entrance.contact_id), col(Entrance.id))
    claimed = {row[0]: row[1] for row in session.execute(claim, rows)}
    mine = [entrant for entrant in entrants if entrant.contact.id in claimed]
    results = enter(session, door, mine, arrival)
    settle_entrances(session, [(claimed[result.contact_id], result) for result in results], arrival.now)
    return note_entries(session, door, results, arrival.by, arrival.now)


def settle_entrances(session: Session, settled: Sequence[tuple[int, EnrolResult]], now: datetime) -> None:
    """Write what became of each entrance; those who still wait are left waiting."""
    values = [
        {"id": row_id, "settled_at": now, "waiting_key": None, "verdict": result.verdict.value, "enrollment_id": result.enrollment_id}
        for row_id, result in settled
        if result.verdict is not EnrolVerdict.queued
    ]
    if values:
        session.execute(update(Entrance), values)


def living_contacts(session: Session, contact_ids: Collection[int]) -> dict[int, Contact]:
    alive = select(Contact).where(among(session, col(Contact.id), contact_ids), col(Contact.erased_at).is_(None))
    return {id_of(contact): contact for contact in session.exec(alive.execution_options(populate_existing=True))}
