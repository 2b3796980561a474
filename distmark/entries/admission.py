"""Entering a journey: who may, how many at a time, and the one place where enrollments are made, whatever brought the contact here."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import insert, update
from sqlmodel import Session, col, select

from distmark.campaigns.attributes import campaign_attributes
from distmark.campaigns.table import Campaign, Member, MemberStatus
from distmark.channels.registry import address_of
from distmark.compliance.service import require_sendable
from distmark.contacts import service as contacts
from distmark.contacts.attributes import zones_of
from distmark.contacts.table import Contact
from distmark.enrollments.facts import build_facts
from distmark.enrollments.model import EnrollmentStatus, EnrolResult, EnrolVerdict, TimelineKind
from distmark.enrollments.suspensions import drained_among, hold_entrants
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.entries.model import Entrant, EntryContext, EntryPoint
from distmark.entries.quota import queue_entrants, return_room, within_cap
from distmark.journeys.definition import JourneyDefinition, Kind, all_steps
from distmark.journeys.entry import Admission, admit
from distmark.journeys.expressions import Expression, ExpressionError, namespace
from distmark.journeys.model import Facts
from distmark.journeys.service import newest_registered, program_of
from distmark.journeys.table import Journey
from distmark.partners.attributes import brand_attributes, partner_attributes
from distmark.partners.table import Brand, Partner
from distmark.segments.membership import keys_of
from distmark.sql import among, id_of, insert_into, rows_of


@dataclass(frozen=True, slots=True)
class _Past:
    """What this person's earlier enrollments in the journey mean for entering now."""

    live_partner_id: int | None
    ended_at: datetime | None


def open_entry_point(session: Session, journey: Journey, campaign: Campaign | None = None, contacts_per_run: int = 1) -> EntryPoint | None:
    """Return the way into the journey's newest registered version; None when it has none.

    Refused when the version's text is no longer what was approved.
    """
    version = newest_registered(session, id_of(journey))
    if version is None:
        return None
    require_sendable(version)
    per_run = campaign.contacts_per_run if campaign else contacts_per_run
    return EntryPoint(journey.brand_id, id_of(journey), version, program_of(session, id_of(version)), campaign, per_run)


def enter(session: Session, door: EntryPoint, entrants: Sequence[Entrant], arrival: EntryContext) -> list[EnrolResult]:
    """Enter each contact who may, and return one result per entrant, in their order; no contact may be among them twice.

    Only rows are written: the flow run of each is created afterwards, from these rows. Whoever finds the journey's cap reached waits
    outside and enters later, the oldest first.
    """
    verdicts = judge(session, door, entrants, arrival.now)
    admitted = [entrant for entrant in entrants if verdicts[id_of(entrant.contact)].verdict is EnrolVerdict.enrolled]
    entering, outside = within_cap(session, door, admitted, arrival)
    entered = _insert(session, door, entering, arrival)
    return_room(session, door, len(entering) - len(entered), arrival.now)
    queue_entrants(session, door, outside, arrival)
    waiting = {id_of(entrant.contact) for entrant in outside}
    return [_settled(verdicts[id_of(entrant.contact)], entered, waiting) for entrant in entrants]


def _settled(result: EnrolResult, entered: Mapping[int, int], waiting: Collection[int]) -> EnrolResult:
    if result.verdict is not EnrolVerdict.enrolled:
        return result
    if result.contact_id in waiting:
        return replace(result, verdict=EnrolVerdict.queued)
    if result.contact_id in entered:
        return replace(result, enrollment_id=entered[result.contact_id])
    return replace(result, verdict=EnrolVerdict.already_in)


def judge(session: Session, door: EntryPoint, entrants: Sequence[Entrant], now: datetime) -> dict[int, EnrolResult]:
    """Decide for each contact whether they may enter now: address, suppression, consent, re-entry and filter, in this order of telling.

    How many may is another question: the cap is not looked at.
    """
    verdicts = _verdicts(session, door, [entrant.contact for entrant in entrants], now)
    rule = door.definition.entry.filter
    if rule is None:
        return verdicts
    admitted = [entrant for entrant in entrants if verdicts[id_of(entrant.contact)].verdict is EnrolVerdict.enrolled]
    for entrant, facts, zone in facts_of(session, door, admitted, now):
        if not _passes(rule, facts, now, zone):
            verdicts[id_of(entrant.contact)] = EnrolResult(id_of(entrant.contact), EnrolVerdict.not_matching)
    return verdicts


def _passes(rule: Expression, facts: Facts, now: datetime, zone: ZoneInfo) -> bool:
    try:
        return rule.holds(namespace(facts, now, zone))
    except ExpressionError:
        return False  # whose data the filter cannot read does not enter by it, and keeps nobody else out


