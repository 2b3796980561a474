"""The REST route that enters contacts into a journey, many in one call, each with its own verdict."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

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
from distmark.partners.model import Viewer
from distmark.web.api.bodies import LONGEST_KEY, Email, Id, check_storable, openapi_of, problems_of, problems_response, raw_body, read_json
from distmark.web.api.viewer import api_viewer
from distmark.web.visit import Site

router = APIRouter(prefix="/api/v1")
MOST_FIELDS = 100


class ContactRequest(BaseModel):
    """One contact to enter into a journey, by id or mail address."""

    model_config = ConfigDict(extra="forbid")

    id: Id | None = None
    email: Email | None = None
    data: Annotated[dict[str, Any], Field(max_length=MOST_FIELDS)] = {}


class EnrollmentsRequest(BaseModel):
    """The contacts to enter into a journey, through a campaign or without one."""

    model_config = ConfigDict(extra="forbid")

    contacts: Annotated[list[ContactRequest], Field(min_length=1, max_length=MOST_CONTACTS)]
    campaign: Annotated[str | None, Field(min_length=1, max_length=63)] = None
    contacts_per_run: Annotated[int, Field(ge=1, le=MOST_PER_RUN)] = 1


_enrollments: TypeAdapter[EnrollmentsRequest] = TypeAdapter(EnrollmentsRequest)


_BODY = EnrollmentsRequest.model_json_schema()
_BODY["properties"]["contacts"]["items"] = _BODY.pop("$defs")["ContactRequest"]  # whole in its place, since it stands in a larger document


@router.post("/journeys/{key}/enrollments", openapi_extra=openapi_of(_BODY, {"enrolled": "integer", "results": "array"}))
def post_enrollments(request: Request, key: str, body: bytes = raw_body, viewer: Viewer = api_viewer) -> Response:
    """Enter 1 to 10,000 contacts into the journey; the answer is 200 with one verdict per contact, in order.

    A repeat with the same Idempotency-Key gets the same answer and enters no contact again. 422 names the place of every problem, and no
    contact was entered.
    """
    site: Site = request.app.state.site
    try:
        content = read_json(body)
        check_storable(content)
        enter_request = _enrollments.validate_python(content)
        contacts = [RequestedContact(each.id, each.email, each.data) for each in enter_request.contacts]
        call = EntryCall(key, contacts, _idempotency_key(request), enter_request.campaign, enter_request.contacts_per_run)
        with site.db.writing() as session:
            answered = enter_by_call(session, viewer, call, site.clock.now())
    except ValidationError as error:
        return problems_response(request, problems_of(error))
    except InvalidCall as error:
        return problems_response(request, error.problems)
    headers = {"idempotency-replayed": "true"} if answered.repeated else None
    return JSONResponse(_results_json(answered), headers=headers)


def _results_json(answered: CallAnswer) -> dict[str, Any]:
    results = [
        {"contact_id": each.contact_id, "verdict": each.verdict, "enrollment_id": each.enrollment_id, "until": each.until}
        for each in answered.answers
    ]
    return {"enrolled": sum(each.verdict == "enrolled" for each in answered.answers), "results": results}


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isprintable()):
        raise InvalidCall([Problem("Idempotency-Key", f"It has {len(key)} characters; give 1 to {LONGEST_KEY} that can be printed.")])
    return key
