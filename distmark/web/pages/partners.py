"""The pages of partners and people: making and changing partners, inviting their people and the brand's own, closing accounts."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.datastructures import FormData

from distmark.compliance import accounts
from distmark.compliance.accounts import Invitation
from distmark.errors import DistmarkError, InvalidInput, NotFound
from distmark.partners.model import Permission, Role
from distmark.partners.service import get_partner
from distmark.sql import id_of
from distmark.web import errors
from distmark.web.account_mail import INVITED, send_account_mail
from distmark.web.forms import posted_form, text
from distmark.web.i18n import N_
from distmark.web.ids import Id
from distmark.web.permissions import needs
from distmark.web.visit import Visit

router = APIRouter()
FIELDS = ("name", "title", "office", "city", "phone", "email", "code", "zone", "language")
BRAND_ROLES = (Role.marketer, Role.approver, Role.ops)


# --- partners -----------------------------------------------------------------------------------------------------------------------------


@router.get("/partners/new")
def new_partner_page(visit: Visit = needs(Permission.manage_partners)) -> Response:
    """Show the form of a new partner."""
    return _new_page(visit, {"language": visit.language})


@router.post("/partners/new")
def create_partner(visit: Visit = needs(Permission.manage_partners), form: FormData = posted_form) -> Response:
    """Create a partner, and invite its first person when one is named."""
    values = {name: text(form, name) for name in (*FIELDS, "key", "person_name", "person_email")}
    try:
        with visit.writing() as session:
            key = values["key"] or accounts.partner_key_for(session, visit.viewer, values["name"])
            partner_id = id_of(accounts.create_partner(session, visit.viewer, key, values, visit.now))
            invitation = None
            if values["person_email"]:
                name = values["person_name"] or values["name"]
                invitation = accounts.invite(
                    session, visit.viewer, values["person_email"], name, Role.partner, partner_id, values["language"] or "ja", visit.now
                )
    except DistmarkError as error:
        return _new_page(visit, values, wrong=errors.explain(error, visit.language), status=422)
    if invitation:
        return _invited(visit, invitation, f"/partners/{partner_id}")
    return visit.go(f"/partners/{partner_id}", N_("%(name)s is a partner now. Invite the people who work there."), name=values["name"])


def _new_page(visit: Visit, values: Mapping[str, str], wrong: str = "", status: int = 200) -> Response:
    return visit.page("partners/new.html", status=status, values=_Values(values), wrong=wrong)


@router.get("/partners/{partner_id}")
def partner_page(partner_id: Id, visit: Visit = needs(Permission.manage_partners)) -> Response:
    """Show a partner's details and people."""
    return _partner_page(visit, partner_id)


@router.post("/partners/{partner_id}")
def change_partner(partner_id: Id, visit: Visit = needs(Permission.manage_partners), form: FormData = posted_form) -> Response:
    """Change a partner's details."""
    values = {name: text(form, name) for name in FIELDS}
    try:
        with visit.writing() as session:
            accounts.change_partner(session, visit.viewer, partner_id, values, visit.now)
    except InvalidInput as error:
        return _partner_page(visit, partner_id, values, wrong=errors.explain(error, visit.language), status=422)
    return visit.go(f"/partners/{partner_id}", N_("Saved."))


@router.post("/partners/{partner_id}/suspend")
def suspend_partner(partner_id: Id, visit: Visit = needs(Permission.manage_partners)) -> Response:
    """Suspend a partner: its people are signed out."""
    return _set_partner_active(
        visit, partner_id, False, N_("Suspended. Nobody there can sign in; what is under way goes on until you pause it.")
    )


@router.post("/partners/{partner_id}/reopen")
def reopen_partner(partner_id: Id, visit: Visit = needs(Permission.manage_partners)) -> Response:
    """Open a suspended partner again."""
    return _set_partner_active(visit, partner_id, True, N_("Open again: the people there can sign in."))


def _set_partner_active(visit: Visit, partner_id: int, active: bool, message: str) -> Response:
    with visit.writing() as session:
        accounts.set_partner_active(session, visit.viewer, partner_id, active, visit.now)
    return visit.go(f"/partners/{partner_id}", message)


@router.post("/partners/{partner_id}/people")
def invite_to_partner(partner_id: Id, visit: Visit = needs(Permission.manage_partners), form: FormData = posted_form) -> Response:
    """Invite a person of the partner."""
    try:
        invitation = _invite(visit, form, Role.partner, partner_id)
    except NotFound:
        raise
    except DistmarkError as error:
        return _partner_page(visit, partner_id, invited=form, wrong_person=errors.explain(error, visit.language), status=422)
    return _invited(visit, invitation, f"/partners/{partner_id}")


