"""Events of contacts in other systems: recorded once, many at a time; they wake waiting enrollments and enter contacts into journeys."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlmodel import Session, col, select

from distmark.clock import aware
from distmark.contacts.addresses import usual_email
from distmark.contacts.model import address_hash
from distmark.contacts.people import contacts_by_email
from distmark.contacts.table import Contact
from distmark.engagement.model import EARLIEST, EventKind, Verdict, is_possible
from distmark.engagement.table import Event
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.enrollments.wakeups import goal_events, wake_waiting
from distmark.entries.by_event import ContactEvent, enter_by_events
from distmark.errors import DistmarkError, InvalidInput, NotFound, Refused
from distmark.journeys.model import EventFact
from distmark.journeys.service import program_of
from distmark.sql import among, id_of, insert_into, rows_of
from distmark.text import clean_values

MOST_EVENTS = 1000
MOST_DATA_BYTES = 32_000  # of an event's `data`, as JSON


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that another system reports. Exactly one of `contact_id` and `email` is given; `key` makes a repeat the same event.

    A key is one partner's own, or the brand's when its people report, and of one name: it says nothing about events of others.
    """

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


@dataclass(frozen=True, slots=True)
class _Keyed:
    """An event that can be recorded, with the key that makes a repeat the same row, and the hash of its content."""

    natural_key: str
    content_hash: str
    event: NewEvent


@dataclass(frozen=True, slots=True)
class _Known:
    """A recorded event. Its `content_hash` is "" when it was recorded before such hashes were kept."""

    event_id: int
    contact_id: int
    content_hash: str


def record_events(
    session: Session, brand_id: int, events: Sequence[NewEvent], now: datetime, *, partner_id: int | None = None
) -> list[RecordedEvent | DistmarkError]:
    """Record events of contacts, each once per `key`, and return one answer per event, in order.

    Waiting enrollments are woken, and journeys that listen to the event enter the contact, all in the caller's transaction. An event is a
    conversion when said so, when it carries a value, or when a journey the person is in has it as its goal. A refusal (NotFound when no
    such contact is known to the caller, InvalidInput without a name, with an impossible time or too much data, Refused when the key is
    that of a different event) keeps no other event from being recorded.
    """
    read = [_read(event, now) for event in events]
    whose = _whose(session, brand_id, partner_id, read)
    rows: dict[str, dict[str, Any]] = {}
    keys: list[_Keyed | DistmarkError] = []
    for event, of in zip(read, whose, strict=True):
        if isinstance(event, DistmarkError) or isinstance(of, DistmarkError):
            keys.append(of if isinstance(of, DistmarkError) else InvalidInput(str(event)))
            continue
        content_hash = _content_hash(brand_id, event)
        key = _natural_key(brand_id, partner_id, event, of, content_hash, now)
        keys.append(_Keyed(key, content_hash, event))
        if key not in rows:
            rows[key] = _row(session, event, of, key, now) | {"content_hash": content_hash}
    # One event alone needs no look beforehand: if it was recorded, its row is not inserted.
    known = _known(session, rows) if len(rows) > 1 else {}
    new = [row for key, row in rows.items() if key not in known]
    _mark_first(session, new)
    made = _insert(session, brand_id, new, now)
    known |= _known(session, [key for key in rows if key not in made and key not in known])
    contacts = {of.contact.id: of.contact for of in whose if isinstance(of, _Whose)}
    _spread(session, brand_id, [rows[key] for key in made], contacts, now)
    made_rows = {key: _Known(event_id, rows[key]["contact_id"], rows[key]["content_hash"]) for key, event_id in made.items()}
    return _answers(keys, made_rows, known)


def _answers(
    keys: Sequence[_Keyed | DistmarkError], made: Mapping[str, _Known], known: Mapping[str, _Known]
) -> list[RecordedEvent | DistmarkError]:
    answers: list[RecordedEvent | DistmarkError] = []
    seen: set[str] = set()
    for keyed in keys:
        if isinstance(keyed, DistmarkError):
            answers.append(keyed)
            continue
        row, repeated = made.get(keyed.natural_key) or known[keyed.natural_key], keyed.natural_key not in made or keyed.natural_key in seen
        seen.add(keyed.natural_key)
        if row.content_hash not in ("", keyed.content_hash):
            answers.append(
                Refused(f'The key "{keyed.event.key}" was used for another event {keyed.event.name} with other content; give each its own.')
            )
        else:
            answers.append(RecordedEvent(row.event_id, row.contact_id, repeated))
    return answers


# --- whose ------------------------------------------------------------------------------------------------------------------------------


def _whose(
    session: Session, brand_id: int, partner_id: int | None, events: Sequence[NewEvent | InvalidInput]
) -> list[_Whose | DistmarkError]:
    by_id, by_email = _contacts(session, brand_id, partner_id, [event for event in events if isinstance(event, NewEvent)])
    people = {contact.person_key for found in (*by_id.values(), *by_email.values()) for contact in found}
    enrollments = _enrollments(session, brand_id, people)
    whose: list[_Whose | DistmarkError] = []
    for event in events:
        if isinstance(event, InvalidInput):
            whose.append(event)
        else:
            found = by_email.get(event.email or "", []) if event.contact_id is None else by_id.get(event.contact_id, [])
            whose.append(_owner(session, found, enrollments, event.name))
    return whose


