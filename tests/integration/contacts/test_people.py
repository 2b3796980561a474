"""A person of a brand stays the same when an address is corrected, and an address belongs to one person."""

from collections.abc import Callable
from datetime import datetime

import pytest
from sqlmodel import Session, col, select

from distmark.contacts import consents, imports
from distmark.contacts.fields import ContactInput
from distmark.contacts.model import SuppressionReason, SuppressionScope, address_hash
from distmark.contacts.people import contacts_by_email
from distmark.contacts.service import create_contact, update_contact
from distmark.contacts.table import Contact, ContactAddress
from distmark.db import Database
from distmark.partners.table import Brand, Partner
from distmark.sql import id_of
from tests.factories import make_brand, make_partner, make_viewer

OLD, NEW, TYPO = "hanako@exmaple.com", "hanako@example.com", "hanako@example.con"


class Books:
    """Two partners' books of one brand, changed as people change them."""

    def __init__(self, session: Session, now: datetime) -> None:
        self.session, self.now = session, now
        self.brand: Brand = make_brand(session)
        self.mine, self.theirs = make_partner(session, self.brand), make_partner(session, self.brand)

    def create(self, book: Partner, **fields: object) -> Contact:
        viewer = make_viewer(self.session, partner=book)
        return create_contact(self.session, viewer, ContactInput(**{"last_name": "鈴木", "first_name": "花子", **fields}), self.now)

    def change(self, contact: Contact, **fields: object) -> Contact:
        viewer = make_viewer(self.session, partner=self.session.get_one(Partner, contact.partner_id))
        return update_contact(self.session, viewer, id_of(contact), ContactInput(**fields), self.now)

    def read_file(self, book: Partner, content: str) -> imports.ImportReport:
        viewer = make_viewer(self.session, partner=book)
        return imports.import_contacts(self.session, viewer, id_of(book), content.encode(), "book.csv", self.now)

    def found(self, email: str, partner: Partner | None = None) -> list[Contact]:
        mine = select(Contact)
        if partner is not None:
            mine = mine.where(Contact.partner_id == partner.id)
        return contacts_by_email(self.session, mine, id_of(self.brand), [email], partner.id if partner else None).get(email, [])

    def stopped(self, channel: str, *addresses: str, marketing: bool = True) -> list[bool]:
        brand_id = id_of(self.brand)
        hashes = consents.suppressed(self.session, brand_id, channel, addresses, marketing)
        return [address_hash(brand_id, address) in hashes for address in addresses]


@pytest.fixture
def books(db: Database, now: datetime):
    with db.writing() as session:
        yield Books(session, now)


def test_contact_with_a_corrected_address_is_the_same_person_in_every_book(books: Books):
    mine, theirs = books.create(books.mine, email=OLD), books.create(books.theirs, email=OLD)
    person = mine.person_key

    books.change(mine, email=NEW)
    third = books.create(make_partner(books.session, books.brand), email=NEW)
    books.change(theirs, email=NEW)

    assert {mine.person_key, theirs.person_key, third.person_key} == {person}


def test_correction_to_an_address_that_another_book_has_joins_the_two_persons(books: Books):
    mine, theirs = books.create(books.mine, email=OLD), books.create(books.theirs, email=NEW)
    elsewhere = books.create(make_partner(books.session, books.brand), email=OLD)

    books.change(mine, email=NEW)

    assert mine.person_key == theirs.person_key == elsewhere.person_key
    stored = books.session.exec(select(Contact.person_key).where(col(Contact.brand_id) == books.brand.id)).all()
    assert set(stored) == {theirs.person_key}


def test_address_corrected_twice_and_back_is_the_same_person(books: Books):
    contact = books.create(books.mine, email=OLD)
    person = contact.person_key

    for email in (TYPO, NEW, OLD, NEW):
        books.change(contact, email=email)

    assert contact.person_key == person
    assert [books.found(email) for email in (OLD, TYPO, NEW)] == [[contact]] * 3


@pytest.mark.parametrize("fields", [{"phone": "090-1111-2222"}, {"phone": "", "email": NEW}, {"email": NEW}])
def test_contact_known_by_its_phone_number_stays_the_person(books: Books, fields: dict[str, str]):
    contact = books.create(books.mine, phone="090-1234-5678")
    person = contact.person_key

    books.change(contact, **fields)

    assert contact.person_key == person
    assert books.create(books.theirs, phone="090-1234-5678").person_key == person


