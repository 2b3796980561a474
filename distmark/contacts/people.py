"""Persons of a brand: one person may be a contact of several partners, and stays the same person when an address is corrected.

A contact's person is found by its mail address, else by its phone number. The addresses that a contact has had are kept as hashes, for
contacts whose addresses changed only: for all others the hash of the present address is the person's key.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, exists, func, update
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import Session, SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from distmark.channels.registry import CHANNELS, address_of
from distmark.contacts.addresses import usual_email
from distmark.contacts.consents import copy_refusals, hash_of
from distmark.contacts.model import address_hash
from distmark.contacts.table import HOLDS_PERSON, Contact, ContactAddress
from distmark.partners.table import Brand, Partner
from distmark.sql import among, batches, id_of, insert_into


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of a contact at one time: by channel, and the hash of the one by which its person is found; None without any."""

    by_channel: Mapping[str, str]
    identity: str | None
    by_mail: bool = True


def addresses_of(contact: Contact) -> Addresses:
    """Return the present addresses of the contact."""
    by_channel = {channel: address for channel in CHANNELS if (address := address_of(contact, channel))}
    known_by = contact.email or contact.phone
    return Addresses(by_channel, address_hash(contact.brand_id, known_by) if known_by else None, bool(contact.email))


# --- new contacts -----------------------------------------------------------------------------------------------------------------------


def identify(session: Session, contacts: Sequence[Contact]) -> list[Contact]:
    """Set the person of each new contact, all of one brand, and return those whose addresses are to be kept once they are stored.

    A mail address that another contact has now is the same person's. One that a contact had earlier, and a phone number, is the same
    person's unless the names differ: then it has passed to another person, or a family shares it.
    """
    named = [(hashed, contact) for contact in contacts if (hashed := addresses_of(contact).identity)]
    users = _contacts_by_address(session, contacts[0].brand_id, {hashed for hashed, _contact in named}) if named else {}
    for hashed, contact in named:
        contact.person_key = _person_of_new(contact, hashed, users.get(hashed, []))
    return [contact for hashed, contact in named if contact.person_key != hashed]


def _person_of_new(contact: Contact, hashed: str, users: Sequence[Contact]) -> str:
    if not users:
        return hashed
    present = [each for each in users if addresses_of(each).identity == hashed]
    named = [each for each in users if _may_be_one(each, contact)]
    same = named if not contact.email else present or named  # families share a phone number
    if same:
        return same[0].person_key
    left = bool(contact.email) or any(each.person_key == hashed for each in users)
    return uuid.uuid4().hex if left else hashed


def _may_be_one(one: Contact, other: Contact) -> bool:
    names = [(each.last_name, each.first_name) for each in (one, other)]
    return names[0] == names[1] or ("", "") in names


def keep_addresses(session: Session, contacts: Sequence[Contact], now: datetime) -> None:
    """Keep the present addresses of these stored contacts, and take each identity from persons that had it before."""
    for contact in contacts:
        _claim(session, contact)
    _store(session, [(contact, addresses_of(contact)) for contact in contacts], now)


def _contacts_by_address(session: Session, brand_id: int, hashes: Collection[str]) -> dict[str, list[Contact]]:
    """Return by hash the contacts that are known to have or have had the address, the newest first; without those that never changed."""
    found: dict[str, list[Contact]] = {}
    for part in batches(hashes):
        rows = session.exec(
            select(ContactAddress.address_hash, Contact)
            .join(Contact, col(Contact.id) == col(ContactAddress.contact_id))
            .where(ContactAddress.brand_id == brand_id, col(ContactAddress.identifies).is_(True))
            .where(among(session, col(ContactAddress.address_hash), part), col(Contact.erased_at).is_(None))
            .order_by(col(Contact.id).desc())
        )
        for hashed, contact in rows:
            found.setdefault(hashed, []).append(contact)
    return found


# --- changed addresses ------------------------------------------------------------------------------------------------------------------


