"""Consents of contacts (append-only) and suppressed addresses (kept as hashes). An import changes neither a refusal nor a suppression."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, exists, func, or_
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from distmark.channels.kind import AddressForm
from distmark.channels.registry import CHANNELS, address_of
from distmark.contacts.fields import as_email, as_phone, as_text
from distmark.contacts.model import SuppressionReason, SuppressionScope, address_hash, address_key
from distmark.contacts.table import Consent, Contact, ContactAddress, Suppression
from distmark.errors import InvalidInput
from distmark.sql import among, batches, insert_into

OPEN_TRACKING, CLICK_TRACKING = "open_tracking", "click_tracking"
TRACKING = (OPEN_TRACKING, CLICK_TRACKING)
GROUNDS = ("opt_in", "business_card", "existing_customer", "published_address")


READERS: Mapping[AddressForm, Callable[[object], str | None]] = {
    AddressForm.email: as_email,
    AddressForm.phone: as_phone,
    AddressForm.identifier: as_text,
}


def consent_channels() -> tuple[str, ...]:
    """Return the keys of all consents: one per channel, and one each for recording opens and clicks."""
    return (*(kind.consent for kind in CHANNELS.values()), *TRACKING)


def check_ground(ground: str, channels: Iterable[str]) -> None:
    """Raise InvalidInput unless the ground is known and covers these channels: only an agreement covers more than mail.

    A business card, a purchase or a published address is a ground for mail; for a text message the person must have agreed to it.
    """
    if ground not in GROUNDS:
        raise InvalidInput(f"The ground {ground!r} for writing to these contacts is unknown; use one of {', '.join(GROUNDS)}.")
    for channel in channels:
        if channel not in consent_channels():
            raise InvalidInput(f"There is no channel {channel!r}; use one of {', '.join(consent_channels())}.")
        if ground not in grounds_for(channel):
            raise InvalidInput(f"The ground {ground} does not cover {channel}, only mail; the person must have agreed to it.")


def grounds_for(channel: str) -> tuple[str, ...]:
    """Return the grounds on which a person may be written to by the channel."""
    by_mail = any(kind.consent == channel and kind.form is AddressForm.email for kind in CHANNELS.values())
    return GROUNDS if by_mail else ("opt_in",)


def record_consent(
    session: Session,
    contact_id: int,
    channel: str,
    *,
    given: bool,
    now: datetime,
    ground: str = "opt_in",
    wording: str = "",
    source: str = "",
    by_user_id: int | None = None,
) -> Consent:
    """Append that the contact agreed (`given`) or refused, with the text shown and its source; the newest row counts.

    A refusal after a refusal adds nothing and returns the earlier one. InvalidInput for an unknown channel or ground, or a ground that does
    not cover the channel.
    """
    if channel not in consent_channels() or ground not in GROUNDS:
        raise InvalidInput(
            f"Consent for {channel!r} on the ground {ground!r} is unknown; use one of {consent_channels()} and one of {GROUNDS}."
        )
    if given:
        check_ground(ground, [channel])
    newest = session.exec(_of([contact_id], channel).order_by(col(Consent.at).desc(), col(Consent.id).desc())).first()
    if newest is not None and not newest.given and not given:
        return newest
    row = Consent(
        contact_id=contact_id, channel=channel, given=given, ground=ground, wording=wording, source=source, at=now, by_user_id=by_user_id
    )
    session.add(row)
    session.flush()
    return row


def consents_of(session: Session, contact_id: int) -> list[Consent]:
    """Return all consents and refusals of the contact, newest first."""
    rows = select(Consent).where(Consent.contact_id == contact_id)
    return list(session.exec(rows.order_by(col(Consent.at).desc(), col(Consent.id).desc())))


def consent_state(session: Session, contact_ids: Collection[int], channel: str) -> dict[int, bool | None]:
    """Return by contact id whether the contact agreed to `channel`: True, False, or None when it never said.

    The newest row of the contact counts, and a later refusal that its person told another partner. An agreement is its own partner's only.
    """
    newest: dict[int, Consent] = {}
    for ids in batches(set(contact_ids)):
        newest |= {row.contact_id: row for row in session.exec(_of(ids, channel).order_by(col(Consent.at), col(Consent.id)))}
    state: dict[int, bool | None] = {each: newest[each].given if each in newest else None for each in contact_ids}
    for contact_id, refused_at in _refused_to_others(session, state, channel).items():
        if contact_id not in newest or newest[contact_id].at < refused_at:
            state[contact_id] = False
    return state


def refused_by(session: Session, contact_ids: Collection[int], channel: str) -> set[int]:
    """Return those of these contacts whose person refused `channel`: in any book of the brand, since refusals hold for all partners."""
    if not contact_ids:
        return set()
    whose = select(Contact.id, Contact.brand_id, Contact.person_key)
    own = {
        found: (brand, person) for found, brand, person in session.exec(whose.where(among(session, col(Contact.id), contact_ids))) if found
    }
    in_books = whose.where(among(session, col(Contact.person_key), {person for _brand, person in own.values()}))
    people = {found: (brand, person) for found, brand, person in session.exec(in_books) if found}
    refusing = {people[found] for found, given in consent_state(session, list(people), channel).items() if given is False}
    return {found for found, person in own.items() if person in refusing}


def _refused_to_others(session: Session, contact_ids: Collection[int], channel: str) -> dict[int, datetime]:
    """Return by contact id when its person last refused `channel` as another contact, where that refusal is that contact's newest word."""
    contact, other, later = aliased(Contact), aliased(Contact), aliased(Consent)
    superseded = exists().where(
        col(later.contact_id) == col(Consent.contact_id),
        col(later.channel) == col(Consent.channel),
        col(later.given).is_(True),
        or_(col(later.at) > col(Consent.at), and_(col(later.at) == col(Consent.at), col(later.id) > col(Consent.id))),
    )
    rows = (
        select(contact.id, func.max(Consent.at))
        .join(other, and_(col(other.brand_id) == col(contact.brand_id), col(other.person_key) == col(contact.person_key)))
        .join(Consent, col(Consent.contact_id) == col(other.id))
        .where(among(session, col(contact.id), contact_ids), col(other.id) != col(contact.id))
        .where(Consent.channel == channel, col(Consent.given).is_(False), ~superseded)
        .group_by(col(contact.id))
    )
    return {contact_id: at for contact_id, at in session.exec(rows) if contact_id is not None} if contact_ids else {}


