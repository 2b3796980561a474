"""The next-step rule: from a position as far as it goes without an effect. Pure, and the same however often it is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from distmark.errors import DistmarkError
from distmark.journeys.expressions import namespace
from distmark.journeys.model import Decision, End, Facts, Go, StepVisit
from distmark.journeys.outcomes import Outcome
from distmark.journeys.program import Program
from distmark.journeys.steps import KINDS
from distmark.journeys.times import zone_for

MOST_VISITS_PER_WALK = 200
# A wake that is a little late counts as on time, or a mail of 09:00 that left at 09:00:07 would miss "3 days, until 09:00" by a day.
LATENESS_FORGIVEN = timedelta(minutes=10)


class EndlessLoop(DistmarkError):
    """A journey goes round without a wait; the text names the steps."""


class NoSuchStep(DistmarkError):
    """A position or a goto names a step that the version does not have."""


@dataclass(frozen=True, slots=True)
class Position:
    """A contact's position. `step_id` None is the start when no step was visited yet, and past the last step otherwise."""

    step_id: str | None
    arrived_at: datetime
    visits: Mapping[str, int] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The how-many-th visit to the step this is, from 1."""
        return self.visits.get(self.step_id or "", 1)


@dataclass(frozen=True, slots=True)
class Trace:
    """One step that a walk went through: where it led and why."""

    step_id: str
    kind: str
    arrived_at: datetime
    left_at: datetime
    number: int
    to: str | None
    detail: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Walked:
    """The position that a walk reached, and the decision (Act, Sleep or End) that stopped it there."""

    trace: tuple[Trace, ...]
    position: Position
    decision: Decision


def zone_of(facts: Facts) -> ZoneInfo:
    """Return the contact's time zone, else the partner's, else the brand's, else UTC; names that do not exist are passed over."""
    return zone_for(facts.contact.get("zone"), facts.partner.get("zone"), facts.brand.get("zone"))


def start(program: Program, at: datetime) -> Position:
    """Return the position of a contact that enters at `at`."""
    return Position(program.first, at, {program.first: 1})


def leaving(program: Program, facts: Facts, now: datetime) -> End | None:
    """Return the end of a contact that reached the goal or meets an exit rule, in that order, else None. Raises ExpressionError."""
    definition = program.definition
    if definition.goal is None and not definition.exit:
        return None
    names = namespace(facts, now, zone_of(facts))
    if definition.goal is not None and definition.goal.when.holds(names):
        return End(Outcome.goal, str(definition.goal.name or definition.goal.when))
    return next((End(Outcome.exit, str(rule.reason)) for rule in definition.exit if rule.when.holds(names)), None)


def walk(program: Program, position: Position, facts: Facts, now: datetime, zone: ZoneInfo | None = None) -> Walked:
    """Return how far the contact goes now: to an effect to perform, a sleep, or the end.

    `zone` is the contact's when left out. Raises EndlessLoop, NoSuchStep and ExpressionError.
    """
    if position.step_id is None and not position.visits:
        position = start(program, position.arrived_at)
    zone = zone or zone_of(facts)
    trace: list[Trace] = []
    while position.step_id is not None:
        decision = decide(program, position, facts, now, zone)
        if not isinstance(decision, Go):
            return Walked(tuple(trace), position, decision)
        position = _follow(program, position, decision, now, trace)
    return Walked(tuple(trace), position, End(Outcome.completed, ""))


def decide(program: Program, position: Position, facts: Facts, now: datetime, zone: ZoneInfo) -> Decision:
    """Return what the step at `position` decides. Raises NoSuchStep and ExpressionError."""
    step_id = position.step_id or program.first
    step = program.steps.get(step_id)
    if step is None:
        raise NoSuchStep(
            f'The journey "{program.definition.key}" has no step "{step_id}"; move the contact to a step that this version has.'
        )
    visit = StepVisit(step_id, position.arrived_at, now, position.number, zone, facts, program.hours)
    return KINDS[step.kind].decide(step, visit)


def _follow(program: Program, position: Position, go: Go, now: datetime, trace: list[Trace]) -> Position:
    step_id = position.step_id or program.first
    to = go.to if go.to is not None else program.after[step_id]
    left_at = _logical(go.at, position.arrived_at, now)
    trace.append(Trace(step_id, program.kind(step_id), position.arrived_at, left_at, position.number, to, go.detail))
    if len(trace) > MOST_VISITS_PER_WALK + len(program.steps):
        raise EndlessLoop(_loop_text(program, trace))
    return _arrive(position, to, left_at)


def _logical(due_at: datetime | None, arrived_at: datetime, now: datetime) -> datetime:
    at = max(due_at or arrived_at, arrived_at)
    return at if timedelta() <= now - at <= LATENESS_FORGIVEN else now


def _arrive(position: Position, to: str | None, at: datetime) -> Position:
    if to is None:
        return Position(None, at, position.visits)
    return Position(to, at, {**position.visits, to: position.visits.get(to, 0) + 1})


def _loop_text(program: Program, trace: list[Trace]) -> str:
    last = trace[-1].step_id
    back = next((number for number in range(len(trace) - 2, -1, -1) if trace[number].step_id == last), 0)
    names = " -> ".join(item.step_id for item in trace[back:])
    return f'The journey "{program.definition.key}" goes round without a wait: {names}; add a wait between.'


def passed(program: Program, position: Position, now: datetime) -> Position:
    """Return the position behind the current step, whose effect was performed at `now`."""
    if position.step_id is None:
        return position
    return _arrive(position, program.after[position.step_id], _logical(None, position.arrived_at, now))
