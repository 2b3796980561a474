"""Where each contact stands, what happened to them, and what people were asked to do about it."""

from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Field, Index, SQLModel, UniqueConstraint

from distmark.db import JSON_TYPE, UTCDateTime
from distmark.enrollments.model import EnrollmentStatus, MoveKind


class Enrollment(SQLModel, table=True):
    """A contact's position in one journey version. The truth about journeys; Prefect only wakes it.

    `run_key` names the flow run that carries it (shared by a cohort) and is the run's idempotency key. A row without `flow_run_id` is the
    outbox: its run is still to be created. `live_key` is unique while the enrollment lives, so a double click enrols once.
    """

    __tablename__ = "enrollment"
    __table_args__ = (
        Index("ix_enrollment_due", "due_at", sqlite_where=text("status = 'waiting'"), postgresql_where=text("status = 'waiting'")),
        Index("ix_enrollment_outbox", "id", sqlite_where=text("flow_run_id IS NULL"), postgresql_where=text("flow_run_id IS NULL")),
        Index("ix_enrollment_woken", "woken_at", sqlite_where=text("woken_at IS NOT NULL"), postgresql_where=text("woken_at IS NOT NULL")),
        Index("ix_enrollment_version_step", "version_id", "status", "step_id"),
        Index("ix_enrollment_partner", "partner_id", "campaign_id", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    journey_id: int = Field(foreign_key="journey.id")
    version_id: int = Field(foreign_key="journey_version.id")
    campaign_id: int | None = Field(default=None, foreign_key="campaign.id", index=True)
    member_id: int | None = Field(default=None, foreign_key="member.id", index=True)
    partner_id: int = Field(foreign_key="partner.id")
    contact_id: int = Field(foreign_key="contact.id", index=True)
    person_key: str = Field(index=True)
    live_key: str | None = Field(default=None, unique=True)

    status: EnrollmentStatus = EnrollmentStatus.waiting
    step_id: str | None = None  # None: not begun
    arrived_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # at `step_id`
    visits: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # step -> how often it was reached
    due_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # None while waiting: only an event wakes it
    why: str = ""  # time | event | held | retry | test
    awaits: str | None = None  # the event waited for
    rules: list[Any] = Field(default_factory=list, sa_type=JSON_TYPE)  # which rules moved due_at, in order
    data: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # journey data, frozen at entry
    answers: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # webhook answers by step

    entered_at: datetime = Field(sa_type=UTCDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    outcome: str | None = None
    reason: str = ""

    queue: str = "default"  # the work queue its run waits in, and so the worker that owns it
    run_key: str = Field(index=True)
    flow_run_id: str | None = Field(default=None, index=True)
    claimed_by: str | None = None  # the worker process walking it now
    claimed_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    woken_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # something happened that it should look at now
    wakes: int = 0
    tries: int = 0  # wakes in a row whose step raised
    error: str = ""
    paused_at: datetime | None = Field(default=None, sa_type=UTCDateTime)


class Move(SQLModel, table=True):
    """One thing that happened to an enrollment: its timeline, and what the roll-up counts. Append-only but for `rolled`."""

    __tablename__ = "move"
    __table_args__ = (
        Index("ix_move_unrolled", "id", sqlite_where=text("rolled = 0"), postgresql_where=text("NOT rolled")),
        Index("ix_move_enrollment", "enrollment_id", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    enrollment_id: int = Field(foreign_key="enrollment.id")
    at: datetime = Field(sa_type=UTCDateTime)
    kind: MoveKind
    step_id: str = ""
    visit: int = 1
    detail: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)
    rolled: bool = False


class Task(SQLModel, table=True):
    """A next action for a person: call her today. One per enrollment, step and visit."""

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
