"""The control pages of journeys, versions, campaigns, contacts, partners and enrollments: suspensions, and the acts with their effects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session, col, select
from starlette.datastructures import FormData

from distmark.campaigns.offers import offered_journey
from distmark.campaigns.service import get_campaign
from distmark.campaigns.table import CampaignStatus
from distmark.contacts.service import contacts_by_id, get_contact
from distmark.enrollments import control
from distmark.enrollments.control import ResumePlan, ScopeStatus
from distmark.enrollments.live_counts import live_by_partner
from distmark.enrollments.model import SuspensionKind, TimelineKind
from distmark.enrollments.service import enrollment_of
from distmark.enrollments.shown import ShownEnrollments
from distmark.enrollments.suspensions import PARTS, Scope, suspensions
from distmark.enrollments.table import Suspension, TimelineEntry
from distmark.errors import InvalidInput, NotFound, SelectionChanged
from distmark.journeys import service as journeys
from distmark.journeys.program import Program
from distmark.journeys.table import Journey, JourneyVersion
from distmark.partners.model import Permission, Viewer
from distmark.partners.service import get_partner, names_of_users, partners_of
from distmark.partners.table import Partner
from distmark.partners.translations import translated
from distmark.sql import id_of
from distmark.web import errors
from distmark.web.forms import posted_form, text
from distmark.web.i18n import N_, person_name
from distmark.web.ids import Id, chosen_id
from distmark.web.permissions import needs
from distmark.web.status_text import step_name
from distmark.web.visit import Visit

router = APIRouter()
LONGEST_REASON = 300
FEW = 5  # so many people are named where a stop is confirmed
SPREADS: Mapping[int, str] = {0: N_("All at once"), 1: N_("Over 1 hour"), 6: N_("Over 6 hours"), 24: N_("Over 24 hours")}
# (enrollments due at once, hours): from so many on, the spread over these hours is suggested.
SUGGESTED = ((10_000, 24), (1_000, 6), (100, 1))


@dataclass(frozen=True, slots=True)
class ControlSubject:
    """The subject of a control page: its scope and name, this page's address (`path`), and the page of the thing itself (`back`)."""

    scope: Scope
    what: str  # a message id
    name: str
    path: str
    back: str
    marked_paused: bool = False  # by its own status, beside all suspensions
    program: Program | None = None
    move_path: str = ""  # the page that moves its enrollments to another version

    @property
    def stop_path(self) -> str:
        """The address of the page that confirms a stop."""
        return f"{self.path}{'&' if '?' in self.path else '?'}act=stop"


@dataclass(frozen=True, slots=True)
class SuspensionRow:
    """One suspension in words: its time, author (`who`) and reason; `where` names its scope, and it is lifted on the page at `path`."""

    kind: SuspensionKind
    at: datetime
    who: str
    reason: str
    where: str = ""
    path: str = ""


FindSubject = Callable[[Session], ControlSubject]


# --- subjects -----------------------------------------------------------------------------------------------------------------------------


def _journey(visit: Visit, key: str) -> FindSubject:
    def find(session: Session) -> ControlSubject:
        row = offered_journey(session, visit.viewer, key)
        name = visit.translator.named(row.name) or row.key
        return ControlSubject(Scope(journey_id=row.id), N_("Journey"), name, f"/journeys/{key}/control", f"/journeys/{key}")

    return find


def _version(visit: Visit, key: str, number: int) -> FindSubject:
    def find(session: Session) -> ControlSubject:
        row = offered_journey(session, visit.viewer, key)
        version = next((each for each in journeys.versions_of(session, id_of(row)) if each.number == number), None)
        if version is None:
            raise NotFound(f"This journey has no version {number}.")
        name = f"{visit.translator.named(row.name) or row.key} v{number}"
        program = journeys.program_of(session, id_of(version)) if version.registered_at else None
        path, move = f"/journeys/{key}/{number}/control", f"/journeys/{key}/{number}/move" if version.registered_at else ""
        return ControlSubject(
            Scope(version_id=version.id), N_("Version"), name, path, f"/journeys/{key}?v={number}", program=program, move_path=move
        )

    return find


