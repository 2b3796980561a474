"""The kinds of engagement events, and verdicts on them. Pure."""

from enum import StrEnum


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
