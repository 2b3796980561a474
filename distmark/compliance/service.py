"""Approval of journey versions, and the audit trail. A version goes from draft to submitted, approved, registered and retired."""

from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from distmark.compliance.journey_check import Installation, check_journey
from distmark.compliance.table import AuditEntry
from distmark.errors import InvalidInput, NotAllowed, Refused, SelectionChanged
from distmark.journeys.findings import Finding, Severity
from distmark.journeys.service import get_version, list_journeys, source_of
from distmark.journeys.source import Source
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.journeys.version_status import (
    SENDABLE,
    approve_version,
    register_version,
    require_possible,
    retire_version,
    send_back_version,
    submit_version,
)
from distmark.partners.model import Permission, Role, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require
from distmark.partners.table import User
from distmark.segments.table import Segment
from distmark.sql import id_of

MOST_ERRORS_SHOWN = 20
JOURNEY_VERSION = "journey_version"


class CheckFailed(Refused):
    """A version cannot be submitted because of the errors in `findings`, which have texts in both languages."""

    def __init__(self, number: int, findings: list[Finding]) -> None:
        self.findings = findings
        lines = [found.line_of_text() for found in findings[:MOST_ERRORS_SHOWN]]
        more = f" and {len(findings) - MOST_ERRORS_SHOWN} more" if len(findings) > MOST_ERRORS_SHOWN else ""
        super().__init__(f"Version {number} has {len(findings)} errors to correct first: {'; '.join(lines)}{more}")


def submit(
    session: Session,
    viewer: Viewer,
    version_id: int,
    now: datetime,
    installation: Installation | None = None,
    shown_hash: str = "",
) -> JourneyVersion:
    """Hand the version to the approvers; from now on its text is frozen. CheckFailed lists the errors of a text that
    cannot be sent, or that uses what this `installation` lacks. SelectionChanged when the text is not the one with `shown_hash`.
    """
    require(viewer, Permission.write_journeys)
    version = _locked_version(session, viewer, version_id, "submit")
    _require_shown(version, shown_hash)
    source = source_of(version)
    errors = [found for found in check_version(session, viewer, source, now, installation) if found.severity is Severity.error]
    if errors:
        raise CheckFailed(version.number, errors)
    submit_version(version, source, viewer.user_id, now)
    return _saved(session, viewer, version, "submitted", now)


def check_version(
    session: Session, viewer: Viewer, source: Source, now: datetime, installation: Installation | None = None
) -> list[Finding]:
    """Return everything that is wrong with the text, beside the journeys and segments that the viewer's brand has."""
    others = {journey.key for journey in list_journeys(session, viewer)}
    segments = set(session.exec(select(Segment.key).where(Segment.brand_id == viewer.brand_id)))
    return check_journey(source, now=now, journeys=others, segments=segments, installation=installation)


def _require_shown(version: JourneyVersion, shown_hash: str) -> None:
    """Require that the version's text is the one that was shown before the act, whose content hash is given; "" requires nothing."""
    if shown_hash and shown_hash != version.content_hash:
        raise SelectionChanged(f"The text of version {version.number} was changed since it was shown; read it again.")


def approve(session: Session, viewer: Viewer, version_id: int, note: str, now: datetime, shown_hash: str = "") -> JourneyVersion:
    """Approve the version with its present content hash and return it. NotAllowed for its author: a second person reads every text.

    SelectionChanged when the text is not the one with `shown_hash`.
    """
    require(viewer, Permission.approve_journeys)
    version = _locked_version(session, viewer, version_id, "approve")
    _require_shown(version, shown_hash)
    if version.author_id == viewer.user_id:
        raise NotAllowed(f"Version {version.number} is your own text; somebody else must approve it.")
    if source_of(version).content_hash != version.content_hash:
        raise Refused(f"The text of version {version.number} is not the one that was submitted; send it back.")
    approve_version(version, viewer.user_id, note, now)
    return _saved(session, viewer, version, "approved", now, note=note)


def send_back(session: Session, viewer: Viewer, version_id: int, note: str, now: datetime) -> JourneyVersion:
    """Send the version back to its author with the reason and return it; InvalidInput without a reason."""
    require(viewer, Permission.approve_journeys)
    if not note.strip():
        raise InvalidInput("The reason is missing; write what has to change.")
    version = _locked_version(session, viewer, version_id, "send back")
    send_back_version(version, viewer.user_id, note, now)
    return _saved(session, viewer, version, "sent_back", now, note=note)


