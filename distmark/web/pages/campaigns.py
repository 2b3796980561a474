"""Campaigns: the list, and a campaign's members with their status, a preview of their messages, and sending."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session
from starlette.datastructures import FormData

from distmark.campaigns import service as campaigns
from distmark.campaigns.member_list import contacts_of_members, member_with_contact, neighbours
from distmark.campaigns.service import partners_with_blocks
from distmark.campaigns.table import Campaign, CampaignStatus, Member, MemberStatus
from distmark.contacts.service import contacts_by_id
from distmark.contacts.table import Contact
from distmark.drafts import service as drafts
from distmark.enrollments import control
from distmark.enrollments import service as enrollments
from distmark.enrollments.live_counts import live_by_campaign
from distmark.enrollments.suspensions import Scope
from distmark.entries import members, service
from distmark.entries.members import PendingMembers
from distmark.entries.model import EnrolResult, EnrolVerdict
from distmark.errors import InvalidInput, NotFound, Refused, SelectionChanged
from distmark.journeys import service as journeys
from distmark.journeys.program import Program
from distmark.journeys.service import journeys_by_id, newest_by_journey
from distmark.journeys.steps.send import SendStep
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.messages import service as messages
from distmark.messages.compose import language_of
from distmark.messages.first_message import first_message_time
from distmark.messages.makeable import unmakeable
from distmark.messages.service import Preview
from distmark.operations.unmade import NAMED, unmade_in
from distmark.partners.model import Permission
from distmark.partners.service import get_partner, partners_of
from distmark.partners.table import Partner
from distmark.partners.translations import of_language
from distmark.sql import id_of
from distmark.web import errors
from distmark.web.forms import numbers, posted_form, ranges, text, whole_ranges
from distmark.web.i18n import LANGUAGES, N_
from distmark.web.ids import Id, chosen_id, read_id
from distmark.web.labels import MEMBER, QUEUED, VERDICT
from distmark.web.mail_frame import mail_document
from distmark.web.permissions import needs
from distmark.web.status_text import StatusText, slot_reason, status_of, step_name, unmade_text
from distmark.web.visit import Visit, with_query

router = APIRouter()
NEW_FIELDS = ("journey", "key", "name", "partner", *(f"name.{lang}" for lang in LANGUAGES))
ROWS = 25
SEND_AT_ONCE = members.JUDGED_AT_ONCE
FEW = 5  # so many people are named where an act on them is confirmed


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
    # language -> ids of partners with blocks of their own for all their members
    partner_ids_with_blocks: Mapping[str, frozenset[int]] = field(default_factory=dict)


@router.get("/campaigns")
def campaign_list(visit: Visit = needs(Permission.see_campaigns)) -> Response:
    """List the campaigns that the viewer may see, the open ones first."""
    with visit.reading() as session:
        found = campaigns.list_campaigns(session, visit.viewer)
        page: dict[str, Any] = {
            "campaigns": sorted(found, key=lambda row: (row.status is not CampaignStatus.open, row.name)),
            "journeys": journeys_by_id(session, visit.viewer),
            "pending": members.pending_members_by_campaign(session, visit.viewer, visit.now),
            "live": live_by_campaign(session, visit.viewer),
        }
    return visit.page("campaigns/list.html", **page)


@router.get("/campaigns/new")
def new_campaign(visit: Visit = needs(Permission.publish_campaigns)) -> Response:
    """Show the form that opens a campaign."""
    return _new_page(visit, dict.fromkeys(NEW_FIELDS, ""), "")


@router.post("/campaigns/new")
def create_campaign(visit: Visit = needs(Permission.publish_campaigns), form: FormData = posted_form) -> Response:
    """Open a campaign of a published journey, for one partner or for all partners."""
    values = {name: text(form, name) for name in NEW_FIELDS}
    try:
        with visit.writing() as session:
            partner_id = chosen_id(values["partner"])
            row = campaigns.create_campaign(
                session,
                visit.viewer,
                values["journey"],
                values["key"],
                values["name"],
                visit.now,
                partner_id=partner_id,
                names={lang: values[f"name.{lang}"] for lang in other_languages(visit) if values[f"name.{lang}"]},
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
    return visit.page(
        "campaigns/new.html", status=status, values=values, wrong=wrong, choices=choices, partners=partners, others=other_languages(visit)
    )


def other_languages(visit: Visit, own: str = "") -> list[str]:
    """Return the languages of pages other than the brand's own, or than `own`."""
    own = own or (visit.brand.language if visit.brand else LANGUAGES[0])
    return [lang for lang in LANGUAGES if lang != own]


