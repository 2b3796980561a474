"""The demo's mailbox: the list of caught messages, newest first, and each message in its sandbox."""

from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from distmark.clock import FixedClock
from distmark.db import Database
from distmark.mailbox.store import MailboxStore
from distmark.settings import Settings
from distmark.web.app import create_app
from tests.factories import NOW, PASSWORD, make_user

MAIL = (
    "From: Sato <sato@mirai.example>\r\nTo: hanako@example.com\r\nSubject: {subject}\r\nMessage-ID: <{id}@x>\r\n"
    "Content-Type: text/html; charset=utf-8\r\n\r\n<html><head></head><body><p style='color:red'>Hello</p>"
    "<script>alert(1)</script></body></html>"
)


@pytest.fixture
def client(db: Database, clock: FixedClock, tmp_path: Path) -> TestClient:
    store = MailboxStore(tmp_path / "mailbox.sqlite3")
    for number, subject in enumerate(("First", "Second")):
        store.add(
            MAIL.format(subject=subject, id=number).encode(), "sato@mirai.example", ["hanako@example.com"], NOW + timedelta(minutes=number)
        )
    store.add_sms("SMS text", "mirai", "+819012345678", NOW + timedelta(minutes=5))
    store.close()
    with db.writing() as session:
        email = make_user(session).email
    app = create_app(Settings(mode="demo", data_dir=tmp_path, _env_file=None), db, clock)
    browser = TestClient(app, headers={"sec-fetch-site": "same-origin"})
    browser.post("/sign-in", data={"email": email, "password": PASSWORD})
    return browser


def test_newest_message_is_on_top_and_the_list_renews_itself(client: TestClient):
    page = client.get("/mailbox").text

    assert page.index("SMS text") < page.index("Second") < page.index("First")
    assert 'hx-trigger="every 4s"' in page


def test_renewing_gives_the_list_alone(client: TestClient):
    part = client.get("/mailbox", headers={"hx-request": "true", "hx-target": "div#caught"}).text

    assert "<html" not in part
    assert "Second" in part


@pytest.mark.parametrize(("query", "found"), [("?q=Second", 1), ("?q=nothing", 0), ("?kind=sms", 1), ("?kind=mail", 2)])
def test_messages_are_searched_by_the_address(client: TestClient, query: str, found: int):
    assert client.get(f"/mailbox{query}").text.count('href="/mailbox/') == found


def test_message_is_shown_in_a_frame_that_runs_nothing(client: TestClient):
    page, frame = client.get("/mailbox/1").text, client.get("/mailbox/1/message.html")

    assert "<iframe" in page
    assert "alert(1)" not in page
    assert "sandbox" in frame.headers["content-security-policy"]
    assert "allow-scripts" not in frame.headers["content-security-policy"]


def test_raw_message_and_its_text_can_be_read(client: TestClient):
    assert "Message-ID: &lt;0@x&gt;" in client.get("/mailbox/1?part=raw").text
    assert "SMS text" in client.get("/mailbox/3").text
    assert "テキストがありません" in client.get("/mailbox/1?part=text").text


def test_stranger_reads_no_mail(client: TestClient):
    stranger = TestClient(client.app, follow_redirects=False)

    assert stranger.get("/mailbox/1/message.html").status_code == 303


def test_emptied_mailbox_answers_calmly(client: TestClient):
    assert client.get("/mailbox/99").status_code == 404


def test_only_addresses_of_the_web_and_of_mail_are_links(client: TestClient, tmp_path: Path):
    store = MailboxStore(tmp_path / "mailbox.sqlite3")
    body = "<a href='JavaScript:alert(2)'>a</a><a href='data:text/html,x'>b</a><a href='https://mirai.example/'>c</a>"
    mail = f"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n{body}"
    number = store.add(mail.encode(), "sato@mirai.example", ["hanako@example.com"], NOW)[0]
    store.close()

    page = client.get(f"/mailbox/{number}").text.lower()

    assert "javascript:alert(2)" in page
    assert 'href="javascript' not in page
    assert 'href="data:' not in page
    assert 'href="https://mirai.example/"' in page