def _campaign(visit: Visit, campaign_id: int) -> FindSubject:
    def find(session: Session) -> ControlSubject:
        row = get_campaign(session, visit.viewer, campaign_id)
        version = journeys.newest_registered(session, row.journey_id)
        program = journeys.program_of(session, id_of(version)) if version else None
        back, is_paused = f"/campaigns/{campaign_id}", row.status is CampaignStatus.paused and visit.viewer.partner_id is None
        name = translated(row, "name", visit.language)
        return ControlSubject(Scope(campaign_id=row.id), N_("Campaign"), name, f"{back}/control", back, is_paused, program)

    return find


def _contact(visit: Visit, contact_id: int) -> FindSubject:
    def find(session: Session) -> ControlSubject:
        row = get_contact(session, visit.viewer, contact_id)
        name = person_name(visit.language, row.last_name, row.first_name) if row.last_name or row.first_name else row.email or str(row.id)
        back = f"/contacts/{contact_id}"
        return ControlSubject(Scope(contact_id=row.id), N_("Contact"), name, f"{back}/control", back)

    return find


def _enrollment(visit: Visit, enrollment_id: int) -> FindSubject:
    def find(session: Session) -> ControlSubject:
        row = enrollment_of(session, visit.viewer, enrollment_id)
        person = _contact(visit, row.contact_id)(session)
        journey = session.get_one(Journey, row.journey_id)
        name = visit.gettext(
            N_("%(person)s in “%(journey)s”"), person=person.name, journey=visit.translator.named(journey.name) or journey.key
        )
        path, program = f"/enrollments/{enrollment_id}/control", journeys.program_of(session, row.version_id)
        return ControlSubject(
            Scope.listed([enrollment_id]), N_("One person's journey"), name, path, person.back, row.alone_since is not None, program
        )

    return find


def _partner(visit: Visit, partner_id: int) -> FindSubject:
    def find(session: Session) -> ControlSubject:
        row = get_partner(session, visit.viewer, partner_id)
        name = translated(row, "name", visit.language)
        return ControlSubject(Scope(partner_id=row.id), N_("Partner"), name, f"/partners/{partner_id}/control", "/partners")

    return find


def _narrowed_to_partner(visit: Visit, find: FindSubject) -> FindSubject:
    """Return the subject, narrowed to one partner when the address names it: ?partner=ID."""
    partner_id = chosen_id(visit.request.query_params.get("partner", ""))
    if partner_id is None or visit.viewer.partner_id is not None:
        return find

    def narrowed(session: Session) -> ControlSubject:
        subject, partner = find(session), get_partner(session, visit.viewer, partner_id)
        name = visit.gettext(N_("%(name)s, only of %(partner)s"), name=subject.name, partner=translated(partner, "name", visit.language))
        scope = replace(subject.scope, partner_id=partner.id)
        return replace(subject, scope=scope, name=name, path=f"{subject.path}?partner={partner.id}", marked_paused=False)

    return narrowed


# --- routes -------------------------------------------------------------------------------------------------------------------------------


@router.get("/journeys/{key}/control")
def journey_control(key: str, visit: Visit = needs(Permission.see_journeys)) -> Response:
    """Show the control page of a journey with all its versions."""
    return _page(visit, _narrowed_to_partner(visit, _journey(visit, key)))


@router.post("/journeys/{key}/control")
def control_journey(key: str, visit: Visit = needs(Permission.publish_campaigns), form: FormData = posted_form) -> Response:
    """Pause, resume, drain or stop a journey with all its versions."""
    return _act(visit, _narrowed_to_partner(visit, _journey(visit, key)), form)


@router.get("/journeys/{key}/{number}/control")
def version_control(key: str, number: Id, visit: Visit = needs(Permission.see_journeys)) -> Response:
    """Show the control page of one version of a journey."""
    return _page(visit, _narrowed_to_partner(visit, _version(visit, key, number)))


