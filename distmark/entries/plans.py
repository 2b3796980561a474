"""Entry plans: the progress of each journey that contacts enter by date or by segment."""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, update
from sqlmodel import Session, col, select

from distmark.entries.open_journeys import OpenJourney, open_journeys
from distmark.entries.table import EntryDate, EntryPlan
from distmark.journeys.entry import EntrySource
from distmark.sql import insert_into

BATCH = 500  # contacts or rows processed in one transaction
PLANNED = (EntrySource.date, EntrySource.segment)


def plan_journeys(session: Session, now: datetime) -> int:
    """Bring the plan of every journey with entry by date or segment up to its newest version; return how many plans changed.

    A changed rule starts again with the first contact. A journey that takes no contacts any more loses its plan and its dates.
    """
    plans = {plan.journey_id: plan for plan in session.exec(select(EntryPlan))}
    planned = {journey.journey_id: journey for journey in open_journeys(session) if journey.entry.source in PLANNED}
    gone = plans.keys() - planned.keys()
    for journey_id in gone:
        session.execute(delete(EntryDate).where(col(EntryDate.journey_id) == journey_id))
        session.execute(delete(EntryPlan).where(col(EntryPlan.journey_id) == journey_id))
    new = [journey for journey_id, journey in planned.items() if journey_id not in plans]
    if new:
        rows = [{"journey_id": each.journey_id, "brand_id": each.brand_id, **_initial_progress(each)} for each in new]
        session.execute(insert_into(session, EntryPlan).on_conflict_do_nothing(), rows)  # another run may have inserted them meanwhile
    changed = [journey for journey_id, journey in planned.items() if journey_id in plans and plans[journey_id].rule != journey.rule]
    for journey in changed:
        other_rule = update(EntryPlan).where(col(EntryPlan.journey_id) == journey.journey_id, col(EntryPlan.rule) != journey.rule)
        session.execute(other_rule.values(**_initial_progress(journey)))
    return len(gone) + len(new) + len(changed)


def _initial_progress(journey: OpenJourney) -> dict[str, Any]:
    """Return the columns of a plan whose rule is new: by date it starts with the first contact, by segment with a reading due at once."""
    since, by_date = journey.registered_at, journey.entry.source is EntrySource.date
    rule = {"version_id": journey.version_id, "rule": journey.rule, "since": since, "read_at": since}
    return {**rule, "reached": 0 if by_date else None, "next_at": None if by_date else since}


def plans_of(session: Session, source: EntrySource) -> list[tuple[EntryPlan, OpenJourney]]:
    """Return the plans of this source with their journeys; a plan that does not have its journey's newest rule yet is left out."""
    journeys = {each.journey_id: each for each in open_journeys(session) if each.entry.source is source}
    plans = session.exec(select(EntryPlan).order_by(col(EntryPlan.id)))
    return [
        (plan, journeys[plan.journey_id]) for plan in plans if plan.journey_id in journeys and plan.rule == journeys[plan.journey_id].rule
    ]


def lock_plan(session: Session, plan: EntryPlan) -> EntryPlan | None:
    """Return the plan, locked; None when another transaction works on it now."""
    same = select(EntryPlan).where(EntryPlan.id == plan.id).with_for_update(skip_locked=True)
    return session.exec(same.execution_options(populate_existing=True)).first()
