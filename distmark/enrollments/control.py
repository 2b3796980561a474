"""Control: pausing, resuming, stopping and draining the enrollments of a scope, however many, by a few statements.

A pause keeps all enrollments of its scope at their steps, and new enrollments in the scope start paused. A wake that is under way ends
after its present step. No enrollment is lost. A pause holds until its own scope is resumed: an enrollment under two pauses moves again when
both are lifted.
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
from distmark.enrollments.bulk import RESUMED, Conditions, change, count, set_columns, set_each, until_none_left
from distmark.enrollments.model import EnrollmentStatus, SuspensionKind, TimelineKind
from distmark.enrollments.shown import ShownEnrollments, changed, only_shown, shown_enrollments
from distmark.enrollments.suspensions import Scope, covers, is_held, lift, lock_suspensions, suspend, suspensions, suspensions_of
from distmark.enrollments.table import Enrollment, Suspension
from distmark.enrollments.wait_estimates import EnrollmentAtStep, WaitEstimator, lengthens_wait, lock_enrollments
from distmark.errors import InvalidInput, NotFound
from distmark.journeys.model import Sleep
from distmark.journeys.outcomes import Outcome
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
    """The effect of a resume: of `paused` enrollments `resumed` move again, and `kept` stay under another pause or a pause of their own.

    `at_once` of the resumed ones are due now, counted by step in `steps`; with a spread they are spaced evenly until `spread_until`.
    """

    paused: int
    resumed: int
    at_once: int
    steps: Mapping[str, int]
    extended: bool = False
    spread_until: datetime | None = None

    @property
    def kept(self) -> int:
        """The number of enrollments that stay paused."""
        return self.paused - self.resumed


@dataclass(frozen=True, slots=True)
class ScopeStatus:
    """The enrollments of a scope now, counted by status, and its open suspensions, newest first, as far as the viewer may see them.

    The viewer may lift those in `own`; those in `around` hold the whole scope, too, and are lifted by resuming their own scope; those in
    `within` hold only a part of it.
    """

    moving: int
    paused: int
    parked: int
    own: Sequence[Suspension] = ()
    around: Sequence[Suspension] = ()
    within: Sequence[Suspension] = ()

    @property
    def inside(self) -> int:
        """The number of live enrollments: a stop would end them."""
        return self.moving + self.paused + self.parked

    @property
    def kinds(self) -> list[SuspensionKind]:
        """The kinds of suspension that hold the whole scope, in the order of `SuspensionKind`."""
        found = {suspension.kind for suspension in (*self.own, *self.around)}
        return [kind for kind in SuspensionKind if kind in found]


def scope_status(session: Session, viewer: Viewer, scope: Scope) -> ScopeStatus:
    """Return the status of the scope; NotFound when it names a row outside the viewer's sight. No other permission is needed."""
    scope = _visible_part(session, viewer, scope)
    statuses = select(col(Enrollment.status), func.count()).where(*_in_scope(session, viewer, scope)).group_by(col(Enrollment.status))
    counts = dict(session.execute(statuses).tuples().all())
    moving, paused, parked = (counts.get(each, 0) for each in (EnrollmentStatus.waiting, EnrollmentStatus.paused, EnrollmentStatus.parked))
    return ScopeStatus(moving, paused, parked, *_suspensions_at(session, viewer, scope))


def suspension_kinds(session: Session, viewer: Viewer, scope: Scope) -> list[SuspensionKind]:
    """Return the kinds of suspension that hold the whole scope now: paused, draining, both or none."""
    return ScopeStatus(0, 0, 0, *_suspensions_at(session, viewer, _visible_part(session, viewer, scope))).kinds


