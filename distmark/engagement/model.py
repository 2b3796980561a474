"""What people (and machines) do with a message. Pure."""

from enum import StrEnum


class EventKind(StrEnum):
    """What happened. Everything a journey waits for by a name of its own is `custom`."""

    opened = "opened"
    clicked = "clicked"
    replied = "replied"
    bounced = "bounced"
    complained = "complained"
    unsubscribed = "unsubscribed"
    converted = "converted"
    custom = "custom"


class Verdict(StrEnum):
    """Who did it, as far as can be told. The raw event is kept whatever the verdict."""

    human = "human"
    machine = "machine"
    unknown = "unknown"
