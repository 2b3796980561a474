"""Rows of entries: plans of journeys, coming dates, entrances, counts per period, and calls of the API."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Field, Index, SQLModel, UniqueConstraint

from distmark.contacts.table import PERSON_COLUMN
from distmark.db import JSON_TYPE, UTCDateTime


class EntryPlan(SQLModel, table=True):
    """The progress of a journey with entry by date or by segment. One row per such journey.

    `rule` is the entry as its version writes it; when it changes, all contacts are processed again. `reached` is the id of the last contact
    that was processed (None: all of them), `next_at` the time of the next reading of the segment.
    """

    __tablename__ = "entry_plan"

    id: int | None = Field(default=None, primary_key=True)
    journey_id: int = Field(foreign_key="journey.id", unique=True)
    brand_id: int = Field(foreign_key="brand.id")
    version_id: int = Field(foreign_key="journey_version.id")
    rule: str
    since: datetime = Field(sa_type=UTCDateTime)  # dates before this enter nobody; readings of a segment are counted from here
    read_at: datetime = Field(
        sa_type=UTCDateTime
    )  # by date: all contacts changed before then were processed; by segment: the time of the present reading
    reached: int | None = None
    next_at: datetime | None = Field(default=None, sa_type=UTCDateTime)


class EntryDate(SQLModel, table=True):
    """The next time at which a contact enters a journey by a date. Only coming dates have a row, so finding due ones costs little."""

    __tablename__ = "entry_date"
    __table_args__ = (UniqueConstraint("journey_id", "contact_id"), Index("ix_entry_date_due", "due_at"))

    id: int | None = Field(default=None, primary_key=True)
    journey_id: int = Field(foreign_key="journey.id")
    contact_id: int = Field(foreign_key="contact.id", index=True)
    day: date  # the contact's date
    zone: str
    occasion: date  # that date, or the anniversary of it that comes next
    due_at: datetime = Field(sa_type=UTCDateTime)


class Entrance(SQLModel, table=True):
    """A contact's one entrance for one occasion (`key`): by date or segment, or queued because the journey's cap was reached.

    It is unique, so that an occasion enters the contact once however often it is found. `waiting_key` is unique while it is queued.
    """

    __tablename__ = "entrance"
    __table_args__ = (
        UniqueConstraint("journey_id", "contact_id", "key"),
        Index(
            "ix_entrance_waiting",
            "journey_id",
            "asked_at",
            "id",
            sqlite_where=text("settled_at IS NULL"),
            postgresql_where=text("settled_at IS NULL"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    journey_id: int = Field(foreign_key="journey.id")
    contact_id: int = Field(foreign_key="contact.id", index=True)
    campaign_id: int | None = Field(default=None, foreign_key="campaign.id")
    source: str  # campaign | event | segment | date | api
    key: str
    waiting_key: str | None = Field(default=None, unique=True, sa_column_kwargs=PERSON_COLUMN)
    data: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)
    asked_at: datetime = Field(sa_type=UTCDateTime)
    settled_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # None: queued
    verdict: str = ""
    enrollment_id: int | None = Field(default=None, foreign_key="enrollment.id")


class EntryCount(SQLModel, table=True):
    """The number of contacts that entered a capped journey in one period: kept as they enter, so that finding room never counts history."""

    __tablename__ = "entry_count"
    __table_args__ = (UniqueConstraint("journey_id", "period"),)

    id: int | None = Field(default=None, primary_key=True)
    journey_id: int = Field(foreign_key="journey.id")
    period: str  # "day 2026-11-24", on the brand's clock
    entered: int = 0


class EnrolCall(SQLModel, table=True):
    """A call of the API under the caller's own key: the same key gets the same answer, and enters no contact again."""

    __tablename__ = "enrol_call"
    __table_args__ = (UniqueConstraint("user_id", "key"), Index("ix_enrol_call_at", "at"))

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user_account.id")
    key: str
    asked_hash: str  # SHA-256 of the whole call
    answer: list[Any] = Field(default_factory=list, sa_type=JSON_TYPE)
    at: datetime = Field(sa_type=UTCDateTime)
