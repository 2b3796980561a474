"""Adding members to a campaign: many contacts of one's own, or a new contact right after a call."""

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.datastructures import FormData

from distmark.campaigns import service as campaigns
from distmark.campaigns.service import is_member
from distmark.contacts import service as contacts
from distmark.entries import members
from distmark.errors import InvalidInput, Refused, SelectionChanged
from distmark.partners.model import Permission
from distmark.partners.service import names_of_users
from distmark.sql import id_of
from distmark.web import errors
from distmark.web.forms import numbers, posted_form, text, texts
from distmark.web.i18n import N_
from distmark.web.ids import Id
from distmark.web.pages.campaigns import FEW, campaign_context, send_address
from distmark.web.pages.contacts import FIELDS, contact_written, record_agreement
from distmark.web.permissions import needs
from distmark.web.visit import Visit

router = APIRouter()
ROWS = 50


@router.get("/campaigns/{campaign_id}/people")
def people_page(campaign_id: Id, visit: Visit = needs(Permission.enrol_contacts), q: str = "", after: Id | None = None) -> Response:
    """Show the viewer's contacts that are not in the campaign yet, and a form for a new contact."""
    return _page(visit, campaign_id, q=q, after=after)


def _page(
    visit: Visit,
    campaign_id: int,
    *,
    q: str = "",
    after: int | None = None,
    values: Mapping[str, str] | None = None,
    wrong: str = "",
    status: int = 200,
) -> Response:
    with visit.reading() as session:
        context = campaign_context(session, visit, campaign_id)
        found = contacts.find_contacts(session, visit.viewer, q, after, ROWS, [~is_member(campaign_id)])
    empty = dict.fromkeys((*FIELDS, "ground"), "")
    return visit.at(f"/campaigns/{campaign_id}/people" if wrong else "").page(
        "campaigns/people.html",
        status=status,
        context=context,
        campaign=context.campaign,
        base_path=f"/campaigns/{campaign_id}",
        found=found,
        q=q,
        values={**empty, **(values or {})},
        wrong=wrong,
    )


@router.post("/campaigns/{campaign_id}/people")
def add_people(campaign_id: Id, visit: Visit = needs(Permission.enrol_contacts), form: FormData = posted_form) -> Response:
    """Add the ticked contacts to the campaign; nothing is sent yet."""
    chosen = numbers(form, "contact")
    with visit.writing() as session:
        count = campaigns.add_members(session, visit.viewer, campaign_id, chosen, visit.now)
        member_ids = campaigns.member_ids_of(session, campaign_id, chosen).values()
    to = send_address(campaign_id, member_ids) if text(form, "then") == "send" else f"/campaigns/{campaign_id}"
    return visit.go(to, N_("Added: %(count)s."), count=count)


@router.get("/campaigns/{campaign_id}/words")
def words_page(campaign_id: Id, visit: Visit = needs(Permission.enrol_contacts)) -> Response:
    """Show the words that were changed after sending, before and now, with the people whose next messages wait for an agreement."""
    return _words_page(visit, campaign_id)


def _words_page(visit: Visit, campaign_id: int, *, wrong: str = "", status: int = 200) -> Response:
    with visit.reading() as session:
        context = campaign_context(session, visit, campaign_id)
        groups = members.changed_words(session, visit.viewer, campaign_id)
        trail = campaigns.words_trail(session, visit.viewer, campaign_id)
        names = names_of_users(session, visit.viewer, [entry.user_id for entry in trail])
    blocks = context.program.definition.blocks if context.program else {}
    return visit.page(
        "campaigns/words.html",
        status=status,
        campaign=context.campaign,
        base_path=f"/campaigns/{campaign_id}",
        groups=groups,
        people=sum(len(group.members) for group in groups),
        shown=members.shown_words(groups),
        blocks=blocks,
        labels={name: block.label.text(visit.language) for name, block in blocks.items()},
        trail=trail,
        names=names,
        few=FEW,
        wrong=wrong,
    )


@router.post("/campaigns/{campaign_id}/words")
def agree_to_words(campaign_id: Id, visit: Visit = needs(Permission.enrol_contacts), form: FormData = posted_form) -> Response:
    """Agree to exactly the words that were shown; the messages that wait for it go on."""
    try:
        with visit.writing() as session:
            count = members.agree(session, visit.viewer, campaign_id, text(form, "shown"), visit.now)
    except SelectionChanged as error:
        return _words_page(visit, campaign_id, wrong=errors.explain(error, visit.language), status=409)
    return visit.go(f"/campaigns/{campaign_id}", N_("Agreed; people: %(count)s. Their messages go on."), count=count)


@router.post("/campaigns/{campaign_id}/people/new")
def add_new(campaign_id: Id, visit: Visit = needs(Permission.write_contacts), form: FormData = posted_form) -> Response:
    """Create a contact with the ground for writing to it, and add it to the campaign."""
    values = {name: text(form, name) for name in (*FIELDS, "ground")}
    try:
        with visit.writing() as session:
            written = contact_written({name: value for name, value in values.items() if value})
            contact = contacts.create_contact(session, visit.viewer, written, visit.now)
            record_agreement(session, visit, contact, values["ground"], texts(form, "channel"))
            campaigns.add_members(session, visit.viewer, campaign_id, [id_of(contact)], visit.now)
            member_ids = campaigns.member_ids_of(session, campaign_id, [id_of(contact)]).values()
    except (InvalidInput, Refused) as error:
        return _page(visit, campaign_id, values=values, wrong=errors.explain(error, visit.language), status=422)
    return visit.go(send_address(campaign_id, member_ids), N_("Added: %(count)s."), count=1)