def follow_addresses(session: Session, changed: Sequence[tuple[Contact, Addresses]], now: datetime) -> None:
    """Keep the addresses of contacts that just changed, each given with its addresses before: they stay the persons that they were.

    A refusal of an earlier address holds for the new one, too. Two persons become one when a contact gets an address that a contact of the
    other has now.
    """
    moved = [(contact, before) for contact, before in changed if addresses_of(contact) != before]
    if not moved:
        return
    session.flush()
    _store(session, moved, now)
    for contact, before in moved:
        if addresses_of(contact).identity not in (None, before.identity):
            _follow_identity(session, contact, before)
    _store(session, [(contact, addresses_of(contact)) for contact, _before in moved], now)
    for contact, before in moved:
        for channel, address in addresses_of(contact).by_channel.items():
            copy_refusals(session, contact.brand_id, channel, before.by_channel.get(channel), address)


def _follow_identity(session: Session, contact: Contact, before: Addresses) -> None:
    """Join the person of the contact's new identity, if there is one; else that address becomes this person's."""
    hashed = addresses_of(contact).identity or ""
    # Two books that correct to the same address at once must not both find nobody with it.
    session.exec(select(Brand.id).where(Brand.id == contact.brand_id).with_for_update(key_share=True)).one()
    known = _contacts_by_address(session, contact.brand_id, [hashed]).get(hashed, [])
    unchanged = select(Contact).where(Contact.brand_id == contact.brand_id, Contact.person_key == hashed, col(Contact.erased_at).is_(None))
    users = [each for each in (*known, *session.exec(unchanged)) if each is not contact and addresses_of(each).identity == hashed]
    if not contact.email:  # families share a phone number
        users = [each for each in users if _may_be_one(each, contact)]
    other = next((each.person_key for each in users if each.person_key != contact.person_key), None)
    if not before.by_mail and _shares_phone(session, contact):
        _rekey(session, contact, other or (uuid.uuid4().hex if known else hashed), alone=True)
    elif other is not None:
        _rekey(session, contact, other)
    if not users:
        _claim(session, contact)


def _shares_phone(session: Session, contact: Contact) -> bool:
    """Return whether the contact's person has contacts of another name: families share a phone number, until each gives an address."""
    others = select(Contact).where(
        Contact.brand_id == contact.brand_id, Contact.person_key == contact.person_key, col(Contact.erased_at).is_(None)
    )
    return any(not _may_be_one(each, contact) for each in session.exec(others))


def _claim(session: Session, contact: Contact) -> None:
    """Take the contact's identity from contacts of other persons, which have another address now."""
    hashed = addresses_of(contact).identity
    if hashed is None:
        return
    same = select(Contact.id).where(Contact.brand_id == contact.brand_id, Contact.person_key == contact.person_key)
    session.execute(
        delete(ContactAddress).where(
            col(ContactAddress.brand_id) == contact.brand_id,
            col(ContactAddress.address_hash) == hashed,
            col(ContactAddress.identifies).is_(True),
            col(ContactAddress.contact_id).not_in(same),
        )
    )


def _rekey(session: Session, contact: Contact, person_key: str, *, alone: bool = False) -> None:
    """Make the contact's person, or (`alone`) the contact, the person of this key, in every column of every room that holds persons.

    Of a unique column the present value stays where the new one is taken: both belong to one person then.
    """
    before = contact.person_key
    of_person = select(Contact.id).where(Contact.brand_id == contact.brand_id, Contact.person_key == before)
    ids = [id_of(contact)] if alone else [row_id for row_id in session.exec(of_person.order_by(col(Contact.id))) if row_id is not None]
    for table in SQLModel.metadata.sorted_tables:
        holding = [each for each in table.c if each.info.get(HOLDS_PERSON)]
        if not holding:
            continue
        theirs = among(session, table.c.id if table.name == Contact.__tablename__ else table.c.contact_id, ids)
        session.execute(select(table.c.id).where(theirs).order_by(table.c.id).with_for_update())  # in the order in which everybody locks
        for held in holding:
            new, other = func.replace(held, before, person_key), table.alias()
            free = [~exists().where(other.c[held.name] == new)] if held.unique else []
            session.execute(update(table).where(theirs, *free).values({held.name: new}))
    for row in session.identity_map.values():
        owner = row.id if isinstance(row, Contact) else getattr(row, "contact_id", None)
        if owner in ids and getattr(row, "person_key", None) == before:
            set_committed_value(row, "person_key", person_key)


