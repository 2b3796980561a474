"""Entering journeys by a date of the contact: scheduled when the contact changes, entered when it is due."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import delete
from sqlmodel import Session, col, select

from distmark.clock import Clock
from distmark.contacts.attributes import attributes_of, zones_of
from distmark.contacts.table import Contact
from distmark.enrollments.model import CameBy
from distmark.entries.dates import day_of, next_occasion
from distmark.entries.entrances import enter_once, living_contacts
from distmark.entries.model import Entrant, EntryContext
from distmark.entries.open_journeys import Open, entry_point_of
from distmark.entries.plans import BATCH, locked_plan, plans_of
from distmark.entries.table import EntryDate, EntryPlan
from distmark.journeys.entry import EntrySource
from distmark.sql import among, id_of, insert_into


def schedule_some(session: Session, limit: int = BATCH) -> int | None:
    """Write down when the next contacts of a new dated journey come due, and return how many; None when all journeys have done so."""
    for each, opened in plans_of(session, EntrySource.date):
        plan = locked_plan(session, each) if each.reached is not None else None
        if plan is None or plan.reached is None:
            continue
        everybody = select(Contact).where(Contact.brand_id == plan.brand_id, col(Contact.id) > plan.reached).order_by(col(Contact.id))
        contacts = list(session.exec(everybody.limit(limit).with_for_update(key_share=True).execution_options(populate_existing=True)))
        schedule(session, plan, opened, contacts, anew=True)
        plan.reached = contacts[-1].id if len(contacts) == limit else None
        session.add(plan)
        session.flush()
        return len(contacts)
    return None


def schedule(session: Session, plan: EntryPlan, opened: Open, contacts: Sequence[Contact], *, anew: bool) -> None:
    """Write when each contact comes due next, or that they never do. A date that stands is not touched, unless all is to be done `anew`."""
    if not contacts:
        return
    ids, zones = [id_of(contact) for contact in contacts], zones_of(session, contacts)
    mine = select(EntryDate).where(EntryDate.journey_id == plan.journey_id, among(session, col(EntryDate.contact_id), ids))
    known = {row.contact_id: row for row in session.exec(mine)}
    rows: list[dict[str, Any]] = []
    gone: list[int] = []
    for contact in contacts:
        zone, row = zones[id_of(contact)], known.get(id_of(contact))
        day = _day(opened, contact, zone)
        if row is not None and not anew and (row.day, row.zone) == (day, zone.key):
            continue
        occasion = next_occasion(opened.entry, day, zone, _since(plan, contact, anew=anew)) if day is not None else None
        if day is not None and occasion is not None:
            place = {"journey_id": plan.journey_id, "contact_id": contact.id, "day": day, "zone": zone.key}
            rows.append({**place, "occasion": occasion.day, "due_at": occasion.due_at})
        elif row is not None:
            gone.append(id_of(row))
    if rows:
        statement = insert_into(session, EntryDate)
        again = {name: statement.excluded[name] for name in ("day", "zone", "occasion", "due_at")}
        session.execute(statement.on_conflict_do_update(index_elements=["journey_id", "contact_id"], set_=again), rows)
    if gone:
        session.execute(delete(EntryDate).where(among(session, col(EntryDate.id), gone)))


def _day(opened: Open, contact: Contact, zone: ZoneInfo) -> Any:
    if contact.erased_at is not None:
        return None
    return day_of(opened.entry, attributes_of(contact, opened.definition.contact_fields), zone)


def _since(plan: EntryPlan, contact: Contact, *, anew: bool) -> datetime:
    """Return from when on a date of this contact counts: what came due before we knew it, or before the journey took anybody, is over.

    A contact may change several times before it is looked at, so one that just changed counts from when all changes had been seen.
    """
    return max(plan.since, contact.created_at, plan.since if anew else min(contact.updated_at, plan.read_at))


def enter_by_dates(session: Session, clock: Clock, limit: int = BATCH) -> int:
    """Enter those whose dates are due, the longest due first, each once for each occasion; return how many dates were looked at."""
    now = clock.now()
    due = set(session.exec(select(EntryDate.journey_id).where(col(EntryDate.due_at) <= now).distinct()))
    plans = [each for each in plans_of(session, EntrySource.date) if each[0].journey_id in due] if due else []
    return sum(_enter_due(session, plan, opened, clock, now, limit) for plan, opened in plans)


def _enter_due(session: Session, plan: EntryPlan, opened: Open, clock: Clock, now: datetime, limit: int) -> int:
    door = entry_point_of(session, opened)
    if door is None:
        return 0
    mine = select(EntryDate).where(EntryDate.journey_id == plan.journey_id, col(EntryDate.due_at) <= now)
    first = mine.order_by(col(EntryDate.due_at), col(EntryDate.id)).limit(limit).with_for_update(skip_locked=True)
    rows = list(session.exec(first.execution_options(populate_existing=True)))
    people = living_contacts(session, [row.contact_id for row in rows])
    zones = zones_of(session, list(people.values()))
    due = _still_due(session, plan, opened, rows, people, zones)
    entrants = [Entrant(people[row.contact_id], key=f"date:{row.occasion.isoformat()}", due_at=clock.effective(row.due_at)) for row in due]
    enter_once(session, door, entrants, EntryContext(CameBy.date, now, {"date": str(opened.entry.date)}))
    for row in due:
        following = next_occasion(opened.entry, row.day, zones[row.contact_id], row.due_at, strictly=True)
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
    opened: Open,
    rows: Sequence[EntryDate],
    people: Mapping[int, Contact],
    zones: Mapping[int, ZoneInfo],
) -> list[EntryDate]:
    """Return the rows that say what contact and journey say now; the others are written anew, since either changed a moment ago."""
    due: list[EntryDate] = []
    for row in rows:
        contact = people.get(row.contact_id)
        of_earlier_rule = plan.reached is not None and row.contact_id > plan.reached and row.due_at > plan.since
        if contact is None:
            session.delete(row)
        elif of_earlier_rule:
            schedule(session, plan, opened, [contact], anew=True)
        elif (row.day, row.zone) != (_day(opened, contact, zones[row.contact_id]), zones[row.contact_id].key):
            schedule(session, plan, opened, [contact], anew=False)
        else:
            due.append(row)
    return due
