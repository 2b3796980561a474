"""The permission of a route, checked before its view is called with a `Guest` or a `Visit`; and the errors of signing in."""

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
    """The request has no signed-in user, and the route needs one."""


class Anyone:
    """The dependency of a route without a permission (links in messages, probes, the sign-in page): gives a `Guest`."""

    def __call__(self, request: Request) -> Guest:
        site = cast(Site, request.app.state.site)
        viewer, brand = _signed_in_viewer(site, request)
        return Guest(request=request, site=site, viewer=viewer, brand=brand, language=_language_of(request, viewer))


class Needs:
    """The dependency of a route for signed-in users with `permission`, or for every signed-in user when it is None: gives a `Visit`."""

    def __init__(self, permission: Permission | None) -> None:
        self.permission = permission

    def __call__(self, request: Request) -> Visit:
        site = cast(Site, request.app.state.site)
        viewer, brand = _signed_in_viewer(site, request)
        if viewer is None:
            raise SignInNeeded(N_("Sign in to see this page."))
        if self.permission is not None and not viewer.may(self.permission):
            words = self.permission.replace("_", " ")
            raise NotAllowed(f"{viewer.name} ({viewer.role}) may not {words}; ask an administrator of your brand for this role.")
        return Visit(request=request, site=site, viewer=viewer, brand=brand, language=_language_of(request, viewer))


def needs(permission: Permission) -> Any:
    """Return the dependency of a route that needs `permission`; it gives the view a `Visit`."""
    return Depends(Needs(permission))


signed_in: Any = Depends(Needs(None))
anyone: Any = Depends(Anyone())


def sign_in_address(request: Request) -> str:
    """Return the address of the sign-in page, with this request's page as the one to go to afterwards."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return f"/sign-in?next={quote(here, safe='')}" if request.method == "GET" and here != "/" else "/sign-in"


def _signed_in_viewer(site: Site, request: Request) -> tuple[Viewer | None, Brand | None]:
    token = request.cookies.get(site.session_cookie)
    if not token:
        return None, None
    with site.db.reading() as session:
        viewer = partners.viewer_of(session, token, site.clock.now())
        return viewer, partners.brand_of(session, viewer) if viewer else None


def _language_of(request: Request, viewer: Viewer | None) -> str:
    return i18n.choose_language(
        user=viewer.language if viewer else None,
        cookie=request.cookies.get(LANGUAGE),
        accept=request.headers.get("accept-language", ""),
    )


class TooManySignIns(DistmarkError):
    """Too many sign-ins were tried from one address or for one user; the next is allowed in `seconds`."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(f"Too many sign-ins were tried; wait {seconds} seconds and try again.")
