"""Entrances: one row per contact, journey and occasion, so that each occasion enters a contact once however often it is found."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import update
from sqlmodel import Session, col, select

from distmark.contacts.table import Contact
from distmark.entries.admission import enter
from distmark.entries.model import EnrolResult, EnrolVerdict, Entrant, EntryContext, EntryPoint
from distmark.entries.open_journeys import record_entries
from distmark.entries.table import Entrance
from distmark.sql import among, id_of, insert_into


def enter_once(session: Session, entry_point: EntryPoint, entrants: Sequence[Entrant], context: EntryContext) -> int:
    """Enter each contact whose occasion was not used before, keep the result of each, and return how many entered."""
    rows = [
        {
            "brand_id": entry_point.brand_id,
            "journey_id": entry_point.journey_id,
            "contact_id": entrant.contact.id,
            "campaign_id": None,
            "source": context.by.value,
            "key": entrant.key,
            "waiting_key": None,
            "data": dict(entrant.data),
            "asked_at": context.now,
            "settled_at": context.now,
            "verdict": "",
        }
        for entrant in entrants
    ]
    if not rows:
        return 0
    claim = insert_into(session, Entrance).on_conflict_do_nothing().returning(col(Entrance.contact_id), col(Entrance.id))
    claimed = {row[0]: row[1] for row in session.execute(claim, rows)}
    first_time = [entrant for entrant in entrants if entrant.contact.id in claimed]
    results = enter(session, entry_point, first_time, context)
    settle_entrances(session, [(claimed[result.contact_id], result) for result in results], context.now)
    return record_entries(session, entry_point, results, context.by, context.now)


def settle_entrances(session: Session, results: Sequence[tuple[int, EnrolResult]], now: datetime) -> None:
    """Store the result of each entrance (id, result); an entrance that is queued stays in the queue."""
    values = [
        {"id": entrance_id, "settled_at": now, "waiting_key": None, "verdict": result.verdict.value, "enrollment_id": result.enrollment_id}
        for entrance_id, result in results
        if result.verdict is not EnrolVerdict.queued
    ]
    if values:
        session.execute(update(Entrance), values)


def contacts_not_erased(session: Session, contact_ids: Collection[int]) -> dict[int, Contact]:
    """Return the contacts among these that were not erased, as they are now, by id and in the order of the ids: the first comes first."""
    kept = select(Contact).where(among(session, col(Contact.id), contact_ids), col(Contact.erased_at).is_(None))
    found = {id_of(contact): contact for contact in session.exec(kept.execution_options(populate_existing=True))}
    return {contact_id: found[contact_id] for contact_id in contact_ids if contact_id in found}
