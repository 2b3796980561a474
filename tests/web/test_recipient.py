"""The routes of recipients: pixel, links, unsubscribing. A GET of a page changes nothing; a POST acts at once."""

from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.event import listens_for, remove
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from distmark.contacts.table import Suppression
from distmark.engagement.table import Event
from distmark.messages.table import Message
from distmark.partners.model import Role
from tests.web.conftest import PartnerPair


def suppressions(pair: PartnerPair) -> int:
    with pair.db.reading() as session:
        return len(session.exec(select(Suppression)).all())


def events(pair: PartnerPair) -> list[str]:
    with pair.db.reading() as session:
        return [event.kind for event in session.exec(select(Event))]


@pytest.fixture
def token(pair: PartnerPair) -> str:
    return pair.here.message.token


def test_pixel_is_a_gif_of_43_bytes_that_nobody_keeps(guest: TestClient, token: str):
    answer = guest.get(f"/o/{token}.gif")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/gif"
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.content) == 43
    assert answer.content.startswith(b"GIF89a")


def test_bad_token_gets_the_same_pixel(guest: TestClient, token: str):
    right, wrong = guest.get(f"/o/{token}.gif"), guest.get("/o/guessed.gif")

    assert right.content == wrong.content
    assert right.status_code == wrong.status_code
    assert {**right.headers, "x-request-id": ""} == {**wrong.headers, "x-request-id": ""}


def test_pixel_records_the_open_once_and_head_none(guest: TestClient, pair: PartnerPair, token: str):
    guest.head(f"/o/{token}.gif")
    assert events(pair) == []

    guest.get(f"/o/{token}.gif", headers={"user-agent": "Mozilla/5.0 (Macintosh) Safari/605"})
    guest.get(f"/o/{token}.gif", headers={"user-agent": "Mozilla/5.0 (Macintosh) Safari/605"})

    assert events(pair) == ["opened"]


def test_click_leads_to_the_stored_target_and_is_counted(guest: TestClient, pair: PartnerPair, token: str):
    """E10: the target is looked up, never taken from the address."""
    answer = guest.get(f"/c/{token}/plans?r=https://evil.example", headers={"user-agent": "Mozilla/5.0 (iPhone) Safari/605"})

    assert answer.status_code == 302
    assert answer.headers["location"] == "https://mirai.example/plans?ref=P1"
    assert "clicked" in events(pair)


def test_head_of_a_link_is_answered_and_not_counted(guest: TestClient, pair: PartnerPair, token: str):
    answer = guest.head(f"/c/{token}/plans")

    assert answer.status_code == 302
    assert events(pair) == []


@pytest.mark.parametrize("path", ["/c/guessed/plans", "/c/{token}/other", "/u/guessed"])
def test_unknown_link_is_a_calm_page(guest: TestClient, token: str, path: str):
    answer = guest.get(path.format(token=token))

    assert answer.status_code == 404
    assert "リンクが見つかりません" in answer.text


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_fetching_the_unsubscribe_address_stops_nothing(guest: TestClient, pair: PartnerPair, token: str, method: str):
    """U1: scanners fetch every link."""
    guest.request(method, f"/u/{token}")

    assert suppressions(pair) == 0


def test_one_click_acts_at_once_without_cookie_origin_or_redirect(pair: PartnerPair, token: str):
    """U2: RFC 8058; a mail provider's request does not look like a browser's."""
    provider = TestClient(pair.app, follow_redirects=False, headers={"user-agent": "python-requests/2.0 bot"})

    answer = provider.post(f"/u/{token}", data={"List-Unsubscribe": "One-Click"})

    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    assert len(answer.content) < 200
    assert suppressions(pair) == 1


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", None),
        (b"List-Unsubscribe=One-Click", "application/x-www-form-urlencoded"),
        (
            b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
        ),
        (b"not a form at all", "multipart/form-data"),  # no boundary: still their wish
    ],
)
def test_one_click_is_honoured_whatever_its_body(pair: PartnerPair, token: str, content: bytes, kind: str | None):
    provider = TestClient(pair.app, follow_redirects=False)

    answer = provider.post(f"/u/{token}", content=content, headers={"content-type": kind} if kind else {})

    assert answer.status_code == 200
    assert suppressions(pair) == 1


