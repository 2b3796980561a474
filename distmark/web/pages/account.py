"""The pages of one's own account: setting a password by a link, a forgotten password, changing it, and the sessions of other browsers."""

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.background import BackgroundTask
from starlette.datastructures import FormData

from distmark.compliance import accounts
from distmark.errors import DistmarkError, InvalidInput, NotFound
from distmark.partners.service import FREE_OF_ACCOUNT, SHORTEST_PASSWORD, end_other_sessions, sessions_of
from distmark.web import errors
from distmark.web.account_mail import FORGOTTEN, send_account_mail
from distmark.web.forms import guest_form, posted_form, text
from distmark.web.i18n import N_
from distmark.web.pages.sign_in import address_of, my_turn
from distmark.web.permissions import TooManySignIns, anyone, signed_in
from distmark.web.visit import Guest, Visit

router = APIRouter()
UNEQUAL = N_("The two passwords differ; write the same one twice.")


@router.get("/password/{token}")
def set_password_page(token: str, guest: Guest = anyone) -> Response:
    """Show the form in which the person of the link chooses a password."""
    return _set_page(guest, token)


@router.post("/password/{token}")
def set_password(token: str, guest: Guest = anyone, form: FormData = guest_form) -> Response:
    """Set the password, and sign the person in."""
    password = str(form.get("password", ""))
    if password != str(form.get("again", "")):
        return _set_page(guest, token, guest.gettext(UNEQUAL), 422)
    try:
        with guest.writing() as session:
            cookie = accounts.set_password_by_link(session, token, password, guest.now)
    except NotFound:
        return _set_page(guest, token)
    except InvalidInput as error:
        return _set_page(guest, token, errors.explain(error, guest.language), 422)
    response = guest.go("/", N_("Your password is set, and you are signed in."))
    guest.set_session_cookie(response, cookie)
    return response


def _set_page(guest: Guest, token: str, wrong: str = "", status: int = 200) -> Response:
    try:
        with guest.reading() as session:
            user = accounts.person_invited(session, token, guest.now)
    except NotFound:
        return guest.page("account/link_gone.html", status=404)
    return guest.page("account/set_password.html", status=status, user=user, token=token, wrong=wrong, shortest=SHORTEST_PASSWORD)


@router.get("/forgotten")
def forgotten_page(guest: Guest = anyone) -> Response:
    """Show the form of a forgotten password, which asks for the mail address."""
    return guest.page("account/forgotten.html", asked=False, email="")


@router.post("/forgotten", dependencies=[my_turn])
def forgotten(guest: Guest = anyone, form: FormData = guest_form) -> Response:
    """Send a link to the address when it has an account; neither the answer nor its time says whether it has."""
    email = text(form, "email")
    _count(guest, f"forgotten:{email}")
    with guest.writing() as session:
        invitation = accounts.ask_for_reset(session, email, guest.now)
    response = guest.page("account/forgotten.html", asked=True, email=email)
    if invitation is not None:
        response.background = BackgroundTask(send_account_mail, guest, invitation, FORGOTTEN)
    return response


def _count(guest: Guest, what: str) -> None:
    """Count one try; TooManySignIns from the sixth for the same account in a quarter of an hour. Others are not refused for it."""
    if guest.site.pace.failures_of(what) >= FREE_OF_ACCOUNT:
        raise TooManySignIns(15 * 60)
    guest.site.pace.note_failure(address_of(guest), what)


@router.get("/account")
def account_page(visit: Visit = signed_in) -> Response:
    """Show the person's own account: the form of a new password, and their sessions."""
    return _page(visit)


@router.post("/account/password")
def change_password(visit: Visit = signed_in, form: FormData = posted_form) -> Response:
    """Change the password; other browsers and programs are signed out."""
    present, password = str(form.get("present", "")), str(form.get("password", ""))
    if password != str(form.get("again", "")):
        return _page(visit, visit.gettext(UNEQUAL), 422)
    _count(visit, f"password:{visit.viewer.user_id}")
    try:
        with visit.writing() as session:
            accounts.change_own_password(session, visit.viewer, present, password, visit.now, visit.session_token)
    except DistmarkError as error:
        return _page(visit, errors.explain(error, visit.language), 422)
    return visit.go("/account", N_("Your password is changed. Other browsers are signed out, and API tokens are revoked."))


@router.post("/account/sessions/end")
def end_sessions(visit: Visit = signed_in) -> Response:
    """Sign the person out in every other browser."""
    with visit.writing() as session:
        end_other_sessions(session, visit.viewer, visit.session_token)
    return visit.go("/account", N_("Every other browser is signed out."))


def _page(visit: Visit, wrong: str = "", status: int = 200) -> Response:
    with visit.reading() as session:
        sessions = sessions_of(session, visit.viewer, visit.now)
    return visit.page("account/page.html", status=status, sessions=sessions, wrong=wrong, shortest=SHORTEST_PASSWORD)
