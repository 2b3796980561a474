"""Rows with valid defaults: name only what the test is about. Every factory writes its row and returns it with its id."""

from datetime import UTC, date, datetime
from functools import cache
from itertools import count
from typing import Any, TypeVar

import yaml
from sqlmodel import Session, SQLModel, col, func, select

from distmark.campaigns.table import Campaign, Member
from distmark.contacts.model import address_hash, address_key
from distmark.contacts.table import Contact
from distmark.enrollments.table import Enrollment
from distmark.journeys.source import Source
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.partners.model import Role, Viewer
from distmark.partners.table import Brand, Partner, User

NOW = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
PASSWORD = "correct horse battery staple"
_numbers = count(1)
_Row = TypeVar("_Row", bound=SQLModel)


def _save(session: Session, row: _Row) -> _Row:
    session.add(row)
    session.flush()
    return row


@cache
def _password_hash() -> str:
    from distmark.partners.service import hash_password

    return hash_password(PASSWORD)


def make_brand(session: Session, **fields: Any) -> Brand:
    n = next(_numbers)
    defaults: dict[str, Any] = {
        "key": f"brand-{n}",
        "name": "みらい証券",
        "legal_name": "みらい証券株式会社",
        "address": "東京都千代田区丸の内1-1-1",
        "contact": "0120-000-000",
        "website": "https://mirai.example",
        "image_domains": ["images.mirai.example"],
    }
    return _save(session, Brand(**(defaults | fields)))


def make_partner(session: Session, brand: Brand | None = None, **fields: Any) -> Partner:
    n = next(_numbers)
    brand = brand or make_brand(session)
    defaults: dict[str, Any] = {
        "brand_id": brand.id,
        "key": f"partner-{n}",
        "name": "佐藤 健",
        "title": "ファイナンシャルアドバイザー",
        "office": "名古屋支店",
        "city": "名古屋市",
        "phone": "+81521234567",
        "email": f"sato{n}@mirai.example",
        "code": f"P{n:04d}",
    }
    return _save(session, Partner(**(defaults | fields)))


def make_user(
    session: Session, role: Role = Role.marketer, brand: Brand | None = None, partner: Partner | None = None, **fields: Any
) -> User:
    """A person who signs in with PASSWORD; a partner's person when `partner` is given or the role says so."""
    n = next(_numbers)
    if role is Role.partner and partner is None:
        partner = make_partner(session, brand)
    brand_id = partner.brand_id if partner else (brand or make_brand(session)).id
    defaults: dict[str, Any] = {
        "email": f"user{n}@mirai.example",
        "name": "田中 美咲",
        "password_hash": _password_hash(),
        "role": role,
        "brand_id": brand_id,
        "partner_id": partner.id if partner else None,
        "created_at": NOW,
        "password_set_at": NOW,
    }
    return _save(session, User(**(defaults | fields)))


def make_viewer(
    session: Session, role: Role = Role.marketer, brand: Brand | None = None, partner: Partner | None = None, **fields: Any
) -> Viewer:
    """The viewer of a new user; `partner=` makes it a partner's person when no role is given."""
    if partner and role is Role.marketer:
        role = Role.partner
    user = make_user(session, role, brand, partner, **fields)
    assert user.id is not None
    return Viewer(user.id, user.role, user.brand_id, user.partner_id, user.name, user.language)


def make_contact(session: Session, partner: Partner | None = None, **fields: Any) -> Contact:
    n = next(_numbers)
    partner = partner or make_partner(session)
    defaults: dict[str, Any] = {
        "brand_id": partner.brand_id,
        "partner_id": partner.id,
        "first_name": "花子",
        "last_name": "鈴木",
        "email": f"hanako{n}@example.com",
        "phone": "+819012345678",
        "city": "名古屋市",
        "birthday": date(1980, 4, 1),
        "created_at": NOW,
        "updated_at": NOW,
    }
    values = defaults | fields
    if values["email"]:
        values.setdefault("email_key", address_key(values["email"]))
        values.setdefault("person_key", address_hash(partner.brand_id, values["email"]))
    values.setdefault("person_key", f"none-{n}")
    return _save(session, Contact(**values))


