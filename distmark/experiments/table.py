"""The rows of experiments and of the contacts assigned to their arms."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, Index, SQLModel, UniqueConstraint

from distmark.db import JSON_TYPE, UTCDateTime


class Assignment(SQLModel, table=True):
    """A contact's arm in an experiment, over which its numbers are counted. Contacts sent on by its winner have none.

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


class Experiment(SQLModel, table=True):
    """An experiment that a contact entered or a person decided. `arm` is None until it is decided; then every contact takes that arm."""

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