def test_family_on_one_phone_number_become_persons_of_their_own_with_their_addresses(books: Books):
    mother = books.create(books.mine, phone="090-1234-5678", first_name="幸子")
    son = books.create(books.mine, phone="090-1234-5678", first_name="太郎")

    books.change(son, email="taro@example.com")

    assert son.person_key != mother.person_key
    assert books.create(books.theirs, email="taro@example.com", first_name="太郎").person_key == son.person_key


def test_contact_that_loses_its_mail_address_is_not_the_person_of_another_name_on_its_phone_number(books: Books):
    mother = books.create(books.mine, phone="090-1234-5678", first_name="幸子")
    son = books.create(books.mine, phone="090-1234-5678", email="taro@example.com", first_name="太郎")
    person = son.person_key

    books.change(son, email="")

    assert (son.person_key, mother.person_key == person) == (person, False)
    elsewhere = [books.create(books.theirs, phone="090-1234-5678", first_name=name) for name in ("太郎", "幸子")]
    assert [each.person_key for each in elsewhere] == [person, mother.person_key]


def test_contact_that_loses_its_mail_address_is_the_person_of_the_same_name_on_its_phone_number(books: Books):
    mine = books.create(books.mine, phone="090-1234-5678", email=OLD)
    theirs = books.create(books.theirs, phone="090-1234-5678")

    books.change(mine, email="")

    assert mine.person_key == theirs.person_key


def test_removed_address_still_finds_the_person(books: Books):
    contact = books.create(books.mine, email=OLD, phone="090-1234-5678")

    books.change(contact, email="")

    assert books.found(OLD) == [contact]
    assert books.create(books.theirs, email=OLD).person_key == contact.person_key


def test_phone_number_that_passed_to_somebody_of_another_name_is_theirs(books: Books):
    contact = books.create(books.mine, phone="090-1234-5678")
    books.change(contact, phone="090-1111-2222")

    other = books.create(books.theirs, phone="090-1234-5678", first_name="太郎")
    again = books.create(make_partner(books.session, books.brand), phone="090-1234-5678", first_name="太郎")

    assert other.person_key == again.person_key != contact.person_key


def test_address_that_passed_to_somebody_of_another_name_is_theirs(books: Books):
    contact = books.create(books.mine, email=OLD)
    books.change(contact, email=NEW)

    other = books.create(books.theirs, email=OLD, first_name="太郎")

    assert other.person_key != contact.person_key
    assert books.found(OLD) == [other]
    assert books.found(NEW) == [contact]


def test_address_that_a_correction_gives_to_another_contact_is_theirs(books: Books):
    first, second = books.create(books.mine, email=OLD), books.create(books.mine, email="taro@example.com", first_name="太郎")
    books.change(first, email=NEW)

    books.change(second, email=OLD)

    assert first.person_key != second.person_key
    assert (books.found(OLD), books.found(NEW)) == ([second], [first])


def test_partner_finds_no_contact_by_an_address_that_only_another_partner_wrote(books: Books):
    mine, theirs = books.create(books.mine, email=OLD), books.create(books.theirs, email=OLD)
    books.change(theirs, email=NEW)

    assert books.found(NEW, books.mine) == []
    assert books.found(OLD, books.mine) == [mine]
    assert books.found(OLD, books.theirs) == books.found(NEW, books.theirs) == [theirs]
    assert books.found(NEW) == [theirs, mine]


def test_import_with_the_address_before_the_correction_updates_the_contact_and_keeps_its_address(books: Books):
    contact = books.create(books.mine, email=OLD)
    books.change(contact, email=NEW)

    report = books.read_file(books.mine, f"メールアドレス,市区町村\n{OLD},名古屋市\n")

    assert (report.created, report.updated) == (0, 1)
    assert (contact.email, contact.city) == (NEW, "名古屋市")


def test_import_into_another_book_finds_the_person_by_either_address(books: Books):
    contact = books.create(books.mine, email=OLD)
    books.change(contact, email=NEW)

    books.read_file(books.theirs, f"姓,名,メールアドレス\n鈴木,花子,{OLD}\n")
    books.read_file(make_partner(books.session, books.brand), f"姓,名,メールアドレス\n鈴木,花子,{NEW}\n")

    stored = books.session.exec(select(Contact.person_key).where(col(Contact.brand_id) == books.brand.id)).all()
    assert stored == [contact.person_key] * 3


