"""Facts of many enrollments, gathered from the tables with one query per kind of fact. Decides nothing."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from distmark.channels.registry import address_of
from distmark.contacts.model import SuppressionScope, address_hash
from distmark.contacts.table import Suppression
from distmark.engagement.model import EventKind
from distmark.engagement.table import Event
from distmark.enrollments.facts import enrollment_facts
from distmark.enrollments.model import current_step_id
from distmark.enrollments.table import Enrollment
from distmark.experiments.service import winners_of
from distmark.journeys.model import EventFact, Facts, SentFact
from distmark.journeys.service import program_of
from distmark.messages.compose import Person, people_of
from distmark.messages.table import Message
from distmark.metrics.send_times import best_hours
from distmark.segments.membership import segment_keys_of
from distmark.sql import id_of

MESSAGES_SINCE = timedelta(days=31)


def gather(session: Session, enrollments: Sequence[Enrollment], people: Mapping[int, Person], now: datetime) -> dict[int, Facts]:
    """Return the facts of each enrollment, by enrollment id. `people` holds the persons of all of them, by enrollment id."""
    sent = _sent(session, enrollments)
    events = _events(session, enrollments)
    message_times = _message_times(session, [row.contact_id for row in enrollments], now)
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
            events=[event for event in events.get(row.contact_id, []) if event.at >= row.entered_at],
            written_at=message_times.get(row.contact_id, []),
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


def _events(session: Session, enrollments: Sequence[Enrollment]) -> dict[int, list[EventFact]]:
    events: dict[int, list[EventFact]] = {}
    since = min(row.entered_at for row in enrollments)
    rows = session.exec(
        select(Event)
        .where(
            col(Event.contact_id).in_([row.contact_id for row in enrollments]),
            col(Event.kind).in_([EventKind.custom, EventKind.converted, EventKind.replied]),
            col(Event.at) >= since,
        )
        .order_by(col(Event.at), col(Event.id))
    )
    for row in rows:
        name = row.name or row.kind.value
        events.setdefault(row.contact_id, []).append(EventFact(name=name, at=row.at, data=row.data, value=row.value))
    return events


def _message_times(session: Session, contact_ids: list[int], now: datetime) -> dict[int, list[datetime]]:
    times: dict[int, list[datetime]] = {}
    rows = session.exec(
        select(Message.contact_id, Message.sent_at)
        .where(col(Message.contact_id).in_(contact_ids), col(Message.created_at) >= now - MESSAGES_SINCE, col(Message.sent_at).is_not(None))
        .order_by(col(Message.sent_at))
    )
    for contact_id, sent_at in rows:
        if sent_at is not None:
            times.setdefault(contact_id, []).append(sent_at)
    return times


def unsubscribed_among(session: Session, people: Mapping[int, Person]) -> set[int]:
    """Return the ids of enrollments whose contact unsubscribed from this brand's marketing mail or complained about it."""
    by_hash: dict[str, list[int]] = {}
    brand_ids: set[int] = set()
    for enrollment_id, person in people.items():
        address = address_of(person.contact, "email")
        if address:
            brand_ids.add(person.contact.brand_id)
            by_hash.setdefault(address_hash(person.contact.brand_id, address), []).append(enrollment_id)
    if not by_hash:
        return set()
    rows = session.exec(
        select(Suppression.address_hash).where(
            col(Suppression.brand_id).in_(list(brand_ids)),
            Suppression.channel == "email",
            col(Suppression.address_hash).in_(list(by_hash)),
            col(Suppression.scope).in_([SuppressionScope.marketing, SuppressionScope.all]),
            col(Suppression.reason).in_(["unsubscribed", "complained"]),
        )
    )
    return {enrollment_id for found in rows for enrollment_id in by_hash[found]}


def as_json(value: Any) -> Any:
    """Return the value as JSON can hold it: dates and times become ISO 8601 text."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value
