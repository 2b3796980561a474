"""A contact's position in one journey version. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class EnrollmentStatus(StrEnum):
    """Whether an enrollment moves by itself."""

    waiting = "waiting"  # asleep until `due_at`, or until an event
    paused = "paused"  # frozen by a person
    parked = "parked"  # frozen because its step raised again and again
    ended = "ended"


class TimelineKind(StrEnum):
    """What happened to an enrollment; one row each in its timeline."""

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


class SuspensionKind(StrEnum):
    """What people decided about a part of a brand's enrollments until they lift it."""

    paused = "paused"  # nobody in it moves; who enters it starts paused
    draining = "draining"  # nobody enters it; those inside finish


class AlarmKind(StrEnum):
    """What should move and does not."""

    late = "late"  # what is due is not done
    dry = "dry"  # nobody enters any more


def name_now(names: Mapping[str, Any] | None, version_id: int, step_id: str) -> str:
    """Return what a step of `version_id` is called in the version that the enrollment is in now; names not told are the same in both."""
    return str((names or {}).get(str(version_id), {}).get(step_id, step_id))


class EnrolVerdict(StrEnum):
    """What became of one contact that somebody asked to enrol."""

    enrolled = "enrolled"
    already_in = "already_in"
    too_soon = "too_soon"
    once_only = "once_only"
    suppressed = "suppressed"
    no_consent = "no_consent"
    no_address = "no_address"
    other_partner = "other_partner"
    not_matching = "not_matching"  # the journey's entry filter leaves them out
    draining = "draining"  # the journey, campaign, partner or contact takes nobody new until people say so
    queued = "queued"  # enters later: as many as the journey takes at a time have entered


class CameBy(StrEnum):
    """What brought a contact into a journey."""

    campaign = "campaign"
    event = "event"
    segment = "segment"
    date = "date"
    api = "api"
    journey = "journey"  # a step of another one


@dataclass(frozen=True, slots=True)
class EnrolResult:
    """One row per contact asked for, in the order asked. `until` says from when a contact may enter again."""

    contact_id: int
    verdict: EnrolVerdict
    enrollment_id: int | None = None
    partner_name: str = ""
    until: datetime | None = None
