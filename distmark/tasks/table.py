"""Rows of tasks."""

from datetime import datetime

from sqlmodel import Field, Index, SQLModel, UniqueConstraint

from distmark.db import UTCDateTime


class Task(SQLModel, table=True):
    """A next action for a person, such as a call to a contact. One per enrollment, step and visit."""

    __tablename__ = "task"
    __table_args__ = (UniqueConstraint("enrollment_id", "step_id", "visit"), Index("ix_task_partner", "partner_id", "done_at", "due_at"))

    id: int | None = Field(default=None, primary_key=True)
    enrollment_id: int = Field(foreign_key="enrollment.id")
    step_id: str
    visit: int = 1
    brand_id: int = Field(foreign_key="brand.id")
    partner_id: int = Field(foreign_key="partner.id")
    contact_id: int = Field(foreign_key="contact.id", index=True)
    role: str = "partner"  # whose task: partner | brand
    title: str
    created_at: datetime = Field(sa_type=UTCDateTime)
    due_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    done_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    done_by_id: int | None = Field(default=None, foreign_key="user_account.id")
