"""Consents, of which the newest row counts, and suppressions, which hold as a hash for the whole brand."""

from datetime import datetime, timedelta

import pytest
from sqlmodel import select

from distmark.contacts import consents
from distmark.contacts.model import SuppressionReason, SuppressionScope, address_hash
from distmark.contacts.table import Consent, Suppression
from distmark.db import Database
from distmark.errors import InvalidInput
from distmark.sql import id_of
from tests.factories import make_brand, make_contact, make_partner


def test_newest_consent_counts_and_older_ones_are_kept(db: Database, now: datetime):
    with db.writing() as session:
        contact = make_contact(session)
        contact_id = id_of(contact)
        consents.record_consent(session, contact_id, "email", given=False, now=now + timedelta(hours=2), source="phone call")
        consents.record_consent(session, contact_id, "email", given=True, now=now, wording="ご案内を受け取る", source="form")

        assert consents.consent_state(session, [contact_id], "email") == {contact_id: False}
        assert [row.source for row in consents.consents_of(session, contact_id)] == ["phone call", "form"]


def test_channels_are_separate_and_a_contact_without_consent_is_none(db: Database, now: datetime):
    with db.writing() as session:
        agreed, silent = id_of(make_contact(session)), id_of(make_contact(session))
        consents.record_consent(session, agreed, "email", given=True, now=now)

        assert consents.consent_state(session, [agreed, silent], "email") == {agreed: True, silent: None}
        assert consents.consent_state(session, [agreed], "sms") == {agreed: None}
        assert consents.consent_state(session, [], "sms") == {}


def test_refusing_twice_is_written_once(db: Database, now: datetime):
    with db.writing() as session:
        contact_id = id_of(make_contact(session))
        for _ in range(2):
            consents.record_consent(session, contact_id, "email", given=False, now=now)

        assert len(session.exec(select(Consent)).all()) == 1


@pytest.mark.parametrize(("channel", "ground"), [("fax", "opt_in"), ("email", "hope")])
def test_unknown_channel_or_ground_is_refused(db: Database, now: datetime, channel: str, ground: str):
    with db.writing() as session, pytest.raises(InvalidInput, match="is unknown"):
        consents.record_consent(session, id_of(make_contact(session)), channel, given=True, now=now, ground=ground)


def test_consent_of_thousands_is_read_in_one_call(db: Database, now: datetime):
    with db.writing() as session:
        first = make_contact(session)
        consents.record_consent(session, id_of(first), "email", given=True, now=now)

        state = consents.consent_state(session, range(1, 3001), "email")

        assert len(state) == 3000
        assert [key for key, value in state.items() if value] == [first.id]


def test_suppressing_twice_keeps_the_first_and_no_address(db: Database, now: datetime):
    with db.writing() as session:
        brand = make_brand(session)
        assert consents.suppress(session, id_of(brand), "email", "Taro@example.com", SuppressionReason.unsubscribed, now, message_id=7)
        assert not consents.suppress(session, id_of(brand), "email", " taro@example.com ", SuppressionReason.bounced, now)

        row = session.exec(select(Suppression)).one()
        assert (row.reason, row.message_id) == (SuppressionReason.unsubscribed, 7)
        assert "taro" not in str(row).lower()


@pytest.mark.parametrize(
    ("scope", "marketing", "stopped"),
    [
        (SuppressionScope.marketing, True, True),
        (SuppressionScope.marketing, False, False),
        (SuppressionScope.all, True, True),
        (SuppressionScope.all, False, True),
    ],
)
def test_scope_decides_which_kind_of_message_is_stopped(
    db: Database, now: datetime, scope: SuppressionScope, marketing: bool, stopped: bool
):
    """U5"""
    with db.writing() as session:
        brand_id = id_of(make_brand(session))
        consents.suppress(session, brand_id, "email", "taro@example.com", SuppressionReason.manual, now, scope=scope)

        found = consents.suppressed(session, brand_id, "email", ["TARO@example.com", "b@example.com"], marketing)

        assert found == ({address_hash(brand_id, "taro@example.com")} if stopped else set())


def test_another_brand_and_another_channel_are_not_stopped(db: Database, now: datetime):
    """U5"""
    with db.writing() as session:
        brand_id, other = id_of(make_brand(session)), id_of(make_brand(session))
        consents.suppress(session, brand_id, "sms", "+819012345678", SuppressionReason.manual, now, scope=SuppressionScope.all)

        assert consents.suppressed(session, brand_id, "sms", ["+819012345678"], True)
        assert not consents.suppressed(session, brand_id, "email", ["+819012345678"], True)
        assert not consents.suppressed(session, other, "sms", ["+819012345678"], True)


@pytest.mark.parametrize("spelling", ["a..b@docomo.ne.jp", '"a..b"@docomo.ne.jp', "A..B@docomo.ne.jp"])
def test_carrier_address_is_stopped_however_it_is_spelled(db: Database, now: datetime, spelling: str):
    with db.writing() as session:
        brand_id = id_of(make_brand(session))
        consents.suppress(session, brand_id, "email", "a..b@docomo.ne.jp", SuppressionReason.bounced, now)

        assert consents.suppressed(session, brand_id, "email", [spelling], True) == {address_hash(brand_id, spelling)}


@pytest.mark.parametrize(
    ("reason", "lifted"),
    [
        (SuppressionReason.unsubscribed, True),
        (SuppressionReason.manual, True),
        (SuppressionReason.bounced, True),
        (SuppressionReason.complained, False),
        (SuppressionReason.erased, False),
    ],
)
def test_unsubscription_can_be_lifted_but_a_complaint_cannot(db: Database, now: datetime, reason: SuppressionReason, lifted: bool):
    """U9"""
    with db.writing() as session:
        brand_id = id_of(make_brand(session))
        consents.suppress(session, brand_id, "email", "taro@example.com", reason, now)

        assert consents.unsuppress(session, brand_id, "email", "Taro@example.com") is lifted

        assert bool(consents.suppressed(session, brand_id, "email", ["taro@example.com"], True)) is not lifted


def test_partners_of_a_brand_share_suppressions(db: Database, now: datetime):
    with db.writing() as session:
        brand = make_brand(session)
        for _ in range(2):
            make_contact(session, make_partner(session, brand), email="taro@example.com")

        consents.suppress(session, id_of(brand), "email", "taro@example.com", SuppressionReason.unsubscribed, now)

        assert consents.suppressed(session, id_of(brand), "email", ["taro@example.com"], True)
