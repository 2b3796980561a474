"""What pages ask and no room answers yet: reads only, and always from the viewer's own rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlmodel import Session, col, func, select

from distmark.campaigns.table import Campaign, Member, MemberStatus, PartnerBlocks
from distmark.contacts.attributes import attributes_of
from distmark.contacts.service import mentions
from distmark.contacts.table import Contact, Suppression
from distmark.engagement.model import EventKind, Verdict
from distmark.engagement.table import Event
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.journeys.first_send import facts_for, first_message_at
from distmark.journeys.program import Program
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.messages.compose import brand_attributes, partner_attributes
from distmark.messages.table import Message
from distmark.partners.model import Viewer
from distmark.partners.scope import visible
from distmark.partners.table import Brand, Partner, User

REACTIONS = (EventKind.clicked, EventKind.replied, EventKind.converted, EventKind.custom, EventKind.opened)


@dataclass(frozen=True, slots=True)
class Reaction:
    """Something a contact did, with who did it."""

    event: Event
    contact: Contact


def recent_reactions(session: Session, viewer: Viewer, limit: int = 8) -> list[Reaction]:
    """Return what people did lately with messages, newest first; machines and repeats are left out."""
    statement = (
        visible(select(Event, Contact), Event, viewer)
        .join(Contact, col(Contact.id) == col(Event.contact_id))
        .where(col(Event.kind).in_(REACTIONS), col(Event.verdict) != Verdict.machine, col(Event.first).is_(True))
        .order_by(col(Event.at).desc(), col(Event.id).desc())
        .limit(limit)
    )
    return [Reaction(event, contact) for event, contact in session.exec(statement)]


def events_of(session: Session, viewer: Viewer, contact_id: int, limit: int = 200) -> list[Event]:
    """Return the contact's engagement events, newest first."""
    statement = visible(select(Event), Event, viewer).where(Event.contact_id == contact_id)
    return list(session.exec(statement.order_by(col(Event.at).desc(), col(Event.id).desc()).limit(limit)))


def suppressions_of(session: Session, brand_id: int, hashes: Sequence[str]) -> list[Suppression]:
    """Return why these addresses are never written to."""
    return list(session.exec(select(Suppression).where(Suppression.brand_id == brand_id, col(Suppression.address_hash).in_(list(hashes)))))


def contacts_of(session: Session, viewer: Viewer, ids: Sequence[int]) -> dict[int, Contact]:
    """Return these contacts, as far as the viewer may see them."""
    rows = session.exec(visible(select(Contact), Contact, viewer).where(col(Contact.id).in_(list(ids))))
    return {row.id: row for row in rows if row.id is not None}


def pending_by_campaign(session: Session, viewer: Viewer) -> dict[int, int]:
    """Return how many members wait for a decision, per campaign."""
    statement = (
        select(Member.campaign_id, func.count())
        .join(Campaign, col(Campaign.id) == col(Member.campaign_id))
        .where(Campaign.brand_id == viewer.brand_id, Member.status == MemberStatus.pending)
        .group_by(col(Member.campaign_id))
    )
    if viewer.partner_id is not None:
        statement = statement.where(Member.partner_id == viewer.partner_id)
    return dict(session.exec(statement).all())


def live_by_campaign(session: Session, viewer: Viewer) -> dict[int, int]:
    """Return how many enrollments are live, per campaign."""
    statement = visible(select(Enrollment.campaign_id, func.count()), Enrollment, viewer)
    statement = statement.where(Enrollment.status != EnrollmentStatus.ended, col(Enrollment.campaign_id).is_not(None))
    return {campaign_id: count for campaign_id, count in session.exec(statement.group_by(col(Enrollment.campaign_id))) if campaign_id}


def live_by_partner(session: Session, viewer: Viewer) -> dict[int, int]:
    """Return how many enrollments are live, per partner."""
    statement = visible(select(Enrollment.partner_id, func.count()), Enrollment, viewer)
    return dict(session.exec(statement.where(Enrollment.status != EnrollmentStatus.ended).group_by(col(Enrollment.partner_id))).all())


def journeys_by_id(session: Session, viewer: Viewer) -> dict[int, Journey]:
    """Return the journeys of the viewer's brand."""
    return {row.id: row for row in session.exec(select(Journey).where(Journey.brand_id == viewer.brand_id)) if row.id is not None}


def newest_by_journey(session: Session, viewer: Viewer, statuses: Sequence[VersionStatus]) -> dict[int, JourneyVersion]:
    """Return each journey's newest version in one of `statuses`."""
    statement = (
        select(JourneyVersion)
        .join(Journey, col(Journey.id) == col(JourneyVersion.journey_id))
        .where(Journey.brand_id == viewer.brand_id, col(JourneyVersion.status).in_(list(statuses)))
        .order_by(col(JourneyVersion.number))
    )
    return {row.journey_id: row for row in session.exec(statement)}


def names_of_users(session: Session, viewer: Viewer, ids: Sequence[int | None]) -> dict[int, str]:
    """Return the names of these people, as far as they are of the viewer's brand."""
    wanted = [user_id for user_id in ids if user_id is not None]
    rows = session.exec(select(User).where(User.brand_id == viewer.brand_id, col(User.id).in_(wanted)))
    return {row.id: row.name for row in rows if row.id is not None}


