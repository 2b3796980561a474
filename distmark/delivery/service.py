"""One message on its way out: may it go now, claim it, render it, hand it over, record what came of it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, select

from distmark.clock import Clock
from distmark.compliance.service import require_sendable
from distmark.contacts import service as contacts
from distmark.contacts.model import address_hash
from distmark.contacts.table import Contact
from distmark.delivery.channel import Channel, OutgoingMessage
from distmark.delivery.mime import make_message_id
from distmark.delivery.pace import RULE, TURN_KEPT, Line, Rate, RateScope, Scoped, rated, ticket_of
from distmark.delivery.places import Queue, at_the_send, queue_of
from distmark.delivery.rates import close_line, open_line, rates_of
from distmark.delivery.rules import SEND, SendDecision, SendFacts, SendVerdict, counted_since, decide_send
from distmark.enrollments.service import address_of
from distmark.enrollments.table import Enrollment
from distmark.errors import DeliveryError, DistmarkError, PermanentDeliveryError, Refused, TemporaryDeliveryError, UncertainDelivery
from distmark.journeys.definition import JourneyDefinition, Kind
from distmark.journeys.model import IfHeld, SendMessage
from distmark.journeys.source import Source
from distmark.journeys.table import JourneyVersion
from distmark.journeys.times import next_allowed, zone_for
from distmark.messages.compose import Links, Person, blocks_of, compiled, from_name, language_of, render_for, to_name
from distmark.messages.model import ACCEPTED, FINAL, MAX_ATTEMPTS, MessageStatus
from distmark.messages.service import open_row, rows_of_step, settle
from distmark.messages.table import Message

log = logging.getLogger("distmark.delivery")

COUNTED = ACCEPTED | {MessageStatus.sending, MessageStatus.uncertain}  # what a cap counts: what may have reached the person
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
    broken = "broken"  # making it raised `error`; nothing was claimed


@dataclass(frozen=True, slots=True)
class Prepared:
    """One request, decided. `status` is set when settled, `outgoing` and `row_id` when ready, `rules` when held or skipped.

    `until` of a held one is None when nobody can say until when.
    """

    request: SendRequest
    readiness: Readiness
    rules: tuple[str, ...] = ()
    until: datetime | None = None
    status: MessageStatus | None = None
    detail: str = ""
    row_id: int | None = None
    outgoing: OutgoingMessage | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Handed:
    """What a channel answered. `status` is sent, deferred, rejected, failed or uncertain; `counts` is False when nobody answered at all."""

    status: MessageStatus
    code: str = ""
    detail: str = ""
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Batch:
    """What the messages of one wake have in common: their version, who sends them, who claims them, and when."""

    version: JourneyVersion
    definition: JourneyDefinition
    source: Source
    sender: Sender
    worker: str
    now: datetime


def lock_people(session: Session, enrollments: Sequence[Enrollment]) -> None:
    """Let nobody else decide about writing to these people until the unit of work ends, in whoever's book they are.

    Two workers that counted a person's messages at once would both find room for one more, and an unsubscribe must be seen here or come
    after the claim. Call it before any other row of theirs is written: everybody locks people first, in one order.
    """
    if not enrollments or session.get_bind().dialect.name == "sqlite":  # a writing session on SQLite is alone anyway
        return
    keys, brand_ids = {row.person_key for row in enrollments}, {row.brand_id for row in enrollments}
    people = select(Contact.id).where(col(Contact.brand_id).in_(brand_ids), col(Contact.person_key).in_(keys)).order_by(col(Contact.id))
    session.exec(people.with_for_update(key_share=True)).all()


def prepare(session: Session, batch: Batch, requests: Sequence[SendRequest]) -> list[Prepared]:
    """Decide for each request, in the transaction that claims: `lock_people` came before, so what was looked at still holds at the claim.

    All requests are of one version. Result is in the order of the requests, which is the order in which turns are given.
    """
    if not requests:
        return []
    desk = _open_desk(session, batch, requests)
    judged = [_judge(session, desk, request) for request in requests]
    close_line(session, requests[0].enrollment.brand_id, desk.line)
    claimed = iter(_claim_all(session, batch, [each for each in judged if isinstance(each, _Claim)]))
    return [next(claimed) if isinstance(each, _Claim) else each for each in judged]


@dataclass(frozen=True, slots=True)
class _Gate:
    """The facts of all requests of one channel and kind, fetched together. `written` is by person, and grows as messages are claimed."""

    suppressed: set[str]
    consent: Mapping[int, bool | None]
    written: dict[str, list[datetime]]


@dataclass(frozen=True, slots=True)
class _Desk:
    """Everything that decides about a batch."""

    batch: Batch
    approved: bool
    rows: Mapping[tuple[int, str, int], Message]
    gates: Mapping[tuple[str, bool], _Gate]
    queue: Queue
    line: Line
    rates: Mapping[Scoped, Rate]


@dataclass(frozen=True, slots=True)
class _Claim:
    """A request whose message is to be claimed: to be sent, or to be recorded as suppressed for `suppressed`."""

    request: SendRequest
    row: Message | None
    suppressed: str = ""


def _open_desk(session: Session, batch: Batch, requests: Sequence[SendRequest]) -> _Desk:
    kinds: dict[tuple[str, bool], list[SendRequest]] = {}
    for request in requests:
        kinds.setdefault((request.effect.channel, _is_marketing(batch.definition, request.effect)), []).append(request)
    brand_id = requests[0].enrollment.brand_id
    queue = queue_of(session, _capped(batch, kinds), batch.now)
    since = counted_since([*batch.definition.send_policy.caps.limits, *queue.caps], batch.now)
    rates = rates_of(session, brand_id)
    under = {rule for request in requests for rule in rated(rates, _scopes(batch, request))} if rates else set()
    return _Desk(
        batch=batch,
        approved=_is_sendable(batch.version),
        rows=_rows(session, requests),
        gates={kind: _gate(session, group, *kind, since) for kind, group in kinds.items()},
        queue=queue,
        line=open_line(session, brand_id, under, [_ticket(request) for request in requests], batch.now),
        rates=rates,
    )


def _capped(batch: Batch, kinds: Mapping[tuple[str, bool], list[SendRequest]]) -> list[Enrollment]:
    """Return the enrollments whose messages caps may hold."""
    if not batch.definition.send_policy.caps.limits:
        return []
    return [request.enrollment for (_channel, marketing), group in kinds.items() if marketing for request in group]


def _rows(session: Session, requests: Sequence[SendRequest]) -> dict[tuple[int, str, int], Message]:
    rows: dict[tuple[int, str, int], Message] = {}
    for step_id in dict.fromkeys(request.effect.step_id for request in requests):
        ids = [request.enrollment.id or 0 for request in requests if request.effect.step_id == step_id]
        rows |= {(enrollment_id, step_id, visit): row for (enrollment_id, visit), row in rows_of_step(session, ids, step_id).items()}
    return rows


def _gate(session: Session, requests: Sequence[SendRequest], channel: str, marketing: bool, since: datetime | None) -> _Gate:
    brand_id = requests[0].enrollment.brand_id
    addresses = [address for request in requests if (address := address_of(request.person.contact, channel))]
    people = [request.enrollment.person_key for request in requests]
    return _Gate(
        suppressed=contacts.suppressed(session, brand_id, channel, addresses, marketing),
        consent=contacts.consent_state(session, [request.enrollment.contact_id for request in requests], channel),
        written=_written(session, brand_id, people, channel, since) if since and marketing else {},
    )


def _written(session: Session, brand_id: int, people: Sequence[str], channel: str, since: datetime) -> dict[str, list[datetime]]:
    """Return when marketing messages went to each person on the channel, from whichever journey and in whoever's book.

    One that is on its way counts, and one that may have arrived.
    """
    rows = session.exec(
        select(Contact.person_key, Message.sent_at, Message.sending_at)
        .join(Contact, col(Contact.id) == col(Message.contact_id))
        .where(
            Contact.brand_id == brand_id,
            col(Contact.person_key).in_(set(people)),
            Message.channel == channel,
            col(Message.marketing).is_(True),
            col(Message.status).in_(COUNTED),
            col(Message.sending_at) >= since,
        )
    )
    written: dict[str, list[datetime]] = {}
    for person_key, sent_at, sending_at in rows:
        if at := sent_at or sending_at:
            written.setdefault(person_key, []).append(at)
    return written


def _is_sendable(version: JourneyVersion) -> bool:
    try:
        require_sendable(version)
    except Refused:
        return False
    return True


def _is_marketing(definition: JourneyDefinition, effect: SendMessage) -> bool:
    return definition.kind is Kind.marketing and not effect.transactional


def _scopes(batch: Batch, request: SendRequest) -> list[Scoped]:
    """Return everything by which the message may be slowed down."""
    person, channel = request.person, request.effect.channel
    scopes = [(RateScope.partner, person.partner.key.lower())]
    if person.campaign is not None:
        scopes.append((RateScope.campaign, person.campaign.key.lower()))
    if channel == "email":
        sending, destination = person.brand.mail_from or batch.sender.mail_from, address_of(person.contact, channel) or ""
        scopes += [(RateScope.sending_domain, _domain(sending)), (RateScope.destination_domain, _domain(destination))]
    return [each for each in scopes if each[1]]


def _domain(address: str) -> str:
    return address.rpartition("@")[2].strip().lower()


def _judge(session: Session, desk: _Desk, request: SendRequest) -> Prepared | _Claim:
    row = desk.rows.get((request.enrollment.id or 0, request.effect.step_id, request.visit))
    if row is not None and row.status in FINAL:
        return Prepared(request, Readiness.settled, status=row.status)
    if row is not None and row.status is MessageStatus.sending:
        # Only one worker walks this enrollment, so whoever wrote this is gone, and nobody knows how far it came.
        ended = "The process that was handing this over ended before it heard the answer."
        settle(session, row, MessageStatus.uncertain, desk.batch.now, detail=ended)
        return Prepared(request, Readiness.settled, status=MessageStatus.uncertain)
    decision = _decide(desk, request, row)
    if decision.outcome is SendVerdict.hold:
        return Prepared(request, Readiness.held, decision.rules, decision.until)
    if decision.outcome is SendVerdict.skip:
        return Prepared(request, Readiness.skipped, decision.rules)
    return _Claim(request, row, decision.reason if decision.outcome is SendVerdict.suppress else "")


def _decide(desk: _Desk, request: SendRequest, row: Message | None) -> SendDecision:
    contact, policy = request.person.contact, desk.batch.definition.send_policy
    address = address_of(contact, request.effect.channel)
    if not address:
        return SendDecision(SendVerdict.suppress, ("no_address",))
    zone = zone_for(request.person.zone)
    marketing = _is_marketing(desk.batch.definition, request.effect)
    gate = desk.gates[request.effect.channel, marketing]
    consent, written = gate.consent.get(contact.id or 0), gate.written.setdefault(request.enrollment.person_key, [])
    me = at_the_send(request.enrollment, request.effect.step_id, request.visit, policy.priority, desk.batch.now)
    facts = SendFacts(
        now=desk.batch.now,
        zone=zone,
        transactional=not marketing,
        suppressed=address_hash(contact.brand_id, address) in gate.suppressed or contact.erased_at is not None,
        consented=consent is True or (consent is None and not marketing),
        approved=desk.approved,
        written_at=written,
        priority=policy.priority,
        rivals=desk.queue.before(me, request.enrollment.person_key, request.effect.channel, zone) if marketing else (),
    )
    if_held = IfHeld(str(request.effect.if_held or policy.if_held or IfHeld.hold))

    def open_from(at: datetime) -> tuple[datetime, tuple[str, ...]]:
        return next_allowed(at, zone, policy.quiet_hours, policy.days, policy.holidays)

    def decide(turn_at: datetime | None, rule: str) -> SendDecision:
        return decide_send(replace(facts, turn_at=turn_at, throttle=rule), policy.caps.limits, open_from, if_held)

    decision = decide(None, "")
    if decision.outcome is SendVerdict.send and desk.rates:
        decision = _line_up(desk, request, row, decide)
    if decision.outcome is SendVerdict.send and marketing:
        written.append(desk.batch.now)
    return decision


def _line_up(desk: _Desk, request: SendRequest, row: Message | None, decide: Callable[[datetime, str], SendDecision]) -> SendDecision:
    """Return whether it is the message's turn, and give it one if not: what may go but for the throttle waits in line."""
    enrollment, now = request.enrollment, desk.batch.now
    if row is not None and row.status is MessageStatus.deferred:  # its turn was taken at the first try
        return SEND
    ticket = _ticket(request)
    given = desk.line.turns.get(ticket)
    if given is not None and given > now:  # something woke it before its turn, which it keeps
        return decide(given, next((str(rule) for rule in enrollment.rules if str(rule).startswith(RULE)), RULE))
    if given is not None:
        desk.line.used.add(ticket)
        if now <= given + TURN_KEPT:
            return SEND
    rates = rated(desk.rates, _scopes(desk.batch, request))
    turn_at, rule = desk.line.turn(rates)
    decision = decide(turn_at, rule)
    # A turn at night is not given: whoever would have it lines up again in the morning, when nobody is ahead who came later.
    if decision.outcome is SendVerdict.hold and decision.until == turn_at:
        desk.line.given[ticket] = turn_at
    if decision.outcome is SendVerdict.send or ticket in desk.line.given:
        desk.line.take(rates)
    return decision


