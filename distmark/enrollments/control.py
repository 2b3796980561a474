"""Pausing, resuming, stopping and draining a part of a brand's enrollments, however many: a few statements, never row by row.

What a pause means: everybody in the scope stays where they are, and who enters it meanwhile starts paused. A wake that is on its way ends
after the step it is doing. Nobody is lost, and a pause holds until its own scope is resumed: who is under two pauses needs both lifted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, func, or_, select
from sqlmodel import Session, col

from distmark.campaigns.service import get_campaign, set_campaign_status
from distmark.campaigns.table import CampaignStatus
from distmark.compliance.service import record
from distmark.contacts.service import get_contact
from distmark.enrollments.bulk import MOVING, Conditions, change, count, looks, set_columns, set_each
from distmark.enrollments.model import EnrollmentStatus, SuspensionKind, TimelineKind
from distmark.enrollments.suspensions import Scope, covers, held, lock_suspensions, suspend, suspensions, suspensions_of
from distmark.enrollments.table import Enrollment, Suspension
from distmark.enrollments.wait_estimates import Standing, WaitEstimator, is_lengthened, standing
from distmark.errors import InvalidInput, NotFound
from distmark.journeys.model import Outcome, Sleep
from distmark.journeys.service import get_version, program_of
from distmark.journeys.table import Journey, JourneyVersion
from distmark.partners.model import Permission, Role, Viewer
from distmark.partners.scope import may_see, visible
from distmark.partners.service import get_partner, require
from distmark.sql import among

SUBJECTS = {
    "version_id": "journey_version",
    "campaign_id": "campaign",
    "contact_id": "contact",
    "partner_id": "partner",
    "journey_id": "journey",
}


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """What resuming does: of `paused` enrollments `resumed` go on and `kept` stay, under another pause or paused by themselves.

    `at_once` of them do something now, counted by step in `steps`; with a spread they are spaced evenly until `spread_until`.
    """

    paused: int
    resumed: int
    at_once: int
    steps: Mapping[str, int]
    extended: bool = False
    spread_until: datetime | None = None

    @property
    def kept(self) -> int:
        """How many stay paused."""
        return self.paused - self.resumed


@dataclass(frozen=True, slots=True)
class Stand:
    """How a scope stands now, as far as the viewer reaches: who is inside, and what people decided about it, the newest first.

    The viewer may lift `own`; `around` holds all of it, too, and must be lifted where it was made; `within` holds only a part of it.
    """

    moving: int
    paused: int
    parked: int
    own: Sequence[Suspension] = ()
    around: Sequence[Suspension] = ()
    within: Sequence[Suspension] = ()

    @property
    def inside(self) -> int:
        """How many are inside: whom a stop would end."""
        return self.moving + self.paused + self.parked

    @property
    def kinds(self) -> list[SuspensionKind]:
        """What holds all of it, in the order of the kinds."""
        found = {restraint.kind for restraint in (*self.own, *self.around)}
        return [kind for kind in SuspensionKind if kind in found]


def stand_of(session: Session, viewer: Viewer, scope: Scope) -> Stand:
    """Return how the scope stands. Whoever may see what it names may ask; NotFound when it is not theirs."""
    scope = _reached(session, viewer, scope)
    statuses = select(col(Enrollment.status), func.count()).where(*_where(session, viewer, scope)).group_by(col(Enrollment.status))
    counts = dict(session.execute(statuses).tuples().all())
    moving, paused, parked = (counts.get(each, 0) for each in (EnrollmentStatus.waiting, EnrollmentStatus.paused, EnrollmentStatus.parked))
    return Stand(moving, paused, parked, *_suspensions_at(session, viewer, scope))


def kinds_on(session: Session, viewer: Viewer, scope: Scope) -> list[SuspensionKind]:
    """Return what holds all of the scope now: paused, draining, both or nothing."""
    return Stand(0, 0, 0, *_suspensions_at(session, viewer, _reached(session, viewer, scope))).kinds


def pause(session: Session, viewer: Viewer, scope: Scope, now: datetime, reason: str = "") -> int:
    """Freeze everybody in the scope where they are, and return how many were moving. Who enters it from now on starts paused.

    NotFound and NotAllowed as for all acts on what is not the viewer's. A partner's people reach their own part of a scope.
    """
    scope = _within(session, viewer, scope)
    lock_suspensions(session, viewer.brand_id)
    where = _where(session, viewer, scope)
    alone = None if scope.parts else now
    if scope.parts:
        suspend(session, viewer, scope, SuspensionKind.paused, now, reason)
        _show_on_campaign(session, viewer, scope, CampaignStatus.paused, now)
    else:
        set_columns(session, [*where, _is(EnrollmentStatus.paused)], alone_since=now)
    values = {"status": EnrollmentStatus.paused, "paused_at": now, "alone_since": alone}
    told = {"by": viewer.user_id, "reason": reason}
    paused = change(session, [*where, _is(EnrollmentStatus.waiting)], values, TimelineKind.paused, now, told)
    _audit(session, viewer, scope, "paused", now, count=paused, reason=reason)
    return paused


def plan_resume(
    session: Session, viewer: Viewer, scope: Scope, now: datetime, *, extend: bool = False, spread: timedelta | None = None
) -> ResumePlan:
    """Say what `resume` would do now, changing nothing."""
    return _plan(session, viewer, _within(session, viewer, scope), now, extend, spread)


def resume(
    session: Session, viewer: Viewer, scope: Scope, now: datetime, *, extend: bool = False, spread: timedelta | None = None
) -> ResumePlan:
    """Lift the scope's pause and drain, let move again whom no other pause holds, and return what that did.

    With `extend` their waits are as much longer as the pause was; otherwise the clock went on, and what fell due meanwhile is due now, or
    spaced evenly over `spread`. Listed enrollments that are parked try their step again. What the brand paused a partner cannot resume.
    """
    scope = _within(session, viewer, scope)
    lock_suspensions(session, viewer.brand_id)
    plan = _plan(session, viewer, scope, now, extend, spread)
    where = _resumable(session, viewer, scope)
    for restraint in suspensions_of(session, viewer, scope):
        restraint.lifted_at = now
        session.add(restraint)
    session.flush()
    if scope.parts:
        _show_on_campaign(session, viewer, scope, CampaignStatus.open, now)
    else:
        listed = _where(session, viewer, scope)
        set_columns(session, [*listed, _is(EnrollmentStatus.paused)], alone_since=None)
        unpark(session, listed, now, viewer.user_id)
    told = {"by": viewer.user_id, "extended": extend}
    if extend or plan.spread_until is not None:
        _resume_one_by_one(session, where, plan, now, told)
    else:
        change(session, where, _going_on(now), TimelineKind.resumed, now, told)
    spread_until = plan.spread_until.isoformat() if plan.spread_until else None
    _audit(session, viewer, scope, "resumed", now, count=plan.resumed, extended=extend, spread_until=spread_until)
    return plan


def plan_stop(session: Session, viewer: Viewer, scope: Scope) -> int:
    """Say how many `stop` would end now, changing nothing."""
    return count(session, _live(session, viewer, _within(session, viewer, scope)))


def stop(session: Session, viewer: Viewer, scope: Scope, reason: str, now: datetime) -> int:
    """End everybody in the scope for a person's reason, and return how many were live. Their runs end at once; others may still enter."""
    scope = _within(session, viewer, scope)
    live = _live(session, viewer, scope)
    told = {"outcome": Outcome.stopped.value, "reason": reason, "by": viewer.user_id}
    stopped = change(session, live, _ended(reason, now), TimelineKind.ended, now, told)
    _audit(session, viewer, scope, "stopped", now, count=stopped, reason=reason)
    return stopped


