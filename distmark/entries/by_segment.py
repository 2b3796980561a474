"""Entering journeys by a segment: as contacts join, or by reading the segment at intervals."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlmodel import Session

from distmark.enrollments.model import CameBy
from distmark.enrollments.wakeups import wake_waiting
from distmark.entries.entrances import enter_once, living_contacts
from distmark.entries.model import Entrant, EntryContext
from distmark.entries.open_journeys import Open, entry_point_of
from distmark.entries.plans import BATCH, locked_plan, plans_of
from distmark.entries.table import EntryPlan
from distmark.journeys.entry import EntrySource
from distmark.journeys.times import Duration, zone_for
from distmark.partners.table import Brand
from distmark.segments import changes, membership

ONE_DAY = timedelta(days=1)


def dispatch_membership_changes(session: Session, now: datetime, limit: int = BATCH) -> int:
    """Tell journeys of the next contacts that joined or left a segment, and return how many.

    Whoever waits for it is woken, and journeys that take a segment's contacts as they join take those.
    """
    passages = changes.pending_changes(session, limit)
    if not passages:
        return 0
    for brand_id in {passage.brand_id for passage in passages}:
        wake_waiting(session, brand_id, [each.person_key for each in passages if each.brand_id == brand_id], ["segment"], now)
    for _plan, opened in plans_of(session, EntrySource.segment):
        joined = {
            each.contact_id: each.occasion
            for each in passages
            if each.joined and (each.brand_id, each.key) == (opened.brand_id, opened.entry.segment)
        }
        if opened.entry.every is None and joined:
            _enter_members(session, opened, joined, now)
    changes.mark_dispatched(session, passages)
    return len(passages)


def read_some_members(session: Session, now: datetime, limit: int = BATCH) -> int | None:
    """Enter the next contacts of a segment whose reading is due or under way, and return how many it looked at; None when none is.

    A journey with `every` reads its segment at these intervals, from its registration on; one without reads it once, and then takes those
    who join. Readings that were missed are made up for by one.
    """
    for each, opened in plans_of(session, EntrySource.segment):
        due = each.reached is not None or (each.next_at is not None and each.next_at <= now)
        plan = locked_plan(session, each) if due else None
        if plan is None:
            continue
        if plan.reached is None and plan.next_at is not None and plan.next_at <= now:
            plan.reached, plan.read_at = 0, now
            plan.next_at = _following(session, plan, opened, now)
        if plan.reached is None:
            continue
        members = membership.members_after(session, plan.brand_id, opened.entry.segment or "", plan.reached, limit)
        # One that joins and is told of while the segment is read for the first time enters once: by the name of the joining.
        reading = None if opened.entry.every is None else f"reading:{plan.read_at.isoformat()}"
        _enter_members(session, opened, {contact_id: reading or joining for contact_id, joining in members.items()}, now)
        plan.reached = max(members) if len(members) == limit else None
        session.add(plan)
        session.flush()
        return len(members)
    return None


def _following(session: Session, plan: EntryPlan, opened: Open, now: datetime) -> datetime | None:
    """Return the first reading after `now`. They are counted from `since`, so that none of them drifts."""
    every = opened.entry.every
    if not isinstance(every, Duration):
        return None
    zone = zone_for(session.get_one(Brand, plan.brand_id).zone)
    longest = timedelta(days=31 * every.months + every.days, minutes=every.minutes)
    count = max(1, (now - plan.since - ONE_DAY) // longest)  # a day for the clocks' going back and forth
    while (at := Duration(every.months * count, every.days * count, every.minutes * count).after(plan.since, zone)) <= now:
        count += 1
    return at


def _enter_members(session: Session, opened: Open, joined: Mapping[int, str], now: datetime) -> int:
    door = entry_point_of(session, opened)
    if door is None:
        return 0
    people = living_contacts(session, joined)
    entrants = [Entrant(contact, key=joined[contact_id]) for contact_id, contact in people.items()]
    return enter_once(session, door, entrants, EntryContext(CameBy.segment, now, {"segment": opened.entry.segment}))
