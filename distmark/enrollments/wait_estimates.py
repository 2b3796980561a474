"""Estimates of when waiting enrollments go on, for very many at once: most of them entered together and wait alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, select
from sqlmodel import Session, col

from distmark.contacts.table import Contact
from distmark.enrollments.facts import build_facts
from distmark.enrollments.table import Enrollment
from distmark.errors import DistmarkError
from distmark.journeys.model import Decision, Sleep, Why
from distmark.journeys.program import Program
from distmark.journeys.service import program_of
from distmark.journeys.steps.wait import WaitStep
from distmark.journeys.times import zone_for
from distmark.journeys.walk import Position, decide
from distmark.partners.table import Brand, Partner
from distmark.sql import by_id

BATCH = 2000


@dataclass(frozen=True, slots=True)
class EnrollmentAtStep:
    """An enrollment at its step, with the zone of its contact. `step_id` is None before it begins."""

    id: int
    version_id: int
    step_id: str | None
    arrived_at: datetime | None
    visits: dict[str, int]
    due_at: datetime | None
    woken_at: datetime | None
    paused_at: datetime | None
    entered_at: datetime
    contact_id: int
    data: dict[str, Any]
    is_held: bool
    is_claimed: bool
    zone: ZoneInfo

    @property
    def number(self) -> int:
        """The number of this visit to the step, from 1."""
        return self.visits.get(self.step_id or "", 1)


def lock_enrollments(session: Session, where: Sequence[ColumnElement[bool]], *, wait: bool = False) -> Iterator[list[EnrollmentAtStep]]:
    """Iterate over the enrollments that meet `where`, locked, by id, in batches.

    Rows that are locked elsewhere are passed over, unless this is to `wait` for them.
    """
    last = 0
    while True:
        rows = session.execute(_page(where, last).with_for_update(of=Enrollment, key_share=wait, skip_locked=not wait)).all()
        if not rows:
            return
        yield [EnrollmentAtStep(*(*row[:-3], zone_for(*row[-3:]))) for row in rows]
        last = rows[-1][0]


def _page(where: Sequence[ColumnElement[bool]], last: int) -> Any:
    row = Enrollment
    return (
        select(
            col(row.id),
            col(row.version_id),
            col(row.step_id),
            col(row.arrived_at),
            col(row.visits),
            col(row.due_at),
            col(row.woken_at),
            col(row.paused_at),
            col(row.entered_at),
            col(row.contact_id),
            col(row.data),
            col(row.why) == Why.held,
            col(row.claimed_by).is_not(None),
            col(Contact.zone),
            col(Partner.zone),
            col(Brand.zone),
        )
        .join(Contact, col(Contact.id) == col(row.contact_id))
        .join(Partner, col(Partner.id) == col(row.partner_id))
        .join(Brand, col(Brand.id) == col(row.brand_id))
        .where(*where, col(row.id) > last)
        .order_by(col(row.id))
        .limit(BATCH)
    )


@dataclass(frozen=True, slots=True)
class WaitEstimator:
    """Estimates waits without the events since: a wake, which has all facts, decides. Equal waits are computed once."""

    session: Session
    now: datetime
    known: dict[tuple[object, ...], Decision] = field(default_factory=dict)
    programs: dict[int, Program] = field(default_factory=dict)

    def waits_of(self, arrivals: Sequence[tuple[EnrollmentAtStep, datetime]]) -> dict[int, Sleep]:
        """Return by enrollment id the wait of each, had it arrived at its step at that time; absent when it would not wait there."""
        contacts = self._contacts([each for each, _at in arrivals])
        decisions = {each.id: self._decide(each, at, contacts.get(each.contact_id)) for each, at in arrivals}
        return {enrollment_id: decision for enrollment_id, decision in decisions.items() if isinstance(decision, Sleep)}

    def time_inputs(self, each: EnrollmentAtStep) -> frozenset[str]:
        """Return the inputs of the time at which this enrollment goes on; none before its first step."""
        step = self._program(each).steps.get(each.step_id or "")
        return step.time_inputs if step is not None else frozenset()

    def _decide(self, each: EnrollmentAtStep, at: datetime, contact: Contact | None) -> Decision | None:
        step = self._step(each)
        if step is None:
            return None
        key = (each.version_id, each.step_id, at, each.number, each.zone.key)
        if contact is not None or key not in self.known:
            facts = build_facts(self._program(each).definition, contact, each.data, entered_at=each.entered_at)
            try:
                self.known[key] = decide(self._program(each), Position(each.step_id, at, each.visits), facts, self.now, each.zone)
            except DistmarkError:
                return None  # the error shows when the enrollment wakes
        return self.known[key]

    def _contacts(self, enrollments: Sequence[EnrollmentAtStep]) -> dict[int, Contact]:
        """Return the contacts, by id, of the enrollments whose wait depends on the contact."""
        wanted = {each.contact_id for each in enrollments if (step := self._step(each)) and _is_personal(step)}
        return by_id(self.session, Contact, wanted)

    def _step(self, each: EnrollmentAtStep) -> WaitStep | None:
        step = self._program(each).steps.get(each.step_id or "")
        return step if isinstance(step, WaitStep) else None

    def _program(self, each: EnrollmentAtStep) -> Program:
        if each.version_id not in self.programs:
            self.programs[each.version_id] = program_of(self.session, each.version_id)
        return self.programs[each.version_id]


def _is_personal(step: WaitStep) -> bool:
    return step.wait.on is not None or step.wait.when is not None or step.wait.where is not None


def lengthens_wait(program: Program, step_id: str | None) -> bool:
    """Return whether a later arrival at the step makes its wait end later: not without a wait, nor with a wait until a date."""
    step = program.steps.get(step_id or "")
    return isinstance(step, WaitStep) and step.wait.on is None
