"""Admission to a journey: which contacts may enter, and the one place that enters them, whatever brought them."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlmodel import Session, col, select

from distmark.campaigns.attributes import campaign_attributes
from distmark.campaigns.service import approve_members, member_ids_of, rejected_among
from distmark.campaigns.table import Campaign
from distmark.channels.registry import address_of
from distmark.compliance.service import require_sendable
from distmark.contacts.attributes import zones_of
from distmark.contacts.consents import consent_state, suppression_reasons
from distmark.contacts.model import SuppressionReason, address_hash
from distmark.contacts.table import Contact
from distmark.enrollments.facts import build_facts
from distmark.enrollments.insertion import EntryBatch, NewEnrollment, insert_enrollments
from distmark.enrollments.suspensions import drained_among, pause_entrants
from distmark.enrollments.table import Enrollment
from distmark.entries.model import EnrolResult, EnrolVerdict, Entrant, EntryContext, EntryPoint
from distmark.entries.quota import queue_entrants, return_room, within_cap
from distmark.journeys.definition import JourneyDefinition, Kind, all_steps
from distmark.journeys.entry import Admission, admit
from distmark.journeys.expressions import Expression, ExpressionError, namespace
from distmark.journeys.model import Facts
from distmark.journeys.service import newest_registered, program_of
from distmark.journeys.table import Journey
from distmark.partners.attributes import brand_attributes, partner_attributes
from distmark.partners.table import Brand, Partner
from distmark.segments.membership import segment_keys_of
from distmark.sql import among, by_id, id_of


@dataclass(frozen=True, slots=True)
class _EarlierEnrollments:
    """A person's earlier enrollments in the journey: the partner of the live one, and when the newest ended one ended."""

    live_partner_id: int | None
    ended_at: datetime | None


def open_entry_point(session: Session, journey: Journey, campaign: Campaign | None = None, contacts_per_run: int = 1) -> EntryPoint | None:
    """Return the entry point of the journey's newest registered version; None when it has none.

    Refused when the version's text is no longer the approved one.
    """
    version = newest_registered(session, id_of(journey))
    if version is None:
        return None
    require_sendable(version)
    per_run = campaign.contacts_per_run if campaign else contacts_per_run
    return EntryPoint(journey.brand_id, id_of(journey), version, program_of(session, id_of(version)), campaign, per_run)


def enter(session: Session, entry_point: EntryPoint, entrants: Sequence[Entrant], context: EntryContext) -> list[EnrolResult]:
    """Enter each contact that may enter, and return one result per entrant, in their order; no contact may be among them twice.

    Only rows are written: the flow run of each enrollment is created afterwards, from its row. Contacts beyond the journey's cap are queued
    and enter later, the oldest first.
    """
    results = check_eligibility(session, entry_point, entrants, context.now)
    eligible = [entrant for entrant in entrants if results[id_of(entrant.contact)].verdict is EnrolVerdict.enrolled]
    entering, beyond_cap = within_cap(session, entry_point, eligible, context)
    enrollment_ids = _insert(session, entry_point, entering, context)
    return_room(session, entry_point, len(entering) - len(enrollment_ids), context.now)
    queue_entrants(session, entry_point, beyond_cap, context)
    queued_ids = [id_of(entrant.contact) for entrant in beyond_cap]
    approve_members(session, entry_point.campaign_id, queued_ids, context.now, agreed_now=not context.waited)
    queued = {id_of(entrant.contact) for entrant in beyond_cap}
    return [_final_result(results[id_of(entrant.contact)], enrollment_ids, queued) for entrant in entrants]


def _final_result(result: EnrolResult, enrollment_ids: Mapping[int, int], queued: Collection[int]) -> EnrolResult:
    if result.verdict is not EnrolVerdict.enrolled:
        return result
    if result.contact_id in queued:
        return replace(result, verdict=EnrolVerdict.queued)
    if result.contact_id in enrollment_ids:
        return replace(result, enrollment_id=enrollment_ids[result.contact_id])
    return replace(result, verdict=EnrolVerdict.already_in)


def check_eligibility(session: Session, entry_point: EntryPoint, entrants: Sequence[Entrant], now: datetime) -> dict[int, EnrolResult]:
    """Return by contact id whether each contact may enter now, changing nothing.

    The first reason against it counts, in this order: left out of the campaign, address, suppression, consent, re-entry, drain, filter.
    The cap is not looked at.
    """
    results = _eligibility(session, entry_point, [entrant.contact for entrant in entrants], now)
    rule = entry_point.definition.entry.filter
    if rule is None:
        return results
    eligible = [entrant for entrant in entrants if results[id_of(entrant.contact)].verdict is EnrolVerdict.enrolled]
    for entrant, facts, zone in entry_facts(session, entry_point, eligible, now):
        if not _passes(rule, facts, now, zone):
            results[id_of(entrant.contact)] = EnrolResult(id_of(entrant.contact), EnrolVerdict.not_matching)
    return results


