"""The ledger: one row per (enrollment, step, visit), its status and its attempts."""

from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Field, Index, SQLModel, UniqueConstraint

from distmark.db import JSON_TYPE, UTCDateTime
from distmark.messages.model import MessageStatus


class Message(SQLModel, table=True):
    """One message to one person. The unique key is what makes sending happen once."""

    __tablename__ = "message"
    __table_args__ = (
        UniqueConstraint("enrollment_id", "step_id", "visit"),
        Index("ix_message_contact", "contact_id", "created_at"),
        Index("ix_message_version_step", "version_id", "step_id", "status"),
        Index("ix_message_partner", "partner_id", "id"),
        Index(
            "ix_message_uncertain",
            "brand_id",
            "id",
            sqlite_where=text("status = 'uncertain'"),
            postgresql_where=text("status = 'uncertain'"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    token: str = Field(unique=True)  # 128 random bits, in every public link of this message
    header_id: str = Field(unique=True)  # the Message-ID, the same on every attempt
    enrollment_id: int = Field(foreign_key="enrollment.id")
    step_id: str
    visit: int = 1
    brand_id: int = Field(foreign_key="brand.id")
    partner_id: int = Field(foreign_key="partner.id")
    contact_id: int = Field(foreign_key="contact.id")
    campaign_id: int | None = Field(default=None, foreign_key="campaign.id")
    version_id: int = Field(foreign_key="journey_version.id")
    channel: str
    name: str  # the message's name in the definition
    language: str
    marketing: bool = True
    subject: str = ""
    links: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # link name -> target, as rendered for this person

    status: MessageStatus = MessageStatus.queued
    attempts: int = 0
    claimed_by: str | None = None
    created_at: datetime = Field(sa_type=UTCDateTime)
    sending_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    sent_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    next_try_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    code: str = ""
    detail: str = ""  # the peer's words, without addresses

    opened_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # first by a human, or implied by a human click
    machine_opened_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    clicked_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # first by a human
    clicks: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # link name -> first human click, ISO 8601
    replied_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    bounced_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    unsubscribed_at: datetime | None = Field(default=None, sa_type=UTCDateTime)


class Attempt(SQLModel, table=True):
    """One try at handing a message over."""

    __tablename__ = "attempt"

    id: int | None = Field(default=None, primary_key=True)
    message_id: int = Field(foreign_key="message.id", index=True)
    at: datetime = Field(sa_type=UTCDateTime)
    status: MessageStatus
    code: str = ""
    detail: str = ""
