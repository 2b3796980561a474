"""From a click, or an event told by the API, to the moment that the waiting contact's next mail is accepted.

Through the web process's real HTTP routes, the worker process, Prefect and a local SMTP server; contacts act one after another at a steady
rate. One contact per run. Sizes: BENCH_EARLY (200 of each kind), BENCH_EARLY_PER_SECOND (4).
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial

import httpx2
from sqlmodel import col, select

from distmark.clock import wall_now
from distmark.contacts.table import Contact
from distmark.enrollments.table import Enrollment
from distmark.messages.table import Message
from distmark.settings import Settings
from distmark.sql import id_of
from tests.bench.crowd import SEND, enrolled, launched, mail_campaign, version_of
from tests.bench.report import quantiles, report
from tests.bench.stand import WAITING, Plant, people, plant, register, say, size, until, web, worker
from tests.driver import PHONE

COUNT, PER_SECOND = size("EARLY", 200), size("EARLY_PER_SECOND", 4)
AIM_SECONDS = 2.0
GIVE_UP_SECONDS = 60.0
ANSWER = "  - {id: answer, send: email, message: last-call, editable: [closing_note]}\n"
AWAITS = {"click": "clicked", "event": "visit_booked"}


def main() -> None:
    """Measure clicks, then events, on the same servers."""
    with plant() as here, web(here) as address, worker(here):
        for kind in AWAITS:
            _measure(here, address, kind)


def _measure(here: Plant, address: str, kind: str) -> None:
    where = ", of: offer" if kind == "click" else ""
    steps = SEND + f"  - {{id: hope, wait: {{event: {AWAITS[kind]}{where}, timeout: 400 days, on_timeout: rest}}}}\n" + ANSWER + WAITING
    campaign = mail_campaign(here.stage, 1, steps)
    register(here, version_of(here.stage, campaign))
    enrolled(here.stage, campaign, people(here.stage, COUNT))
    asyncio.run(launched(here, wall_now()))
    say(f"{kind}: {COUNT} contacts get their first mail")
    until(lambda: _standing(here, id_of(campaign)) >= COUNT, 60 + COUNT * 0.5, "Not everybody came to the wait")
    time.sleep(3)  # who clicks within two seconds of the mail is taken for a machine
    doing = _doing(here, address, kind, id_of(campaign))
    before = len(here.sink.arrived())
    acted = _act(doing)
    say(f"{kind}: all have acted")
    _wait_for(here, before + COUNT)
    arrived = {message_id: at for at, _recipient, message_id in here.sink.arrived()}
    late = [arrived[header] - acted[email] for header, email in _answers(here, id_of(campaign)).items() if header in arrived]
    for label, value in zip(("p50", "p95", "p99"), quantiles(late, 0.5, 0.95, 0.99), strict=True):
        report(f"early_{kind}_{label}", value, "s", at_most=AIM_SECONDS if label == "p95" else None)
    report(f"early_{kind}_unanswered", COUNT - len(late), "contacts", at_most=0)


def _standing(here: Plant, campaign_id: int) -> int:
    with here.db.reading() as session:
        rows = session.exec(select(Enrollment.id).where(Enrollment.campaign_id == campaign_id, Enrollment.step_id == "hope"))
        return len(rows.all())


def _doing(here: Plant, address: str, kind: str, campaign_id: int) -> dict[str, Callable[[httpx2.Client], httpx2.Response]]:
    """Return address -> what the contact with that address does, as a call over HTTP."""
    with here.db.reading() as session:
        rows = session.exec(
            select(Message, Contact.email)
            .join(Contact, col(Contact.id) == col(Message.contact_id))
            .where(Message.campaign_id == campaign_id, Message.step_id == "offer")
        ).all()
    if kind == "click":
        urls = {email or "": f"{address}/c/{message.token}/{min(message.links)}" for message, email in rows}
        return {email: partial(_click, url) for email, url in urls.items()}
    token = _token(here)
    return {email or "": partial(_tell, f"{address}/api/v1/events", token, email or "") for _message, email in rows}


def _click(url: str, client: httpx2.Client) -> httpx2.Response:
    return client.get(url, headers={"user-agent": PHONE})


def _tell(url: str, token: str, email: str, client: httpx2.Client) -> httpx2.Response:
    body = {"name": "visit_booked", "email": email, "key": f"booking-{email}"}
    return client.post(url, json=body, headers={"authorization": f"Bearer {token}"})


def _token(here: Plant) -> str:
    return api_token(here, here.stage.viewer.user_id)


def api_token(here: Plant, user_id: int) -> str:
    """Return a bearer token that the web process takes."""
    from distmark.web.api.viewer import api_token as token_of
    from distmark.web.visit import Site, secret_of

    settings = Settings()
    return token_of(Site(settings, here.db, here.stage.clock, secret_of(settings), {}), user_id)


def _act(doing: dict[str, Callable[[httpx2.Client], httpx2.Response]]) -> dict[str, float]:
    """Let one after another act, at the steady rate; return when each began."""
    acted: dict[str, float] = {}
    began = time.monotonic()
    with httpx2.Client(timeout=30, trust_env=False, follow_redirects=False) as client:
        for number, (email, do) in enumerate(doing.items()):
            time.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
            acted[email] = time.time()
            answer = do(client)
            if answer.status_code >= 400:
                raise RuntimeError(f"The web process answered {answer.status_code}: {answer.text[:300]}")
    return acted


def _answers(here: Plant, campaign_id: int) -> dict[str, str]:
    """Return Message-ID -> address of the mails that answer."""
    with here.db.reading() as session:
        rows = session.exec(
            select(Message.header_id, Contact.email)
            .join(Contact, col(Contact.id) == col(Message.contact_id))
            .where(Message.campaign_id == campaign_id, Message.step_id == "answer")
        )
        return {header: email or "" for header, email in rows}


def _wait_for(here: Plant, mails: int) -> None:
    """Return when so many mails have arrived, or when waiting was given up: who got no answer is counted."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < deadline and len(here.sink.arrived()) < mails:
        time.sleep(0.2)
