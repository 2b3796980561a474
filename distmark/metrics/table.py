"""Rolled-up counts. Everything here can be made again from the raw rows."""

from datetime import date, datetime
from typing import Any

from sqlmodel import Field, Index, SQLModel, UniqueConstraint

from distmark.db import JSON_TYPE, UTCDateTime


class Count(SQLModel, table=True):
    """How often `metric` happened in a version, step, campaign, partner and day (UTC). `step_id` is "" for the journey as a whole."""

    __tablename__ = "metric_count"
    __table_args__ = (UniqueConstraint("version_id", "step_id", "campaign_id", "partner_id", "day", "metric"),)

    id: int | None = Field(default=None, primary_key=True)
    version_id: int = Field(foreign_key="journey_version.id")
    step_id: str = ""
    campaign_id: int = 0  # 0: none
    partner_id: int = Field(foreign_key="partner.id", index=True)
    day: date
    metric: str
    count: int = 0
    value: float = 0.0


class RollUp(SQLModel, table=True):
    """One run of the results flow."""

    __tablename__ = "roll_up"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=UTCDateTime)
    events: int
    moves: int
    seconds: float


class SplitEntry(SQLModel, table=True):
    """A contact's entry into an arm of a test: whom the test's numbers are counted over. Those who were sent by its winner have none.

    It holds plain ids, like a count: its foreign keys would make the roll-up wait for every enrollment that is being walked.
    """

    __tablename__ = "split_entry"
    __table_args__ = (
        UniqueConstraint("version_id", "step_id", "enrollment_id"),
        Index("ix_split_entry_contact", "version_id", "step_id", "contact_id", "at"),
    )

    id: int | None = Field(default=None, primary_key=True)
    version_id: int
    step_id: str
    enrollment_id: int
    contact_id: int
    arm: str
    at: datetime = Field(sa_type=UTCDateTime)


class SplitRun(SQLModel, table=True):
    """A test that somebody entered or decided. `arm` is None until it is decided; then everybody who comes or waits takes that arm."""

    __tablename__ = "split_run"
    __table_args__ = (UniqueConstraint("version_id", "step_id"),)

    id: int | None = Field(default=None, primary_key=True)
    version_id: int = Field(foreign_key="journey_version.id")
    step_id: str
    began_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # when the first contact entered an arm
    due_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # when its results are read
    look_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # when the rule looks next; None: a person decides
    arm: str | None = None
    decided_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    decided_by_id: int | None = Field(default=None, foreign_key="user_account.id")  # None: the rule
    numbers: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # each arm's at the decision


class EngagedHour(SQLModel, table=True):
    """How often a partner's contacts opened and clicked in an hour of the day on their own clocks, by month (UTC)."""

    __tablename__ = "engaged_hour"
    __table_args__ = (UniqueConstraint("brand_id", "partner_id", "month", "hour"),)

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    partner_id: int = 0  # 0: all partners of the brand
    month: date  # its first day
    hour: int  # 0 to 23
    count: int = 0


class SegmentHour(SQLModel, table=True):
    """The same of the contacts who were in a segment when they did, for each segment."""

    __tablename__ = "segment_hour"
    __table_args__ = (UniqueConstraint("segment_id", "month", "hour"),)

    id: int | None = Field(default=None, primary_key=True)
    segment_id: int = Field(foreign_key="segment.id")
    month: date  # its first day
    hour: int  # 0 to 23
    count: int = 0
