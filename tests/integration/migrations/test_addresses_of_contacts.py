"""The migration that keeps the addresses of contacts reads the earlier ones from the enrollments that began under them."""

import importlib

from sqlmodel import select

from distmark.contacts.model import address_hash
from distmark.contacts.table import Contact, ContactAddress
from distmark.db import Database
from distmark.enrollments.table import Enrollment
from tests.factories import make_contact, make_enrollment

migration = importlib.import_module("distmark.migrations.versions.0011_addresses_of_contacts")


def test_enrollments_under_an_earlier_address_are_of_their_contact_again(db: Database):
    with db.writing() as session:
        row = make_enrollment(session)
        contact = session.get_one(Contact, row.contact_id)
        before = row.person_key = address_hash(row.brand_id, "hanako@exmaple.com")
        session.add(row)
        session.flush()

        migration.keep_earlier_addresses(session.connection())

        session.expire_all()
        assert session.get_one(Enrollment, row.id).person_key == contact.person_key
        assert {each.address_hash for each in session.exec(select(ContactAddress))} == {before, contact.person_key}


def test_an_earlier_address_that_another_contact_has_now_is_not_kept(db: Database):
    with db.writing() as session:
        row = make_enrollment(session)
        contact = session.get_one(Contact, row.contact_id)
        row.person_key = make_contact(session, brand_id=row.brand_id, email="hanako@exmaple.com").person_key
        session.add(row)
        session.flush()

        migration.keep_earlier_addresses(session.connection())

        assert [each.address_hash for each in session.exec(select(ContactAddress))] == [contact.person_key]
