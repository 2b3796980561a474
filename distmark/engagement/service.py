"""Opens, clicks, unsubscribes and events: verify, judge, record once, tell whoever waits."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlmodel import Session, col, select

from distmark.contacts import service as contacts
from distmark.contacts.model import SuppressionReason, SuppressionScope
from distmark.contacts.table import Contact
from distmark.engagement.events import MOST_EVENTS, NewEvent, RecordedEvent, record_events
from distmark.engagement.judge import BURST, Signs, counts_as_human, judge
from distmark.engagement.model import EventKind, Verdict
from distmark.engagement.table import Event
from distmark.enrollments.interest import wake_concerned
from distmark.enrollments.service import address_of, wake_person
from distmark.errors import DistmarkError
from distmark.messages.service import message_by_token
from distmark.messages.table import Message
from distmark.partners.table import Brand

__all__ = [
    "MOST_EVENTS",
    "NewEvent",
    "RecordedEvent",
    "UnsubscribeInfo",
    "click",
    "open_pixel",
    "record_event",
    "record_events",
    "resubscribe",
    "unsubscribe",
    "unsubscribe_info",
]

AGENT_KEPT = 300
REPEAT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class UnsubscribeInfo:
    """What the unsubscribe page shows: whose mail stops, in which language, and whether it has stopped already."""

    brand_name: str
    language: str
    done: bool


def open_pixel(session: Session, token: str, user_agent: str, now: datetime) -> bool:
    """Record that the message's image was fetched; False for an unknown token. An open is an image fetched, nothing more."""
    message = _locked(session, token)
    if message is None:
        return False
    verdict = judge(Signs(user_agent, _since_sent(message, now), is_open=True))
    first = counts_as_human(verdict) and message.opened_at is None
    key = f"opened:{message.id}:{int(now.timestamp()) // REPEAT_SECONDS}:{_short(user_agent)}"
    if _add(session, message, EventKind.opened, key, verdict, now, first=first, user_agent=user_agent):
        _mark_opened(message, verdict, now)
        session.add(message)
        _tell(session, message, "opened", verdict, now)
    return True


def click(session: Session, token: str, link: str, user_agent: str, now: datetime, method: str = "GET") -> str | None:
    """Return the link's stored target, or None for an unknown token or link. A GET is recorded; HEAD and others never are."""
    message = _locked(session, token)
    target = message.links.get(link) if message else None
    if message is None or target is None:
        return None
    if method.upper() != "GET":
        return str(target)
    verdict = judge(Signs(user_agent, _since_sent(message, now), links_in_burst=_burst(session, message, link, now)))
    human = counts_as_human(verdict)
    first = human and link not in message.clicks
    key = f"clicked:{message.id}:{link}:{int(now.timestamp()) // REPEAT_SECONDS}:{_short(user_agent)}"
    if _add(session, message, EventKind.clicked, key, verdict, now, first=first, user_agent=user_agent, link=link):
        if human:
            _imply_open(session, message, now)
            message.clicked_at = message.clicked_at or now
            message.clicks = {link: now.isoformat(), **message.clicks}
        session.add(message)
        _tell(session, message, "clicked", verdict, now)
    return str(target)


def unsubscribe_info(session: Session, token: str) -> UnsubscribeInfo | None:
    """Return what the unsubscribe page shows, changing nothing; None for an unknown token."""
    message = message_by_token(session, token)
    brand = session.get(Brand, message.brand_id) if message else None
    if message is None or brand is None:
        return None
    return UnsubscribeInfo(brand.name, message.language, _is_stopped(session, message))


def unsubscribe(session: Session, token: str, now: datetime) -> UnsubscribeInfo | None:
    """Stop all marketing of this brand to the message's recipient on its channel, at once and for all partners; None for an unknown token.

    Asking again changes nothing. Whatever the person is in ends at its next wake, which is now.
    """
    message = _locked(session, token)
    contact = session.get(Contact, message.contact_id, with_for_update=True) if message else None
    if message is None or contact is None:
        return None
    address = address_of(contact, message.channel)
    if address:
        contacts.suppress(
            session,
            message.brand_id,
            message.channel,
            address,
            SuppressionReason.unsubscribed,
            now,
            scope=SuppressionScope.marketing,
            message_id=message.id,
        )
    contacts.record_consent(session, contact.id or 0, message.channel, given=False, now=now, source="unsubscribe link")
    if _add(
        session, message, EventKind.unsubscribed, f"unsubscribed:{message.id}", Verdict.human, now, first=message.unsubscribed_at is None
    ):
        message.unsubscribed_at = message.unsubscribed_at or now
        session.add(message)
    wake_person(session, message.brand_id, contact.person_key, now)
    return unsubscribe_info(session, token)


