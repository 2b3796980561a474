"""Entry by a date of the contact: the coming date is scheduled when the contact changes, and the contact enters when it is due."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import delete
from sqlmodel import Session, col, select

from distmark.clock import Clock
from distmark.contacts.attributes import attributes_of, zones_of
from distmark.contacts.table import Contact
from distmark.enrollments.model import CameBy
from distmark.entries.dates import day_of, next_occasion
from distmark.entries.entrances import contacts_not_erased, enter_once
from distmark.entries.model import Entrant, EntryContext
from distmark.entries.open_journeys import OpenJourney, entry_point_of
from distmark.entries.plans import BATCH, lock_plan, plans_of
from distmark.entries.table import EntryDate, EntryPlan
from distmark.journeys.entry import EntrySource
from distmark.sql import among, id_of, insert_into


def schedule_batch(session: Session, limit: int = BATCH) -> int | None:
    """Schedule the dates of the next contacts for a journey with a new date rule, and return how many contacts; None when none is left."""
    for known, journey in plans_of(session, EntrySource.date):
        plan = lock_plan(session, known) if known.reached is not None else None
        if plan is None or plan.reached is None:
            continue
        remaining = select(Contact).where(Contact.brand_id == plan.brand_id, col(Contact.id) > plan.reached).order_by(col(Contact.id))
        contacts = list(session.exec(remaining.limit(limit).with_for_update(key_share=True).execution_options(populate_existing=True)))
        schedule(session, plan, journey, contacts, anew=True)
        plan.reached = contacts[-1].id if len(contacts) == limit else None
        session.add(plan)
        session.flush()
        return len(contacts)
    return None


def schedule(session: Session, plan: EntryPlan, journey: OpenJourney, contacts: Sequence[Contact], *, anew: bool) -> None:
    """Store when each contact's date is due next; a contact without a coming date loses its row.

    The row of an unchanged date stays as it is, unless all dates are to be scheduled `anew`.
    """
    if not contacts:
        return
    ids, zones = [id_of(contact) for contact in contacts], zones_of(session, contacts)
    of_journey = select(EntryDate).where(EntryDate.journey_id == plan.journey_id, among(session, col(EntryDate.contact_id), ids))
    known = {row.contact_id: row for row in session.exec(of_journey)}
    rows: list[dict[str, Any]] = []
    gone: list[int] = []
    for contact in contacts:
        zone, row = zones[id_of(contact)], known.get(id_of(contact))
        day = _day(journey, contact, zone)
        if row is not None and not anew and (row.day, row.zone) == (day, zone.key):
            continue
        occasion = next_occasion(journey.entry, day, zone, _counts_from(plan, contact, anew=anew)) if day is not None else None
        if day is not None and occasion is not None:
            source = {"journey_id": plan.journey_id, "contact_id": contact.id, "day": day, "zone": zone.key}
            rows.append({**source, "occasion": occasion.day, "due_at": occasion.due_at})
        elif row is not None:
            gone.append(id_of(row))
    if rows:
        statement = insert_into(session, EntryDate)
        changed = {name: statement.excluded[name] for name in ("day", "zone", "occasion", "due_at")}
        session.execute(statement.on_conflict_do_update(index_elements=["journey_id", "contact_id"], set_=changed), rows)
    if gone:
        session.execute(delete(EntryDate).where(among(session, col(EntryDate.id), gone)))


def _day(journey: OpenJourney, contact: Contact, zone: ZoneInfo) -> date | None:
    if contact.erased_at is not None:
        return None
    return day_of(journey.entry, attributes_of(contact, journey.definition.contact_fields), zone)


def _counts_from(plan: EntryPlan, contact: Contact, *, anew: bool) -> datetime:
    """Return the time from which dates of this contact count: a date due before the contact or the journey was there enters nobody.

    A contact may change several times before it is processed, so one that just changed counts from when all changes had been processed.
    """
    return max(plan.since, contact.created_at, plan.since if anew else min(contact.updated_at, plan.read_at))


def enter_by_dates(session: Session, clock: Clock, limit: int = BATCH) -> int:
    """Enter the contacts whose dates are due, the earliest first, each once per occasion; return how many dates were processed."""
    now = clock.now()
    due = set(session.exec(select(EntryDate.journey_id).where(col(EntryDate.due_at) <= now).distinct()))
    plans = [(plan, journey) for plan, journey in plans_of(session, EntrySource.date) if plan.journey_id in due] if due else []
    return sum(_enter_due(session, plan, journey, clock, now, limit) for plan, journey in plans)


def _enter_due(session: Session, plan: EntryPlan, journey: OpenJourney, clock: Clock, now: datetime, limit: int) -> int:
    entry_point = entry_point_of(session, journey)
    if entry_point is None:
        return 0
    of_journey = select(EntryDate).where(EntryDate.journey_id == plan.journey_id, col(EntryDate.due_at) <= now)
    first = of_journey.order_by(col(EntryDate.due_at), col(EntryDate.id)).limit(limit).with_for_update(skip_locked=True)
    rows = list(session.exec(first.execution_options(populate_existing=True)))
    contacts = contacts_not_erased(session, [row.contact_id for row in rows])
    zones = zones_of(session, list(contacts.values()))
    due = _still_due(session, plan, journey, rows, contacts, zones)
    entrants = [
        Entrant(contacts[row.contact_id], key=f"date:{row.occasion.isoformat()}", due_at=clock.effective(row.due_at)) for row in due
    ]
    enter_once(session, entry_point, entrants, EntryContext(CameBy.date, now, {"date": str(journey.entry.date)}))
    for row in due:
        following = next_occasion(journey.entry, row.day, zones[row.contact_id], row.due_at, strictly=True)
        if following is None:
            session.delete(row)
        else:
            row.occasion, row.due_at = following.day, following.due_at
            session.add(row)
    session.flush()
    return len(rows)


def _still_due(
    session: Session,
    plan: EntryPlan,
    journey: OpenJourney,
    rows: Sequence[EntryDate],
    contacts: Mapping[int, Contact],
    zones: Mapping[int, ZoneInfo],
) -> list[EntryDate]:
    """Return the rows that agree with contact and journey as they are now; the others are scheduled again, since either just changed."""
    due: list[EntryDate] = []
    for row in rows:
        contact = contacts.get(row.contact_id)
        of_earlier_rule = plan.reached is not None and row.contact_id > plan.reached and row.due_at > plan.since
        if contact is None:
            session.delete(row)
        elif of_earlier_rule:
            schedule(session, plan, journey, [contact], anew=True)
        elif (row.day, row.zone) != (_day(journey, contact, zones[row.contact_id]), zones[row.contact_id].key):
            schedule(session, plan, journey, [contact], anew=False)
        else:
            due.append(row)
    return due
