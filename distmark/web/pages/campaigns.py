"""Campaigns: the list, and a campaign's members with their status, a preview of their messages, and sending."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session
from starlette.datastructures import FormData

from distmark.campaigns import service as campaigns
from distmark.campaigns.member_list import contacts_to_enrol, member_with_contact, neighbours, pending_by_campaign
from distmark.campaigns.service import partners_with_blocks
from distmark.campaigns.table import Campaign, CampaignStatus, Member, MemberStatus
from distmark.contacts.table import Contact
from distmark.enrollments import control
from distmark.enrollments import service as enrollments
from distmark.enrollments.live_counts import live_by_campaign
from distmark.enrollments.suspensions import Scope
from distmark.enrollments.table import Enrollment
from distmark.entries import service
from distmark.entries.model import EnrolVerdict
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.journeys import service as journeys
from distmark.journeys.program import Program
from distmark.journeys.service import journeys_by_id, newest_by_journey
from distmark.journeys.steps.send import SendStep
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.messages import service as messages
from distmark.messages.first_message import first_message_time
from distmark.messages.service import Preview
from distmark.partners.model import Permission
from distmark.partners.service import partners_of
from distmark.sql import id_of
from distmark.web import errors
from distmark.web.forms import numbers, posted_form, text, whole_numbers
from distmark.web.i18n import N_
from distmark.web.labels import MEMBER
from distmark.web.mail_frame import mail_document
from distmark.web.permissions import needs
from distmark.web.status_text import StatusText, status_of, step_name
from distmark.web.visit import Visit

router = APIRouter()
ROWS = 25
SEND_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One member in the table of members; `layer` is the topmost layer of blocks with a text for the member."""

    member: Member
    contact: Contact
    status: StatusText
    layer: str


@dataclass(frozen=True, slots=True)
class MemberPreview:
    """The preview beside the table: its contact and message, and the ids of the contacts before and after in the table."""

    contact: Contact
    member: Member
    preview: Preview | None
    problem: str
    place: int
    of: int
    before: int | None
    after: int | None


@dataclass(slots=True)
class CampaignContext:
    """A campaign with its journey and the version that contacts enter now, if there is one."""

    campaign: Campaign
    journey: Journey
    version: JourneyVersion | None
    program: Program | None
    sends: list[SendStep] = field(default_factory=list)
    partner_ids_with_blocks: frozenset[int] = frozenset()  # ids of partners with blocks of their own for all their members


@router.get("/campaigns")
def campaign_list(visit: Visit = needs(Permission.see_campaigns)) -> Response:
    """List the campaigns that the viewer may see, the open ones first."""
    with visit.reading() as session:
        found = campaigns.list_campaigns(session, visit.viewer)
        page: dict[str, Any] = {
            "campaigns": sorted(found, key=lambda row: (row.status is not CampaignStatus.open, row.name)),
            "journeys": journeys_by_id(session, visit.viewer),
            "pending": pending_by_campaign(session, visit.viewer),
            "live": live_by_campaign(session, visit.viewer),
        }
    return visit.page("campaigns/list.html", **page)


@router.get("/campaigns/new")
def new_campaign(visit: Visit = needs(Permission.publish_campaigns)) -> Response:
    """Show the form that opens a campaign."""
    return _new_page(visit, dict.fromkeys(("journey", "key", "name", "partner"), ""), "")


@router.post("/campaigns/new")
def create_campaign(visit: Visit = needs(Permission.publish_campaigns), form: FormData = posted_form) -> Response:
    """Open a campaign of a published journey, for one partner or for all partners."""
    values = {name: text(form, name) for name in ("journey", "key", "name", "partner")}
    try:
        with visit.writing() as session:
            partner_id = int(values["partner"]) if values["partner"].isdigit() else None
            row = campaigns.create_campaign(
                session, visit.viewer, values["journey"], values["key"], values["name"], visit.now, partner_id=partner_id
            )
            campaign_id = row.id
    except (InvalidInput, Refused, NotFound) as error:
        return _new_page(visit, values, errors.explain(error, visit.language), status=422)
    return visit.go(f"/campaigns/{campaign_id}", N_("The campaign is open: partners can use it now."))


def _new_page(visit: Visit, values: Mapping[str, str], wrong: str, status: int = 200) -> Response:
    with visit.reading() as session:
        published = newest_by_journey(session, visit.viewer, (VersionStatus.registered,))
        known = journeys_by_id(session, visit.viewer)
        partners = partners_of(session, visit.viewer)
    choices = [known[journey_id] for journey_id in published]
    return visit.page("campaigns/new.html", status=status, values=values, wrong=wrong, choices=choices, partners=partners)


