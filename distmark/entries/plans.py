"""How far each journey that takes contacts by date or segment has come."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, update
from sqlmodel import Session, col, select

from distmark.entries.open_journeys import Open, open_journeys
from distmark.entries.table import EntryDate, EntryPlan
from distmark.journeys.entry import EntrySource
from distmark.sql import insert_into

BATCH = 500
PLANNED = (EntrySource.date, EntrySource.segment)


def plan_journeys(session: Session, now: datetime) -> int:
    """Give every journey that takes contacts by date or segment a plan that says what its newest version says; return how many changed.

    A changed rule looks at everybody anew, from the first contact on. A journey that takes nobody any more loses its plan and its dates.
    """
    plans = {plan.journey_id: plan for plan in session.exec(select(EntryPlan))}
    planned = {opened.journey_id: opened for opened in open_journeys(session) if opened.entry.source in PLANNED}
    gone = plans.keys() - planned.keys()
    for journey_id in gone:
        session.execute(delete(EntryDate).where(col(EntryDate.journey_id) == journey_id))
        session.execute(delete(EntryPlan).where(col(EntryPlan.journey_id) == journey_id))
    new = [opened for journey_id, opened in planned.items() if journey_id not in plans]
    if new:
        rows = [{"journey_id": each.journey_id, "brand_id": each.brand_id, **_begun(each)} for each in new]
        session.execute(insert_into(session, EntryPlan).on_conflict_do_nothing(), rows)  # another run may be as quick
    changed = [opened for journey_id, opened in planned.items() if journey_id in plans and plans[journey_id].rule != opened.rule]
    for opened in changed:
        other_rule = update(EntryPlan).where(col(EntryPlan.journey_id) == opened.journey_id, col(EntryPlan.rule) != opened.rule)
        session.execute(other_rule.values(**_begun(opened)))
    return len(gone) + len(new) + len(changed)


def _begun(opened: Open) -> dict[str, Any]:
    """Return where the plan of a rule that is new begins: a date with the first contact, a segment with a reading that is due at once."""
    since, by_date = opened.registered_at, opened.entry.source is EntrySource.date
    told = {"version_id": opened.version_id, "rule": opened.rule, "since": since, "read_at": since}
    return {**told, "reached": 0 if by_date else None, "next_at": None if by_date else since}


def plans_of(session: Session, source: EntrySource) -> list[tuple[EntryPlan, Open]]:
    opened = {each.journey_id: each for each in open_journeys(session) if each.entry.source is source}
    plans = session.exec(select(EntryPlan).order_by(col(EntryPlan.id)))
    return [(plan, opened[plan.journey_id]) for plan in plans if plan.journey_id in opened and plan.rule == opened[plan.journey_id].rule]


def locked_plan(session: Session, plan: EntryPlan) -> EntryPlan | None:
    """Return the plan locked, unless somebody else works by it just now."""
    mine = select(EntryPlan).where(EntryPlan.id == plan.id).with_for_update(skip_locked=True)
    return session.exec(mine.execution_options(populate_existing=True)).first()
