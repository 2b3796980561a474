"""One message on its way out: may it go now, claim it, render it, hand it over, record what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from sqlmodel import Session, col, select

from distmark.clock import Clock
from distmark.compliance.service import require_sendable
from distmark.contacts import service as contacts
from distmark.contacts.model import address_hash
from distmark.contacts.table import Contact
from distmark.delivery.channel import Channel, OutgoingMessage
from distmark.delivery.mime import make_message_id
from distmark.delivery.rules import CAP_DAYS, CapPolicy, SendDecision, SendFacts, SendVerdict, decide_send
from distmark.enrollments.service import address_of
from distmark.enrollments.table import Enrollment
from distmark.errors import DeliveryError, DistmarkError, PermanentDeliveryError, Refused, TemporaryDeliveryError, UncertainDelivery
from distmark.journeys.definition import JourneyDefinition, Kind
from distmark.journeys.model import IfHeld, SendMessage
from distmark.journeys.source import Source
from distmark.journeys.table import JourneyVersion
from distmark.journeys.times import next_allowed, zone_for
from distmark.messages.compose import Links, Person, blocks_of, compiled, from_name, language_of, render_for, to_name
from distmark.messages.model import FINAL, MAX_ATTEMPTS, MessageStatus
from distmark.messages.service import open_row, rows_of_step, settle, written_since
from distmark.messages.table import Message

BACKOFF = (timedelta(seconds=5), timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10), timedelta(hours=1))


@dataclass(frozen=True, slots=True)
class Sender:
    """This installation as a sender: what addresses and identifiers are made of."""

    base_url: str
    mail_from: str
    mail_domain: str


@dataclass(frozen=True, slots=True)
class SendRequest:
    """One enrollment at a send step."""

    enrollment: Enrollment
    person: Person
    effect: SendMessage
    visit: int


class Readiness(StrEnum):
    """What `prepare` found."""

    ready = "ready"  # claimed and rendered: hand it over
    settled = "settled"  # its row is final: go on
    held = "held"  # not now: sleep until `until`
    skipped = "skipped"  # left out by rule: go on


@dataclass(frozen=True, slots=True)
class Prepared:
    """One request, decided. `status` is set when settled, `outgoing` and `row_id` when ready, `until` when held."""

    request: SendRequest
    readiness: Readiness
    reason: str = ""
    until: datetime | None = None
    status: MessageStatus | None = None
    row_id: int | None = None
    outgoing: OutgoingMessage | None = None


@dataclass(frozen=True, slots=True)
class Handed:
    """What a channel answered. `status` is sent, deferred, rejected, failed or uncertain; `counts` is False when nobody answered at all."""

    status: MessageStatus
    code: str = ""
    detail: str = ""
    counts: bool = True


def prepare(
    session: Session,
    version: JourneyVersion,
    definition: JourneyDefinition,
    source: Source,
    requests: Sequence[SendRequest],
    sender: Sender,
    worker: str,
    now: datetime,
) -> list[Prepared]:
    """Decide for each request, in the transaction that claims: consent and suppression cannot change between the look and the claim.

    All requests are of one step of one version. Result is in the order of the requests.
    """
    if not requests:
        return []
    step_id, channel = requests[0].effect.step_id, requests[0].effect.channel
    contact_ids = [request.enrollment.contact_id for request in requests]
    # An unsubscribe takes this lock for itself, so it is either seen here or comes after the claim.
    session.exec(select(Contact.id).where(col(Contact.id).in_(contact_ids)).with_for_update(read=True)).all()
    rows = rows_of_step(session, [request.enrollment.id or 0 for request in requests], step_id)
    gate = _gate(session, version, definition, requests, channel, now)
    prepared = []
    for request in requests:
        row = rows.get((request.enrollment.id or 0, request.visit))
        prepared.append(_prepare_one(session, definition, source, request, row, gate, sender, worker, now))
    session.flush()
    return [replace(each, row_id=row.id) if each.outgoing and (row := _row_of(session, each)) else each for each in prepared]


@dataclass(frozen=True, slots=True)
class _Gate:
    """The facts of a whole group, fetched together."""

    approved: bool
    suppressed: set[str]
    consent: Mapping[int, bool | None]
    written: Mapping[int, list[datetime]]
    cap: CapPolicy


def _gate(
    session: Session, version: JourneyVersion, definition: JourneyDefinition, requests: Sequence[SendRequest], channel: str, now: datetime
) -> _Gate:
    contact_ids = [request.enrollment.contact_id for request in requests]
    addresses = [address for request in requests if (address := address_of(request.person.contact, channel))]
    marketing = _is_marketing(definition, requests[0].effect)
    brand_id = requests[0].enrollment.brand_id
    return _Gate(
        approved=_is_sendable(version),
        suppressed=contacts.suppressed(session, brand_id, channel, addresses, marketing),
        consent=contacts.consent_state(session, contact_ids, channel),
        written=written_since(session, contact_ids, now - timedelta(days=CAP_DAYS + 1), channel),
        cap=_cap_policy(definition),
    )


def _cap_policy(definition: JourneyDefinition) -> CapPolicy:
    counts = {cap.period: cap.count for cap in definition.send_policy.caps.limits}
    return CapPolicy(per_day=counts.get("day"), per_week=counts.get("week"))


def _is_sendable(version: JourneyVersion) -> bool:
    try:
        require_sendable(version)
    except Refused:
        return False
    return True


def _is_marketing(definition: JourneyDefinition, effect: SendMessage) -> bool:
    return definition.kind is Kind.marketing and not effect.transactional


def _row_of(session: Session, prepared: Prepared) -> Message | None:
    request = prepared.request
    return rows_of_step(session, [request.enrollment.id or 0], request.effect.step_id).get((request.enrollment.id or 0, request.visit))


def _prepare_one(
    session: Session,
    definition: JourneyDefinition,
    source: Source,
    request: SendRequest,
    row: Message | None,
    gate: _Gate,
    sender: Sender,
    worker: str,
    now: datetime,
) -> Prepared:
    if row is not None and row.status in FINAL:
        return Prepared(request, Readiness.settled, status=row.status)
    if row is not None and row.status is MessageStatus.sending:
        # Only one worker walks this enrollment, so whoever wrote this is gone, and nobody knows how far it came.
        settle(
            session, row, MessageStatus.uncertain, now, detail="The process that was handing this over ended before it heard the answer."
        )
        return Prepared(request, Readiness.settled, status=MessageStatus.uncertain)
    decision = _decide(definition, request, gate, now)
    if decision.outcome is SendVerdict.hold:
        return Prepared(request, Readiness.held, decision.reason, decision.until)
    if decision.outcome is SendVerdict.skip:
        return Prepared(request, Readiness.skipped, decision.reason)
    return _claim(session, definition, source, request, row, decision, sender, worker, now)


def _decide(definition: JourneyDefinition, request: SendRequest, gate: _Gate, now: datetime) -> SendDecision:
    contact, policy = request.person.contact, definition.send_policy
    address = address_of(contact, request.effect.channel)
    if not address:
        return SendDecision(SendVerdict.suppress, "no_address")
    zone = zone_for(request.person.zone)
    marketing = _is_marketing(definition, request.effect)
    consent = gate.consent.get(contact.id or 0)
    facts = SendFacts(
        now=now,
        zone=zone,
        transactional=not marketing,
        suppressed=address_hash(contact.brand_id, address) in gate.suppressed or contact.erased_at is not None,
        consented=consent is True or (consent is None and not marketing),
        approved=gate.approved,
        marketing_sent_at=gate.written.get(contact.id or 0, ()),
    )
    if_held = request.effect.if_held or policy.if_held or IfHeld.hold

    def open_from(at: datetime) -> tuple[datetime, tuple[str, ...]]:
        return next_allowed(at, zone, policy.quiet_hours, policy.days, policy.holidays)

    return decide_send(facts, gate.cap, open_from, IfHeld(str(if_held)))


def _claim(
    session: Session,
    definition: JourneyDefinition,
    source: Source,
    request: SendRequest,
    row: Message | None,
    decision: SendDecision,
    sender: Sender,
    worker: str,
    now: datetime,
) -> Prepared:
    enrollment, effect = request.enrollment, request.effect
    language = language_of(definition, request.person.contact)
    if row is None:
        row = open_row(
            session,
            enrollment,
            effect,
            request.visit,
            language=language,
            marketing=_is_marketing(definition, effect),
            header_id=make_message_id(f"{enrollment.run_key}:{enrollment.id}:{effect.step_id}:{request.visit}", sender.mail_domain),
            claimed_by=worker,
            now=now,
        )
    else:
        row.status, row.claimed_by, row.sending_at, row.attempts = MessageStatus.sending, worker, now, row.attempts + 1
        session.add(row)
    session.flush()
    if decision.outcome is SendVerdict.suppress:
        settle(session, row, MessageStatus.suppressed, now, detail=decision.reason)
        return Prepared(request, Readiness.settled, decision.reason, status=MessageStatus.suppressed)
    try:
        outgoing = _render(session, definition, source, request, row, sender, now)
    except DistmarkError as error:
        settle(session, row, MessageStatus.failed, now, detail=str(error))
        return Prepared(request, Readiness.settled, str(error), status=MessageStatus.failed)
    return Prepared(request, Readiness.ready, row_id=row.id, outgoing=outgoing)


def _render(
    session: Session,
    definition: JourneyDefinition,
    source: Source,
    request: SendRequest,
    row: Message,
    sender: Sender,
    now: datetime,
) -> OutgoingMessage:
    person, links = request.person, Links(sender.base_url, row.token)
    parts = compiled(source, definition, row.name, row.language, row.channel)
    blocks = blocks_of(session, person, definition, row.language)
    rendered = render_for(person, request.enrollment.data, parts, blocks, links, marketing=row.marketing)
    row.subject, row.links = rendered.subject, dict(rendered.link_targets)
    session.add(row)
    campaign = person.campaign.key if person.campaign else "direct"
    return OutgoingMessage(
        message_id=row.header_id,
        from_name=from_name(person),
        from_address=person.brand.mail_from or sender.mail_from,
        reply_to=person.partner.email,
        to_name=to_name(person),
        to_address=address_of(person.contact, row.channel) or "",
        subject=rendered.subject,
        text=rendered.text,
        html=rendered.html,
        language=row.language,
        unsubscribe_url=links.unsubscribe if row.marketing else "",
        list_id=f"{definition.key}.{person.brand.key}.{sender.mail_domain}" if row.marketing else "",
        feedback_id=f"{campaign}:{person.partner.key}:{definition.kind}:distmark",
        marketing=row.marketing,
        sent_at=now,
    )


async def hand_over(channels: Mapping[str, Channel], channel: str, outgoing: OutgoingMessage) -> Handed:
    """Give the message to its channel and say what came of it. No database session is open meanwhile."""
    try:
        receipt = await channels[channel].deliver(outgoing)
    except KeyError:
        return Handed(MessageStatus.failed, detail=f'This installation has no channel "{channel}"; it has {", ".join(channels)}.')
    except UncertainDelivery as error:
        return Handed(MessageStatus.uncertain, error.code or "", _told(error))
    except TemporaryDeliveryError as error:
        return Handed(MessageStatus.deferred, error.code or "", _told(error), counts=error.code is not None)
    except PermanentDeliveryError as error:
        return Handed(MessageStatus.rejected, error.code or "", _told(error))
    except DistmarkError as error:
        return Handed(MessageStatus.failed, detail=str(error))
    return Handed(MessageStatus.sent, receipt.code)


def _told(error: DeliveryError) -> str:
    return str(error)[:500]


def record_handed(session: Session, prepared: Prepared, handed: Handed, clock: Clock) -> tuple[MessageStatus, datetime | None]:
    """Record the answer in the ledger; return the status, and when to try again if it is deferred.

    A refusal that counts is tried at most `MAX_ATTEMPTS` times; a server that does not answer at all is waited for without end, since
    nothing is wrong with the message.
    """
    row = session.get(Message, prepared.row_id)
    if row is None:
        raise Refused(f"Message {prepared.row_id} is gone from the ledger.")
    now = clock.now()
    status = handed.status
    if status is MessageStatus.deferred and handed.counts and row.attempts >= MAX_ATTEMPTS:
        status = MessageStatus.failed
    retry_at = clock.in_real(BACKOFF[min(row.attempts, len(BACKOFF)) - 1]) if status is MessageStatus.deferred else None
    settle(session, row, status, now, code=handed.code, detail=handed.detail)
    if status is MessageStatus.deferred and not handed.counts:
        row.attempts = max(row.attempts - 1, 1)
    row.next_try_at = retry_at
    return status, retry_at