def _ticket(request: SendRequest) -> str:
    return ticket_of(request.enrollment.id or 0, request.effect.step_id, request.visit)


def _claim_all(session: Session, batch: Batch, claims: Sequence[_Claim]) -> list[Prepared]:
    rows = [_claim(session, batch, claim) for claim in claims]
    session.flush()
    return [_fill(session, batch, claim, row) for claim, row in zip(claims, rows, strict=True)]


def _claim(session: Session, batch: Batch, claim: _Claim) -> Message:
    enrollment, effect, visit = claim.request.enrollment, claim.request.effect, claim.request.visit
    if claim.row is not None:
        row = claim.row
        row.status, row.claimed_by, row.sending_at, row.attempts = MessageStatus.sending, batch.worker, batch.now, row.attempts + 1
        session.add(row)
        return row
    return open_row(
        session,
        enrollment,
        effect,
        visit,
        language=language_of(batch.definition, claim.request.person.contact),
        marketing=_is_marketing(batch.definition, effect),
        header_id=make_message_id(f"{enrollment.run_key}:{enrollment.id}:{effect.step_id}:{visit}", batch.sender.mail_domain),
        claimed_by=batch.worker,
        now=batch.now,
    )


def _fill(session: Session, batch: Batch, claim: _Claim, row: Message) -> Prepared:
    request = claim.request
    if claim.suppressed:
        settle(session, row, MessageStatus.suppressed, batch.now, detail=claim.suppressed)
        return Prepared(request, Readiness.settled, status=MessageStatus.suppressed, detail=claim.suppressed)
    try:
        outgoing = _render(session, batch, request, row)
    except DistmarkError as error:
        settle(session, row, MessageStatus.failed, batch.now, detail=str(error))
        return Prepared(request, Readiness.settled, status=MessageStatus.failed, detail=str(error))
    except SQLAlchemyError:  # nothing is wrong with this message
        raise
    except Exception as error:  # a fault of ours in one person's message must not hold up the others
        row.status, row.claimed_by, row.attempts = MessageStatus.queued, None, row.attempts - 1
        return Prepared(request, Readiness.broken, error=error)
    return Prepared(request, Readiness.ready, row_id=row.id, outgoing=outgoing)


