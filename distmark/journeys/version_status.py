"""The status of a journey version: draft, submitted, sent back, approved, registered, retired; and which act leads from one to another.

Who may act, and the audit trail, are the room `compliance`.
"""

from collections.abc import Mapping
from datetime import datetime

from sqlmodel import Session

from distmark.errors import Refused
from distmark.journeys.definition import parse
from distmark.journeys.service import name_journey, newest_registered, source_of
from distmark.journeys.source import Source
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus

# The acts that are possible in each status, as the message names them that refuses the other acts.
POSSIBLE: Mapping[VersionStatus, tuple[str, ...]] = {
    VersionStatus.draft: ("submit",),
    VersionStatus.submitted: ("approve", "send back"),
    VersionStatus.sent_back: ("submit",),
    VersionStatus.approved: ("register", "send back"),
    VersionStatus.registered: ("register", "retire"),
    VersionStatus.retired: (),
}
SENDABLE = (VersionStatus.registered, VersionStatus.retired)  # enrollments in a retired version finish it


def submit_version(version: JourneyVersion, source: Source, by_id: int, now: datetime) -> None:
    """Freeze the version with this text for the approvers; an earlier decision about it is gone."""
    version.status, version.submitted_at, version.content_hash = VersionStatus.submitted, now, source.content_hash
    version.author_id = version.author_id or by_id  # a text that came from a file has its submitter as author
    version.decided_at, version.decided_by_id, version.decision_note, version.approved_hash = None, None, "", None


def approve_version(version: JourneyVersion, by_id: int, note: str, now: datetime) -> None:
    """Note that the version is approved with its present content hash."""
    version.status, version.approved_hash = VersionStatus.approved, version.content_hash
    _decide(version, by_id, note, now)


def send_back_version(version: JourneyVersion, by_id: int, note: str, now: datetime) -> None:
    """Note that the version went back to its author, with the reason."""
    version.status, version.approved_hash = VersionStatus.sent_back, None
    _decide(version, by_id, note, now)


def _decide(version: JourneyVersion, by_id: int, note: str, now: datetime) -> None:
    version.decided_by_id, version.decided_at, version.decision_note = by_id, now, note.strip()


def register_version(session: Session, version: JourneyVersion, deployment_id: str, now: datetime) -> Journey:
    """Let contacts enter the version, whose Prefect deployment this is, and return its journey, which the newest such version names."""
    version.status, version.deployment_id = VersionStatus.registered, deployment_id
    version.registered_at = version.registered_at or now
    session.add(version)
    session.flush()
    journey = session.get_one(Journey, version.journey_id)
    if newest_registered(session, version.journey_id) is version:
        name_journey(journey, parse(source_of(version)))
    return journey


def retire_version(version: JourneyVersion) -> None:
    """Let no contact enter the version any more."""
    version.status = VersionStatus.retired


def require_possible(version: JourneyVersion, act: str) -> None:
    """Require that `act` is possible in the version's status. Refused otherwise, naming the acts that are."""
    possible = POSSIBLE[version.status]
    if act not in possible:
        instead = f"it can only be {_past_tense(possible)}" if possible else "nothing more can be done with it"
        raise Refused(f"Version {version.number} is {version.status.replace('_', ' ')} and cannot be {_past_tense((act,))}; {instead}.")


PAST = {"submit": "submitted", "approve": "approved", "send back": "sent back", "register": "registered", "retire": "retired"}


def _past_tense(acts: tuple[str, ...]) -> str:
    return " or ".join(PAST[act] for act in acts)
