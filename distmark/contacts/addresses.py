"""Addresses in any spelling, as searches, events and calls of the API give them: one reading for all, that of a contact's fields. Pure."""

import re

from distmark.contacts.fields import as_email, as_phone
from distmark.contacts.model import address_key
from distmark.errors import InvalidInput

# Spelled the usual way already, as nearly all are: full checks would cost more than the query.
_USUAL = re.compile(r"[a-z0-9_%+-]+(?:\.[a-z0-9_%+-]+)*@[a-z0-9-]+(?:\.[a-z0-9-]+)+")


def usual_email(written: str) -> str:
    """Return the mail address in the one spelling by which contacts are found. InvalidInput, which does not quote it, when it is none."""
    key = address_key(written)
    if _USUAL.fullmatch(key):
        return key
    try:
        usual = as_email(written)
    except ValueError:  # pydantic's errors are ValueErrors
        usual = None
    if not usual:
        raise InvalidInput("The email is not a mail address; write it like name@example.com.")
    return address_key(usual)


def searched_addresses(text: str) -> tuple[str | None, str | None]:
    """Return the mail address (as in `usual_email`) and the phone number (E.164) that the whole text of a search is; None for neither."""
    if "@" in text or "＠" in text:
        try:
            return usual_email(text), None
        except InvalidInput:
            return None, None
    try:
        return None, as_phone(text)
    except ValueError:
        return None, None
