"""Statuses of enrollments, kinds of timeline entries, suspensions, and sources of entries. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class EnrollmentStatus(StrEnum):
    """The status of an enrollment: only a waiting one moves by itself."""

    waiting = "waiting"  # asleep until `due_at`, or until an event
    paused = "paused"  # frozen by a person
    parked = "parked"  # frozen because its step raised again and again
    ended = "ended"


class TimelineKind(StrEnum):
    """The kind of a timeline entry: what happened to the enrollment."""

    entered = "entered"
    passed = "passed"  # a step was left
    waiting = "waiting"
    held = "held"
    sent = "sent"
    failed = "failed"
    skipped = "skipped"
    suppressed = "suppressed"
    uncertain = "uncertain"
    branched = "branched"
    task = "task"
    woken = "woken"
    paused = "paused"
    resumed = "resumed"
    moved = "moved"
    error = "error"
    ended = "ended"


MAX_TRIES = 5
UNMADE = "unmade"  # the `why` of an enrollment that is parked because its message cannot be made; its rule names the missing value


class SuspensionKind(StrEnum):
    """The kind of a suspension, which holds until a person lifts it."""

    paused = "paused"  # no enrollment of the scope moves, and new ones start paused
    draining = "draining"  # no contact enters the scope, and its enrollments finish


def current_step_id(names: Mapping[str, Any] | None, version_id: int, step_id: str) -> str:
    """Return the id, in the enrollment's present version, of the step `step_id` of `version_id`; a step that `names` lacks kept its id."""
    return str((names or {}).get(str(version_id), {}).get(step_id, step_id))


class CameBy(StrEnum):
    """The source by which a contact entered a journey."""

    campaign = "campaign"
    event = "event"
    segment = "segment"
    date = "date"
    api = "api"
    journey = "journey"  # a step of another journey
