"""Rows of the audit trail, append-only."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, Index, SQLModel

from distmark.db import JSON_TYPE, UTCDateTime


class AuditEntry(SQLModel, table=True):
    """One act of a person or the system. Never updated, never deleted."""

    __tablename__ = "audit_entry"
    __table_args__ = (Index("ix_audit_entry_subject", "subject_kind", "subject_id", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id", index=True)
    at: datetime = Field(sa_type=UTCDateTime)
    user_id: int | None = Field(default=None, foreign_key="user_account.id")  # None: the system
    action: str  # past tense: submitted, approved, sent_back, registered, enrolled, stopped ...
    subject_kind: str  # journey_version | campaign | member | enrollment | contact
    subject_id: int
    content_hash: str | None = None
    detail: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)
