"""A simulated audience: reads the caught mail and opens, clicks, unsubscribes and books by real HTTP requests to what it finds there.

Everybody's habits follow from their address, so the same people do the same things in every run; only when they get round to it differs.
"""

import heapq
import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import count
from urllib.parse import urlsplit

import httpx2

from distmark.clock import wall_now
from distmark.mailbox.store import MailboxItem, MailboxStore, MessageKind

POLL_SECONDS = 0.2
REQUEST_SECONDS = 20.0
MOST_TRIES = 30
TRY_AGAIN_AFTER = timedelta(seconds=1)  # of wall time

PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6"
ANDROID = "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15"
GMAIL_IMAGES = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
APPLE_PRIVACY = "Mozilla/5.0"  # fetches every image soon after delivery, whether or not anyone reads
ONE_CLICK = "Mozilla/5.0 (compatible; MailProvider-Unsubscribe/1.0)"


class ReaderAct(StrEnum):
    """The act of a recipient on a message."""

    open = "open"
    machine_open = "machine_open"
    click = "click"
    unsubscribe = "unsubscribe"
    event = "event"


@dataclass(frozen=True, slots=True)
class Habits:
    """The habits of one kind of recipient: probabilities of opening, of clicking once opened, of booking once clicked."""

    opens: float
    clicks: float
    books: float


KINDS: tuple[tuple[float, Habits], ...] = (
    (0.40, Habits(opens=0.95, clicks=0.70, books=0.60)),
    (0.35, Habits(opens=0.75, clicks=0.25, books=0.30)),
    (0.25, Habits(opens=0.04, clicks=0.50, books=0.00)),
)
UNSUBSCRIBES = 0.06
HAS_PRIVACY_PROXY = 0.15
CONVERTS = 0.25  # of those who book, in the days after


@dataclass(frozen=True, slots=True)
class PlannedAct:
    """One thing to do, `after` the message came (in the recipient's time)."""

    after: timedelta
    act: ReaderAct
    url: str = ""
    agent: str = ""
    event: str = ""
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Booking:
    """The events that people of one partner may cause: what a click may lead to, and what may follow."""

    token: str  # with which the partner's system tells us
    books: Sequence[str]
    converts: Sequence[str]


@dataclass(slots=True)
class AudienceTally:
    """The acts of the audience, by Message-ID; `refused` are requests that the web did not answer as it should."""

    opened: set[str] = field(default_factory=set)
    clicked: set[str] = field(default_factory=set)
    unsubscribed: set[str] = field(default_factory=set)
    events: int = 0
    refused: list[str] = field(default_factory=list)


def plan(item: MailboxItem, base_url: str, booking: Booking | None) -> list[PlannedAct]:
    """Return what the recipient will do with the message, earliest first. The same for the same address and subject."""
    person = random.Random(item.recipient)
    habits = person.choices([habits for _, habits in KINDS], [share for share, _ in KINDS])[0]
    agent, private, leaves = (
        person.choice((PHONE, ANDROID, WINDOWS, MAC)),
        person.random() < HAS_PRIVACY_PROXY,
        person.random() < UNSUBSCRIBES,
    )
    dice = random.Random(f"{item.recipient} {item.subject} {item.text if item.kind is MessageKind.sms else ''}")
    links = [url for url in item.links if url.startswith(f"{base_url}/c/")]
    planned_acts = [*_machine(item, base_url, private)]
    if dice.random() >= habits.opens:
        return planned_acts
    seen = timedelta(minutes=dice.randint(20, 30 * 60))
    pixel = pixel_of(item, base_url)
    if pixel:
        planned_acts.append(PlannedAct(seen, ReaderAct.open, pixel, GMAIL_IMAGES if agent == ANDROID else agent))
    if leaves and (url := one_click_url(item)):
        return [*planned_acts, PlannedAct(seen + timedelta(minutes=dice.randint(1, 10)), ReaderAct.unsubscribe, url, ONE_CLICK)]
    if links and dice.random() < habits.clicks:
        clicked = seen + timedelta(minutes=dice.randint(1, 40))
        planned_acts.append(PlannedAct(clicked, ReaderAct.click, dice.choice(links), agent))
        if booking is not None and dice.random() < habits.books:
            planned_acts += _bookings(booking, clicked, dice)
    return sorted(planned_acts, key=lambda planned: planned.after)


def _machine(item: MailboxItem, base_url: str, private: bool) -> Iterator[PlannedAct]:
    pixel = pixel_of(item, base_url)
    if private and pixel:
        yield PlannedAct(timedelta(minutes=5), ReaderAct.machine_open, pixel, APPLE_PRIVACY)


def _bookings(booking: Booking, clicked: timedelta, dice: random.Random) -> Iterator[PlannedAct]:
    booked = clicked + timedelta(hours=dice.randint(1, 20))
    if booking.books:
        yield PlannedAct(booked, ReaderAct.event, event=dice.choice(booking.books))
    if booking.converts and dice.random() < CONVERTS:
        yield PlannedAct(booked + timedelta(hours=dice.randint(12, 72)), ReaderAct.event, event=dice.choice(booking.converts))


