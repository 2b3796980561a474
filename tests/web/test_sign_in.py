"""Signing in and out, languages, and the refusal of cross-site requests."""

import pytest
from fastapi.testclient import TestClient

from distmark.partners.model import Role
from distmark.settings import Mode
from distmark.web.api.viewer import api_token
from tests.factories import PASSWORD, make_user
from tests.web.conftest import PartnerPair


def sign_in(client: TestClient, email: str, password: str, **fields: str):
    return client.post("/sign-in", data={"email": email, "password": password, **fields})


@pytest.fixture
def email(db) -> str:
    with db.writing() as session:
        return make_user(session, Role.marketer).email


def test_right_password_opens_a_session_and_leads_back_to_the_page(guest, email):
    answer = sign_in(guest, email, PASSWORD, next="/journeys?v=1")

    assert answer.status_code == 303
    assert answer.headers["location"] == "/journeys?v=1"
    assert guest.get("/").status_code == 200


def test_session_cookie_is_hidden_from_scripts_and_other_sites(guest, email):
    cookie = sign_in(guest, email, PASSWORD).headers["set-cookie"].lower()

    assert "httponly" in cookie
    assert "samesite=lax" in cookie


def test_wrong_password_shows_the_form_again_and_opens_nothing(guest, email):
    answer = sign_in(guest, email, "wrong")

    assert answer.status_code == 422
    assert "set-cookie" not in answer.headers
    assert email in answer.text
    assert "メールアドレスかパスワードが違います" in answer.text


def test_unknown_person_gets_the_same_answer_as_a_wrong_password(guest, email):
    known, unknown = sign_in(guest, email, "wrong"), sign_in(guest, "nobody@example.com", "wrong")

    assert known.text.replace(email, "") == unknown.text.replace("nobody@example.com", "")


def test_right_password_works_after_a_wait_however_many_wrong_ones_somebody_tried(guest, app, email):
    waits: list[float] = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    app.state.site.pause = pause
    for _ in range(60):
        assert sign_in(guest, email, "wrong").status_code == 422
    before = len(waits)

    answer = sign_in(guest, email, PASSWORD)

    assert answer.status_code == 303
    assert before == 55  # the first five cost no wait
    assert waits[-1] == max(waits) == 2


@pytest.mark.parametrize(("mode", "status"), [("production", 401), ("demo", 201)])
def test_signed_bearer_opens_nothing_in_production(pair: PartnerPair, guest, mode: str, status: int):
    site = pair.app.state.site
    with pair.db.writing() as session:
        user = make_user(session, Role.partner, partner=session.get(type(pair.here.partner), pair.here.partner.id))
    headers = {"authorization": f"Bearer {api_token(site, user.id)}"}
    site.settings = site.settings.model_copy(update={"mode": Mode(mode)})

    answer = guest.post("/api/v1/events", json={"name": "booked", "contact_id": pair.here.contact.id}, headers=headers)

    assert answer.status_code == status


def test_address_with_a_slash_too_many_leads_nowhere(guest):
    answer = guest.get("/contacts/", headers={"host": "evil.example"})

    assert answer.status_code == 404
    assert "location" not in answer.headers


@pytest.mark.parametrize("to", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_signing_in_never_leads_to_another_site(guest, email, to):
    assert sign_in(guest, email, PASSWORD, next=to).headers["location"] == "/"


def test_page_asks_a_stranger_to_sign_in_and_remembers_where_they_wanted_to_go(guest):
    answer = guest.get("/campaigns/1?q=a")

    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=%2Fcampaigns%2F1%3Fq%3Da"


def test_signing_out_ends_the_session_on_the_server(pair: PartnerPair):
    client = pair.as_()
    token = client.cookies["distmark"]

    client.post("/sign-out")
    client.cookies.set("distmark", token)

    assert client.get("/").status_code == 303


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),  # another host of the same domain is not us
        ({"origin": "http://testserver"}, 303),  # a browser without Fetch Metadata
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({}, 403),
    ],
)
def test_unsafe_request_must_come_from_our_own_pages(pair: PartnerPair, headers, status):
    client = pair.as_()
    del client.headers["sec-fetch-site"]

    assert client.post(f"/tasks/{pair.here.task.id}/done", headers=headers).status_code == status


def test_cross_site_request_changes_nothing(pair: PartnerPair):
    client = pair.as_()

    client.post(f"/tasks/{pair.here.task.id}/done", headers={"sec-fetch-site": "cross-site"})

    with pair.db.reading() as session:
        assert session.get_one(type(pair.here.task), pair.here.task.id).done_at is None


def test_language_switch_keeps_the_page_and_is_remembered(pair: PartnerPair):
    client = pair.as_()

    answer = client.post("/language", data={"language": "en", "next": "/campaigns?q=1"})

    assert answer.headers["location"] == "/campaigns?q=1"
    page = client.get("/campaigns")
    assert '<html lang="en">' in page.text
    assert ">Campaigns<" in page.text


@pytest.mark.parametrize(
    ("accept", "cookie", "language"),
    [
        ("", None, "ja"),
        ("en-US,en;q=0.9", None, "en"),
        ("fr, ja;q=0.8, en;q=0.9", None, "en"),  # the best of those we speak
        ("en;q=0, ja;q=0.1", None, "ja"),  # q=0 means not at all
        ("en", "ja", "ja"),  # the cookie goes first
        ("en;q=x", None, "ja"),
    ],
)
def test_stranger_reads_the_language_of_the_cookie_or_the_browser(guest, accept, cookie, language):
    if cookie:
        guest.cookies.set("distmark_language", cookie)

    page = guest.get("/sign-in", headers={"accept-language": accept})

    assert f'<html lang="{language}">' in page.text
    assert page.headers["content-language"] == language


def test_forgotten_passwords_of_others_are_not_refused_for_one_that_is_asked_for_again_and_again(guest, app, email):
    waits: list[float] = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    app.state.site.pause = pause
    asked = [guest.post("/forgotten", data={"email": "nobody@example.com"}).status_code for _ in range(30)]
    many = [guest.post("/forgotten", data={"email": f"person{number}@example.com"}).status_code for number in range(30)]

    assert asked == [200] * 5 + [429] * 25
    assert many == [200] * 30
    assert waits  # one address that asks for many is slowed down
    assert guest.post("/forgotten", data={"email": email}).status_code == 200
