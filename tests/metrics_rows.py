"""Rows that the tests of metrics start from: one journey in two versions, one campaign, two partners, four enrollments, six messages."""

from datetime import UTC, datetime

from distmark.campaigns.table import Campaign
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.enrollments.table import Enrollment
from distmark.journeys.table import Journey, JourneyVersion
from distmark.messages.table import Message
from distmark.partners.model import Role, Viewer
from distmark.partners.table import Brand, Partner

AT = datetime(2026, 11, 24, 1, tzinfo=UTC)
ENROLLMENTS = (1, 2, 3, 4)
MESSAGES = (1, 2, 3, 4, 5, 6)  # message n is of enrollment (n - 1) % 4 + 1, step welcome up to 4, then reminder
MARKETER = Viewer(1, Role.marketer, 1, None, "Mika", "en")
PARTNER = Viewer(2, Role.partner, 1, 2, "Ken", "ja")


def fill(db: Database) -> None:
    """Put the rows in; version 1 carries enrollments 1 and 2, version 2 carries 3 and 4; partner 2 has enrollment 4."""
    for rows in (_brands(), _journeys(), _people(), _enrollments(), _messages()):
        with db.writing() as session:
            session.add_all(rows)


def _brands() -> list[object]:
    brands = [Brand(id=n, key=f"brand-{n}", name="Mirai", legal_name="Mirai K.K.", address="Tokyo", contact="03-0000-0000") for n in (1, 2)]
    return [*brands]


def _journeys() -> list[object]:
    partners = [Partner(id=n, brand_id=1, key=f"partner-{n}", name=f"Partner {n}") for n in (1, 2)]
    return [*partners, Journey(id=1, brand_id=1, key="welcome", name={"ja": "ようこそ", "en": "Welcome"}, created_at=AT)]


def _people() -> list[object]:
    versions = [JourneyVersion(id=n, journey_id=1, number=n, content_hash=f"hash-{n}", created_at=AT, registered_at=AT) for n in (1, 2)]
    contacts = [
        Contact(id=n, brand_id=1, partner_id=2 if n == 4 else 1, person_key=f"person-{n}", created_at=AT, updated_at=AT)
        for n in ENROLLMENTS
    ]
    return [*versions, *contacts, Campaign(id=1, brand_id=1, journey_id=1, key="spring", name="Spring", created_at=AT)]


def _enrollments() -> list[object]:
    return [
        Enrollment(
            id=n,
            brand_id=1,
            journey_id=1,
            version_id=1 if n < 3 else 2,
            campaign_id=None if n == 1 else 1,
            partner_id=2 if n == 4 else 1,
            contact_id=n,
            person_key=f"person-{n}",
            entered_at=AT,
            run_key=f"run-{n}",
        )
        for n in ENROLLMENTS
    ]


def _messages() -> list[object]:
    rows: list[object] = []
    for n in MESSAGES:
        enrollment = (n - 1) % 4 + 1
        rows.append(
            Message(
                id=n,
                token=f"token-{n}",
                header_id=f"<{n}@example>",
                enrollment_id=enrollment,
                step_id="welcome" if n <= 4 else "reminder",
                brand_id=1,
                partner_id=2 if enrollment == 4 else 1,
                contact_id=enrollment,
                campaign_id=None if enrollment == 1 else 1,
                version_id=1 if enrollment < 3 else 2,
                channel="email",
                name="welcome",
                language="ja",
                created_at=AT,
            )
        )
    return rows
