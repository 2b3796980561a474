"""Facts of a contact in a journey, built from rows in one way for every caller. Reads no table: the callers fetch what they look at."""

from collections.abc import Mapping
from typing import Any

from distmark.campaigns.attributes import campaign_attributes
from distmark.campaigns.table import Campaign
from distmark.contacts.attributes import attributes_of
from distmark.contacts.fields import typed, unread_dates
from distmark.contacts.table import Contact
from distmark.enrollments.table import Enrollment
from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.model import Facts
from distmark.partners.attributes import brand_attributes, partner_attributes
from distmark.partners.table import Brand, Partner


def build_facts(definition: JourneyDefinition, contact: Contact | None, data: Mapping[str, Any], **known: Any) -> Facts:
    """Return the facts with the contact's attributes and the journey's own data read as the definition declares them.

    `known` holds other fields of `Facts` by name. A field that nobody gave is empty, as is that of a contact that was not fetched.
    """
    attributes = {} if contact is None else attributes_of(contact, definition.contact_fields)
    unread = unread_dates(contact.attributes if contact else {}, definition.contact_fields)
    of_journey = unread_dates(data, definition.journey_fields)
    written = {f"contact.{name}": value for name, value in unread.items()} | {
        f"journey.{name}": value for name, value in of_journey.items()
    }
    return Facts(contact=attributes, journey=typed(data, definition.journey_fields), unread_dates=written, **known)


def enrollment_facts(
    definition: JourneyDefinition,
    row: Enrollment,
    contact: Contact,
    partner: Partner,
    campaign: Campaign | None,
    brand: Brand,
    segments: frozenset[str],
    **known: Any,
) -> Facts:
    """Return the facts of an enrollment: its data, and those of its contact, partner, campaign and brand.

    `known` adds what happened to the contact: `sent`, `events`, `written_at`, `best_hours`, `winners`.
    """
    return build_facts(
        definition,
        contact,
        row.data,
        partner=partner_attributes(partner),
        campaign=campaign_attributes(campaign),
        brand=brand_attributes(brand),
        segments=segments,
        random_key=f"{row.run_key}:{row.contact_id}",
        answers=row.answers,
        entered_at=row.entered_at,
        **known,
    )
