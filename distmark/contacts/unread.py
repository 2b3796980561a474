"""Contacts that changed and were not processed since: their segments and dated entries may be out of date."""

from collections.abc import Collection

from sqlalchemy import update
from sqlmodel import Session, col, select

from distmark.contacts.table import Contact
from distmark.sql import among


def lock_unread(session: Session, limit: int) -> list[Contact]:
    """Return the next contacts that changed, by id, locked until the unit of work ends; contacts that are locked elsewhere are left out."""
    changed = select(Contact).where(col(Contact.unread).is_(True)).order_by(col(Contact.id)).limit(limit)
    locked = changed.with_for_update(key_share=True, skip_locked=True).execution_options(populate_existing=True)
    return list(session.exec(locked))


def mark_read(session: Session, contact_ids: Collection[int]) -> None:
    """Note that these contacts were processed as they are now."""
    session.execute(update(Contact).where(among(session, col(Contact.id), contact_ids)).values(unread=False))


def mark_unread(session: Session, partner_ids: Collection[int]) -> None:
    """Note that the zone of the partners' contacts changed, as far as they have none of their own."""
    of_partners = update(Contact).where(among(session, col(Contact.partner_id), partner_ids), col(Contact.zone) == "")
    if partner_ids:
        session.execute(of_partners.values(unread=True))
