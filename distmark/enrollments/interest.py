"""Which sleeping enrollments a piece of news concerns. A wake costs Prefect three transitions, so only those it may move are woken."""

from functools import lru_cache

from distmark.journeys.expressions import names_used
from distmark.journeys.program import Program

ANY_NEWS = "*"
NAMED = ("converted", "happened", "value_of")


def concerns(program: Program, awaits: str | None, news: str) -> bool:
    """Say whether `news` (opened, clicked, an event's name, contact ...) may end this wait, reach the goal, or fulfil an exit rule."""
    return awaits in (news, ANY_NEWS) or news in program.listens_to


def goal_events(program: Program) -> frozenset[str]:
    """Return the names of the events that the journey's goal speaks of: these are its conversions."""
    goal = program.definition.goal
    return frozenset() if goal is None else _named(str(goal.when))


@lru_cache(maxsize=1024)
def _named(expression: str) -> frozenset[str]:
    return frozenset(str(call.args[0]) for call in names_used(expression).called(*NAMED) if call.args)
