"""The time of a journey's first message for a contact enrolled now. Pure; nothing is sent or stored."""

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from distmark.journeys.model import Act, Facts, SendMessage, Sleep
from distmark.journeys.program import Program
from distmark.journeys.times import next_allowed
from distmark.journeys.walk import passed, start, walk, zone_of

MOST_STEPS = 40


def first_message_at(program: Program, facts: Facts, now: datetime) -> tuple[datetime, ZoneInfo] | None:
    """Return when the first message would go out (aware UTC) and the zone that decided it; None when none does without an event."""
    zone, moment, position = zone_of(facts), now, start(program, now)
    for _ in range(MOST_STEPS):
        walked = walk(program, position, facts, moment)
        position, decision = walked.position, walked.decision
        if isinstance(decision, Sleep):
            if decision.until is None:
                return None
            moment = max(moment, decision.until)
        elif isinstance(decision, Act) and isinstance(decision.effect, SendMessage):
            return (moment if decision.effect.transactional else _allowed(program, moment, zone)), zone
        elif isinstance(decision, Act):
            position = passed(program, position, moment)
        else:
            return None
    return None


def _allowed(program: Program, moment: datetime, zone: ZoneInfo) -> datetime:
    policy = program.definition.send_policy
    return next_allowed(moment, zone, policy.quiet_hours, policy.days, policy.holidays)[0]


def facts_for(contact: Mapping[str, object], partner: Mapping[str, object], brand: Mapping[str, object]) -> Facts:
    """Return the facts of a contact that has not been enrolled yet."""
    return Facts(contact=contact, partner=partner, brand=brand)
