"""The demo's past is made by the real engine: what it leaves is what three months of work leave, and it goes on from there."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import Session, col, select

from distmark.campaigns.table import Campaign, CampaignStatus
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.demo import history
from distmark.demo.brands import BRANDS
from distmark.demo.history import NOT_DEPLOYED, PAST, experiment_key, experiment_of, has_past, make_history, undeployed
from distmark.demo.samples import MEMBERS_AT_FIRST, load_samples, open_campaigns
from distmark.engagement.table import Event
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.entries.model import EnrolVerdict
from distmark.entries.service import preview_enrol
from distmark.errors import DistmarkError
from distmark.experiments.service import experiments_of
from distmark.journeys.source import load_source
from distmark.journeys.table import JourneyVersion, VersionStatus
from distmark.messages.table import Message
from distmark.metrics.service import metrics, recount
from distmark.settings import ROOT, Mode, Settings
from distmark.tasks.table import Task
from tests.factories import NOW

GYM = next(sample for sample in BRANDS if sample.key == "genki-fitness")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, mode=Mode.test, data_dir=tmp_path)


@pytest.fixture
def lived(db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> history.History:
    """The past of one brand with one campaign and its experiment."""
    monkeypatch.setattr(history, "BRANDS", (GYM,))
    monkeypatch.setattr(history, "CAMPAIGN_DAYS", (31, 60))
    load_samples(db, ROOT / "journey_defs", NOW - PAST, today=NOW)
    return make_history(db, settings, NOW - PAST, NOW)


def rows(session: Session, table: type) -> list:
    return list(session.exec(select(table).order_by(col(table.id))))


def test_three_months_leave_ended_and_living_journeys_tasks_reactions_and_a_running_experiment(
    db: Database, lived: history.History
) -> None:
    with db.reading() as session:
        enrollments, events, tasks, campaigns = (rows(session, table) for table in (Enrollment, Event, Task, Campaign))
        messages = rows(session, Message)
        marketer = history.viewer_of(session, GYM, GYM.marketer[1])
        tested = session.exec(select(JourneyVersion).order_by(col(JourneyVersion.id).desc())).first()
        shown = experiments_of(session, marketer, tested.id)

    assert {row.status for row in enrollments} == {EnrollmentStatus.ended, EnrollmentStatus.waiting}
    assert {"opened", "clicked", "custom"} <= {event.kind for event in events}
    assert {task.done_at is None for task in tasks} == {True, False}
    assert [campaign.status for campaign in campaigns] == [CampaignStatus.closed, CampaignStatus.open, CampaignStatus.open]
    assert len(shown) == 1
    assert len(messages) == lived.messages > len(enrollments) // 2
    assert len(enrollments) == lived.enrollments
    first, last = min(row.entered_at for row in enrollments), max(row.entered_at for row in enrollments)
    assert NOW - PAST < first < last < NOW
    assert all(event.at <= NOW and event.received_at <= NOW for event in events)
    assert all(row.due_at is None or row.due_at > NOW for row in enrollments)


def test_numbers_of_the_past_are_those_of_a_recount(db: Database, lived: history.History) -> None:
    with db.reading() as session:
        assert metrics(session) == recount(session)


def test_versions_of_the_past_are_registered_with_prefect_when_the_demo_starts(db: Database, lived: history.History) -> None:
    with db.reading() as session:
        versions = {row.id: row for row in session.exec(select(JourneyVersion)) if row.deployment_id == NOT_DEPLOYED}

    assert set(lived.to_register) == set(undeployed(db)) == set(versions)
    assert len(versions) == 2
    assert all(version.status is VersionStatus.registered for version in versions.values())


def test_people_of_the_samples_can_all_begin_today(db: Database, lived: history.History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distmark.demo.samples.BRANDS", (GYM,))
    open_campaigns(db, NOW)
    with db.reading() as session:
        campaign = session.exec(select(Campaign).where(Campaign.key == GYM.campaign)).one()
        partner = history.viewer_of(session, GYM, GYM.partners[0].roman)
        contacts = session.exec(select(Contact.id).where(Contact.partner_id == partner.partner_id).order_by(col(Contact.id))).all()
        results = preview_enrol(session, partner, campaign.id, list(contacts[:MEMBERS_AT_FIRST]), NOW)

    assert {result.verdict for result in results} == {EnrolVerdict.enrolled}


def test_a_past_that_was_interrupted_is_left_as_it_is(db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(DistmarkError):
        pass

    monkeypatch.setattr(history, "BRANDS", (GYM,))
    load_samples(db, ROOT / "journey_defs", NOW - PAST, today=NOW)
    assert not has_past(db)

    def stop() -> None:
        if has_past(db):
            raise Stopped

    with pytest.raises(Stopped):
        make_history(db, settings, NOW - PAST, NOW, stop)

    assert has_past(db)
    assert undeployed(db)


@pytest.mark.parametrize("sample", BRANDS, ids=lambda sample: sample.key)
def test_each_brand_has_a_journey_that_compares_two_mails(sample) -> None:
    source = load_source(ROOT / "journey_defs" / sample.journey)

    experiment = experiment_of(source)

    assert experiment.path == experiment_key(sample.journey)
    assert len({name.split(".")[0] for name in experiment.templates}) == 2


def test_virtual_time_stands_still_while_the_data_is_made(tmp_path: Path) -> None:
    from tests.small_machine import SmallMachine, settings_of
    from tests.waiting import wait_until

    machine = SmallMachine(settings_of(tmp_path / "data"), speed=86_400.0)
    machine.start(lambda settings: wait_until(lambda: settings.clock().now() - settings.clock_origin > timedelta(days=1)) or ())
    gone = machine.clock.now() - machine.settings.clock_origin
    began = machine.settings.clock_wall_origin
    machine.stop()

    assert began > machine._launched_at["server"]
    assert began < machine._launched_at["web"]
    assert gone > timedelta()
