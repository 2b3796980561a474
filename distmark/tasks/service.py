"""Tasks: next actions of a partner's or the brand's people, and finishing one. The engine creates them."""

from datetime import datetime

from sqlmodel import Session, col, select

from distmark.enrollments.service import wake
from distmark.errors import NotFound
from distmark.partners.model import Viewer
from distmark.partners.scope import visible
from distmark.tasks.table import Task


def tasks_of(session: Session, viewer: Viewer, *, open_only: bool = True, contact_id: int | None = None) -> list[Task]:
    """Return the tasks within the viewer's sight, the earliest due first, at most 200."""
    statement = visible(select(Task), Task, viewer)
    if open_only:
        statement = statement.where(col(Task.done_at).is_(None))
    if contact_id is not None:
        statement = statement.where(Task.contact_id == contact_id)
    return list(session.exec(statement.order_by(col(Task.due_at), col(Task.id)).limit(200)))


def finish_task(session: Session, viewer: Viewer, task_id: int, now: datetime) -> Task:
    """Mark the task done, wake its enrollment, and return the task; a second call changes nothing. NotFound outside the viewer's sight."""
    task = session.exec(visible(select(Task), Task, viewer).where(Task.id == task_id)).first()
    if task is None:
        raise NotFound(f"There is no task {task_id} among yours.")
    if task.done_at is None:
        task.done_at, task.done_by_id = now, viewer.user_id
        session.add(task)
        wake(session, [task.enrollment_id], now)
    return task
