"""Competing sends under a person's caps: enrollments that wait at a send, or come to one before they wait again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Select, exists, or_, select
from sqlmodel import Session, col

from distmark.delivery.send_policy import PLACE_KEPT, WORDS_CHANGED, CompetingSend, ranked_before
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.journeys.definition import Kind
from distmark.journeys.field_types import Cap
from distmark.journeys.model import Priority, Why
from distmark.journeys.program import Program
from distmark.journeys.service import program_of
from distmark.journeys.steps.send import SendStep
from distmark.journeys.steps.wait import WaitStep
from distmark.journeys.times import next_allowed
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.sql import among, id_of

LONGEST_DAY = timedelta(hours=25)
ENDLESS = {"not_approved", WORDS_CHANGED}  # what such messages wait for may never come, so no place is kept for them


@dataclass(frozen=True, slots=True)
class Waiter:
    """An enrollment that may want to write to its person: where it stands since when, and when it is due."""

    enrollment_id: int
    program: Program
    step_id: str | None
    arrived_at: datetime | None
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Queue:
    """The people of a batch, each with the enrollments that may want a place, by id; those that the batch has come to leave it."""

    waiters: Mapping[str, dict[int, Waiter]] = field(default_factory=dict)

    @property
    def caps(self) -> set[Cap]:
        """All caps that they are under: what may hinder them goes further back than the caps of the batch."""
        return {cap for ones in self.waiters.values() for each in ones.values() for cap in each.program.definition.send_policy.caps.limits}

    def before(self, mine: CompetingSend, person_key: str, channel: str, zone: ZoneInfo) -> list[CompetingSend]:
        """Return the messages on the channel that go before `mine`, in order; `mine` leaves the queue."""
        waiters = self.waiters.get(person_key)
        if not waiters:
            return []
        waiters.pop(mine.enrollment_id, None)
        others = [_competing_send(waiter, channel, zone, mine.at) for waiter in waiters.values()]
        return ranked_before(mine, [other for other in others if other is not None], zone)


def current_send(enrollment: Enrollment, step_id: str, visit: int, priority: Priority, now: datetime) -> CompetingSend:
    """Return the message of an enrollment that is at this send now, as one among its rivals."""
    stayed = enrollment.step_id == step_id and int(enrollment.visits.get(step_id, 1)) == visit
    return CompetingSend(id_of(enrollment), "", priority, now, (enrollment.arrived_at if stayed else None) or now)


def queue_of(session: Session, enrollments: Sequence[Enrollment], now: datetime) -> Queue:
    """Return the messages that may compete under the caps of these people. All enrollments given are of one brand, version and run.

    What is being handed over wants none: the ledger has it, and it counts there.
    """
    if not enrollments:
        return Queue()
    rows = session.execute(_of_people(session, enrollments, now)).all()
    programs = {version_id: program_of(session, version_id) for version_id in {row.version_id for row in rows}}
    waiters: dict[str, dict[int, Waiter]] = {}
    for row_id, person_key, version_id, step_id, arrived_at, due_at, rules in rows:
        if ENDLESS.isdisjoint(rules):
            waiters.setdefault(person_key, {})[row_id] = Waiter(row_id, programs[version_id], step_id, arrived_at, due_at)
    return Queue(waiters)


def _of_people(session: Session, enrollments: Sequence[Enrollment], now: datetime) -> Select[Any]:
    one, people = enrollments[0], {row.person_key for row in enrollments}
    held = col(Enrollment.why) == Why.held
    columns = ("id", "person_key", "version_id", "step_id", "arrived_at", "due_at", "rules")
    being_sent = exists().where(col(Message.enrollment_id) == col(Enrollment.id), col(Message.status) == MessageStatus.sending)
    return select(*(getattr(Enrollment, name) for name in columns)).where(
        among(session, col(Enrollment.person_key), sorted(people)),
        col(Enrollment.brand_id) == one.brand_id,
        col(Enrollment.status) == EnrollmentStatus.waiting,
        col(Enrollment.due_at) > now - PLACE_KEPT,
        or_(held, col(Enrollment.due_at) <= now + LONGEST_DAY),
        # Of the batch's own run and version, thus of its priority, only those held before have waited longer.
        or_(held, col(Enrollment.run_key) != one.run_key, col(Enrollment.version_id) != one.version_id),
        ~being_sent,
    )


def _competing_send(waiter: Waiter, channel: str, zone: ZoneInfo, now: datetime) -> CompetingSend | None:
    definition = waiter.program.definition
    policy = definition.send_policy
    if definition.kind is not Kind.marketing or not policy.caps.limits or not _comes_to_send(waiter.program, waiter.step_id, channel):
        return None
    at, _closed = next_allowed(max(waiter.due_at, now), zone, policy.quiet_hours, policy.days, policy.holidays)
    since = waiter.arrived_at if _is_send(waiter.program, waiter.step_id, channel) else None
    return CompetingSend(waiter.enrollment_id, definition.key, policy.priority, at, since, policy.caps.limits)


def _comes_to_send(program: Program, step_id: str | None, channel: str) -> bool:
    """Return whether the next wake may send on the channel: the way of a branch is not known yet, so any way counts."""
    start = step_id or program.first
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        here = ahead.pop()
        if here in seen or here not in program.steps:
            continue
        seen.add(here)
        if _is_send(program, here, channel):
            return True
        if here == start or not isinstance(program.steps[here], WaitStep):
            ahead += [way for way in program.ways(here) if way]
    return False


def _is_send(program: Program, step_id: str | None, channel: str) -> bool:
    step = program.steps.get(step_id or "")
    return isinstance(step, SendStep) and step.send == channel and step.purpose != "transactional"
