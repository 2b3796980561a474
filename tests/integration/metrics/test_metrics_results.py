"""What people read of the counts: per step, per day, per person's sight."""

from datetime import date, timedelta

import pytest
from sqlmodel import Session

from distmark.db import Database
from distmark.enrollments.model import TimelineKind
from distmark.enrollments.table import TimelineEntry
from distmark.errors import NotAllowed, NotFound
from distmark.journeys.table import Journey, VersionStatus
from distmark.metrics.service import (
    campaign_results,
    home_numbers,
    journeys_with_results,
    results,
    results_markdown,
    roll_up,
)
from distmark.partners.model import Role, Viewer
from distmark.sql import id_of
from tests.factories import (
    NOW,
    make_brand,
    make_campaign,
    make_contact,
    make_enrollment,
    make_member,
    make_partner,
    make_version,
    make_viewer,
)


class Shop:
    """One brand with two partners, one campaign of a journey, and `sent` mails of each partner."""

    def __init__(self, session: Session) -> None:
        self.brand = make_brand(session)
        self.version = make_version(session, self.brand)
        self.key = str(self.version.source["path"])
        self.campaign = make_campaign(session, self.version)
        self.partners = [make_partner(session, self.brand) for _ in range(2)]
        self.marketer = make_viewer(session, Role.marketer, self.brand, language="en")
        self.people = [make_viewer(session, partner=partner) for partner in self.partners]
        for partner, sent in zip(self.partners, (3, 1), strict=True):
            self.send(session, partner, sent)

    def send(self, session: Session, partner: object, sent: int, days: int = 0) -> None:
        for _ in range(sent):
            member = make_member(session, self.campaign, make_contact(session, partner))  # type: ignore[arg-type]
            row = make_enrollment(session, member, self.version)
            at = NOW + timedelta(days=days)
            moves = [(TimelineKind.entered, ""), (TimelineKind.sent, "welcome"), (TimelineKind.waiting, "time-to-read")]
            session.add_all([TimelineEntry(enrollment_id=id_of(row), at=at, kind=kind, step_id=step) for kind, step in moves])


@pytest.fixture
def shop(db: Database) -> Shop:
    with db.writing() as session:
        shop = Shop(session)
    roll_up(db, NOW)
    return shop


def test_the_steps_come_in_the_order_of_the_definition(db: Database, shop: Shop) -> None:
    with db.reading() as session:
        found = results(session, shop.marketer, shop.key)

    assert [(step.step_id, step.kind) for step in found.steps][:2] == [("welcome", "send"), ("time-to-read", "wait")]
    assert found.steps[0].count("sent") == 4  # 3 + 1
    assert (found.count("entered"), found.inside) == (4, 4)
    assert found.title == "A short introduction"


def test_a_partner_sees_the_numbers_of_their_own_contacts_only(db: Database, shop: Shop) -> None:
    with db.reading() as session:
        seen = [results(session, person, shop.key).count("sent") for person in shop.people]
        home = [home_numbers(session, person, NOW.date()).get("sent") for person in shop.people]
        of_campaign = [campaign_results(session, person, id_of(shop.campaign)).count("sent") for person in shop.people]

    assert seen == home == of_campaign == [3, 1]


def test_another_brand_knows_of_neither_journey_nor_campaign(db: Database, shop: Shop) -> None:
    with db.writing() as session:
        stranger = make_viewer(session, Role.marketer)

    with db.reading() as session:
        with pytest.raises(NotFound):
            results(session, stranger, shop.key)
        with pytest.raises(NotFound):
            campaign_results(session, stranger, id_of(shop.campaign))
        assert home_numbers(session, stranger, NOW.date()) == {}


def test_a_partner_knows_nothing_of_another_partners_campaign(db: Database, shop: Shop) -> None:
    with db.writing() as session:
        campaign = make_campaign(session, shop.version, partner=shop.partners[0])

    with db.reading() as session:
        assert campaign_results(session, shop.people[0], id_of(campaign)).count("sent") == 0
        with pytest.raises(NotFound):
            campaign_results(session, shop.people[1], id_of(campaign))


def test_days_follow_each_other_without_gaps_up_to_the_last_roll_up(db: Database, shop: Shop) -> None:
    with db.writing() as session:
        shop.send(session, shop.partners[0], 2, days=3)
    roll_up(db, NOW + timedelta(days=4))

    with db.reading() as session:
        days = results(session, shop.marketer, shop.key, days=5).days

    assert [(day.day, day.count("sent")) for day in days] == [
        (date(2026, 11, 24), 4),
        (date(2026, 11, 25), 0),
        (date(2026, 11, 26), 0),
        (date(2026, 11, 27), 2),
        (date(2026, 11, 28), 0),
    ]


def test_a_version_that_does_not_exist_is_named_with_those_that_do(db: Database, shop: Shop) -> None:
    with db.reading() as session, pytest.raises(NotFound, match="has no version 9; it has 1"):
        results(session, shop.marketer, shop.key, version=9)


def test_a_draft_changes_nothing_in_the_results_of_what_runs(db: Database, shop: Shop) -> None:
    with db.writing() as session:
        make_version(session, journey=session.get_one(Journey, shop.version.journey_id), status=VersionStatus.draft)

    with db.reading() as session:
        assert results(session, shop.marketer, shop.key).versions == (1,)


def test_the_artifacts_are_of_journeys_that_somebody_entered(db: Database, shop: Shop) -> None:
    with db.writing() as session:
        make_version(session, shop.brand)

    with db.reading() as session:
        found = journeys_with_results(session, NOW)

    assert [key for key, _ in found] == [shop.key]
    assert "| welcome | 4 |" in results_markdown(found[0][1], "en")


def test_results_need_the_right_to_see_them(db: Database, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Viewer, "may", lambda self, permission: False)

    with db.reading() as session, pytest.raises(NotAllowed):
        results(session, shop.marketer, shop.key)
