"""Mapping of given fields to the columns of a contact. Pure: returns values, saves nothing."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from distmark.contacts.fields import FIELDS, ContactInput
from distmark.contacts.model import address_hash, address_key
from distmark.contacts.table import Contact
from distmark.partners.table import Partner


def new_contact(partner: Partner, written: ContactInput, now: datetime) -> Contact:
    """Return the row of a new contact of the partner."""
    if partner.id is None:
        raise ValueError(f"Partner {partner.name} has not been stored yet.")
    values: dict[str, Any] = {name: getattr(written, name) for name in FIELDS}
    values["language"] = written.language or partner.language
    values |= keys(partner.brand_id, written.email, written.phone)
    return Contact(
        brand_id=partner.brand_id,
        partner_id=partner.id,
        attributes={name: value for name, value in written.attributes.items() if value not in (None, "")},
        created_at=now,
        updated_at=now,
        **values,
    )


def keys(brand_id: int, email: str | None, phone: str | None) -> dict[str, str | None]:
    """Return the keys of a new contact: the same mail address, else phone number, is the same person in the whole brand."""
    address = email or phone
    return {"email_key": _email_key(email), "person_key": address_hash(brand_id, address) if address else uuid.uuid4().hex}


def _email_key(email: str | None) -> str | None:
    return address_key(email) if email else None


def changes(contact: Contact, written: ContactInput) -> dict[str, Any]:
    """Return the columns of `contact` that `written` changes, with their new values: given fields only, with attributes merged."""
    given = {name: getattr(written, name) for name in FIELDS if name in written.model_fields_set}
    if given.get("language") == "":
        del given["language"]
    if "attributes" in written.model_fields_set:
        given["attributes"] = merged(contact.attributes, written.attributes)
    changed = {name: value for name, value in given.items() if getattr(contact, name) != value}
    if "email" in changed:
        changed["email_key"] = _email_key(changed["email"])
    return changed


def merged(attributes: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes updated by `written`, in which None or "" removes an attribute."""
    return {name: value for name, value in {**attributes, **written}.items() if value not in (None, "")}
