"""Facts of many enrollments, gathered from the tables with one query per kind of fact. Decides nothing."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from distmark.channels.registry import address_of
from distmark.contacts.consents import consent_state, suppressed
from distmark.contacts.model import SuppressionReason, address_hash
from distmark.contacts.table import Contact
from distmark.engagement.model import EventKind
from distmark.engagement.table import Event
from distmark.enrollments.facts import enrollment_facts
from distmark.enrollments.model import current_step_id
from distmark.enrollments.table import Enrollment
from distmark.experiments.service import winners_of
from distmark.journeys.definition import JourneyDefinition, all_steps
from distmark.journeys.model import EventFact, Facts, SentFact
from distmark.journeys.service import program_of
from distmark.journeys.steps.send import SendStep
from distmark.messages.compose import Person, people_of
from distmark.messages.service import written_at
from distmark.messages.table import Message
from distmark.metrics.send_times import best_hours
from distmark.segments.membership import segment_keys_of
from distmark.sql import among, id_of

MESSAGES_SINCE = timedelta(days=31)
REFUSALS = (SuppressionReason.unsubscribed, SuppressionReason.complained)


def gather(session: Session, enrollments: Sequence[Enrollment], people: Mapping[int, Person], now: datetime) -> dict[int, Facts]:
    """Return the facts of each enrollment, by enrollment id. `people` holds the persons of all of them, by enrollment id."""
    sent = _sent(session, enrollments)
    events = _events(session, enrollments)
    message_times = _message_times(session, enrollments, now)
    programs = {version_id: program_of(session, version_id) for version_id in {row.version_id for row in enrollments}}
    definitions = {version_id: program.definition for version_id, program in programs.items()}
    winners, hours = winners_of(session, programs), best_hours(session, programs, enrollments, people, now)
    segments = segment_keys_of(session, [people[id_of(row)].contact for row in enrollments], now)
    facts: dict[int, Facts] = {}
    for row in enrollments:
        row_id, person = id_of(row), people[id_of(row)]
        facts[row_id] = enrollment_facts(
            definitions[row.version_id],
            row,
            person.contact,
            person.partner,
            person.campaign,
            person.brand,
            segments[row.contact_id],
            sent=sent.get(row_id, {}),
            events=[event for event in events.get(row.person_key, []) if event.at >= row.entered_at],
            written_at=message_times.get(row.person_key, []),
            best_hours=hours.get(row_id, {}),
            winners=winners.get(row.version_id, {}),
        )
    return facts


def gather_for(session: Session, enrollments: Sequence[Enrollment], now: datetime) -> dict[int, Facts]:
    """Return the facts of each enrollment, by enrollment id. The rows may be changed in memory, as those of a planned move are."""
    return gather(session, enrollments, people_of(session, enrollments), now)


def _sent(session: Session, enrollments: Sequence[Enrollment]) -> dict[int, dict[str, SentFact]]:
    names = {id_of(row): row.names for row in enrollments}
    sent: dict[int, dict[str, SentFact]] = {}
    # A later visit to the same step replaces the earlier one: a branch looks at the last message of a step.
    for row in session.exec(select(Message).where(col(Message.enrollment_id).in_(list(names))).order_by(col(Message.id))):
        step_id = current_step_id(names[row.enrollment_id], row.version_id, row.step_id)
        sent.setdefault(row.enrollment_id, {})[step_id] = SentFact(
            at=row.sent_at or row.created_at,
            channel=row.channel,
            status=row.status.value,
            opened_at=row.opened_at,
            machine_opened_at=row.machine_opened_at,
            clicked={name: datetime.fromisoformat(at) for name, at in row.clicks.items()},
            replied_at=row.replied_at,
            bounced_at=row.bounced_at,
            unsubscribed_at=row.unsubscribed_at,
        )
    return sent


def _events(session: Session, enrollments: Sequence[Enrollment]) -> dict[str, list[EventFact]]:
    """Return the events of each person: their acts as a contact of one partner count in the journeys of all partners of the brand."""
    events: dict[str, list[EventFact]] = {}
    since = min(row.entered_at for row in enrollments)
    rows = session.exec(
        select(Event, Contact.person_key)
        .join(Contact, col(Contact.id) == col(Event.contact_id))
        .where(
            among(session, col(Contact.person_key), sorted({row.person_key for row in enrollments})),
            col(Contact.brand_id).in_({row.brand_id for row in enrollments}),
            col(Event.kind).in_([EventKind.custom, EventKind.converted, EventKind.replied]),
            col(Event.at) >= since,
        )
        .order_by(col(Event.at), col(Event.id))
    )
    for row, person_key in rows:
        name = row.name or row.kind.value
        events.setdefault(person_key, []).append(EventFact(name=name, at=row.at, data=row.data, value=row.value))
    return events


def _message_times(session: Session, enrollments: Sequence[Enrollment], now: datetime) -> dict[str, list[datetime]]:
    times: dict[str, list[datetime]] = {}
    for brand_id in {row.brand_id for row in enrollments}:
        persons = {row.person_key for row in enrollments if row.brand_id == brand_id}
        times |= written_at(session, brand_id, persons, now - MESSAGES_SINCE)
    return times


def unsubscribed_among(session: Session, people: Mapping[int, Person], definition: JourneyDefinition) -> set[int]:
    """Return the ids of enrollments whose contact refused this brand's marketing on the channels whose refusal ends the journey.

    A refusal is an unsubscribe, a complaint, or a refusal that the contact told a partner.
    """
    return set.intersection(*(_refusing(session, people, channel) for channel in ending_channels(definition)))


def ending_channels(definition: JourneyDefinition) -> frozenset[str]:
    """Return the channels whose refusal, of all of them, ends a marketing journey: mail, or the others if it never writes mail."""
    channels = {step.send for step in all_steps(definition.steps) if isinstance(step, SendStep)}
    return frozenset({"email"} if "email" in channels or not channels else channels)


def _refusing(session: Session, people: Mapping[int, Person], channel: str) -> set[int]:
    consents = consent_state(session, {id_of(person.contact) for person in people.values()}, channel)
    refusing = {row_id for row_id, person in people.items() if consents[id_of(person.contact)] is False}
    reached: dict[int, dict[str, list[int]]] = {}  # brand -> address -> enrollments
    for row_id, person in people.items():
        address = address_of(person.contact, channel)
        if address:
            reached.setdefault(person.contact.brand_id, {}).setdefault(address, []).append(row_id)
    for brand_id, by_address in reached.items():
        stopped = suppressed(session, brand_id, channel, by_address, marketing=True, reasons=REFUSALS)
        refusing |= {each for address, ids in by_address.items() if address_hash(brand_id, address) in stopped for each in ids}
    return refusing


def as_json(value: Any) -> Any:
    """Return the value as JSON can hold it: dates and times become ISO 8601 text."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value
