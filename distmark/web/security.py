"""Security of every request and answer: headers, the request id, the limit of a body's size, and the refusal of cross-site requests."""

import logging
import secrets
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
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
    """The ASGI middleware that gives each request an id, limits its body, adds the security headers, and logs it without its query."""

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        self.app = app
        self.secure = secure

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
                self._add_headers(MutableHeaders(scope=message), scope)
            await send(message)

        if _declared_bytes(scope) > MAX_BODY_BYTES:
            await _too_large(guarded)
        else:
            await self.app(scope, _bounded(receive), guarded)
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
    return int(length) if length.isdigit() else 0


def _bounded(receive: Receive) -> Receive:
    """Return `receive` with a limit: a body that grows beyond it ends as if the client had disconnected."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > MAX_BODY_BYTES else message

    return bounded


async def _too_large(send: Send) -> None:
    body = "This is larger than 32 MB. Send a smaller file. / 32 MB を超えています。小さいファイルにしてください。".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
