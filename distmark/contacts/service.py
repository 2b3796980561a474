"""Contacts of a partner's book: creating, changing and finding them. Consents, imports and attributes have their own modules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_
from sqlmodel import Session, col, select

from distmark.contacts.addresses import searched_addresses
from distmark.contacts.fields import ContactInput, read_contact
from distmark.contacts.mapping import changes, new_contact
from distmark.contacts.people import addresses_of, follow_addresses, identify, keep_addresses
from distmark.contacts.search import search_words
from distmark.contacts.table import Contact
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import get_partner, require
from distmark.partners.table import Partner
from distmark.segments.membership import update_memberships
from distmark.sql import id_of

MOST_ROWS = 500
LONGEST_SEARCH, MOST_WORDS = 200, 10  # characters and words of a search that count; every word is looked for in every text
FEWEST_PHONE_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Page:
    """A page of contacts, newest first; `next_after` is the `after_id` of the next page (None: the last), `total` counts all matches."""

    rows: list[Contact]
    next_after: int | None
    total: int


def create_contact(session: Session, viewer: Viewer, written: ContactInput, now: datetime, partner_id: int | None = None) -> Contact:
    """Create a contact in the book of the viewer's partner (people of the brand name the partner) and return the row.

    InvalidInput without a mail address and a phone number; Refused when the mail address is in the book already.
    """
    require(viewer, Permission.write_contacts)
    partner = _locked_partner(session, viewer, partner_id or viewer.partner_id)
    contact = new_contact(partner, written, now)
    _check_addresses(session, contact, {"email": contact.email, "email_key": contact.email_key})
    known = identify(session, [contact])
    session.add(contact)
    session.flush()
    keep_addresses(session, known, now)
    update_memberships(session, [contact], now)
    return contact


def update_contact(session: Session, viewer: Viewer, contact_id: int, written: ContactInput, now: datetime) -> Contact:
    """Change the given fields of the contact and return the row; attributes are merged, and one of None is removed.

    Consents stay as they are, and it stays the same person (`people.follow_addresses`). Errors as in `create_contact`, and NotFound.
    """
    require(viewer, Permission.write_contacts)
    contact = get_contact(session, viewer, contact_id)
    _locked_partner(session, viewer, contact.partner_id)
    return _changed(session, contact, written, now)


def change_contact(session: Session, contact_id: int, values: Mapping[str, Any], now: datetime) -> Contact:
    """Set these fields and attributes on behalf of a journey and return the row; None clears a field. FieldRefused for a bad value."""
    contact = session.get_one(Contact, contact_id)
    own = {name: value for name, value in values.items() if name in ContactInput.model_fields and name != "attributes"}
    attributes = {name: value for name, value in values.items() if name not in own}
    return _changed(session, contact, read_contact(own | ({"attributes": attributes} if attributes else {})), now)


def _changed(session: Session, contact: Contact, written: ContactInput, now: datetime) -> Contact:
    changed = changes(contact, written)
    if not changed:
        return contact
    _check_addresses(session, contact, changed)
    before = addresses_of(contact)
    for name, value in {**changed, "updated_at": now}.items():
        setattr(contact, name, value)
    session.add(contact)
    session.flush()
    follow_addresses(session, [(contact, before)], now)
    update_memberships(session, [contact], now)
    return contact


def _locked_partner(session: Session, viewer: Viewer, partner_id: int | None) -> Partner:
    if partner_id is None:
        raise InvalidInput("The contact has no partner; say in whose book to write it.")
    partner = get_partner(session, viewer, partner_id)
    # Locked, so that two transactions cannot add the same address to a book; messages of the partner do not wait for this lock.
    session.refresh(partner, with_for_update={"key_share": True})
    return partner


def _check_addresses(session: Session, contact: Contact, changed: Mapping[str, Any]) -> None:
    if not changed.get("email", contact.email) and not changed.get("phone", contact.phone):
        raise InvalidInput("The contact has neither a mail address nor a phone number; give one of them.")
    key = changed.get("email_key")
    if key is None:
        return
    same = select(Contact.id).where(Contact.partner_id == contact.partner_id, Contact.email_key == key)
    if session.exec(same if contact.id is None else same.where(Contact.id != contact.id)).first() is not None:
        raise Refused(f"The mail address {changed['email']} is already in this book; change the contact that has it.")


def get_contact(session: Session, viewer: Viewer, contact_id: int) -> Contact:
    """Return the contact; NotFound when it is not among the viewer's, or was erased."""
    own = visible(select(Contact), Contact, viewer).where(Contact.id == contact_id, col(Contact.erased_at).is_(None))
    contact = session.exec(own).first()
    if contact is None:
        raise NotFound(f"There is no contact {contact_id} among yours; search again and pick from the list.")
    return contact


def contacts_by_id(session: Session, viewer: Viewer, ids: Sequence[int]) -> dict[int, Contact]:
    """Return those of these contacts that the viewer may see, by id; none without the permission to see contacts."""
    if not viewer.may(Permission.see_contacts):
        return {}
    rows = session.exec(visible(select(Contact), Contact, viewer).where(col(Contact.id).in_(list(ids))))
    return {id_of(row): row for row in rows}


def find_contacts(
    session: Session,
    viewer: Viewer,
    text: str = "",
    after_id: int | None = None,
    limit: int = 50,
    only: Sequence[ColumnElement[bool]] = (),
) -> Page:
    """Return the viewer's contacts, newest first, that contain every word of `text` in a name, mail address, phone, company or city;
    of a long text its first words count.

    A name is found by its reading, too, and by other spellings: 高橋 finds 髙橋, サトウ finds さとう (`distmark.contacts.search`).
    `after_id` is the `next_after` of the page before. `only` are further conditions of the rooms above, such as `campaigns.is_member`.
    """
    require(viewer, Permission.see_contacts)
    conditions: list[ColumnElement[bool]] = [col(Contact.erased_at).is_(None), *mentions(text), *only]
    total = session.exec(visible(select(func.count(col(Contact.id))), Contact, viewer).where(*conditions)).one()
    statement = visible(select(Contact), Contact, viewer).where(*conditions)
    if after_id is not None:
        statement = statement.where(col(Contact.id) < after_id)
    size = max(1, min(limit, MOST_ROWS))
    rows = list(session.exec(statement.order_by(col(Contact.id).desc()).limit(size + 1)))
    return Page(rows[:size], rows[size - 1].id if len(rows) > size else None, total)


def mentions(text: str) -> list[ColumnElement[bool]]:
    """Return the conditions that a contact contains every word of `text`, as in `find_contacts`; none for an empty text.

    A text that is a mail address or a phone number, in any spelling, finds the contacts that have it, too.
    """
    words = [_mentions(word) for word in search_words(text[:LONGEST_SEARCH])[:MOST_WORDS]]
    email, phone = searched_addresses(text[:LONGEST_SEARCH])
    if email is None and phone is None:
        return words
    has_it = col(Contact.email_key) == email if email else col(Contact.phone) == phone
    return [or_(and_(*words), has_it)] if words else [has_it]


def _mentions(word: str) -> ColumnElement[bool]:
    like = f"%{word.replace('!', '!!').replace('%', '!%').replace('_', '!_')}%"
    found: list[ColumnElement[bool]] = [col(Contact.search_text).like(like, escape="!")]
    digits = "".join(letter for letter in word if letter.isdigit()).lstrip("0")
    if len(digits) >= FEWEST_PHONE_DIGITS and not any(letter.isalpha() for letter in word):
        found.append(col(Contact.phone).contains(digits))
    return or_(*found)
