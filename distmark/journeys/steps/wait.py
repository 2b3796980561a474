"""Wait: for a time, until a time of day or a date, for an event or a condition with a timeout, or until the contact's best hour."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

from distmark.journeys.expressions import Expression, ExpressionError, namespace
from distmark.journeys.field_types import DateOf
from distmark.journeys.model import Decision, End, EventFact, Go, SentFact, Sleep, StepVisit, Why
from distmark.journeys.outcomes import Outcome
from distmark.journeys.steps.base import Step, StepKind
from distmark.journeys.times import Duration, Offset, TimeOfDay, add, next_allowed, next_day, next_time, resolve, shift, usable_date, yearly
from distmark.journeys.waits import BEST_TIME, Wait
from distmark.journeys.wording import wait_words

HOURS_PER_DAY = 24
ANY_NEWS = "*"
SHOWN_CHARACTERS = 80  # of a value that is no date
MIDNIGHT = TimeOfDay.read("00:00")

Due = tuple[datetime, tuple[str, ...]]


class WaitStep(Step):
    """Wait, then go on."""

    kind: ClassVar[str] = "wait"

    wait: Wait

    @property
    def pauses(self) -> bool:
        # A fixed day, once past, never stops anybody again; nor does a condition that stays true.
        return self.wait.when is None and (self.wait.on is None or self.wait.every is not None)

    @property
    def least(self) -> timedelta:
        """The shortest time that a visit takes."""
        return self.wait.for_.least if self.wait.for_ is not None else timedelta()

    @property
    def time_inputs(self) -> frozenset[str]:
        wait, inputs = self.wait, set[str]()
        if wait.on or wait.until or wait.days or wait.holidays or _is_calendar(wait.for_, wait.timeout, wait.within):
            inputs.add("zone")
        if wait.on is not None and wait.on.day is None and wait.on.root == "contact":
            inputs.add(f"contact.{wait.on.attribute}")
        if wait.until == BEST_TIME:
            inputs.add("best_hours")
        return frozenset(inputs)

    def ways(self, after: str | None) -> tuple[str | None, ...]:
        return (after, self.wait.on_timeout) if self.wait.on_timeout else (after,)

    def targets(self) -> tuple[tuple[str, str], ...]:
        return (("wait.on_timeout", self.wait.on_timeout),) if self.wait.on_timeout else ()


def _is_calendar(*durations: Duration | None) -> bool:
    """Return whether any of these durations has days or months, which are counted on the contact's clock."""
    return any(duration.days or duration.months for duration in durations if duration is not None)


def decide(step: WaitStep, visit: StepVisit) -> Decision:
    """Return where to go when the wait is over, else until when to sleep. The same for the same visit however often it is asked."""
    wait = step.wait
    if wait.event is not None:
        return _decide_event(wait, wait.event, visit)
    if wait.when is not None:
        return _decide_condition(wait, wait.when, visit)
    if wait.on is not None and date_of(wait.on, visit) is None:
        return _decide_without_date(wait, wait.on, visit)
    due, rules = due_at(wait, visit)
    if visit.now >= due:
        return Go(detail={"rules": rules} if rules else {}, at=due)
    return Sleep(due, Why.time, rules)


def due_at(wait: Wait, visit: StepVisit) -> Due:
    """Return when a wait for time ends (aware UTC), and the rules that moved it. The date of an `on` must be known."""
    if wait.on is not None:
        return _date_due(wait, wait.on, visit)
    start = add(visit.arrived_at, wait.for_, visit.zone) if wait.for_ is not None else visit.arrived_at
    if isinstance(wait.until, TimeOfDay):
        # Who comes round to the same time of day again has already been let through once.
        strictly = wait.for_ is None and visit.number > 1
        return next_time(start, visit.zone, wait.until, wait.days, wait.holidays, strictly=strictly)
    if wait.until is not None and wait.within is not None:
        return _best_hour(wait.within, visit)
    return next_day(start, visit.zone, wait.days, wait.holidays)


def date_of(on: DateOf, visit: StepVisit) -> date | None:
    """Return the day that `on` means for this contact, or None when the contact has none."""
    if on.day is not None:
        return on.day
    attributes = visit.facts.contact if on.root == "contact" else visit.facts.journey
    return usable_date(attributes.get(on.attribute), visit.zone)


def _decide_without_date(wait: Wait, on: DateOf, visit: StepVisit) -> Decision:
    written = _written_date(on, visit)
    if wait.if_missing == "go_on":
        return Go(detail={"rules": (f"unread_date:{on.attribute}" if written else "no_date",)})
    return End(Outcome.exit, f"{on.attribute} holds “{written}”, which is no date" if written else f"{on} is missing")


def _written_date(on: DateOf, visit: StepVisit) -> str:
    """Return the value that is to be a date and is none that can be waited for, as it is written; "" when there is no value."""
    attributes = visit.facts.contact if on.root == "contact" else visit.facts.journey
    value = attributes.get(on.attribute)
    return (visit.facts.unread_dates.get(str(on)) or ("" if value is None else str(value)))[:SHOWN_CHARACTERS]


