"""Entry by an event of the contact: every journey of the brand that listens for the event takes the contact."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlmodel import Session

from distmark.contacts.fields import typed
from distmark.contacts.table import Contact
from distmark.enrollments.model import CameBy
from distmark.entries.admission import enter, entry_facts
from distmark.entries.model import Entrant, EntryContext, EntryPoint
from distmark.entries.open_journeys import OpenJourney, entry_point_of, open_journeys, record_entries
from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.expressions import Expression, ExpressionError, namespace
from distmark.journeys.model import EventFact, Facts
from distmark.sql import id_of

JUST_AFTER = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ContactEvent:
    """An event that was just recorded for a contact. `key` is the event's own and unique."""

    contact: Contact
    event: EventFact
    key: str


def enter_by_events(session: Session, brand_id: int, events: Sequence[ContactEvent], now: datetime) -> int:
    """Enter the contacts of these events into every journey of the brand that listens for them, and return how many entered.

    A contact enters by its first event that the entry's `where` accepts; a journey that may be entered at any time, by each of them.
    The event by which a contact entered counts as before the journey: it ends no wait and reaches no goal.
    """
    names = {each.event.name for each in events}
    listening = [journey for journey in open_journeys(session, brand_id) if journey.entry.event in names]
    return sum(_enter_by_events(session, journey, events, now) for journey in listening)


def _enter_by_events(session: Session, journey: OpenJourney, events: Sequence[ContactEvent], now: datetime) -> int:
    entry_point = entry_point_of(session, journey)
    remaining = [each for each in events if each.event.name == journey.entry.event]
    entered = 0
    while entry_point is not None and remaining:
        first: dict[int, ContactEvent] = {}
        later = [each for each in remaining if first.setdefault(id_of(each.contact), each) is not each]
        entrants = list(_entrants_of(session, entry_point, list(first.values()), now))
        latest = max((each.event.at for each in first.values()), default=now)
        context = EntryContext(CameBy.event, now, {"event": journey.entry.event}, entered_at=max(now, latest) + JUST_AFTER)
        entered += record_entries(session, entry_point, enter(session, entry_point, entrants, context), CameBy.event, now)
        remaining = later
    return entered


def _entrants_of(session: Session, entry_point: EntryPoint, events: Sequence[ContactEvent], now: datetime) -> Iterable[Entrant]:
    """Yield the contacts whose event the entry accepts, each with the event's data for the journey."""
    event_of = {each.contact.id: each.event for each in events}
    entrants = [Entrant(each.contact, _data(entry_point.definition, each.event), each.key) for each in events]
    for entrant, facts, zone in entry_facts(session, entry_point, entrants, now):
        if _is_accepted(entry_point.definition.entry.where, facts, now, zone, event_of[entrant.contact.id]):
            yield entrant


def _is_accepted(where: Expression | None, facts: Facts, now: datetime, zone: ZoneInfo, event: EventFact) -> bool:
    try:
        return where is None or where.holds(namespace(facts, now, zone, event))
    except ExpressionError:
        return False  # an event with odd data is recorded all the same, and enters nobody


def _data(definition: JourneyDefinition, event: EventFact) -> dict[str, Any]:
    fields = definition.journey_fields
    given = {name: value for name, value in event.data.items() if name in fields and value not in (None, "")}
    # A value that cannot be read as its type stays as it is written: the journey says so where it needs it.
    values = {name: given[name] if value is None else value for name, value in typed(given, fields).items()}
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in values.items()}
