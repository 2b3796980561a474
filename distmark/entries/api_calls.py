"""Entry by a call of the API: the whole call is checked before any contact enters, and one key is answered once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import delete
from sqlmodel import Session, col, select

from distmark.campaigns.offers import offered_journey, offers_of
from distmark.campaigns.service import add_members, list_campaigns
from distmark.campaigns.table import Campaign, CampaignStatus
from distmark.compliance.service import record
from distmark.contacts.addresses import usual_email
from distmark.contacts.people import contacts_by_email
from distmark.contacts.table import Contact
from distmark.enrollments.model import CameBy
from distmark.entries.admission import enter, open_entry_point
from distmark.entries.model import EnrolResult, EnrolVerdict, Entrant, EntryContext, EntryPoint
from distmark.entries.table import EnrolCall
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.journeys.definition import FieldType
from distmark.journeys.findings import closest
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require
from distmark.sql import among, id_of, insert_into, row_count
from distmark.text import clean_values

MOST_CONTACTS = 10_000
MOST_PER_RUN = 500
MOST_PROBLEMS = 100
LONGEST_TEXT = 2_000
KEPT_FOR = timedelta(days=30)
UNKNOWN = "unknown_contact"


@dataclass(frozen=True, slots=True)
class RequestedContact:
    """One contact to enter, named by id or mail address, with the journey's own data for it."""

    contact_id: int | None = None
    email: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EntryCall:
    """A call to enter contacts into a journey; `key` is the caller's own name for the call (the Idempotency-Key header)."""

    journey_key: str
    contacts: Sequence[RequestedContact]
    key: str | None = None
    campaign_key: str | None = None
    contacts_per_run: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake in the call; `place` is such as contacts[3].data.amount."""

    place: str
    message: str


class InvalidCall(InvalidInput):
    """The call has mistakes and entered no contact; `problems` holds all of them, at most `MOST_PROBLEMS`."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        first = self.problems[0]
        super().__init__(f"The call has {len(self.problems)} mistakes, the first at {first.place}: {first.message}")


@dataclass(frozen=True, slots=True)
class ContactAnswer:
    """The answer for one contact of the call. `verdict` is an EnrolVerdict or "unknown_contact"; `until` as in EnrolResult, in ISO 8601."""

    verdict: str
    contact_id: int | None = None
    enrollment_id: int | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """The answers to a call, one per contact in its order; `repeated` when they were given before under the same key."""

    answers: list[ContactAnswer]
    repeated: bool = False


def enter_by_call(session: Session, viewer: Viewer, call: EntryCall, now: datetime) -> CallAnswer:
    """Enter the contacts of the call and return the answer for each, in the call's order.

    The same key gets the same answer for 30 days, and enters no contact again. Errors, none of which enters any contact: InvalidCall when a
    contact is not named or its data does not fit the journey's `journey_fields`, NotFound for a journey or campaign outside the viewer's
    sight, Refused for one that takes no contacts or is offered to other partners than a contact's, InvalidInput when the key was used for
    another call.
    """
    require(viewer, Permission.enrol_contacts)
    _check_size(call)
    row_id, earlier = _claim_key(session, viewer, call, now)
    if earlier is not None:
        return CallAnswer(earlier, repeated=True)
    entry_point = _entry_point(session, viewer, call)
    _check(entry_point, call.contacts)
    found = _requested_contacts(session, viewer, call.contacts)
    _check_offer(session, entry_point, found)
    results = _enter(session, viewer, entry_point, call, found, now)
    answers = [_answer(contact, results) for contact in found]
    if row_id is not None:
        session.get_one(EnrolCall, row_id).answer = [[each.verdict, each.contact_id, each.enrollment_id, each.until] for each in answers]
    return CallAnswer(answers)


def delete_old_calls(session: Session, now: datetime) -> int:
    """Delete the calls whose keys are older than 30 days, and return how many: a repetition would be a new call."""
    old = delete(EnrolCall).where(col(EnrolCall.at) < now - KEPT_FOR)
    return row_count(session.execute(old))


