"""One message on its way out: may it go now, claim it, render it, hand it over, record what came of it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, select

from distmark.campaigns.service import are_words_agreed
from distmark.channels.base import Channel, OutgoingMessage
from distmark.channels.email.mime import make_message_id
from distmark.channels.registry import CHANNELS, address_of
from distmark.clock import Clock
from distmark.compliance.service import require_sendable
from distmark.contacts import consents
from distmark.contacts.model import SuppressionReason, address_hash
from distmark.contacts.table import Contact
from distmark.delivery.priority import Queue, current_send, queue_of
from distmark.delivery.send_policy import SEND, SendDecision, SendFacts, SendVerdict, counted_since, decide_send
from distmark.delivery.send_rate_spacing import RESERVATION_KEPT, RULE, Rate, RateScope, Scoped, ThrottleBatch, rated, reservation_key
from distmark.delivery.send_rates import open_throttle_batch, rates_of, save_throttle_batch
from distmark.enrollments.table import Enrollment
from distmark.errors import DeliveryError, DistmarkError, PermanentDeliveryError, Refused, TemporaryDeliveryError, UncertainDelivery
from distmark.journeys.definition import JourneyDefinition, Kind
from distmark.journeys.model import IfHeld, SendMessage
from distmark.journeys.source import Source
from distmark.journeys.table import JourneyVersion
from distmark.journeys.times import next_allowed, zone_for
from distmark.messages.compose import Links, Person, blocks_of, compiled, from_name, language_of, render_for, to_name
from distmark.messages.model import FINAL, MAX_ATTEMPTS, MessageStatus
from distmark.messages.service import Settled, add_rows, new_row, note_attempts, rows_of_step, settle, settle_all, written_at
from distmark.messages.table import Message
from distmark.personalisation.model import RenderedMessage
from distmark.sql import id_of, on_sqlite

log = logging.getLogger("distmark.delivery")

SAME = ("token", "header_id", "language", "marketing", "name", "channel", "subject", "links")  # on every try of one message
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
    """The result of `prepare` for one request."""

    ready = "ready"  # claimed and rendered: hand it over
    settled = "settled"  # its row is final: go on
    held = "held"  # not now: sleep until `until`
    skipped = "skipped"  # left out by rule: go on
    broken = "broken"  # making it raised `error`; nothing was claimed
    unmade = "unmade"  # it cannot be made for this person, for the reason in `error`; nothing was claimed


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
    attempts: int = 1  # this one counted
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """The answer of a channel. `status` is sent, deferred, rejected, failed or uncertain; `counts` is False when nobody answered at all.

    With `unmade` nothing was handed over, since the message cannot be written or there is no such channel here: a person must look at it.
    """

    status: MessageStatus
    code: str = ""
    detail: str = ""
    counts: bool = True
    unmade: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """The common part of the messages of one wake: version, sender, claiming worker and time."""

    version: JourneyVersion
    definition: JourneyDefinition
    source: Source
    sender: Sender
    worker: str
    now: datetime


def lock_people(session: Session, enrollments: Sequence[Enrollment]) -> None:
    """Lock these people until the unit of work ends, in every partner's book, so that no other process decides about writing to them.

    Two workers that counted a person's messages at once would both find room for one more, and an unsubscribe must be seen here or come
    after the claim. Call it before any other row of theirs is written: everybody locks people first, in one order.
    """
    if not enrollments or on_sqlite(session):  # a writing session on SQLite is alone anyway
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
    context = _batch_context(session, batch, requests)
    judged = [_judge(session, context, request) for request in requests]
    save_throttle_batch(session, requests[0].enrollment.brand_id, context.throttle)
    claimed = iter(_claim_all(session, batch, [each for each in judged if isinstance(each, _Claim)]))
    return [next(claimed) if isinstance(each, _Claim) else each for each in judged]


@dataclass(frozen=True, slots=True)
class _ChannelFacts:
    """The facts of all requests of one channel and kind, fetched together. `written` is by person, and grows as messages are claimed."""

    suppressed: Mapping[str, SuppressionReason]
    consent: Mapping[int, bool | None]
    written: dict[str, list[datetime]]


@dataclass(frozen=True, slots=True)
class _BatchContext:
    """The facts by which a batch is decided."""

    batch: Batch
    approved: bool
    rows: Mapping[tuple[int, str, int], Message]
    channel_facts: Mapping[tuple[str, bool], _ChannelFacts]
    queue: Queue
    throttle: ThrottleBatch
    rates: Mapping[Scoped, Rate]


@dataclass(frozen=True, slots=True)
class _Claim:
    """A request whose message is to be claimed: to be sent, or to be recorded as suppressed for `suppressed`."""

    request: SendRequest
    row: Message | None
    suppressed: str = ""


def _batch_context(session: Session, batch: Batch, requests: Sequence[SendRequest]) -> _BatchContext:
    kinds: dict[tuple[str, bool], list[SendRequest]] = {}
    for request in requests:
        kinds.setdefault((request.effect.channel, _is_marketing(batch.definition, request.effect)), []).append(request)
    brand_id = requests[0].enrollment.brand_id
    queue = queue_of(session, _capped(batch, kinds), batch.now)
    since = counted_since([*batch.definition.send_policy.caps.limits, *queue.caps], batch.now)
    rates = rates_of(session, brand_id)
    under = {rule for request in requests for rule in rated(rates, _scopes(batch, request))} if rates else set()
    return _BatchContext(
        batch=batch,
        approved=_is_sendable(batch),
        rows=_rows(session, requests),
        channel_facts={kind: _channel_facts(session, group, *kind, since) for kind, group in kinds.items()},
        queue=queue,
        throttle=open_throttle_batch(session, brand_id, under, [_reservation_key(request) for request in requests], batch.now),
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
        ids = [id_of(request.enrollment) for request in requests if request.effect.step_id == step_id]
        rows |= {(enrollment_id, step_id, visit): row for (enrollment_id, visit), row in rows_of_step(session, ids, step_id).items()}
    return rows


def _channel_facts(
    session: Session, requests: Sequence[SendRequest], channel: str, marketing: bool, since: datetime | None
) -> _ChannelFacts:
    brand_id = requests[0].enrollment.brand_id
    addresses = [address for request in requests if (address := address_of(request.person.contact, channel))]
    people = [request.enrollment.person_key for request in requests]
    return _ChannelFacts(
        suppressed=consents.suppression_reasons(session, brand_id, channel, addresses, marketing),
        consent=consents.consent_state(session, [request.enrollment.contact_id for request in requests], channel),
        written=written_at(session, brand_id, people, since, channel=channel, marketing=True) if since and marketing else {},
    )


def _is_sendable(batch: Batch) -> bool:
    try:
        require_sendable(batch.version, batch.source)
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
    sending, destination = person.brand.mail_from or batch.sender.mail_from, address_of(person.contact, channel) or ""
    domains = {RateScope.sending_domain: _domain(sending), RateScope.destination_domain: _domain(destination)}
    scopes += [(scope, domain) for scope, domain in domains.items() if scope in CHANNELS[channel].rate_scopes]
    return [each for each in scopes if each[1]]


def _domain(address: str) -> str:
    return address.rpartition("@")[2].strip().lower()


def _judge(session: Session, context: _BatchContext, request: SendRequest) -> Prepared | _Claim:
    row = context.rows.get((id_of(request.enrollment), request.effect.step_id, request.visit))
    if row is not None and row.status in FINAL:
        return Prepared(request, Readiness.settled, status=row.status)
    if row is not None and row.status is MessageStatus.sending:
        # Only one worker walks this enrollment, so whoever wrote this is gone, and nobody knows how far it came.
        ended = "The process that was handing this over ended before it heard the answer."
        settle(session, row, MessageStatus.uncertain, context.batch.now, detail=ended)
        return Prepared(request, Readiness.settled, status=MessageStatus.uncertain)
    decision = _decide(session, context, request, row)
    if decision.outcome is SendVerdict.hold:
        return Prepared(request, Readiness.held, decision.rules, decision.until)
    if decision.outcome is SendVerdict.skip:
        return Prepared(request, Readiness.skipped, decision.rules)
    return _Claim(request, row, decision.reason if decision.outcome is SendVerdict.suppress else "")


def _are_words_agreed(session: Session, batch: Batch, request: SendRequest) -> bool:
    """Return whether the partner agreed to the words of the message's own blocks for this member."""
    person, effect = request.person, request.effect
    if person.member is None or person.member.agreed_words is None:
        return True
    lang = language_of(batch.definition, person.contact)
    try:
        blocks = compiled(batch.source, batch.definition, effect.message, lang, effect.channel).blocks
    except DistmarkError:
        return True  # a message that cannot be made is settled where it is made
    return are_words_agreed(session, person.campaign, id_of(person.partner), person.member, lang, blocks)


