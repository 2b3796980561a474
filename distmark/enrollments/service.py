"""Entering, leaving, waking and looking at enrollments. Walking them is the flows' work; this room keeps the rows."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, update
from sqlmodel import Session, col, select

from distmark.campaigns.service import add_members, get_campaign
from distmark.campaigns.table import Campaign, CampaignStatus
from distmark.compliance.service import record
from distmark.contacts.many import among
from distmark.contacts.table import Contact
from distmark.enrollments.entries import Arrival, Door, Entrant, address_of, enter, judge, open_door
from distmark.enrollments.model import CameBy, EnrollmentStatus, EnrolResult, EnrolVerdict, MoveKind
from distmark.enrollments.table import Enrollment, Move, Task
from distmark.errors import NotFound, Refused
from distmark.journeys.model import Outcome
from distmark.journeys.table import Journey
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require

__all__ = [
    "address_of",
    "cancelled_runs",
    "end",
    "ended",
    "enrol",
    "enrollment_of",
    "enrollments_of_contact",
    "enter_from",
    "finish_task",
    "preview_enrol",
    "step_counts",
    "tasks_of",
    "timeline",
    "wake",
    "wake_person",
    "where_now",
]

ASLEEP = (EnrollmentStatus.waiting, EnrollmentStatus.paused)
MOST_ENTRIES_PER_DAY = 10  # of one person into one journey from others


def enrol(
    session: Session,
    viewer: Viewer,
    campaign_id: int,
    contact_ids: Sequence[int],
    now: datetime,
    *,
    data: Mapping[str, Any] | None = None,
) -> list[EnrolResult]:
    """Enter each contact into the campaign's journey and return one result per contact, in the order asked.

    Only rows are written: the flow run of each is created afterwards, from these rows. Asking twice enrols once. `data` is kept with each
    enrollment as the journey's own data. Errors: NotFound for a campaign or contact outside the viewer's rows, Refused for a closed
    campaign or a journey without an approved, registered version.
    """
    require(viewer, Permission.enrol_contacts)
    door = _campaign_door(session, get_campaign(session, viewer, campaign_id))
    people = _contacts(session, viewer, contact_ids)
    add_members(session, viewer, campaign_id, [_id(contact) for contact in people], now)
    results = enter(session, door, [Entrant(contact, data or {}) for contact in people], Arrival(CameBy.campaign, now))
    entered = sum(result.verdict is EnrolVerdict.enrolled for result in results)
    if entered:
        record(session, door.brand_id, viewer.user_id, "enrolled", "campaign", campaign_id, now, door.version.content_hash, count=entered)
    return results


def enter_from(
    session: Session, source: Enrollment, contact: Contact, journey_key: str, step_id: str, data: Mapping[str, Any], now: datetime
) -> EnrolResult | None:
    """Enter the contact of `source`, whose step `step_id` says so, into the newest version of another journey of the same brand.

    Nobody asks for a person: the journey that says so was approved. The other journey's own rules decide, and its first entry in the
    timeline says where the contact came from. None when no version of that journey takes anybody.
    """
    journey = session.exec(select(Journey).where(Journey.brand_id == source.brand_id, Journey.key == journey_key)).first()
    door = open_door(session, journey) if journey else None
    if door is None:
        return None
    entrant = Entrant(contact, data, f"enrollment:{source.id}:{step_id}:{now.isoformat()}")
    result = judge(session, door, [entrant], now)[_id(contact)]
    if result.verdict is not EnrolVerdict.enrolled:
        return result
    if _entries_since(session, door, contact, now - timedelta(days=1)) >= MOST_ENTRIES_PER_DAY:
        return EnrolResult(_id(contact), EnrolVerdict.too_soon, until=now + timedelta(days=1))
    came_from = {"from_enrollment": source.id, "from_step": step_id}
    return enter(session, door, [entrant], Arrival(CameBy.journey, now, came_from))[0]


def _entries_since(session: Session, door: Door, contact: Contact, since: datetime) -> int:
    """Count how often the person entered lately: two journeys that enter each other must not do so without end."""
    entries = select(func.count()).where(
        col(Enrollment.person_key) == contact.person_key, col(Enrollment.journey_id) == door.journey_id, col(Enrollment.entered_at) > since
    )
    return session.exec(entries).one()


def preview_enrol(session: Session, viewer: Viewer, campaign_id: int, contact_ids: Sequence[int], now: datetime) -> list[EnrolResult]:
    """Say what `enrol` would answer now, changing nothing. How many the journey takes at a time is not looked at."""
    require(viewer, Permission.enrol_contacts)
    door = _campaign_door(session, get_campaign(session, viewer, campaign_id))
    people = _contacts(session, viewer, contact_ids)
    verdicts = judge(session, door, [Entrant(contact) for contact in people], now)
    return [verdicts[_id(contact)] for contact in people]


def _campaign_door(session: Session, campaign: Campaign) -> Door:
    # Who is enrolled in a paused campaign starts paused.
    if campaign.status not in (CampaignStatus.open, CampaignStatus.paused):
        raise Refused(f'Campaign "{campaign.name}" is {campaign.status}: nobody can be enrolled until it is open.')
    door = open_door(session, session.get_one(Journey, campaign.journey_id), campaign)
    if door is None:
        raise Refused(f'The journey of campaign "{campaign.name}" has no approved and registered version yet; ask the brand\'s marketers.')
    return door


def _contacts(session: Session, viewer: Viewer, contact_ids: Sequence[int]) -> list[Contact]:
    wanted = list(dict.fromkeys(contact_ids))
    mine = visible(select(Contact), Contact, viewer).where(col(Contact.erased_at).is_(None))
    found = {_id(contact): contact for contact in session.exec(mine.where(among(session, col(Contact.id), wanted)))}
    missing = [contact_id for contact_id in wanted if contact_id not in found]
    if missing:
        raise NotFound(f"There is no contact {missing[0]} among yours; search again and pick from the list.")
    return [found[contact_id] for contact_id in wanted]


def _id(row: Contact | Enrollment) -> int:
    if row.id is None:
        raise ValueError(f"{type(row).__name__} has not been stored yet.")
    return row.id


def enrollment_of(session: Session, viewer: Viewer, enrollment_id: int) -> Enrollment:
    """Return the enrollment, if it is among the viewer's."""
    row = session.exec(visible(select(Enrollment), Enrollment, viewer).where(Enrollment.id == enrollment_id)).first()
    if row is None:
        raise NotFound(f"There is no enrollment {enrollment_id} among yours.")
    return row