def pause(session: Session, viewer: Viewer, scope: Scope, now: datetime, reason: str = "") -> int:
    """Pause all enrollments of the scope, and return how many were moving. Contacts that enter it from now on start paused.

    NotFound for a scope outside the viewer's sight, NotAllowed without the permission. A partner's people pause their own part of a scope.
    """
    scope = _permitted_part(session, viewer, scope)
    lock_suspensions(session, viewer.brand_id)
    where = _in_scope(session, viewer, scope)
    alone = None if scope.parts else now
    if scope.parts:
        suspend(session, viewer, scope, SuspensionKind.paused, now, reason)
        _show_on_campaign(session, viewer, scope, CampaignStatus.paused, now)
    else:
        set_columns(session, [*where, _is(EnrollmentStatus.paused)], alone_since=now)
    values = {"status": EnrollmentStatus.paused, "paused_at": now, "alone_since": alone}
    detail = {"by": viewer.user_id, "reason": reason}
    paused = change(session, [*where, _is(EnrollmentStatus.waiting)], values, TimelineKind.paused, now, detail)
    _audit(session, viewer, scope, "paused", now, count=paused, reason=reason)
    return paused


def plan_resume(
    session: Session, viewer: Viewer, scope: Scope, now: datetime, *, extend: bool = False, spread: timedelta | None = None
) -> ResumePlan:
    """Return the effect that `resume` would have now, changing nothing."""
    return _plan(session, viewer, _permitted_part(session, viewer, scope), now, extend, spread)


def resume(
    session: Session,
    viewer: Viewer,
    scope: Scope,
    now: datetime,
    *,
    extend: bool = False,
    spread: timedelta | None = None,
    shown: ShownEnrollments | None = None,
) -> ResumePlan:
    """Lift the scope's pause and drain, resume its enrollments that no other pause holds, and return the effect.

    With `extend` their waits become longer by the length of the pause. Without it the clock went on, and enrollments that fell due during
    the pause are due now, or spaced evenly over `spread`. Listed enrollments that are parked try their step again. A partner's people
    cannot lift a suspension that the brand made. SelectionChanged when more enrollments would resume than were `shown`.
    """
    scope = _permitted_part(session, viewer, scope)
    lock_suspensions(session, viewer.brand_id)
    present = shown_enrollments(session, _resumable(session, viewer, scope))
    if shown is not None and (present.count > shown.count or present.newest_id > shown.newest_id):
        raise changed(present.count, shown.count)
    plan = _plan(session, viewer, scope, now, extend, spread)
    where = _resumable(session, viewer, scope)
    lift(session, viewer, scope, now)
    if scope.parts:
        _show_on_campaign(session, viewer, scope, CampaignStatus.open, now)
    else:
        listed = _in_scope(session, viewer, scope)
        set_columns(session, [*listed, _is(EnrollmentStatus.paused)], alone_since=None)
        unpark(session, listed, now, viewer.user_id)
    detail = {"by": viewer.user_id, "extended": extend}
    if extend or plan.spread_until is not None:
        _resume_one_by_one(session, where, plan, now, detail)
    else:
        change(session, where, _resumed_columns(now), TimelineKind.resumed, now, detail)
    spread_until = plan.spread_until.isoformat() if plan.spread_until else None
    _audit(session, viewer, scope, "resumed", now, count=plan.resumed, extended=extend, spread_until=spread_until)
    return plan


def live_enrollments(session: Session, viewer: Viewer, scope: Scope) -> ShownEnrollments:
    """Return the enrollments that `stop` would end now, for a page before the act."""
    return shown_enrollments(session, _live(session, viewer, _permitted_part(session, viewer, scope)))


def resumable_enrollments(session: Session, viewer: Viewer, scope: Scope) -> ShownEnrollments:
    """Return the enrollments that `resume` would resume now, for a page before the act."""
    return shown_enrollments(session, _resumable(session, viewer, _permitted_part(session, viewer, scope)))


def live_contact_ids(session: Session, viewer: Viewer, scope: Scope, limit: int) -> list[int]:
    """Return the contacts of the scope's live enrollments, at most `limit`, in the order of entering."""
    live = _live(session, viewer, _visible_part(session, viewer, scope))
    return list(session.execute(select(col(Enrollment.contact_id)).where(*live).order_by(col(Enrollment.id)).limit(limit)).scalars())