def _decide(session: Session, context: _BatchContext, request: SendRequest, row: Message | None) -> SendDecision:
    contact, policy = request.person.contact, context.batch.definition.send_policy
    address = address_of(contact, request.effect.channel)
    if not address:
        return SendDecision(SendVerdict.suppress, ("no_address",))
    zone = zone_for(request.person.zone)
    marketing = _is_marketing(context.batch.definition, request.effect)
    about_channel = context.channel_facts[request.effect.channel, marketing]
    consent, written = about_channel.consent.get(id_of(contact)), about_channel.written.setdefault(request.enrollment.person_key, [])
    reason = SuppressionReason.erased if contact.erased_at else about_channel.suppressed.get(address_hash(contact.brand_id, address))
    me = current_send(request.enrollment, request.effect.step_id, request.visit, policy.priority, context.batch.now)
    facts = SendFacts(
        now=context.batch.now,
        zone=zone,
        transactional=not marketing,
        suppressed=reason is not None,
        suppression=reason or "",
        consented=consent is True or (consent is None and not marketing),
        approved=context.approved,
        words_agreed=_are_words_agreed(session, context.batch, request),
        written_at=written,
        priority=policy.priority,
        rivals=context.queue.before(me, request.enrollment.person_key, request.effect.channel, zone) if marketing else (),
    )
    if_held = IfHeld(str(request.effect.if_held or policy.if_held or IfHeld.hold))

    def open_from(at: datetime) -> tuple[datetime, tuple[str, ...]]:
        return next_allowed(at, zone, policy.quiet_hours, policy.days, policy.holidays)

    def decide(turn_at: datetime | None, rule: str) -> SendDecision:
        return decide_send(replace(facts, turn_at=turn_at, throttle=rule), policy.caps.limits, open_from, if_held)

    decision = decide(None, "")
    if decision.outcome is SendVerdict.send and context.rates:
        decision = _throttled(context, request, row, decide)
    if decision.outcome is SendVerdict.send and marketing:
        written.append(context.batch.now)
    return decision


