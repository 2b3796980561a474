"""Membership of segments: rules, lists and evaluations, which never interrupt a lasting membership."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event as database_event
from sqlmodel import col, select

from distmark.contacts.fields import ContactInput
from distmark.contacts.service import create_contact, update_contact
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.errors import InvalidInput, NotAllowed, NotFound, Refused
from distmark.partners.model import Role, Viewer
from distmark.segments import membership, service
from distmark.segments.table import SegmentMember
from distmark.sql import id_of
from tests import factories

YOKOHAMA_GOLD = "contact.city == '横浜市' and contact.plan == 'gold'"


class Shop:
    """A brand with two partners, each with a book of contacts."""

    def __init__(self, db: Database, now: datetime) -> None:
        self.db, self.now = db, now
        with db.writing() as session:
            self.brand = factories.make_brand(session)
            self.own_partner, self.other_partner = (factories.make_partner(session, self.brand) for _ in range(2))
            self.partner: Viewer = factories.make_viewer(session, partner=self.own_partner)
            self.marketer: Viewer = factories.make_viewer(session, Role.marketer, self.brand)
            self.elsewhere: Viewer = factories.make_viewer(session, Role.marketer)

    def segment(self, rule: str | None = None, key: str = "gold", viewer: Viewer | None = None, **fields: Any) -> int:
        with self.db.writing() as session:
            segment = service.create_segment(session, viewer or self.marketer, key, key.title(), self.now, rule=rule, **fields)
            return id_of(segment)

    def contacts(self, count: int = 1, of_other: bool = False, **fields: Any) -> list[int]:
        """Return the ids of new contacts, inserted in bulk, without an evaluation of segments."""
        with self.db.writing() as session:
            partner = session.get_one(type(self.own_partner), (self.other_partner if of_other else self.own_partner).id)
            return [id_of(factories.make_contact(session, partner, **fields)) for _ in range(count)]

    def rebuild(self) -> int:
        judged = 0
        while True:
            with self.db.writing() as session:
                part = membership.rebuild_batch(session, self.now)
            if part is None:
                return judged
            judged += part

    def members(self, segment_id: int) -> list[int]:
        with self.db.reading() as session:
            return [id_of(contact) for contact in service.segment_contacts(session, self.marketer, segment_id, limit=500)]

    def rows(self) -> list[tuple[int, datetime, datetime | None]]:
        with self.db.reading() as session:
            found = session.exec(select(SegmentMember).order_by(col(SegmentMember.id)))
            return [(row.contact_id, row.joined_at, row.left_at) for row in found]


@pytest.fixture
def shop(db: Database, now: datetime) -> Shop:
    return Shop(db, now)


def test_rule_finds_contacts_that_exist_already(shop: Shop):
    gold = shop.contacts(city="横浜市", attributes={"plan": "gold"})
    shop.contacts(city="横浜市", attributes={"plan": "basic"})
    shop.contacts(city="川崎市", attributes={"plan": "gold"})
    shop.contacts(city="横浜市", attributes={"plan": "gold"}, erased_at=shop.now)

    segment_id = shop.segment(YOKOHAMA_GOLD)
    judged = shop.rebuild()

    assert shop.members(segment_id) == gold
    assert judged == 4


def test_contact_is_evaluated_when_created_and_when_changed(shop: Shop):
    segment_id = shop.segment("contact.city == '横浜市'")
    shop.rebuild()

    with shop.db.writing() as session:
        written = ContactInput(email="new@example.com", city="横浜市")
        hanako = id_of(create_contact(session, shop.partner, written, shop.now))
    joined = shop.members(segment_id)
    with shop.db.writing() as session:
        update_contact(session, shop.partner, hanako, ContactInput(city="川崎市"), shop.now)

    assert joined == [hanako]
    assert shop.members(segment_id) == []


def test_partners_segment_holds_nobody_from_another_book(shop: Shop):
    own, _others = shop.contacts(city="横浜市"), shop.contacts(city="横浜市", of_other=True)

    segment_id = shop.segment("contact.city == '横浜市'", viewer=shop.partner)
    shop.rebuild()

    assert shop.members(segment_id) == own


def test_evaluation_never_touches_lasting_memberships(shop: Shop):
    """L7"""
    stay = shop.contacts(3, city="横浜市", attributes={"plan": "gold"})
    leave = shop.contacts(1, city="川崎市", attributes={"plan": "gold"})
    segment_id = shop.segment("contact.plan == 'gold'")
    shop.rebuild()
    before = shop.rows()
    gone: list[str] = []
    database_event.listen(shop.db.engine, "before_cursor_execute", lambda c, cur, sql, *rest: gone.append(sql))

    with shop.db.writing() as session:
        service.change_rule(session, shop.marketer, segment_id, YOKOHAMA_GOLD, shop.now)
    shop.now += timedelta(hours=1)
    shop.rebuild()

    after = shop.rows()
    assert shop.members(segment_id) == stay
    assert [row for row in after if row[0] in stay] == [row for row in before if row[0] in stay]
    assert [(contact_id, left_at) for contact_id, _, left_at in after if contact_id in leave] == [(leave[0], shop.now)]
    assert not [sql for sql in gone if sql.startswith("DELETE")]


def test_rule_changed_during_an_evaluation_begins_again_with_the_new_one(shop: Shop):
    """S2"""
    early, late = shop.contacts(2, city="横浜市"), shop.contacts(2, city="川崎市")
    segment_id = shop.segment("contact.city == '横浜市'")
    with shop.db.writing() as session:
        membership.rebuild_batch(session, shop.now, limit=3)

    with shop.db.writing() as session:
        service.change_rule(session, shop.marketer, segment_id, "contact.city == '川崎市'", shop.now)
    halfway = shop.members(segment_id)
    shop.rebuild()

    assert halfway == early
    assert shop.members(segment_id) == late


def test_change_of_one_contact_costs_the_same_however_many_there_are(shop: Shop):
    """S1"""
    segment_id = shop.segment("contact.city == '横浜市'")
    few = _statements_of_a_change(shop, shop.contacts(2, city="横浜市")[0])
    shop.contacts(200, city="横浜市")
    shop.rebuild()

    many = _statements_of_a_change(shop, shop.members(segment_id)[-1])

    assert many == few
    assert shop.rebuild() == 0


def _statements_of_a_change(shop: Shop, contact_id: int) -> int:
    shop.rebuild()
    statements: list[str] = []
    with shop.db.writing() as session:
        database_event.listen(session.connection(), "before_cursor_execute", lambda c, cur, sql, *rest: statements.append(sql))
        update_contact(session, shop.partner, contact_id, ContactInput(city="川崎市"), shop.now)
    return len(statements)


def test_odd_value_neither_ends_a_membership_nor_stops_the_evaluation_of_others(shop: Shop):
    """L7"""
    rich = shop.contacts(1, attributes={"balance": 200})
    segment_id = shop.segment("contact.balance > 100")
    shop.rebuild()
    with shop.db.writing() as session:
        update_contact(session, shop.partner, rich[0], ContactInput(attributes={"balance": "many"}), shop.now)
    more = shop.contacts(1, attributes={"balance": 300})
    with shop.db.writing() as session:
        service.change_rule(session, shop.marketer, segment_id, "contact.balance >= 100", shop.now)

    shop.rebuild()

    assert shop.members(segment_id) == rich + more


def test_attributes_kept_as_text_are_read_as_the_segments_types(shop: Shop):
    shop.contacts(1, attributes={"is_client": "いいえ"})
    client = shop.contacts(1, attributes={"is_client": "はい"})

    segment_id = shop.segment("contact.is_client", fields={"is_client": "bool"})
    shop.rebuild()

    assert shop.members(segment_id) == client


def test_rule_about_time_is_evaluated_every_day_of_the_brand(shop: Shop):
    soon = shop.contacts(1, birthday=date(1980, 12, 1), attributes={"renewal": "2026-12-24"})
    segment_id = shop.segment("days_until(contact.renewal) <= 29", fields={"renewal": "date"})
    _day(shop)
    at_first = shop.members(segment_id)  # 24 Nov: 30 days

    shop.now = datetime(2026, 11, 24, 14, 59, tzinfo=UTC)  # 23:59 in Tokyo
    same_day = _day(shop)
    shop.now += timedelta(minutes=1)
    next_day = _day(shop)

    assert (at_first, same_day, next_day) == ([], 0, 1)
    assert shop.members(segment_id) == soon


def _day(shop: Shop) -> int:
    with shop.db.writing() as session:
        membership.begin_day(session, shop.now)
    return shop.rebuild()


def test_listed_members_come_and_go_by_hand(shop: Shop):
    one, two = shop.contacts(2)
    segment_id = shop.segment()

    with shop.db.writing() as session:
        added = service.add_to_segment(session, shop.marketer, segment_id, [one, two, one], shop.now)
        again = service.add_to_segment(session, shop.marketer, segment_id, [one], shop.now)
        removed = service.remove_from_segment(session, shop.marketer, segment_id, [two], shop.now)
        back = service.add_to_segment(session, shop.marketer, segment_id, [two], shop.now)

    assert (added, again, removed, back) == (2, 0, 1, 1)
    assert shop.members(segment_id) == [one, two]


def test_in_segment_uses_the_contact_as_it_is_now_even_before_the_flow_ran(shop: Shop):
    shop.segment("contact.city == '横浜市'", key="yokohama")
    shop.segment("contact.city != '横浜市'", key="elsewhere", viewer=shop.partner)
    listed = shop.segment(key="vip")
    hanako, taro = shop.contacts(1, city="横浜市")[0], shop.contacts(1, city="川崎市", of_other=True)[0]

    with shop.db.writing() as session:
        service.add_to_segment(session, shop.marketer, listed, [taro], shop.now)
        people = list(session.exec(select(Contact).order_by(col(Contact.id))))
        keys = membership.segment_keys_of(session, people, shop.now)

    assert keys == {hanako: frozenset({"yokohama"}), taro: frozenset({"vip"})}


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ("contcat.city == 'x'", "did you mean contact"),
        ("in_segment('gold')", "in_segment"),
        ("clicked('welcome')", "clicked"),
        ("contact.city ==", "cannot be read"),
        ("days_until()", "days_until wrongly"),
        ("", "cannot be read"),
    ],
)
def test_rule_that_needs_more_than_the_contact_is_refused(shop: Shop, rule: str, named: str):
    with pytest.raises(InvalidInput, match=named):
        shop.segment(rule)


def test_key_means_one_segment_for_each_contact(shop: Shop):
    shop.segment(key="vip", viewer=shop.partner)
    shop.segment(key="gold")

    with pytest.raises(Refused, match="vip"):
        shop.segment(key="vip")
    with pytest.raises(Refused, match="gold"):
        shop.segment(key="gold", viewer=shop.partner)


def test_segments_of_others_are_not_found(shop: Shop):
    own, brands = shop.segment(key="mine", viewer=shop.partner), shop.segment(key="ours")
    foreign = shop.contacts(1, of_other=True)
    with shop.db.writing() as session:
        other = factories.make_viewer(session, partner=session.get_one(type(shop.other_partner), shop.other_partner.id))
        for viewer in (other, shop.elsewhere):
            with pytest.raises(NotFound):
                service.get_segment(session, viewer, own)
        with pytest.raises(NotFound):
            service.add_to_segment(session, shop.partner, own, foreign, shop.now)
        with pytest.raises(Refused):
            service.add_to_segment(session, shop.marketer, own, foreign, shop.now)
        with pytest.raises(NotFound):
            service.create_segment(session, shop.partner, "x", "X", shop.now, partner_id=shop.other_partner.id)
        with pytest.raises(NotAllowed):
            service.create_segment(session, factories.make_viewer(session, Role.approver, shop.brand), "x", "X", shop.now)
        assert [segment.key for segment, _ in service.list_segments(session, other)] == ["ours"]
        assert [(segment.key, count) for segment, count in service.list_segments(session, shop.partner)] == [("mine", 0), ("ours", 0)]
    assert brands


def test_partner_may_not_change_the_brands_segment(shop: Shop):
    brands = shop.segment("contact.city == '横浜市'", key="ours")

    with shop.db.writing() as session, pytest.raises(NotAllowed, match="ours"):
        service.change_rule(session, shop.partner, brands, "true", shop.now)