def drain(session: Session, viewer: Viewer, scope: Scope, now: datetime, reason: str = "") -> int:
    """Let nobody enter the scope any more until it is resumed, and return how many are inside and will finish."""
    scope = _within(session, viewer, scope)
    if not scope.parts:
        raise InvalidInput("Enrollments that are inside already cannot be drained; drain a journey, campaign, partner or contact.")
    lock_suspensions(session, viewer.brand_id)
    suspend(session, viewer, scope, SuspensionKind.draining, now, reason)
    inside = count(session, _live(session, viewer, scope))
    _audit(session, viewer, scope, "drained", now, count=inside, reason=reason)
    return inside


def unpark(session: Session, where: Conditions, now: datetime, user_id: int | None) -> int:
    """Let parked enrollments try their step again, and return how many: whatever made it fail is mended, says a person."""
    values = {"status": EnrollmentStatus.waiting, "tries": 0, "error": "", "why": "time", "due_at": now, "woken_at": now}
    return change(session, [*where, _is(EnrollmentStatus.parked)], values, TimelineKind.resumed, now, {"by": user_id, "parked": True})


# --- scopes ---------------------------------------------------------------------------------------------------------------------------


def _within(session: Session, viewer: Viewer, scope: Scope) -> Scope:
    """Return the scope as far as the viewer reaches. NotFound when it names what is not theirs, NotAllowed when they may not do this."""
    require(viewer, Permission.enrol_contacts if viewer.role is Role.partner else Permission.publish_campaigns)
    return _reached(session, viewer, scope)