@router.post("/journeys/{key}/{number}/control")
def control_version(key: str, number: Id, visit: Visit = needs(Permission.publish_campaigns), form: FormData = posted_form) -> Response:
    """Pause, resume, drain or stop one version of a journey."""
    return _act(visit, _narrowed_to_partner(visit, _version(visit, key, number)), form)


@router.get("/campaigns/{campaign_id}/control")
def campaign_control(campaign_id: Id, visit: Visit = needs(Permission.see_campaigns)) -> Response:
    """Show the control page of a campaign; users of a partner see their own part of it."""
    return _page(visit, _narrowed_to_partner(visit, _campaign(visit, campaign_id)))


@router.post("/campaigns/{campaign_id}/control")
def control_campaign(campaign_id: Id, visit: Visit = needs(Permission.see_campaigns), form: FormData = posted_form) -> Response:
    """Pause, resume, drain or stop a campaign: users of the brand act on all of it, users of a partner on their own part."""
    return _act(visit, _narrowed_to_partner(visit, _campaign(visit, campaign_id)), form)


@router.get("/contacts/{contact_id}/control")
def contact_control(contact_id: Id, visit: Visit = needs(Permission.see_contacts)) -> Response:
    """Show the control page of a contact in all journeys."""
    return _page(visit, _narrowed_to_partner(visit, _contact(visit, contact_id)))


@router.post("/contacts/{contact_id}/control")
def control_contact(contact_id: Id, visit: Visit = needs(Permission.enrol_contacts), form: FormData = posted_form) -> Response:
    """Pause, resume, drain or stop a contact in all journeys."""
    return _act(visit, _narrowed_to_partner(visit, _contact(visit, contact_id)), form)


@router.get("/enrollments/{enrollment_id}/control")
def enrollment_control(enrollment_id: Id, visit: Visit = needs(Permission.see_contacts)) -> Response:
    """Show the control page of one enrollment."""
    return _page(visit, _enrollment(visit, enrollment_id))


@router.post("/enrollments/{enrollment_id}/control")
def control_enrollment(enrollment_id: Id, visit: Visit = needs(Permission.enrol_contacts), form: FormData = posted_form) -> Response:
    """Pause, resume or stop one enrollment."""
    return _act(visit, _enrollment(visit, enrollment_id), form)


@router.get("/partners")
def partner_list(visit: Visit = needs(Permission.see_campaigns)) -> Response:
    """List the partners with the number of their live enrollments, and their suspensions."""
    with visit.reading() as session:
        live = live_by_partner(session, visit.viewer)
        held = [(row.partner_id, row.kind) for row in suspensions(session, visit.viewer) if set(_parts_of(row)) == {"partner_id"}]
        partners = partners_of(session, visit.viewer)
    kinds = {partner.id: [kind for kind in SuspensionKind if (partner.id, kind) in held] for partner in partners}
    return visit.page("control/partners.html", partners=partners, live=live, kinds=kinds, held=sum(map(bool, kinds.values())))


@router.get("/partners/{partner_id}/control")
def partner_control(partner_id: Id, visit: Visit = needs(Permission.see_campaigns)) -> Response:
    """Show the control page of a partner."""
    return _page(visit, _partner(visit, partner_id))


@router.post("/partners/{partner_id}/control")
def control_partner(partner_id: Id, visit: Visit = needs(Permission.see_campaigns), form: FormData = posted_form) -> Response:
    """Pause, resume, drain or stop all enrollments of a partner; users of a partner may act on their own partner."""
    return _act(visit, _partner(visit, partner_id), form)


# --- acts ---------------------------------------------------------------------------------------------------------------------------------


