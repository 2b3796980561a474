"""Rows of drafts: texts that a person typed and has not saved yet."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel, UniqueConstraint

from distmark.db import JSON_TYPE, UTCDateTime


class Draft(SQLModel, table=True):
    """The typed and unsaved fields of one person in one form; `place` names the form and its subject."""

    __tablename__ = "draft"
    __table_args__ = (UniqueConstraint("user_id", "place"),)

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user_account.id")
    place: str
    fields: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # field of the form -> text
    updated_at: datetime = Field(sa_type=UTCDateTime)
