"""Engagement events, raw and judged. Append-only but for `rolled`."""

from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Field, Index, SQLModel

from distmark.db import JSON_TYPE, UTCDateTime
from distmark.engagement.model import EventKind, Verdict


class Event(SQLModel, table=True):
    """One thing a contact did (or a machine on their behalf). `natural_key` makes a repeat of the same event the same row."""

    __tablename__ = "engagement_event"
    __table_args__ = (
        Index("ix_engagement_event_unrolled", "id", sqlite_where=text("rolled = 0"), postgresql_where=text("NOT rolled")),
        Index("ix_engagement_event_contact", "contact_id", "at"),
        Index("ix_engagement_event_message", "message_id", "kind"),
    )

    id: int | None = Field(default=None, primary_key=True)
    natural_key: str = Field(unique=True)
    # Of an event that another system told: the same for a repetition. "" for all others, and for those of before it was kept.
    content_hash: str = Field(default="", sa_column_kwargs={"server_default": text("''")})
    kind: EventKind
    name: str = ""  # of a custom event or conversion
    verdict: Verdict = Verdict.human
    at: datetime = Field(sa_type=UTCDateTime)
    received_at: datetime = Field(sa_type=UTCDateTime)
    brand_id: int = Field(foreign_key="brand.id")
    partner_id: int = Field(foreign_key="partner.id")
    contact_id: int = Field(foreign_key="contact.id")
    enrollment_id: int | None = Field(default=None, foreign_key="enrollment.id", index=True)
    message_id: int | None = Field(default=None, foreign_key="message.id")
    link: str = ""
    value: float | None = None  # of a conversion, in the brand's currency
    data: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)
    user_agent: str = ""
    first: bool = False  # the first of its kind (and link) by a human on this message: what unique counts count
    rolled: bool = False
