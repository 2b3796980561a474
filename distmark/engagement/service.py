"""Opens, clicks, unsubscribes and events: verify, judge, record once, wake waiting enrollments."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import Session, select

from distmark.channels.registry import address_of
from distmark.contacts import consents
from distmark.contacts.model import SuppressionReason
from distmark.contacts.table import Contact
from distmark.engagement.events import MOST_EVENTS, NewEvent, RecordedEvent, record_events
from distmark.engagement.model import EventKind
from distmark.engagement.opens_clicks import Reading, record_readings
from distmark.engagement.table import Event
from distmark.enrollments.service import wake_person
from distmark.errors import DistmarkError
from distmark.messages.service import message_by_token
from distmark.messages.table import Message
from distmark.partners.table import Brand
from distmark.sql import id_of

__all__ = [
    "MOST_EVENTS",
    "NewEvent",
    "Reading",
    "RecordedEvent",
    "UnsubscribeInfo",
    "click",
    "open_pixel",
    "record_event",
    "record_events",
    "record_readings",
    "resubscribe",
    "unsubscribe",
    "unsubscribe_info",
]


@dataclass(frozen=True, slots=True)
class UnsubscribeInfo:
    """The content of the unsubscribe page: the brand, the language, and whether its mail has stopped already."""

    brand_name: str
    language: str
    done: bool


def open_pixel(session: Session, token: str, user_agent: str, now: datetime) -> bool:
    """Record that the message's image was fetched; False for an unknown token. An open is an image fetched, nothing more."""
    if message_by_token(session, token) is None:
        return False
    record_readings(session, [Reading(token, now, user_agent)])
    return True


def click(session: Session, token: str, link: str, user_agent: str, now: datetime, method: str = "GET") -> str | None:
    """Return the link's stored target, or None for an unknown token or link. A GET is recorded; HEAD and others never are."""
    message = message_by_token(session, token)
    target = message.links.get(link) if message else None
    if target is None:
        return None
    if method.upper() == "GET":
        record_readings(session, [Reading(token, now, user_agent, link)])
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

    Asking again changes nothing. The person's enrollments end at their next wake, which is now.
    """
    message = _locked(session, token)
    contact = session.get(Contact, message.contact_id, with_for_update={"key_share": True}) if message else None
    if message is None or contact is None:
        return None
    consents.suppress_contact(session, contact, message.channel, SuppressionReason.unsubscribed, now, message.id)
    consents.record_consent(session, id_of(contact), message.channel, given=False, now=now, source="unsubscribe link")
    if _is_new(session, f"unsubscribed:{message.id}"):
        session.add(_unsubscribed(message, now))
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
        consents.unsuppress(session, message.brand_id, message.channel, address)
        consents.record_consent(session, id_of(contact), message.channel, given=True, now=now, source="resubscribe page")
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
    no such contact is known to the caller, InvalidInput without a name, with an impossible time or too much data, Refused when the key is
    that of a different event.
    """
    event = NewEvent(name, contact_id, email, at, value, data or {}, key, conversion)
    recorded = record_events(session, brand_id, [event], now, partner_id=partner_id)[0]
    if isinstance(recorded, DistmarkError):
        raise recorded
    return recorded


def _locked(session: Session, token: str) -> Message | None:
    return session.exec(select(Message).where(Message.token == token).with_for_update()).first()


def _unsubscribed(message: Message, now: datetime) -> Event:
    return Event(
        natural_key=f"unsubscribed:{message.id}",
        kind=EventKind.unsubscribed,
        at=now,
        received_at=now,
        brand_id=message.brand_id,
        partner_id=message.partner_id,
        contact_id=message.contact_id,
        enrollment_id=message.enrollment_id,
        message_id=message.id,
        first=message.unsubscribed_at is None,
    )


def _is_new(session: Session, natural_key: str) -> bool:
    return session.exec(select(Event.id).where(Event.natural_key == natural_key)).first() is None


def _is_stopped(session: Session, message: Message) -> bool:
    contact = session.get(Contact, message.contact_id)
    address = address_of(contact, message.channel) if contact else None
    return bool(address and consents.suppressed(session, message.brand_id, message.channel, [address], marketing=True))