def plan_stop(session: Session, viewer: Viewer, scope: Scope) -> int:
    """Return how many enrollments `stop` would end now, changing nothing."""
    return count(session, _live(session, viewer, _permitted_part(session, viewer, scope)))


def stop(session: Session, viewer: Viewer, scope: Scope, reason: str, now: datetime, shown: ShownEnrollments | None = None) -> int:
    """End the scope's live enrollments for a person's reason, and return how many. Their runs end at once. Contacts may still enter.

    With `shown` only the enrollments that were shown end; SelectionChanged when more of them are live than were shown.
    """
    scope = _permitted_part(session, viewer, scope)
    live = only_shown(session, _live(session, viewer, scope), shown)
    detail = {"outcome": Outcome.stopped.value, "reason": reason, "by": viewer.user_id}
    stopped = change(session, live, _stopped_columns(reason, now), TimelineKind.ended, now, detail)
    _audit(session, viewer, scope, "stopped", now, count=stopped, reason=reason)
    return stopped


def drain(session: Session, viewer: Viewer, scope: Scope, now: datetime, reason: str = "") -> int:
    """Keep contacts from entering the scope until it is resumed, and return how many live enrollments will finish."""
    scope = _permitted_part(session, viewer, scope)
    if not scope.parts:
        raise InvalidInput("Enrollments that are inside already cannot be drained; drain a journey, campaign, partner or contact.")
    lock_suspensions(session, viewer.brand_id)
    suspend(session, viewer, scope, SuspensionKind.draining, now, reason)
    inside = count(session, _live(session, viewer, scope))
    _audit(session, viewer, scope, "drained", now, count=inside, reason=reason)
    return inside


def unpark(session: Session, where: Conditions, now: datetime, user_id: int | None) -> int:
    """Let the parked enrollments among these try their step again, and return how many: a person says that its error is corrected."""
    values = {"status": EnrollmentStatus.waiting, "tries": 0, "error": "", "why": "time", "rules": [], "due_at": now, "woken_at": now}
    return change(session, [*where, _is(EnrollmentStatus.parked)], values, TimelineKind.resumed, now, {"by": user_id, "parked": True})


# --- scopes ---------------------------------------------------------------------------------------------------------------------------


def _permitted_part(session: Session, viewer: Viewer, scope: Scope) -> Scope:
    """Return the part of the scope that the viewer may change; NotAllowed without the permission, else errors as in `_visible_part`."""
    require(viewer, Permission.enrol_contacts if viewer.role is Role.partner else Permission.publish_campaigns)
    return _visible_part(session, viewer, scope)


def _visible_part(session: Session, viewer: Viewer, scope: Scope) -> Scope:
    """Return the part of the scope that the viewer may see; InvalidInput for an unclear scope, NotFound for one outside their sight."""
    if bool(scope.parts) == bool(scope.enrollment_ids):
        raise InvalidInput("Say what is meant: a journey, version, campaign, partner or contact, or a list of enrollments.")
    _require_visible(session, viewer, scope)
    return replace(scope, partner_id=viewer.partner_id) if viewer.role is Role.partner and scope.parts else scope


def _require_visible(session: Session, viewer: Viewer, scope: Scope) -> None:
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
    if scope.enrollment_ids and count(session, _in_scope(session, viewer, scope)) != len(scope.enrollment_ids):
        raise NotFound(f"Not all of the enrollments {_first_few(scope.enrollment_ids)} are yours; choose among those that you see.")


def _suspensions_at(session: Session, viewer: Viewer, scope: Scope) -> tuple[list[Suspension], list[Suspension], list[Suspension]]:
    """Return the open suspensions of the scope: those that the viewer may lift, others that hold all of it, and those of its parts."""
    own = suspensions_of(session, viewer, scope)
    known = {suspension.id for suspension in own}
    others = [suspension for suspension in suspensions(session, viewer) if suspension.id not in known]
    columns = _common_columns(session, viewer, scope)
    around = [suspension for suspension in others if covers(suspension, columns)]
    known |= {suspension.id for suspension in around}
    parts = scope.parts
    within = [row for row in others if row.id not in known and parts and all(getattr(row, name) == parts[name] for name in parts)]
    return own, around, within