@router.get("/campaigns/{campaign_id}")
def campaign_page(
    campaign_id: int,
    visit: Visit = needs(Permission.see_campaigns),
    status: str = "",
    q: str = "",
    after: int | None = None,
    contact: int | None = None,
    step: str = "",
    lang: str = "",
) -> Response:
    """Show the members with their status, and the preview of the chosen member's message."""
    return _page(visit, campaign_id, status=status, q=q, after=after, contact_id=contact, step_id=step, lang=lang)


def _page(
    visit: Visit,
    campaign_id: int,
    *,
    status: str = "",
    q: str = "",
    after: int | None = None,
    contact_id: int | None = None,
    step_id: str = "",
    lang: str = "",
    wrong: str = "",
    code: int = 200,
) -> Response:
    chosen_status = MemberStatus(status) if status in set(MemberStatus) else None
    with visit.reading() as session:
        context = campaign_context(session, visit, campaign_id)
        found = campaigns.members(session, visit.viewer, campaign_id, status=chosen_status, text=q, after_id=after, limit=ROWS)
        counts = campaigns.member_counts(session, visit.viewer, campaign_id)
        enrolled = enrollments.newest_enrollments(session, visit.viewer, campaign_id, [id_of(contact) for _, contact in found.rows])
        programs = _programs(session, enrolled.values(), context)
        rows = [_member_row(visit, context, member, contact, enrolled.get(id_of(contact)), programs) for member, contact in found.rows]
        shown = _member_preview(session, visit, context, rows, found.total, chosen_status, q, contact_id, step_id, lang)
        first_at = _first_message_time(session, visit, context, rows)
        suspension_kinds = control.suspension_kinds(session, visit.viewer, Scope(campaign_id=campaign_id))
        cohort = _cohort_choice(session, visit, context.campaign, sum(counts.values()))
    pending = counts.get(MemberStatus.pending, 0)
    return visit.page(
        "campaigns/page.html",
        status=code,
        context=context,
        campaign=context.campaign,
        base_path=f"/campaigns/{campaign_id}",
        rows=rows,
        found=found,
        counts=counts,
        total=sum(counts.values()),
        pending=pending,
        attention=counts.get(MemberStatus.error, 0),
        first_at=first_at,
        chosen_status=status if chosen_status else "",
        q=q,
        after=after,
        shown=shown,
        step_name=lambda step: step_name(step, visit.translator),
        languages_of_journey=context.program.definition.languages if context.program else (),
        wrong=wrong,
        cohort=cohort,
        suspension_kinds=[kind for kind in suspension_kinds if kind.value != context.campaign.status.value],
        may_enrol=visit.viewer.may(Permission.enrol_contacts),
    )


def campaign_context(session: Session, visit: Visit, campaign_id: int) -> CampaignContext:
    """Return the campaign with its journey and the version that contacts enter now; NotFound outside the viewer's rows."""
    campaign = campaigns.get_campaign(session, visit.viewer, campaign_id)
    journey = journeys_by_id(session, visit.viewer)[campaign.journey_id]
    version = journeys.newest_registered(session, campaign.journey_id)
    program = journeys.program_of(session, id_of(version)) if version else None
    sends = [step for step in program.steps.values() if isinstance(step, SendStep)] if program else []
    return CampaignContext(campaign, journey, version, program, sends, partners_with_blocks(session, campaign_id))


def _programs(session: Session, rows: Any, context: CampaignContext) -> dict[int, Program]:
    programs = {id_of(context.version): context.program} if context.version and context.program else {}
    for row in rows:
        if row.version_id not in programs:
            programs[row.version_id] = journeys.program_of(session, row.version_id)
    return programs


def _member_row(
    visit: Visit, context: CampaignContext, member: Member, contact: Contact, enrollment: Enrollment | None, programs: Mapping[int, Program]
) -> MemberRow:
    if enrollment is not None:
        status = status_of(enrollment, programs.get(enrollment.version_id), visit.translator)
    else:
        status = StatusText(MEMBER[member.status], "", member.error or visit.gettext(N_("Has not begun")))
    return MemberRow(member, contact, status, _layer(context, member))


def _layer(context: CampaignContext, member: Member) -> str:
    """Return the topmost layer of blocks that has a text for this member."""
    if member.blocks:
        return "member"
    return "partner" if member.partner_id in context.partner_ids_with_blocks else ("campaign" if context.campaign.blocks else "journey")


