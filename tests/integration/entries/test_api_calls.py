"""Entry by a call of the API: every verdict in order, one answer per key, and every mistake with its place."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import func, select

from distmark.clock import FixedClock
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.engagement.table import Event
from distmark.enrollments.table import Enrollment
from distmark.entries.table import EnrolCall
from distmark.partners.model import Role
from distmark.partners.table import Brand, Partner
from distmark.settings import Settings
from distmark.web.api.viewer import api_token
from distmark.web.app import create_app
from tests import factories
from tests.entry_stage import EntryStage

Post = Callable[..., Any]
FIELDS = "journey_fields: {topic: text, amount: number, urgent: bool, on: date}\n"


@pytest.fixture
def stage(db: Database, clock: FixedClock) -> EntryStage:
    return EntryStage(db, clock)


@pytest.fixture
def client(stage: EntryStage, tmp_path: Path) -> TestClient:
    app = create_app(Settings(mode="test", data_dir=tmp_path, _env_file=None), stage.db, stage.clock)
    return TestClient(app, base_url="https://distmark.example")


@pytest.fixture
def post(client: TestClient, stage: EntryStage) -> Post:
    def post(path: str, body: Any, key: str | None = None, user: int | None = None) -> Any:
        token = api_token(client.app.state.site, user or stage.viewer.user_id)
        headers = {"authorization": f"Bearer {token}"} | ({"idempotency-key": key} if key else {})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return client.post(f"/api/v1/{path}", content=content, headers=headers)

    return post


def enrollments(stage: EntryStage) -> int:
    with stage.db.reading() as session:
        return session.exec(select(func.count()).select_from(Enrollment)).one()


def test_each_contact_has_a_verdict_in_the_order_of_the_call(stage: EntryStage, post: Post):
    journey = stage.registered("{on: api}", "  - {id: first, send: email, message: one}\n", FIELDS)
    hanako, taro, silent = stage.contact(), stage.contact(), stage.contact(consent=None)
    with stage.db.writing() as session:
        foreign_contact = factories.make_contact(session, factories.make_partner(session, session.get_one(Brand, stage.brand.id)))
    requested = [
        {"id": taro.id},
        {"email": hanako.email.upper()},
        {"id": foreign_contact.id},
        {"id": silent.id},
        {"id": taro.id},
        {"email": "no@one.example"},
    ]

    answer = post(f"journeys/{journey.key}/enrollments", {"contacts": requested})

    body = answer.json()
    assert (answer.status_code, body["enrolled"]) == (200, 2)
    assert [(each["contact_id"], each["verdict"]) for each in body["results"]] == [
        (taro.id, "enrolled"),
        (hanako.id, "enrolled"),
        (None, "unknown_contact"),
        (silent.id, "no_consent"),
        (taro.id, "already_in"),
        (None, "unknown_contact"),
    ]
    assert [row.contact_id for row in stage.entered(journey)] == [taro.id, hanako.id]
    assert stage.entered(journey)[0].campaign_id is None


def test_data_is_frozen_for_each_contact(stage: EntryStage, post: Post):
    journey = stage.registered("{on: api}", head=FIELDS)
    one, two = stage.contact(attributes={"topic": "from the book"}), stage.contact()
    data = {"amount": 12.5, "urgent": False, "on": "2026-12-24", "topic": None}

    post(f"journeys/{journey.key}/enrollments", {"contacts": [{"id": one.id, "data": data}, {"id": two.id, "data": {"topic": "nisa"}}]})

    frozen = {row.contact_id: row.data for row in stage.entered(journey)}
    assert frozen == {
        one.id: {"topic": "from the book", "amount": 12.5, "urgent": False, "on": "2026-12-24"},
        two.id: {"topic": "nisa"},
    }


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"{", "body"),
        ([], "body"),
        ({}, "contacts"),
        ({"contacts": []}, "contacts"),
        ({"contacts": [{"id": 1}] * 10_001}, "contacts"),
        ({"contacts": [{"id": 1}], "campain": "x"}, "campain"),
        ({"contacts": [{"id": 1}], "contacts_per_run": 501}, "contacts_per_run"),
        ({"contacts": [{"id": 1}, {"id": "2"}]}, "contacts[1].id"),
        ({"contacts": [{"id": 2**40}]}, "contacts[0].id"),
        ({"contacts": [{"id": 1}, {}]}, "contacts[1]"),
        ({"contacts": [{"id": 1, "email": "a@b.example"}]}, "contacts[0]"),
        ({"contacts": [{"id": 1, "data": {"topik": "x"}}]}, "contacts[0].data.topik"),
        ({"contacts": [{"id": 1, "data": {"topic": 3}}]}, "contacts[0].data.topic"),
        ({"contacts": [{"id": 1}, {"id": 2, "data": {"amount": "12"}}]}, "contacts[1].data.amount"),
        ({"contacts": [{"id": 1, "data": {"amount": True}}]}, "contacts[0].data.amount"),
        ({"contacts": [{"id": 1, "data": {"urgent": "yes"}}]}, "contacts[0].data.urgent"),
        ({"contacts": [{"id": 1, "data": {"on": "24/12/2026"}}]}, "contacts[0].data.on"),
        ({"contacts": [{"id": 1, "data": {"on": "2026-02-30"}}]}, "contacts[0].data.on"),
        ({"contacts": [{"id": 1, "data": {"topic": "a\0b"}}]}, "contacts[0].data.topic"),
        (b'{"contacts": [{"id": 1, "data": {"amount": 1e999}}]}', "contacts[0].data.amount"),
    ],
)
def test_mistake_is_answered_with_its_place_and_nobody_enters(stage: EntryStage, post: Post, body: Any, place: str):
    journey = stage.registered("{on: api}", head=FIELDS)
    stage.contact()

    answer = post(f"journeys/{journey.key}/enrollments", body)

    assert answer.status_code == 422
    assert answer.json()["problems"][0]["place"] == place
    assert enrollments(stage) == 0


def test_all_mistakes_are_reported_at_once(stage: EntryStage, post: Post):
    journey = stage.registered("{on: api}", head=FIELDS)

    answer = post(f"journeys/{journey.key}/enrollments", {"contacts": [{"id": 1, "data": {"amount": "x", "topick": 1}}, {}]})

    assert [each["place"] for each in answer.json()["problems"]] == ["contacts[0].data.amount", "contacts[0].data.topick", "contacts[1]"]
    assert "did you mean topic" in answer.json()["problems"][1]["message"]


def test_same_key_gets_the_same_answer_and_enters_nobody_again(stage: EntryStage, post: Post):
    """D13"""
    journey = stage.registered("{on: api, reentry: any_time}")
    hanako = stage.contact()
    path, body = f"journeys/{journey.key}/enrollments", {"contacts": [{"id": hanako.id}, {"email": "no@one.example"}]}

    first = post(path, body, key="order-17")
    stage.clock.move(timedelta(hours=1))
    second = post(path, body, key="order-17")
    other = post(path, body, key="order-18")

    assert first.json() == second.json()
    assert (first.headers.get("idempotency-replayed"), second.headers["idempotency-replayed"]) == (None, "true")
    assert other.json()["results"][0]["enrollment_id"] != first.json()["results"][0]["enrollment_id"]
    assert enrollments(stage) == 2


def test_key_of_another_call_is_refused_and_that_of_another_person_is_not(stage: EntryStage, post: Post):
    journey = stage.registered("{on: api}")
    hanako, taro = stage.contact(), stage.contact()
    path = f"journeys/{journey.key}/enrollments"
    with stage.db.writing() as session:
        colleague = factories.make_user(session, Role.partner, partner=session.get_one(Partner, stage.partner.id)).id

    post(path, {"contacts": [{"id": hanako.id}]}, key="k")
    reused = post(path, {"contacts": [{"id": taro.id}]}, key="k")
    of_colleague = post(path, {"contacts": [{"id": taro.id}]}, key="k", user=colleague)

    assert reused.status_code == 422
    assert of_colleague.json()["results"][0]["verdict"] == "enrolled"
    assert post(path, {"contacts": [{"id": taro.id}]}, key="x" * 201).status_code == 422


def test_call_that_was_refused_may_be_made_again_with_its_key(stage: EntryStage, post: Post):
    journey = stage.registered("{on: api}", head=FIELDS)
    hanako = stage.contact()
    path = f"journeys/{journey.key}/enrollments"

    wrong = post(path, {"contacts": [{"id": hanako.id, "data": {"amount": "x"}}]}, key="k")
    right = post(path, {"contacts": [{"id": hanako.id, "data": {"amount": 1}}]}, key="k")

    assert (wrong.status_code, right.status_code) == (422, 200)


def test_answers_are_deleted_after_thirty_days(stage: EntryStage, post: Post):
    """L14"""
    journey = stage.registered("{on: api}")
    post(f"journeys/{journey.key}/enrollments", {"contacts": [{"id": stage.contact().id}]}, key="k")

    stage.clock.move(timedelta(days=31))
    stage.look()

    with stage.db.reading() as session:
        assert session.exec(select(EnrolCall)).all() == []


def test_call_with_a_campaign_adds_members_and_uses_its_texts(stage: EntryStage, post: Post):
    campaign = stage.journey("  - {id: pause, wait: {for: 3 days}}\n", contacts_per_run=10)
    other = stage.registered("{on: api}")
    people = [stage.contact() for _ in range(3)]
    with stage.db.reading() as session:
        from distmark.journeys.table import Journey

        key = session.get_one(Journey, campaign.journey_id).key
    body = {"contacts": [{"id": person.id} for person in people], "campaign": campaign.key}

    answer = post(f"journeys/{key}/enrollments", body)

    rows = [stage.enrollment(person) for person in people]
    assert answer.json()["enrolled"] == 3
    assert all(row.campaign_id == campaign.id and row.member_id for row in rows)
    assert len({row.run_key for row in rows}) == 1
    assert post(f"journeys/{other.key}/enrollments", body).status_code == 422
    assert post(f"journeys/{key}/enrollments", body | {"campaign": "nowhere"}).status_code == 404


def test_contacts_per_run_puts_many_on_one_run(stage: EntryStage, post: Post):
    journey = stage.registered("{on: api}")
    people = [stage.contact() for _ in range(5)]

    post(f"journeys/{journey.key}/enrollments", {"contacts": [{"id": each.id} for each in people], "contacts_per_run": 2})

    assert len({row.run_key for row in stage.entered(journey)}) == 3


def test_caller_without_permission_or_sight_of_the_journey_enters_nobody(stage: EntryStage, post: Post):
    journey, draft = stage.registered("{on: api}"), stage.registered("{on: api}")
    stage.retire(draft)
    body = {"contacts": [{"id": stage.contact().id}]}
    with stage.db.writing() as session:
        approver = factories.make_user(session, Role.approver, session.get_one(Brand, stage.brand.id)).id
        foreign = factories.make_user(session, Role.ops).id

    assert post(f"journeys/{journey.key}/enrollments", body, user=approver).status_code == 403
    assert post(f"journeys/{journey.key}/enrollments", body, user=foreign).status_code == 404
    assert post("journeys/nowhere/enrollments", body).status_code == 404
    assert post(f"journeys/{draft.key}/enrollments", body).status_code == 409
    assert enrollments(stage) == 0


def test_erased_contact_is_not_known(stage: EntryStage, post: Post):
    journey = stage.registered("{on: api}")
    hanako = stage.contact()
    with stage.db.writing() as session:
        session.get_one(Contact, hanako.id).erased_at = stage.clock.now()

    answer = post(f"journeys/{journey.key}/enrollments", {"contacts": [{"id": hanako.id}, {"email": hanako.email}]})

    assert [each["verdict"] for each in answer.json()["results"]] == ["unknown_contact"] * 2


# --- events -----------------------------------------------------------------------------------------------------------------------------


def test_many_events_have_each_their_verdict_and_place(stage: EntryStage, post: Post):
    hanako = stage.contact()
    body = [
        {"name": "booked", "contact_id": hanako.id, "key": "a"},
        {"name": "booked", "contact_id": hanako.id, "key": "a"},
        {"name": "Booked!", "contact_id": hanako.id},
        {"name": "booked", "email": "no@one.example"},
        {"name": "booked"},
        {"name": "visited", "email": hanako.email, "at": "2026-11-24T10:00:00", "key": "b"},  # no zone
        "booked",
        {"name": "visited", "email": hanako.email, "at": "2026-11-24T10:00:00+09:00", "value": 3.5, "key": "b"},
        {"name": "visited", "contact_id": hanako.id, "data": {"deep": [1, {"text": "a\0b"}]}},
    ]

    answer = post("events", {"events": body})

    results = answer.json()["results"]
    assert (answer.status_code, answer.json()["recorded"]) == (200, 2)
    verdicts = ["recorded", "repeated", "refused", "refused", "refused", "refused", "refused", "recorded", "refused"]
    assert [each["verdict"] for each in results] == verdicts
    assert results[2]["problems"][0]["place"] == "events[2].name"
    assert results[3]["reason"] == "unknown_contact"
    places = [results[number]["problems"][0]["place"] for number in (4, 5, 6, 8)]
    assert places == ["events[4]", "events[5].at", "events[6]", "events[8].data.deep[1].text"]
    with stage.db.reading() as session:
        assert len(session.exec(select(Event)).all()) == 2


def test_bare_list_of_events_is_taken_too(stage: EntryStage, post: Post):
    answer = post("events", [{"name": "booked", "contact_id": stage.contact().id}])

    assert answer.json()["recorded"] == 1


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"events": []}, "events"),
        ({"events": [{"name": "x", "contact_id": 1}] * 1001}, "events"),
        ({"events": [{"name": "x", "contact_id": 1}], "more": 1}, "more"),
        (b"no json", "body"),
        ({"name": "x", "contact_id": 1, "at": "yesterday"}, "at"),
        ({"name": "x", "contact_id": 1, "value": 1e13}, "value"),
    ],
)
def test_events_that_cannot_be_read_at_all_are_answered_with_the_place(post: Post, body: Any, place: str):
    answer = post("events", body)

    assert answer.status_code == 422
    assert answer.json()["problems"][0]["place"] == place
