"""Rolled-up counts. Everything here can be made again from the raw rows."""

from datetime import date, datetime

from sqlmodel import Field, SQLModel, UniqueConstraint

from distmark.db import UTCDateTime


class Count(SQLModel, table=True):
    """The count of `metric` in a version, step, campaign, partner and day (UTC). `step_id` is "" for the journey as a whole."""

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


class EngagedHour(SQLModel, table=True):
    """The opens and clicks of a partner's contacts in an hour of the day on their own clocks, by month (UTC)."""

    __tablename__ = "engaged_hour"
    __table_args__ = (UniqueConstraint("brand_id", "partner_id", "month", "hour"),)

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    partner_id: int = 0  # 0: all partners of the brand
    month: date  # its first day
    hour: int  # 0 to 23
    count: int = 0


class SegmentHour(SQLModel, table=True):
    """The opens and clicks, per segment, of the contacts that were in it at the time."""

    __tablename__ = "segment_hour"
    __table_args__ = (UniqueConstraint("segment_id", "month", "hour"),)

    id: int | None = Field(default=None, primary_key=True)
    segment_id: int = Field(foreign_key="segment.id")
    month: date  # its first day
    hour: int  # 0 to 23
    count: int = 0
