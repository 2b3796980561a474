"""The decisions of a journey and the facts that they rest on: frozen values, no rules, plain enough to store or print."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from distmark.journeys.outcomes import Outcome
from distmark.journeys.times import SendHours

Attributes = Mapping[str, object]


class Why(StrEnum):
    """Why an enrollment sleeps."""

    time = "time"
    event = "event"
    held = "held"
    retry = "retry"
    test = "test"


class IfHeld(StrEnum):
    """The behaviour of a send that quiet hours, a cap or a throttle hold."""

    hold = "hold"
    skip = "skip"


class Priority(StrEnum):
    """The rank of a journey's messages when a cap has room for one; the first of these goes before the others."""

    high = "high"
    normal = "normal"
    low = "low"

    @property
    def place(self) -> int:
        """The place in that order, from 0."""
        return PLACES[self]


PLACES = {priority: number for number, priority in enumerate(Priority)}


@dataclass(frozen=True, slots=True)
class SentFact:
    """The facts of the message of one send step. Times are aware UTC; `clicked` maps link name to the first human click."""

    at: datetime
    channel: str = "email"
    status: str = "sent"
    opened_at: datetime | None = None
    machine_opened_at: datetime | None = None
    clicked: Mapping[str, datetime] = field(default_factory=dict)
    replied_at: datetime | None = None
    bounced_at: datetime | None = None
    unsubscribed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EventFact:
    """A custom event or a conversion of this contact since entry."""

    name: str
    at: datetime
    data: Attributes = field(default_factory=dict)
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a decision may look at. The caller gathers it; nothing here is fetched.

    `sent` is keyed by send step id, `events` are oldest first since entry, `written_at` are the times of messages of any journey lately,
    `random_key` is stable per enrollment, `answers` and `winners` are keyed by webhook step id and test step id. `best_hours` holds
    "contact", "segment" and "default", each a mapping of hour of the day or of the week (0-23 or 0-167, Monday 00:00 is 0) to a weight.
    `unread_dates` has the values that are to be dates and cannot be read as one, as they are written: "contact.renewal_date" -> "soon".
    """

    contact: Attributes = field(default_factory=dict)
    journey: Attributes = field(default_factory=dict)
    partner: Attributes = field(default_factory=dict)
    campaign: Attributes = field(default_factory=dict)
    brand: Attributes = field(default_factory=dict)
    sent: Mapping[str, SentFact] = field(default_factory=dict)
    events: Sequence[EventFact] = ()
    segments: frozenset[str] = frozenset()
    written_at: Sequence[datetime] = ()
    random_key: str = ""
    answers: Mapping[str, Attributes] = field(default_factory=dict)
    best_hours: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    winners: Mapping[str, str] = field(default_factory=dict)
    entered_at: datetime | None = None
    unread_dates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepVisit:
    """One contact at one step: when it arrived, what time it is now, and the how-many-th visit this is (from 1)."""

    step_id: str
    arrived_at: datetime
    now: datetime
    number: int
    zone: ZoneInfo
    facts: Facts
    hours: SendHours = field(default_factory=SendHours)


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send this step's message to the contact."""

    step_id: str
    channel: str
    message: str
    editable: tuple[str, ...] = ()
    if_held: IfHeld | None = None
    transactional: bool = False


@dataclass(frozen=True, slots=True)
class CreateTask:
    """Ask a person for a next action until `due` (aware UTC)."""

    step_id: str
    for_: str
    title: str
    due: datetime
    note: str = ""


@dataclass(frozen=True, slots=True)
class UpdateContact:
    """Set these attributes of the contact; None clears one."""

    step_id: str
    changes: Attributes


@dataclass(frozen=True, slots=True)
class CallWebhook:
    """Call an address; `answer` of the step reads what came back. `secret` names the signing key, never holds it."""

    step_id: str
    url: str
    method: str
    headers: Mapping[str, str]
    body: Attributes | None
    secret: str | None
    timeout_seconds: int
    if_fails: str


@dataclass(frozen=True, slots=True)
class ChangeAudience:
    """Add the contact to an ad audience or remove it."""

    step_id: str
    action: str
    audience: str


@dataclass(frozen=True, slots=True)
class EnterJourney:
    """Enter the contact into another journey with this data frozen at entry."""

    step_id: str
    key: str
    data: Attributes


Effect = SendMessage | CreateTask | UpdateContact | CallWebhook | ChangeAudience | EnterJourney


@dataclass(frozen=True, slots=True)
class Go:
    """Go on to `to`, or to the step after when None. `at` is when that was due, when a wait ended."""

    to: str | None = None
    detail: Attributes = field(default_factory=dict)
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait until `until` (aware UTC; None: only an event wakes it). `event` may wake it earlier; "*" is any news of the contact."""

    until: datetime | None
    why: Why
    rules: tuple[str, ...] = ()
    event: str | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """The caller performs `effect` and then moves past the step."""

    effect: Effect


@dataclass(frozen=True, slots=True)
class End:
    """The journey is over for this contact."""

    outcome: Outcome
    reason: str


Decision = Go | Sleep | Act | End
