"""The events API: its permission, its verdicts, and harmless repeats."""

import pytest
from sqlmodel import select

from distmark.engagement.table import Event
from distmark.partners.model import Role
from distmark.partners.table import Partner
from distmark.web.api.viewer import api_token
from tests import factories as make
from tests.web.conftest import PartnerPair


@pytest.fixture
def bearer(pair: PartnerPair) -> dict[str, str]:
    with pair.db.writing() as session:
        user = make.make_user(session, Role.partner, partner=pair.here.partner)
    return {"authorization": f"Bearer {api_token(pair.app.state.site, user.id)}"}


def test_event_of_an_own_contact_is_recorded_without_cookie_or_origin(pair: PartnerPair, guest, bearer):
    del guest.headers["sec-fetch-site"]

    answer = guest.post("/api/v1/events", json={"name": "appointment_booked", "email": pair.here.contact.email}, headers=bearer)

    assert answer.status_code == 201
    assert answer.json()["contact_id"] == pair.here.contact.id
    assert answer.json()["repeated"] is False


def test_same_key_is_recorded_once(pair: PartnerPair, guest, bearer):
    body = {"name": "account_opened", "contact_id": pair.here.contact.id, "key": "crm-17", "value": 100000}

    first, second = (guest.post("/api/v1/events", json=body, headers=bearer) for _ in range(2))

    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["repeated"] is True
    with pair.db.reading() as session:
        assert len(session.exec(select(Event)).all()) == 1


def test_another_partners_contact_is_not_known(pair: PartnerPair, guest, bearer):
    answer = guest.post("/api/v1/events", json={"name": "x", "contact_id": pair.there.contact.id}, headers=bearer)

    assert answer.status_code == 404


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer forged.token.here"}, {"authorization": "Basic abc"}])
def test_without_a_valid_token_nothing_is_taken(guest, pair: PartnerPair, header):
    answer = guest.post("/api/v1/events", json={"name": "x", "contact_id": pair.here.contact.id}, headers=header)

    assert answer.status_code == 401
    with pair.db.reading() as session:
        assert session.exec(select(Event)).all() == []


def test_session_cookie_opens_no_api(pair: PartnerPair):
    assert pair.as_().post("/api/v1/events", json={"name": "x", "contact_id": pair.here.contact.id}).status_code == 401


def test_token_of_a_partner_who_left_is_worthless(pair: PartnerPair, guest, bearer):
    with pair.db.writing() as session:
        partner = session.get_one(Partner, pair.here.partner.id)
        partner.active = False
        session.add(partner)

    answer = guest.post("/api/v1/events", json={"name": "x", "contact_id": pair.here.contact.id}, headers=bearer)

    assert answer.status_code == 401


def test_token_of_someone_who_left_is_worthless(pair: PartnerPair, guest, bearer):
    with pair.db.writing() as session:
        from distmark.partners.table import User

        for user in session.exec(select(User)):
            user.active = False
            session.add(user)

    assert guest.post("/api/v1/events", json={"name": "x"}, headers=bearer).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "Not A Name", "contact_id": 1},
        {"name": "x", "contact_id": 1, "at": "2026-11-24T10:00:00"},  # no zone
        {"name": "x", "contact_id": 1, "surprise": True},
        {"name": "x"},  # nobody named
    ],
)
def test_unreadable_event_is_answered_422_with_the_number_of_the_request(guest, bearer, body):
    answer = guest.post("/api/v1/events", json=body, headers=bearer)

    assert answer.status_code == 422
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