def mark_registered(session: Session, version_id: int, deployment_id: str, now: datetime, viewer: Viewer | None = None) -> JourneyVersion:
    """Register the approved version, whose Prefect deployment this is, and return it; a second call changes the deployment only.

    Contacts may then enter it. The newest registered version names the journey. Without `viewer` the act is the system's.
    """
    if viewer is not None:
        require(viewer, Permission.register_journeys)
        get_version(session, viewer, version_id)
    version = session.get_one(JourneyVersion, version_id, with_for_update=True, populate_existing=True)
    require_possible(version, "register")
    _check_hashes(version)
    journey = register_version(session, version, deployment_id, now)
    user_id = viewer.user_id if viewer else None
    record(
        session, journey.brand_id, user_id, "registered", JOURNEY_VERSION, version_id, now, version.content_hash, deployment=deployment_id
    )
    return version


def retire(session: Session, viewer: Viewer, version_id: int, now: datetime) -> JourneyVersion:
    """Retire the version and return it: no contact enters it any more, and its enrollments finish."""
    require(viewer, Permission.register_journeys)
    version = _locked_version(session, viewer, version_id, "retire")
    retire_version(version)
    return _saved(session, viewer, version, "retired", now)


def require_approved(version: JourneyVersion) -> None:
    """Require that the version may be registered: it is approved, and its text equals the approved text. Refused otherwise."""
    require_possible(version, "register")
    _check_hashes(version)


def require_sendable(version: JourneyVersion, source: Source | None = None) -> None:
    """Require that messages of the version may be sent: it was registered, and its text equals the approved text. Refused otherwise.

    `source` is the version's stored text, if it was read already; without it the text is read from the version.
    """
    if version.status not in SENDABLE:
        raise Refused(f"Version {version.number} is {version.status.replace('_', ' ')}; only a registered version may be sent.")
    _check_hashes(version, source)


def _check_hashes(version: JourneyVersion, source: Source | None = None) -> None:
    present = (source or source_of(version)).content_hash
    if not version.approved_hash or not version.approved_hash == version.content_hash == present:
        raise Refused(f"The text of version {version.number} is not the one that was approved; submit it again.")


def _locked_version(session: Session, viewer: Viewer, version_id: int, act: str) -> JourneyVersion:
    """Return the version, locked; Refused when `act` is not possible in its status."""
    version = get_version(session, viewer, version_id, lock=True)
    require_possible(version, act)
    return version


def _saved(session: Session, viewer: Viewer, version: JourneyVersion, action: str, now: datetime, **detail: Any) -> JourneyVersion:
    session.add(version)
    record(session, viewer.brand_id, viewer.user_id, action, JOURNEY_VERSION, id_of(version), now, version.content_hash, **detail)
    return version


def record(
    session: Session,
    brand_id: int,
    user_id: int | None,
    action: str,
    subject_kind: str,
    subject_id: int,
    now: datetime,
    content_hash: str | None = None,
    **detail: Any,
) -> AuditEntry:
    """Append an act to the audit trail and return its entry. `user_id` is None for acts of the system; entries are never changed."""
    entry = AuditEntry(
        brand_id=brand_id,
        at=now,
        user_id=user_id,
        action=action,
        subject_kind=subject_kind,
        subject_id=subject_id,
        content_hash=content_hash,
        detail=detail,
    )
    session.add(entry)
    session.flush()
    return entry


def audit_trail(session: Session, viewer: Viewer, subject_kind: str, subject_id: int) -> list[AuditEntry]:
    """Return the audit entries of the subject, oldest first; a partner's people see the entries of their colleagues only."""
    statement = visible(select(AuditEntry), AuditEntry, viewer)
    statement = statement.where(AuditEntry.subject_kind == subject_kind, AuditEntry.subject_id == subject_id)
    if viewer.role is Role.partner:
        colleagues = select(User.id).where(User.brand_id == viewer.brand_id, User.partner_id == viewer.partner_id)
        statement = statement.where(col(AuditEntry.user_id).in_(colleagues))
    return list(session.exec(statement.order_by(col(AuditEntry.id))))


def waiting_approvals(session: Session, viewer: Viewer) -> list[JourneyVersion]:
    """Return the submitted versions of the viewer's brand, the earliest submitted first."""
    require(viewer, Permission.see_journeys)
    of_brand = visible(select(JourneyVersion).join(Journey, col(Journey.id) == col(JourneyVersion.journey_id)), Journey, viewer)
    submitted = of_brand.where(JourneyVersion.status == VersionStatus.submitted)
    return list(session.exec(submitted.order_by(col(JourneyVersion.submitted_at), col(JourneyVersion.id))))