@router.get("/campaigns/{campaign_id}")
def campaign_page(
    campaign_id: Id,
    visit: Visit = needs(Permission.see_campaigns),
    status: str = "",
    q: str = "",
    after: Id | None = None,
    contact: Id | None = None,
    step: str = "",
    lang: str = "",
) -> Response:
    """Show the members with their status, and the preview of the chosen one's message; only numbers without permission to see contacts."""
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
    at: str = "",
    typed: Mapping[str, str] | None = None,
) -> Response:
    chosen_status = MemberStatus(status) if status in set(MemberStatus) else None
    with visit.reading() as session:
        context = campaign_context(session, visit, campaign_id)
        pending = members.pending_members(session, visit.viewer, campaign_id, visit.now)
        counts = _counts(campaigns.member_counts(session, visit.viewer, campaign_id), pending)
        found, rows, shown = campaigns.MemberPage([], None, 0), [], None
        if visit.viewer.may(Permission.see_contacts):
            found = campaigns.members(
                session, visit.viewer, campaign_id, status=chosen_status, text=q, after_id=after, limit=ROWS, blocked=pending.blocked
            )
            rows = _member_rows(session, visit, context, found.rows, pending)
            shown = _member_preview(session, visit, context, rows, found.total, chosen_status, q, contact_id, step_id, lang, pending)
        first_at = _first_message_time(session, visit, context, pending)
        unmade = unmade_in(session, visit.viewer, campaign_id, NAMED if visit.viewer.may(Permission.see_contacts) else 0)
        suspension_kinds = control.suspension_kinds(session, visit.viewer, Scope(campaign_id=campaign_id))
        cohort = _cohort_choice(session, visit, context.campaign, sum(counts.values()))
        changed = members.changed_words(session, visit.viewer, campaign_id) if visit.viewer.may(Permission.enrol_contacts) else []
        unsaved = _unsaved_words(session, visit, context, shown)
        foreign = _partner_in_own_language_only(session, visit, shown)
    return visit.at(at).page(
        "campaigns/page.html",
        status=code,
        typed=typed or unsaved,
        unsaved=bool(unsaved) and not typed,
        foreign_partner=foreign,
        changed_words=sum(len(each.members) for each in changed),
        message_language=shown and context.program and language_of(context.program.definition, shown.contact),
        context=context,
        campaign=context.campaign,
        base_path=f"/campaigns/{campaign_id}",
        rows=rows,
        found=found,
        counts=counts,
        total=sum(counts.values()),
        pending=0 if pending.refused else pending.waiting,
        attention=counts.get(MemberStatus.error, 0),
        unmade=unmade,
        unmade_text=unmade_text,
        slot_reason=slot_reason,
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
        may_see=visit.viewer.may(Permission.see_contacts),
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


def _counts(by_status: dict[MemberStatus, int], pending: PendingMembers) -> dict[MemberStatus, int]:
    """Return the numbers of members by status, with the pending ones that cannot begin among those that need attention."""
    blocked = len(pending.blocked)
    return by_status | {
        MemberStatus.pending: by_status[MemberStatus.pending] - blocked,
        MemberStatus.error: by_status[MemberStatus.error] + blocked,
    }


def _member_rows(
    session: Session, visit: Visit, context: CampaignContext, found: Sequence[tuple[Member, Contact]], pending: PendingMembers
) -> list[MemberRow]:
    campaign_id, ids = id_of(context.campaign), [id_of(contact) for _, contact in found]
    enrolled = enrollments.newest_enrollments(session, visit.viewer, campaign_id, ids)
    programs = _programs(session, enrolled.values(), context)
    queued = members.queued_among(session, campaign_id, ids)

    def status(member: Member, contact: Contact) -> StatusText:
        enrollment = enrolled.get(id_of(contact))
        if enrollment is not None:
            return status_of(enrollment, programs.get(enrollment.version_id), visit.translator)
        return _status_before_entry(visit, member, pending.blocked.get(id_of(contact)), id_of(contact) in queued)

    return [MemberRow(member, contact, status(member, contact), _layer(context, member, contact)) for member, contact in found]


def _status_before_entry(visit: Visit, member: Member, blocked: EnrolResult | None, is_queued: bool) -> StatusText:
    if member.status is MemberStatus.pending and blocked is not None:
        return StatusText(MEMBER[MemberStatus.error], "", reason_text(visit, blocked))
    if is_queued:
        return StatusText(QUEUED, "", visit.gettext(VERDICT[EnrolVerdict.queued]))
    return StatusText(MEMBER[member.status], "", visit.gettext(VERDICT.get(member.error, member.error) or N_("Has not begun")))


def reason_text(visit: Visit, result: EnrolResult) -> str:
    """Return why a contact cannot begin: the verdict, from when it is possible again, and the other partner."""
    until = visit.gettext(N_("possible again from %(time)s"), time=visit.translator.short(result.until)) if result.until else ""
    return " · ".join(part for part in (visit.gettext(VERDICT[result.verdict]), until, result.partner_name) if part)


def _layer(context: CampaignContext, member: Member, contact: Contact) -> str:
    """Return the topmost layer of blocks that has a text for this member, in the language of the member's messages."""
    lang = language_of(context.program.definition, contact) if context.program else contact.language
    if member.blocks.get(lang):
        return "member"
    if member.partner_id in context.partner_ids_with_blocks.get(lang, ()):
        return "partner"
    return "campaign" if context.campaign.blocks.get(lang) else "journey"


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
    pending: PendingMembers,
) -> MemberPreview | None:
    """Return the preview for the chosen contact, else for the first row; None for an empty campaign."""
    if not rows and contact_id is None:
        return None
    wanted = contact_id or id_of(rows[0].contact)
    pair = member_with_contact(session, visit.viewer, id_of(context.campaign), wanted)
    if pair is None:
        raise NotFound(f"Contact {wanted} is not a member of this campaign.")
    member, contact = pair
    beside = neighbours(session, visit.viewer, member, status, q, pending.blocked)
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


