"""Entry by a date of the contact, such as a birthday: the coming date is scheduled when the contact changes, and the contact enters when it
is due. `due_at` and `next_occasion` say when that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import delete
from sqlmodel import Session, col, select

from distmark.clock import Clock
from distmark.contacts.attributes import attributes_of, zones_of
from distmark.contacts.table import Contact
from distmark.enrollments.model import CameBy
from distmark.entries.entrances import contacts_not_erased, enter_once
from distmark.entries.model import Entrant, EntryContext
from distmark.entries.open_journeys import OpenJourney, entry_point_of
from distmark.entries.plans import BATCH, lock_plan, plans_of
from distmark.entries.table import EntryDate, EntryPlan
from distmark.journeys.entry import Entry, EntrySource
from distmark.journeys.times import MINUTES_PER_DAY, Offset, TimeOfDay, is_usable, resolve, shift, usable_date, yearly
from distmark.sql import among, id_of, insert_into

MIDNIGHT = TimeOfDay.read("00:00")
DAYS_PER_YEAR = 366
YEARS_TRIED = 8


@dataclass(frozen=True, slots=True)
class Occasion:
    """One occurrence of a date: its day (the date itself, or an anniversary of it), and when the contact enters by it (aware UTC)."""

    day: date
    due_at: datetime


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


# When a date enters: pure functions of the entry rule, the date and the zone; as in `journeys.times`, the contact's wall clock decides.


def day_of(entry: Entry, attributes: Mapping[str, Any], zone: ZoneInfo) -> date | None:
    """Return the contact's date that the entry names; None when the contact has none, or one that cannot be read."""
    if entry.date is None:
        return None
    found = entry.date.day
    if found is None and entry.date.root == "contact":  # a journey's own data exists only after entering, so no contact can enter by it
        found = usable_date(attributes.get(entry.date.attribute), zone)
    return found if found is not None and is_usable(found) else None


def next_occasion(entry: Entry, day: date, zone: ZoneInfo, since: datetime, *, strictly: bool = False) -> Occasion | None:
    """Return the first occasion of `day` that is due from `since` on (after it when `strictly`); None when there is none any more.

    With `every: year` the first occasion is the day itself, and there is always another one.
    """
    if entry.every is None:
        occasion = Occasion(day, due_at(entry, day, zone))
        return occasion if _is_due_since(occasion, since, strictly) else None
    first = max(day.year, since.astimezone(zone).year - _years(entry.offset) - 1)
    for year in range(first, first + 2 * _years(entry.offset) + YEARS_TRIED):
        occasion = Occasion(yearly(day, year), due_at(entry, yearly(day, year), zone))
        if _is_due_since(occasion, since, strictly):
            return occasion
    raise AssertionError("an anniversary comes every year")


def due_at(entry: Entry, day: date, zone: ZoneInfo) -> datetime:
    """Return when a contact enters by `day`: the entry's time on it, moved by the offset on the wall clock of `zone`."""
    offset = entry.offset or Offset()
    wall = shift(datetime.combine(day, (entry.at or MIDNIGHT).at), offset)
    return resolve(wall, zone) + timedelta(minutes=offset.minutes)


def _is_due_since(occasion: Occasion, since: datetime, strictly: bool) -> bool:
    return occasion.due_at > since or (occasion.due_at == since and not strictly)


def _years(offset: Offset | None) -> int:
    """Return the most years that the offset can reach, rounded up; 0 without an offset."""
    if offset is None:
        return 0
    days = abs(offset.months) * 31 + abs(offset.days) + abs(offset.minutes) // MINUTES_PER_DAY
    return days // DAYS_PER_YEAR + 1