def facts_of(session: Session, door: EntryPoint, entrants: Sequence[Entrant], now: datetime) -> Iterable[tuple[Entrant, Facts, ZoneInfo]]:
    """Yield each entrant with what an entry's conditions may look at: data only, since nothing was sent and nothing happened here yet."""
    people = [entrant.contact for entrant in entrants]
    if not people:
        return
    segments, zones = keys_of(session, people, now), zones_of(session, people)
    theirs = select(Partner).where(among(session, col(Partner.id), {contact.partner_id for contact in people}))
    partners = {row.id: partner_attributes(row) for row in session.exec(theirs)}
    brand, campaign = brand_attributes(session.get_one(Brand, door.brand_id)), campaign_attributes(door.campaign)
    for entrant in entrants:
        facts = build_facts(
            door.definition,
            entrant.contact,
            _frozen(door.definition, entrant),
            partner=partners[entrant.contact.partner_id],
            campaign=campaign,
            brand=brand,
            segments=segments[id_of(entrant.contact)],
            entered_at=now,
        )
        yield entrant, facts, zones[id_of(entrant.contact)]


def first_channel(definition: JourneyDefinition) -> str:
    """Return the channel of the journey's first send, which a contact must have an address for; "" when it sends nothing."""
    for step in all_steps(definition.steps):
        if step.kind == "send":
            return str(getattr(step, "send", "email"))
    return ""


def _verdicts(session: Session, door: EntryPoint, people: Sequence[Contact], now: datetime) -> dict[int, EnrolResult]:
    definition, channel = door.definition, first_channel(door.definition)
    past = _past(session, door.journey_id, [contact.person_key for contact in people])
    consents = contacts.consent_state(session, [id_of(contact) for contact in people], channel) if channel else {}
    addresses = [address for contact in people if (address := address_of(contact, channel))]
    stopped = contacts.suppressed(session, door.brand_id, channel, addresses, definition.kind is Kind.marketing) if channel else set()
    zones = zones_of(session, [contact for contact in people if contact.person_key in past])
    drained = drained_among(session, door.brand_id, door.journey_id, door.campaign_id, {id_of(each): each.partner_id for each in people})
    verdicts: dict[int, EnrolResult] = {}
    seen: set[str] = set()
    for contact in people:
        verdict = _reachable(contact, channel, definition, stopped, consents.get(id_of(contact)))
        before = past.get(contact.person_key)
        if verdict is EnrolVerdict.enrolled and before is not None:
            verdicts[id_of(contact)] = _reentry(contact, before, definition, now, zones[id_of(contact)])
        elif verdict is EnrolVerdict.enrolled and contact.person_key in seen and not door.any_time:
            verdicts[id_of(contact)] = EnrolResult(id_of(contact), EnrolVerdict.already_in)
        else:
            verdicts[id_of(contact)] = EnrolResult(id_of(contact), verdict)
        if verdicts[id_of(contact)].verdict is EnrolVerdict.enrolled and id_of(contact) in drained:
            verdicts[id_of(contact)] = EnrolResult(id_of(contact), EnrolVerdict.draining)
        if verdicts[id_of(contact)].verdict is EnrolVerdict.enrolled:
            seen.add(contact.person_key)
    return _with_partners_named(session, verdicts, people, past)


def _reachable(contact: Contact, channel: str, definition: JourneyDefinition, stopped: set[str], consent: bool | None) -> EnrolVerdict:
    address = address_of(contact, channel)
    if channel and not address:
        return EnrolVerdict.no_address
    if address and contacts.address_hash(contact.brand_id, address) in stopped:
        return EnrolVerdict.suppressed
    if consent is False or (consent is None and definition.kind is Kind.marketing and channel):
        return EnrolVerdict.no_consent
    return EnrolVerdict.enrolled


def _reentry(contact: Contact, past: _Past, definition: JourneyDefinition, now: datetime, zone: ZoneInfo) -> EnrolResult:
    answer = admit(definition.entry, inside=past.live_partner_id is not None, last_left_at=past.ended_at, now=now, zone=zone)
    if answer.admission is Admission.inside:
        mine = past.live_partner_id == contact.partner_id
        return EnrolResult(id_of(contact), EnrolVerdict.already_in if mine else EnrolVerdict.other_partner)
    verdict = {
        Admission.admitted: EnrolVerdict.enrolled,
        Admission.been_before: EnrolVerdict.once_only,
        Admission.cooling_down: EnrolVerdict.too_soon,
    }[answer.admission]
    return EnrolResult(id_of(contact), verdict, until=answer.again_at)


def _with_partners_named(
    session: Session, verdicts: dict[int, EnrolResult], people: Sequence[Contact], past: Mapping[str, _Past]
) -> dict[int, EnrolResult]:
    taken = {
        id_of(contact): past[contact.person_key].live_partner_id
        for contact in people
        if verdicts[id_of(contact)].verdict is EnrolVerdict.other_partner
    }
    if taken:
        rows = session.exec(select(Partner.id, Partner.name).where(col(Partner.id).in_(set(taken.values()))))
        names = dict(rows.all())
        verdicts |= {
            contact_id: replace(verdicts[contact_id], partner_name=names.get(partner_id, "")) for contact_id, partner_id in taken.items()
        }
    return verdicts