def _passes(rule: Expression, facts: Facts, now: datetime, zone: ZoneInfo) -> bool:
    try:
        return rule.holds(namespace(facts, now, zone))
    except ExpressionError:
        return False  # a contact with data that the filter cannot read stays out, and must not keep the others out


def entry_facts(
    session: Session, entry_point: EntryPoint, entrants: Sequence[Entrant], now: datetime
) -> Iterable[tuple[Entrant, Facts, ZoneInfo]]:
    """Yield each entrant with the facts and the time zone for the conditions of an entry.

    The facts hold data only: before entering, nothing was sent and nothing has happened in the journey.
    """
    contacts = [entrant.contact for entrant in entrants]
    if not contacts:
        return
    segments, zones = segment_keys_of(session, contacts, now), zones_of(session, contacts)
    rows = by_id(session, Partner, {contact.partner_id for contact in contacts})
    partners = {partner_id: partner_attributes(row) for partner_id, row in rows.items()}
    brand, campaign = brand_attributes(session.get_one(Brand, entry_point.brand_id)), campaign_attributes(entry_point.campaign)
    for entrant in entrants:
        facts = build_facts(
            entry_point.definition,
            entrant.contact,
            _entry_data(entry_point.definition, entrant),
            partner=partners[entrant.contact.partner_id],
            campaign=campaign,
            brand=brand,
            segments=segments[id_of(entrant.contact)],
            entered_at=now,
        )
        yield entrant, facts, zones[id_of(entrant.contact)]


def first_channel(definition: JourneyDefinition) -> str:
    """Return the channel of the journey's first send, for which a contact must have an address; "" for a journey without a send."""
    for step in all_steps(definition.steps):
        if step.kind == "send":
            return str(getattr(step, "send", "email"))
    return ""


def _eligibility(session: Session, entry_point: EntryPoint, contacts: Sequence[Contact], now: datetime) -> dict[int, EnrolResult]:
    definition, channel = entry_point.definition, first_channel(entry_point.definition)
    earlier = _earlier_enrollments(session, entry_point.journey_id, [contact.person_key for contact in contacts])
    consents = consent_state(session, [id_of(contact) for contact in contacts], channel) if channel else {}
    addresses = [address for contact in contacts if (address := address_of(contact, channel))]
    marketing = definition.kind is Kind.marketing
    stopped = suppression_reasons(session, entry_point.brand_id, channel, addresses, marketing) if channel else {}
    zones = zones_of(session, [contact for contact in contacts if contact.person_key in earlier])
    partners = {id_of(contact): contact.partner_id for contact in contacts}
    drained = drained_among(session, entry_point.brand_id, entry_point.journey_id, entry_point.campaign_id, partners)
    rejected = rejected_among(session, entry_point.campaign_id, list(partners))
    results: dict[int, EnrolResult] = {}
    entering: set[str] = set()
    for contact in contacts:
        if id_of(contact) in rejected:
            results[id_of(contact)] = EnrolResult(id_of(contact), EnrolVerdict.left_out)
            continue
        result = EnrolResult(id_of(contact), _contact_verdict(contact, channel, definition, stopped, consents.get(id_of(contact))))
        before = earlier.get(contact.person_key)
        if result.verdict is EnrolVerdict.enrolled and before is not None:
            result = _reentry_result(contact, before, definition, now, zones[id_of(contact)])
        elif result.verdict is EnrolVerdict.enrolled and contact.person_key in entering and not entry_point.any_time:
            result = EnrolResult(id_of(contact), EnrolVerdict.already_in)
        if result.verdict is EnrolVerdict.enrolled and id_of(contact) in drained:
            result = EnrolResult(id_of(contact), EnrolVerdict.draining)
        if result.verdict is EnrolVerdict.enrolled:
            entering.add(contact.person_key)
        results[id_of(contact)] = result
    return _with_partner_names(session, results, contacts, earlier)


SUPPRESSED: Mapping[SuppressionReason, EnrolVerdict] = {
    SuppressionReason.unsubscribed: EnrolVerdict.suppressed,
    SuppressionReason.bounced: EnrolVerdict.bounced,
    SuppressionReason.complained: EnrolVerdict.complained,
    SuppressionReason.manual: EnrolVerdict.blocked,
    SuppressionReason.erased: EnrolVerdict.erased,
}