def _member_preview(
    session: Session,
    visit: Visit,
    context: CampaignContext,
    rows: Sequence[MemberRow],
    total: int,
    status: MemberStatus | None,
    q: str,
    contact_id: int | None,
    step_id: str,
    lang: str,
) -> MemberPreview | None:
    """Return the preview for the chosen contact, else for the first row; None for an empty campaign."""
    if not rows and contact_id is None:
        return None
    wanted = contact_id or id_of(rows[0].contact)
    pair = member_with_contact(session, visit.viewer, id_of(context.campaign), wanted)
    if pair is None:
        raise NotFound(f"Contact {wanted} is not a member of this campaign.")
    member, contact = pair
    beside = neighbours(session, visit.viewer, member, status, q)
    preview, problem = _preview(session, visit, context, wanted, step_id, lang)
    return MemberPreview(
        contact=contact,
        member=member,
        preview=preview,
        problem=problem,
        place=beside.place,
        of=total,
        before=beside.before,
        after=beside.after,
    )


def _preview(
    session: Session, visit: Visit, context: CampaignContext, contact_id: int, step_id: str, lang: str
) -> tuple[Preview | None, str]:
    if not context.sends:
        return None, visit.gettext(N_("This journey sends no message."))
    step = step_id if step_id in {send.id for send in context.sends} else context.sends[0].id
    try:
        preview = messages.preview(
            session, visit.viewer, id_of(context.campaign), contact_id, step, lang or None, unsubscribe_url=preview_unsubscribe_url(visit)
        )
        return preview, ""
    except Refused as error:
        return None, errors.explain(error, visit.language)


def preview_unsubscribe_url(visit: Visit) -> str:
    """Return the address behind the unsubscribe link of a preview: its page says that there is nothing to unsubscribe."""
    return f"{visit.site.settings.base_url}/u/preview"


def _first_message_time(
    session: Session, visit: Visit, context: CampaignContext, rows: Sequence[MemberRow]
) -> tuple[datetime, ZoneInfo] | None:
    waiting = next((row for row in rows if row.member.status is MemberStatus.pending), None)
    if waiting is None or context.program is None:
        return None
    return first_message_time(session, context.program, waiting.contact, visit.now)


@router.get("/campaigns/{campaign_id}/preview.html")
def preview_frame(
    campaign_id: int,
    contact: int,
    step: str,
    visit: Visit = needs(Permission.see_campaigns),
    lang: str = "",
    images: bool = False,
) -> Response:
    """Return the mail for the sandboxed frame: no scripts, and remote images only when asked for."""
    with visit.reading() as session:
        preview = messages.preview(
            session, visit.viewer, campaign_id, contact, step, lang or None, unsubscribe_url=preview_unsubscribe_url(visit)
        )
    return mail_document(preview.html, preview.text, remote_images=images)


@router.post("/campaigns/{campaign_id}/blocks")
def save_blocks(campaign_id: int, visit: Visit = needs(Permission.enrol_contacts), form: FormData = posted_form) -> Response:
    """Save the partner's texts of the editable blocks, for one member or for all members, and show the preview again."""
    contact_id = next(iter(numbers(form, "contact")), 0)
    step_id, lang, everybody = text(form, "step"), text(form, "lang"), text(form, "for") == "all"
    blocks = {name.removeprefix("block."): str(value) for name, value in form.items() if name.startswith("block.")}
    wrong = ""
    try:
        with visit.writing() as session:
            if everybody:
                campaigns.save_partner_blocks(session, visit.viewer, campaign_id, blocks, visit.now)
            else:
                pair = member_with_contact(session, visit.viewer, campaign_id, contact_id)
                if pair is None:
                    raise NotFound(f"Contact {contact_id} is not a member of this campaign.")
                campaigns.save_member_blocks(session, visit.viewer, id_of(pair[0]), blocks, visit.now)
    except (InvalidInput, Refused) as error:
        wrong = errors.explain(error, visit.language)
    if wrong or visit.request.headers.get("hx-request") == "true":
        return _page(visit, campaign_id, contact_id=contact_id, step_id=step_id, lang=lang, wrong=wrong, code=422 if wrong else 200)
    return visit.go(f"/campaigns/{campaign_id}?contact={contact_id}&step={step_id}", N_("Saved. The preview shows the new words."))


@router.post("/campaigns/{campaign_id}/decide")
def decide(campaign_id: int, visit: Visit = needs(Permission.enrol_contacts), form: FormData = posted_form) -> Response:
    """Leave the ticked members out, or take them back."""
    status = MemberStatus.rejected if text(form, "action") == "reject" else MemberStatus.pending
    with visit.writing() as session:
        changed = campaigns.decide_members(session, visit.viewer, campaign_id, numbers(form, "member"), status, visit.now)
    message = N_("Left out: %(count)s.") if status is MemberStatus.rejected else N_("Taken back: %(count)s.")
    return visit.go(f"/campaigns/{campaign_id}", message, count=changed if isinstance(changed, int) else len(numbers(form, "member")))


