"""Where each contact stands, what happened to them, and what people were asked to do about it."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Field, Index, SQLModel, UniqueConstraint

from distmark.db import JSON_TYPE, UTCDateTime
from distmark.enrollments.model import AlarmKind, EnrollmentStatus, MoveKind, RestraintKind


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
    alone_since: datetime | None = Field(default=None, sa_type=UTCDateTime)  # paused by itself: resuming what is around it leaves it paused
    names: dict[str, Any] | None = Field(default=None, sa_type=JSON_TYPE)  # earlier version's id -> its step -> the step here, where moved


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


class EntryPlan(SQLModel, table=True):
    """How far a journey that takes contacts by date or by segment has come, by itself. One row per such journey.

    `rule` is the entry as its version writes it; when it changes, everybody is looked at again. `reached` is the id of the last contact
    that was looked at (None: all), `next_at` when the segment is read again.
    """

    __tablename__ = "entry_plan"

    id: int | None = Field(default=None, primary_key=True)
    journey_id: int = Field(foreign_key="journey.id", unique=True)
    brand_id: int = Field(foreign_key="brand.id")
    version_id: int = Field(foreign_key="journey_version.id")
    rule: str
    since: datetime = Field(sa_type=UTCDateTime)  # dates before this enter nobody; readings of a segment count from here
    read_at: datetime = Field(sa_type=UTCDateTime)  # when every changed contact had last been looked at; which reading this is
    reached: int | None = None
    next_at: datetime | None = Field(default=None, sa_type=UTCDateTime)


class EntryDate(SQLModel, table=True):
    """When a contact next enters a journey by a date of theirs. Only coming dates have a row, so finding those due costs what is due."""

    __tablename__ = "entry_date"
    __table_args__ = (UniqueConstraint("journey_id", "contact_id"), Index("ix_entry_date_due", "due_at"))

    id: int | None = Field(default=None, primary_key=True)
    journey_id: int = Field(foreign_key="journey.id")
    contact_id: int = Field(foreign_key="contact.id", index=True)
    day: date  # the contact's date
    zone: str
    occasion: date  # that date, or the anniversary of it that is meant
    due_at: datetime = Field(sa_type=UTCDateTime)


class Entrance(SQLModel, table=True):
    """A contact's one entrance for one occasion (`key`): a dated one, or one that waits outside because of the journey's cap.

    It is unique, so that an occasion is used once however often it is found. `waiting_key` is unique while it waits.
    """

    __tablename__ = "entrance"
    __table_args__ = (
        UniqueConstraint("journey_id", "contact_id", "key"),
        Index(
            "ix_entrance_waiting",
            "journey_id",
            "asked_at",
            "id",
            sqlite_where=text("settled_at IS NULL"),
            postgresql_where=text("settled_at IS NULL"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    journey_id: int = Field(foreign_key="journey.id")
    contact_id: int = Field(foreign_key="contact.id", index=True)
    campaign_id: int | None = Field(default=None, foreign_key="campaign.id")
    source: str  # campaign | event | segment | date | api
    key: str
    waiting_key: str | None = Field(default=None, unique=True)
    data: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)
    asked_at: datetime = Field(sa_type=UTCDateTime)
    settled_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # None: waits for room
    verdict: str = ""
    enrollment_id: int | None = Field(default=None, foreign_key="enrollment.id")


class EntryCount(SQLModel, table=True):
    """How many entered a capped journey in one period: counted where they enter, so that finding room never counts history."""

    __tablename__ = "entry_count"
    __table_args__ = (UniqueConstraint("journey_id", "period"),)

    id: int | None = Field(default=None, primary_key=True)
    journey_id: int = Field(foreign_key="journey.id")
    period: str  # "day 2026-11-24", on the brand's clock
    entered: int = 0


class EnrolCall(SQLModel, table=True):
    """A call of the API under a key of the caller's: the same key gets the same answer, and enters nobody again."""

    __tablename__ = "enrol_call"
    __table_args__ = (UniqueConstraint("user_id", "key"), Index("ix_enrol_call_at", "at"))

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user_account.id")
    key: str
    asked_hash: str  # SHA-256 of what was asked
    answer: list[Any] = Field(default_factory=list, sa_type=JSON_TYPE)
    at: datetime = Field(sa_type=UTCDateTime)


class Restraint(SQLModel, table=True):
    """A part of a brand's enrollments that people paused, or that takes nobody new. What is None may be anything.

    It holds for those who come later, too, until it is lifted. At least one of the five is set.
    """

    __tablename__ = "restraint"
    __table_args__ = (
        Index("ix_restraint_open", "brand_id", sqlite_where=text("lifted_at IS NULL"), postgresql_where=text("lifted_at IS NULL")),
    )

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    kind: RestraintKind
    journey_id: int | None = Field(default=None, foreign_key="journey.id")
    version_id: int | None = Field(default=None, foreign_key="journey_version.id")
    campaign_id: int | None = Field(default=None, foreign_key="campaign.id")
    partner_id: int | None = Field(default=None, foreign_key="partner.id")
    contact_id: int | None = Field(default=None, foreign_key="contact.id", index=True)
    reason: str = ""
    by_id: int | None = Field(default=None, foreign_key="user_account.id")
    by_partner: bool = False  # made by a partner's person; what the brand's people made, only they lift
    at: datetime = Field(sa_type=UTCDateTime)
    lifted_at: datetime | None = Field(default=None, sa_type=UTCDateTime)


class VersionMove(SQLModel, table=True):
    """One act of moving people from one version of a journey to another."""

    __tablename__ = "version_move"

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    journey_id: int = Field(foreign_key="journey.id", index=True)
    from_version_id: int = Field(foreign_key="journey_version.id")
    to_version_id: int = Field(foreign_key="journey_version.id")
    steps: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # every step with a place in the new version -> that place
    moved: int = 0
    by_id: int | None = Field(default=None, foreign_key="user_account.id")
    at: datetime = Field(sa_type=UTCDateTime)
    undone_at: datetime | None = Field(default=None, sa_type=UTCDateTime)


class EarlierPosition(SQLModel, table=True):
    """Where an enrollment stood before it was moved. Good for going back until it wakes: `wakes` is how often it had when it was moved."""

    __tablename__ = "earlier_position"
    __table_args__ = (UniqueConstraint("version_move_id", "enrollment_id"),)

    id: int | None = Field(default=None, primary_key=True)
    version_move_id: int = Field(foreign_key="version_move.id")
    enrollment_id: int = Field(foreign_key="enrollment.id", index=True)
    wakes: int
    position: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # column -> value, times in ISO 8601


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
