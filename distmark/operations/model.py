"""Kinds of alarms. Pure."""

from enum import StrEnum


class AlarmKind(StrEnum):
    """The kind of an alarm: enrollments that should move and do not, a journey that no contact enters, messages that cannot be made."""

    late = "late"  # enrollments are due and do not move
    dry = "dry"  # no contact enters the journey any more
    unmade = "unmade"  # messages cannot be made, and the enrollments stand at their step
