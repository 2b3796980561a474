"""The members of a campaign before they begin: judged (who may begin, and why not), left out by their partner, and taken back."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select

from distmark.campaigns.member_list import pending_by_campaign
from distmark.campaigns.service import campaigns_by_id, decide_members, get_campaign
from distmark.campaigns.table import Campaign, Member, MemberStatus
from distmark.contacts.table import Contact
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.entries.admission import check_eligibility
from distmark.entries.model import EnrolResult, EnrolVerdict, Entrant
from distmark.entries.service import campaign_entry_point
from distmark.entries.table import Entrance
from distmark.errors import Refused
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require
from distmark.sql import among, id_of

JUDGED_AT_ONCE = 1000
JUDGED_IN_LISTS = 200  # of each campaign


@dataclass(frozen=True, slots=True)
class PendingMembers:
    """The pending members of a campaign: the contacts that may begin now, and the result of each that cannot, by contact id.

    Only the earliest added are judged; `unjudged` counts the others. `refused` is the reason why nobody can
    begin at all, such as a closed campaign.
    """

    ready: Sequence[Contact] = ()
    blocked: Mapping[int, EnrolResult] = field(default_factory=dict)
    unjudged: int = 0
    refused: Refused | None = None

    @property
    def waiting(self) -> int:
        """The number of contacts that wait for nothing but their partner."""
        return len(self.ready) + self.unjudged


@dataclass(frozen=True, slots=True)
class Decided:
    """The counts of a decision: `changed` members have it now, `begun` ones are in the journey already and stay as they are."""

    changed: int
    begun: int


def pending_members(session: Session, viewer: Viewer, campaign_id: int, now: datetime) -> PendingMembers:
    """Return the viewer's pending members of the campaign, judged by the rules that `enrol` will apply; NotFound outside their sight."""
    return _judged(session, viewer, get_campaign(session, viewer, campaign_id), now, JUDGED_AT_ONCE)


def pending_members_by_campaign(session: Session, viewer: Viewer, now: datetime) -> dict[int, PendingMembers]:
    """Return the viewer's pending members by campaign id, judged for a viewer who may enrol; a campaign without any is left out."""
    counted = pending_by_campaign(session, viewer)
    if not viewer.may(Permission.enrol_contacts):
        return {campaign_id: PendingMembers(unjudged=count) for campaign_id, count in counted.items()}
    known = campaigns_by_id(session, viewer)
    return {row: _judged(session, viewer, known[row], now, JUDGED_IN_LISTS) for row in counted if row in known}


def _judged(session: Session, viewer: Viewer, campaign: Campaign, now: datetime, limit: int) -> PendingMembers:
    pending = visible(select(Contact), Contact, viewer).join(Member, col(Member.contact_id) == col(Contact.id))
    conditions = (
        col(Member.campaign_id) == id_of(campaign),
        col(Member.status) == MemberStatus.pending,
        col(Contact.erased_at).is_(None),
    )
    contacts = list(session.exec(pending.where(*conditions).order_by(col(Member.id)).limit(limit)))
    if not contacts:
        return PendingMembers()
    try:
        entry_point = campaign_entry_point(session, campaign)
    except Refused as error:
        return PendingMembers(refused=error)
    results = check_eligibility(session, entry_point, [Entrant(contact) for contact in contacts], now)
    ready = [contact for contact in contacts if results[id_of(contact)].verdict is EnrolVerdict.enrolled]
    blocked = {contact_id: result for contact_id, result in results.items() if result.verdict is not EnrolVerdict.enrolled}
    return PendingMembers(ready, blocked, _count(session, viewer, conditions) - limit if len(contacts) == limit else 0)


def _count(session: Session, viewer: Viewer, conditions: Sequence[ColumnElement[bool]]) -> int:
    counting = select(func.count(col(Member.id))).join(Contact, col(Contact.id) == col(Member.contact_id))
    return session.exec(visible(counting, Contact, viewer).where(*conditions)).one()


def queued_among(session: Session, campaign_id: int, contact_ids: Collection[int]) -> set[int]:
    """Return the contacts among these that are queued for the campaign's journey, because its cap is reached."""
    queued = select(Entrance.contact_id).where(Entrance.campaign_id == campaign_id, col(Entrance.settled_at).is_(None))
    return set(session.exec(queued.where(among(session, col(Entrance.contact_id), contact_ids))))


def leave_out(session: Session, viewer: Viewer, campaign_id: int, member_ids: Collection[int], now: datetime) -> Decided:
    """Leave these members out of the campaign: none of them can enter by it until taken back. A member in the journey stays in it.

    Members outside the viewer's sight are left as they are.
    """
    require(viewer, Permission.enrol_contacts)
    begun = _inside(session, viewer, campaign_id, member_ids)
    free = [member_id for member_id in member_ids if member_id not in begun]
    return Decided(decide_members(session, viewer, campaign_id, free, MemberStatus.rejected, now), len(begun))


def take_back(session: Session, viewer: Viewer, campaign_id: int, member_ids: Collection[int], now: datetime) -> Decided:
    """Let these members wait for their partner again; only a member that was left out, or could not begin, changes."""
    require(viewer, Permission.enrol_contacts)
    statuses = (MemberStatus.rejected, MemberStatus.error)
    decided = select(Member.id).where(among(session, col(Member.id), member_ids), col(Member.status).in_(statuses))
    ids = [member_id for member_id in session.exec(decided) if member_id is not None]
    return Decided(decide_members(session, viewer, campaign_id, ids, MemberStatus.pending, now), 0)


def _inside(session: Session, viewer: Viewer, campaign_id: int, member_ids: Collection[int]) -> set[int]:
    """Return the members among these whose enrollment by the campaign has not ended."""
    live = visible(select(Enrollment.member_id), Enrollment, viewer).where(
        Enrollment.campaign_id == campaign_id,
        among(session, col(Enrollment.member_id), member_ids),
        col(Enrollment.status) != EnrollmentStatus.ended,
    )
    return {member_id for member_id in session.exec(live) if member_id is not None}