def failing(session: Session, viewer: Viewer) -> dict[str, int]:
    """Return what operations should look at: enrollments parked after errors, and messages of uncertain fate."""
    parked = visible(select(func.count()).select_from(Enrollment), Enrollment, viewer).where(Enrollment.status == EnrollmentStatus.parked)
    uncertain: Any = visible(select(func.count()).select_from(Message), Message, viewer).where(Message.status == "uncertain")
    return {"parked": int(session.exec(parked).one()), "uncertain": int(session.exec(uncertain).one())}


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Where a member stands in a campaign's table: place (from 1; 0: not among those shown), and the contacts before and after."""

    place: int
    before: int | None
    after: int | None


def neighbours(session: Session, viewer: Viewer, member: Member, status: MemberStatus | None, text: str) -> Neighbours:
    """Return the member's neighbours in the order of the table with this filter: what the preview's ‹ › step through."""
    conditions = [col(Member.campaign_id) == member.campaign_id, *mentions(text)]
    if status is not None:
        conditions.append(col(Member.status) == status)

    def among(what: Any) -> Any:
        joined = select(what).select_from(Member).join(Contact, col(Contact.id) == col(Member.contact_id))
        return visible(joined, Contact, viewer).where(*conditions)

    before = session.exec(among(Member.contact_id).where(col(Member.id) < member.id).order_by(col(Member.id).desc()).limit(1)).first()
    after = session.exec(among(Member.contact_id).where(col(Member.id) > member.id).order_by(col(Member.id)).limit(1)).first()
    shown = session.exec(among(Member.id).where(Member.id == member.id)).first() is not None
    earlier = session.exec(among(func.count()).where(col(Member.id) < member.id)).one()
    return Neighbours(int(earlier) + 1 if shown else 0, before, after)


def member_with_contact(session: Session, viewer: Viewer, campaign_id: int, contact_id: int) -> tuple[Member, Contact] | None:
    """Return a member of the campaign with the contact, when both are the viewer's."""
    statement = (
        visible(select(Member, Contact), Contact, viewer)
        .join(Contact, col(Contact.id) == col(Member.contact_id))
        .where(Member.campaign_id == campaign_id, Member.contact_id == contact_id)
    )
    found = session.exec(statement).first()
    return (found[0], found[1]) if found else None


def contacts_waiting(session: Session, viewer: Viewer, campaign_id: int, member_ids: Sequence[int], limit: int) -> list[Contact]:
    """Return the contacts of these members, or of all that wait when none is named."""
    statement = (
        visible(select(Contact), Contact, viewer)
        .join(Member, col(Member.contact_id) == col(Contact.id))
        .where(Member.campaign_id == campaign_id, col(Contact.erased_at).is_(None))
    )
    if member_ids:
        statement = statement.where(col(Member.id).in_(list(member_ids)))
    else:
        statement = statement.where(Member.status == MemberStatus.pending)
    return list(session.exec(statement.order_by(col(Member.id)).limit(limit)))


def first_message(session: Session, program: Program, contact: Contact, now: datetime) -> tuple[datetime, ZoneInfo] | None:
    """Return when this contact's first message would go out, and the zone that decides it."""
    partner, brand = session.get_one(Partner, contact.partner_id), session.get_one(Brand, contact.brand_id)
    facts = facts_for(
        attributes_of(contact),
        {**partner_attributes(partner), "zone": partner.zone, "language": partner.language},
        {**brand_attributes(brand), "zone": brand.zone},
    )
    return first_message_at(program, facts, now)


def campaigns_by_id(session: Session, viewer: Viewer) -> dict[int, Campaign]:
    """Return the campaigns that the viewer may see."""
    return {row.id: row for row in session.exec(visible(select(Campaign), Campaign, viewer)) if row.id is not None}


def partners_with_words(session: Session, campaign_id: int) -> frozenset[int]:
    """Return the partners who say something of their own to everybody in the campaign."""
    rows = session.exec(select(PartnerBlocks).where(PartnerBlocks.campaign_id == campaign_id))
    return frozenset(row.partner_id for row in rows if row.blocks)


def live_by_journey(session: Session, viewer: Viewer) -> dict[int, int]:
    """Return how many enrollments are live, per journey."""
    statement = visible(select(Enrollment.journey_id, func.count()), Enrollment, viewer).where(Enrollment.status != EnrollmentStatus.ended)
    return dict(session.exec(statement.group_by(col(Enrollment.journey_id))).all())


def partners_using(session: Session, viewer: Viewer, journey_id: int, since: datetime) -> tuple[int, int]:
    """Return how many partners enrolled somebody in the journey since then, and how many active partners there are."""
    using = visible(select(func.count(func.distinct(Enrollment.partner_id))), Enrollment, viewer)
    using = using.where(Enrollment.journey_id == journey_id, col(Enrollment.entered_at) >= since)
    everybody = select(func.count()).select_from(Partner).where(Partner.brand_id == viewer.brand_id, col(Partner.active).is_(True))
    return int(session.exec(using).one()), int(session.exec(everybody).one())
