"""May this message go now? Pure: the facts and the moment come in, the decision goes out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from distmark.journeys.field_types import Cap
from distmark.journeys.model import IfHeld, Priority
from distmark.journeys.times import resolve

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# How long past its time a message's place under a cap is kept for it: whoever does not take it by then may never come.
PLACE_KEPT = timedelta(minutes=15)
PRIORITY, WAITS_LONGER = "priority", "waits_longer"
WORDS_CHANGED = "words_changed"  # words were changed after the partner sent, and the partner has not agreed to them yet

OpenFrom = Callable[[datetime], tuple[datetime, tuple[str, ...]]]
"""The first instant from the given one on at which the contact may be written to, and the rules that moved it (`times.next_allowed`)."""


class SendVerdict(StrEnum):
    """The decision about a message that is due."""

    send = "send"
    hold = "hold"  # try again at `until`; without one, when whatever holds it changes
    skip = "skip"  # leave this message out and go on
    suppress = "suppress"  # this person must not get it


@dataclass(frozen=True, slots=True)
class CompetingSend:
    """A message that competes for a place under a person's caps: its journey, its time without the others, and its caps.

    `since` is when it came to its send step; None while its enrollment is on the way there.
    """

    enrollment_id: int
    journey: str
    priority: Priority
    at: datetime
    since: datetime | None
    caps: Sequence[Cap] = ()

    @property
    def rank(self) -> tuple[int, bool, float, int]:
        """The order in which places are given: by priority, then by waiting time. One order for all: else two would wait for each other."""
        return self.priority.place, self.since is None, self.since.timestamp() if self.since else 0.0, self.enrollment_id


@dataclass(frozen=True, slots=True)
class SendFacts:
    """The facts of one contact and one message at the moment it is due."""

    now: datetime
    zone: ZoneInfo
    transactional: bool = False
    left: bool = False  # a goal or an exit rule holds
    suppressed: bool = False  # for this kind of message: an unsubscribe stops marketing, a complaint everything
    suppression: str = "suppressed"  # the reason of it
    consented: bool = True
    approved: bool = True  # the version
    words_agreed: bool = True  # the partner agreed to the words of now for this member
    written_at: Sequence[datetime] = ()  # the person's marketing messages on this channel lately, of any journey, those being sent too
    priority: Priority = Priority.normal
    rivals: Sequence[CompetingSend] = ()  # the person's other messages on this channel that go before this one, in order (`ranked_before`)
    turn_at: datetime | None = None  # when the throttle lets it through
    throttle: str = "throttle"  # the rule that said so


@dataclass(frozen=True, slots=True)
class SendDecision:
    """`rules` name what decided, in order, each with its detail after a colon (`cap_week:4`); empty when the message goes."""

    outcome: SendVerdict
    rules: tuple[str, ...] = ()
    until: datetime | None = None

    @property
    def reason(self) -> str:
        """The first of the rules."""
        return self.rules[0] if self.rules else ""


SEND = SendDecision(SendVerdict.send)


def always_open(at: datetime) -> tuple[datetime, tuple[str, ...]]:
    """Return `at`: for a policy without quiet hours or days."""
    return at, ()


def decide_send(facts: SendFacts, caps: Sequence[Cap], open_from: OpenFrom = always_open, if_held: IfHeld = IfHeld.hold) -> SendDecision:
    """Return what to do now, by the first rule that applies: exit and goal, suppression and consent, approval, quiet hours, cap, throttle.

    Transactional messages pass quiet hours and caps, never a suppression of their kind. `until` of a held message already satisfies
    quiet hours and caps together, so that nobody is woken in the night to be told to wait for the morning.
    """
    return _forbidden(facts) or _held(facts, caps, open_from, if_held) or SEND


def _forbidden(facts: SendFacts) -> SendDecision | None:
    if facts.left:
        return SendDecision(SendVerdict.skip, ("left",))
    if facts.suppressed:
        return SendDecision(SendVerdict.suppress, (facts.suppression,))
    if not (facts.consented or facts.transactional):
        return SendDecision(SendVerdict.suppress, ("no_consent",))
    if not facts.approved:
        return SendDecision(SendVerdict.hold, ("not_approved",))
    if not facts.words_agreed:
        return SendDecision(SendVerdict.hold, (WORDS_CHANGED,))
    return None


def _held(facts: SendFacts, caps: Sequence[Cap], open_from: OpenFrom, if_held: IfHeld) -> SendDecision | None:
    if facts.transactional:
        caps, open_from = (), always_open
    until, rules = _allowed_from(facts, caps, open_from)
    if caps and until <= facts.now and (competing := _displaced(facts)):
        until, closed = open_from(min(competing.at, facts.now + DAY) + PLACE_KEPT)  # it may have left meanwhile: look once a day
        rules = (_rule_of(competing, facts.priority), *closed)
    if facts.turn_at is not None and facts.turn_at > until:
        until, closed = open_from(facts.turn_at)
        rules = (*rules, facts.throttle, *closed)
    if until <= facts.now:
        return None
    if if_held is IfHeld.skip:
        return SendDecision(SendVerdict.skip, rules)
    return SendDecision(SendVerdict.hold, rules, until)


def _allowed_from(facts: SendFacts, caps: Sequence[Cap], open_from: OpenFrom) -> tuple[datetime, tuple[str, ...]]:
    opened, closed = open_from(facts.now)
    free, cap = cap_allows_from(opened, facts.zone, caps, facts.written_at)
    if free <= opened:
        return opened, closed
    # A cap frees at midnight, which is in the quiet hours. A later moment holds fewer of the messages already sent, so once is enough.
    opened, closed_again = open_from(free)
    return opened, (*closed, cap, *closed_again)


def ranked_before(mine: CompetingSend, others: Sequence[CompetingSend], zone: ZoneInfo) -> list[CompetingSend]:
    """Return which of the others a cap's last places belong to before `mine`, in order.

    It is those that wait at their send already, and those expected on the same day in `zone`, that rank before it.
    """
    today = mine.at.astimezone(zone).date()
    present = (other for other in others if other.since is not None or other.at.astimezone(zone).date() == today)
    return sorted((other for other in present if other.rank < mine.rank), key=lambda other: other.rank)


def _displaced(facts: SendFacts) -> CompetingSend | None:
    """Return the first message ranked before this one that would lose its place to it, and so be held longer by its caps."""
    for number, competing in enumerate(facts.rivals):
        sooner = [other.at for other in facts.rivals[:number] if other.at <= competing.at]
        without, _cap = cap_allows_from(competing.at, facts.zone, competing.caps, [*facts.written_at, *sooner])
        after_me, _cap = cap_allows_from(competing.at, facts.zone, competing.caps, [*facts.written_at, *sooner, facts.now])
        if after_me > without:
            return competing
    return None


def _rule_of(competing: CompetingSend, priority: Priority) -> str:
    return f"{WAITS_LONGER if competing.priority is priority else PRIORITY}:{competing.journey}"


def cap_allows_from(at: datetime, zone: ZoneInfo, caps: Sequence[Cap], written_at: Sequence[datetime]) -> tuple[datetime, str]:
    """Return the first instant from `at` on at which one more message is within all of `caps`, and the cap that holds it longest.

    A day, a week (seven days) and a month (thirty) are calendar days in `zone`, so such a cap frees at a midnight there; an hour is elapsed
    time.
    """
    newest_first = sorted(written_at, reverse=True)
    free, rule = at, ""
    for cap in caps:
        if len(newest_first) >= cap.count and (frees := _falls_out_at(newest_first[cap.count - 1], cap, zone)) > free:
            free, rule = frees, f"cap_{cap.period}:{cap.count}"
    return free, rule


def _falls_out_at(written_at: datetime, cap: Cap, zone: ZoneInfo) -> datetime:
    if cap.period == "hour":
        return written_at + HOUR
    return resolve(datetime.combine(written_at.astimezone(zone).date() + timedelta(days=round(cap.days)), time()), zone)


def counted_since(caps: Sequence[Cap], now: datetime) -> datetime | None:
    """Return from when on messages matter to `caps`, in any zone; None when nothing is capped."""
    if not caps:
        return None
    return now - timedelta(days=max(cap.days for cap in caps) + 1)
