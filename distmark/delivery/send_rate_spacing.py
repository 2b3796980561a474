"""Send rates, and the next free time under them. Pure: a pace is one moment, moved on by every message (GCRA, the leaky bucket's
arithmetic)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from distmark.delivery.send_policy import HOUR

EACH = "*"  # as a key: every one of the scope that has no rate of its own, each at a pace of its own
RULE = "throttle"
# A message that comes this late for its turn lines up again: after an hour's outage the turns missed must not all be taken at once.
RESERVATION_KEPT = timedelta(minutes=10)


class RateScope(StrEnum):
    """The scope of a rate. The key is a partner's, a campaign's, or a domain."""

    partner = "partner"
    campaign = "campaign"
    sending_domain = "sending_domain"
    destination_domain = "destination_domain"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `per_hour` messages an hour, evenly spaced, of which `burst` may go at once after a silence."""

    per_hour: int
    burst: int = 1

    @property
    def interval(self) -> timedelta:
        """The time between two messages."""
        return HOUR / self.per_hour

    def next_slot(self, level: datetime, now: datetime) -> datetime:
        """Return when the next message may go, `level` being the pace so far."""
        return max(now, level - self.interval * (self.burst - 1))

    def taken(self, level: datetime, now: datetime) -> datetime:
        """Return the pace after one more message."""
        return max(now, level) + self.interval


Scoped = tuple[RateScope, str]


def throttle_rule(scope: RateScope, key: str) -> str:
    """Return the name of the rule that holds a message for its turn."""
    return f"{RULE}:{scope}:{key}"


def rated(rates: Mapping[Scoped, Rate], scoped: Sequence[Scoped]) -> dict[str, Rate]:
    """Return the rates that a message of these scopes is under, by rule; its own before the one for each of the scope."""
    found = {throttle_rule(*each): rates.get(each) or rates.get((each[0], EACH)) for each in scoped}
    return {rule: rate for rule, rate in found.items() if rate is not None}


@dataclass(slots=True)
class ThrottleBatch:
    """Messages lining up at `now`, first come first served. `levels` are the paces by rule; those in `moved` were moved on.

    `turns` are those given earlier, by ticket; `given` and `used` say what became of turns in this line.
    """

    now: datetime
    levels: dict[str, datetime]
    turns: Mapping[str, datetime] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    given: dict[str, datetime] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def next_slot(self, rates: Mapping[str, Rate]) -> tuple[datetime, str]:
        """Return when a message under these rates may go, and the rule that makes it wait longest ("" when none does)."""
        turn_at, rule = self.now, ""
        for each, rate in rates.items():
            if (turn := rate.next_slot(self.levels.get(each, self.now), self.now)) > turn_at:
                turn_at, rule = turn, each
        return turn_at, rule

    def reserve(self, rates: Mapping[str, Rate]) -> None:
        """Give that turn away."""
        for each, rate in rates.items():
            self.levels[each] = rate.taken(self.levels.get(each, self.now), self.now)
            self.moved.add(each)


def reservation_key(enrollment_id: int, step_id: str, visit: int) -> str:
    """Return by what a message finds the turn that it was given."""
    return f"turn:{enrollment_id}:{visit}:{step_id}"