def _render(session: Session, batch: Batch, request: SendRequest, row: Message) -> OutgoingMessage:
    person, links, definition = request.person, Links(batch.sender.base_url, row.token), batch.definition
    parts = compiled(batch.source, definition, row.name, row.language, row.channel)
    blocks = blocks_of(session, person, definition, row.language)
    rendered = render_for(
        person, request.enrollment.data, parts, blocks, links, marketing=row.marketing, contact_fields=definition.contact_fields
    )
    row.subject, row.links = rendered.subject, dict(rendered.link_targets)
    session.add(row)
    campaign = person.campaign.key if person.campaign else "direct"
    return OutgoingMessage(
        message_id=row.header_id,
        from_name=from_name(person),
        from_address=person.brand.mail_from or batch.sender.mail_from,
        reply_to=person.partner.email,
        to_name=to_name(person),
        to_address=address_of(person.contact, row.channel) or "",
        subject=rendered.subject,
        text=rendered.text,
        html=rendered.html,
        language=row.language,
        unsubscribe_url=links.unsubscribe if row.marketing else "",
        list_id=f"{definition.key}.{person.brand.key}.{batch.sender.mail_domain}" if row.marketing else "",
        feedback_id=f"{campaign}:{person.partner.key}:{definition.kind}:distmark",
        marketing=row.marketing,
        sent_at=batch.now,
    )


