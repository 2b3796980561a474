"""Contacts that changed since the last look: their dates are scheduled again."""

from datetime import datetime

from sqlalchemy import update
from sqlmodel import Session, col, select

from distmark.contacts.table import Contact
from distmark.enrollments.wakeups import wake_waiting
from distmark.entries.by_date import schedule
from distmark.entries.plans import BATCH, plans_of
from distmark.entries.table import EntryPlan
from distmark.journeys.entry import EntrySource
from distmark.segments import membership
from distmark.sql import among, id_of


def read_contacts(session: Session, now: datetime, limit: int = BATCH) -> int:
    """Look at the next contacts that changed, and return how many: their segments, their dates, and who waits for news of them."""
    changed = select(Contact).where(col(Contact.unread).is_(True)).order_by(col(Contact.id)).limit(limit)
    locked = changed.with_for_update(key_share=True, skip_locked=True).execution_options(populate_existing=True)
    contacts = list(session.exec(locked))
    if not contacts:
        return 0
    membership.keep(session, contacts, now)
    for plan, opened in plans_of(session, EntrySource.date):
        mine = [each for each in contacts if each.brand_id == opened.brand_id and (plan.reached is None or (id_of(each)) <= plan.reached)]
        schedule(session, plan, opened, mine, anew=False)
    for brand_id in {contact.brand_id for contact in contacts}:
        wake_waiting(session, brand_id, [contact.person_key for contact in contacts if contact.brand_id == brand_id], ["contact"], now)
    session.execute(update(Contact).where(among(session, col(Contact.id), [id_of(each) for each in contacts])).values(unread=False))
    return len(contacts)


def all_read(session: Session, at: datetime) -> None:
    """Note that whoever had changed by `at` was looked at: dates that came due before need not be thought of again."""
    dated = [id_of(plan) for plan, _ in plans_of(session, EntrySource.date)]
    session.execute(update(EntryPlan).where(among(session, col(EntryPlan.id), dated), col(EntryPlan.read_at) < at).values(read_at=at))