def _store(session: Session, kept: Iterable[tuple[Contact, Addresses]], now: datetime) -> None:
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for contact, addresses in kept:
        shared = {"brand_id": contact.brand_id, "contact_id": id_of(contact), "at": now}
        hashes = {hash_of(contact.brand_id, channel, address) for channel, address in addresses.by_channel.items()}
        for hashed in hashes | ({addresses.identity} if addresses.identity else set()):
            identifies = hashed == addresses.identity or rows.get((id_of(contact), hashed), {}).get("identifies", False)
            rows[id_of(contact), hashed] = {**shared, "address_hash": hashed, "identifies": identifies}
    for identifies in (True, False):
        chosen = [row for row in rows.values() if row["identifies"] is identifies]
        if chosen:
            statement, keys = insert_into(session, ContactAddress), ["contact_id", "address_hash"]
            once = statement.on_conflict_do_update(index_elements=keys, set_={"identifies": True})
            session.execute(once if identifies else statement.on_conflict_do_nothing(index_elements=keys), chosen)


# --- finding ----------------------------------------------------------------------------------------------------------------------------


def contacts_by_email(
    session: Session, contacts: SelectOfScalar[Contact], brand_id: int, emails: Iterable[str], partner_id: int | None
) -> dict[str, list[Contact]]:
    """Return by mail address, as it is given, those of `contacts` that are the person with it, now or earlier, the newest first.

    An address may be spelled in any way. InvalidInput when one is no mail address: that is not the same as an unknown one.
    For a partner (`partner_id`) only addresses that its own contacts have or had count; those written by another partner stay unknown.
    """
    spellings: dict[str, list[str]] = {}
    for email in dict.fromkeys(emails):
        spellings.setdefault(usual_email(email), []).append(email)
    keys = {address_hash(brand_id, usual): usual for usual in spellings}
    if not keys:
        return {}
    known = (
        select(ContactAddress.address_hash, Contact.person_key)
        .join(Contact, col(Contact.id) == col(ContactAddress.contact_id))
        .where(ContactAddress.brand_id == brand_id, col(ContactAddress.identifies).is_(True))
        .where(among(session, col(ContactAddress.address_hash), keys))
    )
    if partner_id is not None:
        known = known.where(Contact.partner_id == partner_id)
    persons = dict(session.exec(known).all())
    hashes_of: dict[str, list[str]] = {}
    for hashed in keys:
        hashes_of.setdefault(persons.get(hashed, hashed), []).append(hashed)
    found: dict[str, list[Contact]] = {}
    for contact in session.exec(contacts.where(among(session, col(Contact.person_key), hashes_of)).order_by(col(Contact.id).desc())):
        for hashed in hashes_of[contact.person_key]:
            if hashed in persons or contact.email_key == keys[hashed]:
                for email in spellings[keys[hashed]]:
                    found.setdefault(email, []).append(contact)
    return found


def corrected_contacts(session: Session, partner_id: int, addresses: Iterable[str]) -> dict[str, Contact]:
    """Return by address the partner's contact that had it before its address was corrected; an address of several contacts is absent."""
    partner = session.get_one(Partner, partner_id)
    keys = {address_hash(partner.brand_id, address): address for address in addresses}
    users = _contacts_by_address(session, partner.brand_id, keys) if keys else {}
    own = {hashed: [each for each in found if each.partner_id == partner_id] for hashed, found in users.items()}
    return {keys[hashed]: found[0] for hashed, found in own.items() if len(found) == 1}