def _act(visit: Visit, find: FindSubject, form: FormData) -> Response:
    action, show = text(form, "action"), _stop_page if text(form, "action") == "stop" else _page
    shown = ShownEnrollments.read(text(form, "shown"))
    try:
        reason = _reason(form, action)
        with visit.writing() as session:
            subject = find(session)
            if action == "stop" and shown is None:
                control.live_enrollments(session, visit.viewer, subject.scope)  # the permission comes before anything else
                return visit.go(subject.stop_path)
            message, values = _apply(session, visit, subject.scope, action, reason, form, shown)
    except (InvalidInput, SelectionChanged) as error:
        status = 409 if isinstance(error, SelectionChanged) else 422
        return show(visit, find, wrong=errors.explain(error, visit.language), action=action, reason=text(form, "reason"), status=status)
    return visit.go(subject.path, message, **{name: visit.translator.number(value) for name, value in values.items()})


def _stop_page(visit: Visit, find: FindSubject, *, wrong: str = "", action: str = "", reason: str = "", status: int = 200) -> Response:
    """Show how many people a stop would end, by name when they are few, and ask for the reason."""
    with visit.reading() as session:
        subject = find(session)
        ends = control.live_enrollments(session, visit.viewer, subject.scope)
        ids = control.live_contact_ids(session, visit.viewer, subject.scope, FEW + 1) if visit.viewer.may(Permission.see_contacts) else []
        people = contacts_by_id(session, visit.viewer, ids) if len(ids) <= FEW else {}
    return visit.at(subject.stop_path).page(
        "control/stop.html",
        status=status,
        subject=subject,
        ends=ends,
        people=[people[contact_id] for contact_id in ids if contact_id in people],
        reason=reason,
        wrong=wrong,
        longest=LONGEST_REASON,
    )


def _apply(
    session: Session, visit: Visit, scope: Scope, action: str, reason: str, form: FormData, shown: ShownEnrollments | None
) -> tuple[str, dict[str, int]]:
    """Carry the act out, and return the message about it (a message id) with its numbers."""
    if action == "pause":
        control.pause(session, visit.viewer, scope, visit.now, reason)
        return N_("Paused. Nothing is sent until it is resumed."), {}
    if action == "drain":
        control.drain(session, visit.viewer, scope, visit.now, reason)
        return N_("Nobody new is let in from now on; whoever is inside finishes."), {}
    if action == "stop":
        ended = control.stop(session, visit.viewer, scope, reason, visit.now, shown)
        if newer := control.plan_stop(session, visit.viewer, scope):
            return N_("Ended; people: %(count)s. Entered since you looked, and still inside: %(newer)s."), {"count": ended, "newer": newer}
        return N_("Ended; people: %(count)s."), {"count": ended}
    if action != "resume":
        raise InvalidInput("It is not said what to do; choose to pause, resume, drain or stop.")
    extend, spread = text(form, "clock") == "extend", _spread(form)
    plan = control.resume(session, visit.viewer, scope, visit.now, extend=extend, spread=spread, shown=shown)
    numbers = {"count": plan.resumed, "at_once": plan.at_once}
    if plan.spread_until is not None:
        return N_("Resumed; people: %(count)s, of them one after the other over the chosen time: %(at_once)s."), numbers
    return N_("Resumed; people: %(count)s, of them at once: %(at_once)s."), numbers


def _spread(form: FormData) -> timedelta | None:
    hours = text(form, "spread") or "0"
    if hours not in {str(each) for each in SPREADS}:
        raise InvalidInput(f'The time "{hours}" over which people go on is not offered; choose one of the list.')
    return timedelta(hours=int(hours)) or None


def _reason(form: FormData, action: str) -> str:
    reason = text(form, "reason")
    if action == "stop" and not reason:
        raise InvalidInput("The reason is missing; write why it ends, for the people concerned and the audit trail.")
    if len(reason) > LONGEST_REASON or not reason.isprintable():
        raise InvalidInput(f"The reason has {len(reason)} characters; write at most {LONGEST_REASON}, on one line.")
    return reason


# --- the page -----------------------------------------------------------------------------------------------------------------------------