# What an error of a channel says about the message; the first that fits.
MEANINGS: tuple[tuple[type[DistmarkError], MessageStatus], ...] = (
    (UncertainDelivery, MessageStatus.uncertain),
    (TemporaryDeliveryError, MessageStatus.deferred),
    (PermanentDeliveryError, MessageStatus.rejected),
    (DistmarkError, MessageStatus.failed),
)


async def hand_over(channels: Mapping[str, Channel], channel: str, outgoing: OutgoingMessage) -> Handed:
    """Give the message to its channel and say what came of it. No database session is open meanwhile."""
    if channel not in channels:
        return Handed(MessageStatus.failed, detail=f'This installation has no channel "{channel}"; it has {", ".join(channels)}.')
    try:
        receipt = await channels[channel].deliver(outgoing)
    except DistmarkError as error:
        return _meaning(error)
    except Exception as error:  # a fault of ours, and nobody knows how far the conversation had come
        log.exception("channel %s raised", channel)
        return Handed(MessageStatus.uncertain, detail=f"The channel failed in a way that it should not: {type(error).__name__}.")
    return Handed(MessageStatus.sent, receipt.code)


def _meaning(error: DistmarkError) -> Handed:
    status = next(status for kind, status in MEANINGS if isinstance(error, kind))
    code = (error.code or "") if isinstance(error, DeliveryError) else ""
    # A server that did not answer at all says nothing about the message, so the try does not count.
    return Handed(status, code, str(error)[:500], counts=status is not MessageStatus.deferred or bool(code))


def claimed_rows(session: Session, row_ids: Sequence[int]) -> list[Message]:
    """Return these messages of the ledger; as long as the list is kept, `record_handed` asks the database for none of them again."""
    return list(session.exec(select(Message).where(col(Message.id).in_(row_ids)))) if row_ids else []


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
