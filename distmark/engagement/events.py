"""Events of contacts in other systems: recorded once, many at a time; they wake waiting enrollments and enter contacts into journeys."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from distmark.contacts.model import address_hash, address_key
from distmark.contacts.table import Contact
from distmark.engagement.model import EventKind, Verdict
from distmark.engagement.table import Event
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.enrollments.wakeups import goal_events, wake_waiting
from distmark.entries.by_event import ContactEvent, enter_by_events
from distmark.errors import DistmarkError, InvalidInput, NotFound
from distmark.journeys.model import EventFact
from distmark.journeys.service import program_of
from distmark.sql import among, id_of, insert_into, rows_of

MOST_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that another system reports. Exactly one of `contact_id` and `email` is given; `key` makes a repeat the same event."""

    name: str
    contact_id: int | None = None
    email: str | None = None
    at: datetime | None = None
    value: float | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    conversion: bool | None = None


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """`repeated` means that the same event had been recorded before and nothing changed."""

    event_id: int
    contact_id: int
    repeated: bool


@dataclass(frozen=True, slots=True)
class _Whose:
    """A contact that an event is of, and the enrollment they are in, if any."""

    contact: Contact
    enrollment: Enrollment | None


def record_events(
    session: Session, brand_id: int, events: Sequence[NewEvent], now: datetime, *, partner_id: int | None = None
) -> list[RecordedEvent | DistmarkError]:
    """Record events of contacts, each once per `key`, and return one answer per event, in order.

    Waiting enrollments are woken, and journeys that listen to the event enter the contact, all in the caller's transaction. An event is a
    conversion when said so, when it carries a value, or when a journey the person is in has it as its goal. A refusal (NotFound when no
    such contact is known to the caller, InvalidInput without a name) keeps no other event from being recorded.
    """
    whose = _whose(session, brand_id, partner_id, events)
    rows: dict[str, dict[str, Any]] = {}
    keys: list[str | DistmarkError] = []
    for event, of in zip(events, whose, strict=True):
        key = of if isinstance(of, DistmarkError) else _natural_key(brand_id, event, of, now)
        keys.append(key)
        if isinstance(key, str) and isinstance(of, _Whose) and key not in rows:
            rows[key] = _row(session, brand_id, event, of, key, now)
    # One event alone needs no look beforehand: if it was recorded, its row is not inserted.
    known = _known(session, rows) if len(rows) > 1 else {}
    new = [row for key, row in rows.items() if key not in known]
    _mark_first(session, new)
    made = _insert(session, brand_id, new, now)
    known |= _known(session, [key for key in rows if key not in made and key not in known])
    contacts = {of.contact.id: of.contact for of in whose if isinstance(of, _Whose)}
    _spread(session, brand_id, [rows[key] for key in made], contacts, now)
    return _answers(keys, made, known, rows)


def _answers(
    keys: Sequence[str | DistmarkError], made: Mapping[str, int], known: Mapping[str, tuple[int, int]], rows: Mapping[str, dict[str, Any]]
) -> list[RecordedEvent | DistmarkError]:
    answers: list[RecordedEvent | DistmarkError] = []
    seen: set[str] = set()
    for key in keys:
        if isinstance(key, DistmarkError):
            answers.append(key)
        elif key in made:
            answers.append(RecordedEvent(made[key], rows[key]["contact_id"], repeated=key in seen))
            seen.add(key)
        else:
            answers.append(RecordedEvent(*known[key], repeated=True))
    return answers


# --- whose ------------------------------------------------------------------------------------------------------------------------------


def _whose(session: Session, brand_id: int, partner_id: int | None, events: Sequence[NewEvent]) -> list[_Whose | DistmarkError]:
    by_id, by_email = _contacts(session, brand_id, partner_id, events)
    people = {contact.person_key for found in (*by_id.values(), *by_email.values()) for contact in found}
    enrollments = _enrollments(session, brand_id, people)
    whose: list[_Whose | DistmarkError] = []
    for event in events:
        if not event.name.strip():
            whose.append(InvalidInput('The event has no name; give one such as "appointment_booked".'))
        elif event.contact_id is None and not event.email:
            whose.append(InvalidInput("The event names nobody; give contact_id or email."))
        else:
            found = by_email.get(address_key(event.email or ""), []) if event.contact_id is None else by_id.get(event.contact_id, [])
            whose.append(_owner(found, enrollments))
    return whose


def _owner(found: Sequence[Contact], enrollments: Mapping[int, Enrollment]) -> _Whose | DistmarkError:
    """Return the contact with this address whose enrollment is live, the latest entered first; else the newest contact with it."""
    if not found:
        return NotFound("No contact of yours has this id or address; import the contact first.")
    inside = [(enrollments[id_of(contact)], contact) for contact in found if contact.id in enrollments]
    if not inside:
        return _Whose(found[0], None)
    enrollment, contact = max(inside, key=lambda each: id_of(each[0]))
    return _Whose(contact, enrollment)


