"""Who a request to the REST API acts for: the person whose bearer token it carries."""

from typing import Any

from fastapi import Depends, Request
from itsdangerous import BadSignature

from distmark.partners.model import Viewer
from distmark.partners.table import User
from distmark.web.i18n import N_
from distmark.web.site import SignInNeeded, Site

TOKEN_SECONDS = 366 * 24 * 3600


class ApiViewer:
    """Whose rows a request may touch: the person whom its bearer token was signed for."""

    def __call__(self, request: Request) -> Viewer:
        site: Site = request.app.state.site
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        user_id = _signed_for(site, token.strip()) if scheme.lower() == "bearer" else None
        with site.db.reading() as session:
            user = session.get(User, user_id) if user_id is not None else None
        if user is None or user.id is None or not user.active:
            raise SignInNeeded(N_("Sign in to see this page."))
        return Viewer(user.id, user.role, user.brand_id, user.partner_id, user.name, user.language)


def _signed_for(site: Site, token: str) -> int | None:
    try:
        user_id = site.signer("api").loads(token, max_age=TOKEN_SECONDS)
    except BadSignature:
        return None
    return user_id if isinstance(user_id, int) else None


def api_token(site: Site, user_id: int) -> str:
    """Return a bearer token, good for a year, with which requests act as this person."""
    return str(site.signer("api").dumps(user_id))


api_viewer: Any = Depends(ApiViewer())
