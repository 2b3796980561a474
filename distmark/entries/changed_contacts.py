"""Contacts that changed: their segments are evaluated, their dates scheduled, and their waiting enrollments woken."""

from datetime import datetime

from sqlalchemy import update
from sqlmodel import Session, col

from distmark.contacts.unread import lock_unread, mark_read, mark_unread
from distmark.enrollments.wakeups import wake_recomputed, wake_waiting
from distmark.entries.by_date import schedule
from distmark.entries.plans import BATCH, plans_of
from distmark.entries.table import EntryPlan
from distmark.journeys.entry import EntrySource
from distmark.partners.service import apply_zones
from distmark.segments.membership import update_memberships
from distmark.sql import among, id_of


def process_changed_contacts(session: Session, now: datetime, limit: int = BATCH) -> int:
    """Process the next contacts that changed, and return how many: segments, dates, and enrollments that wait for a change."""
    contacts = lock_unread(session, limit)
    if not contacts:
        return 0
    update_memberships(session, contacts, now)
    for plan, journey in plans_of(session, EntrySource.date):
        scheduled = [
            each for each in contacts if each.brand_id == journey.brand_id and (plan.reached is None or id_of(each) <= plan.reached)
        ]
        schedule(session, plan, journey, scheduled, anew=False)
    for brand_id in {contact.brand_id for contact in contacts}:
        wake_waiting(session, brand_id, [contact.person_key for contact in contacts if contact.brand_id == brand_id], ["contact"], now)
    wake_recomputed(session, [id_of(contact) for contact in contacts], now)
    mark_read(session, [id_of(contact) for contact in contacts])
    return len(contacts)


def note_changed_zones(session: Session) -> int:
    """Mark the contacts without a zone of their own as changed whose partner or brand has another zone now; return how many partners."""
    partner_ids = apply_zones(session)
    mark_unread(session, partner_ids)
    return len(partner_ids)


def note_all_processed(session: Session, at: datetime) -> None:
    """Note that all contacts that had changed by `at` were processed: a later change need not look for dates due before then."""
    plans = [id_of(plan) for plan, _journey in plans_of(session, EntrySource.date)]
    session.execute(update(EntryPlan).where(among(session, col(EntryPlan.id), plans), col(EntryPlan.read_at) < at).values(read_at=at))