def _throttled(
    context: _BatchContext, request: SendRequest, row: Message | None, decide: Callable[[datetime, str], SendDecision]
) -> SendDecision:
    """Return whether it is the message's turn, and give it one if not: what may go but for the throttle waits in line."""
    enrollment, now = request.enrollment, context.batch.now
    if row is not None and row.status is MessageStatus.deferred:  # its turn was taken at the first try
        return SEND
    reserved_key = _reservation_key(request)
    given = context.throttle.turns.get(reserved_key)
    if given is not None and given > now:  # something woke it before its turn, which it keeps
        return decide(given, next((str(rule) for rule in enrollment.rules if str(rule).startswith(RULE)), RULE))
    if given is not None:
        context.throttle.used.add(reserved_key)
        if now <= given + RESERVATION_KEPT:
            return SEND
    rates = rated(context.rates, _scopes(context.batch, request))
    turn_at, rule = context.throttle.next_slot(rates)
    decision = decide(turn_at, rule)
    # A turn at night is not given: whoever would have it lines up again in the morning, when nobody is ahead who came later.
    if decision.outcome is SendVerdict.hold and decision.until == turn_at:
        context.throttle.given[reserved_key] = turn_at
    if decision.outcome is SendVerdict.send or reserved_key in context.throttle.given:
        context.throttle.reserve(rates)
    return decision


def _reservation_key(request: SendRequest) -> str:
    return reservation_key(id_of(request.enrollment), request.effect.step_id, request.visit)


