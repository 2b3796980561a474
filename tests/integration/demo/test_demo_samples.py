"""The samples go in once, as real data would: through the import, the check, and two people's approval."""

from collections import Counter

import pytest
from sqlmodel import SQLModel, col, func, select

from distmark.campaigns.table import Campaign, Member
from distmark.compliance.service import mark_registered
from distmark.contacts.table import Consent, Contact
from distmark.db import Database
from distmark.demo.brands import BRANDS, PASSWORD
from distmark.demo.people import invent
from distmark.demo.samples import CONTACTS_PER_PARTNER, MEMBERS_AT_FIRST, Samples, cards_of, load_samples, open_campaigns
from distmark.journeys.table import JourneyVersion, VersionStatus
from distmark.partners.model import Role
from distmark.partners.service import sign_in
from distmark.partners.table import Brand, Partner, User
from distmark.settings import ROOT
from tests.factories import NOW

TABLES: tuple[type[SQLModel], ...] = (Brand, Partner, User, Contact, Consent, JourneyVersion, Campaign, Member)


@pytest.fixture
def samples(db: Database) -> Samples:
    return load_samples(db, ROOT / "journey_defs", NOW)


def register(db: Database, samples: Samples) -> None:
    with db.writing() as session:
        for version_id in samples.to_register:
            mark_registered(session, version_id, f"00000000-0000-0000-0000-{version_id:012d}", NOW)


def counts(db: Database) -> dict[str, int]:
    with db.reading() as session:
        return {table.__name__: session.exec(select(func.count()).select_from(table)).one() for table in TABLES}


def test_samples_are_put_in_once_however_often_the_demo_starts(db: Database, samples: Samples) -> None:
    register(db, samples)
    open_campaigns(db, NOW)
    once = counts(db)

    again = load_samples(db, ROOT / "journey_defs", NOW)
    open_campaigns(db, NOW)

    assert counts(db) == once
    assert again.to_register == ()  # all of them have their deployment
    assert once == {
        "Brand": 6,
        "Partner": 12,  # 6 x 2
        "User": 30,  # 6 x (marketer, approver, operations, 2 partners)
        "Contact": 12 * CONTACTS_PER_PARTNER,
        "Consent": once["Consent"],
        "JourneyVersion": 6,
        "Campaign": 6,
        "Member": 12 * MEMBERS_AT_FIRST,
    }


def test_every_journey_is_approved_by_somebody_else_than_its_author(db: Database, samples: Samples) -> None:
    with db.reading() as session:
        versions = session.exec(select(JourneyVersion)).all()

    assert len(samples.to_register) == 6
    for version in versions:
        assert version.status is VersionStatus.approved
        assert version.approved_hash == version.content_hash
        assert version.author_id != version.decided_by_id


def test_everybody_signs_in_with_what_is_printed(db: Database, samples: Samples) -> None:
    cards = [card for brand in BRANDS for card in cards_of(brand)]

    with db.writing() as session:
        viewers = [sign_in(session, card.email, PASSWORD, NOW)[1] for card in cards]

    assert [viewer.role for viewer in viewers] == [card.role for card in cards]
    assert Counter(card.role for card in cards) == {Role.marketer: 6, Role.approver: 6, Role.ops: 6, Role.partner: 12}


def test_a_change_by_hand_survives_the_next_start(db: Database, samples: Samples) -> None:
    with db.writing() as session:
        user = session.exec(select(User).where(User.role == Role.partner).limit(1)).one()
        contact = session.exec(select(Contact).order_by(col(Contact.id)).limit(1)).one()
        user.language, contact.city = "en", "Elsewhere"
        user_id, contact_id = user.id, contact.id

    load_samples(db, ROOT / "journey_defs", NOW)

    with db.reading() as session:
        assert session.get_one(User, user_id).language == "en"
        assert session.get_one(Contact, contact_id).city == "Elsewhere"


def test_each_book_has_somebody_who_never_agreed_and_somebody_who_refused(db: Database, samples: Samples) -> None:
    with db.reading() as session:
        mail = session.exec(
            select(Contact.partner_id, Consent.given).join(Consent, col(Consent.contact_id) == Contact.id).where(Consent.channel == "email")
        )
        given = Counter(mail.all())
        partners = session.exec(select(Partner.id)).all()

    for partner in partners:
        assert (given[partner, True], given[partner, False]) == (CONTACTS_PER_PARTNER - 2, 1)


def test_no_address_of_the_samples_can_exist(db: Database, samples: Samples) -> None:
    """RFC 2606: nothing under .example is ever delivered."""
    with db.reading() as session:
        addresses = [*session.exec(select(Contact.email)), *session.exec(select(User.email))]

    assert [address for address in addresses if not str(address).endswith(".example")] == []


def test_the_same_seed_gives_the_same_people() -> None:
    first, second, other = (list(invent(seed, ("名古屋市",), 24)) for seed in ("nagoya", "nagoya", "osaka"))

    assert first == second
    assert first != other
    assert len({person.email for person in first}) == 24
    assert {person.language for person in first} == {"ja", "en"}
