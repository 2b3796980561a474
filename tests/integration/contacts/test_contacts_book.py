"""Contacts of a partner's book: creating, changing and finding them, and their attributes in messages."""

from datetime import date, datetime, timedelta

import pytest

from distmark.campaigns.service import is_member
from distmark.contacts import attributes, consents, model
from distmark.contacts import service as contacts
from distmark.contacts.fields import ContactInput, FieldRefused
from distmark.db import Database
from distmark.errors import InvalidInput, NotAllowed, NotFound, Refused
from distmark.partners.model import Role
from distmark.sql import id_of
from tests.factories import make_brand, make_campaign, make_contact, make_member, make_partner, make_version, make_viewer


def test_contact_is_written_in_the_viewers_partners_book(db: Database, now: datetime):
    with db.writing() as session:
        partner = make_partner(session, language="en")
        viewer = make_viewer(session, partner=partner)

        contact = contacts.create_contact(session, viewer, ContactInput(email="Taro@example.com", last_name="山田"), now)

        assert (contact.partner_id, contact.brand_id) == (partner.id, partner.brand_id)
        assert (contact.email, contact.email_key, contact.language) == ("Taro@example.com", "taro@example.com", "en")
        assert contacts.get_contact(session, viewer, id_of(contact)) is contact


def test_same_address_is_the_same_person_in_the_whole_brand_and_in_no_other(db: Database, now: datetime):
    """D8"""
    with db.writing() as session:
        brand = make_brand(session)
        books = [make_partner(session, brand), make_partner(session, brand), make_partner(session)]

        keys = [
            contacts.create_contact(session, make_viewer(session, partner=book), ContactInput(email="taro@example.com"), now).person_key
            for book in books
        ]

        assert keys[0] == keys[1] != keys[2]
        assert "taro" not in keys[0]


def test_contact_without_any_address_is_refused(db: Database, now: datetime):
    with db.writing() as session:
        viewer = make_viewer(session, partner=make_partner(session))

        with pytest.raises(InvalidInput, match="neither a mail address nor a phone number"):
            contacts.create_contact(session, viewer, ContactInput(last_name="山田"), now)


def test_address_that_is_in_the_book_is_refused_and_in_another_book_is_fine(db: Database, now: datetime):
    with db.writing() as session:
        brand = make_brand(session)
        own_partner, other_partner = make_partner(session, brand), make_partner(session, brand)
        make_contact(session, own_partner, email="taro@example.com")

        with pytest.raises(Refused, match="already in this book"):
            contacts.create_contact(session, make_viewer(session, partner=own_partner), ContactInput(email="TARO@example.com"), now)

        assert contacts.create_contact(session, make_viewer(session, partner=other_partner), ContactInput(email="taro@example.com"), now).id


def test_change_touches_only_the_fields_that_were_given(db: Database, now: datetime):
    with db.writing() as session:
        partner = make_partner(session)
        contact = make_contact(session, partner, city="名古屋市", attributes={"plan": "A", "score": 1})

        contacts.update_contact(
            session,
            make_viewer(session, partner=partner),
            id_of(contact),
            ContactInput(company="山田商店", attributes={"score": None, "renewal_date": "2027-04-01"}),
            now + timedelta(days=1),
        )

        assert (contact.company, contact.city, contact.last_name) == ("山田商店", "名古屋市", "鈴木")
        assert contact.attributes == {"plan": "A", "renewal_date": "2027-04-01"}
        assert contact.updated_at == now + timedelta(days=1)


def test_change_of_the_address_keeps_the_person(db: Database, now: datetime):
    with db.writing() as session:
        partner = make_partner(session)
        viewer = make_viewer(session, partner=partner)
        contact, other = make_contact(session, partner, email="old@example.com"), make_contact(session, partner, email="new@example.com")

        with pytest.raises(Refused, match="already in this book"):
            contacts.update_contact(session, viewer, id_of(contact), ContactInput(email="NEW@example.com"), now)
        assert contact.email == "old@example.com"
        before = contact.person_key
        contacts.update_contact(session, viewer, id_of(contact), ContactInput(email="newer@example.com"), now)

        assert contact.person_key == before != other.person_key
        assert contact.email_key == "newer@example.com"


def test_saving_a_contact_never_resubscribes(db: Database, now: datetime):
    """U8"""
    with db.writing() as session:
        partner = make_partner(session)
        contact = make_contact(session, partner, email="taro@example.com")
        consents.record_consent(session, id_of(contact), "email", given=False, now=now)
        consents.suppress(session, partner.brand_id, "email", "taro@example.com", model.SuppressionReason.unsubscribed, now)

        contacts.update_contact(session, make_viewer(session, partner=partner), id_of(contact), ContactInput(city="東京都"), now)

        assert consents.consent_state(session, [id_of(contact)], "email") == {contact.id: False}
        assert consents.suppressed(session, partner.brand_id, "email", ["taro@example.com"], marketing=True)


def test_journey_sets_fields_and_attributes_and_clears_with_none(db: Database, now: datetime):
    with db.writing() as session:
        contact = make_contact(session, city="東京都", attributes={"plan": "A"})

        contacts.change_contact(session, id_of(contact), {"city": "大阪市", "plan": None, "is_client": True}, now)

        assert (contact.city, contact.attributes) == ("大阪市", {"is_client": True})
        with pytest.raises(FieldRefused, match="is not a mail address"):
            contacts.change_contact(session, id_of(contact), {"email": "nonsense"}, now)