@dataclass(frozen=True, slots=True)
class SendPreview:
    """The effect of sending now: the contacts that begin, the contacts left out with the verdict, and the time of the first message."""

    begin: list[Contact]
    left_out: list[tuple[Contact, str, datetime | None, str]]
    first_at: tuple[datetime, ZoneInfo] | None


@router.get("/campaigns/{campaign_id}/send")
def confirm_page(campaign_id: int, visit: Visit = needs(Permission.enrol_contacts)) -> Response:
    """Show how many contacts begin, when the first message goes out, and which contacts are left out and why; nothing is sent yet."""
    member_ids = whole_numbers(visit.request.query_params.getlist("member"))
    with visit.reading() as session:
        context = campaign_context(session, visit, campaign_id)
        people = contacts_to_enrol(session, visit.viewer, campaign_id, member_ids, SEND_AT_ONCE)
        cohort = _cohort_choice(session, visit, context.campaign, sum(campaigns.member_counts(session, visit.viewer, campaign_id).values()))
        problem, sending = "", SendPreview([], [], None)
        try:
            sending = _send_preview(session, visit, context, people)
        except Refused as error:
            problem = errors.explain(error, visit.language)
    return visit.page(
        "campaigns/send.html",
        context=context,
        campaign=context.campaign,
        base_path=f"/campaigns/{campaign_id}",
        sending=sending,
        problem=problem,
        cohort=cohort,
    )


def _send_preview(session: Session, visit: Visit, context: CampaignContext, people: Sequence[Contact]) -> SendPreview:
    by_id = {id_of(contact): contact for contact in people}
    results = service.preview_enrol(session, visit.viewer, id_of(context.campaign), list(by_id), visit.now)
    begin = [by_id[result.contact_id] for result in results if result.verdict is EnrolVerdict.enrolled]
    left_out = [
        (by_id[result.contact_id], str(result.verdict), result.until, result.partner_name)
        for result in results
        if result.verdict is not EnrolVerdict.enrolled
    ]
    times = [first_message_time(session, context.program, contact, visit.now) for contact in begin[:20]] if context.program else []
    return SendPreview(begin, left_out, min((at for at in times if at), key=lambda at: at[0], default=None))


@router.post("/campaigns/{campaign_id}/cohort")
def set_cohort(campaign_id: int, visit: Visit = needs(Permission.see_campaigns), form: FormData = posted_form) -> Response:
    """Set how many contacts one run carries, before anything is sent."""
    many = next(iter(numbers(form, "contacts_per_run")), 0)
    with visit.writing() as session:
        campaigns.set_contacts_per_run(session, visit.viewer, campaign_id, many, visit.now)
    back = f"/campaigns/{campaign_id}" + ("/send" if text(form, "back") == "send" else "")
    if many == 1:
        return visit.go(back, N_("Each person gets a run of their own."))
    return visit.go(back, N_("Runs carry up to %(count)s people each."), count=many)


@dataclass(frozen=True, slots=True)
class CohortChoice:
    """The choice of a cohort's size: the number of members, the contacts that a run carries now, and the suggested number."""

    members: int
    now: int
    suggested: int


def _cohort_choice(session: Session, visit: Visit, campaign: Campaign, members: int) -> CohortChoice | None:
    """Return the choice of a cohort's size; None when the campaign is small, has begun, or the viewer may not choose."""
    suggested = campaigns.suggested_per_run(members)
    if suggested == 1 and campaign.contacts_per_run == 1:
        return None
    return (
        CohortChoice(members, campaign.contacts_per_run, suggested)
        if campaigns.can_set_per_run(session, visit.viewer, id_of(campaign))
        else None
    )


@router.post("/campaigns/{campaign_id}/send")
def send(campaign_id: int, visit: Visit = needs(Permission.enrol_contacts), form: FormData = posted_form) -> Response:
    """Enrol the confirmed contacts; a second press enrols no contact twice."""
    with visit.writing() as session:
        results = service.enrol(session, visit.viewer, campaign_id, numbers(form, "contact")[:SEND_AT_ONCE], visit.now)
    entered = sum(1 for result in results if result.verdict in (EnrolVerdict.enrolled, EnrolVerdict.queued))
    already = sum(1 for result in results if result.verdict is EnrolVerdict.already_in)
    if entered:
        message = N_("Sent on their way: %(count)s. Each gets the first message at the time shown.")
        return visit.go(f"/campaigns/{campaign_id}", message, count=entered)
    if already:
        return visit.go(f"/campaigns/{campaign_id}", N_("They are on their way already; nobody was enrolled twice."), kind="good")
    return visit.go(f"/campaigns/{campaign_id}", N_("Nobody was enrolled; see why on the page before."), kind="warn")
