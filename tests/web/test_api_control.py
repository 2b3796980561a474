"""Pausing, resuming, stopping and draining by the REST API: permissions, answers, and dry runs that change nothing."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.openapi.utils import get_openapi
from fastapi.testclient import TestClient
from httpx import Response
from sqlmodel import col, select

from distmark.clock import FixedClock
from distmark.compliance.table import AuditEntry
from distmark.enrollments.table import Enrollment, Suspension
from distmark.partners.model import Role
from distmark.sql import id_of
from distmark.web.api import control
from distmark.web.api.viewer import api_token
from tests import factories as make
from tests.factories import NOW
from tests.web.conftest import PartnerPair

Post = Callable[..., Response]
ACTS = ("pause", "resume", "stop", "drain")
DAYS = timedelta(days=5)


@pytest.fixture
def post(pair: PartnerPair, guest: TestClient) -> Post:
    """Return a function that posts a body to /api/v1/control/... with the token of a user of this role, from no page of ours."""
    del guest.headers["sec-fetch-site"]

    def send(act: str, body: Any, role: Role = Role.marketer) -> Response:
        with pair.db.writing() as session:
            partner = session.merge(pair.here.partner) if role is Role.partner else None
            user = make.make_user(session, role, session.merge(pair.brand), partner)
        headers = {"authorization": f"Bearer {api_token(pair.app.state.site, id_of(user))}"}
        return guest.post(f"/api/v1/control/{act}", json=body, headers=headers)

    return send


def rows(pair: PartnerPair) -> list[Enrollment]:
    with pair.db.reading() as session:
        return [session.get_one(Enrollment, side.enrollment.id) for side in (pair.here, pair.there)]


def state(pair: PartnerPair) -> tuple[list[str], int, int]:
    """Return the statuses of both partners' enrollments, the number of suspensions, and the number of acts in the audit trail."""
    with pair.db.reading() as session:
        standing = session.exec(select(Suspension).where(col(Suspension.lifted_at).is_(None))).all()
        return [str(row.status) for row in rows(pair)], len(standing), len(session.exec(select(AuditEntry)).all())


def scopes(pair: PartnerPair) -> dict[str, tuple[dict[str, Any], int]]:
    """Return each way to name a scope, with the number of enrollments in it."""
    return {
        "journey": ({"journey": pair.journey.key}, 2),
        "version": ({"journey": pair.journey.key, "version": 1}, 2),
        "campaign": ({"campaign": pair.campaign.key}, 2),
        "partner": ({"partner": pair.here.partner.key}, 1),
        "both": ({"campaign": pair.campaign.key, "partner": pair.here.partner.key}, 1),
        "contact": ({"contact": pair.here.enrolled.id}, 1),
        "enrollments": ({"enrollments": [pair.here.enrollment.id]}, 1),
    }


NAMES = ("journey", "version", "campaign", "partner", "both", "contact", "enrollments")


@pytest.mark.parametrize("name", NAMES)
def test_each_scope_is_paused_goes_on_and_ends(pair: PartnerPair, post: Post, name: str):
    """L12"""
    scope, number = scopes(pair)[name]

    paused = post("pause", scope | {"reason": "wrong rate"}, Role.ops)
    held = state(pair)[0]
    resumed = post("resume", scope, Role.ops)
    stopped = post("stop", scope | {"reason": "offer ended"}, Role.ops)

    assert (paused.status_code, paused.json()) == (200, {"count": number, "dry_run": False})
    assert held == ["paused", "paused" if number == 2 else "waiting"]
    assert (resumed.json()["count"], resumed.json()["at_once"], resumed.json()["kept"]) == (number, 0, 0)
    assert stopped.json() == {"count": number, "dry_run": False}
    assert [(row.status, row.reason) for row in rows(pair)] == [("ended", "offer ended")] * number + [("waiting", "")] * (2 - number)


@pytest.mark.parametrize("act", ACTS)
def test_dry_run_counts_and_changes_nothing(pair: PartnerPair, post: Post, act: str):
    if act == "resume":
        post("pause", {"campaign": pair.campaign.key})
    before = state(pair)

    answer = post(act, {"campaign": pair.campaign.key, "dry_run": True} | ({"reason": "x"} if act == "stop" else {}))

    assert (answer.json()["count"], answer.json()["dry_run"]) == (2, True)
    assert state(pair) == before