def _reached(session: Session, viewer: Viewer, scope: Scope) -> Scope:
    if bool(scope.parts) == bool(scope.enrollment_ids):
        raise InvalidInput("Say what is meant: a journey, version, campaign, partner or contact, or a list of enrollments.")
    _find(session, viewer, scope)
    return replace(scope, partner_id=viewer.partner_id) if viewer.role is Role.partner and scope.parts else scope


def _find(session: Session, viewer: Viewer, scope: Scope) -> None:
    if scope.journey_id is not None:
        journey = visible(select(col(Journey.id)), Journey, viewer).where(col(Journey.id) == scope.journey_id)
        if session.execute(journey).first() is None:
            raise NotFound(f"There is no journey {scope.journey_id} among yours.")
    if scope.version_id is not None:
        get_version(session, viewer, scope.version_id)
    if scope.campaign_id is not None:
        get_campaign(session, viewer, scope.campaign_id)
    if scope.partner_id is not None:
        get_partner(session, viewer, scope.partner_id)
    if scope.contact_id is not None:
        get_contact(session, viewer, scope.contact_id)
    if scope.enrollment_ids and count(session, _where(session, viewer, scope)) != len(scope.enrollment_ids):
        raise NotFound(f"Not all of the enrollments {_some(scope.enrollment_ids)} are yours; choose among those that you see.")


def _suspensions_at(session: Session, viewer: Viewer, scope: Scope) -> tuple[list[Suspension], list[Suspension], list[Suspension]]:
    """Return the open restraints of exactly the scope that the viewer may lift, the others that hold all of it, and those of its parts."""
    own = suspensions_of(session, viewer, scope)
    known = {restraint.id for restraint in own}
    others = [restraint for restraint in suspensions(session, viewer) if restraint.id not in known]
    door = _places(session, viewer, scope)
    around = [restraint for restraint in others if covers(restraint, door)]
    known |= {restraint.id for restraint in around}
    parts = scope.parts
    within = [row for row in others if row.id not in known and parts and all(getattr(row, name) == parts[name] for name in parts)]
    return own, around, within


def _places(session: Session, viewer: Viewer, scope: Scope) -> dict[str, int | None]:
    """Return all that is true of everybody in the scope, by column: the people of a version are in its journey, too."""
    door: dict[str, int | None] = dict(scope.columns())
    if len(scope.enrollment_ids) == 1:
        row = session.get_one(Enrollment, scope.enrollment_ids[0])
        return {name: getattr(row, name) for name in door}
    if scope.version_id is not None:
        door["journey_id"] = session.get_one(JourneyVersion, scope.version_id).journey_id
    if scope.campaign_id is not None:
        campaign = get_campaign(session, viewer, scope.campaign_id)
        door |= {"journey_id": campaign.journey_id, "partner_id": door["partner_id"] or campaign.partner_id}
    if scope.contact_id is not None:
        door["partner_id"] = get_contact(session, viewer, scope.contact_id).partner_id
    return door


def _some(ids: Sequence[int]) -> str:
    return ", ".join(str(each) for each in ids[:5]) + (" ..." if len(ids) > 5 else "")


def _where(session: Session, viewer: Viewer, scope: Scope) -> list[ColumnElement[bool]]:
    where = [may_see(Enrollment, viewer)]
    where += [getattr(Enrollment, name) == value for name, value in scope.parts.items()]
    return [*where, among(session, col(Enrollment.id), scope.enrollment_ids)] if scope.enrollment_ids else where


def _live(session: Session, viewer: Viewer, scope: Scope) -> list[ColumnElement[bool]]:
    return [*_where(session, viewer, scope), col(Enrollment.status) != EnrollmentStatus.ended]


def _is(status: EnrollmentStatus) -> ColumnElement[bool]:
    return col(Enrollment.status) == status


def _audit(session: Session, viewer: Viewer, scope: Scope, action: str, now: datetime, **detail: Any) -> None:
    subjects = [("enrollment", each) for each in scope.enrollment_ids] or [
        next((SUBJECTS[name], scope.parts[name]) for name in SUBJECTS if name in scope.parts)
    ]
    for kind, subject_id in subjects:
        record(session, viewer.brand_id, viewer.user_id, action, kind, subject_id, now, None, **scope.parts, **detail)


def _show_on_campaign(session: Session, viewer: Viewer, scope: Scope, status: CampaignStatus, now: datetime) -> None:
    """Let a campaign that is paused or resumed as a whole say so."""
    if scope.campaign_id is None or len(scope.parts) > 1:
        return
    before = CampaignStatus.open if status is CampaignStatus.paused else CampaignStatus.paused
    if get_campaign(session, viewer, scope.campaign_id).status is before:
        set_campaign_status(session, viewer, scope.campaign_id, status, now)


# --- resuming -------------------------------------------------------------------------------------------------------------------------


