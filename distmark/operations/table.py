"""The rows of alarms, and the row that is written to see whether the database takes writes."""

from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Field, Index, SQLModel

from distmark.db import JSON_TYPE, UTCDateTime
from distmark.operations.model import AlarmKind


class Alarm(SQLModel, table=True):
    """Something that should move and does not. One open row per journey version and kind; closed rows are the history."""

    __tablename__ = "alarm"
    __table_args__ = (
        Index(
            "ix_alarm_open",
            "version_id",
            "kind",
            unique=True,
            sqlite_where=text("cleared_at IS NULL"),
            postgresql_where=text("cleared_at IS NULL"),
        ),
        Index("ix_alarm_brand", "brand_id", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    journey_id: int = Field(foreign_key="journey.id")
    version_id: int = Field(foreign_key="journey_version.id")
    kind: AlarmKind
    detail: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # counts and times; nobody's data
    raised_at: datetime = Field(sa_type=UTCDateTime)
    cleared_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    told_raised_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # when the webhook had it
    told_cleared_at: datetime | None = Field(default=None, sa_type=UTCDateTime)


class WriteProbe(SQLModel, table=True):
    """The one row that `/readyz` writes: a database may answer questions and take no writes, as on a full disk."""

    __tablename__ = "write_probe"

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    at: datetime = Field(sa_type=UTCDateTime)
