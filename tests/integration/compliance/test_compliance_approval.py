"""Approval of versions: the acts of each status and role, and that only the approved text is sent."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from sqlmodel import Session, select

from distmark.compliance import service as compliance
from distmark.compliance.service import CheckFailed
from distmark.compliance.table import AuditEntry
from distmark.db import Database
from distmark.errors import InvalidInput, NotAllowed, Refused
from distmark.journeys import service as journeys
from distmark.journeys.checks.run import check
from distmark.journeys.source import Source
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.journeys.version_status import POSSIBLE
from distmark.partners.model import Role, Viewer
from distmark.partners.table import Brand
from distmark.sql import id_of
from tests.factories import make_brand, make_partner, make_source, make_user, make_version, make_viewer


@dataclass
class Team:
    brand: Brand
    marketer: Viewer
    approver: Viewer
    source: Source

    def version(self, session: Session, **fields: object) -> JourneyVersion:
        return make_version(session, self.brand, source=self.source, **{"author_id": self.marketer.user_id, **fields})


def _team(session: Session) -> Team:
    brand = make_brand(session, key="mirai")
    viewers = [make_viewer(session, role, brand) for role in (Role.marketer, Role.approver)]
    return Team(brand, *viewers, make_source("introduction", "mirai"))


def test_journey_of_the_factories_has_no_findings():
    assert check(make_source()) == []


def test_version_goes_from_draft_to_registered_and_leaves_a_trail(db: Database, now: datetime):
    with db.writing() as session:
        team = _team(session)
        version = journeys.save_draft(session, id_of(team.brand), team.source, team.marketer.user_id, now)
        version_id = id_of(version)

        compliance.submit(session, team.marketer, version_id, now + timedelta(hours=1))
        compliance.approve(session, team.approver, version_id, " よい ", now + timedelta(hours=2))
        compliance.mark_registered(session, version_id, "d-1", now + timedelta(hours=3), team.marketer)

        assert version.status is VersionStatus.registered
        assert version.approved_hash == version.content_hash == team.source.content_hash
        assert (version.decided_by_id, version.decision_note) == (team.approver.user_id, "よい")
        assert (version.submitted_at, version.decided_at, version.registered_at) == tuple(now + timedelta(hours=n) for n in (1, 2, 3))
        compliance.require_sendable(version)
        trail = compliance.audit_trail(session, team.marketer, "journey_version", version_id)
        assert [(entry.action, entry.user_id, entry.content_hash) for entry in trail] == [
            ("submitted", team.marketer.user_id, team.source.content_hash),
            ("approved", team.approver.user_id, team.source.content_hash),
            ("registered", team.marketer.user_id, team.source.content_hash),
        ]
        assert trail[1].detail == {"note": " よい "}


ACTS: dict[str, Callable[[Session, Team, int, datetime], object]] = {
    "submit": lambda session, team, version_id, now: compliance.submit(session, team.marketer, version_id, now),
    "approve": lambda session, team, version_id, now: compliance.approve(session, team.approver, version_id, "", now),
    "send back": lambda session, team, version_id, now: compliance.send_back(session, team.approver, version_id, "直してください", now),
    "register": lambda session, team, version_id, now: compliance.mark_registered(session, version_id, "d-1", now, team.marketer),
    "retire": lambda session, team, version_id, now: compliance.retire(session, team.marketer, version_id, now),
}


@pytest.mark.parametrize("status", list(VersionStatus))
@pytest.mark.parametrize("act", list(ACTS))
def test_only_what_is_possible_in_a_status_is_done(db: Database, now: datetime, act: str, status: VersionStatus):
    with db.writing() as session:
        team = _team(session)
        version_id = id_of(team.version(session, status=status))

        if act in POSSIBLE[status]:
            ACTS[act](session, team, version_id, now)
        else:
            with pytest.raises(Refused, match=f"Version 1 is {status.replace('_', ' ')} and cannot be"):
                ACTS[act](session, team, version_id, now)


def test_refusal_names_the_possible_acts(db: Database, now: datetime):
    with db.writing() as session:
        team = _team(session)
        version = team.version(session, status=VersionStatus.submitted)

        with pytest.raises(Refused, match="is submitted and cannot be submitted; it can only be approved or sent back"):
            compliance.submit(session, team.marketer, id_of(version), now)


def test_text_with_errors_is_not_submitted_and_every_error_is_listed(db: Database, now: datetime):
    with db.writing() as session:
        team = _team(session)
        templates = {name: text for name, text in team.source.templates.items() if not name.endswith((".en.mjml", ".ja.text.txt"))}
        version = make_version(session, team.brand, source=Source(team.source.definition, templates), status=VersionStatus.draft)

        with pytest.raises(CheckFailed) as failed:
            compliance.submit(session, team.marketer, id_of(version), now)

        assert version.status is VersionStatus.draft
        assert len(failed.value.findings) == 2
        assert "welcome.en.mjml" in str(failed.value)
        assert "welcome.ja.text.txt" in str(failed.value)


def test_author_does_not_approve_own_text_whatever_the_role(db: Database, now: datetime):
    with db.writing() as session:
        team = _team(session)
        ops = make_viewer(session, Role.ops, team.brand)
        version = team.version(session, status=VersionStatus.submitted, author_id=ops.user_id)

        with pytest.raises(NotAllowed, match="somebody else must approve"):
            compliance.approve(session, ops, id_of(version), "", now)

        assert compliance.approve(session, team.approver, id_of(version), "", now).status is VersionStatus.approved


def test_submitter_of_a_text_without_an_author_becomes_its_author(db: Database, now: datetime):
    with db.writing() as session:
        team = _team(session)
        ops = make_viewer(session, Role.ops, team.brand)
        version = team.version(session, status=VersionStatus.draft, author_id=None)

        compliance.submit(session, ops, id_of(version), now)

        with pytest.raises(NotAllowed):
            compliance.approve(session, ops, id_of(version), "", now)


@pytest.mark.parametrize("note", ["", "  \n"])
def test_sending_back_needs_a_reason(db: Database, now: datetime, note: str):
    with db.writing() as session:
        team = _team(session)
        version = team.version(session, status=VersionStatus.submitted)

        with pytest.raises(InvalidInput, match="The reason is missing"):
            compliance.send_back(session, team.approver, id_of(version), note, now)


def test_version_that_was_sent_back_can_be_submitted_again(db: Database, now: datetime):
    with db.writing() as session:
        team = _team(session)
        version = team.version(session, status=VersionStatus.submitted)
        compliance.send_back(session, team.approver, id_of(version), "住所がありません", now)
        assert (version.status, version.decision_note) == (VersionStatus.sent_back, "住所がありません")

        compliance.submit(session, team.marketer, id_of(version), now)

        assert (version.status, version.decision_note, version.decided_by_id) == (VersionStatus.submitted, "", None)


def test_approval_that_is_taken_back_leaves_no_approved_hash(db: Database, now: datetime):
    with db.writing() as session:
        team = _team(session)
        version = team.version(session, status=VersionStatus.approved)

        compliance.send_back(session, team.approver, id_of(version), "やはり直します", now)

        assert version.approved_hash is None


def _tamper(version: JourneyVersion) -> None:
    version.source = {**version.source, "definition": str(version.source["definition"]).replace("3 days", "3 minutes")}


@pytest.mark.parametrize(
    ("status", "act"), [(VersionStatus.submitted, "approve"), (VersionStatus.approved, "register"), (VersionStatus.registered, "register")]
)
def test_text_changed_after_submission_goes_no_further(db: Database, now: datetime, status: VersionStatus, act: str):
    with db.writing() as session:
        team = _team(session)
        version = team.version(session, status=status)
        _tamper(version)
        session.flush()

        with pytest.raises(Refused, match="is not the one that was"):
            ACTS[act](session, team, id_of(version), now)


@pytest.mark.parametrize("status", list(VersionStatus))
def test_only_registered_and_retired_versions_are_sendable(db: Database, status: VersionStatus):
    with db.writing() as session:
        version = _team(session).version(session, status=status)

        if status in (VersionStatus.registered, VersionStatus.retired):
            compliance.require_sendable(version)
        else:
            with pytest.raises(Refused, match="only a registered version may be sent"):
                compliance.require_sendable(version)


@pytest.mark.parametrize("field", ["source", "approved_hash", "content_hash", "both hashes"])
def test_text_other_than_the_approved_one_is_never_sendable(db: Database, field: str):
    with db.writing() as session:
        version = _team(session).version(session)
        if field == "source":
            _tamper(version)
        if field in ("approved_hash", "both hashes"):
            version.approved_hash = "0" * 64
        if field in ("content_hash", "both hashes"):
            version.content_hash = "0" * 64

        with pytest.raises(Refused, match="is not the one that was approved"):
            compliance.require_sendable(version)


def test_registering_again_keeps_the_first_time_and_takes_the_new_deployment(db: Database, now: datetime):
    with db.writing() as session:
        version = _team(session).version(session, status=VersionStatus.approved)
        compliance.mark_registered(session, id_of(version), "d-1", now)

        compliance.mark_registered(session, id_of(version), "d-2", now + timedelta(days=1))

        assert (version.registered_at, version.deployment_id) == (now, "d-2")
        assert [entry.user_id for entry in session.exec(select(AuditEntry)).all()] == [None, None]


def test_journey_is_shown_under_the_newest_registered_versions_name(db: Database, now: datetime):
    with db.writing() as session:
        team = _team(session)
        old = team.version(session)
        journey = session.get_one(Journey, old.journey_id)
        renamed = Source(team.source.definition.replace("資料のご案内", "新しい名前"), team.source.templates)
        new = make_version(session, journey=journey, source=renamed, status=VersionStatus.approved)

        compliance.mark_registered(session, id_of(new), "d-2", now)
        compliance.mark_registered(session, id_of(old), "d-1", now)

        assert journey.name == {"ja": "新しい名前", "en": "A short introduction"}


@pytest.mark.parametrize(
    ("act", "role"),
    [
        ("submit", Role.approver),
        ("approve", Role.marketer),
        ("send back", Role.marketer),
        ("register", Role.approver),
        ("retire", Role.approver),
    ],
)
def test_role_without_the_permission_is_refused(db: Database, now: datetime, act: str, role: Role):
    with db.writing() as session:
        team = _team(session)
        version = team.version(session, status=VersionStatus.draft)
        outsider = make_viewer(session, role, team.brand)
        team.marketer = team.approver = outsider

        with pytest.raises(NotAllowed):
            ACTS[act](session, team, id_of(version), now)


def test_approvers_queue_holds_the_brands_submitted_versions_longest_waiting_first(db: Database, now: datetime):
    with db.writing() as session:
        team = _team(session)
        late = make_version(session, team.brand, status=VersionStatus.submitted, submitted_at=now)
        early = make_version(session, team.brand, status=VersionStatus.submitted, submitted_at=now - timedelta(days=1))
        make_version(session, team.brand, status=VersionStatus.draft)
        make_version(session, status=VersionStatus.submitted, submitted_at=now)

        assert compliance.waiting_approvals(session, team.approver) == [early, late]


def test_partners_people_see_only_their_colleagues_audit_entries(db: Database, now: datetime):
    with db.writing() as session:
        brand = make_brand(session)
        own_partner, other_partner = make_partner(session, brand), make_partner(session, brand)
        for user in (
            make_user(session, partner=own_partner, role=Role.partner),
            make_user(session, partner=other_partner, role=Role.partner),
        ):
            compliance.record(session, id_of(brand), user.id, "stopped", "enrollment", 1, now, reason=user.email)
        compliance.record(session, id_of(brand), None, "stopped", "enrollment", 1, now)

        assert len(compliance.audit_trail(session, make_viewer(session, partner=own_partner), "enrollment", 1)) == 1
        assert len(compliance.audit_trail(session, make_viewer(session, Role.approver, brand), "enrollment", 1)) == 3
        assert compliance.audit_trail(session, make_viewer(session, Role.approver), "enrollment", 1) == []


def test_two_approvers_at_once_decide_once(db: Database, now: datetime):
    if db.is_sqlite:
        pytest.skip("SQLite lets one write at a time")
    from concurrent.futures import ThreadPoolExecutor

    with db.writing() as session:
        team = _team(session)
        version_id = id_of(team.version(session, status=VersionStatus.submitted))
        viewers = [make_viewer(session, Role.approver, team.brand) for _ in range(4)]

    def decide(viewer: Viewer) -> bool:
        try:
            with db.writing() as session:
                compliance.approve(session, viewer, version_id, "", now)
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(decide, viewers)) == [False, False, False, True]
