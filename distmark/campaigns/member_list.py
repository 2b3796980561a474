"""Members of campaigns with their contacts, as the campaign page lists them: pending members, one member, and a member's neighbours."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_
from sqlmodel import Session, col, func, select

from distmark.campaigns.table import Campaign, Member, MemberStatus
from distmark.contacts.service import mentions
from distmark.contacts.table import Contact
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require
from distmark.sql import among


def pending_by_campaign(session: Session, viewer: Viewer) -> dict[int, int]:
    """Return the number of pending members per campaign id; a campaign without any is left out."""
    statement = (
        select(Member.campaign_id, func.count())
        .join(Campaign, col(Campaign.id) == col(Member.campaign_id))
        .where(Campaign.brand_id == viewer.brand_id, Member.status == MemberStatus.pending)
        .group_by(col(Member.campaign_id))
    )
    if viewer.partner_id is not None:
        statement = statement.where(Member.partner_id == viewer.partner_id)
    return dict(session.exec(statement).all())


def member_with_contact(session: Session, viewer: Viewer, campaign_id: int, contact_id: int) -> tuple[Member, Contact] | None:
    """Return the campaign's member for this contact, with the contact; None when there is no such member among the viewer's rows.

    NotAllowed without the permission to see contacts.
    """
    require(viewer, Permission.see_contacts)
    statement = (
        visible(select(Member, Contact), Contact, viewer)
        .join(Contact, col(Contact.id) == col(Member.contact_id))
        .where(Member.campaign_id == campaign_id, Member.contact_id == contact_id)
    )
    found = session.exec(statement).first()
    return (found[0], found[1]) if found else None


def contacts_of_members(session: Session, viewer: Viewer, campaign_id: int, member_ids: Collection[int]) -> list[Contact]:
    """Return the contacts of these members of the campaign, in the order of the members; those outside the viewer's sight are left out."""
    statement = (
        visible(select(Contact), Contact, viewer)
        .join(Member, col(Member.contact_id) == col(Contact.id))
        .where(Member.campaign_id == campaign_id, among(session, col(Member.id), member_ids), col(Contact.erased_at).is_(None))
    )
    return list(session.exec(statement.order_by(col(Member.id))))


def with_status(session: Session, status: MemberStatus, blocked: Collection[int]) -> ColumnElement[bool]:
    """Return the condition on a member's status. Pending members that cannot begin, the contacts `blocked`, count as error."""
    own = col(Member.status) == status
    if not blocked or status not in (MemberStatus.pending, MemberStatus.error):
        return own
    among_blocked = among(session, col(Member.contact_id), blocked)
    if status is MemberStatus.pending:
        return and_(own, ~among_blocked)
    return or_(own, and_(col(Member.status) == MemberStatus.pending, among_blocked))


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A member's place in the campaign's table (from 1; 0: not in the table), and the ids of the contacts before and after it."""

    place: int
    before: int | None
    after: int | None


def neighbours(
    session: Session, viewer: Viewer, member: Member, status: MemberStatus | None, text: str, blocked: Collection[int] = ()
) -> Neighbours:
    """Return the member's neighbours in the order of the table with this filter, for the preview's ‹ › buttons."""
    conditions = [col(Member.campaign_id) == member.campaign_id, *mentions(text)]
    if status is not None:
        conditions.append(with_status(session, status, blocked))

    def in_table(column: Any) -> Any:
        joined = select(column).select_from(Member).join(Contact, col(Contact.id) == col(Member.contact_id))
        return visible(joined, Contact, viewer).where(*conditions)

    before = session.exec(in_table(Member.contact_id).where(col(Member.id) < member.id).order_by(col(Member.id).desc()).limit(1)).first()
    after = session.exec(in_table(Member.contact_id).where(col(Member.id) > member.id).order_by(col(Member.id)).limit(1)).first()
    is_shown = session.exec(in_table(Member.id).where(Member.id == member.id)).first() is not None
    earlier_count = session.exec(in_table(func.count()).where(col(Member.id) < member.id)).one()
    return Neighbours(int(earlier_count) + 1 if is_shown else 0, before, after)
