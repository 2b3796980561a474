"""Tests that people made of journeys: whose, of which version, and where its clock stands. Who is in it lives on a stage of its own."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlmodel import Field, Index, SQLModel

from distmark.db import JSON_TYPE, UTCDateTime

SIGN_OF_LIFE = timedelta(seconds=30)  # real time without one after which whoever walked the test is gone


class RehearsalStatus(StrEnum):
    """Where a test stands. `interrupted` is never stored: it is a running one whose process is gone."""

    running = "running"
    finished = "finished"  # the journey ended
    stopped = "stopped"  # by the person, or because it was left alone for too long
    failed = "failed"
    interrupted = "interrupted"


class Rehearsal(SQLModel, table=True):
    """One test of a version by one person, seen by that person alone. `key` names its stage and stands in its links.

    Its journey's clock read `clock_at` when the wall clock read `set_at`, and reads `next_at` at `next_set_at`; between them it runs
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
    data: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # what is known of the person: attribute -> value
    status: RehearsalStatus = RehearsalStatus.running
    reason: str = ""
    began_at: datetime = Field(sa_type=UTCDateTime)
    clock_at: datetime = Field(sa_type=UTCDateTime)
    set_at: datetime = Field(sa_type=UTCDateTime)
    next_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    next_set_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    seen_at: datetime = Field(sa_type=UTCDateTime)  # wall clock: the last sign of life of whoever walks it
    stop_asked: bool = False
    go_on_asked: bool = False

    def is_silent(self, wall: datetime) -> bool:
        """Say whether whoever walks it gives no sign of life any more."""
        return wall - self.seen_at > SIGN_OF_LIFE

    def state(self, wall: datetime) -> RehearsalStatus:
        """Return the status as it is now: a running test that nobody walks any more is interrupted."""
        gone = self.status is RehearsalStatus.running and self.is_silent(wall)
        return RehearsalStatus.interrupted if gone else self.status

    def now(self, wall: datetime) -> datetime:
        """Return what the journey's clock reads when the wall clock reads `wall`. It never runs past the next wake."""
        passed = max(wall - self.set_at, timedelta(0))
        if self.status is not RehearsalStatus.running or self.next_at is None or self.next_set_at is None:
            return self.clock_at + passed
        whole = self.next_set_at - self.set_at
        share = min(passed / whole, 0.999) if whole > timedelta(0) else 0.999
        return self.clock_at + (self.next_at - self.clock_at) * share

    def seconds_left(self, wall: datetime) -> int | None:
        """Return in how many real seconds the journey goes on by itself; None when only news moves it."""
        return None if self.next_set_at is None else max(0, round((self.next_set_at - wall).total_seconds()))
