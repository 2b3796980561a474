"""The REST route by which other systems report events, one or many in one call, each with its own verdict."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from distmark.engagement import service as engagement
from distmark.engagement.events import MOST_EVENTS, NewEvent, RecordedEvent
from distmark.entries.api_calls import (
    InvalidCall,
    Problem,
)
from distmark.errors import DistmarkError, NotFound, Refused
from distmark.partners.model import Permission, Viewer
from distmark.partners.service import require
from distmark.web.api.bodies import (
    LONGEST_KEY,
    Email,
    Id,
    check_storable,
    openapi_of,
    problems_json,
    problems_of,
    problems_response,
    raw_body,
    read_json,
)
from distmark.web.api.viewer import api_viewer
from distmark.web.visit import Site

router = APIRouter(prefix="/api/v1")
REASONS: dict[type[DistmarkError], str] = {NotFound: "unknown_contact", Refused: "key_used"}


class EventRequest(BaseModel):
    """One event of a contact. `key` makes a repeat of the same event harmless."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9_]*$")]
    contact_id: Id | None = None
    email: Email | None = None
    at: AwareDatetime | None = None
    value: Annotated[float | None, Field(ge=-1e12, le=1e12, allow_inf_nan=False)] = None
    data: Annotated[dict[str, Any], Field(max_length=50)] = {}
    key: Annotated[str | None, Field(min_length=1, max_length=LONGEST_KEY)] = None
    conversion: bool | None = None

    @model_validator(mode="after")
    def _has_contact(self) -> "EventRequest":
        if self.contact_id is None and self.email is None:
            raise ValueError("The event names nobody; give contact_id or email.")
        return self

    @property
    def event(self) -> NewEvent:
        """Return the event as the engagement room takes it."""
        return NewEvent(self.name, self.contact_id, self.email, self.at, self.value, self.data, self.key, self.conversion)


_event: TypeAdapter[EventRequest] = TypeAdapter(EventRequest)


_ONE = EventRequest.model_json_schema()
_MANY = {"type": "array", "items": _ONE, "minItems": 1, "maxItems": MOST_EVENTS}
_LISTED = {"type": "object", "properties": {"events": _MANY}, "required": ["events"], "additionalProperties": False}


@router.post("/events", openapi_extra=openapi_of({"anyOf": [_ONE, _LISTED, _MANY]}))
def post_events(request: Request, body: bytes = raw_body, viewer: Viewer = api_viewer) -> Response:
    """Record one event, or up to 1,000 as {"events": [...]}; an event with the verdict recorded is committed.

    One event is answered by 201, by 200 when the same event came before under its `key`, and by 409 when another one did. Many events are
    answered by 200 with a verdict for each, in order: recorded, repeated or refused; a refused event does not keep the others from being
    recorded.
    """
    require(viewer, Permission.record_events)
    site: Site = request.app.state.site
    try:
        content = read_json(body)
        many = content.get("events") if isinstance(content, dict) and "events" in content else content
        if not isinstance(many, list):
            check_storable(content)
            return _record_one(site, viewer, _event.validate_python(content))
        _check_event_list(content, many)
    except ValidationError as error:
        return problems_response(request, problems_of(error))
    except InvalidCall as error:
        return problems_response(request, error.problems)
    return JSONResponse(_record_many(site, viewer, many))


def _check_event_list(content: Any, many: Sequence[Any]) -> None:
    if isinstance(content, dict) and (odd := sorted(set(content) - {"events"})):
        raise InvalidCall([Problem(odd[0], "There is no such field beside events.")])
    if not 1 <= len(many) <= MOST_EVENTS:
        raise InvalidCall([Problem("events", f"{len(many)} events are told; give 1 to {MOST_EVENTS:,} in one call.")])


def _record_one(site: Site, viewer: Viewer, event_request: EventRequest) -> Response:
    with site.db.writing() as session:
        recorded = _single_event(
            engagement.record_events(session, viewer.brand_id, [event_request.event], site.clock.now(), partner_id=viewer.partner_id)
        )
    body = {"event_id": recorded.event_id, "contact_id": recorded.contact_id, "repeated": recorded.repeated}
    return JSONResponse(body, status_code=200 if recorded.repeated else 201)


def _single_event(answers: Sequence[RecordedEvent | DistmarkError]) -> RecordedEvent:
    (answer,) = answers
    if isinstance(answer, DistmarkError):
        raise answer
    return answer


def _record_many(site: Site, viewer: Viewer, many: Sequence[Any]) -> dict[str, Any]:
    verdicts: list[dict[str, Any]] = [{}] * len(many)
    read: dict[int, NewEvent] = {}
    for number, content in enumerate(many):
        place = f"events[{number}]"
        try:
            check_storable(content, place)
            read[number] = _event.validate_python(content).event
        except (ValidationError, InvalidCall) as error:
            problems = error.problems if isinstance(error, InvalidCall) else problems_of(error, place)
            verdicts[number] = {"verdict": "refused", "reason": "unreadable", "problems": problems_json(problems)}
    with site.db.writing() as session:
        now = site.clock.now()
        answers = engagement.record_events(session, viewer.brand_id, list(read.values()), now, partner_id=viewer.partner_id)
    for number, answer in zip(read, answers, strict=True):
        verdicts[number] = _verdict_json(answer)
    return {"recorded": sum(each["verdict"] == "recorded" for each in verdicts), "results": verdicts}


def _verdict_json(answer: RecordedEvent | DistmarkError) -> dict[str, Any]:
    if isinstance(answer, DistmarkError):
        return {"verdict": "refused", "reason": REASONS.get(type(answer), "unreadable"), "detail": str(answer)}
    return {"verdict": "repeated" if answer.repeated else "recorded", "event_id": answer.event_id, "contact_id": answer.contact_id}
