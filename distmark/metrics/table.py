"""Rolled-up counts. Everything here can be made again from the raw rows."""

from datetime import date, datetime

from sqlmodel import Field, SQLModel, UniqueConstraint

from distmark.db import UTCDateTime


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
