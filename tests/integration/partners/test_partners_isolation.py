"""Guessed ids: without_partner reads or changes a row of another partner or another brand, by any function that acts for a person."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import ModuleType
from typing import Any

import pytest
from sqlmodel import Session, SQLModel, select

import distmark.tables  # noqa: F401
from distmark.campaigns import service as campaigns
from distmark.campaigns.table import Campaign, CampaignStatus, Member, MemberStatus
from distmark.compliance import accounts
from distmark.compliance import service as compliance
from distmark.compliance.table import AuditEntry
from distmark.contacts import imports
from distmark.contacts import service as contacts
from distmark.contacts.fields import ContactInput
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.errors import DistmarkError, NotAllowed, NotFound
from distmark.journeys import service as journeys
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.partners import service as partners
from distmark.partners.model import Role, Viewer
from distmark.partners.scope import may_see, visible
from distmark.partners.table import Brand, Partner
from distmark.sql import id_of
from tests.factories import (
    make_brand,
    make_campaign,
    make_contact,
    make_enrollment,
    make_member,
    make_partner,
    make_user,
    make_version,
    make_viewer,
)

NOTHING = object()


@dataclass
class Rows:
    """The ids of rows of another partner or brand."""

    partner: int
    contact: int
    loose_contact: int
    member: int
    own_campaign: int
    journey_key: str
    draft: int
    submitted: int
    registered: int
    author: int


def _rows(session: Session, partner: Partner) -> Rows:
    brand = session.get_one(Brand, partner.brand_id)
    registered = make_version(session, brand)
    draft, submitted = (make_version(session, brand, status=status) for status in (VersionStatus.draft, VersionStatus.submitted))
    contact, campaign = make_contact(session, partner), make_campaign(session, registered, partner=partner)
    member = make_member(session, campaign, contact)
    make_enrollment(session, member, registered)
    author = make_user(session, Role.partner, partner=partner)
    compliance.record(session, partner.brand_id, author.id, "stopped", "contact", id_of(contact), contact.created_at)
    ids: list[Any] = [partner.id, contact.id, make_contact(session, partner).id, member.id, campaign.id]
    journey = session.get_one(Journey, registered.journey_id)
    return Rows(*ids, journey.key, id_of(draft), id_of(submitted), id_of(registered), id_of(author))


Act = Callable[[Session, Viewer, Rows, datetime], object]

# Every function that takes a viewer and an id: it must not find the row. NOTHING: the result is empty or a count of 0.
CALLS: dict[str, tuple[Act, object]] = {
    "partners.get_partner": (lambda s, v, r, now: partners.get_partner(s, v, r.partner), NotFound),
    "contacts.get_contact": (lambda s, v, r, now: contacts.get_contact(s, v, r.contact), NotFound),
    "partners.names_of_users": (lambda s, v, r, now: partners.names_of_users(s, v, [r.author]), NOTHING),
    "contacts.contacts_by_id": (lambda s, v, r, now: contacts.contacts_by_id(s, v, [r.contact]), NOTHING),
    "contacts.create_contact": (
        lambda s, v, r, now: contacts.create_contact(s, v, ContactInput(email="a@example.com"), now, partner_id=r.partner),
        NotFound,
    ),
    "contacts.update_contact": (lambda s, v, r, now: contacts.update_contact(s, v, r.contact, ContactInput(city="x"), now), NotFound),
    "contacts.find_contacts": (lambda s, v, r, now: contacts.find_contacts(s, v, "鈴木").rows, NOTHING),
    "contacts.import_contacts": (
        lambda s, v, r, now: imports.import_contacts(s, v, r.partner, b"email\na@example.com\n", "a.csv", now),
        NotFound,
    ),
    "contacts.import_file": (
        lambda s, v, r, now: imports.import_file(_SameUnitOfWork(s), v, r.partner, b"email\na@example.com\n", "a.csv", now),
        NotFound,
    ),
    "journeys.get_version": (lambda s, v, r, now: journeys.get_version(s, v, r.registered), NotFound),
    "journeys.get_journey": (lambda s, v, r, now: journeys.get_journey(s, v, r.journey_key), NotFound),
    "journeys.list_journeys": (lambda s, v, r, now: journeys.list_journeys(s, v), NOTHING),
    "journeys.journeys_by_id": (lambda s, v, r, now: journeys.journeys_by_id(s, v), NOTHING),
    "journeys.newest_by_journey": (lambda s, v, r, now: journeys.newest_by_journey(s, v, list(VersionStatus)), NOTHING),
    "journeys.diff_of": (lambda s, v, r, now: journeys.diff_of(s, v, r.registered, r.registered), NotFound),
    "compliance.submit": (lambda s, v, r, now: compliance.submit(s, v, r.draft, now), NotFound),
    "compliance.approve": (lambda s, v, r, now: compliance.approve(s, v, r.submitted, "", now), NotFound),
    "compliance.send_back": (lambda s, v, r, now: compliance.send_back(s, v, r.submitted, "x", now), NotFound),
    "compliance.mark_registered": (lambda s, v, r, now: compliance.mark_registered(s, r.registered, "d", now, v), NotFound),
    "compliance.retire": (lambda s, v, r, now: compliance.retire(s, v, r.registered, now), NotFound),
    "compliance.change_partner": (lambda s, v, r, now: accounts.change_partner(s, v, r.partner, {"name": "A"}, now), NotFound),
    "compliance.set_partner_active": (lambda s, v, r, now: accounts.set_partner_active(s, v, r.partner, False, now), NotFound),
    "compliance.people_of": (lambda s, v, r, now: accounts.people_of(s, v, r.partner), NotFound),
    "compliance.invite": (lambda s, v, r, now: accounts.invite(s, v, "a@a.example", "A", Role.partner, r.partner, "ja", now), NotFound),
    "compliance.invite_again": (lambda s, v, r, now: accounts.invite_again(s, v, r.author, now), NotFound),
    "compliance.set_user_active": (lambda s, v, r, now: accounts.set_user_active(s, v, r.author, False, now), NotFound),
    "compliance.get_user": (lambda s, v, r, now: accounts.get_user(s, v, r.author), NotFound),
    "compliance.audit_trail": (lambda s, v, r, now: compliance.audit_trail(s, v, "contact", r.contact), NOTHING),
    "compliance.waiting_approvals": (lambda s, v, r, now: compliance.waiting_approvals(s, v), NOTHING),
    "campaigns.create_campaign": (lambda s, v, r, now: campaigns.create_campaign(s, v, r.journey_key, "k", "n", now), NotFound),
    "campaigns.set_campaign_status": (
        lambda s, v, r, now: campaigns.set_campaign_status(s, v, r.own_campaign, CampaignStatus.paused, now),
        NotFound,
    ),
    "campaigns.can_set_per_run": (lambda s, v, r, now: campaigns.can_set_per_run(s, v, r.own_campaign), NotFound),
    "campaigns.set_contacts_per_run": (lambda s, v, r, now: campaigns.set_contacts_per_run(s, v, r.own_campaign, 100, now), NotFound),
    "campaigns.list_campaigns": (lambda s, v, r, now: campaigns.list_campaigns(s, v), NOTHING),
    "campaigns.campaigns_by_id": (lambda s, v, r, now: campaigns.campaigns_by_id(s, v), NOTHING),
    "campaigns.get_campaign": (lambda s, v, r, now: campaigns.get_campaign(s, v, r.own_campaign), NotFound),
    "campaigns.add_members": (lambda s, v, r, now: campaigns.add_members(s, v, r.own_campaign, [r.loose_contact], now), NotFound),
    "campaigns.members": (lambda s, v, r, now: campaigns.members(s, v, r.own_campaign), NotFound),
    "campaigns.member_counts": (lambda s, v, r, now: campaigns.member_counts(s, v, r.own_campaign), NotFound),
    "campaigns.get_member": (lambda s, v, r, now: campaigns.get_member(s, v, r.member), NotFound),
    "campaigns.decide_members": (
        lambda s, v, r, now: campaigns.decide_members(s, v, r.own_campaign, [r.member], MemberStatus.rejected, now),
        NotFound,
    ),
    "campaigns.save_campaign_blocks": (lambda s, v, r, now: campaigns.save_campaign_blocks(s, v, r.own_campaign, "ja", {}, now), NotFound),
    "campaigns.save_partner_blocks": (lambda s, v, r, now: campaigns.save_partner_blocks(s, v, r.own_campaign, "ja", {}, now), NotFound),
    "campaigns.translate_campaign": (
        lambda s, v, r, now: campaigns.translate_campaign(s, v, r.own_campaign, "en", "Autumn", now),
        NotFound,
    ),
    "campaigns.words_trail": (lambda s, v, r, now: [*campaigns.words_trail(s, v, r.own_campaign), "found"], NotFound),
    "campaigns.agree_to_words": (lambda s, v, r, now: 1 + campaigns.agree_to_words(s, v, r.own_campaign, [r.member], "", now), NotFound),
    "campaigns.save_member_blocks": (lambda s, v, r, now: campaigns.save_member_blocks(s, v, r.member, "ja", {}, now), NotFound),
}


class _SameUnitOfWork(Database):
    """A database whose units of work are all part of this one, so that they see its rows."""

    def __init__(self, session: Session) -> None:
        self.engine, self.session = session.get_bind().engine, session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        yield self.session

    writing = reading


# Functions that take no id: their rows are the viewer's own.
WITHOUT_IDS = {
    "partners.sessions_of", "partners.end_other_sessions", "compliance.create_partner", "compliance.partner_key_for",
    "compliance.change_own_password", "compliance.check_version",
    "partners.require", "partners.set_language", "partners.brand_of", "partners.partners_of",
}  # fmt: skip
# Functions on rows of the whole brand, which its partners may see, or which only roles of the brand may call.
OF_THE_BRAND = {name for name in CALLS if name.startswith(("journeys.", "compliance.", "campaigns.create", "partners.names"))} - {
    "compliance.audit_trail"
}


MODULES: dict[str, tuple[ModuleType, ...]] = {
    "partners": (partners,),
    "contacts": (contacts, imports),
    "journeys": (journeys,),
    "compliance": (compliance, accounts),
    "campaigns": (campaigns,),
}


@pytest.mark.parametrize("room", MODULES)
def test_every_function_that_takes_a_viewer_is_called_below(room: str):
    functions = {
        name: function
        for module in MODULES[room]
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__.startswith(f"distmark.{room}.") and not name.startswith("_") and function is not visible
    }
    found = {f"{room}.{name}" for name, function in functions.items() if "viewer" in inspect.signature(function).parameters}

    assert found == {name for name in CALLS.keys() | WITHOUT_IDS if name.startswith(f"{room}.")}


@pytest.mark.parametrize("name", list(CALLS))
def test_nobody_reaches_rows_of_another_brand(db: Database, now: datetime, name: str):
    """S5"""
    with db.writing() as session:
        rows = _rows(session, make_partner(session))
        viewers = [make_viewer(session, role, make_brand(session)) for role in Role]
        before = _snapshot(session)

        for viewer in viewers:
            _call(session, viewer, rows, now, name)

        assert _snapshot(session) == before


@pytest.mark.parametrize("name", sorted(CALLS.keys() - OF_THE_BRAND))
def test_partner_does_not_reach_rows_of_another_partner_of_the_brand(db: Database, now: datetime, name: str):
    """S5"""
    with db.writing() as session:
        brand = make_brand(session)
        rows = _rows(session, make_partner(session, brand))
        viewer = make_viewer(session, partner=make_partner(session, brand))
        before = _snapshot(session)

        _call(session, viewer, rows, now, name)

        assert _snapshot(session) == before


def _call(session: Session, viewer: Viewer, rows: Rows, now: datetime, name: str) -> None:
    act, expected = CALLS[name]
    try:
        answer = act(session, viewer, rows, now)
    except NotAllowed:  # the role may not do this to any row
        return
    except NotFound:
        assert expected is NotFound
        return
    assert expected is NOTHING
    assert answer in ([], {}, 0)


def _snapshot(session: Session) -> dict[str, list[Any]]:
    session.flush()
    tables = (Partner, Contact, Member, Campaign, Journey, JourneyVersion, AuditEntry)
    return {table.__name__: sorted(repr(row.model_dump()) for row in session.exec(select(table))) for table in tables}


def test_same_calls_succeed_for_the_owner(db: Database, now: datetime):
    """The calls above fail because the rows belong to others, and for no other reason."""
    reached = set()
    for name, (act, _expected) in CALLS.items():
        for role in Role:
            with db._write() as session:  # rolled back
                partner = make_partner(session)
                rows = _rows(session, partner)
                viewer = make_viewer(session, role, session.get_one(Brand, partner.brand_id), partner if role is Role.partner else None)
                try:
                    answer = act(session, viewer, rows, now)
                except (NotAllowed, NotFound):
                    continue
                except DistmarkError:
                    reached.add(name)  # refused, such as for its status, but found
                    continue
                if answer not in ([], {}, 0):
                    reached.add(name)

    assert reached == set(CALLS)


def test_partners_person_without_a_partner_sees_nothing(db: Database):
    with db.writing() as session:
        partner = make_partner(session)
        make_contact(session, partner)
        without_partner = Viewer(1, Role.partner, partner.brand_id, None, "?")

        assert session.exec(visible(select(Contact), Contact, without_partner)).all() == []
        assert session.exec(visible(select(Campaign), Campaign, without_partner)).all() == []


@pytest.mark.parametrize("model", sorted(SQLModel.__subclasses__(), key=lambda model: model.__name__), ids=lambda model: model.__name__)
def test_table_names_its_brand_or_cannot_be_filtered(model: type[SQLModel]):
    viewer = Viewer(1, Role.partner, 7, 8, "佐藤")
    columns = model.__table__.columns  # type: ignore[attr-defined]

    if "brand_id" not in columns and model is not Brand:
        with pytest.raises(TypeError, match="nobody can say whose rows they are"):
            may_see(model, viewer)
        return

    condition = str(may_see(model, viewer).compile(compile_kwargs={"literal_binds": True}))
    assert "= 7" in condition
    assert ("= 8" in condition) == ("partner_id" in columns or model is Partner)