def _page(visit: Visit, find: FindSubject, *, wrong: str = "", action: str = "", reason: str = "", status: int = 200) -> Response:
    if not wrong and visit.request.query_params.get("act") == "stop" and _may_act(visit.viewer):
        return _stop_page(visit, find)
    with visit.reading() as session:
        subject = find(session)
        stand = control.scope_status(session, visit.viewer, subject.scope)
        may_act = _may_act(visit.viewer)
        plans = _plans(session, visit, subject, stand) if may_act else None
        own, around, within = _suspension_rows(session, visit, stand)
        alone = _paused_alone(session, visit, subject, stand)
        resumable = control.resumable_enrollments(session, visit.viewer, subject.scope) if plans else None
    kinds = {row.kind for row in own}
    most = max((plan.at_once for plan in plans), default=0) if plans else 0
    return visit.at(subject.path).page(
        "control/page.html",
        status=status,
        subject=subject,
        stand=stand,
        sentences=_sentences(visit, stand, own, alone),
        plans=plans,
        resumable=resumable,
        own=own,
        around=around,
        within=within,
        may_act=may_act,
        is_paused=SuspensionKind.paused in kinds or (bool(subject.scope.enrollment_ids) and bool(alone or subject.marked_paused)),
        is_draining=SuspensionKind.draining in kinds,
        steps=_steps(visit, subject, plans[0]) if plans else [],
        spreads=SPREADS,
        suggested=next((hours for least, hours in SUGGESTED if most >= least), 0),
        longest=LONGEST_REASON,
        wrong=wrong,
        asked=action,
        reason=reason,
    )


def _may_act(viewer: Viewer) -> bool:
    return viewer.may(Permission.publish_campaigns) or viewer.may(Permission.enrol_contacts)


def _plans(session: Session, visit: Visit, subject: ControlSubject, stand: ScopeStatus) -> tuple[ResumePlan, ResumePlan] | None:
    """Return what resuming would do, without and with waits made longer by the pause; None when there is nothing to resume."""
    kept, extended = (control.plan_resume(session, visit.viewer, subject.scope, visit.now, extend=extend) for extend in (False, True))
    resumable = stand.own or kept.resumed or subject.marked_paused or (subject.scope.enrollment_ids and stand.parked)
    return (kept, extended) if resumable else None


def _steps(visit: Visit, subject: ControlSubject, plan: ResumePlan) -> list[tuple[str, int]]:
    """Return the steps at which enrollments would be due at once, as names with counts, the largest count first."""
    steps = subject.program.steps if subject.program else {}
    named = (
        (step_name(steps[step], visit.translator) if step in steps else step or visit.gettext(N_("Start")), n)
        for step, n in plan.steps.items()
    )
    return sorted(named, key=lambda pair: -pair[1])


def _sentences(visit: Visit, stand: ScopeStatus, own: Sequence[SuspensionRow], alone: SuspensionRow | None) -> list[str]:
    """Return the sentences about the scope's suspensions and live enrollments."""
    sentences = [_suspension_sentence(visit, row) for row in (*own, *([alone] if alone else ()))]
    if not sentences and not stand.kinds:
        sentences = [visit.gettext(N_("Running."))] if stand.inside else []
    if not stand.inside:
        return [*sentences, visit.gettext(N_("Nobody is inside now."))]
    inside = visit.translator.ngettext("%(n)s person is inside.", "%(n)s people are inside.", stand.inside)
    still = visit.gettext(N_("%(paused)s of them stand still."), paused=visit.translator.number(stand.paused)) if stand.paused else ""
    stuck = visit.gettext(N_("%(parked)s of them are stuck."), parked=visit.translator.number(stand.parked)) if stand.parked else ""
    return [*sentences, inside, *(sentence for sentence in (still, stuck) if sentence)]