def resubscribe(session: Session, token: str, now: datetime) -> UnsubscribeInfo | None:
    """Undo an unsubscribe at the recipient's own wish, given on the page of their own link; None for an unknown token."""
    message = message_by_token(session, token)
    contact = session.get(Contact, message.contact_id) if message else None
    if message is None or contact is None:
        return None
    address = address_of(contact, message.channel)
    if address and _is_stopped(session, message):
        contacts.unsuppress(session, message.brand_id, message.channel, address)
        contacts.record_consent(session, contact.id or 0, message.channel, given=True, now=now, source="resubscribe page")
    return unsubscribe_info(session, token)


def record_event(
    session: Session,
    brand_id: int,
    name: str,
    now: datetime,
    *,
    partner_id: int | None = None,
    contact_id: int | None = None,
    email: str | None = None,
    at: datetime | None = None,
    value: float | None = None,
    data: Mapping[str, Any] | None = None,
    key: str | None = None,
    conversion: bool | None = None,
) -> RecordedEvent:
    """Record something a contact did elsewhere, once per `key`, wake what waits for it, and enter the contact where journeys listen to it.

    It is a conversion when said so, when it carries a value, or when a journey the person is in has it as its goal. Errors: NotFound when
    no such contact is known to the caller, InvalidInput without a name.
    """
    event = NewEvent(name, contact_id, email, at, value, data or {}, key, conversion)
    recorded = record_events(session, brand_id, [event], now, partner_id=partner_id)[0]
    if isinstance(recorded, DistmarkError):
        raise recorded
    return recorded


def _locked(session: Session, token: str) -> Message | None:
    return session.exec(select(Message).where(Message.token == token).with_for_update()).first()


def _since_sent(message: Message, now: datetime) -> Any:
    return now - message.sent_at if message.sent_at else None


def _short(user_agent: str) -> str:
    return sha256(user_agent.encode()).hexdigest()[:12]


def _add(
    session: Session,
    message: Message,
    kind: EventKind,
    natural_key: str,
    verdict: Verdict,
    now: datetime,
    *,
    first: bool,
    user_agent: str = "",
    link: str = "",
    data: dict[str, Any] | None = None,
) -> bool:
    """Add the event unless it is there; the message's row is locked, so nobody else adds it meanwhile."""
    if session.exec(select(Event.id).where(Event.natural_key == natural_key)).first() is not None:
        return False
    session.add(
        Event(
            natural_key=natural_key,
            kind=kind,
            verdict=verdict,
            at=now,
            received_at=now,
            brand_id=message.brand_id,
            partner_id=message.partner_id,
            contact_id=message.contact_id,
            enrollment_id=message.enrollment_id,
            message_id=message.id,
            link=link,
            user_agent=user_agent[:AGENT_KEPT],
            data=data or {},
            first=first,
        )
    )
    return True


def _mark_opened(message: Message, verdict: Verdict, now: datetime) -> None:
    if counts_as_human(verdict):
        message.opened_at = message.opened_at or now
    else:
        message.machine_opened_at = message.machine_opened_at or now


def _imply_open(session: Session, message: Message, now: datetime) -> None:
    # Images are often off; a person who clicked has read it.
    if message.opened_at is None:
        implied = f"opened:{message.id}:implied"
        _add(session, message, EventKind.opened, implied, Verdict.human, now, first=True, data={"implied": True})
        message.opened_at = now


def _burst(session: Session, message: Message, link: str, now: datetime) -> int:
    recent = session.exec(
        select(Event.link).where(Event.message_id == message.id, Event.kind == EventKind.clicked, col(Event.at) >= now - BURST)
    ).all()
    return len({*recent, link})


def _tell(session: Session, message: Message, news: str, verdict: Verdict, now: datetime) -> None:
    if not counts_as_human(verdict):
        return
    contact = session.get(Contact, message.contact_id)
    if contact is not None:
        wake_concerned(session, message.brand_id, contact.person_key, news, now)


def _is_stopped(session: Session, message: Message) -> bool:
    contact = session.get(Contact, message.contact_id)
    address = address_of(contact, message.channel) if contact else None
    return bool(address and contacts.suppressed(session, message.brand_id, message.channel, [address], marketing=True))