def _claim_all(session: Session, batch: Batch, claims: Sequence[_Claim]) -> list[Prepared]:
    """Write the intent of each message, rendered, and return them ready to be handed over; those that cannot be made are settled."""
    drafts = [_drafted(session, batch, claim) for claim in claims]
    fresh = [draft for draft in drafts if draft.error is None and draft.known is None]
    ids = iter(add_rows(session, [draft.row for draft in fresh]))
    prepared = [_prepared(draft, draft.known or (None if draft.error else next(ids))) for draft in drafts]
    _rewrite(session, [draft for draft in drafts if draft.known is not None])
    ended = [_as_settled(each) for each in prepared if each.readiness is Readiness.settled]
    note_attempts(session, ended, batch.now)
    return prepared


@dataclass(frozen=True, slots=True)
class _Draft:
    """A message claimed and made: its ledger row, and what goes out. `known` is the id of a row that is tried again."""

    claim: _Claim
    row: dict[str, Any]
    known: int | None = None
    outgoing: OutgoingMessage | None = None
    error: Exception | None = None


def _drafted(session: Session, batch: Batch, claim: _Claim) -> _Draft:
    row = _row(batch, claim)
    known = claim.row.id if claim.row is not None else None
    if claim.suppressed:
        return _Draft(claim, row | _over(MessageStatus.suppressed, claim.suppressed), known)
    try:
        outgoing, rendered = _render(session, batch, claim.request, row)
    except SQLAlchemyError:  # nothing is wrong with this message
        raise
    except Exception as error:  # a fault of ours in one person's message must not hold up the others
        return _Draft(claim, row, known, error=error)
    return _Draft(claim, row | {"subject": rendered.subject, "links": dict(rendered.link_targets)}, known, outgoing)


def _row(batch: Batch, claim: _Claim) -> dict[str, Any]:
    enrollment, effect, visit, there = claim.request.enrollment, claim.request.effect, claim.request.visit, claim.row
    row = new_row(
        enrollment,
        effect,
        visit,
        language=language_of(batch.definition, claim.request.person.contact),
        marketing=_is_marketing(batch.definition, effect),
        header_id=make_message_id(f"{enrollment.run_key}:{enrollment.id}:{effect.step_id}:{visit}", batch.sender.mail_domain),
        claimed_by=batch.worker,
        now=batch.now,
    )
    if there is None:
        return row
    # What a try before this one put into links and headers stays.
    same = {name: getattr(there, name) for name in SAME}
    return row | same | {"attempts": there.attempts + 1}


def _over(status: MessageStatus, detail: str) -> dict[str, Any]:
    return {"status": status, "detail": detail[:500], "claimed_by": None}


def _rewrite(session: Session, drafts: Sequence[_Draft]) -> None:
    """Write what is tried again onto its rows; one that could not be made is left as it was."""
    for draft in drafts:
        if draft.error is None and draft.claim.row is not None:
            for name in ("status", "claimed_by", "sending_at", "attempts", "subject", "links", "detail"):
                setattr(draft.claim.row, name, draft.row[name])
            session.add(draft.claim.row)


def _prepared(draft: _Draft, row_id: int | None) -> Prepared:
    request, status = draft.claim.request, draft.row["status"]
    if draft.error is not None:
        readiness = Readiness.unmade if isinstance(draft.error, DistmarkError) else Readiness.broken
        return Prepared(request, readiness, error=draft.error)
    if status is not MessageStatus.sending:
        return Prepared(request, Readiness.settled, status=status, detail=draft.row["detail"], row_id=row_id)
    return Prepared(request, Readiness.ready, row_id=row_id, outgoing=draft.outgoing, attempts=draft.row["attempts"])


def _as_settled(prepared: Prepared) -> Settled:
    return Settled(prepared.row_id or 0, prepared.status or MessageStatus.failed, detail=prepared.detail)


def _render(session: Session, batch: Batch, request: SendRequest, row: Mapping[str, Any]) -> tuple[OutgoingMessage, RenderedMessage]:
    person, definition, language, links = request.person, batch.definition, row["language"], Links(batch.sender.base_url, row["token"])
    parts = compiled(batch.source, definition, row["name"], language, row["channel"])
    blocks = blocks_of(session, person, definition, language)
    rendered = render_for(
        person, request.enrollment.data, parts, blocks, links, marketing=row["marketing"], contact_fields=definition.contact_fields
    )
    return _outgoing(batch, request, row, rendered, links), rendered


