"""The address at which a channel reaches a contact."""

from distmark.contacts.table import Contact


def address_of(contact: Contact, channel: str) -> str | None:
    """Return where `channel` reaches this contact, or None."""
    return {"email": contact.email, "sms": contact.phone}.get(channel)
