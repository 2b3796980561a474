"""The only reader of the wall clock. Time may run faster in demos and tests; nothing else knows."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

LATENESS_FORGIVEN_SECONDS = 20.0


class Clock(Protocol):
    """The source of `now`. All datetimes are aware UTC."""

    def now(self) -> datetime:
        """Return the present moment, aware UTC."""
        ...

    def wall(self, at: datetime) -> datetime:
        """Return the wall-clock time at which `now()` will read `at`, for Prefect's schedules."""
        ...

    def effective(self, due_at: datetime | None) -> datetime:
        """Return the moment that a wake due at `due_at` counts as happening."""
        ...

    def in_real(self, span: timedelta) -> datetime:
        """Return what `now()` will read when `span` of real time has passed: for retries, which wait for machines, not for people."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clock: one second a second."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wall(self, at: datetime) -> datetime:
        return at

    def effective(self, due_at: datetime | None) -> datetime:
        return self.now()

    def in_real(self, span: timedelta) -> datetime:
        return self.now() + span


@dataclass(frozen=True, slots=True)
class FastClock:
    """A clock that reads `origin` at `wall_origin` and runs `speed` times faster. Only for demos and tests.

    The machine's own lateness is multiplied by `speed` too: half a second late would read as hours, and a message due at 09:00 would
    meet the quiet hours of the night. So a wake at most `LATENESS_FORGIVEN_SECONDS` of wall time late counts as on time.
    """

    speed: float
    wall_origin: datetime
    origin: datetime

    def now(self) -> datetime:
        return self.origin + (datetime.now(UTC) - self.wall_origin) * self.speed

    def wall(self, at: datetime) -> datetime:
        try:
            return self.wall_origin + (at - self.origin) / self.speed
        except OverflowError:
            return at

    def effective(self, due_at: datetime | None) -> datetime:
        now = self.now()
        if due_at is not None and due_at <= now < due_at + timedelta(seconds=LATENESS_FORGIVEN_SECONDS * self.speed):
            return due_at
        return now

    def in_real(self, span: timedelta) -> datetime:
        return self.now() + span * self.speed


@dataclass(slots=True)
class FixedClock:
    """A clock that stands still until it is moved: for tests and simulations."""

    at: datetime

    def now(self) -> datetime:
        return self.at

    def wall(self, at: datetime) -> datetime:
        return at

    def effective(self, due_at: datetime | None) -> datetime:
        return self.at

    def in_real(self, span: timedelta) -> datetime:
        return self.at + span

    def move_to(self, at: datetime) -> None:
        """Set the clock to `at`; moving back is refused."""
        if at < self.at:
            raise ValueError(f"A clock cannot go back from {self.at.isoformat()} to {at.isoformat()}.")
        self.at = at

    def move(self, by: timedelta) -> None:
        """Move the clock on by `by`."""
        self.move_to(self.at + by)


def wall_now() -> datetime:
    """Return the wall clock's time, aware UTC: for what machines agree on (schedules, sessions), never for a contact's journey."""
    return datetime.now(UTC)


def stopwatch() -> float:
    """Return seconds from an arbitrary start, for measuring how long work took; never goes back."""
    return time.perf_counter()


def aware(at: datetime) -> datetime:
    """Return `at` in UTC; a datetime without a zone is refused, since guessing one sends mail at night."""
    if at.tzinfo is None:
        raise ValueError(f"The time {at.isoformat()} has no time zone; give one, such as {at.isoformat()}+09:00.")
    return at.astimezone(UTC)
