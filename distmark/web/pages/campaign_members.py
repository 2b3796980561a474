"""Adding members to a campaign: many contacts of one's own, or a new contact right after a call."""

from collections.abc import Collection, Mapping
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.datastructures import FormData

from distmark.campaigns import service as campaigns
from distmark.contacts import service as contacts
from distmark.errors import InvalidInput, Refused
from distmark.partners.model import Permission
from distmark.sql import id_of
from distmark.web import errors
from distmark.web.forms import numbers, posted_form, ranges, text, texts
from distmark.web.i18n import N_
from distmark.web.ids import Id
from distmark.web.pages.campaigns import campaign_context
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
        found = contacts.find_contacts(session, visit.viewer, q, after, ROWS, exclude_campaign_id=campaign_id)
    empty = dict.fromkeys((*FIELDS, "ground"), "")
    return visit.page(
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


def send_address(campaign_id: int, member_ids: Collection[int]) -> str:
    """Return the address of the page that confirms sending to these members, and to nobody else."""
    named = [("chosen", "yes"), *(("member", each) for each in ranges(member_ids))]
    return f"/campaigns/{campaign_id}/send?{urlencode(named)}"


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
