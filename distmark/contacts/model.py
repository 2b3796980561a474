"""Kinds of contacts, reasons and scopes of suppressions, and the hash of an address. Pure."""

import hashlib
from enum import StrEnum


class ContactKind(StrEnum):
    """The kind of a record in the partner's book."""

    contact = "contact"
    lead = "lead"
    account = "account"


class SuppressionReason(StrEnum):
    """The reason why an address is suppressed."""

    unsubscribed = "unsubscribed"
    bounced = "bounced"
    complained = "complained"
    manual = "manual"
    erased = "erased"


class SuppressionScope(StrEnum):
    """The messages that a suppression stops: marketing only, or all."""

    marketing = "marketing"
    all = "all"


def address_key(address: str) -> str:
    """Return the address (mail or phone) in the form in which addresses are compared: trimmed, lower case."""
    return address.strip().lower()


def address_hash(brand_id: int, address: str) -> str:
    """Return the SHA-256 (hex) of brand and address, by which a suppression outlives the erasure of the person's data."""
    return hashlib.sha256(f"{brand_id}:{address_key(address)}".encode()).hexdigest()