JOURNEY = """
key: {key}
name: {{ja: 資料のご案内, en: A short introduction}}
description: {{ja: お電話のあとにお送りします, en: After a phone call}}
brand: {brand}
languages: [ja, en]
kind: marketing
entry: {{reentry: after_exit, cooldown: 30 days}}
goal: {{when: "converted('account_opened')", target: 12%}}
events: [account_opened]
links: {{plans: "https://mirai.example/plans?ref={{{{ partner.code }}}}"}}
blocks:
  personal_note:
    label: {{ja: 個別の一言, en: Personal note}}
    kind: text
    max_length: 300
    default: {{ja: お気軽にご相談ください。, en: Ask me anything.}}
  photo:
    label: {{ja: 写真, en: Photo}}
    kind: image
    max_length: 300
    default: {{ja: "", en: ""}}
  closing:
    label: {{ja: 結び, en: Closing}}
    kind: text
    max_length: 300
    default: {{ja: どうぞよろしくお願いいたします。, en: Kind regards}}
steps:
  - {{id: welcome, send: email, message: welcome, editable: [personal_note, photo]}}
  - {{id: time-to-read, wait: {{for: 3 days, until: "09:00"}}}}
  - id: engaged
    branch:
      - when: "clicked('welcome')"
        steps:
          - {{id: call, task: {{for: partner, title: "{{{{ contact.last_name }}}}さんに電話", due: 1 day}}}}
"""

_MJML = """<mjml><mj-body><mj-section><mj-column>
<mj-text>{{ greeting }}</mj-text>
<mj-text>{{ blocks.personal_note }}</mj-text>
<mj-image src="{{ blocks.photo }}" alt="" css-class="only-if-photo" />
<mj-button href="{{ links.plans }}">TEXT</mj-button>
<mj-text>{{ blocks.closing }}</mj-text>
<mj-text>{{ legal_footer }}</mj-text>
</mj-column></mj-section></mj-body></mjml>
"""
_TEXT = """{{ greeting }}

{{ blocks.personal_note }}

{{ links.plans }}

{{ blocks.closing }}

{{ legal_footer }}
"""
TEMPLATES = {
    "welcome.ja.subject.txt": "{{ contact.last_name }}様へ、資料のご案内",
    "welcome.ja.text.txt": _TEXT,
    "welcome.ja.mjml": _MJML.replace("TEXT", "プランを見る"),
    "welcome.en.subject.txt": "A short introduction for {{ contact.first_name }}",
    "welcome.en.text.txt": _TEXT,
    "welcome.en.mjml": _MJML.replace("TEXT", "See the plans"),
}


def make_source(
    key: str = "introduction", brand: str = "mirai-securities", journey: str = JOURNEY, templates: dict[str, str] | None = None
) -> Source:
    """A small valid journey: a mail, three days, and a call if its link was clicked; `templates` replaces files of it by name."""
    return Source(journey.format(key=key, brand=brand), TEMPLATES | (templates or {}), path=key)


def make_version(
    session: Session, brand: Brand | None = None, journey: Journey | None = None, source: Source | None = None, **fields: Any
) -> JourneyVersion:
    """A version that may take entrants: approved, registered, its hashes set. Give `status` for another."""
    brand = brand or (session.get_one(Brand, journey.brand_id) if journey else make_brand(session))
    source = source or make_source(journey.key if journey else f"journey-{next(_numbers)}", brand.key)
    journey = journey or make_journey(session, brand, source)
    newest = session.exec(select(func.max(JourneyVersion.number)).where(JourneyVersion.journey_id == journey.id)).one()
    defaults: dict[str, Any] = {
        "journey_id": journey.id,
        "number": (newest or 0) + 1,
        "status": VersionStatus.registered,
        "content_hash": source.content_hash,
        "source": source.to_json(),
        "created_at": NOW,
    }
    values = defaults | fields
    if values["status"] in APPROVED:
        values = {"approved_hash": source.content_hash, "submitted_at": NOW, "decided_at": NOW} | values
    if values["status"] in (VersionStatus.registered, VersionStatus.retired):
        values = {"registered_at": NOW, "deployment_id": "11111111-2222-3333-4444-555555555555"} | values
    return _save(session, JourneyVersion(**values))


