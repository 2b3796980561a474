"""Attributes of contacts, as expressions and templates see them, and the time zones of contacts."""

from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from sqlmodel import Session, col, select

from distmark.contacts.fields import HOME_ZONE, typed
from distmark.contacts.table import Contact
from distmark.journeys.times import zone_for
from distmark.partners.table import Brand, Partner
from distmark.sql import batches, id_of


def attributes_of(contact: Contact, types: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the contact's attributes, as expressions and templates see them: its own, overridden by the built-in ones.

    `types` (a journey's `contact_fields`: text, number, bool, date) gives the types of attributes that were imported as text.
    """
    zone = ZoneInfo(contact.zone) if contact.zone else HOME_ZONE
    return typed(contact.attributes, types or {}, zone) | {
        "first_name": contact.first_name,
        "last_name": contact.last_name,
        "full_name": full_name(contact),
        "email": contact.email,
        "phone": contact.phone,
        "language": contact.language,
        "zone": contact.zone,
        "company": contact.company,
        "city": contact.city,
        "birthday": contact.birthday,
    }


def full_name(contact: Contact) -> str:
    """Return the contact's full name in the order of its language: family name first in Japanese."""
    parts = (contact.last_name, contact.first_name) if contact.language == "ja" else (contact.first_name, contact.last_name)
    return " ".join(part for part in parts if part)


def zones_of(session: Session, contacts: Sequence[Contact]) -> dict[int, ZoneInfo]:
    """Return each contact's time zone, by contact id: its own, else the partner's, else the brand's."""
    partners: dict[int, tuple[str, str]] = {}
    for ids in batches({contact.partner_id for contact in contacts}):
        rows = session.exec(
            select(Partner.id, Partner.zone, Brand.zone).join(Brand, col(Brand.id) == col(Partner.brand_id)).where(col(Partner.id).in_(ids))
        )
        partners.update({partner_id: (own, brand) for partner_id, own, brand in rows if partner_id is not None})
    return {id_of(contact): zone_for(contact.zone, *partners[contact.partner_id]) for contact in contacts}
