"""Rows of segments and of their members."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Field, Index, SQLModel, UniqueConstraint

from distmark.db import JSON_TYPE, UTCDateTime


class Segment(SQLModel, table=True):
    """A named group of contacts, of the whole brand or (with `partner_id`) of one partner's book.

    Without a `rule` its members are listed by hand. A rule is an expression over the contact; `revision` counts its changes, and `reached`
    is the id of the last contact for which the newest revision was evaluated (None: all).
    """

    __tablename__ = "segment"
    __table_args__ = (
        UniqueConstraint("brand_id", "partner_id", "key"),
        # In a unique constraint no NULL equals another.
        Index(
            "ix_segment_brand_wide",
            "brand_id",
            "key",
            unique=True,
            sqlite_where=text("partner_id IS NULL"),
            postgresql_where=text("partner_id IS NULL"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    partner_id: int | None = Field(default=None, foreign_key="partner.id", index=True)
    key: str
    name: str
    rule: str | None = None
    fields: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # attribute -> text | number | bool | date, as in journeys
    revision: int = 1
    reached: int | None = None
    judged_on: date | None = None  # the brand's day on which the evaluation of a rule about time last started
    created_by_id: int | None = Field(default=None, foreign_key="user_account.id")
    created_at: datetime = Field(sa_type=UTCDateTime)


class SegmentMember(SQLModel, table=True):
    """A contact that is, or (with `left_at`) was, in a segment. Rows are never deleted, and an evaluation changes no lasting membership."""

    __tablename__ = "segment_member"
    __table_args__ = (
        UniqueConstraint("segment_id", "contact_id"),
        Index("ix_segment_member_in", "contact_id", sqlite_where=text("left_at IS NULL"), postgresql_where=text("left_at IS NULL")),
        Index("ix_segment_member_untold", "id", sqlite_where=text("told = 0"), postgresql_where=text("NOT told")),
    )

    id: int | None = Field(default=None, primary_key=True)
    segment_id: int = Field(foreign_key="segment.id")
    contact_id: int = Field(foreign_key="contact.id")
    joined_at: datetime = Field(sa_type=UTCDateTime)
    left_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    told: bool = False  # whether the joining or leaving was dispatched to the journeys
