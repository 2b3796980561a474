"""What the effects of steps do in our own database. A table from effect to the function that performs it; sends have their own way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlmodel import Session, select

from distmark.contacts.service import attributes_of, change_contact
from distmark.enrollments.model import MoveKind
from distmark.enrollments.table import Enrollment, Task
from distmark.journeys.model import CreateTask, UpdateContact
from distmark.journeys.walk import Position
from distmark.messages.compose import Person


@dataclass(frozen=True, slots=True)
class EffectResult:
    """What to write in the timeline, and what the run's page shows (no personal data)."""

    move: MoveKind
    detail: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    contact: Mapping[str, Any] | None = None  # what expressions see of the contact from now on, when it changed


Perform = Callable[[Session, Enrollment, Person, Any, Position, datetime], EffectResult]


def create_task(session: Session, row: Enrollment, person: Person, effect: CreateTask, position: Position, now: datetime) -> EffectResult:
    """Give the partner or the brand's staff a next action, once per visit."""
    visit = int(position.visits.get(effect.step_id, 1))
    there = session.exec(select(Task.id).where(Task.enrollment_id == row.id, Task.step_id == effect.step_id, Task.visit == visit)).first()
    if there is None:
        session.add(
            Task(
                enrollment_id=row.id or 0,
                step_id=effect.step_id,
                visit=visit,
                brand_id=row.brand_id,
                partner_id=row.partner_id,
                contact_id=row.contact_id,
                role=effect.for_,
                title=effect.title[:300],
                created_at=now,
                due_at=effect.due,
            )
        )
    return EffectResult(MoveKind.task, {"for": effect.for_, "due": effect.due}, f"for {effect.for_}")


def update_contact(
    session: Session, row: Enrollment, person: Person, effect: UpdateContact, position: Position, now: datetime
) -> EffectResult:
    """Change the contact's data as the step says."""
    contact = change_contact(session, person.contact.id or 0, effect.changes, now)
    return EffectResult(MoveKind.passed, {"changed": sorted(effect.changes)}, "contact updated", attributes_of(contact))


EFFECTS: dict[type, Perform] = {
    CreateTask: create_task,
    UpdateContact: update_contact,
}
