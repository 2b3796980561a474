"""The simulation in memory against real wakes in a database: the same contacts come to the same end."""

import asyncio
import heapq
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from sqlmodel import Session, col, func, select, update

from distmark.channels.base import OutgoingMessage, Receipt
from distmark.channels.registry import CHANNELS
from distmark.clock import FixedClock
from distmark.db import Database
from distmark.delivery.service import Sender
from distmark.engagement.service import NewEvent, Reading, record_events, record_readings, unsubscribe
from distmark.engine.wake import EngineContext
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.entries.service import enrol
from distmark.journeys.definition import parse
from distmark.journeys.source import Source, load_source
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.simulation.engine import AcceptedMessage, SimulatedAction
from distmark.simulation.simulate import Rates, SimulatedAudience, _SimulatedBrand, simulate
from distmark.tables import create_all
from tests.drive import drive
from tests.driver import PHONE, _templates

JOURNEYS = Path(__file__).resolve().parents[3] / "journey_defs"
START = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
CONTACTS, DAYS = 40, 90


class Inbox:
    """A channel that accepts every message, and records the actions of the simulated audience through the real services."""

    def __init__(self, audience: SimulatedAudience) -> None:
        self.audience = audience
        self.arrived: list[str] = []
        self.actions: list[tuple[datetime, int, SimulatedAction, Message]] = []
        self.order = count()

    async def deliver(self, message: OutgoingMessage) -> Receipt:
        self.arrived.append(message.message_id)
        return Receipt("250", "taken", "nowhere")

    async def close(self) -> None:
        """Do nothing: no connection is open."""

    def read(self, session: Session) -> None:
        arrived, self.arrived = self.arrived, []
        for header_id in arrived:
            row = session.exec(select(Message).where(Message.header_id == header_id)).one()
            accepted = AcceptedMessage(
                0, row.contact_id, row.step_id, row.visit, row.channel, row.marketing, row.sent_at or START, tuple(sorted(row.links))
            )
            for action in self.audience(accepted):
                heapq.heappush(self.actions, (action.at, next(self.order), action, row))

    def act(self, session: Session, brand_id: int) -> None:
        at, _order, action, message = heapq.heappop(self.actions)
        if action.what == "event":
            record_events(session, brand_id, [NewEvent(action.name, contact_id=message.contact_id, at=at)], at)
        elif action.what == "unsubscribed":
            unsubscribe(session, message.token, at)
        else:
            record_readings(session, [Reading(message.token, at, PHONE, action.name if action.what == "clicked" else None)])


async def through_the_database(context: EngineContext, clock: FixedClock, inbox: Inbox, brand_id: int, until: datetime) -> None:
    while True:
        with context.db.reading() as session:
            inbox.read(session)
            due = session.exec(select(func.min(Enrollment.due_at)).where(Enrollment.status == EnrollmentStatus.waiting)).one()
        following = min((at for at in (due, inbox.actions[0][0] if inbox.actions else None) if at), default=None)
        if following is None or following > until:
            return
        await drive(context, clock, max(following, clock.now()))
        if inbox.actions and inbox.actions[0][0] <= clock.now():
            with context.db.writing() as session:
                inbox.act(session, brand_id)
            await drive(context, clock, clock.now())


# Round and round: what a reader does late is done with the message it was, not with the one sent since.
ROUNDS = """
key: rounds
name: {ja: 巡回, en: Rounds}
brand: mirai-securities
languages: [ja, en]
contact_fields: {plan: text, likes_it: bool}
events: [booked]
send_policy: {caps: none}
steps:
  - {id: first, send: email, message: one}
  - {id: reading, wait: {event: opened, of: first, timeout: 12 hours}}
  - {id: learnt, update: {plan: "{{ 'gold' if opened('first') else 'silver' }}", likes_it: 'false'}}
  - id: liked
    branch:
      - {when: "contact.likes_it", steps: [{id: nobody, exit: likes it}]}
      - {when: "clicked('first') and contact.plan == 'gold'", steps: [{id: call, task: {for: partner, title: Call, due: 1 day}}]}
  - {id: text, send: sms, message: nudge}
  - {id: rest, wait: {for: 1 day, until: "09:00"}}
  - id: left
    branch:
      - {when: "unsubscribed('text')", steps: [{id: out, exit: no more texts}]}
  - {id: booking, wait: {event: booked, where: "event.name == 'booked'", timeout: 6 hours, on_timeout: more}}
  - {id: second, send: email, message: two}
  - id: more
    branch:
      - {when: "written(30) < 9", steps: [{id: again, goto: first}]}
"""
HOURLY = """
key: hourly
name: {ja: 毎時, en: Hourly}
brand: mirai-securities
languages: [ja, en]
send_policy: {caps: none}
steps:
  - {id: first, send: email, message: one}
  - {id: rest, wait: {for: 2 hours}}
  - id: read
    branch:
      - {when: "clicked('first')", steps: [{id: out, exit: clicked}]}
  - {id: again, goto: first, at_most: 8}
"""
WRITTEN_HERE = {"rounds": ROUNDS, "hourly": HOURLY}


def _source(key: str) -> Source:
    return Source(WRITTEN_HERE[key], _templates(), path=key) if key in WRITTEN_HERE else load_source(JOURNEYS / key)


@pytest.mark.parametrize("key", [*WRITTEN_HERE, *sorted(path.name for path in JOURNEYS.iterdir() if path.is_dir())])
def test_memory_and_database_come_to_the_same_end(key: str) -> None:
    source = _source(key)
    definition = parse(source)
    db, clock = Database("sqlite://"), FixedClock(START)
    create_all(db)
    stage = _SimulatedBrand.build(db, source, definition, START)
    people = stage.invite(CONTACTS, 7, START, None)
    inbox = Inbox(SimulatedAudience(Rates(unsubscribe=0.05), 7, definition.events))
    sender = Sender("https://simulated.example", "a@simulated.example", "simulated.example")
    context = EngineContext(db, clock, dict.fromkeys(CHANNELS, inbox), sender, "test", in_threads=False)
    with db.writing() as session:
        enrol(session, stage.viewer, stage.campaign_id, people, START)
        session.execute(update(Enrollment).values(run_key="simulation:7"))  # what chance is drawn from

    asyncio.run(through_the_database(context, clock, inbox, stage.brand_id, START + timedelta(days=DAYS)))
    found = simulate(source, contacts=CONTACTS, seed=7, rates=Rates(unsubscribe=0.05), start=START, days=DAYS)

    with db.reading() as session:
        rows = session.exec(select(Enrollment)).all()
        sent = session.exec(select(Message.step_id, Message.sent_at).where(col(Message.status) == MessageStatus.sent)).all()
    ended = Counter(f"{row.outcome}: {row.reason}" if row.reason else str(row.outcome) for row in rows if row.outcome)
    assert dict(ended) == dict(found.ended)
    assert Counter(step for step, _at in sent) == {step: each.messages for step, each in found.steps.items() if each.messages}
    assert Counter((at + timedelta(hours=9)).hour for _step, at in sent if at) == dict(found.hours)
    assert Counter(row.step_id for row in rows if not row.outcome) == {
        step: each.waiting for step, each in found.steps.items() if each.waiting
    }
    db.close()