def _contact_verdict(
    contact: Contact, channel: str, definition: JourneyDefinition, stopped: Mapping[str, SuppressionReason], consent: bool | None
) -> EnrolVerdict:
    address = address_of(contact, channel)
    if channel and not address:
        return EnrolVerdict.no_address
    if address and (reason := stopped.get(address_hash(contact.brand_id, address))):
        return SUPPRESSED[reason]
    if consent is False or (consent is None and definition.kind is Kind.marketing and channel):
        return EnrolVerdict.no_consent
    return EnrolVerdict.enrolled


def _reentry_result(
    contact: Contact, earlier: _EarlierEnrollments, definition: JourneyDefinition, now: datetime, zone: ZoneInfo
) -> EnrolResult:
    answer = admit(definition.entry, inside=earlier.live_partner_id is not None, last_left_at=earlier.ended_at, now=now, zone=zone)
    if answer.admission is Admission.inside:
        same_partner = earlier.live_partner_id == contact.partner_id
        return EnrolResult(id_of(contact), EnrolVerdict.already_in if same_partner else EnrolVerdict.other_partner)
    verdict = {
        Admission.admitted: EnrolVerdict.enrolled,
        Admission.been_before: EnrolVerdict.once_only,
        Admission.cooling_down: EnrolVerdict.too_soon,
    }[answer.admission]
    return EnrolResult(id_of(contact), verdict, until=answer.again_at)


def _with_partner_names(
    session: Session, results: dict[int, EnrolResult], contacts: Sequence[Contact], earlier: Mapping[str, _EarlierEnrollments]
) -> dict[int, EnrolResult]:
    """Return the results, with the partner's name in each that says that another partner's enrollment is live."""
    other_partners = {
        id_of(contact): earlier[contact.person_key].live_partner_id
        for contact in contacts
        if results[id_of(contact)].verdict is EnrolVerdict.other_partner
    }
    if other_partners:
        rows = session.exec(select(Partner.id, Partner.name).where(col(Partner.id).in_(set(other_partners.values()))))
        names = dict(rows.all())
        results |= {
            contact_id: replace(results[contact_id], partner_name=names.get(partner_id, ""))
            for contact_id, partner_id in other_partners.items()
        }
    return results


def _earlier_enrollments(session: Session, journey_id: int, person_keys: Sequence[str]) -> dict[str, _EarlierEnrollments]:
    earlier: dict[str, _EarlierEnrollments] = {}
    rows = session.exec(
        select(Enrollment.person_key, Enrollment.partner_id, Enrollment.ended_at)
        .where(Enrollment.journey_id == journey_id, among(session, col(Enrollment.person_key), dict.fromkeys(person_keys)))
        .order_by(col(Enrollment.id))
    )
    for person_key, partner_id, ended_at in rows:
        before = earlier.get(person_key)
        live = partner_id if ended_at is None else (before.live_partner_id if before else None)
        earlier[person_key] = _EarlierEnrollments(live, ended_at or (before.ended_at if before else None))
    return earlier


def _insert(session: Session, entry_point: EntryPoint, entrants: Sequence[Entrant], context: EntryContext) -> dict[int, int]:
    """Insert one enrollment per entrant and return their ids by contact id; a live one that another transaction inserted first is kept."""
    entered_at = context.entered_at or context.now
    detail = {"by": context.by.value, **context.detail}
    batch = EntryBatch(
        entry_point.brand_id, entry_point.journey_id, id_of(entry_point.version), entry_point.campaign_id, entered_at, detail
    )
    member_ids = member_ids_of(session, entry_point.campaign_id, [id_of(entrant.contact) for entrant in entrants])
    run_keys = _run_keys(len(entrants), entry_point.contacts_per_run)
    new = [
        NewEnrollment(
            entrant.contact,
            member_ids.get(id_of(entrant.contact)),
            entry_point.live_key(entrant.contact),
            _entry_data(entry_point.definition, entrant),
            run_key,
            entrant.due_at or context.now,
        )
        for entrant, run_key in zip(entrants, run_keys, strict=True)
    ]
    enrollment_ids = insert_enrollments(session, batch, new)
    approve_members(session, entry_point.campaign_id, enrollment_ids, context.now, agreed_now=not context.waited)
    pause_entrants(session, entry_point.brand_id, list(enrollment_ids.values()), context.now)
    return enrollment_ids


def _entry_data(definition: JourneyDefinition, entrant: Entrant) -> dict[str, Any]:
    attributes = entrant.contact.attributes
    return {name: attributes[name] for name in definition.journey_fields if name in attributes} | dict(entrant.data)


def _run_keys(count: int, per_run: int) -> list[str]:
    keys: list[str] = []
    while len(keys) < count:
        keys.extend([uuid.uuid4().hex] * min(max(per_run, 1), count - len(keys)))
    return keys
