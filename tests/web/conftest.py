"""A small brand with two partners, and test clients signed in with each role."""

import hashlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from distmark.campaigns.table import Campaign, Member
from distmark.clock import FixedClock
from distmark.contacts.consents import record_consent
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.enrollments.table import Enrollment
from distmark.journeys.table import Journey, JourneyVersion
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.partners.model import Role, Viewer
from distmark.partners.table import Brand, Partner, SignIn
from distmark.settings import Settings
from distmark.sql import id_of
from distmark.tasks.table import Task
from distmark.web.app import create_app
from tests import factories as make
from tests.factories import NOW

RAISE = False  # a fault of ours is answered with a page, and that is tested, too
SAME_SITE = {"sec-fetch-site": "same-origin"}


@dataclass(frozen=True)
class Side:
    """One partner with its rows: contacts, member, enrollment, task and message."""

    partner: Partner
    contact: Contact
    member: Member
    enrolled: Contact
    enrollment: Enrollment
    task: Task
    message: Message


@dataclass(frozen=True)
class PartnerPair:
    """Two partners of one brand, and another brand beside it. `here` is the partner that clients act for, `there` the other one."""

    app: FastAPI
    db: Database
    brand: Brand
    journey: Journey
    version: JourneyVersion
    campaign: Campaign
    here: Side
    there: Side
    foreign: Campaign
    as_: Callable[..., TestClient]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(mode="test", data_dir=tmp_path / "data", _env_file=None)


@pytest.fixture
def registered() -> list[int]:
    """The ids of the versions that were registered with Prefect."""
    return []


@pytest.fixture
def app(settings: Settings, db: Database, clock: FixedClock, registered: list[int]) -> FastAPI:
    def register(version_id: int, viewer: Viewer) -> str:
        from distmark.compliance.service import mark_registered

        registered.append(version_id)
        with db.writing() as session:
            mark_registered(session, version_id, "deployment-1", clock.now(), viewer)
        return "deployment-1"

    return create_app(settings, db, clock, register=register)


@pytest.fixture
def guest(app: FastAPI) -> Iterator[TestClient]:
    """A test client without a signed-in user."""
    with TestClient(app, headers=SAME_SITE, follow_redirects=False, raise_server_exceptions=RAISE) as client:
        yield client


@pytest.fixture
def pair(app: FastAPI, db: Database) -> PartnerPair:
    with db.writing() as session:
        brand = make.make_brand(session, key="mirai-securities", tokens={"brand": "#0b6e69"})
        version = make.make_version(session, brand)
        journey = session.get_one(Journey, version.journey_id)
        campaign = make.make_campaign(session, version, name="秋のご案内")
        here, there = make_side(session, brand, version, campaign, "佐藤"), make_side(session, brand, version, campaign, "高橋")
        foreign = make.make_campaign(session, make.make_version(session))

    def as_(role: Role = Role.partner, language: str = "ja", **options: object) -> TestClient:
        partner = here.partner if role is Role.partner else None
        token = secrets.token_urlsafe(32)
        with db.writing() as session:
            user = make.make_user(session, role, brand, partner, language=language)
            row = SignIn(user_id=id_of(user), token_hash=_hashed(token), created_at=NOW, expires_at=NOW + timedelta(days=1))
            session.add(row)
        client = TestClient(app, headers=SAME_SITE, follow_redirects=False, raise_server_exceptions=RAISE)
        client.cookies.set("distmark", token)
        return client

    return PartnerPair(app, db, brand, journey, version, campaign, here, there, foreign, as_)


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def make_side(session: object, brand: Brand, version: JourneyVersion, campaign: Campaign, name: str) -> Side:
    partner = make.make_partner(session, brand, name=name)
    contact = make.make_contact(session, partner, last_name="鈴木", first_name="花子")
    enrolled = make.make_contact(session, partner, last_name="伊藤", first_name="健")
    for row in (contact, enrolled):
        record_consent(session, id_of(row), "email", given=True, now=NOW, ground="existing_customer")
    member = make.make_member(session, campaign, contact)
    enrollment = make.make_enrollment(
        session, make.make_member(session, campaign, enrolled, status="approved"), version, step_id="time-to-read", arrived_at=NOW
    )
    enrollment.due_at = NOW + timedelta(days=3)
    task = Task(
        enrollment_id=enrollment.id,
        step_id="call",
        brand_id=brand.id,
        partner_id=partner.id,
        contact_id=enrolled.id,
        title=f"{enrolled.last_name}さんに電話",
        created_at=NOW,
        due_at=NOW + timedelta(hours=5),
    )
    message = Message(
        token=secrets.token_urlsafe(16),
        header_id=f"<{secrets.token_hex(6)}@distmark.example>",
        enrollment_id=enrollment.id,
        step_id="welcome",
        brand_id=brand.id,
        partner_id=partner.id,
        contact_id=enrolled.id,
        campaign_id=campaign.id,
        version_id=version.id,
        channel="email",
        name="welcome",
        language="ja",
        subject="資料のご案内",
        links={"plans": "https://mirai.example/plans?ref=P1"},
        status=MessageStatus.sent,
        created_at=NOW - timedelta(hours=1),
        sent_at=NOW - timedelta(hours=1),
    )
    for row in (enrollment, task, message):
        session.add(row)
    session.flush()
    return Side(partner, contact, member, enrolled, enrollment, task, message)
