"""Bearer tokens: made on a page, shown once, stored as a hash, used by the REST API, listed with their last use, and revoked."""

import re
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

from distmark.clock import FixedClock
from distmark.compliance import access
from distmark.compliance.table import AuditEntry
from distmark.engagement.table import Event
from distmark.partners.model import Role
from distmark.partners.table import ApiToken, Partner, User
from distmark.partners.tokens import PREFIX, hash_of
from tests.web.conftest import PartnerPair


def make_token(client: TestClient, name: str = "来店の知らせ") -> str:
    answer = client.post("/access", data={"name": name})
    assert answer.status_code == 200, answer.text
    return re.findall(rf'value="({PREFIX}[\w-]+)"', answer.text)[0]


def post_event(pair: PartnerPair, token: str, email: str, key: str = "b1") -> int:
    body = {"name": "visit_booked", "email": email, "key": key}
    headers = {"authorization": f"Bearer {token}", "sec-fetch-site": "none"}
    return TestClient(pair.app).post("/api/v1/events", json=body, headers=headers).status_code


def test_token_is_shown_once_and_kept_as_a_hash_alone(pair: PartnerPair):
    client = pair.as_()

    token = make_token(client)

    assert token not in client.get("/access").text
    with pair.db.reading() as session:
        row = session.exec(select(ApiToken)).one()
        assert row.token_hash == hash_of(token)
        assert token not in str(row.model_dump())
        assert session.exec(select(AuditEntry.action).where(AuditEntry.subject_kind == "api_token")).all() == ["created"]


def test_token_acts_as_its_maker_within_the_makers_rows(pair: PartnerPair):
    token = make_token(pair.as_())

    assert post_event(pair, token, pair.here.enrolled.email) == 201
    assert post_event(pair, token, pair.there.enrolled.email, "b2") == 404
    with pair.db.reading() as session:
        assert session.exec(select(Event.contact_id)).all() == [pair.here.enrolled.id]


def test_use_is_noted_to_the_minute(pair: PartnerPair, clock: FixedClock):
    client = pair.as_()
    token = make_token(client)
    assert "まだ使われていません" in client.get("/access").text

    post_event(pair, token, pair.here.enrolled.email)
    first = clock.now()
    clock.move(timedelta(seconds=30))
    post_event(pair, token, pair.here.enrolled.email)

    with pair.db.reading() as session:
        assert session.exec(select(ApiToken.last_used_at)).one() == first
    clock.move(timedelta(seconds=31))
    post_event(pair, token, pair.here.enrolled.email)
    with pair.db.reading() as session:
        assert session.exec(select(ApiToken.last_used_at)).one() == clock.now()


def test_revoked_token_opens_nothing_and_the_trail_says_who_took_it(pair: PartnerPair):
    client = pair.as_()
    token = make_token(client)
    with pair.db.reading() as session:
        token_id = session.exec(select(ApiToken.id)).one()

    for _ in range(2):
        assert client.post(f"/access/{token_id}/revoke").status_code == 303

    assert post_event(pair, token, pair.here.enrolled.email) == 401
    assert "無効" in client.get("/access").text
    with pair.db.reading() as session:
        trail = select(AuditEntry.action).where(AuditEntry.subject_kind == "api_token").order_by(col(AuditEntry.id))
        assert session.exec(trail).all() == ["created", "revoked"]


@pytest.mark.parametrize("gone", ["user", "partner"])
def test_token_of_somebody_who_left_opens_nothing(pair: PartnerPair, gone: str):
    token = make_token(pair.as_())
    with pair.db.writing() as session:
        row = session.exec(select(ApiToken)).one()
        left = session.get_one(User, row.user_id) if gone == "user" else session.get_one(Partner, row.partner_id)
        left.active = False
        session.add(left)

    assert post_event(pair, token, pair.here.enrolled.email) == 401


@pytest.mark.parametrize("token", ["", PREFIX, f"{PREFIX}guess", "x" * 5000])
def test_unknown_token_is_refused(pair: PartnerPair, token: str):
    assert post_event(pair, token, pair.here.enrolled.email) == 401


def test_tokens_of_a_colleague_are_not_there_but_operations_may_revoke_them(pair: PartnerPair):
    make_token(pair.as_())
    with pair.db.reading() as session:
        token_id = session.exec(select(ApiToken.id)).one()
    colleague, operator = pair.as_(), pair.as_(Role.ops)

    assert colleague.post(f"/access/{token_id}/revoke").status_code == 404
    assert "来店の知らせ" not in colleague.get("/access").text
    assert "来店の知らせ" in operator.get("/access").text
    assert operator.post(f"/access/{token_id}/revoke").status_code == 303


@pytest.mark.parametrize("name", ["", " ", "x" * (access.LONGEST_NAME + 1), "a\nb"])
def test_name_that_cannot_be_is_refused_beside_the_form(pair: PartnerPair, name: str):
    answer = pair.as_().post("/access", data={"name": name})

    assert answer.status_code == 422
    assert PREFIX + "…" in answer.text


def test_so_many_tokens_and_no_more(pair: PartnerPair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(access, "MOST_TOKENS", 1)
    client = pair.as_()
    make_token(client)

    assert client.post("/access", data={"name": "もう一つ"}).status_code == 422
