"""Acts of people, events of contacts and crashes in any order: no enrollment is lost, and no message is sent twice."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlmodel import col, select, update

import distmark.engine.wake
from distmark.clock import FixedClock
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.engagement.service import click, record_event
from distmark.engine.facts import gather_for
from distmark.engine.version_moves import move, undo_move
from distmark.enrollments.control import drain, pause, resume, stop
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.suspensions import Scope
from distmark.enrollments.table import Enrollment
from distmark.entries.model import EnrolVerdict
from distmark.errors import Refused
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.sql import id_of
from distmark.tables import create_all
from tests.depth import examples
from tests.driver import PHONE, Stage
from tests.factories import NOW
from tests.versions import key_of, next_version

HOUR = timedelta(hours=1)
EVENTS = "events: [booked]"
STEPS = """
  - {{id: {first}, send: email, message: one}}
  - {{id: rest, wait: {{for: {days} days}}}}
  - {{id: booking, wait: {{event: booked, timeout: 2 days}}}}
  - {{id: second, send: email, message: two}}
  - {{id: pause, wait: {{for: 36 hours}}}}
  - {{id: third, send: email, message: three}}
"""
FIRST = ("first", "hello")
WORKED = {MessageStatus.sent, MessageStatus.uncertain}
scopes = strategies.sampled_from(["journey", "campaign", "partner", "contact", "enrollment"])
picks = strategies.integers(min_value=0, max_value=10)


class Killed(BaseException):
    """The death of the process."""


class Acts(RuleBasedStateMachine):
    """One campaign of one partner; every rule is an act of a person, a contact or a worker."""

    @initialize()
    def open(self) -> None:
        self.db = Database("sqlite://")
        create_all(self.db)
        self.stage = Stage(self.db, FixedClock(NOW))
        self.campaign = self.stage.journey(STEPS.format(first=FIRST[0], days=3), EVENTS, contacts_per_run=2)
        self.newest = 1
        self.moves: list[int] = []
        self.people: list[Contact] = []
        self.ended: dict[int, str | None] = {}
        self.enrol()

    @rule()
    def enrol(self) -> None:
        person = self.stage.contact()
        (result,) = self.stage.enrol(self.campaign, person)
        if result.verdict is EnrolVerdict.enrolled:
            self.people.append(person)

    @rule(hours=strategies.integers(min_value=1, max_value=80))
    def time_passes(self, hours: int) -> None:
        paused = {row.contact_id for row in self._rows() if row.status is EnrollmentStatus.paused}
        before = self._messages_of(paused)

        asyncio.run(self.stage.run_for(hours * HOUR))

        assert self._messages_of(paused) == before, "a paused contact was written to"

    @rule(pick=picks)
    def contact_books(self, pick: int) -> None:
        with self.db.writing() as session:
            record_event(session, id_of(self.stage.brand), "booked", self.stage.clock.now(), contact_id=self._person(pick).id)

    @rule(pick=picks)
    def contact_clicks(self, pick: int) -> None:
        for message in self.stage.messages(self._person(pick))[:1]:
            with self.db.writing() as session:
                click(session, message.token, "link-1", PHONE, self.stage.clock.now())

    @rule(level=scopes, pick=picks)
    def people_pause(self, level: str, pick: int) -> None:
        with self.db.writing() as session:
            pause(session, self.stage.marketer, self._scope(level, pick), self.stage.clock.now())

    @rule(level=scopes, pick=picks, extend=strategies.booleans(), hours=strategies.sampled_from([0, 1, 30]))
    def people_resume(self, level: str, pick: int, extend: bool, hours: int) -> None:
        spread = hours * HOUR or None
        with self.db.writing() as session:
            resume(session, self.stage.marketer, self._scope(level, pick), self.stage.clock.now(), extend=extend, spread=spread)

    @rule(level=strategies.sampled_from(["journey", "campaign", "partner"]))
    def people_drain(self, level: str) -> None:
        with self.db.writing() as session:
            drain(session, self.stage.marketer, self._scope(level, 0), self.stage.clock.now())

    @rule(pick=picks)
    def people_stop(self, pick: int) -> None:
        with self.db.writing() as session:
            stop(session, self.stage.marketer, self._scope("enrollment", pick), "enough", self.stage.clock.now())

    @rule(days=strategies.integers(min_value=1, max_value=6))
    def people_move(self, days: int) -> None:
        self.newest = next_version(self.stage, self.campaign, STEPS.format(first=FIRST[self.newest % 2], days=days), EVENTS)
        for number in {self._number(row) for row in self._rows()} - {self.newest}:
            mapping = {} if (self.newest - number) % 2 == 0 else {FIRST[(number - 1) % 2]: FIRST[(self.newest - 1) % 2]}
            try:
                with self.db.writing() as session:
                    act, _plan = move(
                        session,
                        self.stage.marketer,
                        key_of(self.stage, self.campaign),
                        number,
                        self.newest,
                        mapping,
                        self.stage.clock.now(),
                        gather_for,
                    )
                    self.moves.append(id_of(act))
            except Refused as nobody:
                self.refused(nobody, "Nobody can be moved")

    def refused(self, error: Refused, why: str) -> None:
        assert why in str(error)

    @precondition(lambda self: self.moves)
    @rule()
    def people_undo(self) -> None:
        try:
            with self.db.writing() as session:
                undo_move(session, self.stage.marketer, self.moves.pop(), self.stage.clock.now())
        except Refused as late:
            self.refused(late, "has gone on since")

    @rule(hours=strategies.integers(min_value=1, max_value=80), accepted=strategies.booleans())
    def worker_is_killed(self, hours: int, accepted: bool) -> None:
        """Die at the first delivery, before or after it was accepted, and start again."""
        deliver, release = self.stage.mail.deliver, distmark.engine.wake._release

        async def die(message: Any) -> None:
            if accepted:
                await deliver(message)
            raise Killed

        self.stage.mail.deliver = die  # type: ignore[method-assign]
        distmark.engine.wake._release = lambda *_given: None  # a dead worker releases no claim
        try:
            asyncio.run(self.stage.run_for(hours * HOUR))
        except Killed:
            pass
        finally:
            self.stage.mail.deliver, distmark.engine.wake._release = deliver, release  # type: ignore[method-assign]
        with self.db.writing() as session:
            session.execute(update(Enrollment).values(claimed_by=None, claimed_at=None))

    @invariant()
    def nobody_got_the_same_twice(self) -> None:
        ids = Counter(message.message_id for message in self.stage.mail.accepted)
        assert set(ids.values()) <= {1}
        with self.db.reading() as session:
            written = Counter((row.enrollment_id, row.name) for row in session.exec(select(Message)))
        assert set(written.values()) <= {1}, "one message of the journey became two"

    @invariant()
    def everybody_inside_has_a_time_or_a_reason(self) -> None:
        for row in self._rows():
            assert row.status is not EnrollmentStatus.parked, row.error
            if row.status is EnrollmentStatus.ended:
                assert self.ended.setdefault(id_of(row), row.outcome) == row.outcome, "an end is the end"
            else:
                assert row.id not in self.ended
                assert row.due_at is not None or row.awaits is not None

    def teardown(self) -> None:
        if not hasattr(self, "db"):
            return
        for level in ("journey", "campaign", "partner"):
            self.people_resume(level, 0, False, 0)
        for pick in range(len(self.people)):
            self.people_resume("contact", pick, False, 0)
            self.people_resume("enrollment", pick, False, 0)
        asyncio.run(self.stage.run_for(40 * 24 * HOUR))
        self.nobody_got_the_same_twice()
        self.everybody_inside_has_a_time_or_a_reason()
        for row in self._rows():
            assert row.status is EnrollmentStatus.ended, "somebody was lost on the way"
            if row.outcome == "completed":
                assert self._worked(id_of(row)) == {"one", "two", "three"}
        self.db.close()

    def _worked(self, enrollment_id: int) -> set[str]:
        with self.db.reading() as session:
            rows = session.exec(select(Message).where(Message.enrollment_id == enrollment_id))
            return {row.name for row in rows if row.status in WORKED}

    def _rows(self) -> list[Enrollment]:
        with self.db.reading() as session:
            return list(session.exec(select(Enrollment).order_by(col(Enrollment.id))))

    def _messages_of(self, contact_ids: set[int]) -> int:
        return sum(message.contact_id in contact_ids for message in self.stage.messages())

    def _person(self, pick: int) -> Contact:
        return self.people[pick % len(self.people)]

    def _number(self, row: Enrollment) -> int:
        from distmark.journeys.table import JourneyVersion

        with self.db.reading() as session:
            return session.get_one(JourneyVersion, row.version_id).number

    def _scope(self, level: str, pick: int) -> Scope:
        person = self._person(pick)
        return {
            "journey": Scope(journey_id=self.campaign.journey_id),
            "campaign": Scope(campaign_id=self.campaign.id),
            "partner": Scope(partner_id=self.stage.partner.id),
            "contact": Scope(contact_id=person.id),
            "enrollment": Scope.listed([id_of(self.stage.enrollment(person))]),
        }[level]


TestActs = pytest.mark.timeout(600)(Acts.TestCase)
TestActs.settings = settings(
    max_examples=examples(12), stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