def _common_columns(session: Session, viewer: Viewer, scope: Scope) -> dict[str, int | None]:
    """Return the columns that all enrollments of the scope have in common, such as the journey of a version; None where they differ."""
    columns: dict[str, int | None] = dict(scope.columns())
    if len(scope.enrollment_ids) == 1:
        row = session.get_one(Enrollment, scope.enrollment_ids[0])
        return {name: getattr(row, name) for name in columns}
    if scope.version_id is not None:
        columns["journey_id"] = session.get_one(JourneyVersion, scope.version_id).journey_id
    if scope.campaign_id is not None:
        campaign = get_campaign(session, viewer, scope.campaign_id)
        columns |= {"journey_id": campaign.journey_id, "partner_id": columns["partner_id"] or campaign.partner_id}
    if scope.contact_id is not None:
        columns["partner_id"] = get_contact(session, viewer, scope.contact_id).partner_id
    return columns


def _first_few(ids: Sequence[int]) -> str:
    return ", ".join(str(each) for each in ids[:5]) + (" ..." if len(ids) > 5 else "")


def _in_scope(session: Session, viewer: Viewer, scope: Scope) -> list[ColumnElement[bool]]:
    where = [may_see(Enrollment, viewer)]
    where += [getattr(Enrollment, name) == value for name, value in scope.parts.items()]
    return [*where, among(session, col(Enrollment.id), scope.enrollment_ids)] if scope.enrollment_ids else where


def _live(session: Session, viewer: Viewer, scope: Scope) -> list[ColumnElement[bool]]:
    return [*_in_scope(session, viewer, scope), col(Enrollment.status) != EnrollmentStatus.ended]


def _is(status: EnrollmentStatus) -> ColumnElement[bool]:
    return col(Enrollment.status) == status


def _audit(session: Session, viewer: Viewer, scope: Scope, action: str, now: datetime, **detail: Any) -> None:
    subjects = [("enrollment", each) for each in scope.enrollment_ids] or [
        next((SUBJECTS[name], scope.parts[name]) for name in SUBJECTS if name in scope.parts)
    ]
    for kind, subject_id in subjects:
        record(session, viewer.brand_id, viewer.user_id, action, kind, subject_id, now, None, **scope.parts, **detail)


def _show_on_campaign(session: Session, viewer: Viewer, scope: Scope, status: CampaignStatus, now: datetime) -> None:
    """Set the status of a campaign that is paused or resumed as a whole."""
    if scope.campaign_id is None or len(scope.parts) > 1:
        return
    before = CampaignStatus.open if status is CampaignStatus.paused else CampaignStatus.paused
    if get_campaign(session, viewer, scope.campaign_id).status is before:
        set_campaign_status(session, viewer, scope.campaign_id, status, now)


# --- resuming -------------------------------------------------------------------------------------------------------------------------


def _resumable(session: Session, viewer: Viewer, scope: Scope) -> list[ColumnElement[bool]]:
    """Return the conditions of the paused enrollments that no pause but the scope's own holds."""
    lifted = suspensions_of(session, viewer, scope)
    where = [*_in_scope(session, viewer, scope), _is(EnrollmentStatus.paused), ~is_held(but=lifted)]
    return [*where, col(Enrollment.alone_since).is_(None)] if scope.parts else where