def _of(contact_ids: Sequence[int], channel: str) -> SelectOfScalar[Consent]:
    return select(Consent).where(col(Consent.contact_id).in_(contact_ids), Consent.channel == channel)


def suppress(
    session: Session,
    brand_id: int,
    channel: str,
    address: str,
    reason: SuppressionReason,
    now: datetime,
    *,
    scope: SuppressionScope = SuppressionScope.marketing,
    message_id: int | None = None,
) -> bool:
    """Suppress the address for all partners of the brand on `channel`; return whether this suppression is new.

    A refusal replaces a bounce, which says nothing about the person's other addresses.
    """
    row = {
        "brand_id": brand_id,
        "channel": channel,
        "address_hash": hash_of(brand_id, channel, address),
        "scope": scope,
        "reason": reason,
        "at": now,
        "message_id": message_id,
    }
    return _insert_suppressions(session, [row])


def suppress_contact(
    session: Session, contact: Contact, channel: str, reason: SuppressionReason, now: datetime, message_id: int | None = None
) -> None:
    """Suppress marketing to the contact on `channel`: to its address there, and if it has none any more, to all that it had."""
    address = address_of(contact, channel)
    if address:
        suppress(session, contact.brand_id, channel, address, reason, now, message_id=message_id)
        return
    had = select(ContactAddress.address_hash).where(ContactAddress.contact_id == contact.id)
    shared = {"brand_id": contact.brand_id, "channel": channel, "scope": SuppressionScope.marketing, "reason": reason}
    _insert_suppressions(session, [{**shared, "address_hash": each, "at": now, "message_id": message_id} for each in session.exec(had)])


def copy_refusals(session: Session, brand_id: int, channel: str, before: str | None, address: str) -> None:
    """Let the refusals of the earlier address hold for the present one on `channel`; a bounce says nothing about the new address."""
    if not before or before == address:
        return
    refused = select(Suppression).where(
        Suppression.brand_id == brand_id,
        Suppression.channel == channel,
        Suppression.address_hash == hash_of(brand_id, channel, before),
        Suppression.reason != SuppressionReason.bounced,
    )
    copied = ("brand_id", "channel", "scope", "reason", "at", "message_id")
    hashed = hash_of(brand_id, channel, address)
    rows = [{name: getattr(row, name) for name in copied} | {"address_hash": hashed} for row in session.exec(refused)]
    _insert_suppressions(session, rows)


