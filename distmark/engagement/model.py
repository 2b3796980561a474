"""The kinds of engagement events, verdicts on them, and the times that they can have. Pure."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
CLOCKS_DIFFER = timedelta(hours=1)  # how far the clock of another system may be ahead of ours


class EventKind(StrEnum):
    """The kind of an event. An event that a journey awaits by a name of its own is `custom`."""

    opened = "opened"
    clicked = "clicked"
    replied = "replied"
    bounced = "bounced"
    complained = "complained"
    unsubscribed = "unsubscribed"
    converted = "converted"
    custom = "custom"


class Verdict(StrEnum):
    """A person's act or a machine's, as far as can be judged. The raw event is kept under every verdict."""

    human = "human"
    machine = "machine"
    unknown = "unknown"


def is_possible(at: datetime, now: datetime) -> bool:
    """Return whether something that is told at `now` can have happened at `at`: since 1970, and not in the future."""
    return EARLIEST <= at <= now + CLOCKS_DIFFER