APPROVED = (VersionStatus.approved, VersionStatus.registered, VersionStatus.retired)


def make_journey(session: Session, brand: Brand | None = None, source: Source | None = None, **fields: Any) -> Journey:
    brand = brand or make_brand(session)
    key = fields.get("key") or (yaml.safe_load(source.definition)["key"] if source else f"journey-{next(_numbers)}")
    defaults = {"brand_id": brand.id, "key": key, "name": {"ja": "資料のご案内", "en": "A short introduction"}, "created_at": NOW}
    return _save(session, Journey(**(defaults | fields)))


def make_campaign(
    session: Session, version: JourneyVersion | None = None, brand: Brand | None = None, partner: Partner | None = None, **fields: Any
) -> Campaign:
    """An open campaign of the version's journey, for one partner or for every partner of the brand."""
    n = next(_numbers)
    if version is None:
        brand = brand or (session.get_one(Brand, partner.brand_id) if partner else None)
        version = make_version(session, brand)
    journey = session.get_one(Journey, version.journey_id)
    defaults: dict[str, Any] = {
        "brand_id": journey.brand_id,
        "partner_id": partner.id if partner else None,
        "journey_id": journey.id,
        "key": f"campaign-{n}",
        "name": "秋のご案内",
        "created_at": NOW,
    }
    return _save(session, Campaign(**(defaults | fields)))


def make_member(session: Session, campaign: Campaign | None = None, contact: Contact | None = None, **fields: Any) -> Member:
    """A contact in a campaign; what is not given is made to fit."""
    if contact is None:
        contact = make_contact(session, _partner_of(session, campaign))
    if campaign is None:
        campaign = make_campaign(session, brand=session.get_one(Brand, contact.brand_id))
    defaults: dict[str, Any] = {
        "campaign_id": campaign.id,
        "partner_id": contact.partner_id,
        "contact_id": contact.id,
        "added_at": NOW,
    }
    return _save(session, Member(**(defaults | fields)))


def _partner_of(session: Session, campaign: Campaign | None) -> Partner | None:
    if campaign is None:
        return None
    if campaign.partner_id is not None:
        return session.get_one(Partner, campaign.partner_id)
    return make_partner(session, session.get_one(Brand, campaign.brand_id))


def make_enrollment(session: Session, member: Member | None = None, version: JourneyVersion | None = None, **fields: Any) -> Enrollment:
    """A live enrollment at the journey's start, due now."""
    n = next(_numbers)
    if member is None:
        member = make_member(session, make_campaign(session, version) if version else None)
    campaign = session.get_one(Campaign, member.campaign_id)
    contact = session.get_one(Contact, member.contact_id)
    version = version or _newest(session, campaign.journey_id)
    defaults: dict[str, Any] = {
        "brand_id": campaign.brand_id,
        "journey_id": campaign.journey_id,
        "version_id": version.id,
        "campaign_id": campaign.id,
        "member_id": member.id,
        "partner_id": member.partner_id,
        "contact_id": contact.id,
        "person_key": contact.person_key,
        "live_key": f"{campaign.journey_id}:{contact.person_key}",
        "due_at": NOW,
        "why": "time",
        "entered_at": NOW,
        "run_key": f"run-{n}",
    }
    return _save(session, Enrollment(**(defaults | fields)))


def _newest(session: Session, journey_id: int) -> JourneyVersion:
    of_journey = select(JourneyVersion).where(JourneyVersion.journey_id == journey_id)
    return session.exec(of_journey.order_by(col(JourneyVersion.number).desc())).first() or make_version(
        session, journey=session.get_one(Journey, journey_id)
    )
