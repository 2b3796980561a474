"""May this message go now? Pure: the facts and the moment come in, the decision goes out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from types import MappingProxyType
from zoneinfo import ZoneInfo

from distmark.journeys.model import IfHeld
from distmark.journeys.times import resolve

CAP_DAYS = 7

OpenFrom = Callable[[datetime], tuple[datetime, tuple[str, ...]]]
"""The first instant from the given one on at which the contact may be written to, and the rules that moved it (`times.next_allowed`)."""


class SendVerdict(StrEnum):
    """What to do with a message that is due."""

    send = "send"
    hold = "hold"  # try again at `until`; without one, when whatever holds it changes
    skip = "skip"  # leave this message out and go on
    suppress = "suppress"  # this person must not get it


@dataclass(frozen=True, slots=True)
class CapPolicy:
    """How many marketing messages one contact gets in a calendar day, and in any seven, in the contact's zone.

    None means no cap; 0 means none at all.
    """

    per_day: int | None = None
    per_week: int | None = None


CAP_POLICIES: Mapping[str, CapPolicy] = MappingProxyType({"marketing": CapPolicy(per_day=2, per_week=4), "none": CapPolicy()})
"""What `caps:` of a send policy may say."""


@dataclass(frozen=True, slots=True)
class SendFacts:
    """What is known about one contact and one message at the moment it is due."""

    now: datetime
    zone: ZoneInfo
    transactional: bool = False
    left: bool = False  # a goal or an exit rule holds
    suppressed: bool = False  # for this kind of message: an unsubscribe stops marketing, a complaint everything
    consented: bool = True
    approved: bool = True  # the version, and the partner's texts for this member
    marketing_sent_at: Sequence[datetime] = ()  # the contact's marketing messages of the last seven days, those being sent too
    throttled_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class SendDecision:
    """`reason` is a rule's name, with its detail after a colon where it has one (`cap_week:4`); empty when the message goes."""

    outcome: SendVerdict
    reason: str = ""
    until: datetime | None = None


def always_open(at: datetime) -> tuple[datetime, tuple[str, ...]]:
    """Return `at`: for a policy without quiet hours or days."""
    return at, ()


def decide_send(facts: SendFacts, cap: CapPolicy, open_from: OpenFrom = always_open, if_held: IfHeld = IfHeld.hold) -> SendDecision:
    """Return what to do now, by the first rule that applies: exit and goal, suppression and consent, approval, quiet hours, cap, throttle.

    Transactional messages pass quiet hours and caps, never a suppression of their kind. `until` of a held message already satisfies
    quiet hours and caps together, so that nobody is woken in the night to be told to wait for the morning.
    """
    return _forbidden(facts) or _held(facts, cap, open_from, if_held) or SendDecision(SendVerdict.send)


def _forbidden(facts: SendFacts) -> SendDecision | None:
    if facts.left:
        return SendDecision(SendVerdict.skip, "left")
    if facts.suppressed:
        return SendDecision(SendVerdict.suppress, "suppressed")
    if not (facts.consented or facts.transactional):
        return SendDecision(SendVerdict.suppress, "no_consent")
    if not facts.approved:
        return SendDecision(SendVerdict.hold, "not_approved")
    return None


def _held(facts: SendFacts, cap: CapPolicy, open_from: OpenFrom, if_held: IfHeld) -> SendDecision | None:
    until, reason = facts.now, ""
    if not facts.transactional:
        if none_allowed := _allows_none(cap):
            return SendDecision(SendVerdict.skip, none_allowed)
        until, reason = _allowed_from(facts, cap, open_from)
    if facts.throttled_until is not None and facts.throttled_until > until:
        until, reason = facts.throttled_until, reason or "throttle"
        if not facts.transactional:
            until = open_from(until)[0]
    if until <= facts.now:
        return None
    if if_held is IfHeld.skip:
        return SendDecision(SendVerdict.skip, reason)
    return SendDecision(SendVerdict.hold, reason, until)


def _allowed_from(facts: SendFacts, cap: CapPolicy, open_from: OpenFrom) -> tuple[datetime, str]:
    opened, rules = open_from(facts.now)
    free, rule = cap_allows_from(opened, facts.zone, cap, facts.marketing_sent_at)
    # The cap frees at midnight, which is in the quiet hours. Later days hold fewer of the messages already sent, so once is enough.
    return (open_from(free)[0] if free > opened else opened), (rules[0] if rules else rule)


def _allows_none(cap: CapPolicy) -> str:
    if cap.per_day == 0:
        return "cap_day:0"
    return "cap_week:0" if cap.per_week == 0 else ""


def cap_allows_from(at: datetime, zone: ZoneInfo, cap: CapPolicy, sent_at: Sequence[datetime]) -> tuple[datetime, str]:
    """Return the first instant from `at` on at which one more message is within `cap`, and the cap that held it.

    A cap frees at a midnight of `zone`, at most seven days on. The cap must allow at least one message.
    """
    days = [sent.astimezone(zone).date() for sent in sent_at]
    today, held_by = at.astimezone(zone).date(), ""
    for later in range(CAP_DAYS + 1):
        day = today + timedelta(days=later)
        rule = _full(day, days, cap)
        if not rule:
            return (at if later == 0 else resolve(datetime.combine(day, time()), zone)), held_by
        held_by = held_by or rule
    raise ValueError(f"The cap {cap} allows no message at all; ask for that before asking when.")


def _full(day: date, sent_on: Sequence[date], cap: CapPolicy) -> str:
    if cap.per_day is not None and sum(sent == day for sent in sent_on) >= cap.per_day:
        return f"cap_day:{cap.per_day}"
    in_week = sum(timedelta(0) <= day - sent < timedelta(days=CAP_DAYS) for sent in sent_on)
    return f"cap_week:{cap.per_week}" if cap.per_week is not None and in_week >= cap.per_week else ""
