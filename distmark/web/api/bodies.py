"""Bodies of API requests: reading them as JSON, and the answer 422 with the place of every problem in a body."""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, ValidationError
from pydantic_core import from_json

from distmark.entries.api_calls import InvalidCall, Problem
from distmark.partners.model import Viewer
from distmark.web.api.viewer import api_viewer
from distmark.web.ids import LARGEST_ID
from distmark.web.security import bounded

Id = Annotated[int, Field(ge=1, le=LARGEST_ID, strict=True)]
Email = Annotated[str, Field(min_length=3, max_length=254)]
LONGEST_KEY = 200  # characters of an idempotency key, or of an event's key
LARGEST_NUMBER = 2**63  # whole numbers beyond it are kept by no database
MOST_BODY_BYTES = 8 * 1024 * 1024


async def _read_body(request: Request, viewer: Viewer = api_viewer) -> bytes:
    """Return the request's body unparsed: the views parse it themselves, to answer with the place of every problem.

    A body is read for the holder of a token only, and 413 as soon as it grows too large.
    """
    return await Request(request.scope, bounded(request.receive, MOST_BODY_BYTES)).body()


raw_body: Any = Depends(_read_body)


def openapi_of(body: Mapping[str, Any], answer: Mapping[str, str] | None = None, done: str = "What was done.") -> dict[str, Any]:
    """Return the OpenAPI description of a route: the JSON schema of its body, and the fields of its answer with their types."""
    properties = {name: {"type": kind} for name, kind in (answer or {}).items()}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": done, "content": {"application/json": {"schema": schema}}}},
    }


def read_json(body: bytes) -> Any:
    """Return the content of a JSON body; InvalidCall when it is not JSON."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidCall([Problem("body", f"It is not JSON: {error}.")]) from error


def check_storable(content: Any, within: str = "") -> None:
    """Raise InvalidCall when `content` holds a null character or too large a number; `within` is its own place in the body."""
    if place := _unstorable(content, ()):
        raise InvalidCall([Problem(_path(place, within), "It holds a null character or a number beyond all bounds, which cannot be kept.")])


def _unstorable(value: Any, place: tuple[int | str, ...]) -> tuple[int | str, ...] | None:
    """Return the place of a null character or too large a number in `value`, which no database keeps; None without one."""
    if isinstance(value, str):
        return (place or ("body",)) if "\0" in value else None
    if isinstance(value, float):
        return (place or ("body",)) if not isfinite(value) else None
    if isinstance(value, int):
        return (place or ("body",)) if abs(value) >= LARGEST_NUMBER else None
    if isinstance(value, dict):
        parts: Iterable[tuple[int | str, Any]] = value.items()
        if any("\0" in name for name in value):
            return place or ("body",)
    else:
        parts = enumerate(value) if isinstance(value, list) else ()
    return next((found for name, each in parts if (found := _unstorable(each, (*place, name)))), None)


def problems_of(error: ValidationError, within: str = "") -> list[Problem]:
    """Return the problems that pydantic found, with places in the notation contacts[3].data."""
    return [
        Problem(_path(details["loc"], within), f"{details['msg']}; found {_shown(details['input'])!r}.")
        for details in error.errors(include_url=False)
    ]


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= LARGEST_NUMBER:  # Python writes out no number of thousands of digits
        return "a number beyond all bounds"
    return str(value)[:80] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _path(parts: Sequence[int | str], within: str) -> str:
    place = within
    for part in parts:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    return place or "body"


def problems_response(request: Request, problems: Sequence[Problem]) -> Response:
    """Return the answer 422 with the place of every problem."""
    body: Mapping[str, Any] = {
        "error": "The request cannot be read",
        "detail": f"{problems[0].place}: {problems[0].message}",
        "problems": problems_json(problems),
        "request_id": str(getattr(request.state, "request_id", "")),
    }
    return JSONResponse(body, status_code=422)


def problems_json(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """Return the problems as the API shows them."""
    return [{"place": each.place, "message": each.message} for each in problems]
