"""What the simulated audience decides to do with a message, and how it asks for it."""

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from distmark.clock import wall_now
from distmark.demo import audience as audience_module
from distmark.demo.audience import APPLE_PRIVACY, Booking, DemoAudience, PlannedAct, ReaderAct, one_click_url, pixel_of, plan
from distmark.engagement.bot_detection import Signs, judge
from distmark.engagement.model import Verdict
from distmark.mailbox.store import MailboxItem, MailboxStore
from tests.waiting import wait_until

BASE = "http://127.0.0.1:8080"
BOOKING = Booking("a-token", ["visit_booked"], ["joined"])


def mail(recipient: str, base: str = BASE, unsubscribe: bool = True) -> bytes:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"], message["Message-ID"] = "a@brand.example", recipient, "Hello", f"<{recipient}>"
    if unsubscribe:
        message["List-Unsubscribe"] = f"<{base}/u/t0>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content("Hello")
    message.add_alternative(
        f'<a href="{base}/c/t0/plans">Plans</a><a href="https://elsewhere.example/">x</a><img src="{base}/o/t0.gif" alt="">', subtype="html"
    )
    return message.as_bytes()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MailboxStore]:
    store = MailboxStore(tmp_path / "mailbox.sqlite3")
    yield store
    store.close()


def item(store: MailboxStore, recipient: str, **options: Any) -> MailboxItem:
    [item_id] = store.add(mail(recipient, **options), "a@brand.example", [recipient], wall_now())
    return store.get(item_id)


def everybody(store: MailboxStore, count: int = 200) -> list[list[PlannedAct]]:
    return [plan(item(store, f"person{n}@partner.mail.example"), BASE, BOOKING) for n in range(count)]


def test_the_same_person_does_the_same_with_the_same_message(store: MailboxStore) -> None:
    first = item(store, "hanako@partner.mail.example")

    assert plan(first, BASE, BOOKING) == plan(item(store, "hanako@partner.mail.example"), BASE, BOOKING)


def test_a_crowd_opens_clicks_books_and_leaves_but_not_all_of_it(store: MailboxStore) -> None:
    crowd = everybody(store)

    acts = Counter(act for deeds in crowd for act in {deed.act for deed in deeds})

    assert all(0 < acts[act] < len(crowd) for act in ReaderAct)
    assert acts[ReaderAct.open] > acts[ReaderAct.click] > acts[ReaderAct.unsubscribe]


def test_deeds_come_in_the_order_in_which_people_do_things(store: MailboxStore) -> None:
    for deeds in everybody(store, 60):
        times = {deed.act: deed.after for deed in reversed(deeds)}
        order = [times[act] for act in (ReaderAct.open, ReaderAct.click, ReaderAct.event) if act in times]
        assert order == sorted(order)
        assert all(deed.after >= timedelta(minutes=5) for deed in deeds)


def test_only_our_own_links_are_ever_asked_for(store: MailboxStore) -> None:
    urls = {deed.url for deeds in everybody(store) for deed in deeds if deed.url}

    assert urls <= {f"{BASE}/c/t0/plans", f"{BASE}/o/t0.gif", f"{BASE}/u/t0"}


def test_people_look_like_people_and_the_privacy_proxy_does_not(store: MailboxStore) -> None:
    agents = {
        (deed.act, deed.agent)
        for deeds in everybody(store)
        for deed in deeds
        if deed.act in (ReaderAct.open, ReaderAct.click, ReaderAct.machine_open)
    }

    for act, agent in agents:
        verdict = judge(Signs(agent, timedelta(hours=1), is_open=act is not ReaderAct.click))
        assert verdict is (Verdict.machine if agent == APPLE_PRIVACY else Verdict.human)


def test_one_click_is_pressed_only_where_the_mail_offers_it(store: MailboxStore) -> None:
    with_it, without = item(store, "a@x.example"), item(store, "b@x.example", unsubscribe=False)

    assert (one_click_url(with_it), one_click_url(without)) == (f"{BASE}/u/t0", "")
    assert pixel_of(with_it, BASE) == f"{BASE}/o/t0.gif"


class Web(BaseHTTPRequestHandler):
    """Remembers what it was asked and answers as our web does."""

    asked: ClassVar[list[tuple[str, str, str, str]]] = []

    def do_GET(self) -> None:
        self._note("")
        clicked = self.path.startswith("/c/")
        self.send_response(302 if clicked else 200)
        if clicked:
            self.send_header("location", "http://127.0.0.1:9/never-fetched")
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self._note(self.rfile.read(int(self.headers["content-length"])).decode())
        self.send_response(201 if "/api/" in self.path else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def _note(self, body: str) -> None:
        self.asked.append((self.command, self.path, body, self.headers.get("authorization", "")))

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    Web.asked = []
    server = HTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_audience_asks_by_real_requests_and_counts_what_was_answered(store: MailboxStore, web: str) -> None:
    people = [f"person{n}@partner.mail.example" for n in range(40)]
    for person in people:
        store.add(mail(person, web), "a@brand.example", [person], wall_now())
    audience = DemoAudience(store, 1_000_000.0, web, {"partner.mail.example": BOOKING})

    audience.start()
    audience.settle(20)
    audience.stop()

    asked = Counter(method + path[:3] for method, path, _, _ in Web.asked)
    assert audience.tally.refused == []
    assert asked["GET/c/"] == len(audience.tally.clicked) > 0
    assert asked["POST/u/"] == len(audience.tally.unsubscribed) > 0
    assert asked["POST/ap"] == audience.tally.events > 0
    assert audience.tally.clicked <= audience.tally.opened
    assert {body for method, path, body, _ in Web.asked if path.startswith("/u/")} == {"List-Unsubscribe=One-Click"}
    assert {token for _, path, _, token in Web.asked if path.startswith("/api/")} == {"Bearer a-token"}


def test_what_the_web_refuses_is_told_not_hidden(store: MailboxStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audience_module, "MOST_TRIES", 2)
    monkeypatch.setattr(audience_module, "TRY_AGAIN_AFTER", timedelta(milliseconds=1))
    for n in range(10):
        person = f"person{n}@partner.mail.example"
        store.add(mail(person, "http://127.0.0.1:9"), "a@brand.example", [person], wall_now())
    audience = DemoAudience(store, 1_000_000.0, "http://127.0.0.1:9", {})

    audience.start()
    wait_until(lambda: audience.tally.refused, 60, "A refusal")
    audience.stop()

    assert audience.tally.opened == set()