def _past(session: Session, journey_id: int, person_keys: Sequence[str]) -> dict[str, _Past]:
    past: dict[str, _Past] = {}
    rows = session.exec(
        select(Enrollment.person_key, Enrollment.partner_id, Enrollment.ended_at)
        .where(Enrollment.journey_id == journey_id, among(session, col(Enrollment.person_key), dict.fromkeys(person_keys)))
        .order_by(col(Enrollment.id))
    )
    for person_key, partner_id, ended_at in rows:
        before = past.get(person_key)
        live = partner_id if ended_at is None else (before.live_partner_id if before else None)
        past[person_key] = _Past(live, ended_at or (before.ended_at if before else None))
    return past


def _insert(session: Session, door: EntryPoint, entrants: Sequence[Entrant], arrival: EntryContext) -> dict[int, int]:
    """Insert one enrollment per entrant; a live one that another transaction put there first is left alone. Contact -> enrollment."""
    entered: dict[int, int] = {}
    members = _members(session, door, [id_of(entrant.contact) for entrant in entrants])
    run_keys = _run_keys(len(entrants), door.contacts_per_run)
    # Rows of one statement share the time at which they are due; nearly always that is all of them.
    by_time: dict[datetime, list[dict[str, Any]]] = {}
    for entrant, run_key in zip(entrants, run_keys, strict=True):
        by_time.setdefault(entrant.due_at or arrival.now, []).append(_own(door, entrant, members, run_key))
    for due_at, rows in by_time.items():
        entered.update(_insert_due(session, _shared(door, arrival, due_at), rows))
    _insert_moves(session, list(entered.values()), arrival)
    _approve_members(session, door, entered, arrival.now)
    hold_entrants(session, door.brand_id, list(entered.values()), arrival.now)
    return entered


OWN = ("member_id", "partner_id", "contact_id", "person_key", "live_key", "data", "run_key")


def _own(door: EntryPoint, entrant: Entrant, members: Mapping[int, int], run_key: str) -> dict[str, Any]:
    contact = entrant.contact
    return {
        "member_id": members.get(id_of(contact)),
        "partner_id": contact.partner_id,
        "contact_id": id_of(contact),
        "person_key": contact.person_key,
        "live_key": None if door.any_time else f"{door.journey_id}:{contact.person_key}",
        "data": _frozen(door.definition, entrant),
        "run_key": run_key,
    }


def _shared(door: EntryPoint, arrival: EntryContext, due_at: datetime) -> dict[str, Any]:
    return {
        "brand_id": door.brand_id,
        "journey_id": door.journey_id,
        "version_id": door.version.id,
        "campaign_id": door.campaign_id,
        "status": EnrollmentStatus.waiting,
        "visits": {},
        "due_at": due_at,
        "why": "time",
        "rules": [],
        "answers": {},
        "entered_at": arrival.entered_at or arrival.now,
        "reason": "",
        "queue": "default",
        "wakes": 0,
        "tries": 0,
        "error": "",
    }


def _insert_due(session: Session, shared: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    table = Enrollment.__table__  # type: ignore[attr-defined]
    statement = insert_into(session, table).from_select([*shared, *OWN], rows_of(session, table, shared, rows, OWN))
    statement = statement.on_conflict_do_nothing(index_elements=["live_key"])
    returned = session.execute(statement.returning(table.c.contact_id, table.c.id))
    return {row[0]: row[1] for row in returned}


def _frozen(definition: JourneyDefinition, entrant: Entrant) -> dict[str, Any]:
    attributes = entrant.contact.attributes
    return {name: attributes[name] for name in definition.journey_fields if name in attributes} | dict(entrant.data)


def _insert_moves(session: Session, enrollment_ids: Collection[int], arrival: EntryContext) -> None:
    if not enrollment_ids:
        return
    shared = {
        "at": arrival.entered_at or arrival.now,
        "kind": TimelineKind.entered,
        "step_id": "",
        "visit": 1,
        "detail": {"by": arrival.by.value, **arrival.detail},
        "rolled": False,
    }
    own, table = ("enrollment_id",), TimelineEntry.__table__  # type: ignore[attr-defined]
    rows = [{"enrollment_id": enrollment_id} for enrollment_id in enrollment_ids]
    session.execute(insert(table).from_select([*shared, *own], rows_of(session, table, shared, rows, own)))


def _run_keys(count: int, per_run: int) -> list[str]:
    keys: list[str] = []
    while len(keys) < count:
        keys.extend([uuid.uuid4().hex] * min(max(per_run, 1), count - len(keys)))
    return keys


def _members(session: Session, door: EntryPoint, contact_ids: list[int]) -> dict[int, int]:
    if door.campaign_id is None:
        return {}
    of_campaign = select(Member.contact_id, Member.id).where(Member.campaign_id == door.campaign_id)
    rows = session.exec(of_campaign.where(among(session, col(Member.contact_id), contact_ids)))
    return {contact_id: member_id for contact_id, member_id in rows if member_id is not None}


def _approve_members(session: Session, door: EntryPoint, entered: Mapping[int, int], now: datetime) -> None:
    if door.campaign_id is None:
        return
    mine = update(Member).where(col(Member.campaign_id) == door.campaign_id, among(session, col(Member.contact_id), entered))
    session.execute(mine.values(status=MemberStatus.approved, decided_at=now, error=""))
