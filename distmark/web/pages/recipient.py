"""The routes of recipients: the open pixel, tracked links, and unsubscribing. A token identifies the message; recipients do not sign in."""

import logging
import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import FormData

from distmark.clock import FixedClock, wall_now
from distmark.engagement import service as engagement
from distmark.engagement.service import UnsubscribeInfo
from distmark.errors import NotFound
from distmark.messages.service import message_by_token, token_in
from distmark.partners.table import Brand
from distmark.rehearsals.sandbox import open_sandbox
from distmark.rehearsals.service import by_key
from distmark.web import i18n
from distmark.web.forms import lenient_form, text
from distmark.web.i18n import N_
from distmark.web.permissions import anyone
from distmark.web.visit import Guest, Site

log = logging.getLogger("distmark.web")
router = APIRouter()
GIF = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")  # one transparent pixel, 43 bytes
LONGEST_TOKEN = 64
_LINK = re.compile(r"[a-z0-9_-]*")  # the names of links; text glued behind one is no part of it


class ForRecipients:
    """The dependency of a route in messages: gives a `Guest`. For a message of a rehearsal, its database is the rehearsal's sandbox
    and its clock the rehearsal's clock.
    """

    def __call__(self, request: Request, guest: Guest = anyone) -> Iterator[Guest]:
        site = cast(Site, request.app.state.site)
        key = request.path_params.get("rehearsal")
        if key is None:
            yield guest
            return
        with site.db.reading() as session:
            row = by_key(session, str(key)[:LONGEST_TOKEN])
        if row is None:
            raise NotFound("This link is not known.")
        with open_sandbox(site.settings.data_dir, row.key) as db:
            guest.site = replace(site, db=db, clock=FixedClock(row.now(wall_now())))
            yield guest


recipient: Any = Depends(ForRecipients())


@router.api_route("/o/{token}.gif", methods=["GET", "HEAD"])
def open_pixel(token: str, guest: Guest = recipient) -> Response:
    """Record an open; a bad token gets the same answer, so that guessing reveals nothing, and so does a database that takes no rows."""
    if guest.request.method == "GET":
        try:
            with guest.writing() as session:
                engagement.open_pixel(session, token_in(token), _user_agent(guest.request), guest.now)
        except SQLAlchemyError as error:
            log.error("an open is not recorded", exc_info=error)
    return Response(GIF, media_type="image/gif", headers={"cache-control": "no-store", "cross-origin-resource-policy": "cross-origin"})


@router.api_route("/c/{token}/{link}", methods=["GET", "HEAD"])
def click(token: str, link: str, guest: Guest = recipient) -> Response:
    """Redirect to the link's stored target; a GET is recorded as a click, a HEAD is not. A database that takes no rows stops nobody."""
    key, name = token_in(token), _link_in(link)
    try:
        with guest.writing() as session:
            target = engagement.click(session, key, name, _user_agent(guest.request), guest.now, guest.request.method)
    except SQLAlchemyError as error:
        log.error("a click is not recorded", exc_info=error)
        with guest.reading() as session:
            target = engagement.click(session, key, name, "", guest.now, "HEAD")
    if target is None:
        return guest.page("recipient/no_link.html", status=404)
    return RedirectResponse(target, status_code=302, headers={"referrer-policy": "no-referrer"})


@router.get("/u/{token}")
def unsubscribe_page(token: str, guest: Guest = recipient) -> Response:
    """Show what unsubscribing would stop, with a button. It changes nothing, since mail scanners open it too."""
    with guest.reading() as session:
        info = engagement.unsubscribe_info(session, token_in(token))
    return _page(guest, token, info, just_now=False)


@router.post("/u/{token}")
def unsubscribe_now(token: str, guest: Guest = recipient, form: FormData = lenient_form) -> Response:
    """Unsubscribe at once (RFC 8058): no cookie, no question, no redirect; a repeat changes nothing."""
    with guest.writing() as session:
        info = engagement.unsubscribe(session, token_in(token), guest.now)
    if text(form, "by") == "page":
        return _page(guest, token, info, just_now=True)
    if info is None:
        raise NotFound("This unsubscribe link is not known.")
    return PlainTextResponse(i18n.translations(info.language).gettext(N_("You are unsubscribed.")))


@router.post("/u/{token}/again")
def resubscribe(token: str, guest: Guest = recipient) -> Response:
    """Undo the unsubscription of the recipient who has this link."""
    with guest.writing() as session:
        info = engagement.resubscribe(session, token_in(token), guest.now)
    return _page(guest, token, info, just_now=True)


def _link_in(written: str) -> str:
    found = _LINK.match(written)
    return found[0] if found else ""


def _page(guest: Guest, token: str, info: UnsubscribeInfo | None, *, just_now: bool) -> Response:
    if info is None:
        return guest.page("recipient/no_link.html", status=404)
    if not guest.request.query_params.get("lang") and info.language in i18n.LANGUAGES:
        guest.language = info.language
    with guest.reading() as session:
        message = message_by_token(session, token_in(token))
        guest.brand = session.get(Brand, message.brand_id) if message else None
    guest.viewer = None
    root = guest.request.url.path.partition("/u/")[0]
    return guest.page("recipient/unsubscribe.html", link=f"{root}/u/{token_in(token)}", info=info, just_now=just_now)


def _user_agent(request: Request) -> str:
    return request.headers.get("user-agent", "")