def _outgoing(batch: Batch, request: SendRequest, row: Mapping[str, Any], rendered: RenderedMessage, links: Links) -> OutgoingMessage:
    person, definition = request.person, batch.definition
    campaign = person.campaign.key if person.campaign else "direct"
    return OutgoingMessage(
        message_id=row["header_id"],
        from_name=from_name(person, row["language"]),
        from_address=person.brand.mail_from or batch.sender.mail_from,
        reply_to=person.partner.email,
        to_name=to_name(person),
        to_address=address_of(person.contact, row["channel"]) or "",
        subject=rendered.subject,
        text=rendered.text,
        html=rendered.html,
        language=row["language"],
        unsubscribe_url=links.unsubscribe if row["marketing"] else "",
        list_id=f"{definition.key}.{person.brand.key}.{batch.sender.mail_domain}" if row["marketing"] else "",
        feedback_id=f"{campaign}:{person.partner.key}:{definition.kind}:distmark",
        marketing=row["marketing"],
        sent_at=batch.now,
    )


# What an error of a channel says about the message; the first that fits.
MEANINGS: tuple[tuple[type[DistmarkError], MessageStatus], ...] = (
    (UncertainDelivery, MessageStatus.uncertain),
    (TemporaryDeliveryError, MessageStatus.deferred),
    (PermanentDeliveryError, MessageStatus.rejected),
    (DistmarkError, MessageStatus.failed),
)


async def deliver(channels: Mapping[str, Channel], channel: str, outgoing: OutgoingMessage) -> DeliveryResult:
    """Give the message to its channel and say what came of it. No database session is open meanwhile."""
    if channel not in channels:
        lacks = f'This installation has no channel "{channel}"; it has {", ".join(channels)}.'
        return DeliveryResult(MessageStatus.deferred, detail=lacks, unmade=True)
    try:
        receipt = await channels[channel].deliver(outgoing)
    except DistmarkError as error:
        return _meaning(error)
    except Exception as error:  # a fault of ours, and nobody knows how far the conversation had come
        log.exception("channel %s raised", channel)
        return DeliveryResult(MessageStatus.uncertain, detail=f"The channel failed in a way that it should not: {type(error).__name__}.")
    return DeliveryResult(MessageStatus.sent, receipt.code)


def _meaning(error: DistmarkError) -> DeliveryResult:
    status = next(status for kind, status in MEANINGS if isinstance(error, kind))
    if status is MessageStatus.failed:  # refused before anything left this machine
        return DeliveryResult(MessageStatus.deferred, detail=str(error)[:500], unmade=True)
    code = (error.code or "") if isinstance(error, DeliveryError) else ""
    # A server that did not answer at all says nothing about the message, so the try does not count.
    return DeliveryResult(status, code, str(error)[:500], counts=status is not MessageStatus.deferred or bool(code))


def record_results(
    session: Session, results: Sequence[tuple[Prepared, DeliveryResult]], clock: Clock
) -> list[tuple[MessageStatus, datetime | None]]:
    """Record the answers in the ledger; return for each its status, and when to try again if it is deferred.

    A refusal that counts is tried at most `MAX_ATTEMPTS` times; a server that does not answer at all is waited for without end, since
    nothing is wrong with the message.
    """
    settled = [_settled(prepared, answer, clock) for prepared, answer in results]
    settle_all(session, settled, clock.now())
    return [(each.status, each.next_try_at) for each in settled]


def _settled(prepared: Prepared, result: DeliveryResult, clock: Clock) -> Settled:
    if prepared.row_id is None:
        raise Refused("A message was handed over without a row in the ledger.")
    status, attempts = result.status, prepared.attempts
    if result.unmade:
        return Settled(prepared.row_id, status, result.code, result.detail, attempts, None)
    if status is MessageStatus.deferred and result.counts and attempts >= MAX_ATTEMPTS:
        status = MessageStatus.failed
    retry_at = clock.in_real(BACKOFF[min(attempts, len(BACKOFF)) - 1]) if status is MessageStatus.deferred else None
    if status is MessageStatus.deferred and not result.counts:
        attempts = max(attempts - 1, 1)
    return Settled(prepared.row_id, status, result.code, result.detail, attempts, retry_at)
