"""The web process is killed -9 while events and clicks come in; whatever it answered for is there, and once."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlmodel import col, select

from distmark.clock import FixedClock, wall_now
from distmark.db import Database
from distmark.engagement.table import Event
from distmark.messages.table import Message
from distmark.settings import Mode, Settings
from distmark.web.api.viewer import api_token
from distmark.web.visit import Site, secret_of
from tests.chaos.parts import Process, environment, process, wait_through_outages
from tests.driver import PHONE, Stage
from tests.prefect_server import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.both_databases, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]

PEOPLE, KILLS = 12, 4
PATIENCE_SECONDS = 60.0
STEPS = (
    "  - {id: first, send: email, message: one}\n"
    "  - {id: booking, wait: {event: booked, timeout: 7 days}}\n"
    "  - {id: second, send: email, message: two}\n"
)


@dataclass
class Callers:
    """Some who call the web process again and again, and repeat each call until it is answered."""

    address: str
    over: threading.Event = field(default_factory=threading.Event)
    answers: dict[str, set[int]] = field(default_factory=dict)  # by the key of an event, the ids that were answered
    events: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the key of an event, the event as it was told
    clicks: dict[str, int] = field(default_factory=dict)  # by what tells the click apart, how often it was tried
    answered: int = 0
    broken: int = 0  # calls that were cut off
    failures: list[BaseException] = field(default_factory=list)

    def post(self, client: httpx2.Client, events: list[dict[str, Any]]) -> None:
        """The events are told, each with its key, until they are answered for."""
        answer, _tries = self._insist(lambda: client.post("/api/v1/events", json={"events": events}))
        results = answer.json()["results"]
        assert [each["verdict"] for each in results if each["verdict"] not in ("recorded", "repeated")] == []
        for event, result in zip(events, results, strict=True):
            self.answers.setdefault(event["key"], set()).add(result["event_id"])
            self.events[event["key"]] = event

    def click(self, client: httpx2.Client, token: str, link: str, agent: str) -> None:
        """The link is followed until it leads somewhere."""
        answer, tries = self._insist(lambda: client.get(f"/c/{token}/{link}", headers={"user-agent": agent}))
        assert answer.status_code == 302
        self.clicks[agent] = tries

    def wait_for_answers(self, many: int) -> None:
        """Return when so many calls more were answered, or one failed for good."""
        enough = self.answered + many
        wait_until(lambda: self.answered >= enough or self.failures, PATIENCE_SECONDS, f"{many} answers", pause=0.002)

    def _insist(self, call: Callable[[], httpx2.Response]) -> tuple[httpx2.Response, int]:
        deadline, tries = time.monotonic() + PATIENCE_SECONDS, 0
        while True:
            tries += 1
            try:
                answer = call()
            except httpx2.HTTPError:
                self.broken += 1
            else:
                if answer.status_code < 400:
                    self.answered += 1
                    return answer, tries
                assert answer.status_code >= 500, f"The web process answered {answer.status_code}: {answer.text[:300]}"
            assert time.monotonic() < deadline, f"A call was not answered within {PATIENCE_SECONDS:.0f} seconds."
            time.sleep(0.05)

    def run(self, call: Callable[[httpx2.Client, int], None], headers: dict[str, str]) -> threading.Thread:
        """Call with 0, 1, 2 ... in a thread of its own until it is over."""

        def work() -> None:
            number = 0
            try:
                with httpx2.Client(base_url=self.address, headers=headers, timeout=10, trust_env=False) as client:
                    while not self.over.is_set():
                        call(client, number)
                        number += 1
            except BaseException as error:
                self.failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        return thread


def wait_for_web(address: str, web: Process) -> None:
    try:
        wait_through_outages(
            lambda: httpx2.get(f"{address}/healthz", timeout=2, trust_env=False).status_code == 200, 60, "The answer of the web process"
        )
    except AssertionError as late:
        raise AssertionError(f"{late} It says: {web.said()}") from None


async def test_killing_the_web_process_loses_and_doubles_no_event_and_no_click(db: Database, tmp_path: Path) -> None:
    """D13: a repeat with the same key is the same event, however the first answer was lost.

    Three callers tell single events, many at once, and follow links without a pause; the process is killed after some dozens of their
    calls, four times. Each event that was answered for is there once, under the id that was answered; each click that led somewhere is
    there, and no more often than it was tried; and contacts who booked go on to their next message, once.
    """
    stage = Stage(db, FixedClock(wall_now()))
    campaign, people = stage.journey(STEPS, "events: [booked]"), [stage.contact() for _person in range(PEOPLE)]
    stage.enrol(campaign, *people)
    await stage.run_for(timedelta(minutes=1))
    messages = stage.messages()
    link = next(iter(messages[0].links))
    port = free_port()
    env = environment(tmp_path, db, "http://127.0.0.1:9/api", DISTMARK_PORT=str(port), DISTMARK_CLOCK_SPEED="1.0")
    settings = Settings(_env_file=None, mode=Mode.test, data_dir=tmp_path)
    token = api_token(Site(settings, db, stage.clock, secret_of(settings), {}), stage.viewer.user_id)
    callers, chance = Callers(f"http://127.0.0.1:{port}"), random.Random(20261124)

    def book(client: httpx2.Client, number: int) -> None:
        contact_id = people[number % PEOPLE].id
        callers.post(client, [{"name": "booked", "contact_id": contact_id, "key": f"booked-{number}"}])

    def view(client: httpx2.Client, number: int) -> None:
        told = [{"name": "viewed", "contact_id": person.id, "key": f"viewed-{number}-{person.id}"} for person in people]
        callers.post(client, told)

    def click(client: httpx2.Client, number: int) -> None:
        callers.click(client, messages[number % PEOPLE].token, link, f"{PHONE} {number}")

    with process("-m", "distmark.web.serve", env=env, log=tmp_path / "web.log") as web:
        wait_for_web(callers.address, web)
        threads = [callers.run(call, {"authorization": f"Bearer {token}"}) for call in (book, view, click)]
        try:
            for _kill in range(KILLS):
                callers.wait_for_answers(chance.randint(20, 60))
                web.kill()
                web.start()
                wait_for_web(callers.address, web)
            callers.wait_for_answers(20)
        finally:
            callers.over.set()
            for thread in threads:
                thread.join(PATIENCE_SECONDS + 20)
        assert callers.failures == []
        with httpx2.Client(base_url=callers.address, headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=30) as client:
            _tell_all_again(callers, client)
        web.stop()

    with db.reading() as session:
        events = list(session.exec(select(Event).where(col(Event.name).in_(["booked", "viewed"]))))
        clicks = list(session.exec(select(Event.user_agent).where(Event.kind == "clicked")))
    assert callers.broken >= KILLS  # calls were under way each time
    assert {event.natural_key.rpartition(":")[2] for event in events} == set(callers.answers)
    assert len(events) == len(callers.answers) > 0
    assert all(len(ids) == 1 for ids in callers.answers.values())  # a repeat is answered with the same event
    assert set(clicks) == set(callers.clicks)
    assert all(clicks.count(agent) <= tries for agent, tries in callers.clicks.items())
    await _booked_people_go_on_once(stage, {event.contact_id for event in events if event.name == "booked"})


def _tell_all_again(callers: Callers, client: httpx2.Client) -> None:
    """Tell every event that was answered for once more: each is known, and the same as before."""
    keys = sorted(callers.answers)
    for start in range(0, len(keys), 500):
        events = [callers.events[key] for key in keys[start : start + 500]]
        answer = client.post("/api/v1/events", json={"events": events}).raise_for_status().json()
        assert answer["recorded"] == 0
        for key, result in zip(keys[start : start + 500], answer["results"], strict=True):
            callers.answers[key].add(result["event_id"])


async def _booked_people_go_on_once(stage: Stage, booked: set[int]) -> None:
    stage.clock.move_to(max(wall_now(), stage.clock.now()))
    await stage.run_for(timedelta(minutes=1))
    with stage.db.reading() as session:
        second = list(session.exec(select(Message.contact_id).where(Message.step_id == "second")))
    assert sorted(second) == sorted(booked)
