"""The viewer of a request to the REST API: the user who made its bearer token."""

from typing import Any

from fastapi import Depends, Request
from itsdangerous import BadSignature

from distmark.partners.model import Viewer
from distmark.partners.service import active_viewer
from distmark.partners.table import User
from distmark.partners.tokens import PREFIX, is_use_outdated, note_use, viewer_of_token
from distmark.settings import Mode
from distmark.sql import id_of
from distmark.web.i18n import N_
from distmark.web.permissions import SignInNeeded
from distmark.web.visit import Site

TOKEN_SECONDS = 366 * 24 * 3600


class ApiViewer:
    """The dependency that gives a route the viewer of the request's bearer token: a stored token; in demos and tests, a signed one too."""

    def __call__(self, request: Request) -> Viewer:
        site: Site = request.app.state.site
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        if token.startswith(PREFIX):
            return _token_holder(site, token)
        # A signed token is in no list and cannot be revoked: for demos and tests.
        user_id = _signed_user_id(site, token) if token and site.settings.mode is not Mode.production else None
        with site.db.reading() as session:
            user = session.get(User, user_id) if user_id is not None else None
            viewer = active_viewer(session, user) if user is not None else None
        if viewer is None:
            raise SignInNeeded(N_("Sign in to see this page."))
        return viewer


def _token_holder(site: Site, token: str) -> Viewer:
    now = site.clock.now()
    with site.db.reading() as session:
        found = viewer_of_token(session, token, now)
    if found is None:
        raise SignInNeeded(N_("Sign in to see this page."))
    viewer, row = found
    if is_use_outdated(row, now):
        with site.db.writing() as session:
            note_use(session, id_of(row), now)
    return viewer


def _signed_user_id(site: Site, token: str) -> int | None:
    try:
        user_id = site.signer("api").loads(token, max_age=TOKEN_SECONDS)
    except BadSignature:
        return None
    return user_id if isinstance(user_id, int) else None


def api_token(site: Site, user_id: int) -> str:
    """Return a signed bearer token of this user, valid for a year, outside of production. A single signed token cannot be revoked."""
    return str(site.signer("api").dumps(user_id))


api_viewer: Any = Depends(ApiViewer())