def _plan(session: Session, viewer: Viewer, scope: Scope, now: datetime, extend: bool, spread: timedelta | None) -> ResumePlan:
    if spread is not None and spread <= timedelta(0):
        raise InvalidInput(f"The spread is {spread}; give a duration such as 2 hours, or none.")
    paused = count(session, [*_in_scope(session, viewer, scope), _is(EnrollmentStatus.paused)])
    steps: dict[str, int] = {}
    resumed = 0
    for version_id, step_id, there, at_once, called in _by_step(session, _resumable(session, viewer, scope), now):
        resumed += there
        # When waits become longer, only enrollments that an event called are due at once: they process it whatever the clock says.
        now_due = called if extend and lengthens_wait(program_of(session, version_id), step_id) else at_once
        if now_due:
            steps[step_id or ""] = steps.get(step_id or "", 0) + now_due
    at_once = sum(steps.values())
    return ResumePlan(paused, resumed, at_once, steps, extend, now + spread if spread and at_once > 1 else None)


def _by_step(session: Session, where: Conditions, now: datetime) -> Sequence[Any]:
    """Return by version and step three numbers of enrollments: all, those that are due or called by an event, and those called."""
    due, called = col(Enrollment.due_at) <= now, col(Enrollment.woken_at) <= now
    place = (col(Enrollment.version_id), col(Enrollment.step_id))
    counts = (func.count(), func.count(case((or_(due, called), 1))), func.count(case((called, 1))))
    return session.execute(select(*place, *counts).where(*where).group_by(*place)).all()


def _resume_one_by_one(session: Session, where: Conditions, plan: ResumePlan, now: datetime, detail: Mapping[str, Any]) -> None:
    """Resume each enrollment at a time of its own: after a longer wait, or at its time within the spread."""
    estimator, slots = WaitEstimator(session, now), _slots(plan, now)
    for _attempt in until_none_left(session, where):
        for batch in lock_enrollments(session, where):
            arrived = {each.id: _arrived_at(each, plan.extended, now) for each in batch}
            waits = estimator.waits_of([(each, at) for each in batch if plan.extended and (at := arrived[each.id])])
            rows = [_resumed(each, arrived[each.id], waits.get(each.id), slots, now) for each in batch]
            set_each(session, rows, RESUMED, TimelineKind.resumed, now, detail)


def _slots(plan: ResumePlan, now: datetime) -> Iterator[datetime]:
    """Iterate over the times at which enrollments that are due at once go on: evenly spaced over the spread, and then now."""
    if plan.spread_until is not None:
        for number in range(plan.at_once):
            yield now + (plan.spread_until - now) * number / plan.at_once
    while True:
        yield now


def _arrived_at(each: EnrollmentAtStep, extend: bool, now: datetime) -> datetime | None:
    if not extend or each.arrived_at is None or each.paused_at is None:
        return each.arrived_at
    return each.arrived_at + (now - each.paused_at)


def _resumed(
    each: EnrollmentAtStep, arrived_at: datetime | None, wait: Sleep | None, slots: Iterator[datetime], now: datetime
) -> dict[str, Any]:
    row: dict[str, Any] = {"id": each.id, "arrived_at": arrived_at, "due_at": each.due_at, "woken_at": each.woken_at}
    is_due = each.due_at is not None and each.due_at <= now
    is_called = each.woken_at is not None and each.woken_at <= now
    if wait is not None and not is_called:
        # The run sleeps until the old time, or without end when that has passed: then it is called at the new time.
        return row | {"due_at": wait.until, "woken_at": wait.until if is_due else None}
    if is_due or is_called:
        at = next(slots)
        return row | {"due_at": at if is_due else each.due_at, "woken_at": at}
    return row


def _resumed_columns(now: datetime) -> dict[str, Any]:
    """Return the columns of enrollments that resume without longer waits: a time that fell due, and a call by an event, become now."""
    due = col(Enrollment.due_at) <= now
    return {
        **RESUMED,
        "due_at": case((due, now), else_=col(Enrollment.due_at)),
        "woken_at": case((or_(due, col(Enrollment.woken_at) <= now), now), else_=col(Enrollment.woken_at)),
    }


def _stopped_columns(reason: str, now: datetime) -> dict[str, Any]:
    """Return the columns of stopped enrollments; `woken_at` lets the worker end the runs that exist."""
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
