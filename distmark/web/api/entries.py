"""The REST API, many at a time: contacts into journeys, and events, each with its own verdict."""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import from_json

from distmark.engagement import service as engagement
from distmark.engagement.events import MOST_EVENTS, NewEvent, RecordedEvent
from distmark.entries.api_calls import (
    MOST_CONTACTS,
    MOST_PER_RUN,
    CallAnswer,
    EntryCall,
    InvalidCall,
    Problem,
    RequestedContact,
    enter_by_call,
)
from distmark.errors import DistmarkError, NotFound
from distmark.partners.model import Viewer
from distmark.web.api.viewer import api_viewer
from distmark.web.visit import Site

router = APIRouter(prefix="/api/v1")
LARGEST_ID = 2**31 - 1
LONGEST_KEY = 200
MOST_FIELDS = 100
Id = Annotated[int, Field(ge=1, le=LARGEST_ID, strict=True)]
Email = Annotated[str, Field(min_length=3, max_length=254)]


async def raw_body(request: Request) -> bytes:
    """Return the request's body as it came: it is read here with the place of every mistake."""
    return await request.body()


body_of: Any = Depends(raw_body)


class ContactAsked(BaseModel):
    """One contact to enter, by id or mail address."""

    model_config = ConfigDict(extra="forbid")

    id: Id | None = None
    email: Email | None = None
    data: Annotated[dict[str, Any], Field(max_length=MOST_FIELDS)] = {}


class EnrollmentsAsked(BaseModel):
    """The contacts to enter into a journey, by a campaign or without one."""

    model_config = ConfigDict(extra="forbid")

    contacts: Annotated[list[ContactAsked], Field(min_length=1, max_length=MOST_CONTACTS)]
    campaign: Annotated[str | None, Field(min_length=1, max_length=63)] = None
    contacts_per_run: Annotated[int, Field(ge=1, le=MOST_PER_RUN)] = 1


class EventAsked(BaseModel):
    """One thing that a contact did. `key` makes a repeat of the same event harmless."""

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
    def _names_somebody(self) -> "EventAsked":
        if self.contact_id is None and self.email is None:
            raise ValueError("The event names nobody; give contact_id or email.")
        return self

    @property
    def event(self) -> NewEvent:
        """The event as the engagement room takes it."""
        return NewEvent(self.name, self.contact_id, self.email, self.at, self.value, self.data, self.key, self.conversion)


_enrollments: TypeAdapter[EnrollmentsAsked] = TypeAdapter(EnrollmentsAsked)
_event: TypeAdapter[EventAsked] = TypeAdapter(EventAsked)


@router.post("/journeys/{key}/enrollments")
def post_enrollments(request: Request, key: str, body: bytes = body_of, viewer: Viewer = api_viewer) -> Response:
    """Enter 1 to 10,000 contacts into the journey; answers 200 with one verdict per contact, in order.

    The same Idempotency-Key gets the same answer and enters nobody again. 422 names every place that is wrong, and nobody entered.
    """
    site: Site = request.app.state.site
    try:
        told = read_json(body)
        _check_storable(told)
        asked = _enrollments.validate_python(told)
        contacts = [RequestedContact(each.id, each.email, each.data) for each in asked.contacts]
        call = EntryCall(key, contacts, _key_of(request), asked.campaign, asked.contacts_per_run)
        with site.db.writing() as session:
            answered = enter_by_call(session, viewer, call, site.clock.now())
    except ValidationError as error:
        return unreadable(request, problems_of(error))
    except InvalidCall as error:
        return unreadable(request, error.problems)
    headers = {"idempotency-replayed": "true"} if answered.repeated else None
    return JSONResponse(_told(answered), headers=headers)


def _told(answered: CallAnswer) -> dict[str, Any]:
    results = [
        {"contact_id": each.contact_id, "verdict": each.verdict, "enrollment_id": each.enrollment_id, "until": each.until}
        for each in answered.answers
    ]
    return {"enrolled": sum(each.verdict == "enrolled" for each in answered.answers), "results": results}


def _key_of(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isprintable()):
        raise InvalidCall([Problem("Idempotency-Key", f"It has {len(key)} characters; give 1 to {LONGEST_KEY} that can be printed.")])
    return key


@router.post("/events")
def post_events(request: Request, body: bytes = body_of, viewer: Viewer = api_viewer) -> Response:
    """Record one event, or up to 1,000 as {"events": [...]}; whatever is answered as recorded is kept.

    One is answered by 201, or 200 when the same `key` came before. Of many, each has its own verdict in a 200, in order: recorded, repeated
    or refused; a refused one keeps no other from being recorded.
    """
    site: Site = request.app.state.site
    try:
        told = read_json(body)
        many = told.get("events") if isinstance(told, dict) and "events" in told else told
        if not isinstance(many, list):
            _check_storable(told)
            return _one_event(site, viewer, _event.validate_python(told))
        _check_events(told, many)
    except ValidationError as error:
        return unreadable(request, problems_of(error))
    except InvalidCall as error:
        return unreadable(request, error.problems)
    return JSONResponse(_record_many(site, viewer, many))