def enrollments_of_contact(session: Session, viewer: Viewer, contact_id: int) -> list[Enrollment]:
    """Return the contact's enrollments, newest first."""
    return list(
        session.exec(
            visible(select(Enrollment), Enrollment, viewer).where(Enrollment.contact_id == contact_id).order_by(col(Enrollment.id).desc())
        )
    )


def timeline(session: Session, viewer: Viewer, enrollment_id: int) -> list[Move]:
    """Return everything that happened to the enrollment, oldest first."""
    enrollment_of(session, viewer, enrollment_id)
    return list(session.exec(select(Move).where(Move.enrollment_id == enrollment_id).order_by(col(Move.at), col(Move.id))))


def where_now(session: Session, viewer: Viewer, campaign_id: int, contact_ids: Sequence[int]) -> dict[int, Enrollment]:
    """Return each contact's newest enrollment in the campaign; contacts never enrolled are absent."""
    rows = session.exec(
        visible(select(Enrollment), Enrollment, viewer)
        .where(Enrollment.campaign_id == campaign_id, col(Enrollment.contact_id).in_(list(contact_ids)))
        .order_by(col(Enrollment.id))
    )
    return {row.contact_id: row for row in rows}


def step_counts(session: Session, viewer: Viewer, *, version_id: int | None = None, campaign_id: int | None = None) -> dict[str, int]:
    """Return how many live enrollments stand at each step now; those not begun are under ""."""
    statement = visible(select(Enrollment.step_id, func.count()), Enrollment, viewer).where(Enrollment.status != EnrollmentStatus.ended)
    if version_id is not None:
        statement = statement.where(Enrollment.version_id == version_id)
    if campaign_id is not None:
        statement = statement.where(Enrollment.campaign_id == campaign_id)
    return {step_id or "": count for step_id, count in session.exec(statement.group_by(col(Enrollment.step_id)))}