def _date_due(wait: Wait, on: DateOf, visit: StepVisit) -> Due:
    day = date_of(on, visit)
    assert day is not None, "asked only for a contact with that date"
    if wait.every is None:
        due, rules = _at_date(day, wait, visit)
        return due, (*rules, "past") if due < visit.arrived_at else rules
    this_year = visit.arrived_at.astimezone(visit.zone).year
    for year in range(this_year - 2, this_year + 4):
        due, rules = _at_date(yearly(day, year), wait, visit)
        if due > visit.arrived_at or (due == visit.arrived_at and visit.number == 1):
            return due, rules
    raise AssertionError("an anniversary comes every year")


def _at_date(day: date, wait: Wait, visit: StepVisit) -> Due:
    offset = wait.offset or Offset()
    wall = shift(datetime.combine(day, (wait.at or MIDNIGHT).at), offset)
    return next_day(resolve(wall, visit.zone) + timedelta(minutes=offset.minutes), visit.zone, wait.days, wait.holidays)


def _is_new(wait: Wait, happened_at: datetime, visit: StepVisit) -> bool:
    # Who comes round again arrives at the moment of the event that let her through: that one is spent.
    if visit.number > 1:
        return happened_at > visit.arrived_at
    return wait.since == "entry" or happened_at >= visit.arrived_at


def _decide_event(wait: Wait, name: str, visit: StepVisit) -> Decision:
    due = add(visit.arrived_at, wait.timeout, visit.zone) if wait.timeout is not None else None
    happened_at = _engaged_at(wait, visit) if wait.of is not None else _happened_at(wait, name, visit)
    if happened_at is not None and _is_new(wait, happened_at, visit) and (due is None or happened_at <= due):
        return Go(detail={"event": name}, at=happened_at)
    return _until_timeout(wait, due, visit, name)


def _happened_at(wait: Wait, name: str, visit: StepVisit) -> datetime | None:
    for event in visit.facts.events:
        if event.name == name and _is_new(wait, event.at, visit) and _counts(wait.where, event, visit):
            return event.at
    return None


def _counts(where: Expression | None, event: EventFact, visit: StepVisit) -> bool:
    try:
        return where is None or where.holds(namespace(visit.facts, visit.now, visit.zone, event))
    except ExpressionError:
        return False  # what an event holds cannot be corrected, and nobody must stand still for it


def _engaged_at(wait: Wait, visit: StepVisit) -> datetime | None:
    fact = visit.facts.sent.get(wait.of or "")
    if fact is None:
        return None
    if wait.event == "replied":
        return fact.replied_at
    return _clicked_at(fact, wait.link) if wait.event == "clicked" else fact.opened_at or _clicked_at(fact, None)


def _clicked_at(fact: SentFact, link: str | None) -> datetime | None:
    times = [at for name, at in fact.clicked.items() if link is None or name == link]
    return min(times, default=None)


def _decide_condition(wait: Wait, when: Expression, visit: StepVisit) -> Decision:
    if when.holds(namespace(visit.facts, visit.now, visit.zone)):
        return Go(detail={"event": "when"})
    due = add(visit.arrived_at, wait.timeout, visit.zone) if wait.timeout is not None else None
    return _until_timeout(wait, due, visit, ANY_NEWS)


def _until_timeout(wait: Wait, due: datetime | None, visit: StepVisit, event: str) -> Decision:
    if due is not None and visit.now >= due:
        return Go(wait.on_timeout, {"timeout": str(wait.timeout)}, due)
    return Sleep(due, Why.event, (), event)


@dataclass(frozen=True, slots=True)
class _Hours:
    weights: Mapping[int, float]
    whose: str

    def weight(self, local: datetime) -> float:
        weekly = local.weekday() * HOURS_PER_DAY + local.hour
        return self.weights.get(weekly if self.is_weekly else local.hour, 0.0)

    @property
    def is_weekly(self) -> bool:
        return max(self.weights) >= HOURS_PER_DAY


def _hours_of(best_hours: Mapping[str, Any]) -> _Hours | None:
    return next((_Hours(best_hours[whose], whose) for whose in ("contact", "segment", "default") if best_hours.get(whose)), None)


def _best_hour(within: Duration, visit: StepVisit) -> Due:
    hours = _hours_of(visit.facts.best_hours)
    latest = add(visit.arrived_at, within, visit.zone)
    # Who comes round again within the hour has already been let through in it.
    at = first = visit.arrived_at if visit.number == 1 else min(_next_hour(visit.arrived_at, visit), latest)
    if hours is None:
        return (first if visit.number == 1 else latest), ()
    best, best_weight = first, -1.0
    while at <= latest:
        weight = hours.weight(at.astimezone(visit.zone))
        # Quiet hours come before the optimiser: an hour in which nothing may be sent is no candidate.
        if weight > best_weight and next_allowed(at, visit.zone, visit.hours.quiet_hours, visit.hours.days, visit.hours.holidays)[0] == at:
            best, best_weight = at, weight
        at = _next_hour(at, visit)
    return best, (f"best_time:{hours.whose}",)


def _next_hour(at: datetime, visit: StepVisit) -> datetime:
    local = at.astimezone(visit.zone)
    into_hour = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return at.astimezone(UTC) - into_hour + timedelta(hours=1)


def describe(step: WaitStep, lang: str) -> tuple[str, str]:
    """Return the wait in words."""
    return wait_words(step.wait, lang)


KIND = StepKind("wait", WaitStep, decide, describe, {"ja": "待つ", "en": "Wait"}, "clock", "#7b8794")
