"""Held sends: their number per step, and the rule that holds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import CTE, func, select
from sqlmodel import Session, col

from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.journeys.model import Why
from distmark.journeys.table import Journey, JourneyVersion
from distmark.partners.model import Viewer
from distmark.partners.scope import visible


@dataclass(frozen=True, slots=True)
class Held:
    """The sends that one rule holds at one step of a version now, and when the first of them is tried again.

    `rule` is the one that holds first, with its detail after a colon (`cap_week:3`); what holds a send further shows on its enrollment.
    """

    journey: str
    version: int
    version_id: int
    step_id: str
    rule: str
    count: int
    next_at: datetime | None


def held_sends(session: Session, viewer: Viewer, version_id: int | None = None) -> list[Held]:
    """Return what is held among the enrollments that the viewer may see: by journey, the newest version first, step, most first."""
    held = _held_rows(viewer)
    place = (col(Journey.key), col(JourneyVersion.number), held.c.version_id, held.c.step_id, held.c.rule)
    statement = select(*place, func.count(), func.min(held.c.due_at)).group_by(*place)
    statement = statement.join(JourneyVersion, col(JourneyVersion.id) == held.c.version_id)
    statement = statement.join(Journey, col(Journey.id) == col(JourneyVersion.journey_id))
    if version_id is not None:
        statement = statement.where(held.c.version_id == version_id)
    found = [
        Held(key, number, version, step_id or "", why or "", count, next_at)
        for key, number, version, step_id, why, count, next_at in session.execute(statement)
    ]
    return sorted(found, key=lambda each: (each.journey, -each.version, each.step_id, -each.count, each.rule))


def _held_rows(viewer: Viewer) -> CTE:
    """Return the held enrollments, found by themselves first: they have an index of their own, so waiting ones are not read.

    One version is selected afterwards: selected here, SQLite would read all enrollments that wait in the version.
    """
    rule = col(Enrollment.rules)[0].as_string().label("rule")
    columns = (col(Enrollment.version_id), col(Enrollment.step_id), col(Enrollment.due_at), rule)
    held = (col(Enrollment.status) == EnrollmentStatus.waiting, col(Enrollment.why) == Why.held)
    return visible(select(*columns), Enrollment, viewer).where(*held).cte("held").prefix_with("MATERIALIZED")


def held_by_rule(found: Sequence[Held]) -> dict[str, int]:
    """Return how many are held by each rule, whichever journey and step they are at."""
    counts: dict[str, int] = {}
    for each in found:
        counts[each.rule] = counts.get(each.rule, 0) + each.count
    return counts
