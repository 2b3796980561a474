"""Rows of campaigns, their members, and the partners' texts of their blocks."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlmodel import Field, Index, SQLModel, UniqueConstraint

from distmark.db import JSON_TYPE, UTCDateTime


class CampaignStatus(StrEnum):
    """The status of a campaign: whether partners may enrol, and whether its enrollments move."""

    draft = "draft"
    open = "open"
    paused = "paused"
    closed = "closed"


class MemberStatus(StrEnum):
    """The partner's decision about a member."""

    pending = "pending"
    approved = "approved"
    rejected = "rejected"
    error = "error"


class Campaign(SQLModel, table=True):
    """A journey offered to one partner, or to every partner of the brand (`partner_id` None)."""

    __tablename__ = "campaign"
    __table_args__ = (UniqueConstraint("brand_id", "key"),)

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id", index=True)
    partner_id: int | None = Field(default=None, foreign_key="partner.id", index=True)
    journey_id: int = Field(foreign_key="journey.id", index=True)
    key: str
    name: str
    status: CampaignStatus = CampaignStatus.open
    blocks: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # language -> block -> value: the brand's defaults here
    contacts_per_run: int = 1
    translations: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # language -> name in that language
    created_by_id: int | None = Field(default=None, foreign_key="user_account.id")
    created_at: datetime = Field(sa_type=UTCDateTime)


class Member(SQLModel, table=True):
    """A contact in a campaign, before and after enrolling."""

    __tablename__ = "member"
    __table_args__ = (UniqueConstraint("campaign_id", "contact_id"), Index("ix_member_partner", "partner_id", "campaign_id", "id"))

    id: int | None = Field(default=None, primary_key=True)
    campaign_id: int = Field(foreign_key="campaign.id")
    partner_id: int = Field(foreign_key="partner.id")
    contact_id: int = Field(foreign_key="contact.id", index=True)
    status: MemberStatus = MemberStatus.pending
    blocks: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # language -> block -> value, for this member alone
    # language -> block -> value: the words that the partner sent with, kept when one of them is changed later; None: no change since
    agreed_words: dict[str, Any] | None = Field(default=None, sa_type=JSON_TYPE, nullable=True)
    added_at: datetime = Field(sa_type=UTCDateTime)
    added_by_id: int | None = Field(default=None, foreign_key="user_account.id")
    decided_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    error: str = ""  # the verdict by which it could not be enrolled after it was approved


class PartnerBlocks(SQLModel, table=True):
    """A partner's texts of the blocks of a campaign, for all its members: the layer between the brand's texts and one member's."""

    __tablename__ = "partner_blocks"
    __table_args__ = (UniqueConstraint("campaign_id", "partner_id"),)

    id: int | None = Field(default=None, primary_key=True)
    campaign_id: int = Field(foreign_key="campaign.id")
    partner_id: int = Field(foreign_key="partner.id")
    blocks: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # language -> block -> value
    updated_at: datetime = Field(sa_type=UTCDateTime)
