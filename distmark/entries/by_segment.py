"""Entry by a segment: contacts enter as they join it, or when the segment is read at intervals."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlmodel import Session

from distmark.enrollments.model import CameBy
from distmark.enrollments.wakeups import wake_waiting
from distmark.entries.entrances import contacts_not_erased, enter_once
from distmark.entries.model import Entrant, EntryContext
from distmark.entries.open_journeys import OpenJourney, entry_point_of
from distmark.entries.plans import BATCH, lock_plan, plans_of
from distmark.entries.table import EntryPlan
from distmark.journeys.entry import EntrySource
from distmark.journeys.times import Duration, zone_for
from distmark.partners.table import Brand
from distmark.segments.changes import mark_dispatched, pending_changes
from distmark.segments.membership import members_after

ONE_DAY = timedelta(days=1)


def dispatch_membership_changes(session: Session, now: datetime, limit: int = BATCH) -> int:
    """Dispatch the next membership changes to the journeys, and return how many.

    Enrollments that wait for a change of segment are woken, and journeys that take contacts as they join a segment take the new members.
    """
    changes = pending_changes(session, limit)
    if not changes:
        return 0
    for brand_id in {change.brand_id for change in changes}:
        wake_waiting(session, brand_id, [change.person_key for change in changes if change.brand_id == brand_id], ["segment"], now)
    for _plan, journey in plans_of(session, EntrySource.segment):
        joined = {
            change.contact_id: change.occasion
            for change in changes
            if change.joined and (change.brand_id, change.key) == (journey.brand_id, journey.entry.segment)
        }
        if journey.entry.every is None and joined:
            _enter_members(session, journey, joined, now)
    mark_dispatched(session, changes)
    return len(changes)


def enter_member_batch(session: Session, now: datetime, limit: int = BATCH) -> int | None:
    """Enter the next members of a segment whose reading is due or under way, and return how many were read; None when no reading is.

    A journey with `every` reads its segment at these intervals, from its registration on; a journey without it reads the segment once, and
    then takes contacts as they join. Several missed readings are made up for by one.
    """
    for known, journey in plans_of(session, EntrySource.segment):
        is_due = known.reached is not None or (known.next_at is not None and known.next_at <= now)
        plan = lock_plan(session, known) if is_due else None
        if plan is None:
            continue
        if plan.reached is None and plan.next_at is not None and plan.next_at <= now:
            plan.reached, plan.read_at = 0, now
            plan.next_at = _next_reading(session, plan, journey, now)
        if plan.reached is None:
            continue
        members = members_after(session, plan.brand_id, journey.entry.segment or "", plan.reached, limit)
        # A contact that joins while the segment is read for the first time is dispatched, too: the key of its joining enters it once.
        reading = None if journey.entry.every is None else f"reading:{plan.read_at.isoformat()}"
        _enter_members(session, journey, {contact_id: reading or joining for contact_id, joining in members.items()}, now)
        plan.reached = max(members) if len(members) == limit else None
        session.add(plan)
        session.flush()
        return len(members)
    return None


def _next_reading(session: Session, plan: EntryPlan, journey: OpenJourney, now: datetime) -> datetime | None:
    """Return the first reading after `now`; None without intervals. Readings are counted from `since`, so that they do not drift."""
    every = journey.entry.every
    if not isinstance(every, Duration):
        return None
    zone = zone_for(session.get_one(Brand, plan.brand_id).zone)
    longest = timedelta(days=31 * every.months + every.days, minutes=every.minutes)
    count = max(1, (now - plan.since - ONE_DAY) // longest)  # one day less: clocks are put forward and back
    while (at := Duration(every.months * count, every.days * count, every.minutes * count).after(plan.since, zone)) <= now:
        count += 1
    return at


def _enter_members(session: Session, journey: OpenJourney, keys: Mapping[int, str], now: datetime) -> int:
    """Enter these contacts (contact id -> key of the occasion), each once per occasion, and return how many entered."""
    entry_point = entry_point_of(session, journey)
    if entry_point is None:
        return 0
    contacts = contacts_not_erased(session, keys)
    entrants = [Entrant(contact, key=keys[contact_id]) for contact_id, contact in contacts.items()]
    return enter_once(session, entry_point, entrants, EntryContext(CameBy.segment, now, {"segment": journey.entry.segment}))