def _partner_in_own_language_only(session: Session, visit: Visit, shown: MemberPreview | None) -> Partner | None:
    """Return the shown member's partner when its name is not written in the language of the preview; else None."""
    if shown is None or shown.preview is None:
        return None
    partner = get_partner(session, visit.viewer, shown.contact.partner_id)
    lang = shown.preview.language
    return partner if lang != partner.language and not of_language(partner, lang).get("name") else None


def _words_place(campaign_id: int, contact_id: int, lang: str) -> str:
    """Return the place of the draft of words for a member in one language."""
    return f"words/{campaign_id}/{contact_id}/{lang}"


def _unsaved_words(session: Session, visit: Visit, context: CampaignContext, shown: MemberPreview | None) -> dict[str, str]:
    """Return the texts that the viewer typed for the shown member, in the language of the preview, and has not saved; by block."""
    if shown is None or shown.preview is None or not visit.viewer.may(Permission.enrol_contacts):
        return {}
    place = _words_place(id_of(context.campaign), id_of(shown.contact), shown.preview.language)
    draft = drafts.draft_of(session, visit.viewer, place)
    saved = {block.name: block.value for block in shown.preview.blocks}
    return {name: text for name, text in draft.fields.items() if text != saved.get(name)} if draft else {}


def preview_unsubscribe_url(visit: Visit) -> str:
    """Return the address behind the unsubscribe link of a preview: its page says that there is nothing to unsubscribe."""
    return f"{visit.site.settings.base_url}/u/preview"


def _first_message_time(
    session: Session, visit: Visit, context: CampaignContext, pending: PendingMembers
) -> tuple[datetime, ZoneInfo] | None:
    if not pending.ready or context.program is None:
        return None
    return first_message_time(session, context.program, pending.ready[0], visit.now)


