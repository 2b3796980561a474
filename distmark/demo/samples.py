"""Puts the samples into an installation: brands, partners, users, contacts, journeys approved by four eyes, campaigns. Safe to repeat."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from sqlmodel import Session, col, select

from distmark.campaigns.service import add_members, create_campaign
from distmark.campaigns.table import Campaign
from distmark.compliance.service import approve, submit
from distmark.contacts.imports import import_contacts
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.demo.brands import BRANDS, PASSWORD, SampleBrand, SamplePartner
from distmark.demo.people import Invented, invent
from distmark.journeys.service import save_draft
from distmark.journeys.source import load_source
from distmark.journeys.table import JourneyVersion, VersionStatus
from distmark.partners.model import Role, Viewer
from distmark.partners.service import ensure_brand, ensure_partner, hash_password
from distmark.partners.table import Brand, Partner, User
from distmark.sql import id_of

CONTACTS_PER_PARTNER = 24
MEMBERS_AT_FIRST = 8  # of each partner in the campaign, so that the first look at it shows people and a preview
NEVER_ASKED, REFUSED = 22, 23  # by number: one who never agreed, one who said no


@dataclass(frozen=True, slots=True)
class SignInCard:
    """The sign-in of one demo user."""

    brand: str
    role: Role
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Samples:
    """The result of loading the samples. `to_register` are approved versions that have no deployment yet."""

    cards: tuple[SignInCard, ...]
    to_register: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Staff:
    """The users of one brand that act while the samples are loaded."""

    marketer: Viewer
    approver: Viewer
    partners: tuple[tuple[Partner, Viewer], ...]


def load_samples(db: Database, journey_defs: Path, now: datetime, *, today: datetime | None = None) -> Samples:
    """Every sample is in the database, once, since `now`; journeys are approved but for their deployment.

    Dates among the contacts' attributes, such as the start of a policy, are counted from `today`; left out, it is `now`.
    """
    cards: list[SignInCard] = []
    to_register: list[int] = []
    for sample in BRANDS:
        with db.writing() as session:
            brand = _brand(session, sample)
            staff = _staff(session, sample, brand, now)
            version = _journey(session, sample, brand, staff, journey_defs, now)
            if version.status is VersionStatus.approved:
                to_register.append(id_of(version))
            for (partner, viewer), facts in zip(staff.partners, sample.partners, strict=True):
                _book(session, sample, facts, partner, viewer, now, today or now)
        cards += cards_of(sample)
    return Samples(tuple(cards), tuple(to_register))


def open_campaigns(db: Database, now: datetime) -> None:
    """Open each brand's campaign, with some undecided members. Its journey must be registered."""
    for sample in BRANDS:
        with db.writing() as session:
            brand = session.exec(select(Brand).where(Brand.key == sample.key)).one()
            campaign = _campaign(session, sample, brand, viewer_of(session, sample, sample.marketer[1]), now)
            for facts in sample.partners:
                viewer = viewer_of(session, sample, facts.roman)
                contacts = (
                    select(Contact.id).where(Contact.partner_id == viewer.partner_id).order_by(col(Contact.id)).limit(MEMBERS_AT_FIRST)
                )
                add_members(session, viewer, id_of(campaign), [contact_id for contact_id in session.exec(contacts) if contact_id], now)


def cards_of(sample: SampleBrand) -> list[SignInCard]:
    """Return how the people of a brand sign in: marketer, approver, operations, partners."""
    staff = [(Role.marketer, *sample.marketer), (Role.approver, *sample.approver), (Role.ops, *sample.operator)]
    people = [*staff, *((Role.partner, partner.name, partner.roman) for partner in sample.partners)]
    return [SignInCard(sample.name, role, name, _email(sample, first)) for role, name, first in people]


def _email(sample: SampleBrand, first: str) -> str:
    return f"{first}@{sample.domain}"


def _brand(session: Session, sample: SampleBrand) -> Brand:
    return ensure_brand(
        session,
        key=sample.key,
        name=sample.name,
        legal_name=sample.legal_name,
        address=sample.address,
        contact=sample.contact,
        website=sample.website,
        translations={"en": asdict(sample.english)},
        tokens={"brand": sample.colour, "brand_soft": sample.soft},
        image_domains=[f"images.{sample.domain}"],
        mail_from=f"hello@{sample.domain}",
    )


def _staff(session: Session, sample: SampleBrand, brand: Brand, now: datetime) -> Staff:
    partners = tuple(_partner(session, sample, brand, facts, now) for facts in sample.partners)
    marketer = _user(session, sample, brand, Role.marketer, sample.marketer, now)
    approver = _user(session, sample, brand, Role.approver, sample.approver, now)
    _user(session, sample, brand, Role.ops, sample.operator, now)
    return Staff(marketer, approver, partners)