def tasks_of(session: Session, viewer: Viewer, *, open_only: bool = True, contact_id: int | None = None) -> list[Task]:
    """Return the tasks the viewer can see, the most urgent first."""
    statement = visible(select(Task), Task, viewer)
    if open_only:
        statement = statement.where(col(Task.done_at).is_(None))
    if contact_id is not None:
        statement = statement.where(Task.contact_id == contact_id)
    return list(session.exec(statement.order_by(col(Task.due_at), col(Task.id)).limit(200)))


def finish_task(session: Session, viewer: Viewer, task_id: int, now: datetime) -> Task:
    """Mark the task done; doing it twice keeps the first time."""
    task = session.exec(visible(select(Task), Task, viewer).where(Task.id == task_id)).first()
    if task is None:
        raise NotFound(f"There is no task {task_id} among yours.")
    if task.done_at is None:
        task.done_at, task.done_by_id = now, viewer.user_id
        session.add(task)
        wake(session, [task.enrollment_id], now)
    return task


def wake(session: Session, enrollment_ids: Sequence[int], now: datetime) -> int:
    """Ask that these sleeping enrollments look at the world now, and return how many are asleep. Their worker does the rest.

    A paused one remembers the call until it is resumed.
    """
    result = session.execute(
        update(Enrollment).where(col(Enrollment.id).in_(list(enrollment_ids)), col(Enrollment.status).in_(ASLEEP)).values(woken_at=now)
    )
    return int(getattr(result, "rowcount", 0))


def wake_person(session: Session, brand_id: int, person_key: str, now: datetime) -> int:
    """Ask that everything this person is in looks at the world now."""
    theirs = (col(Enrollment.person_key) == person_key, col(Enrollment.brand_id) == brand_id, col(Enrollment.status).in_(ASLEEP))
    session.execute(select(Enrollment.id).where(*theirs).order_by(col(Enrollment.id)).with_for_update(key_share=True))  # as wakes lock
    result = session.execute(update(Enrollment).where(*theirs).values(woken_at=now))
    return int(getattr(result, "rowcount", 0))


def ended(outcome: Outcome, reason: str, now: datetime) -> dict[str, Any]:
    """Return the columns of an enrollment that has ended."""
    nothing: dict[str, Any] = dict.fromkeys(("live_key", "due_at", "awaits", "woken_at"))
    return {**nothing, "status": EnrollmentStatus.ended, "outcome": outcome.value, "reason": reason, "ended_at": now, "why": ""}


def end(session: Session, enrollment: Enrollment, outcome: Outcome, reason: str, now: datetime, **detail: Any) -> None:
    """End the enrollment: it leaves its step, frees the person for re-entry, and is not walked again. Ending twice keeps the first end."""
    if enrollment.status is EnrollmentStatus.ended:
        return
    for name, value in ended(outcome, reason, now).items():
        setattr(enrollment, name, value)
    session.add(enrollment)
    told = {"outcome": outcome.value, "reason": reason, **detail}
    session.add(Move(enrollment_id=_id(enrollment), at=now, kind=MoveKind.ended, step_id=enrollment.step_id or "", detail=told))


def cancelled_runs(session: Session, flow_run_ids: Sequence[str], now: datetime) -> int:
    """End what runs cancelled in the Prefect dashboard carried, and return how many were live."""
    reason = "cancelled in the Prefect dashboard"
    rows = session.exec(
        select(Enrollment)
        .where(col(Enrollment.flow_run_id).in_(list(flow_run_ids)), col(Enrollment.status) != EnrollmentStatus.ended)
        .with_for_update()
    ).all()
    for row in rows:
        end(session, row, Outcome.stopped, reason, now)
        record(session, row.brand_id, None, "stopped", "enrollment", _id(row), now, reason=reason)
    return len(rows)
