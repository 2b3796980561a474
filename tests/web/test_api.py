"""The events API: its permission, its verdicts, and harmless repeats."""

from datetime import UTC, datetime

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


def token_of(pair: PartnerPair, role: Role, **fields: object) -> dict[str, str]:
    with pair.db.writing() as session:
        user = make.make_user(session, role, pair.brand, **fields)
    return {"authorization": f"Bearer {api_token(pair.app.state.site, user.id)}"}


@pytest.mark.parametrize("role", [Role.marketer, Role.approver])
def test_people_who_see_no_contacts_record_no_events(pair: PartnerPair, guest, role: Role):
    body = {"name": "bought", "contact_id": pair.here.contact.id, "value": 1000}

    for content in (body, {"events": [body]}):
        assert guest.post("/api/v1/events", json=content, headers=token_of(pair, role)).status_code == 403

    with pair.db.reading() as session:
        assert session.exec(select(Event)).all() == []


def test_partners_person_without_a_partner_is_nobody(pair: PartnerPair, guest):
    with pair.db.writing() as session:
        user = make.make_user(session, Role.partner, partner=pair.here.partner)
        user.partner_id = None
        session.add(user)
    headers = {"authorization": f"Bearer {api_token(pair.app.state.site, user.id)}"}

    answer = guest.post("/api/v1/events", json={"name": "bought", "contact_id": pair.here.contact.id}, headers=headers)

    assert answer.status_code == 401


def test_another_event_under_the_same_key_is_answered_409_with_the_key(pair: PartnerPair, guest, bearer):
    body = {"name": "account_opened", "contact_id": pair.here.contact.id, "key": "crm-17", "value": 100000}
    guest.post("/api/v1/events", json=body, headers=bearer)

    one = guest.post("/api/v1/events", json=body | {"value": 5}, headers=bearer)
    many = guest.post("/api/v1/events", json={"events": [body, body | {"value": 5}]}, headers=bearer)

    assert one.status_code == 409
    assert "crm-17" in one.json()["detail"]
    assert [each["verdict"] for each in many.json()["results"]] == ["repeated", "refused"]
    assert many.json()["results"][1]["reason"] == "key_used"


@pytest.mark.parametrize("at", ["0999-06-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2026-11-24T09:00:00Z"])
def test_impossible_time_is_answered_422_alone_and_by_its_own_verdict_in_a_list(pair: PartnerPair, guest, bearer, at: str):
    body = {"name": "account_opened", "contact_id": pair.here.contact.id}

    one = guest.post("/api/v1/events", json=body | {"at": at}, headers=bearer)
    many = guest.post("/api/v1/events", json=[body | {"at": at}, body], headers=bearer)

    assert one.status_code == 422
    assert "time" in one.json()["detail"]
    assert [each["verdict"] for each in many.json()["results"]] == ["refused", "recorded"]


def test_pages_show_a_stored_event_with_an_impossible_time(pair: PartnerPair):
    with pair.db.writing() as session:
        for number, year in enumerate((1, 999, 9999)):
            at = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
            row = {"natural_key": f"event-{number}", "kind": "converted", "name": "bought", "at": at, "received_at": at, "first": True}
            whose = {"brand_id": pair.brand.id, "partner_id": pair.here.partner.id, "contact_id": pair.here.enrolled.id}
            session.add(Event(**row, **whose, enrollment_id=pair.here.enrollment.id))
    client = pair.as_()

    for path in ("/", f"/contacts/{pair.here.enrolled.id}", f"/results/{pair.journey.key}"):
        assert client.get(path).status_code == 200, path


DIGITS = "9" * 5000


@pytest.mark.parametrize(
    "body",
    [
        f'{{"name": "x", "contact_id": {DIGITS}}}',
        f'{{"name": "x", "contact_id": 1, "value": {DIGITS}}}',
        f'{{"name": "x", "contact_id": 1, "data": {{"a": {DIGITS}}}}}',
        '{"name": "x", "contact_id": 1, "data": {"a": "\\u0000"}}',
        '{"name": "x", "contact_id": 1, "data": {"\\u0000": 1}}',
        '{"name": "x", "contact_id": 1, "data": {"a": "\\ud800"}}',
        '{"name": "x", "contact_id": 1, "data": {"a": 1e400}}',
        '{"name": "x", "contact_id": 1, "key": "\\u0000"}',
        '{"name": "x", "email": "a\\u0000@example.com"}',
        '{"name": "x", "contact_id": 1, "data": ' + '{"a": ' * 5000 + "1" + "}" * 5000 + "}",
        "[" * 100_000,
        "\ufeff{}",
        "",
    ],
    ids=lambda body: body[:40],
)
@pytest.mark.parametrize("path", ["events", "journeys/KEY/enrollments", "control/pause"])
def test_body_that_no_database_keeps_is_answered_422(pair: PartnerPair, guest, bearer, path: str, body: str):
    answer = guest.post(f"/api/v1/{path.replace('KEY', pair.journey.key)}", content=body.encode("utf-8", "surrogatepass"), headers=bearer)

    assert answer.status_code == 422
