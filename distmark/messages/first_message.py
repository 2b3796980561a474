"""The time of a contact's first message, as pages announce it before the contact is enrolled."""

from datetime import datetime
from zoneinfo import ZoneInfo

from sqlmodel import Session

from distmark.contacts.attributes import attributes_of
from distmark.contacts.table import Contact
from distmark.journeys.first_send import facts_for, first_message_at
from distmark.journeys.program import Program
from distmark.messages.compose import brand_attributes, partner_attributes
from distmark.partners.table import Brand, Partner


def first_message_time(session: Session, program: Program, contact: Contact, now: datetime) -> tuple[datetime, ZoneInfo] | None:
    """Return when this contact's first message would go out (UTC) and the zone that decides it; None when an event must come first."""
    partner, brand = session.get_one(Partner, contact.partner_id), session.get_one(Brand, contact.brand_id)
    facts = facts_for(
        attributes_of(contact),
        {**partner_attributes(partner), "zone": partner.zone, "language": partner.language},
        {**brand_attributes(brand), "zone": brand.zone},
    )
    return first_message_at(program, facts, now)
