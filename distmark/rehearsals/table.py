"""Rows of rehearsals: user, version, options, and the clock. The enrollment of a rehearsal is in its sandbox."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlmodel import Field, Index, SQLModel

from distmark.db import JSON_TYPE, UTCDateTime

SIGN_OF_LIFE = timedelta(seconds=30)  # real time without a sign of life after which a rehearsal counts as interrupted


class RehearsalStatus(StrEnum):
    """The status of a rehearsal. `interrupted` is never stored: it means running, while the process of the runner is gone."""

    running = "running"
    finished = "finished"  # the journey ended
    stopped = "stopped"  # by the person, or because it was left alone for too long
    failed = "failed"
    interrupted = "interrupted"


class Rehearsal(SQLModel, table=True):
    """One rehearsal of a version by one user, seen by that user alone. `key` names its sandbox and is part of its links.

    The rehearsal's clock read `clock_at` when the wall clock read `set_at`, and reads `next_at` at `next_set_at`. In between it runs
    evenly.
    """

    __tablename__ = "rehearsal"
    __table_args__ = (Index("ix_rehearsal_user", "user_id", "version_id", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(unique=True)
    brand_id: int = Field(foreign_key="brand.id")
    user_id: int = Field(foreign_key="user_account.id")
    version_id: int = Field(foreign_key="journey_version.id")
    partner_id: int = Field(foreign_key="partner.id")
    campaign_id: int | None = Field(default=None, foreign_key="campaign.id")
    language: str
    seconds_per_wait: int
    has_phone: bool = True
    data: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # attributes of the contact: name -> value
    status: RehearsalStatus = RehearsalStatus.running
    reason: str = ""
    began_at: datetime = Field(sa_type=UTCDateTime)
    clock_at: datetime = Field(sa_type=UTCDateTime)
    set_at: datetime = Field(sa_type=UTCDateTime)
    next_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    next_set_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    seen_at: datetime = Field(sa_type=UTCDateTime)  # wall clock: the runner's last sign of life
    stop_asked: bool = False
    go_on_asked: bool = False

    def is_silent(self, wall: datetime) -> bool:
        """Say whether the runner has given no sign of life for `SIGN_OF_LIFE`."""
        return wall - self.seen_at > SIGN_OF_LIFE

    def state(self, wall: datetime) -> RehearsalStatus:
        """Return the status as it is now: a running rehearsal without a sign of life is interrupted."""
        gone = self.status is RehearsalStatus.running and self.is_silent(wall)
        return RehearsalStatus.interrupted if gone else self.status

    def now(self, wall: datetime) -> datetime:
        """Return the time of the rehearsal's clock when the wall clock reads `wall`. It never passes the next wake."""
        passed = max(wall - self.set_at, timedelta(0))
        if self.status is not RehearsalStatus.running or self.next_at is None or self.next_set_at is None:
            return self.clock_at + passed
        whole = self.next_set_at - self.set_at
        share = min(passed / whole, 0.999) if whole > timedelta(0) else 0.999
        return self.clock_at + (self.next_at - self.clock_at) * share

    def seconds_left(self, wall: datetime) -> int | None:
        """Return the real seconds until the journey goes on by itself; None when only an event moves it."""
        return None if self.next_set_at is None else max(0, round((self.next_set_at - wall).total_seconds()))
