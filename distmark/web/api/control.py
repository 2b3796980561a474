"""REST routes that pause, resume, stop and drain a scope: a journey, a version, a campaign, a partner, a contact, or enrollments."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Self, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from sqlmodel import Session, col, select

from distmark.campaigns.offers import offered_journey
from distmark.campaigns.table import Campaign
from distmark.enrollments import control
from distmark.enrollments.control import ResumePlan
from distmark.enrollments.shown import ShownEnrollments
from distmark.enrollments.suspensions import Scope
from distmark.entries.api_calls import InvalidCall
from distmark.errors import NotFound
from distmark.journeys.service import versions_of
from distmark.journeys.table import Journey
from distmark.partners.model import Viewer
from distmark.partners.scope import visible
from distmark.partners.table import Partner
from distmark.sql import id_of
from distmark.web.api.bodies import Id, openapi_of, problems_of, problems_response, raw_body, read_json
from distmark.web.api.viewer import api_viewer
from distmark.web.visit import Site

router = APIRouter(prefix="/api/v1/control")
MOST_ENROLLMENTS = 1000
LONGEST_REASON = 300
MOST_HOURS = 24 * 30
Key = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[^\x00]+$")]
Reason = Annotated[str, Field(max_length=LONGEST_REASON, pattern=r"^[^\x00-\x1f]*$")]
Shown = Annotated[str, Field(pattern=r"^[0-9]{1,17}-[0-9]{1,17}$")]
KeyedRow = TypeVar("KeyedRow", Campaign, Partner)


class ScopeRequest(BaseModel):
    """The scope of a request: every given field narrows it, or it is a list of enrollments alone. `version` is a number of `journey`."""

    model_config = ConfigDict(extra="forbid")

    journey: Key | None = None
    version: Id | None = None
    campaign: Key | None = None
    partner: Key | None = None
    contact: Id | None = None
    enrollments: Annotated[list[Id], Field(max_length=MOST_ENROLLMENTS)] = []
    dry_run: bool = False

    @model_validator(mode="after")
    def _has_scope(self) -> Self:
        parts = (self.journey, self.campaign, self.partner, self.contact)
        if self.version is not None and self.journey is None:
            raise ValueError("A version is of a journey; give journey with version.")
        if any(part is not None for part in parts) == bool(self.enrollments):
            raise ValueError("Give a journey, campaign, partner or contact, or a list of enrollments.")
        return self


class SuspendRequest(ScopeRequest):
    """A scope to pause or to drain, with the reason."""

    reason: Reason = ""


class StopRequest(ScopeRequest):
    """A scope to stop, with the reason, which is required. With `shown` from the answer to a dry run only those counted then end."""

    shown: Shown | None = None
    reason: Annotated[str, Field(min_length=1, max_length=LONGEST_REASON, pattern=r"^[^\x00-\x1f]*\S[^\x00-\x1f]*$")]


class ResumeRequest(ScopeRequest):
    """A scope to resume: `extend` makes waits longer by the pause, `spread_hours` spreads the enrollments due at once evenly.

    With `shown` from the answer to a dry run it is refused when more would resume than were counted then.
    """

    shown: Shown | None = None
    extend: bool = False
    spread_hours: Annotated[float, Field(ge=0, le=MOST_HOURS, allow_inf_nan=False)] = 0


AnyScopeRequest = TypeVar("AnyScopeRequest", bound=ScopeRequest)
ControlAct = Callable[[Session, Viewer, Scope, Any], Mapping[str, Any]]


def _openapi_of(model: type[ScopeRequest], answer: Mapping[str, str]) -> dict[str, Any]:
    return openapi_of(model.model_json_schema(), answer, "What was done, or would be.")


COUNTED = {"count": "integer", "dry_run": "boolean"}
RESUMED = COUNTED | {"paused": "integer", "kept": "integer", "at_once": "integer", "steps": "object", "extended": "boolean"}


@router.post("/pause", openapi_extra=_openapi_of(SuspendRequest, COUNTED))
def post_pause(request: Request, body: bytes = raw_body, viewer: Viewer = api_viewer) -> Response:
    """Pause the enrollments of the scope; `count` of them were not paused before. Later enrollments start paused. A repeat is harmless."""
    site: Site = request.app.state.site

    def act(session: Session, viewer: Viewer, scope: Scope, scope_request: SuspendRequest) -> dict[str, Any]:
        return {"count": control.pause(session, viewer, scope, site.clock.now(), scope_request.reason)}

    return _answer(request, viewer, body, SuspendRequest, act)


@router.post("/resume", openapi_extra=_openapi_of(ResumeRequest, RESUMED))
def post_resume(request: Request, body: bytes = raw_body, viewer: Viewer = api_viewer) -> Response:
    """Resume the scope: of `paused` enrollments `count` go on and `kept` stay under another pause; `at_once` are due now or spread."""
    site: Site = request.app.state.site

    def act(session: Session, viewer: Viewer, scope: Scope, scope_request: ResumeRequest) -> dict[str, Any]:
        spread = timedelta(hours=scope_request.spread_hours) or None
        now, extend = site.clock.now(), scope_request.extend
        if scope_request.dry_run:
            plan = control.plan_resume(session, viewer, scope, now, extend=extend, spread=spread)
            return _plan_json(plan) | {"shown": str(control.resumable_enrollments(session, viewer, scope))}
        shown = ShownEnrollments.read(scope_request.shown or "")
        return _plan_json(control.resume(session, viewer, scope, now, extend=extend, spread=spread, shown=shown))

    return _answer(request, viewer, body, ResumeRequest, act)


@router.post("/stop", openapi_extra=_openapi_of(StopRequest, COUNTED))
def post_stop(request: Request, body: bytes = raw_body, viewer: Viewer = api_viewer) -> Response:
    """End the `count` live enrollments of the scope for good. Contacts can still enter afterwards, unless the scope is drained first."""
    site: Site = request.app.state.site

    def act(session: Session, viewer: Viewer, scope: Scope, scope_request: StopRequest) -> dict[str, Any]:
        if scope_request.dry_run:
            live = control.live_enrollments(session, viewer, scope)
            return {"count": live.count, "shown": str(live)}
        shown = ShownEnrollments.read(scope_request.shown or "")
        return {"count": control.stop(session, viewer, scope, scope_request.reason.strip(), site.clock.now(), shown)}

    return _answer(request, viewer, body, StopRequest, act)


@router.post("/drain", openapi_extra=_openapi_of(SuspendRequest, COUNTED))
def post_drain(request: Request, body: bytes = raw_body, viewer: Viewer = api_viewer) -> Response:
    """Let no contact enter the scope until it is resumed; the `count` live enrollments go on to their end."""
    site: Site = request.app.state.site

    def act(session: Session, viewer: Viewer, scope: Scope, scope_request: SuspendRequest) -> dict[str, Any]:
        return {"count": control.drain(session, viewer, scope, site.clock.now(), scope_request.reason)}

    return _answer(request, viewer, body, SuspendRequest, act)


def _answer(request: Request, viewer: Viewer, body: bytes, model: type[AnyScopeRequest], act: Callable[..., dict[str, Any]]) -> Response:
    site: Site = request.app.state.site
    try:
        scope_request = TypeAdapter(model).validate_python(read_json(body))
    except ValidationError as error:
        return problems_response(request, problems_of(error))
    except InvalidCall as error:
        return problems_response(request, error.problems)
    with site.db.writing() as session:
        done = act(session, viewer, _scope_of(session, viewer, scope_request), scope_request)
        if scope_request.dry_run:  # the counts of a dry run are exact: the act is done and rolled back
            session.rollback()
    return JSONResponse(done | {"dry_run": scope_request.dry_run})


def _plan_json(plan: ResumePlan) -> dict[str, Any]:
    return {
        "count": plan.resumed,
        "paused": plan.paused,
        "kept": plan.kept,
        "at_once": plan.at_once,
        "steps": dict(plan.steps),
        "extended": plan.extended,
        "spread_until": plan.spread_until.isoformat() if plan.spread_until else None,
    }


# --- scopes -------------------------------------------------------------------------------------------------------------------------------


def _scope_of(session: Session, viewer: Viewer, scope_request: ScopeRequest) -> Scope:
    """Return the scope that the request names; NotFound when a named row is not among the viewer's."""
    if scope_request.enrollments:
        return Scope.listed(scope_request.enrollments)
    journey = offered_journey(session, viewer, scope_request.journey) if scope_request.journey else None
    version_id = _version_id(session, journey, scope_request.version) if journey and scope_request.version is not None else None
    return Scope(
        journey_id=id_of(journey) if journey and version_id is None else None,
        version_id=version_id,
        campaign_id=_row_by_key(session, viewer, Campaign, scope_request.campaign).id if scope_request.campaign else None,
        partner_id=_row_by_key(session, viewer, Partner, scope_request.partner).id if scope_request.partner else None,
        contact_id=scope_request.contact,
    )


def _version_id(session: Session, journey: Journey, number: int) -> int:
    found = next((version for version in versions_of(session, id_of(journey)) if version.number == number), None)
    if found is None:
        raise NotFound(f"Journey {journey.key} has no version {number}.")
    return id_of(found)


def _row_by_key(session: Session, viewer: Viewer, table: type[KeyedRow], key: str) -> KeyedRow:
    found = session.exec(visible(select(table), table, viewer).where(col(table.key) == key)).first()
    if found is None:
        raise NotFound(f"There is no {table.__name__.lower()} {key} among yours.")
    return found