@router.get("/campaigns/{campaign_id}/preview.html")
def preview_frame(
    campaign_id: Id,
    contact: Id,
    step: str,
    visit: Visit = needs(Permission.see_contacts),
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
def save_blocks(campaign_id: Id, visit: Visit = needs(Permission.enrol_contacts), form: FormData = posted_form) -> Response:
    """Save the partner's texts of the editable blocks in one language, for one member or for all, and go back to the preview."""
    contact_id = next(iter(numbers(form, "contact")), 0)
    step_id, lang, everybody = text(form, "step"), text(form, "lang"), text(form, "for") == "all"
    blocks = _typed_words(form)
    table = _table_query(visit.back(form, f"/campaigns/{campaign_id}"))
    try:
        with visit.writing() as session:
            context = campaign_context(session, visit, campaign_id)
            pair = member_with_contact(session, visit.viewer, campaign_id, contact_id)
            if pair is None:
                raise NotFound(f"Contact {contact_id} is not a member of this campaign.")
            own_lang = language_of(context.program.definition, pair[1]) if context.program else pair[1].language
            lang = lang or own_lang
            if everybody:
                campaigns.save_partner_blocks(session, visit.viewer, campaign_id, lang, blocks, visit.now)
            else:
                campaigns.save_member_blocks(session, visit.viewer, id_of(pair[0]), lang, blocks, visit.now)
            drafts.drop_draft(session, visit.viewer, _words_place(campaign_id, contact_id, lang))
            waiting = members.changed_words(session, visit.viewer, campaign_id)
    except (InvalidInput, Refused) as error:
        wrong = errors.explain(error, visit.language)
        with visit.writing() as session:
            _keep_words(session, visit, campaign_id, contact_id, lang, blocks)
        at = with_query(f"/campaigns/{campaign_id}", contact=contact_id, step=step_id, lang=lang, **table)
        return _page(
            visit, campaign_id, contact_id=contact_id, step_id=step_id, lang=lang, wrong=wrong, code=422, at=at, typed=blocks, **table
        )
    # Without scripts the page opens at the words just saved.
    other_lang = lang if lang != own_lang else ""
    to = with_query(f"/campaigns/{campaign_id}", contact=contact_id, step=step_id, lang=other_lang, **table) + "#words"
    if waiting:
        message = N_(
            "Saved. Whoever is on their way already gets the new words once you agree to them; until then messages with them wait."
        )
        return visit.go_in_block(to, message, "warn")
    return visit.go_in_block(to, N_("Saved. The preview shows the new words."))


@router.post("/campaigns/{campaign_id}/draft")
def keep_words(campaign_id: Id, visit: Visit = needs(Permission.enrol_contacts), form: FormData = posted_form) -> Response:
    """Keep the words that were typed for a member and not saved, for when the form is shown again."""
    contact_id, step_id, lang = next(iter(numbers(form, "contact")), 0), text(form, "step"), text(form, "lang")
    with visit.writing() as session:
        _keep_words(session, visit, campaign_id, contact_id, lang, _typed_words(form))
    if "hx-request" in visit.request.headers:
        return Response(status_code=204)
    table = _table_query(visit.back(form, f"/campaigns/{campaign_id}"))
    to = with_query(f"/campaigns/{campaign_id}", contact=contact_id, step=step_id, lang=lang, **table) + "#words"
    return visit.go(to, N_("Kept, and not saved yet: only you see it."))


def _typed_words(form: FormData) -> dict[str, str]:
    return {name.removeprefix("block."): str(value) for name, value in form.items() if name.startswith("block.")}


def _keep_words(session: Session, visit: Visit, campaign_id: int, contact_id: int, lang: str, words: Mapping[str, str]) -> None:
    """Keep those of the words that differ from the saved ones; NotFound for a contact that is no member of the campaign."""
    pair = member_with_contact(session, visit.viewer, campaign_id, contact_id)
    if pair is None:
        raise NotFound(f"Contact {contact_id} is not a member of this campaign.")
    context = campaign_context(session, visit, campaign_id)
    if context.program is None or lang not in context.program.definition.languages:
        return
    saved = campaigns.blocks_for(session, context.campaign, pair[0].partner_id, pair[0], context.program.definition, lang)
    typed = {name: _lines(text) for name, text in words.items()}
    fields = {name: text for name, text in typed.items() if name in saved and text != saved[name].value}
    drafts.keep_draft(session, visit.viewer, _words_place(campaign_id, contact_id, lang), fields, visit.now)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")


def _table_query(address: str) -> dict[str, Any]:
    """Return the filter and the place of the table of members in the address of a campaign's page."""
    query = dict(parse_qsl(urlsplit(address).query))
    found: dict[str, Any] = {name: query[name] for name in ("status", "q") if query.get(name)}
    after = read_id(query.get("after", ""))
    return found | ({"after": after} if after else {})


@router.post("/campaigns/{campaign_id}/decide")
def decide(campaign_id: Id, visit: Visit = needs(Permission.enrol_contacts), form: FormData = posted_form) -> Response:
    """Leave the ticked members out, or take them back."""
    act = DECISIONS.get(text(form, "action"))
    with visit.writing() as session:
        campaigns.get_campaign(session, visit.viewer, campaign_id)
        if act is None:
            raise InvalidInput("It is not said what to do; choose to leave them out or to take them back.")
        decided = act(session, visit.viewer, campaign_id, numbers(form, "member"), visit.now)
    back, taken = visit.back(form, f"/campaigns/{campaign_id}"), text(form, "action") == "take_back"
    if decided.begun:
        message = N_("Left out: %(count)s. Already on their way, and to be stopped on their own page: %(begun)s.")
        return visit.go(back, message, "warn", count=decided.changed, begun=decided.begun)
    return visit.go(back, N_("Taken back: %(count)s.") if taken else N_("Left out: %(count)s."), count=decided.changed)


# What the form's button says -> the act.
DECISIONS = {"reject": members.leave_out, "take_back": members.take_back}


@dataclass(frozen=True, slots=True)
class SendPreview:
    """The effect of sending now: the contacts that begin, the contacts left out with the verdict, and the time of the first message."""

    begin: Sequence[Contact] = ()
    left_out: Sequence[tuple[Contact, str]] = ()
    first_at: tuple[datetime, ZoneInfo] | None = None
    later: int = 0  # pending contacts beyond those that are sent at once
    unmade: Sequence[tuple[Contact, str]] = ()  # contacts that begin, though some message cannot be made for them, each with the reason


@router.get("/campaigns/{campaign_id}/send")
def confirm_page(campaign_id: Id, visit: Visit = needs(Permission.enrol_contacts)) -> Response:
    """Show the contacts that begin, the time of the first message, and the contacts left out with the reasons; nothing is sent yet.

    The address names the members; without any named it is about all that wait.
    """
    query = visit.request.query_params
    named = whole_ranges(query.getlist("member")) if {"member", "chosen"} & set(query) else None
    return _confirm_page(visit, campaign_id, named)


def _confirm_page(
    visit: Visit, campaign_id: int, member_ids: Collection[int] | None, *, wrong: str = "", status: int = 200, at: str = ""
) -> Response:
    with visit.reading() as session:
        context = campaign_context(session, visit, campaign_id)
        cohort = _cohort_choice(session, visit, context.campaign, sum(campaigns.member_counts(session, visit.viewer, campaign_id).values()))
        problem, sending = "", SendPreview()
        try:
            sending = _send_preview(session, visit, context, member_ids)
        except Refused as error:
            problem = errors.explain(error, visit.language)
    return visit.at(at).page(
        "campaigns/send.html",
        status=status,
        context=context,
        campaign=context.campaign,
        base_path=f"/campaigns/{campaign_id}",
        sending=sending,
        problem=problem,
        wrong=wrong,
        cohort=cohort,
        chosen=member_ids is not None,
        few=FEW,
    )


def _send_preview(session: Session, visit: Visit, context: CampaignContext, member_ids: Collection[int] | None) -> SendPreview:
    campaign_id, later = id_of(context.campaign), 0
    if member_ids is None:
        pending = members.pending_members(session, visit.viewer, campaign_id, visit.now)
        if pending.refused:
            raise pending.refused
        begin, later = list(pending.ready), pending.unjudged
        contacts, results = contacts_by_id(session, visit.viewer, list(pending.blocked)), list(pending.blocked.values())
    else:
        people = contacts_of_members(session, visit.viewer, campaign_id, member_ids)
        contacts = {id_of(contact): contact for contact in people}
        results = service.preview_enrol(session, visit.viewer, campaign_id, list(contacts), visit.now)
        begin = [contacts[result.contact_id] for result in results if result.verdict is EnrolVerdict.enrolled]
    left_out = [
        (contacts[result.contact_id], reason_text(visit, result)) for result in results if result.verdict is not EnrolVerdict.enrolled
    ]
    times = [first_message_time(session, context.program, contact, visit.now) for contact in begin[:20]] if context.program else []
    first_at = min((at for at in times if at), key=lambda at: at[0], default=None)
    return SendPreview(begin, left_out, first_at, later, _unmade(session, visit, context, begin))


def _unmade(session: Session, visit: Visit, context: CampaignContext, contacts: Sequence[Contact]) -> list[tuple[Contact, str]]:
    """Return the contacts with a message that cannot be made, each with the message and the reason."""
    if context.program is None or context.version is None:
        return []
    found = unmakeable(session, context.program, journeys.source_of(context.version), context.campaign, contacts)
    return [(each.contact, f"{step_name(each.step, visit.translator)} · {slot_reason(each.slot, visit.translator)}") for each in found]


@router.post("/campaigns/{campaign_id}/cohort")
def set_cohort(campaign_id: Id, visit: Visit = needs(Permission.see_campaigns), form: FormData = posted_form) -> Response:
    """Set how many contacts one run carries, before anything is sent."""
    many = next(iter(numbers(form, "contacts_per_run")), 0)
    with visit.writing() as session:
        campaigns.set_contacts_per_run(session, visit.viewer, campaign_id, many, visit.now)
    back = visit.back(form, f"/campaigns/{campaign_id}", f"/campaigns/{campaign_id}/send")
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
def send(campaign_id: Id, visit: Visit = needs(Permission.enrol_contacts), form: FormData = posted_form) -> Response:
    """Enrol exactly the confirmed contacts, or none when one of them cannot begin any more; a second press enrols no contact twice."""
    confirmed = numbers(form, "contact")
    if len(confirmed) > SEND_AT_ONCE:
        raise InvalidInput(f"{len(confirmed)} people were chosen; send to at most {SEND_AT_ONCE} at once.")
    try:
        with visit.writing() as session:
            results = service.enrol(session, visit.viewer, campaign_id, confirmed, visit.now, exactly=True)
    except SelectionChanged as error:
        with visit.reading() as session:
            named = list(campaigns.member_ids_of(session, campaign_id, confirmed).values())
        at = send_address(campaign_id, named)
        return _confirm_page(visit, campaign_id, named, wrong=errors.explain(error, visit.language), status=409, at=at)

    entered = sum(1 for result in results if result.verdict in (EnrolVerdict.enrolled, EnrolVerdict.queued))
    already = sum(1 for result in results if result.verdict is EnrolVerdict.already_in)
    if entered:
        message = N_("Sent on their way: %(count)s. Each gets the first message at the time shown.")
        return visit.go(f"/campaigns/{campaign_id}", message, count=entered)
    if already:
        return visit.go(f"/campaigns/{campaign_id}", N_("They are on their way already; nobody was enrolled twice."), kind="good")
    return visit.go(f"/campaigns/{campaign_id}", N_("Nobody was chosen, so nobody was sent."), kind="warn")


def send_address(campaign_id: int, member_ids: Collection[int]) -> str:
    """Return the address of the page that confirms sending to these members, and to nobody else."""
    return with_query(f"/campaigns/{campaign_id}/send", [("chosen", "yes"), *(("member", each) for each in ranges(member_ids))])
