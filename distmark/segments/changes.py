"""Membership changes: contacts that joined or left a segment, kept until they were dispatched to the journeys."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import update
from sqlmodel import Session, col, select

from distmark.contacts.table import Contact
from distmark.segments.table import Segment, SegmentMember
from distmark.sql import among, id_of

BATCH = 1000  # changes dispatched in one transaction


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """A contact's joining (`joined`) or leaving of a segment that was not dispatched to the journeys yet."""

    member_id: int
    segment_id: int
    key: str
    brand_id: int
    contact_id: int
    person_key: str
    joined: bool
    joined_at: datetime

    @property
    def occasion(self) -> str:
        """The key of this joining: a contact that leaves and joins again has another one."""
        return joining_key(self.member_id, self.joined_at)


def joining_key(member_id: int, joined_at: datetime) -> str:
    """Return the key of one joining of one contact."""
    return f"segment:{member_id}:{joined_at.isoformat()}"


def pending_changes(session: Session, limit: int = BATCH) -> list[MembershipChange]:
    """Return the next changes that were not dispatched, oldest first, locked until the unit of work ends."""
    rows = session.execute(
        select(SegmentMember, Segment.key, Segment.brand_id, Contact.person_key)
        .join(Segment, col(Segment.id) == col(SegmentMember.segment_id))
        .join(Contact, col(Contact.id) == col(SegmentMember.contact_id))
        .where(col(SegmentMember.told).is_(False))
        .order_by(col(SegmentMember.id))
        .limit(limit)
        .with_for_update(of=SegmentMember, skip_locked=True)
    ).all()
    return [
        MembershipChange(id_of(row), row.segment_id, key, brand_id, row.contact_id, person_key, row.left_at is None, row.joined_at)
        for row, key, brand_id, person_key in rows
    ]


def mark_dispatched(session: Session, changes: Sequence[MembershipChange]) -> None:
    """Note that these changes were dispatched."""
    ids = [change.member_id for change in changes]
    session.execute(update(SegmentMember).where(among(session, col(SegmentMember.id), ids)).values(told=True))