def test_drained_campaign_takes_nobody_and_lets_them_in_again(pair: PartnerPair, post: Post):
    drained = post("drain", {"campaign": pair.campaign.key})
    stands = state(pair)[:2]
    post("resume", {"campaign": pair.campaign.key})

    assert (drained.json(), stands, state(pair)[1]) == ({"count": 2, "dry_run": False}, (["waiting", "waiting"], 1), 0)


@pytest.mark.parametrize(
    ("body", "at_once", "first_due", "second_due"),
    [
        ({}, 2, timedelta(0), timedelta(0)),
        ({"spread_hours": 1.5}, 2, timedelta(0), timedelta(minutes=45)),  # 90 minutes for two people
        ({"extend": True}, 0, timedelta(days=3, hours=23), timedelta(days=3, hours=23)),  # "for 3 days until 09:00", from 10:00 in Tokyo
    ],
)
def test_resume_keeps_the_clock_spreads_or_extends(
    pair: PartnerPair, post: Post, clock: FixedClock, body: dict[str, Any], at_once: int, first_due: timedelta, second_due: timedelta
):
    post("pause", {"campaign": pair.campaign.key})
    clock.move(DAYS)

    answer = post("resume", {"campaign": pair.campaign.key} | body).json()

    assert (answer["paused"], answer["count"], answer["at_once"], answer["steps"]) == (
        2, 2, at_once, {"time-to-read": 2} if at_once else {},
    )  # fmt: skip
    assert answer["extended"] is ("extend" in body)
    assert (answer["spread_until"] is not None) == ("spread_hours" in body)
    assert [row.due_at for row in rows(pair)] == [NOW + DAYS + first_due, NOW + DAYS + second_due]


@pytest.mark.parametrize("act", ACTS)
def test_repeat_is_harmless(pair: PartnerPair, post: Post, act: str):
    body = {"campaign": pair.campaign.key} | ({"reason": "over"} if act == "stop" else {})
    first = post(act, body)
    after = state(pair)[:2]

    second = post(act, body)

    assert (first.status_code, second.status_code, state(pair)[:2]) == (200, 200, after)
    assert second.json()["count"] == (2 if act == "drain" else 0)


# --- who ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ACTS)
def test_partner_reaches_their_own_part_alone(pair: PartnerPair, post: Post, act: str):
    if act == "resume":
        post("pause", {"campaign": pair.campaign.key}, Role.partner)
    body = {"campaign": pair.campaign.key} | ({"reason": "x"} if act == "stop" else {})

    answer = post(act, body, Role.partner)

    assert answer.json()["count"] == 1
    assert rows(pair)[1].status == "waiting"


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("role", [Role.partner, Role.ops])
def test_guessed_names_of_another_partner_or_brand_are_not_found(pair: PartnerPair, post: Post, act: str, role: Role):
    """S5"""
    with pair.db.writing() as session:
        from distmark.journeys.table import Journey
        from distmark.partners.table import Brand

        brand = session.get_one(Brand, pair.foreign.brand_id)
        foreign = make.make_enrollment(
            session, make.make_member(session, session.merge(pair.foreign), make.make_contact(session, make.make_partner(session, brand)))
        )
        journey_key = session.get_one(Journey, pair.foreign.journey_id).key
    guesses: list[dict[str, Any]] = [
        {"contact": foreign.contact_id},
        {"enrollments": [foreign.id]},
        {"enrollments": [pair.here.enrollment.id, foreign.id]},
        {"campaign": "nothing"},
        {"partner": "nothing"},
        {"journey": pair.journey.key, "version": 99},
    ]
    if pair.foreign.key != pair.campaign.key:
        guesses.append({"campaign": pair.foreign.key})
    if journey_key != pair.journey.key:
        guesses.append({"journey": journey_key})
    if role is Role.partner:
        guesses += [
            {"contact": pair.there.enrolled.id},
            {"enrollments": [pair.there.enrollment.id]},
            {"partner": pair.there.partner.key},
            {"campaign": pair.campaign.key, "partner": pair.there.partner.key},
        ]
    before = state(pair)

    for guess in guesses:
        answer = post(act, guess | ({"reason": "x"} if act == "stop" else {}), role)
        assert answer.status_code == 404, (guess, answer.text)

    assert state(pair) == before
    with pair.db.reading() as session:
        assert session.get_one(Enrollment, foreign.id).status == "waiting"


