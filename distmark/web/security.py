"""Security of every request and answer: headers, the request id, the limit of a body's size, and the refusal of cross-site requests."""

import logging
import secrets
from collections.abc import Callable
from urllib.parse import unquote_plus, urlsplit

from fastapi import Request
from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from distmark.clock import stopwatch
from distmark.errors import NotAllowed

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A mail has inline styles. They are allowed: its document is sandboxed (no scripts, no origin) and only our own pages may frame it.
MAIL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src {images}; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# By route name: one-click unsubscribe by mail providers, and the REST API with its bearer tokens. Neither uses a cookie to be abused.
CROSS_SITE_WELCOME = frozenset(
    {"unsubscribe_now", "post_event", "post_events", "post_enrollments", "post_pause", "post_resume", "post_stop", "post_drain"}
)
MAX_BODY_BYTES = 32 * 1024 * 1024
LONGEST_LENGTH = 16  # digits of a content-length

log = logging.getLogger("distmark.web")


def mail_policy(remote_images: bool) -> str:
    """Return the content security policy of a mail in its sandboxed frame."""
    return MAIL_POLICY.format(images="data: https: http:" if remote_images else "'self' data:")


def refuse_cross_site(request: Request) -> None:
    """Raise NotAllowed unless an unsafe request came from our own pages (Fetch Metadata, else Origin)."""
    if request.method in SAFE_METHODS or getattr(request.scope.get("route"), "name", "") in CROSS_SITE_WELCOME:
        return
    site = request.headers.get("sec-fetch-site")
    if site in ("same-origin", "none"):
        return
    origin = request.headers.get("origin")
    if site is None and origin and urlsplit(origin).netloc == request.headers.get("host"):
        return
    raise NotAllowed("This request did not come from a page of distmark; open the page here and send it again.")


class Guard:
    """The ASGI middleware that gives each request an id, limits its body, adds the security headers, and logs it without its query.

    A request with a null character outside its body, which no database keeps, is answered as an address that does not exist. A fault of
    ours is answered here too, so that its page has the headers. `answer` makes the page of a status.
    """

    def __init__(self, app: ASGIApp, *, secure: bool, answer: Callable[[Request, int], Response]) -> None:
        self.app = app
        self.secure = secure
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})["request_id"] = secrets.token_hex(8)
        started, status = stopwatch(), 500

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                scope["state"]["distmark.begun"] = True
                self._add_headers(MutableHeaders(scope=message), scope)
            await send(message)

        if _declared_bytes(scope) > MAX_BODY_BYTES:
            await _too_large(guarded)
        elif _holds_null(Request(scope)):
            await self.answer(Request(scope), 404)(scope, receive, guarded)
        else:
            try:
                await self.app(scope, bounded(receive, MAX_BODY_BYTES), guarded)
            except Exception as error:
                log.error("fault, number %s", scope["state"]["request_id"], exc_info=error)
                if "distmark.begun" in scope["state"]:
                    raise
                await self.answer(Request(scope), 500)(scope, receive, guarded)
        log.info(
            "request",
            extra={
                "method": scope["method"],
                "route": getattr(scope.get("route"), "path", "-"),  # the pattern, never the address: addresses hold tokens
                "status": status,
                "milliseconds": round((stopwatch() - started) * 1000, 1),
                "request_id": scope["state"]["request_id"],
            },
        )

    def _add_headers(self, headers: MutableHeaders, scope: Scope) -> None:
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("content-security-policy", PAGE_POLICY)
        headers.setdefault("cache-control", "no-store")
        headers["x-request-id"] = scope["state"]["request_id"]
        if self.secure:
            headers.setdefault("strict-transport-security", "max-age=31536000; includeSubDomains")


def _declared_bytes(scope: Scope) -> int:
    length = Headers(scope=scope).get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        return 0
    return int(length) if len(length) < LONGEST_LENGTH else MAX_BODY_BYTES + 1


def bounded(receive: Receive, most_bytes: int) -> Receive:
    """Return `receive` with a limit: a body that grows beyond it is answered by 413 and read no further."""
    seen = 0

    async def receive_bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most_bytes:
            raise HTTPException(413)
        return message

    return receive_bounded


def _holds_null(request: Request) -> bool:
    texts = (
        request.scope["path"],
        unquote_plus(request.scope["query_string"].decode("latin-1")),
        *request.cookies,
        *request.cookies.values(),
    )
    return any("\0" in text for text in texts)


async def _too_large(send: Send) -> None:
    body = "This is larger than 32 MB. Send a smaller file. / 32 MB を超えています。小さいファイルにしてください。".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