def _read(event: NewEvent, now: datetime) -> NewEvent | InvalidInput:
    """Return the event with its address in the usual spelling and its texts cleaned; InvalidInput when it cannot be recorded."""
    if mistake := _mistake(event, now):
        return mistake
    try:
        email = usual_email(event.email) if event.contact_id is None and event.email else event.email
    except InvalidInput as error:
        return error
    return replace(event, email=email, data=clean_values(dict(event.data)))


def _mistake(event: NewEvent, now: datetime) -> InvalidInput | None:
    if not event.name.strip():
        return InvalidInput('The event has no name; give one such as "appointment_booked".')
    if event.contact_id is None and not event.email:
        return InvalidInput("The event names nobody; give contact_id or email.")
    if event.at is not None and event.at.tzinfo is None:
        return InvalidInput(f"The event's time {event.at.isoformat()} has no time zone; give one, such as {event.at.isoformat()}+09:00.")
    if event.at is not None and not is_possible(event.at, now):
        return InvalidInput(
            f"The event's time {event.at.isoformat()} is not between {EARLIEST.date()} and now; give the time at which it happened."
        )
    size = len(_as_json(dict(event.data)).encode())
    if size > MOST_DATA_BYTES:
        return InvalidInput(f"The event's data has {size:,} bytes; give at most {MOST_DATA_BYTES:,}.")
    return None


def _as_json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, sort_keys=True, default=str)


def _owner(
    session: Session, found: Sequence[Contact], enrollments: Mapping[int, Sequence[Enrollment]], name: str
) -> _Whose | DistmarkError:
    """Return the contact among these whose live enrollment the event is of, and that enrollment; else the newest of them.

    An enrollment that has the event as its goal comes first, then one that waits for it, then the one entered last.
    """
    if not found:
        return NotFound("No contact of yours has this id or address; import the contact first.")
    inside = [(enrollment, contact) for contact in found for enrollment in enrollments.get(id_of(contact), ())]
    if not inside:
        return _Whose(found[0], None)
    enrollment, contact = max(inside, key=lambda each: (_is_goal(session, each[0], name), each[0].awaits == name, id_of(each[0])))
    return _Whose(contact, enrollment)


def _contacts(
    session: Session, brand_id: int, partner_id: int | None, events: Sequence[NewEvent]
) -> tuple[dict[int, list[Contact]], dict[str, list[Contact]]]:
    """Return the contacts by id and by address, newest first, as far as the caller may know of them."""
    mine = select(Contact).where(Contact.brand_id == brand_id, col(Contact.erased_at).is_(None))
    if partner_id is not None:
        mine = mine.where(Contact.partner_id == partner_id)
    ids = {event.contact_id for event in events if event.contact_id is not None}
    by_id = {id_of(contact): [contact] for contact in session.exec(mine.where(among(session, col(Contact.id), ids)))} if ids else {}
    emails = {event.email for event in events if event.contact_id is None and event.email}
    return by_id, contacts_by_email(session, mine, brand_id, emails, partner_id)


def _enrollments(session: Session, brand_id: int, person_keys: Iterable[str]) -> dict[int, list[Enrollment]]:
    """Return the live enrollments of these persons by contact id; all of them stay locked, in the order of wakes."""
    keys = list(person_keys)
    if not keys:
        return {}
    live = select(Enrollment).where(
        among(session, col(Enrollment.person_key), keys), Enrollment.brand_id == brand_id, Enrollment.status != EnrollmentStatus.ended
    )
    found: dict[int, list[Enrollment]] = {}
    for row in session.exec(live.order_by(col(Enrollment.id)).with_for_update(key_share=True)):
        found.setdefault(row.contact_id, []).append(row)
    return found


# --- the rows ---------------------------------------------------------------------------------------------------------------------------


def _natural_key(brand_id: int, partner_id: int | None, event: NewEvent, of: _Whose, content_hash: str, now: datetime) -> str:
    """Return the key of the event's row: its own key within the caller's partner (or the brand) and its name, or all its content."""
    if event.key:
        scope = f"partner-{partner_id}" if partner_id is not None else "brand"
        return f"event:{brand_id}:{scope}:{event.name}:{event.key}"
    return f"event:{brand_id}:{of.contact.id}:{event.name}:{aware(event.at or now).isoformat()}:{content_hash[:16]}"


def _content_hash(brand_id: int, event: NewEvent) -> str:
    """Return the hash of everything that was told: the same for a repetition, another for an event that differs."""
    whose = event.contact_id if event.contact_id is not None else address_hash(brand_id, event.email or "")
    at = None if event.at is None else aware(event.at).isoformat()
    value = None if event.value is None else float(event.value)
    return sha256(_as_json([whose, event.name, at, value, dict(event.data), event.conversion]).encode()).hexdigest()


OWN = ("natural_key", "content_hash", "kind", "name", "at", "partner_id", "contact_id", "enrollment_id", "value", "data", "first")


def _row(session: Session, event: NewEvent, of: _Whose, key: str, now: datetime) -> dict[str, Any]:
    is_said = event.conversion is not None or event.value is not None
    converted = event.conversion is not False if is_said else _is_goal(session, of.enrollment, event.name)
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


def _known(session: Session, keys: Iterable[str]) -> dict[str, _Known]:
    """Return the recorded events with these natural keys."""
    wanted = list(keys)
    if not wanted:
        return {}
    columns = select(Event.natural_key, Event.id, Event.contact_id, Event.content_hash)
    rows = session.exec(columns.where(among(session, col(Event.natural_key), wanted)))
    return {key: _Known(event_id or 0, contact_id, content_hash) for key, event_id, contact_id, content_hash in rows}


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