def _insert_suppressions(session: Session, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Insert these suppressions and return whether any is new."""
    new = False
    for row in rows:
        statement = insert_into(session, Suppression).values(dict(row))
        refused = statement.on_conflict_do_update(
            index_elements=["brand_id", "channel", "address_hash", "scope"],
            set_={name: statement.excluded[name] for name in ("reason", "at", "message_id")},
            where=and_(col(Suppression.reason) == SuppressionReason.bounced, statement.excluded.reason != SuppressionReason.bounced),
        )
        new |= session.execute(refused.returning(col(Suppression.id))).first() is not None
    return new


def suppressed(
    session: Session,
    brand_id: int,
    channel: str,
    addresses: Iterable[str],
    marketing: bool,
    reasons: Collection[SuppressionReason] = tuple(SuppressionReason),
) -> set[str]:
    """Return the hashes (`model.address_hash`) of the suppressed addresses among these, as `suppression_reasons` says."""
    return set(suppression_reasons(session, brand_id, channel, addresses, marketing, reasons))


def suppression_reasons(
    session: Session,
    brand_id: int,
    channel: str,
    addresses: Iterable[str],
    marketing: bool,
    reasons: Collection[SuppressionReason] = tuple(SuppressionReason),
) -> dict[str, SuppressionReason]:
    """Return why addresses among these are suppressed, by their hash (`model.address_hash`); a reason of the address itself goes first.

    An address is suppressed itself, or because its person refused another of their addresses, present or earlier; a bounce concerns its own
    address only. A suppression of either scope stops marketing; other messages are stopped by one of scope `all` only.
    """
    found: dict[str, SuppressionReason] = {}
    hashes_of = {hash_of(brand_id, channel, address): address_hash(brand_id, address) for address in addresses}
    for hashes in batches(hashes_of):
        themselves: Any = select(Suppression.address_hash, Suppression.reason).where(col(Suppression.address_hash).in_(hashes))
        for rows in (themselves, _refused_elsewhere(hashes)):
            stopping = rows.where(
                Suppression.brand_id == brand_id, Suppression.channel == channel, col(Suppression.reason).in_(list(reasons))
            )
            if not marketing:
                stopping = stopping.where(Suppression.scope == SuppressionScope.all)
            for stopped, reason in session.exec(stopping.order_by(col(Suppression.at))):
                found.setdefault(hashes_of[stopped], reason)
    return found


def _refused_elsewhere(hashes: Sequence[str]) -> Any:
    """Select hash and reason of those of these addresses whose person has or had another address that was refused.

    The caller adds brand and channel.
    """
    asked, other, contact, same = aliased(ContactAddress), aliased(ContactAddress), aliased(Contact), aliased(Contact)
    return (
        select(asked.address_hash, Suppression.reason)
        .join(contact, col(contact.id) == col(asked.contact_id))
        .join(same, and_(col(same.brand_id) == col(contact.brand_id), col(same.person_key) == col(contact.person_key)))
        .join(other, col(other.contact_id) == col(same.id))
        .join(
            Suppression,
            and_(col(Suppression.brand_id) == col(other.brand_id), col(Suppression.address_hash) == col(other.address_hash)),
        )
        .where(
            col(asked.address_hash).in_(hashes),
            col(asked.brand_id) == col(Suppression.brand_id),
            col(Suppression.reason) != SuppressionReason.bounced,
        )
    )


def suppressions_of(session: Session, contact: Contact) -> list[Suppression]:
    """Return the suppressions that stop messages to the contact, one per channel and scope: each says why the contact is not written to."""
    own = {hash_of(contact.brand_id, channel, address) for channel in CHANNELS if (address := address_of(contact, channel))}
    of_person = select(ContactAddress.address_hash).join(Contact, col(Contact.id) == col(ContactAddress.contact_id))
    of_person = of_person.where(Contact.brand_id == contact.brand_id, Contact.person_key == contact.person_key)
    refused_elsewhere = and_(col(Suppression.address_hash).in_(of_person), col(Suppression.reason) != SuppressionReason.bounced)
    rows = session.exec(
        select(Suppression)
        .where(Suppression.brand_id == contact.brand_id, or_(col(Suppression.address_hash).in_(own), refused_elsewhere))
        .order_by(col(Suppression.at), col(Suppression.id))
    )
    return list({(row.channel, row.scope): row for row in sorted(rows, key=lambda row: row.address_hash in own)}.values())


def unsuppress(session: Session, brand_id: int, channel: str, address: str, scope: SuppressionScope = SuppressionScope.marketing) -> bool:
    """Lift the suppression, of all addresses that the person has or had, and return whether there was one.

    One after a complaint or an erasure is never lifted.
    """
    hashed = hash_of(brand_id, channel, address)
    known, contact = aliased(ContactAddress), aliased(Contact)
    persons = select(contact.person_key).join(known, col(known.contact_id) == col(contact.id))
    persons = persons.where(col(known.brand_id) == brand_id, col(known.address_hash) == hashed)
    theirs = select(ContactAddress.address_hash).join(Contact, col(Contact.id) == col(ContactAddress.contact_id))
    theirs = theirs.where(Contact.brand_id == brand_id, col(Contact.person_key).in_(persons))
    lifted = delete(Suppression).where(
        col(Suppression.brand_id) == brand_id,
        col(Suppression.channel) == channel,
        or_(col(Suppression.address_hash) == hashed, col(Suppression.address_hash).in_(theirs)),
        col(Suppression.scope) == scope,
        col(Suppression.reason).not_in((SuppressionReason.complained, SuppressionReason.erased)),
    )
    return session.execute(lifted.returning(col(Suppression.id))).first() is not None


# An address that is spelled the usual way already, as nearly all are: full checks would cost more than the rest of the query.
_USUAL = re.compile(r"(?:[a-z0-9_%+-]+(?:\.[a-z0-9_%+-]+)*@[a-z0-9-]+(?:\.[a-z0-9-]+)+|\+[0-9]+)")


def hash_of(brand_id: int, channel: str, address: str) -> str:
    """Return the hash under which the address is suppressed, one for all its spellings: a bounce and a file may spell it differently."""
    if _USUAL.fullmatch(address_key(address)):
        return address_hash(brand_id, address)
    form = CHANNELS[channel].form if channel in CHANNELS else AddressForm.identifier
    try:
        usual = READERS[form](address) or address
    except ValueError:  # pydantic's errors are ValueErrors; an address that we would not take can still be suppressed
        usual = address
    return address_hash(brand_id, usual)
