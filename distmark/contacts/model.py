"""What a contact is and whether they may be written to. Pure."""

import hashlib
from enum import StrEnum


class ContactKind(StrEnum):
    """What sort of record this is in the partner's book."""

    contact = "contact"
    lead = "lead"
    account = "account"


class SuppressionReason(StrEnum):
    """Why an address is never written to again."""

    unsubscribed = "unsubscribed"
    bounced = "bounced"
    complained = "complained"
    manual = "manual"
    erased = "erased"


class SuppressionScope(StrEnum):
    """How much is stopped: marketing only, or everything."""

    marketing = "marketing"
    all = "all"


def address_key(address: str) -> str:
    """Return the form of a mail address or phone number that is compared: trimmed, lower case."""
    return address.strip().lower()


def address_hash(brand_id: int, address: str) -> str:
    """Return the SHA-256 (hex) that keeps a suppression after the person's data is erased, one per brand and address."""
    return hashlib.sha256(f"{brand_id}:{address_key(address)}".encode()).hexdigest()