def test_import_that_changes_a_phone_number_keeps_its_refusal(books: Books):
    books.create(books.mine, email=OLD, phone="090-1234-5678")
    consents.suppress(books.session, id_of(books.brand), "sms", "+819012345678", SuppressionReason.unsubscribed, books.now)

    books.read_file(books.mine, f"メールアドレス,電話番号\n{OLD},090-1111-2222\n")

    assert books.stopped("sms", "+819011112222") == [True]


def _corrected_before(books: Books, refuse: Callable[[str], object]) -> None:
    books.change(books.create(books.mine, email=OLD), email=NEW)
    refuse(OLD)


def _corrected_after(books: Books, refuse: Callable[[str], object]) -> None:
    contact = books.create(books.mine, email=OLD)
    refuse(OLD)
    books.change(contact, email=NEW)


def _refused_new(books: Books, refuse: Callable[[str], object]) -> None:
    books.change(books.create(books.mine, email=OLD), email=NEW)
    refuse(NEW)


@pytest.mark.parametrize("order", [_corrected_before, _corrected_after, _refused_new])
@pytest.mark.parametrize("reason", [reason for reason in SuppressionReason if reason is not SuppressionReason.bounced])
def test_refusal_of_either_address_stops_both(books: Books, order: Callable[..., None], reason: SuppressionReason):
    brand_id = id_of(books.brand)

    order(books, lambda address: consents.suppress(books.session, brand_id, "email", address, reason, books.now))

    assert books.stopped("email", OLD, NEW) == [True, True]
    assert books.stopped("email", OLD, NEW, marketing=False) == [False, False]
    assert books.stopped("sms", OLD, NEW) == [False, False]


@pytest.mark.parametrize("order", [_corrected_before, _corrected_after])
def test_bounce_of_the_address_before_the_correction_does_not_stop_the_corrected_one(books: Books, order: Callable[..., None]):
    brand_id = id_of(books.brand)

    def bounce(address: str) -> None:
        consents.suppress(books.session, brand_id, "email", address, SuppressionReason.bounced, books.now, scope=SuppressionScope.all)

    order(books, bounce)

    assert books.stopped("email", OLD, NEW) == [True, False]


def test_refusal_after_a_bounce_of_the_same_address_stops_the_person(books: Books):
    contact, brand_id = books.create(books.mine, email=OLD), id_of(books.brand)
    consents.suppress(books.session, brand_id, "email", OLD, SuppressionReason.bounced, books.now)

    assert consents.suppress(books.session, brand_id, "email", OLD, SuppressionReason.unsubscribed, books.now)
    books.change(contact, email=NEW)

    assert books.stopped("email", NEW) == [True]


def test_refusal_of_one_partners_address_stops_the_person_in_the_other_book(books: Books):
    mine = books.create(books.mine, email=OLD)
    books.create(books.theirs, email=OLD)
    books.change(mine, email=NEW)

    consents.suppress(books.session, id_of(books.brand), "email", NEW, SuppressionReason.unsubscribed, books.now)

    assert books.stopped("email", OLD) == [True]


def test_lifting_a_refusal_lifts_it_for_all_addresses_of_the_person(books: Books):
    _corrected_after(
        books, lambda address: consents.suppress(books.session, books.brand.id, "email", address, SuppressionReason.unsubscribed, books.now)
    )

    assert consents.unsuppress(books.session, id_of(books.brand), "email", NEW)

    assert books.stopped("email", OLD, NEW) == [False, False]


def test_refusal_of_a_contact_without_the_address_any_more_stops_what_it_had(books: Books):
    contact = books.create(books.mine, email=OLD, phone="090-1234-5678")
    books.change(contact, email="")

    consents.suppress_contact(books.session, contact, "email", SuppressionReason.unsubscribed, books.now)

    assert books.stopped("email", OLD) == [True]


def test_contacts_whose_addresses_never_change_keep_no_further_rows(books: Books):
    contact = books.create(books.mine, email=OLD)
    books.change(contact, city="名古屋市")
    books.read_file(books.theirs, f"メールアドレス,市区町村\n{OLD},名古屋市\n{NEW},名古屋市\n")

    assert books.session.exec(select(ContactAddress)).all() == []
