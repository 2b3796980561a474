"""Contacts that joined or left a segment, kept until journeys were informed."""

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
    """A contact that joined a segment (`joined`) or left it, and whom no journey was told of yet."""

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
        """What names this joining among all: whoever leaves and joins again has another."""
        return occasion_of(self.member_id, self.joined_at)


def occasion_of(member_id: int, joined_at: datetime) -> str:
    """Return the name of one joining of one contact."""
    return f"segment:{member_id}:{joined_at.isoformat()}"


def pending_changes(session: Session, limit: int = BATCH) -> list[MembershipChange]:
    """Return who joined or left and no journey knows yet, oldest first, locked until the unit of work ends."""
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


def mark_dispatched(session: Session, passages: Sequence[MembershipChange]) -> None:
    """Note that journeys know of these."""
    ids = [passage.member_id for passage in passages]
    session.execute(update(SegmentMember).where(among(session, col(SegmentMember.id), ids)).values(told=True))