def _partner_page(
    visit: Visit,
    partner_id: int,
    values: Mapping[str, str] | None = None,
    *,
    wrong: str = "",
    invited: FormData | None = None,
    wrong_person: str = "",
    status: int = 200,
) -> Response:
    with visit.reading() as session:
        partner = get_partner(session, visit.viewer, partner_id)
        people = accounts.people_of(session, visit.viewer, partner_id)
    stored = {name: str(getattr(partner, name)) for name in FIELDS}
    return visit.at(f"/partners/{partner_id}").page(
        "partners/page.html",
        status=status,
        partner=partner,
        people=people,
        values=_Values(values or stored),
        wrong=wrong,
        person=_Values({name: text(invited, name) for name in ("name", "email", "language")} if invited else {}),
        wrong_person=wrong_person,
    )


# --- the brand's own people ---------------------------------------------------------------------------------------------------------------


@router.get("/people")
def brand_people_page(visit: Visit = needs(Permission.manage_people)) -> Response:
    """List the brand's own people."""
    return _people_page(visit)


@router.post("/people")
def invite_to_brand(visit: Visit = needs(Permission.manage_people), form: FormData = posted_form) -> Response:
    """Invite a person of the brand."""
    try:
        role = text(form, "role")
        if role not in {each.value for each in BRAND_ROLES}:
            raise InvalidInput("The role is missing; choose what the person does.")
        invitation = _invite(visit, form, Role(role), None)
    except DistmarkError as error:
        return _people_page(visit, form, errors.explain(error, visit.language), 422)
    return _invited(visit, invitation, "/people")


def _people_page(visit: Visit, invited: FormData | None = None, wrong: str = "", status: int = 200) -> Response:
    with visit.reading() as session:
        people = accounts.people_of(session, visit.viewer, None)
    person = _Values({name: text(invited, name) for name in ("name", "email", "role", "language")} if invited else {})
    return visit.page("partners/people.html", status=status, people=people, roles=BRAND_ROLES, person=person, wrong_person=wrong)


@router.post("/people/{user_id}/invite")
def invite_person_again(user_id: Id, visit: Visit = needs(Permission.manage_partners)) -> Response:
    """Send a new invitation; only for an account without a password."""
    with visit.writing() as session:
        invitation = accounts.invite_again(session, visit.viewer, user_id, visit.now)
    return _invited(visit, invitation, _home(invitation.user.partner_id))


@router.post("/people/{user_id}/close")
def close_account(user_id: Id, visit: Visit = needs(Permission.manage_partners)) -> Response:
    """Close an account: its person is signed out."""
    return _set_user_active(visit, user_id, False, N_("%(name)s can no longer sign in."))


@router.post("/people/{user_id}/reopen")
def reopen_account(user_id: Id, visit: Visit = needs(Permission.manage_partners)) -> Response:
    """Open a closed account again."""
    return _set_user_active(visit, user_id, True, N_("%(name)s can sign in again."))


def _set_user_active(visit: Visit, user_id: int, active: bool, message: str) -> Response:
    with visit.writing() as session:
        user = accounts.set_user_active(session, visit.viewer, user_id, active, visit.now)
    return visit.go(_home(user.partner_id), message, name=user.name)


def _invite(visit: Visit, form: FormData, role: Role, partner_id: int | None) -> Invitation:
    language = text(form, "language") or visit.language
    with visit.writing() as session:
        return accounts.invite(session, visit.viewer, text(form, "email"), text(form, "name"), role, partner_id, language, visit.now)


def _invited(visit: Visit, invitation: Invitation, to: str) -> Response:
    if send_account_mail(visit, invitation, INVITED):
        return visit.go(to, N_("An invitation is on its way to %(email)s. It is good for seven days."), email=invitation.user.email)
    failed = N_("The account is made, but the mail to %(email)s could not be sent. Invite again when the mail server answers.")
    return visit.go(to, failed, "bad", email=invitation.user.email)


def _home(partner_id: int | None) -> str:
    return "/people" if partner_id is None else f"/partners/{partner_id}"


class _Values(dict[str, Any]):
    """The fields of a form; a missing one is empty."""

    def __missing__(self, name: str) -> str:
        return ""