def _check_size(call: EntryCall) -> None:
    if not 1 <= len(call.contacts) <= MOST_CONTACTS:
        raise InvalidCall([Problem("contacts", f"{len(call.contacts)} contacts are asked for; give 1 to {MOST_CONTACTS:,} in one call.")])
    if not 1 <= call.contacts_per_run <= MOST_PER_RUN:
        raise InvalidCall([Problem("contacts_per_run", f"{call.contacts_per_run} is not between 1 and {MOST_PER_RUN}.")])


def _claim_key(session: Session, viewer: Viewer, call: EntryCall, now: datetime) -> tuple[int | None, list[ContactAnswer] | None]:
    """Return the id of the row that will keep the answer (None without a key), or the earlier answer under the same key.

    Of two calls at once the second waits for the first.
    """
    if call.key is None:
        return None, None
    contacts = [[each.contact_id, each.email, each.data] for each in call.contacts]
    whole = [call.journey_key, call.campaign_key, call.contacts_per_run, contacts]
    asked_hash = sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()
    row = {"user_id": viewer.user_id, "key": call.key, "asked_hash": asked_hash, "answer": [], "at": now}
    made = session.execute(insert_into(session, EnrolCall).values(row).on_conflict_do_nothing().returning(col(EnrolCall.id))).scalar()
    if made is not None:
        return made, None
    earlier = session.exec(select(EnrolCall).where(EnrolCall.user_id == viewer.user_id, EnrolCall.key == call.key)).one()
    if earlier.asked_hash != asked_hash:
        raise InvalidInput(f'The key "{call.key}" was used for another call; give each call its own.')
    return None, [ContactAnswer(*each) for each in earlier.answer]


def _entry_point(session: Session, viewer: Viewer, call: EntryCall) -> EntryPoint:
    journey = offered_journey(session, viewer, call.journey_key)
    campaign = _campaign(session, viewer, call.campaign_key, id_of(journey)) if call.campaign_key else None
    entry_point = open_entry_point(session, journey, campaign, call.contacts_per_run)
    if entry_point is None:
        raise Refused(f'Journey "{call.journey_key}" has no approved and registered version yet; ask the brand\'s marketers.')
    return entry_point


def _campaign(session: Session, viewer: Viewer, key: str, journey_id: int) -> Campaign:
    campaign = next((each for each in list_campaigns(session, viewer) if each.key == key), None)
    if campaign is None:
        raise NotFound(f'There is no campaign "{key}" among yours.')
    if campaign.journey_id != journey_id:
        raise InvalidCall([Problem("campaign", f'The campaign "{key}" is of another journey.')])
    if campaign.status not in (CampaignStatus.open, CampaignStatus.paused):
        raise Refused(f'Campaign "{campaign.name}" is {campaign.status}: nobody can be enrolled until it is open.')
    return campaign


def _check_offer(session: Session, entry_point: EntryPoint, contacts: Sequence[Contact | None]) -> None:
    """Raise Refused when the journey is not offered to the partner of a contact; a campaign's own offer is checked with its members."""
    if entry_point.campaign_id is not None:
        return
    offer = offers_of(session, [entry_point.journey_id])[entry_point.journey_id]
    excluded = next((each for each in contacts if each is not None and not offer.is_open_to(each.partner_id)), None)
    if excluded is not None:
        raise Refused(f"The journey is not offered to the partner of contact {excluded.id} now; name a campaign that is, or leave it out.")


# --- checking ---------------------------------------------------------------------------------------------------------------------------


def _check(entry_point: EntryPoint, contacts: Sequence[RequestedContact]) -> None:
    problems: list[Problem] = []
    for number, each in enumerate(contacts):
        if (each.contact_id is None) == (not each.email):
            problems.append(Problem(f"contacts[{number}]", "It names nobody, or twice; give either id or email."))
        if each.email and (mistake := _mistake(each.email)):
            problems.append(Problem(f"contacts[{number}].email", mistake))
        problems.extend(_problems_of(entry_point.definition.journey_fields, each.data, f"contacts[{number}].data"))
        if len(problems) >= MOST_PROBLEMS:
            break
    if problems:
        raise InvalidCall(problems[:MOST_PROBLEMS])


