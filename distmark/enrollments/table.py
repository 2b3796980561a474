"""Rows of enrollments, their timelines, and the suspensions of scopes."""

from datetime import datetime
from typing import Any

from sqlalchemy import Enum, text
from sqlmodel import Field, Index, SQLModel

from distmark.contacts.table import PERSON_COLUMN
from distmark.db import JSON_TYPE, UTCDateTime
from distmark.enrollments.model import EnrollmentStatus, SuspensionKind, TimelineKind


class Enrollment(SQLModel, table=True):
    """A contact's position in one journey version. The rows are the truth about journeys; Prefect only wakes them.

    `run_key` names the flow run of the enrollment (shared by a cohort) and is the run's idempotency key. A row without `flow_run_id` is in
    the outbox: its run is still to be created. `live_key` is unique while the enrollment is live, so a double click enrols once.
    """

    __tablename__ = "enrollment"
    __table_args__ = (
        Index("ix_enrollment_due", "due_at", sqlite_where=text("status = 'waiting'"), postgresql_where=text("status = 'waiting'")),
        Index("ix_enrollment_outbox", "id", sqlite_where=text("flow_run_id IS NULL"), postgresql_where=text("flow_run_id IS NULL")),
        Index("ix_enrollment_woken", "woken_at", sqlite_where=text("woken_at IS NOT NULL"), postgresql_where=text("woken_at IS NOT NULL")),
        Index(
            "ix_enrollment_held",
            "brand_id",
            sqlite_where=text("status = 'waiting' AND why = 'held'"),
            postgresql_where=text("status = 'waiting' AND why = 'held'"),
        ),
        Index("ix_enrollment_parked", "brand_id", "id", sqlite_where=text("status = 'parked'"), postgresql_where=text("status = 'parked'")),
        Index("ix_enrollment_version_step", "version_id", "status", "step_id"),
        Index("ix_enrollment_partner", "partner_id", "campaign_id", "id"),
        Index("ix_enrollment_entered", "journey_id", "entered_at"),
    )

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    journey_id: int = Field(foreign_key="journey.id")
    version_id: int = Field(foreign_key="journey_version.id")
    campaign_id: int | None = Field(default=None, foreign_key="campaign.id", index=True)
    member_id: int | None = Field(default=None, foreign_key="member.id", index=True)
    partner_id: int = Field(foreign_key="partner.id")
    contact_id: int = Field(foreign_key="contact.id", index=True)
    person_key: str = Field(index=True, sa_column_kwargs=PERSON_COLUMN)
    live_key: str | None = Field(default=None, unique=True, sa_column_kwargs=PERSON_COLUMN)

    status: EnrollmentStatus = EnrollmentStatus.waiting
    step_id: str | None = None  # None: not begun
    arrived_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # at `step_id`
    visits: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # step id -> number of visits
    due_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # None while it waits for an event only
    why: str = ""  # time | event | held | retry | test
    awaits: str | None = None  # the event waited for
    rules: list[Any] = Field(default_factory=list, sa_type=JSON_TYPE)  # the rules that moved `due_at`, in order
    data: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # journey data, frozen at entry
    answers: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # webhook answers by step

    entered_at: datetime = Field(sa_type=UTCDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    outcome: str | None = None
    reason: str = ""

    queue: str = "default"  # the work queue of its run: the queue's worker owns the enrollment
    run_key: str = Field(index=True)
    flow_run_id: str | None = Field(default=None, index=True)
    claimed_by: str | None = None  # the worker process that moves it now
    claimed_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    woken_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # it should wake: something happened
    wakes: int = 0
    tries: int = 0  # wakes in a row in which the step raised
    error: str = ""
    paused_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    alone_since: datetime | None = Field(
        default=None, sa_type=UTCDateTime
    )  # listed in a pause itself: resuming a scope around it leaves it paused
    names: dict[str, Any] | None = Field(
        default=None, sa_type=JSON_TYPE
    )  # version moves: earlier version's id -> step id there -> step id here


class TimelineEntry(SQLModel, table=True):
    """One entry in the timeline of an enrollment, which the roll-up of results counts. Append-only but for `rolled`."""

    __tablename__ = "move"
    __table_args__ = (
        Index("ix_move_unrolled", "id", sqlite_where=text("rolled = 0"), postgresql_where=text("NOT rolled")),
        Index("ix_move_enrollment", "enrollment_id", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    enrollment_id: int = Field(foreign_key="enrollment.id")
    at: datetime = Field(sa_type=UTCDateTime)
    kind: TimelineKind = Field(sa_type=Enum(TimelineKind, name="movekind"))
    step_id: str = ""
    visit: int = 1
    detail: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)
    rolled: bool = False


class Suspension(SQLModel, table=True):
    """A pause or drain of a scope, until it is lifted: it holds existing enrollments and new ones.

    The scope is given by the five ids, at least one of which is set; None means any.
    """

    __tablename__ = "restraint"
    __table_args__ = (
        Index("ix_restraint_open", "brand_id", sqlite_where=text("lifted_at IS NULL"), postgresql_where=text("lifted_at IS NULL")),
    )

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    kind: SuspensionKind = Field(sa_type=Enum(SuspensionKind, name="restraintkind"))
    journey_id: int | None = Field(default=None, foreign_key="journey.id")
    version_id: int | None = Field(default=None, foreign_key="journey_version.id")
    campaign_id: int | None = Field(default=None, foreign_key="campaign.id")
    partner_id: int | None = Field(default=None, foreign_key="partner.id")
    contact_id: int | None = Field(default=None, foreign_key="contact.id", index=True)
    reason: str = ""
    by_id: int | None = Field(default=None, foreign_key="user_account.id")
    by_partner: bool = False  # made by a partner's people; only the brand's people lift what the brand made
    at: datetime = Field(sa_type=UTCDateTime)
    lifted_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
