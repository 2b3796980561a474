"""The rows of moves between versions of a journey."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel, UniqueConstraint

from distmark.db import JSON_TYPE, UTCDateTime


class VersionMove(SQLModel, table=True):
    """One move of enrollments from one version of a journey to another."""

    __tablename__ = "version_move"

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    journey_id: int = Field(foreign_key="journey.id", index=True)
    from_version_id: int = Field(foreign_key="journey_version.id")
    to_version_id: int = Field(foreign_key="journey_version.id")
    steps: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # step of the old version -> step of the new one
    moved: int = 0
    by_id: int | None = Field(default=None, foreign_key="user_account.id")
    at: datetime = Field(sa_type=UTCDateTime)
    undone_at: datetime | None = Field(default=None, sa_type=UTCDateTime)


class EarlierPosition(SQLModel, table=True):
    """The position of an enrollment before a move. The move can be undone while the enrollment's count of wakes still equals `wakes`."""

    __tablename__ = "earlier_position"
    __table_args__ = (UniqueConstraint("version_move_id", "enrollment_id"),)

    id: int | None = Field(default=None, primary_key=True)
    version_move_id: int = Field(foreign_key="version_move.id")
    enrollment_id: int = Field(foreign_key="enrollment.id", index=True)
    wakes: int
    position: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # column -> value, times in ISO 8601
