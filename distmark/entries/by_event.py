"""Entering journeys by an event."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlmodel import Session

from distmark.contacts.fields import typed
from distmark.contacts.table import Contact
from distmark.enrollments.model import CameBy
from distmark.entries.admission import enter, facts_of
from distmark.entries.model import Entrant, EntryContext, EntryPoint
from distmark.entries.open_journeys import Open, entry_point_of, note_entries, open_journeys
from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.expressions import Expression, ExpressionError, namespace
from distmark.journeys.model import EventFact, Facts
from distmark.sql import id_of

AFTER = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Happened:
    """An event just recorded of a contact. `key` names it among all."""

    contact: Contact
    event: EventFact
    key: str


def enter_by_events(session: Session, brand_id: int, happened: Sequence[Happened], now: datetime) -> int:
    """Enter the contacts of these events into every journey of the brand that listens to them, and return how many entered.

    A contact enters for the first of their events that an entry's `where` takes; a journey that may be entered at any time, for each.
    The event that let a contact in counts as before the journey: no wait and no goal in it is met by it.
    """
    names = {each.event.name for each in happened}
    listening = [opened for opened in open_journeys(session, brand_id) if opened.entry.event in names]
    return sum(_enter_by_events(session, opened, happened, now) for opened in listening)


def _enter_by_events(session: Session, opened: Open, happened: Sequence[Happened], now: datetime) -> int:
    door = entry_point_of(session, opened)
    mine = [each for each in happened if each.event.name == opened.entry.event]
    entered = 0
    while door is not None and mine:
        by_contact: dict[int, Happened] = {}
        later = [each for each in mine if by_contact.setdefault(id_of(each.contact), each) is not each]
        entrants = list(_of_events(session, door, list(by_contact.values()), now))
        latest = max((each.event.at for each in by_contact.values()), default=now)
        arrival = EntryContext(CameBy.event, now, {"event": opened.entry.event}, entered_at=max(now, latest) + AFTER)
        entered += note_entries(session, door, enter(session, door, entrants, arrival), CameBy.event, now)
        mine = later
    return entered


def _of_events(session: Session, door: EntryPoint, happened: Sequence[Happened], now: datetime) -> Iterable[Entrant]:
    """Yield those whose event the entry takes, with what the event says for the journey's own data."""
    events = {each.contact.id: each.event for each in happened}
    entrants = [Entrant(each.contact, _data(door.definition, each.event), each.key) for each in happened]
    for entrant, facts, zone in facts_of(session, door, entrants, now):
        if _counts(door.definition.entry.where, facts, now, zone, events[entrant.contact.id]):
            yield entrant


def _counts(where: Expression | None, facts: Facts, now: datetime, zone: ZoneInfo, event: EventFact) -> bool:
    try:
        return where is None or where.holds(namespace(facts, now, zone, event))
    except ExpressionError:
        return False  # an event with odd data is recorded, and lets nobody in


def _data(definition: JourneyDefinition, event: EventFact) -> dict[str, Any]:
    fields = definition.journey_fields
    said = typed({name: value for name, value in event.data.items() if name in fields}, fields)
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in said.items() if value is not None}
