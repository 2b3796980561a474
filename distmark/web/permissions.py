"""The permission of a route: who may call it, and the visit that it is given."""

from typing import Any, cast
from urllib.parse import quote

from fastapi import Depends, Request

from distmark.errors import DistmarkError, NotAllowed
from distmark.partners import service as partners
from distmark.partners.model import Permission, Viewer
from distmark.partners.table import Brand
from distmark.web import i18n
from distmark.web.i18n import N_
from distmark.web.visit import LANGUAGE, Guest, Site, Visit


class SignInNeeded(DistmarkError):
    """Nobody is signed in, and this page is for someone who is."""


class Anyone:
    """A route for everybody: recipients, probes, the sign-in page."""

    def __call__(self, request: Request) -> Guest:
        site = cast(Site, request.app.state.site)
        viewer, brand = _signed_in(site, request)
        return Guest(request=request, site=site, viewer=viewer, brand=brand, language=_language(request, viewer))


class Needs:
    """A route for signed-in people who have `permission`; None: for whoever is signed in."""

    def __init__(self, permission: Permission | None) -> None:
        self.permission = permission

    def __call__(self, request: Request) -> Visit:
        site = cast(Site, request.app.state.site)
        viewer, brand = _signed_in(site, request)
        if viewer is None:
            raise SignInNeeded(N_("Sign in to see this page."))
        if self.permission is not None and not viewer.may(self.permission):
            raise NotAllowed(f"{viewer.name} ({viewer.role}) may not {self.permission}; ask an administrator of your brand for this role.")
        return Visit(request=request, site=site, viewer=viewer, brand=brand, language=_language(request, viewer))


def needs(permission: Permission) -> Any:
    """Declare a route's permission; gives the Visit."""
    return Depends(Needs(permission))


signed_in: Any = Depends(Needs(None))
anyone: Any = Depends(Anyone())


def sign_in_address(request: Request) -> str:
    """Return the sign-in page's address that leads back to this request's page."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return f"/sign-in?next={quote(here, safe='')}" if request.method == "GET" and here != "/" else "/sign-in"


def _signed_in(site: Site, request: Request) -> tuple[Viewer | None, Brand | None]:
    token = request.cookies.get(site.session_cookie)
    if not token:
        return None, None
    with site.db.reading() as session:
        viewer = partners.viewer_of(session, token, site.clock.now())
        return viewer, partners.brand_of(session, viewer) if viewer else None


def _language(request: Request, viewer: Viewer | None) -> str:
    return i18n.choose(
        user=viewer.language if viewer else None,
        cookie=request.cookies.get(LANGUAGE),
        accept=request.headers.get("accept-language", ""),
    )