def pixel_of(item: MailboxItem, base_url: str) -> str:
    """Return the address of the open pixel in the HTML, "" when there is none."""
    start = item.html.find(f"{base_url}/o/")
    return "" if start < 0 else item.html[start:].split('"', 1)[0]


def one_click_url(item: MailboxItem) -> str:
    """Return the https or http address of List-Unsubscribe, if one click may be pressed there (RFC 8058), else ""."""
    if item.header("List-Unsubscribe-Post").strip() != "List-Unsubscribe=One-Click":
        return ""
    fields = (part.strip().strip("<>") for part in item.header("List-Unsubscribe").split(","))
    return next((url for url in fields if url.startswith("http")), "")


class DemoAudience:
    """Reads the mailbox and does what each recipient would, in a thread of its own until `stop`. Their time runs `speed` times faster."""

    def __init__(self, store: MailboxStore, speed: float, base_url: str, bookings: Mapping[str, Booking], since: int = 0) -> None:
        self.store, self.speed, self.base_url, self.bookings = store, speed, base_url, bookings
        self._numbers = count()
        self.tally = AudienceTally()
        self._last = since
        self._due: list[tuple[datetime, int, MailboxItem, PlannedAct]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audience", daemon=True)
        self._http = httpx2.Client(timeout=REQUEST_SECONDS, follow_redirects=False, trust_env=False)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more requests are made; what was still to come never happens."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(REQUEST_SECONDS)
        self._http.close()

    def settle(self, seconds: float = 10.0) -> None:
        """Wait until all mail is read and nothing is overdue, at most so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and (self.store.newest_id() > self._last or self._has_overdue()):
            time.sleep(POLL_SECONDS)

    def _has_overdue(self) -> bool:
        return any(due <= wall_now() or planned.tries > 1 for due, _, _, planned in list(self._due))

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(sqlite3.Error):  # a mailbox that cannot be read now is looked at again
                self._read_mail()
            while self._due and self._due[0][0] <= wall_now() and not self._stop.is_set():
                _, _, item, planned = heapq.heappop(self._due)
                self._do(item, planned)
            self._stop.wait(POLL_SECONDS)

    def _read_mail(self) -> None:
        """Take in what came. It counts from when it was seen here: the mailbox of a person is looked at, it does not call."""
        for item in self.store.since(self._last):
            seen, self._last = wall_now(), item.id
            for planned in plan(item, self.base_url, self.bookings.get(item.recipient.partition("@")[2])):
                heapq.heappush(self._due, (seen + planned.after / self.speed, next(self._numbers), item, planned))

    def _do(self, item: MailboxItem, planned: PlannedAct) -> None:
        try:
            status, wanted = self._request(item, planned)
        except httpx2.HTTPError as error:
            self._retry_later(item, planned, error)
            return
        if status not in wanted:
            self.tally.refused.append(f"{planned.act} of {item.message_id}: {status}")
            return
        self._count(item, planned)

    def _retry_later(self, item: MailboxItem, planned: PlannedAct, error: httpx2.HTTPError) -> None:
        """Try a page that did not load again in a moment, and give up in the end."""
        if planned.tries >= MOST_TRIES:
            self.tally.refused.append(f"{planned.act} of {item.message_id}: {type(error).__name__}")
            return
        again = replace(planned, tries=planned.tries + 1)
        heapq.heappush(self._due, (wall_now() + TRY_AGAIN_AFTER, next(self._numbers), item, again))

    def _request(self, item: MailboxItem, planned: PlannedAct) -> tuple[int, tuple[int, ...]]:
        agent = {"user-agent": planned.agent}
        if planned.act is ReaderAct.event:
            token = self.bookings[item.recipient.partition("@")[2]].token
            body = {"name": planned.event, "email": item.recipient, "key": f"{item.message_id} {planned.event}"}
            answer = self._http.post(f"{self.base_url}/api/v1/events", json=body, headers={"authorization": f"Bearer {token}"})
            return answer.status_code, (200, 201)
        if planned.act is ReaderAct.unsubscribe:
            # Exactly what a mail provider sends (RFC 8058): no cookie, no referrer, this one field.
            return self._http.post(planned.url, data={"List-Unsubscribe": "One-Click"}, headers=agent).status_code, (200,)
        answer = self._http.get(planned.url, headers=agent)
        if planned.act is ReaderAct.click and urlsplit(answer.headers.get("location", "")).scheme not in ("http", "https"):
            return 0, (302,)
        return answer.status_code, (302,) if planned.act is ReaderAct.click else (200,)

    def _count(self, item: MailboxItem, planned: PlannedAct) -> None:
        if planned.act is ReaderAct.event:
            self.tally.events += 1
        elif planned.act is ReaderAct.unsubscribe:
            self.tally.unsubscribed.add(item.message_id)
        elif planned.act is not ReaderAct.machine_open:
            self.tally.opened.add(item.message_id)  # a click is an open too: images are often off
            if planned.act is ReaderAct.click:
                self.tally.clicked.add(item.message_id)