def test_marketer_neither_searches_nor_writes_contacts(db: Database, now: datetime):
    with db.writing() as session:
        viewer = make_viewer(session, Role.marketer)

        with pytest.raises(NotAllowed):
            contacts.find_contacts(session, viewer)
        with pytest.raises(NotAllowed):
            contacts.create_contact(session, viewer, ContactInput(email="a@example.com"), now, partner_id=1)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "鈴木",
            "花子",
            "鈴木花子",
            "鈴木 花子",
            "花子\u3000鈴木",
            "HANAKO@",
            "ｈａｎａｋｏ",
            "鈴木 名古屋",
            "山田商",
            "090-1234",
            "1234-5678",
        ),
        *("+8190", "9012345678", ""),
    ],
)
def test_contact_is_found_by_any_part_of_name_address_phone_company_or_city(db: Database, text: str):
    with db.writing() as session:
        partner = make_partner(session)
        wanted = make_contact(session, partner, email="hanako@example.com", company="山田商店")

        found = contacts.find_contacts(session, make_viewer(session, partner=partner), text)

        assert found.rows == [wanted]


@pytest.mark.parametrize("text", ["高橋", "髙橋", "齋藤商店", "斎藤", "たかはし", "タカハシ", "ﾀｶﾊｼ 高橋", "高橋 たかはし"])
def test_contact_is_found_by_any_spelling_and_by_the_reading_of_its_name(db: Database, now: datetime, text: str):
    with db.writing() as session:
        partner = make_partner(session)
        viewer = make_viewer(session, partner=partner)
        written = ContactInput(last_name="髙橋", email="t@example.com", company="齋藤商店", attributes={"フリガナ": "タカハシ"})
        wanted = contacts.create_contact(session, viewer, written, now)
        contacts.create_contact(session, viewer, ContactInput(last_name="鈴木", email="s@example.com"), now)

        assert contacts.find_contacts(session, viewer, text).rows == [wanted]


def test_changed_contact_is_found_by_its_new_name_only(db: Database, now: datetime):
    with db.writing() as session:
        partner = make_partner(session)
        viewer = make_viewer(session, partner=partner)
        contact = make_contact(session, partner, last_name="鈴木")

        contacts.update_contact(session, viewer, id_of(contact), ContactInput(last_name="髙橋"), now)

        assert contacts.find_contacts(session, viewer, "高橋").total == 1
        assert contacts.find_contacts(session, viewer, "鈴木").total == 0


@pytest.mark.parametrize("text", ["佐藤", "鈴木 佐藤", "%", "_", "100%", "080", "!"])
def test_contact_is_not_found_by_what_it_does_not_hold(db: Database, text: str):
    with db.writing() as session:
        partner = make_partner(session)
        make_contact(session, partner)

        assert contacts.find_contacts(session, make_viewer(session, partner=partner), text).rows == []


def test_pages_show_everybody_once_newest_first_with_the_total(db: Database):
    with db.writing() as session:
        partner = make_partner(session)
        viewer = make_viewer(session, partner=partner)
        ids = [make_contact(session, partner).id for _ in range(5)]

        first = contacts.find_contacts(session, viewer, limit=2)
        second = contacts.find_contacts(session, viewer, after_id=first.next_after, limit=2)
        third = contacts.find_contacts(session, viewer, after_id=second.next_after, limit=2)

        assert [row.id for page in (first, second, third) for row in page.rows] == ids[::-1]
        assert (first.total, second.total, third.next_after) == (5, 5, None)


def test_search_for_a_campaign_leaves_out_its_members(db: Database):
    with db.writing() as session:
        partner = make_partner(session)
        member, no_member = make_contact(session, partner), make_contact(session, partner)
        campaign = make_campaign(session, partner=partner)
        make_member(session, campaign, member)

        found = contacts.find_contacts(session, make_viewer(session, partner=partner), only=[~is_member(id_of(campaign))])

        assert (found.rows, found.total) == ([no_member], 1)


def test_erased_contact_is_neither_found_nor_got(db: Database, now: datetime):
    with db.writing() as session:
        partner = make_partner(session)
        viewer = make_viewer(session, partner=partner)
        contact = make_contact(session, partner, erased_at=now)

        assert contacts.find_contacts(session, viewer).total == 0
        with pytest.raises(NotFound):
            contacts.get_contact(session, viewer, id_of(contact))


def test_messages_see_built_in_fields_above_attributes_of_the_same_name(db: Database):
    with db.writing() as session:
        given = {"email": "fake@example.com", "is_client": "いいえ", "greeting": "花子さん"}
        contact = make_contact(session, email="hanako@example.com", attributes=given)

        seen = attributes.attributes_of(contact, {"is_client": "bool"})

        assert seen == {
            "first_name": "花子",
            "last_name": "鈴木",
            "full_name": "鈴木 花子",
            "greeting": "花子さん",
            "email": "hanako@example.com",
            "phone": "+819012345678",
            "language": "ja",
            "zone": "",
            "company": "",
            "city": "名古屋市",
            "birthday": date(1980, 4, 1),
            "is_client": False,
        }


def test_full_name_follows_the_contacts_language(db: Database):
    with db.writing() as session:
        contact = make_contact(session, language="en", first_name="Hanako", last_name="Suzuki")

        assert attributes.attributes_of(contact)["full_name"] == "Hanako Suzuki"


def test_members_of_another_brands_campaign_do_not_change_a_search(db: Database):
    with db.writing() as session:
        partner = make_partner(session)
        contact = make_contact(session, partner)
        foreign = make_campaign(session, make_version(session))

        found = contacts.find_contacts(session, make_viewer(session, partner=partner), only=[~is_member(id_of(foreign))])

        assert found.rows == [contact]