def _partner(session: Session, sample: SampleBrand, brand: Brand, facts: SamplePartner, now: datetime) -> tuple[Partner, Viewer]:
    partner = ensure_partner(
        session,
        brand_id=id_of(brand),
        key=facts.key,
        name=facts.name,
        title=facts.title,
        office=facts.office,
        city=facts.city,
        phone=facts.phone,
        email=_email(sample, facts.roman),
        code=facts.code,
    )
    return partner, _user(session, sample, brand, Role.partner, (facts.name, facts.roman), now, partner.id)


def _user(
    session: Session, sample: SampleBrand, brand: Brand, role: Role, who: tuple[str, str], now: datetime, partner_id: int | None = None
) -> Viewer:
    name, first = who
    language = "ja" if ord(name[0]) > 127 else "en"
    email = _email(sample, first)
    known = session.exec(select(User).where(User.email == email)).first()
    if known is None:  # made once and then left alone: somebody may have chosen another language or password since
        known = User(
            email=email,
            password_hash=_password_hash(),
            created_at=now,
            password_set_at=now,
            name=name,
            role=role,
            brand_id=id_of(brand),
            partner_id=partner_id,
            language=language,
        )
        session.add(known)
        session.flush()
    return as_viewer(known)


@cache
def _password_hash() -> str:
    # One for all: each takes a good part of a second, as it should, and there are two dozen people.
    return hash_password(PASSWORD)


def viewer_of(session: Session, sample: SampleBrand, first: str) -> Viewer:
    """Return the viewer that the brand's person is whose mail address begins so."""
    return as_viewer(session.exec(select(User).where(User.email == _email(sample, first))).one())


def as_viewer(user: User) -> Viewer:
    """Return the viewer that this user is."""
    return Viewer(id_of(user), user.role, user.brand_id, user.partner_id, user.name, user.language)


def _journey(session: Session, sample: SampleBrand, brand: Brand, staff: Staff, journey_defs: Path, now: datetime) -> JourneyVersion:
    source = load_source(journey_defs / sample.journey)
    version = save_draft(session, id_of(brand), source, staff.marketer.user_id, now)
    if version.status is VersionStatus.draft:
        submit(session, staff.marketer, id_of(version), now)
    if version.status is VersionStatus.submitted:
        approve(session, staff.approver, id_of(version), "サンプルの文面を確認しました。", now)
    return version


def _book(
    session: Session, sample: SampleBrand, facts: SamplePartner, partner: Partner, viewer: Viewer, now: datetime, today: datetime
) -> None:
    """The partner's book holds the invented people, brought in as a file like anybody's. A book that has people is left alone."""
    if session.exec(select(Contact.id).where(Contact.partner_id == partner.id).limit(1)).first() is not None:
        return
    people = invent(f"{facts.key}.mail", facts.towns, CONTACTS_PER_PARTNER)
    import_contacts(session, viewer, id_of(partner), contacts_file(sample, people, today), f"{facts.key}.csv", now)


def contacts_file(sample: SampleBrand, people: Iterable[Invented], now: datetime) -> bytes:
    """Return the file with which a partner brings these people in; dates in it are counted from `now`."""
    out = io.StringIO()
    columns = ("姓", "名", "メールアドレス", "携帯電話", "言語", "市区町村", "会社名", "誕生日", "メール同意", "SMS同意")
    writer = csv.writer(out)
    writer.writerow((*columns, *sample.attributes))
    for person in people:
        agrees = {NEVER_ASKED: "", REFUSED: "no"}.get(person.number, "yes")
        company = person.company if sample.needs_company else ""
        about = [_value(values[person.number % len(values)], now) for values in sample.attributes.values()]
        address = (person.email, person.phone, person.language, person.city, company, person.birthday.isoformat())
        writer.writerow((person.last_name, person.first_name, *address, agrees, agrees if person.phone else "", *about))
    return out.getvalue().encode()


def _value(value: str, now: datetime) -> str:
    return (now + timedelta(days=int(value))).date().isoformat() if value.startswith("+") else value


def _campaign(session: Session, sample: SampleBrand, brand: Brand, marketer: Viewer, now: datetime) -> Campaign:
    known = session.exec(select(Campaign).where(Campaign.brand_id == brand.id, Campaign.key == sample.campaign)).first()
    return known or create_campaign(session, marketer, sample.journey, sample.campaign, sample.campaign_name, now)