def _contacts(
    session: Session, brand_id: int, partner_id: int | None, events: Sequence[NewEvent]
) -> tuple[dict[int, list[Contact]], dict[str, list[Contact]]]:
    """Return the contacts by id and by address, newest first, as far as the caller may know of them."""
    mine = select(Contact).where(Contact.brand_id == brand_id, col(Contact.erased_at).is_(None)).order_by(col(Contact.id).desc())
    if partner_id is not None:
        mine = mine.where(Contact.partner_id == partner_id)
    ids = {event.contact_id for event in events if event.contact_id is not None}
    by_id = {id_of(contact): [contact] for contact in session.exec(mine.where(among(session, col(Contact.id), ids)))} if ids else {}
    by_email: dict[str, list[Contact]] = {}
    keys = {address_hash(brand_id, event.email) for event in events if event.contact_id is None and event.email}
    for contact in session.exec(mine.where(among(session, col(Contact.person_key), keys))) if keys else ():
        by_email.setdefault(contact.email_key or "", []).append(contact)
    return by_id, by_email


def _enrollments(session: Session, brand_id: int, person_keys: Iterable[str]) -> dict[int, Enrollment]:
    """Return the live enrollment that each contact of these people entered last; all of theirs stay locked, in the order of wakes."""
    keys = list(person_keys)
    if not keys:
        return {}
    live = select(Enrollment).where(
        among(session, col(Enrollment.person_key), keys), Enrollment.brand_id == brand_id, Enrollment.status != EnrollmentStatus.ended
    )
    return {row.contact_id: row for row in session.exec(live.order_by(col(Enrollment.id)).with_for_update(key_share=True))}


# --- the rows ---------------------------------------------------------------------------------------------------------------------------


def _natural_key(brand_id: int, event: NewEvent, of: _Whose, now: datetime) -> str:
    moment = event.at or now
    return f"event:{brand_id}:{event.key}" if event.key else f"event:{brand_id}:{of.contact.id}:{event.name}:{moment.isoformat()}"


OWN = ("natural_key", "kind", "name", "at", "partner_id", "contact_id", "enrollment_id", "value", "data", "first")


def _row(session: Session, brand_id: int, event: NewEvent, of: _Whose, key: str, now: datetime) -> dict[str, Any]:
    told = event.conversion is not None or event.value is not None
    converted = event.conversion is not False if told else _is_goal(session, of.enrollment, event.name)
    return {
        "natural_key": key,
        "kind": EventKind.converted if converted else EventKind.custom,
        "name": event.name,
        "at": event.at or now,
        "partner_id": of.contact.partner_id,
        "contact_id": of.contact.id,
        "enrollment_id": of.enrollment.id if of.enrollment else None,
        "value": event.value,
        "data": dict(event.data),
        "first": False,
    }


def _is_goal(session: Session, enrollment: Enrollment | None, name: str) -> bool:
    return enrollment is not None and name in goal_events(program_of(session, enrollment.version_id))


def _known(session: Session, keys: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return event and contact of those natural keys that are recorded."""
    wanted = list(keys)
    if not wanted:
        return {}
    rows = session.exec(select(Event.natural_key, Event.id, Event.contact_id).where(among(session, col(Event.natural_key), wanted)))
    return {key: (event_id or 0, contact_id) for key, event_id, contact_id in rows}


def _mark_first(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Mark the first event of its name in each enrollment (outside of any: of each contact), which is what unique counts count."""
    before: set[tuple[Any, ...]] = set()
    contact_ids, names = {row["contact_id"] for row in rows}, {row["name"] for row in rows}
    there = select(Event.contact_id, Event.enrollment_id, Event.name).where(among(session, col(Event.contact_id), contact_ids))
    for contact_id, enrollment_id, name in session.exec(there.where(among(session, col(Event.name), names)).distinct()) if rows else ():
        before |= {(contact_id, name), (contact_id, enrollment_id, name)}
    for row in rows:
        inside = row["enrollment_id"] is not None
        place = (row["contact_id"], row["enrollment_id"], row["name"]) if inside else (row["contact_id"], row["name"])
        row["first"] = place not in before
        before |= {place, (row["contact_id"], row["name"])}


def _insert(session: Session, brand_id: int, rows: Sequence[dict[str, Any]], now: datetime) -> dict[str, int]:
    """Insert those that were not recorded before; natural key -> event."""
    if not rows:
        return {}
    shared = {
        "verdict": Verdict.human,
        "received_at": now,
        "brand_id": brand_id,
        "message_id": None,
        "link": "",
        "user_agent": "",
        "rolled": False,
    }
    table = Event.__table__  # type: ignore[attr-defined]
    statement = insert_into(session, table).from_select([*shared, *OWN], rows_of(session, table, shared, rows, OWN))
    statement = statement.on_conflict_do_nothing(index_elements=["natural_key"])
    returned = session.execute(statement.returning(table.c.natural_key, table.c.id))
    return {row[0]: row[1] for row in returned}


def _spread(session: Session, brand_id: int, rows: Sequence[dict[str, Any]], contacts: Mapping[int | None, Contact], now: datetime) -> None:
    """Wake the enrollments that wait for these events, and enter their contacts into the journeys that listen to them."""
    happened: list[ContactEvent] = []
    people: dict[str, list[str]] = {}
    for row in rows:
        contact = contacts[row["contact_id"]]
        people.setdefault(row["name"], []).append(contact.person_key)
        fact = EventFact(name=row["name"], at=row["at"], data=row["data"], value=row["value"])
        happened.append(ContactEvent(contact, fact, row["natural_key"]))
    for name, person_keys in people.items():
        wake_waiting(session, brand_id, person_keys, [name], now)
    if happened:
        enter_by_events(session, brand_id, happened, now)
