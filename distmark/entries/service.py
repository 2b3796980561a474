"""Enrolment of contacts in a campaign, and entry of a contact from another journey."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from distmark.campaigns.service import add_members, get_campaign
from distmark.campaigns.table import Campaign, CampaignStatus
from distmark.compliance.service import record
from distmark.contacts.table import Contact
from distmark.enrollments.model import CameBy
from distmark.enrollments.table import Enrollment
from distmark.entries.admission import check_eligibility, enter, open_entry_point
from distmark.entries.model import ENTERED, EnrolResult, EnrolVerdict, Entrant, EntryContext, EntryPoint
from distmark.errors import NotFound, Refused, SelectionChanged
from distmark.journeys.table import Journey
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require
from distmark.sql import among, id_of

MOST_ENTRIES_PER_DAY = 10  # of one person into one journey from other journeys


def enrol(
    session: Session,
    viewer: Viewer,
    campaign_id: int,
    contact_ids: Sequence[int],
    now: datetime,
    *,
    data: Mapping[str, Any] | None = None,
    exactly: bool = False,
) -> list[EnrolResult]:
    """Enter each contact into the campaign's journey and return one result per contact, in the order of `contact_ids`.

    Only rows are written: the flow run of each enrollment is created afterwards, from its row. A second call enrols no contact again.
    `data` is kept with each enrollment as the journey's own data. Errors: NotFound for a campaign or contact outside the viewer's rows,
    Refused for a closed campaign or a journey without an approved, registered version. With `exactly`, SelectionChanged when one of the
    contacts cannot begin: a person agreed to all of them.
    """
    require(viewer, Permission.enrol_contacts)
    entry_point = campaign_entry_point(session, get_campaign(session, viewer, campaign_id))
    contacts = _contacts(session, viewer, contact_ids)
    add_members(session, viewer, campaign_id, [id_of(contact) for contact in contacts], now)
    results = enter(session, entry_point, [Entrant(contact, data or {}) for contact in contacts], EntryContext(CameBy.campaign, now))
    left_out = sum(result.verdict not in ENTERED for result in results)
    if exactly and left_out:
        raise SelectionChanged(f"Something changed since these people were shown: {left_out} of them cannot begin now. Nobody was sent.")
    entered = sum(result.verdict is EnrolVerdict.enrolled for result in results)
    if entered:
        content_hash = entry_point.version.content_hash
        record(session, entry_point.brand_id, viewer.user_id, "enrolled", "campaign", campaign_id, now, content_hash, count=entered)
    return results


def enter_from(
    session: Session, source: Enrollment, contact: Contact, journey_key: str, step_id: str, data: Mapping[str, Any], now: datetime
) -> EnrolResult | None:
    """Enter the contact of the enrollment `source` into the newest version of another journey of the brand, as its step `step_id` says.

    No permission is needed: the journey with that step was approved. The other journey's own rules decide, and the first timeline entry
    there names enrollment and step. None when no version of that journey takes contacts.
    """
    journey = session.exec(select(Journey).where(Journey.brand_id == source.brand_id, Journey.key == journey_key)).first()
    entry_point = open_entry_point(session, journey) if journey else None
    if entry_point is None:
        return None
    entrant = Entrant(contact, data, f"enrollment:{source.id}:{step_id}:{now.isoformat()}")
    result = check_eligibility(session, entry_point, [entrant], now)[id_of(contact)]
    if result.verdict is not EnrolVerdict.enrolled:
        return result
    if _entries_since(session, entry_point, contact, now - timedelta(days=1)) >= MOST_ENTRIES_PER_DAY:
        return EnrolResult(id_of(contact), EnrolVerdict.too_soon, until=now + timedelta(days=1))
    came_from = {"from_enrollment": source.id, "from_step": step_id}
    return enter(session, entry_point, [entrant], EntryContext(CameBy.journey, now, came_from))[0]


def _entries_since(session: Session, entry_point: EntryPoint, contact: Contact, since: datetime) -> int:
    """Return how often the person entered the journey since then: two journeys that enter each other must not do so without end."""
    entries = select(func.count()).where(
        col(Enrollment.person_key) == contact.person_key,
        col(Enrollment.journey_id) == entry_point.journey_id,
        col(Enrollment.entered_at) > since,
    )
    return session.exec(entries).one()


def preview_enrol(session: Session, viewer: Viewer, campaign_id: int, contact_ids: Sequence[int], now: datetime) -> list[EnrolResult]:
    """Return the results that `enrol` would have now, changing nothing. The journey's cap is not looked at."""
    require(viewer, Permission.enrol_contacts)
    entry_point = campaign_entry_point(session, get_campaign(session, viewer, campaign_id))
    contacts = _contacts(session, viewer, contact_ids)
    verdicts = check_eligibility(session, entry_point, [Entrant(contact) for contact in contacts], now)
    return [verdicts[id_of(contact)] for contact in contacts]


def campaign_entry_point(session: Session, campaign: Campaign) -> EntryPoint:
    """Return the entry point of the campaign's journey. Refused for a closed campaign or a journey without a registered version."""
    # A contact that is enrolled in a paused campaign starts paused.
    if campaign.status not in (CampaignStatus.open, CampaignStatus.paused):
        raise Refused(f'Campaign "{campaign.name}" is {campaign.status}: nobody can be enrolled until it is open.')
    entry_point = open_entry_point(session, session.get_one(Journey, campaign.journey_id), campaign)
    if entry_point is None:
        raise Refused(f'The journey of campaign "{campaign.name}" has no approved and registered version yet; ask the brand\'s marketers.')
    return entry_point


def _contacts(session: Session, viewer: Viewer, contact_ids: Sequence[int]) -> list[Contact]:
    wanted = list(dict.fromkeys(contact_ids))
    own = visible(select(Contact), Contact, viewer).where(col(Contact.erased_at).is_(None))
    found = {id_of(contact): contact for contact in session.exec(own.where(among(session, col(Contact.id), wanted)))}
    missing = [contact_id for contact_id in wanted if contact_id not in found]
    if missing:
        raise NotFound(f"There is no contact {missing[0]} among yours; search again and pick from the list.")
    return [found[contact_id] for contact_id in wanted]
