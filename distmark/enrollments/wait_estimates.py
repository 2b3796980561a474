"""When those who wait at a step go on, counted for very many at once: most came together and wait alike."""

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
from distmark.journeys.model import Decision, Sleep
from distmark.journeys.program import Program
from distmark.journeys.service import program_of
from distmark.journeys.steps.wait import WaitStep
from distmark.journeys.times import zone_for
from distmark.journeys.walk import Position, decide
from distmark.partners.table import Brand, Partner
from distmark.sql import among, id_of

BATCH = 2000


@dataclass(frozen=True, slots=True)
class Standing:
    """One enrollment that stands at a step. `step_id` None: not begun."""

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
    zone: ZoneInfo

    @property
    def number(self) -> int:
        """The how-many-th visit to its step this is, from 1."""
        return self.visits.get(self.step_id or "", 1)


def standing(session: Session, where: Sequence[ColumnElement[bool]]) -> Iterator[list[Standing]]:
    """Iterate over the enrollments that meet `where`, locked, by id, in batches. Rows that somebody else has locked are passed over."""
    last = 0
    while True:
        rows = session.execute(_page(where, last)).all()
        if not rows:
            return
        yield [Standing(*(*row[:-3], zone_for(*row[-3:]))) for row in rows]
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
        .with_for_update(of=row, skip_locked=True)
    )


@dataclass(frozen=True, slots=True)
class WaitEstimator:
    """Says how somebody's wait stands, without a look at what they did meanwhile: a wake with all facts has the last word."""

    session: Session
    now: datetime
    known: dict[tuple[object, ...], Decision] = field(default_factory=dict)
    programs: dict[int, Program] = field(default_factory=dict)

    def waiting(self, people: Sequence[tuple[Standing, datetime]]) -> dict[int, Sleep]:
        """Return the wait of each, had they arrived at their step at that time; who is not at a wait or waits no longer is absent."""
        contacts = self._contacts([each for each, _at in people])
        decisions = {each.id: self._decide(each, at, contacts.get(each.contact_id)) for each, at in people}
        return {enrollment_id: decision for enrollment_id, decision in decisions.items() if isinstance(decision, Sleep)}

    def _decide(self, each: Standing, at: datetime, contact: Contact | None) -> Decision | None:
        step = self._step(each)
        if step is None:
            return None
        key = (each.version_id, each.step_id, at, each.number, each.zone.key)
        if contact is not None or key not in self.known:
            facts = build_facts(self._program(each).definition, contact, each.data, entered_at=each.entered_at)
            try:
                self.known[key] = decide(self._program(each), Position(each.step_id, at, each.visits), facts, self.now, each.zone)
            except DistmarkError:
                return None  # what is wrong with it shows when it wakes
        return self.known[key]

    def _contacts(self, people: Sequence[Standing]) -> dict[int, Contact]:
        """Return the contacts of those whose wait depends on who they are."""
        wanted = {each.contact_id for each in people if (step := self._step(each)) and _is_personal(step)}
        if not wanted:
            return {}
        rows = self.session.execute(select(Contact).where(among(self.session, col(Contact.id), wanted))).scalars()
        return {id_of(row): row for row in rows}

    def _step(self, each: Standing) -> WaitStep | None:
        step = self._program(each).steps.get(each.step_id or "")
        return step if isinstance(step, WaitStep) else None

    def _program(self, each: Standing) -> Program:
        if each.version_id not in self.programs:
            self.programs[each.version_id] = program_of(self.session, each.version_id)
        return self.programs[each.version_id]


def _is_personal(step: WaitStep) -> bool:
    return step.wait.on is not None or step.wait.when is not None or step.wait.where is not None


def is_lengthened(program: Program, step_id: str | None) -> bool:
    """Say whether arriving later at the step means leaving it later: not so at a step that is no wait, or a wait until a date."""
    step = program.steps.get(step_id or "")
    return isinstance(step, WaitStep) and step.wait.on is None