def test_stop_with_what_a_dry_run_showed_ends_nobody_else(pair: PartnerPair, post: Post):
    scope = {"campaign": pair.campaign.key, "reason": "over"}
    shown = post("stop", scope | {"dry_run": True}).json()["shown"]
    with pair.db.writing() as session:
        member = make.make_member(session, session.merge(pair.campaign), make.make_contact(session, session.merge(pair.here.partner)))
        later = make.make_enrollment(session, member, session.merge(pair.version), step_id="time-to-read")

    stopped = post("stop", scope | {"shown": shown})

    assert stopped.json()["count"] == 2
    with pair.db.reading() as session:
        assert session.get_one(Enrollment, later.id).ended_at is None


@pytest.mark.parametrize("act", ["stop", "resume"])
def test_act_on_more_than_a_dry_run_showed_is_refused(pair: PartnerPair, post: Post, act: str):
    post("pause", {"campaign": pair.campaign.key})
    body = {"campaign": pair.campaign.key, "shown": f"1-{pair.there.enrollment.id}"} | ({"reason": "x"} if act == "stop" else {})

    answer = post(act, body)

    assert answer.status_code == 409
    assert "it concerns 2 people now, not 1" in answer.json()["detail"]
    assert state(pair)[0] == ["paused", "paused"]


@pytest.mark.parametrize("shown", ["", "x", "1", "-1-2", "1-2-3", 5])
def test_what_was_shown_cannot_be_made_up_of_other_text(pair: PartnerPair, post: Post, shown: object):
    assert post("resume", {"campaign": pair.campaign.key, "shown": shown}).status_code == 422


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("dry_run", [False, True])
def test_approver_may_not(pair: PartnerPair, post: Post, act: str, dry_run: bool):
    before = state(pair)

    answer = post(act, {"campaign": pair.campaign.key, "dry_run": dry_run} | ({"reason": "x"} if act == "stop" else {}), Role.approver)

    assert (answer.status_code, state(pair)) == (403, before)


@pytest.mark.parametrize("act", ACTS)
def test_session_cookie_opens_nothing(pair: PartnerPair, act: str):
    answer = pair.as_(Role.ops).post(f"/api/v1/control/{act}", json={"campaign": pair.campaign.key, "reason": "x"})

    assert (answer.status_code, state(pair)[0]) == (401, ["waiting", "waiting"])


# --- what cannot be read ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "body", "place"),
    [
        ("pause", {}, "body"),
        ("pause", {"version": 1}, "body"),
        ("pause", {"contact": 1, "enrollments": [1]}, "body"),
        ("pause", {"contact": 0}, "contact"),
        ("pause", {"contact": 2**31}, "contact"),
        ("pause", {"contact": True}, "contact"),
        ("pause", {"campaign": "a\0b"}, "campaign"),
        ("pause", {"contact": 1, "reason": "a\0b"}, "reason"),
        ("pause", {"contact": 1, "why": "x"}, "why"),
        ("drain", {"enrollments": list(range(1, 1002))}, "enrollments"),
        ("stop", {"contact": 1}, "reason"),
        ("stop", {"contact": 1, "reason": "  "}, "reason"),
        ("stop", {"contact": 1, "reason": "x" * 301}, "reason"),
        ("resume", {"contact": 1, "spread_hours": -1}, "spread_hours"),
        ("resume", {"contact": 1, "spread_hours": 1e6}, "spread_hours"),
        ("resume", {"contact": 1, "extend": "perhaps"}, "extend"),
        ("resume", [], "body"),
    ],
)
def test_what_cannot_be_read_is_answered_with_its_place(pair: PartnerPair, post: Post, act: str, body: Any, place: str):
    answer = post(act, body)

    assert (answer.status_code, answer.json()["problems"][0]["place"]) == (422, place)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert state(pair)[:2] == (["waiting", "waiting"], 0)


def test_enrollments_inside_cannot_be_drained(pair: PartnerPair, post: Post):
    answer = post("drain", {"enrollments": [pair.here.enrollment.id]})

    assert answer.status_code == 422
    assert "drain a journey" in answer.json()["detail"]


@pytest.mark.parametrize("act", ACTS)
def test_body_and_answer_are_described_for_programs(act: str):
    described = get_openapi(title="distmark", version="1", routes=control.router.routes)["paths"][f"/api/v1/control/{act}"]["post"]

    body = described["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"journey", "version", "campaign", "partner", "contact", "enrollments", "dry_run"} <= set(body)
    assert "count" in described["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