def test_unsubscribing_twice_is_the_same_as_once(guest: TestClient, pair: PartnerPair, token: str):
    for _ in range(2):
        assert guest.post(f"/u/{token}").status_code == 200

    assert suppressions(pair) == 1


def test_page_speaks_the_language_of_the_message(guest: TestClient, pair: PartnerPair, token: str):
    with pair.db.writing() as session:
        message = session.get_one(Message, pair.here.message.id)
        message.language = "en"
        session.add(message)

    page = guest.get(f"/u/{token}", headers={"accept-language": "ja"})

    assert '<html lang="en">' in page.text
    assert "Stop messages from" in page.text
    assert pair.brand.legal_name in page.text


def test_button_unsubscribes_and_the_page_offers_the_way_back(guest: TestClient, pair: PartnerPair, token: str):
    done = guest.post(f"/u/{token}", data={"by": "page"})
    assert "配信を停止しました" in done.text
    assert suppressions(pair) == 1

    again = guest.post(f"/u/{token}/again")

    assert "配信を再開しました" in again.text
    assert suppressions(pair) == 0


def test_subscribing_again_must_come_from_our_own_page(pair: PartnerPair, token: str):
    stranger = TestClient(pair.app, follow_redirects=False)
    stranger.post(f"/u/{token}")

    answer = stranger.post(f"/u/{token}/again", headers={"sec-fetch-site": "cross-site"})

    assert answer.status_code == 403
    assert suppressions(pair) == 1


def test_signed_in_menu_never_shows_on_a_recipients_page(pair: PartnerPair, token: str):
    page = pair.as_(Role.partner).get(f"/u/{token}")

    assert 'href="/contacts"' not in page.text


GLUED = ["。", "）", ")", "」でお願いします", "…", "％", ".", "&gt;", "'", '"', "です" * 60]


@pytest.mark.parametrize("glued", GLUED)
def test_text_glued_to_a_link_is_no_part_of_it(guest: TestClient, pair: PartnerPair, token: str, glued: str):
    target = guest.get(f"/c/{token}/plans").headers["location"]

    assert guest.get(f"/c/{token}/plans{quote(glued)}").headers["location"] == target
    assert guest.get(f"/c/{token}{quote(glued)}/plans").headers["location"] == target
    page = guest.get(f"/u/{token}{quote(glued)}")
    assert page.status_code == 200
    assert f"/u/{token}" in page.text
    assert quote(glued) not in page.text.partition(f"/u/{token}")[2][:40]
    assert guest.post(f"/u/{token}{quote(glued)}", data={"List-Unsubscribe": "One-Click"}).status_code == 200


def test_a_token_is_recognised_by_its_length(guest: TestClient, token: str):
    assert guest.get(f"/u/{token[:-1]}").status_code == 404
    assert guest.get(f"/u/x{token}").status_code == 404


def test_database_that_takes_no_rows_stops_neither_picture_nor_link(guest: TestClient, pair: PartnerPair, token: str):
    @listens_for(pair.db.engine, "before_cursor_execute")
    def refuse(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.lstrip().upper().startswith(("INSERT", "UPDATE")):
            raise OperationalError(statement, {}, Exception("attempt to write a readonly database"))

    try:
        picture, link = guest.get(f"/o/{token}.gif"), guest.get(f"/c/{token}/plans", follow_redirects=False)
    finally:
        remove(pair.db.engine, "before_cursor_execute", refuse)

    assert (picture.status_code, len(picture.content)) == (200, 43)
    assert link.status_code == 302
    assert link.headers["location"].startswith("https://mirai.example/plans")
