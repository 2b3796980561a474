"""The REST API: pausing, resuming, stopping and draining a journey, a version of it, a campaign, a partner, a contact, or enrollments."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Self, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from sqlmodel import Session, col, select

from distmark.campaigns.table import Campaign
from distmark.enrollments import control
from distmark.enrollments.control import ResumePlan
from distmark.enrollments.suspensions import Scope
from distmark.entries.api_calls import InvalidCall
from distmark.errors import NotFound
from distmark.journeys.service import get_journey, versions_of
from distmark.partners.model import Viewer
from distmark.partners.scope import visible
from distmark.partners.table import Partner
from distmark.web.api.entries import Id, body_of, problems_of, read_json, unreadable
from distmark.web.api.viewer import api_viewer
from distmark.web.visit import Site

router = APIRouter(prefix="/api/v1/control")
MOST_ENROLLMENTS = 1000
LONGEST_REASON = 300
MOST_HOURS = 24 * 30
Key = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[^\x00]+$")]
Reason = Annotated[str, Field(max_length=LONGEST_REASON, pattern=r"^[^\x00-\x1f]*$")]
Keyed = TypeVar("Keyed", Campaign, Partner)


class ScopeAsked(BaseModel):
    """What is meant: everything that is given must fit, or a list of enrollments alone. A `version` is of the `journey`."""

    model_config = ConfigDict(extra="forbid")

    journey: Key | None = None
    version: Id | None = None
    campaign: Key | None = None
    partner: Key | None = None
    contact: Id | None = None
    enrollments: Annotated[list[Id], Field(max_length=MOST_ENROLLMENTS)] = []
    dry_run: bool = False

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        parts = (self.journey, self.campaign, self.partner, self.contact)
        if self.version is not None and self.journey is None:
            raise ValueError("A version is of a journey; give journey with version.")
        if any(part is not None for part in parts) == bool(self.enrollments):
            raise ValueError("Give a journey, campaign, partner or contact, or a list of enrollments.")
        return self


class HoldAsked(ScopeAsked):
    """What is paused or drained, and why."""

    reason: Reason = ""


class StopAsked(ScopeAsked):
    """What ends for everybody who is inside, and why: the reason is required."""

    reason: Annotated[str, Field(min_length=1, max_length=LONGEST_REASON, pattern=r"^[^\x00-\x1f]*\S[^\x00-\x1f]*$")]


class ResumeAsked(ScopeAsked):
    """What goes on: with waits made longer by the pause (`extend`), and those due at once spread evenly over so many hours."""

    extend: bool = False
    spread_hours: Annotated[float, Field(ge=0, le=MOST_HOURS, allow_inf_nan=False)] = 0


Asked = TypeVar("Asked", bound=ScopeAsked)
Act = Callable[[Session, Viewer, Scope, Any], Mapping[str, Any]]


def _described(model: type[ScopeAsked], answer: Mapping[str, str]) -> dict[str, Any]:
    """Return what OpenAPI says of a route: its body, and what it answers."""
    properties = {name: {"type": kind} for name, kind in answer.items()}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}},
        "responses": {"200": {"description": "What was done, or would be.", "content": {"application/json": {"schema": schema}}}},
    }


COUNTED = {"count": "integer", "dry_run": "boolean"}
RESUMED = COUNTED | {"paused": "integer", "kept": "integer", "at_once": "integer", "steps": "object", "extended": "boolean"}


@router.post("/pause", openapi_extra=_described(HoldAsked, COUNTED))
def post_pause(request: Request, body: bytes = body_of, viewer: Viewer = api_viewer) -> Response:
    """Freeze everybody in the scope where they are; `count` were moving. Who enters it meanwhile starts paused. A repeat is harmless."""
    site: Site = request.app.state.site

    def act(session: Session, viewer: Viewer, scope: Scope, asked: HoldAsked) -> dict[str, Any]:
        return {"count": control.pause(session, viewer, scope, site.clock.now(), asked.reason)}

    return _answered(request, viewer, body, HoldAsked, act)


@router.post("/resume", openapi_extra=_described(ResumeAsked, RESUMED))
def post_resume(request: Request, body: bytes = body_of, viewer: Viewer = api_viewer) -> Response:
    """Let the scope go on; of `paused`, `count` do and `kept` stay, under another pause. `at_once` of them do something now, or spread."""
    site: Site = request.app.state.site

    def act(session: Session, viewer: Viewer, scope: Scope, asked: ResumeAsked) -> dict[str, Any]:
        spread = timedelta(hours=asked.spread_hours) or None
        do = control.plan_resume if asked.dry_run else control.resume
        return _told(do(session, viewer, scope, site.clock.now(), extend=asked.extend, spread=spread))

    return _answered(request, viewer, body, ResumeAsked, act)


@router.post("/stop", openapi_extra=_described(StopAsked, COUNTED))
def post_stop(request: Request, body: bytes = body_of, viewer: Viewer = api_viewer) -> Response:
    """End the journey for everybody who is inside, for good; they were `count`. To keep others from entering, drain first."""
    site: Site = request.app.state.site

    def act(session: Session, viewer: Viewer, scope: Scope, asked: StopAsked) -> dict[str, Any]:
        if asked.dry_run:
            return {"count": control.plan_stop(session, viewer, scope)}
        return {"count": control.stop(session, viewer, scope, asked.reason.strip(), site.clock.now())}

    return _answered(request, viewer, body, StopAsked, act)


@router.post("/drain", openapi_extra=_described(HoldAsked, COUNTED))
def post_drain(request: Request, body: bytes = body_of, viewer: Viewer = api_viewer) -> Response:
    """Let nobody enter the scope until it is resumed; `count` are inside and finish."""
    site: Site = request.app.state.site

    def act(session: Session, viewer: Viewer, scope: Scope, asked: HoldAsked) -> dict[str, Any]:
        return {"count": control.drain(session, viewer, scope, site.clock.now(), asked.reason)}

    return _answered(request, viewer, body, HoldAsked, act)


def _answered(request: Request, viewer: Viewer, body: bytes, model: type[Asked], act: Callable[..., dict[str, Any]]) -> Response:
    site: Site = request.app.state.site
    try:
        asked = TypeAdapter(model).validate_python(read_json(body))
    except ValidationError as error:
        return unreadable(request, problems_of(error))
    except InvalidCall as error:
        return unreadable(request, error.problems)
    with site.db.writing() as session:
        done = act(session, viewer, _meant(session, viewer, asked), asked)
        if asked.dry_run:  # what it counts is exact: what was done is taken back
            session.rollback()
    return JSONResponse(done | {"dry_run": asked.dry_run})


def _told(plan: ResumePlan) -> dict[str, Any]:
    return {
        "count": plan.resumed,
        "paused": plan.paused,
        "kept": plan.kept,
        "at_once": plan.at_once,
        "steps": dict(plan.steps),
        "extended": plan.extended,
        "spread_until": plan.spread_until.isoformat() if plan.spread_until else None,
    }


# --- names --------------------------------------------------------------------------------------------------------------------------------


def _meant(session: Session, viewer: Viewer, asked: ScopeAsked) -> Scope:
    """Return the scope that is named, among the viewer's rows. NotFound for what is not theirs."""
    if asked.enrollments:
        return Scope.listed(asked.enrollments)
    journey_id = get_journey(session, viewer, asked.journey).id if asked.journey else None
    return Scope(
        journey_id=journey_id if asked.version is None else None,
        version_id=_version_id(session, journey_id or 0, asked) if asked.version is not None else None,
        campaign_id=_keyed(session, viewer, Campaign, asked.campaign).id if asked.campaign else None,
        partner_id=_keyed(session, viewer, Partner, asked.partner).id if asked.partner else None,
        contact_id=asked.contact,
    )


def _version_id(session: Session, journey_id: int, asked: ScopeAsked) -> int | None:
    found = next((version.id for version in versions_of(session, journey_id) if version.number == asked.version), None)
    if found is None:
        raise NotFound(f"Journey {asked.journey} has no version {asked.version}.")
    return found


def _keyed(session: Session, viewer: Viewer, table: type[Keyed], key: str) -> Keyed:
    found = session.exec(visible(select(table), table, viewer).where(col(table.key) == key)).first()
    if found is None:
        raise NotFound(f"There is no {table.__name__.lower()} {key} among yours.")
    return found