def _suspension_sentence(visit: Visit, row: SuspensionRow) -> str:
    words = {
        SuspensionKind.paused: N_("Paused since %(time)s by %(name)s."),
        SuspensionKind.draining: N_("Since %(time)s nobody new is let in, says %(name)s."),
    }
    since = visit.gettext(words[row.kind], time=visit.translator.short(row.at, visit.now), name=row.who)
    return visit.translator.joined(since, visit.gettext(N_("Reason: %(reason)s."), reason=row.reason.rstrip("。.")) if row.reason else "")


def _suspension_rows(
    session: Session, visit: Visit, stand: ScopeStatus
) -> tuple[list[SuspensionRow], list[SuspensionRow], list[SuspensionRow]]:
    groups = stand.own, stand.around, stand.within
    names = names_of_users(session, visit.viewer, [row.by_id for group in groups for row in group])
    own, around, within = ([_suspension_row(session, visit, row, names) for row in group] for group in groups)
    return own, around, within


def _suspension_row(session: Session, visit: Visit, row: Suspension, names: Mapping[int, str]) -> SuspensionRow:
    where, path = _subject_link(session, visit, row)
    return SuspensionRow(row.kind, row.at, _author(visit, names, row.by_id), row.reason, where, path)


def _author(visit: Visit, names: Mapping[int, str], user_id: int | None) -> str:
    name = names.get(user_id) if user_id is not None else None
    return name or visit.gettext(N_("the system"))


def _subject_link(session: Session, visit: Visit, row: Suspension) -> tuple[str, str]:
    """Return the suspension's scope in words, and the page where the viewer can lift it; "" when the viewer cannot."""
    find: FindSubject | None = None
    given = _parts_of(row) - {"partner_id"}
    if row.contact_id is not None and given == {"contact_id"} and visit.viewer.may(Permission.see_contacts):
        find = _contact(visit, row.contact_id)
    elif row.campaign_id is not None and given == {"campaign_id"}:
        find = _campaign(visit, row.campaign_id)
    elif given == {"version_id"}:
        version = session.get_one(JourneyVersion, row.version_id)
        find = _version(visit, session.get_one(Journey, version.journey_id).key, version.number)
    elif given == {"journey_id"}:
        find = _journey(visit, session.get_one(Journey, row.journey_id).key)
    elif not given and row.partner_id is not None:
        find = _partner(visit, row.partner_id)
    if find is None:
        return visit.gettext(N_("Several things together")), ""
    subject = find(session)
    may_lift = _may_act(visit.viewer) and (visit.viewer.partner_id is None or row.by_partner)
    of_partner = row.partner_id is not None and bool(given) and visit.viewer.partner_id is None
    path = f"{subject.path}?partner={row.partner_id}" if of_partner else subject.path
    name = f"{visit.gettext(subject.what)} {subject.name}"
    if of_partner:
        name = visit.gettext(N_("%(name)s, only of %(partner)s"), name=name, partner=session.get_one(Partner, row.partner_id).name)
    return name, path if may_lift else ""


def _parts_of(row: Suspension) -> set[str]:
    return {name for name in PARTS if getattr(row, name) is not None}


def _paused_alone(session: Session, visit: Visit, subject: ControlSubject, stand: ScopeStatus) -> SuspensionRow | None:
    """Return the pause of an enrollment that was paused by itself. No suspension exists for it, so its timeline is read."""
    is_held = SuspensionKind.paused in stand.kinds and not subject.marked_paused
    if not (subject.scope.enrollment_ids and stand.paused) or is_held:
        return None
    paused = select(TimelineEntry).where(
        TimelineEntry.enrollment_id == subject.scope.enrollment_ids[0], TimelineEntry.kind == TimelineKind.paused
    )
    entry = session.exec(paused.order_by(col(TimelineEntry.id).desc()).limit(1)).first()
    if entry is None:
        return None
    by_id = entry.detail.get("by")
    names = names_of_users(session, visit.viewer, [by_id])
    return SuspensionRow(SuspensionKind.paused, entry.at, _author(visit, names, by_id), str(entry.detail.get("reason") or ""))
