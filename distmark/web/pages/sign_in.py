"""Signing in, signing out, and choosing the language."""

import math
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from starlette.datastructures import FormData

from distmark.errors import NotAllowed
from distmark.partners import service as partners
from distmark.web import i18n
from distmark.web.forms import guest_form, text
from distmark.web.i18n import N_
from distmark.web.permissions import TooManySignIns, anyone
from distmark.web.visit import LANGUAGE, Guest, local_path

router = APIRouter()
YEAR_SECONDS = 365 * 24 * 3600


@router.get("/sign-in")
def sign_in_page(guest: Guest = anyone, next: str = "/") -> Response:
    """Show the sign-in form; redirect a user who is signed in already."""
    if guest.viewer:
        return guest.go(local_path(next))
    return guest.page("sign_in.html", next=local_path(next), email="", wrong="")


async def _wait_for_my_turn(guest: Guest = anyone, form: FormData = guest_form) -> None:
    """Let a try wait after failures. It waits here, where waiting holds no thread; and a few wait at a time from one address."""
    address, pace = address_of(guest), guest.site.pace
    wait = pace.wait_seconds(address, text(form, "email"))
    with pace.one_of_few(address) as may_wait:
        if wait and not may_wait:
            raise TooManySignIns(math.ceil(wait))
        if wait:
            await guest.site.pause(wait)


def address_of(guest: Guest) -> str:
    """Return the network address that the request came from; through trusted proxies, that of their client."""
    return guest.request.client.host if guest.request.client else ""


my_turn: Any = Depends(_wait_for_my_turn)


@router.post("/sign-in", dependencies=[my_turn])
def sign_in(guest: Guest = anyone, form: FormData = guest_form) -> Response:
    """Sign in with mail address and password; a failure does not say which of the two is wrong."""
    email, to = text(form, "email"), local_path(text(form, "next") or "/")
    try:
        with guest.writing() as session:
            token, _viewer = partners.sign_in(session, email, str(form.get("password", "")), guest.now)
    except NotAllowed:
        guest.site.pace.note_failure(address_of(guest), email)
        wrong = N_("This mail address and password do not belong together. Check both and try again.")
        return guest.page("sign_in.html", status=422, next=to, email=email, wrong=wrong)
    guest.site.pace.forget(email)
    response = guest.go(to)
    guest.set_session_cookie(response, token)
    return response


@router.post("/sign-out")
def sign_out(guest: Guest = anyone) -> Response:
    """End this browser's session."""
    token = guest.request.cookies.get(guest.site.session_cookie)
    if token:
        with guest.writing() as session:
            partners.sign_out(session, token)
    response = guest.go("/sign-in")
    response.delete_cookie(guest.site.session_cookie, path="/", secure=guest.site.settings.secure_cookies, httponly=True)
    return response


@router.post("/language")
def choose_language(guest: Guest = anyone, form: FormData = guest_form) -> Response:
    """Set the language of this browser, and of the signed-in user; return to the same page."""
    language = text(form, "language")
    if language not in i18n.LANGUAGES:
        return guest.go(local_path(text(form, "next")))
    if guest.viewer:
        with guest.writing() as session:
            partners.set_language(session, guest.viewer, language)
    response = guest.go(local_path(text(form, "next")))
    response.set_cookie(LANGUAGE, language, max_age=YEAR_SECONDS, samesite="lax", httponly=True, secure=guest.site.settings.secure_cookies)
    return response