def _mistake(email: str) -> str:
    """Return the error in the mail address; "" without one."""
    try:
        usual_email(email)
    except InvalidInput as error:
        return str(error)
    return ""


def _problems_of(fields: Mapping[str, FieldType], data: Mapping[str, Any], place: str) -> list[Problem]:
    problems: list[Problem] = []
    for name, value in data.items():
        if name not in fields:
            near = closest(name, fields)
            meant = f" (did you mean {near}?)" if near else ""
            taken = ", ".join(fields) or "none"
            problems.append(Problem(f"{place}.{name}", f"The journey has no such field{meant}; it takes {taken}."))
        elif value is not None and not _fits(fields[name], value):
            problems.append(Problem(f"{place}.{name}", f"{str(value)[:80]!r} is no {fields[name]}; give {LIKE[fields[name]]}."))
    return problems


LIKE: Mapping[FieldType, str] = {
    FieldType.text: f"a text of up to {LONGEST_TEXT:,} characters",
    FieldType.number: "a number such as 12.5",
    FieldType.bool: "true or false",
    FieldType.date: "a date such as 2026-12-24",
}


def _fits(kind: FieldType, value: object) -> bool:
    if kind is FieldType.bool:
        return isinstance(value, bool)
    if kind is FieldType.number:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        return False
    return kind is FieldType.text or _is_date(value)


def _is_date(value: str) -> bool:
    try:
        return len(value) == len("2026-12-24") and date.fromisoformat(value) is not None
    except ValueError:
        return False


# --- entering ---------------------------------------------------------------------------------------------------------------------------


def _requested_contacts(session: Session, viewer: Viewer, requested: Sequence[RequestedContact]) -> list[Contact | None]:
    """Return the contact of each request, None when the viewer has no such contact; of an address in two books, the newest contact."""
    own = visible(select(Contact), Contact, viewer).where(col(Contact.erased_at).is_(None))
    ids = [each.contact_id for each in requested if each.contact_id is not None]
    by_id = {contact.id: contact for contact in session.exec(own.where(among(session, col(Contact.id), ids)))} if ids else {}
    emails = {each.email for each in requested if each.email}
    by_email = contacts_by_email(session, own, viewer.brand_id, emails, viewer.partner_id)
    return [
        by_id.get(each.contact_id) if each.contact_id is not None else next(iter(by_email.get(each.email or "", [])), None)
        for each in requested
    ]


def _enter(
    session: Session, viewer: Viewer, entry_point: EntryPoint, call: EntryCall, found: Sequence[Contact | None], now: datetime
) -> dict[int, list[EnrolResult]]:
    """Enter each contact once and return its result by contact id; a list, from which the first request of the contact takes the result."""
    entrants: dict[int, Entrant] = {}
    for contact, each in zip(found, call.contacts, strict=True):
        if contact is not None:
            data = {name: clean_values(value) for name, value in each.data.items() if value is not None}
            entrants.setdefault(id_of(contact), Entrant(contact, data))
    if entry_point.campaign_id is not None:
        add_members(session, viewer, entry_point.campaign_id, list(entrants), now)
    results = enter(session, entry_point, list(entrants.values()), EntryContext(CameBy.api, now))
    entered = sum(result.verdict is EnrolVerdict.enrolled for result in results)
    if entered:
        detail = {"count": entered, "by": CameBy.api.value}
        content_hash, journey_id = entry_point.version.content_hash, entry_point.journey_id
        record(session, entry_point.brand_id, viewer.user_id, "enrolled", "journey", journey_id, now, content_hash, **detail)
    return {result.contact_id: [result] for result in results}


def _answer(contact: Contact | None, results: dict[int, list[EnrolResult]]) -> ContactAnswer:
    if contact is None:
        return ContactAnswer(UNKNOWN)
    left = results[id_of(contact)]
    result = left.pop() if left else EnrolResult(id_of(contact), EnrolVerdict.already_in)
    return ContactAnswer(result.verdict.value, result.contact_id, result.enrollment_id, result.until.isoformat() if result.until else None)
