"""Journeys and their versions. A version's source is never changed after it was submitted."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlmodel import Field, SQLModel, UniqueConstraint

from distmark.db import JSON_TYPE, UTCDateTime


class VersionStatus(StrEnum):
    """The state of a version, from draft to registered in Prefect."""

    draft = "draft"
    submitted = "submitted"
    sent_back = "sent_back"
    approved = "approved"
    registered = "registered"  # it has a Prefect deployment and may take entrants
    retired = "retired"  # takes no entrants; those inside finish


class Journey(SQLModel, table=True):
    """A journey of a brand, over all its versions."""

    __tablename__ = "journey"
    __table_args__ = (UniqueConstraint("brand_id", "key"),)

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id", index=True)
    key: str = Field(index=True)
    name: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # language -> name
    description: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)
    created_at: datetime = Field(sa_type=UTCDateTime)


class JourneyVersion(SQLModel, table=True):
    """One version: definition and templates, frozen by `content_hash` from the moment it is submitted."""

    __tablename__ = "journey_version"
    __table_args__ = (UniqueConstraint("journey_id", "number"),)

    id: int | None = Field(default=None, primary_key=True)
    journey_id: int = Field(foreign_key="journey.id", index=True)
    number: int
    status: VersionStatus = VersionStatus.draft
    content_hash: str
    approved_hash: str | None = None  # what the approver saw; registering and sending compare it with the content
    source: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # journeys.source.Source as JSON
    author_id: int | None = Field(default=None, foreign_key="user_account.id")
    created_at: datetime = Field(sa_type=UTCDateTime)
    submitted_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    decided_by_id: int | None = Field(default=None, foreign_key="user_account.id")
    decided_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    decision_note: str = ""
    registered_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    deployment_id: str | None = None  # Prefect's
