"""Consents of contacts (append-only) and suppressed addresses (kept as hashes). An import changes neither a refusal nor a suppression."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from distmark.channels.kind import AddressForm
from distmark.channels.registry import CHANNELS
from distmark.contacts.fields import as_email, as_phone, as_text
from distmark.contacts.model import SuppressionReason, SuppressionScope, address_hash, address_key
from distmark.contacts.table import Consent, Suppression
from distmark.errors import InvalidInput
from distmark.sql import batches, insert_into

TRACKING = ("open_tracking", "click_tracking")
GROUNDS = ("opt_in", "business_card", "existing_customer", "published_address")


READERS: Mapping[AddressForm, Callable[[object], str | None]] = {
    AddressForm.email: as_email,
    AddressForm.phone: as_phone,
    AddressForm.identifier: as_text,
}


def consent_channels() -> tuple[str, ...]:
    """Return the keys of all consents: one per channel, and one each for recording opens and clicks."""
    return (*(kind.consent for kind in CHANNELS.values()), *TRACKING)


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

    A refusal after a refusal adds nothing and returns the earlier one. InvalidInput for an unknown channel or ground.
    """
    if channel not in consent_channels() or ground not in GROUNDS:
        raise InvalidInput(
            f"Consent for {channel!r} on the ground {ground!r} is unknown; use one of {consent_channels()} and one of {GROUNDS}."
        )
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
    """Return by contact id whether the contact agreed to `channel`: True, False, or None when it never said."""
    state: dict[int, bool | None] = dict.fromkeys(contact_ids)
    for ids in batches(state):
        for row in session.exec(_of(ids, channel).order_by(col(Consent.at), col(Consent.id))):
            state[row.contact_id] = row.given
    return state


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
    """Suppress the address for all partners of the brand on `channel`; return whether this suppression is new."""
    row = {
        "brand_id": brand_id,
        "channel": channel,
        "address_hash": hash_of(brand_id, channel, address),
        "scope": scope,
        "reason": reason,
        "at": now,
        "message_id": message_id,
    }
    statement = insert_into(session, Suppression).values(row).on_conflict_do_nothing().returning(col(Suppression.id))
    return session.execute(statement).first() is not None


def suppressed(session: Session, brand_id: int, channel: str, addresses: Iterable[str], marketing: bool) -> set[str]:
    """Return the hashes (`model.address_hash`) of the suppressed addresses among these.

    A suppression of either scope stops marketing; other messages are stopped by one of scope `all` only.
    """
    found: set[str] = set()
    hashes_of = {hash_of(brand_id, channel, address): address_hash(brand_id, address) for address in addresses}
    for hashes in batches(hashes_of):
        rows = select(Suppression.address_hash).where(
            Suppression.brand_id == brand_id, Suppression.channel == channel, col(Suppression.address_hash).in_(hashes)
        )
        if not marketing:
            rows = rows.where(Suppression.scope == SuppressionScope.all)
        found.update(hashes_of[stopped] for stopped in session.exec(rows))
    return found


def suppressions_of(session: Session, brand_id: int, hashes: Sequence[str]) -> list[Suppression]:
    """Return the suppressions of the addresses with these hashes: each says why the address is not written to."""
    return list(session.exec(select(Suppression).where(Suppression.brand_id == brand_id, col(Suppression.address_hash).in_(list(hashes)))))


def unsuppress(session: Session, brand_id: int, channel: str, address: str, scope: SuppressionScope = SuppressionScope.marketing) -> bool:
    """Lift the suppression and return whether there was one. One after a complaint or an erasure is never lifted."""
    lifted = delete(Suppression).where(
        col(Suppression.brand_id) == brand_id,
        col(Suppression.channel) == channel,
        col(Suppression.address_hash) == hash_of(brand_id, channel, address),
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
