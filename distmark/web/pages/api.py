"""The REST API: events that happened elsewhere, from people's systems."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from itsdangerous import BadSignature
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from distmark.engagement import service as engagement
from distmark.partners.model import Viewer
from distmark.partners.table import User
from distmark.web.i18n import N_
from distmark.web.site import SignInNeeded, Site

router = APIRouter(prefix="/api/v1")
TOKEN_SECONDS = 366 * 24 * 3600


class EventInput(BaseModel):
    """One thing that a contact did. `key` makes a repeat of the same event harmless."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9_]*$")]
    contact_id: int | None = None
    email: Annotated[str | None, Field(max_length=254)] = None
    at: AwareDatetime | None = None
    value: Annotated[float | None, Field(ge=-1e12, le=1e12)] = None
    data: Annotated[dict[str, Any], Field(max_length=50)] = {}
    key: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    conversion: bool | None = None


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


@router.post("/events")
def post_event(request: Request, event: EventInput, viewer: Viewer = api_viewer) -> Response:
    """Record one event; answers 201, or 200 when the same `key` came before."""
    site: Site = request.app.state.site
    now: datetime = site.clock.now()
    with site.db.writing() as session:
        recorded = engagement.record_event(
            session,
            viewer.brand_id,
            event.name,
            now,
            partner_id=viewer.partner_id,
            contact_id=event.contact_id,
            email=event.email,
            at=event.at,
            value=event.value,
            data=event.data,
            key=event.key,
            conversion=event.conversion,
        )
    body = {"event_id": recorded.event_id, "contact_id": recorded.contact_id, "repeated": recorded.repeated}
    return JSONResponse(body, status_code=200 if recorded.repeated else 201)