def _resumable(session: Session, viewer: Viewer, scope: Scope) -> list[ColumnElement[bool]]:
    lifted = suspensions_of(session, viewer, scope)
    where = [*_where(session, viewer, scope), _is(EnrollmentStatus.paused), ~held(but=lifted)]
    return [*where, col(Enrollment.alone_since).is_(None)] if scope.parts else where


def _plan(session: Session, viewer: Viewer, scope: Scope, now: datetime, extend: bool, spread: timedelta | None) -> ResumePlan:
    if spread is not None and spread <= timedelta(0):
        raise InvalidInput(f"The spread is {spread}; give a duration such as 2 hours, or none.")
    paused = count(session, [*_where(session, viewer, scope), _is(EnrollmentStatus.paused)])
    steps: dict[str, int] = {}
    resumed = 0
    for version_id, step_id, standing_there, at_once, called in _by_step(session, _resumable(session, viewer, scope), now):
        resumed += standing_there
        # A longer wait fires nobody; who was called by an event looks at it whatever the clock says.
        fires = called if extend and is_lengthened(program_of(session, version_id), step_id) else at_once
        if fires:
            steps[step_id or ""] = steps.get(step_id or "", 0) + fires
    at_once = sum(steps.values())
    return ResumePlan(paused, resumed, at_once, steps, extend, now + spread if spread and at_once > 1 else None)


def _by_step(session: Session, where: Conditions, now: datetime) -> Sequence[Any]:
    """Return version, step, how many stand there, how many of them are due or called, and how many were called by something."""
    due, called = col(Enrollment.due_at) <= now, col(Enrollment.woken_at) <= now
    place = (col(Enrollment.version_id), col(Enrollment.step_id))
    counts = (func.count(), func.count(case((or_(due, called), 1))), func.count(case((called, 1))))
    return session.execute(select(*place, *counts).where(*where).group_by(*place)).all()


def _resume_one_by_one(session: Session, where: Conditions, plan: ResumePlan, now: datetime, told: Mapping[str, Any]) -> None:
    """Resume with a time of its own for each: a wait made longer, or a place in the spread."""
    foresight, slots = WaitEstimator(session, now), _slots(plan, now)
    for _look in looks(session, where):
        for people in standing(session, where):
            arrived = {each.id: _arrived(each, plan.extended, now) for each in people}
            waits = foresight.waiting([(each, at) for each in people if plan.extended and (at := arrived[each.id])])
            rows = [_resumed(each, arrived[each.id], waits.get(each.id), slots, now) for each in people]
            set_each(session, rows, MOVING, TimelineKind.resumed, now, told)


def _slots(plan: ResumePlan, now: datetime) -> Iterator[datetime]:
    """Iterate over the times at which those due at once go on, evenly spaced; who comes on top goes now."""
    if plan.spread_until is not None:
        for number in range(plan.at_once):
            yield now + (plan.spread_until - now) * number / plan.at_once
    while True:
        yield now


def _arrived(each: Standing, extend: bool, now: datetime) -> datetime | None:
    if not extend or each.arrived_at is None or each.paused_at is None:
        return each.arrived_at
    return each.arrived_at + (now - each.paused_at)


def _resumed(each: Standing, arrived_at: datetime | None, wait: Sleep | None, slots: Iterator[datetime], now: datetime) -> dict[str, Any]:
    row: dict[str, Any] = {"id": each.id, "arrived_at": arrived_at, "due_at": each.due_at, "woken_at": each.woken_at}
    is_due = each.due_at is not None and each.due_at <= now
    is_called = each.woken_at is not None and each.woken_at <= now
    if wait is not None and not is_called:
        # Its run sleeps until the old time, or without end when that has passed: then it is called at the new one.
        return row | {"due_at": wait.until, "woken_at": wait.until if is_due else None}
    if is_due or is_called:
        at = next(slots)
        return row | {"due_at": at if is_due else each.due_at, "woken_at": at}
    return row


def _going_on(now: datetime) -> dict[str, Any]:
    """Return the columns of those who go on with the clock as it went: what fell due is due now, and what happened is looked at now."""
    due = col(Enrollment.due_at) <= now
    return {
        **MOVING,
        "due_at": case((due, now), else_=col(Enrollment.due_at)),
        "woken_at": case((or_(due, col(Enrollment.woken_at) <= now), now), else_=col(Enrollment.woken_at)),
    }


def _ended(reason: str, now: datetime) -> dict[str, Any]:
    """Return the columns of those who are stopped; `woken_at` lets the worker close the runs that there are."""
    return {
        "status": EnrollmentStatus.ended,
        "outcome": Outcome.stopped.value,
        "reason": reason,
        "ended_at": now,
        "live_key": None,
        "due_at": None,
        "awaits": None,
        "why": "",
        "woken_at": case((col(Enrollment.flow_run_id).is_not(None), now), else_=None),
    }