def _check_events(told: Any, many: Sequence[Any]) -> None:
    if isinstance(told, dict) and (odd := sorted(set(told) - {"events"})):
        raise InvalidCall([Problem(odd[0], "There is no such field beside events.")])
    if not 1 <= len(many) <= MOST_EVENTS:
        raise InvalidCall([Problem("events", f"{len(many)} events are told; give 1 to {MOST_EVENTS:,} in one call.")])


def _one_event(site: Site, viewer: Viewer, asked: EventAsked) -> Response:
    with site.db.writing() as session:
        recorded = _recorded(
            engagement.record_events(session, viewer.brand_id, [asked.event], site.clock.now(), partner_id=viewer.partner_id)
        )
    body = {"event_id": recorded.event_id, "contact_id": recorded.contact_id, "repeated": recorded.repeated}
    return JSONResponse(body, status_code=200 if recorded.repeated else 201)


def _recorded(answers: Sequence[RecordedEvent | DistmarkError]) -> RecordedEvent:
    (answer,) = answers
    if isinstance(answer, DistmarkError):
        raise answer
    return answer


def _record_many(site: Site, viewer: Viewer, many: Sequence[Any]) -> dict[str, Any]:
    verdicts: list[dict[str, Any]] = [{}] * len(many)
    read: dict[int, NewEvent] = {}
    for number, told in enumerate(many):
        place = f"events[{number}]"
        try:
            _check_storable(told, place)
            read[number] = _event.validate_python(told).event
        except (ValidationError, InvalidCall) as error:
            problems = error.problems if isinstance(error, InvalidCall) else problems_of(error, place)
            verdicts[number] = {"verdict": "refused", "reason": "unreadable", "problems": _shown(problems)}
    with site.db.writing() as session:
        now = site.clock.now()
        answers = engagement.record_events(session, viewer.brand_id, list(read.values()), now, partner_id=viewer.partner_id)
    for number, answer in zip(read, answers, strict=True):
        verdicts[number] = _verdict(answer)
    return {"recorded": sum(each["verdict"] == "recorded" for each in verdicts), "results": verdicts}


def _verdict(answer: RecordedEvent | DistmarkError) -> dict[str, Any]:
    if isinstance(answer, DistmarkError):
        reason = "unknown_contact" if isinstance(answer, NotFound) else "unreadable"
        return {"verdict": "refused", "reason": reason, "detail": str(answer)}
    return {"verdict": "repeated" if answer.repeated else "recorded", "event_id": answer.event_id, "contact_id": answer.contact_id}


# --- reading ----------------------------------------------------------------------------------------------------------------------------


def read_json(body: bytes) -> Any:
    """Return what the body says; Unreadable when it is no JSON."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidCall([Problem("body", f"It is not JSON: {error}.")]) from error


def _check_storable(told: Any, within: str = "") -> None:
    if place := _unstorable(told, ()):
        raise InvalidCall(
            [Problem(_place(place, within), "It holds a null character or a number beyond all bounds, which cannot be kept.")]
        )


def _unstorable(value: Any, place: tuple[int | str, ...]) -> tuple[int | str, ...] | None:
    """Return where `value` holds what JSON can write but no database keeps; None when nowhere."""
    if isinstance(value, str):
        return (place or ("body",)) if "\0" in value else None
    if isinstance(value, float):
        return (place or ("body",)) if not isfinite(value) else None
    if isinstance(value, dict):
        parts: Iterable[tuple[int | str, Any]] = value.items()
        if any("\0" in name for name in value):
            return place or ("body",)
    else:
        parts = enumerate(value) if isinstance(value, list) else ()
    return next((found for name, each in parts if (found := _unstorable(each, (*place, name)))), None)


def problems_of(error: ValidationError, within: str = "") -> list[Problem]:
    """Return what pydantic found with places as callers write them: contacts[3].data."""
    return [
        Problem(_place(details["loc"], within), f"{details['msg']}; found {str(details['input'])[:80]!r}.")
        for details in error.errors(include_url=False)
    ]


def _place(parts: Sequence[int | str], within: str) -> str:
    place = within
    for part in parts:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    return place or "body"


def unreadable(request: Request, problems: Sequence[Problem]) -> Response:
    """Answer 422 with every place that is wrong."""
    body: Mapping[str, Any] = {
        "error": "The request cannot be read",
        "detail": f"{problems[0].place}: {problems[0].message}",
        "problems": _shown(problems),
        "request_id": str(getattr(request.state, "request_id", "")),
    }
    return JSONResponse(body, status_code=422)


def _shown(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"place": each.place, "message": each.message} for each in problems]
