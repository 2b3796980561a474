"""Answers to errors: each kind of error has a status and a page that says what to do."""

import logging
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from distmark.errors import DistmarkError, InvalidInput, NotAllowed, NotFound, Refused
from distmark.web.error_translations import in_japanese
from distmark.web.i18n import N_
from distmark.web.permissions import Anyone, SignInNeeded, TooManySignIns, sign_in_address
from distmark.web.visit import local_path

log = logging.getLogger("distmark.web")

STATUS: dict[type[DistmarkError], int] = {NotFound: 404, NotAllowed: 403, Refused: 409, InvalidInput: 422, TooManySignIns: 429}
# status -> title, advice
TEXTS: dict[int, tuple[str, str]] = {
    400: (N_("This request cannot be read"), N_("Go back, load the page again and repeat what you did.")),
    403: (N_("You may not do this"), N_("If you should be able to, ask an administrator of your brand to give you the role for it.")),
    404: (
        N_("There is nothing here"),
        N_("It may have been removed, or it belongs to somebody else. Go to the start page and look for it there."),
    ),
    405: (N_("This address cannot be used like this"), N_("Go to the start page and look for what you need there.")),
    409: (N_("This cannot be done now"), N_("Nothing was changed. Go back, and try again when it is possible.")),
    413: (N_("This is too large"), N_("Choose a file smaller than 32 MB.")),
    422: (N_("Something in the form is not right"), N_("Go back, correct it and send it again.")),
    429: (N_("Too many tries"), N_("Wait a few minutes, then try again.")),
    500: (
        N_("Something went wrong here"),
        N_("It was not your fault, and nothing you did is lost. Try again; if it happens again, tell your administrator this number."),
    ),
    503: (N_("Not ready"), N_("Try again in a moment.")),
}


async def on_domain_error(request: Request, error: Exception) -> Response:
    """Answer an error of the rooms below with its status and its own text."""
    if isinstance(error, SignInNeeded):
        return _to_sign_in(request)
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    if status == 500:
        log.error("failed, number %s", _id(request), exc_info=error)
    response = answer(request, status, error if status not in (404, 429, 500) else None)
    if isinstance(error, TooManySignIns):
        response.headers["retry-after"] = str(error.seconds)
    return response


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer an error of the framework itself: no such route, wrong method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    response = answer(request, status if status in TEXTS else 400)
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response


async def on_validation_error(request: Request, error: Exception) -> Response:
    """Answer parameters of the wrong type: 422 to a request of the API, 404 to a page, since no page has such an address."""
    return answer(request, 422 if _is_api(request) else 404)


def answer(request: Request, status: int, error: Exception | None = None) -> Response:
    """Return the error as JSON under /api/, as a notice to htmx, else as a page."""
    title, advice = TEXTS[status]
    if _is_api(request):
        return JSONResponse({"error": title, "detail": str(error or advice), "request_id": _id(request)}, status_code=status)
    partial = request.headers.get("hx-request") == "true"
    try:
        guest = Anyone()(request)
        before = page_before(request)
        values = {"title": title, "advice": advice, "detail": explain(error, guest.language), "request_id": _id(request), "before": before}
        response = guest.at(before or ("" if request.method == "GET" else "/")).page(
            "fault_notice.html" if partial else "fault.html", status=status, **values
        )
    except Exception:
        # The database itself may be down: then a bare text is better than no answer.
        log.exception("no page for an error, number %s", _id(request))
        return PlainTextResponse(f"{title}. {advice} {_id(request)}", status_code=status)
    if partial:
        response.headers["hx-retarget"] = "#notices"
        response.headers["hx-reswap"] = "innerHTML show:top"
    return response


def page_before(request: Request) -> str:
    """Return the address of our own page from which a form was posted, so that one can go back to it; "" when it is not known."""
    referer = urlsplit(request.headers.get("referer", ""))
    if request.method == "GET" or referer.netloc != request.url.netloc:
        return ""
    return local_path(referer.path + (f"?{referer.query}" if referer.query else ""))


def explain(error: Exception | None, language: str) -> str:
    """Return a domain error's own text in the reader's language; "" for None."""
    if error is None:
        return ""
    carried = getattr(error, f"message_{language}", None)
    return str(carried) if carried else (in_japanese(str(error)) if language == "ja" else str(error))


def _to_sign_in(request: Request) -> Response:
    address = sign_in_address(request)
    if _is_api(request):
        return JSONResponse({"error": "Sign in", "detail": "Send a bearer token."}, status_code=401)
    if request.headers.get("hx-request") == "true":
        return Response(status_code=200, headers={"hx-redirect": address})
    return RedirectResponse(address, status_code=303)


def _is_api(request: Request) -> bool:
    return request.url.path.startswith("/api/")


def _id(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))
