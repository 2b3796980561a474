"""The metrics: which timeline entries and events add to which metric, and the shape of results. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from distmark.engagement.model import EventKind, Verdict
from distmark.enrollments.model import TimelineKind

JOURNEY = ""  # the step of what belongs to the journey as a whole
OUTCOME_PREFIX = "ended:"
EVENT_PREFIX = "event:"
LINK_PREFIX = "link:"


class Metric(StrEnum):
    """Every metric with a name of its own; outcomes, links and custom events add `ended:NAME`, `link:NAME` and `event:NAME`."""

    entered = "entered"
    ended = "ended"
    passed = "passed"
    waiting = "waiting"
    held = "held"
    branched = "branched"
    task = "task"
    skipped = "skipped"
    error = "error"
    sent = "sent"
    failed = "failed"
    suppressed = "suppressed"
    uncertain = "uncertain"
    opened = "opened"
    opens = "opens"
    opened_machine = "opened_machine"
    clicked = "clicked"
    clicks = "clicks"
    clicked_machine = "clicked_machine"
    replied = "replied"
    unsubscribed = "unsubscribed"
    bounced = "bounced"
    complained = "complained"
    converted = "converted"
    conversions = "conversions"


class Key(NamedTuple):
    """The key of one count. `campaign_id` 0 means none; `day` is UTC; `step_id` "" is the journey as a whole."""

    version_id: int
    step_id: str
    campaign_id: int
    partner_id: int
    day: date
    metric: str


@dataclass(frozen=True, slots=True)
class Tally:
    """A number of occurrences, and their value in the brand's currency."""

    count: int
    value: float = 0.0


class Place(NamedTuple):
    """The key of a count without its day and metric."""

    version_id: int
    step_id: str
    campaign_id: int
    partner_id: int

    def key(self, day: date, metric: str) -> Key:
        return Key(*self, day, metric)

    def journey(self) -> "Place":
        """Return the same place one level up: the journey as a whole."""
        return self._replace(step_id=JOURNEY)


AT_STEP: dict[TimelineKind, Metric] = {
    TimelineKind.passed: Metric.passed,
    TimelineKind.waiting: Metric.waiting,
    TimelineKind.held: Metric.held,
    TimelineKind.branched: Metric.branched,
    TimelineKind.task: Metric.task,
    TimelineKind.skipped: Metric.skipped,
    TimelineKind.error: Metric.error,
    TimelineKind.sent: Metric.sent,
    TimelineKind.failed: Metric.failed,
    TimelineKind.suppressed: Metric.suppressed,
    TimelineKind.uncertain: Metric.uncertain,
}
OF_JOURNEY: dict[TimelineKind, Metric] = {TimelineKind.entered: Metric.entered, TimelineKind.ended: Metric.ended}

# A person's is what no sign, or only one, speaks against; the pages and the branches of a journey take it the same way.
ONCE_BY_HUMANS: dict[EventKind, Metric] = {
    EventKind.opened: Metric.opened,
    EventKind.clicked: Metric.clicked,
    EventKind.replied: Metric.replied,
}
# What a provider reports or a person demands counts whoever seems to have sent it.
ONCE_BY_ANYBODY: dict[EventKind, Metric] = {
    EventKind.unsubscribed: Metric.unsubscribed,
    EventKind.bounced: Metric.bounced,
    EventKind.complained: Metric.complained,
    EventKind.converted: Metric.converted,
}
ALL_BY_HUMANS: dict[EventKind, Metric] = {EventKind.opened: Metric.opens, EventKind.clicked: Metric.clicks}
ALL_BY_MACHINES: dict[EventKind, Metric] = {EventKind.opened: Metric.opened_machine, EventKind.clicked: Metric.clicked_machine}


@dataclass(frozen=True, slots=True)
class RawEvent:
    """The part of an engagement event that the roll-up reads."""

    kind: EventKind
    verdict: Verdict
    name: str = ""
    link: str = ""
    first: bool = False
    value: float | None = None


def metrics_of_move(kind: TimelineKind, detail: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """Return (whether it belongs to the journey as a whole, metric) for each count that one move adds 1 to."""
    if kind in AT_STEP:
        return [(False, AT_STEP[kind])]
    if kind is TimelineKind.ended:
        return [(True, Metric.ended), (True, OUTCOME_PREFIX + str(detail.get("outcome") or "unknown"))]
    return [(True, OF_JOURNEY[kind])] if kind in OF_JOURNEY else []


def once_metric(kind: EventKind, verdict: Verdict) -> Metric | None:
    """Return the metric that counts this event at most once per message (per enrollment for what has no message)."""
    if kind in ONCE_BY_ANYBODY:
        return ONCE_BY_ANYBODY[kind]
    return ONCE_BY_HUMANS.get(kind) if verdict is not Verdict.machine else None


def metrics_of_event(event: RawEvent) -> list[tuple[str, Tally]]:
    """Return what one event adds every time it happens; what counts once is `once_metric`."""
    if event.kind is EventKind.converted:
        return [(Metric.conversions, Tally(1, event.value or 0.0))]
    if event.kind is EventKind.custom:
        return [(EVENT_PREFIX + event.name, Tally(1, event.value or 0.0))]
    if event.verdict is Verdict.machine:
        return [(ALL_BY_MACHINES[event.kind], Tally(1))] if event.kind in ALL_BY_MACHINES else []
    if event.kind not in ALL_BY_HUMANS:
        return []
    counts: list[tuple[str, Tally]] = [(ALL_BY_HUMANS[event.kind], Tally(1))]
    if event.kind is EventKind.clicked and event.first and event.link:
        counts.append((LINK_PREFIX + event.link, Tally(1)))
    return counts


@dataclass(frozen=True, slots=True)
class RolledUp:
    """The counts of one run of the roll-up, and the journeys whose results it changed (ids, ascending)."""

    events: int
    moves: int
    seconds: float
    journey_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepResults:
    """The counts of one step, in the order of the definition. Rates are 0 to 1, None when nothing was sent."""

    step_id: str
    kind: str
    counts: Mapping[str, int]
    message: str = ""

    def count(self, metric: str) -> int:
        return self.counts.get(metric, 0)

    def rate(self, metric: str) -> float | None:
        return rate(self.counts, metric, Metric.sent)

    @property
    def is_send(self) -> bool:
        return self.kind == "send" or any(self.count(metric) for metric in (Metric.sent, Metric.failed, Metric.suppressed))


@dataclass(frozen=True, slots=True)
class DayResults:
    """The counts of one UTC day over all steps."""

    day: date
    counts: Mapping[str, int]

    def count(self, metric: str) -> int:
        return self.counts.get(metric, 0)


@dataclass(frozen=True, slots=True)
class Results:
    """A journey's (or campaign's) results: steps in the definition's order, days oldest first without gaps, all in UTC."""

    title: str
    steps: tuple[StepResults, ...]
    totals: Mapping[str, int]
    days: tuple[DayResults, ...]
    versions: tuple[int, ...] = ()
    value: float = 0.0
    rolled_up_at: datetime | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    links: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)

    def count(self, metric: str) -> int:
        return self.totals.get(metric, 0)

    def rate(self, metric: str) -> float | None:
        return rate(self.totals, metric, Metric.sent)

    @property
    def inside(self) -> int:
        """The number of contacts that entered and have not ended, as of the last roll-up."""
        return self.count(Metric.entered) - self.count(Metric.ended)


def rate(counts: Mapping[str, int], metric: str, of: str) -> float | None:
    """Return `metric` per `of` as 0 to 1, or None when there is nothing to divide by."""
    return counts.get(metric, 0) / counts[of] if counts.get(of) else None
