"""The arguments of every view: the site, made once per process, and the guest or visit, made for each request."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit
from zoneinfo import ZoneInfo

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer
from jinja2 import Environment
from jinja2_fragments import render_block
from markupsafe import escape
from sqlmodel import Session
from starlette.datastructures import FormData

from distmark.clock import Clock
from distmark.db import Database
from distmark.engine.version_moves import GatherFacts, known_facts
from distmark.machine.private import keep_secret
from distmark.partners import service as partners
from distmark.partners.model import Viewer
from distmark.partners.table import Brand
from distmark.settings import Settings
from distmark.web import i18n, menu
from distmark.web.i18n import Translator

FLASH = "distmark_flash"
LANGUAGE = "distmark_language"


@dataclass(slots=True)
class Site:
    """The settings, database, clock and templates that all requests share.

    `register` hands an approved version to Prefect and `rehearse` runs a rehearsal, given its id; each is None in a process that cannot do
    it. `gather_facts` returns the facts that a journey's conditions may look at.
    """

    settings: Settings
    db: Database
    clock: Clock
    secret: str
    pages: Mapping[str, Environment]  # language -> templates
    register: Callable[[int, Viewer], str] | None = None
    rehearse: Callable[[int], None] | None = None
    gather_facts: GatherFacts = known_facts
    pace: partners.SignInPace = field(default_factory=partners.SignInPace)
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    @property
    def session_cookie(self) -> str:
        """Return the name of the session cookie; the prefix __Host- needs HTTPS."""
        return "__Host-distmark" if self.settings.secure_cookies else "distmark"

    def signer(self, purpose: str) -> URLSafeTimedSerializer:
        """Return a signer whose signatures serve `purpose` only."""
        return URLSafeTimedSerializer(self.secret, salt=f"distmark.{purpose}")


def secret_of(settings: Settings) -> str:
    """Return the installation's secret: the configured one, else one made once and kept in `data_dir`, readable by its owner only."""
    return settings.secret_key.get_secret_value() or keep_secret(settings.data_dir / "secret.key")


@dataclass(slots=True)
class Guest:
    """One request whose user need not be signed in."""

    request: Request
    site: Site
    viewer: Viewer | None
    language: str
    brand: Brand | None = None
    place: str = ""  # the address that a page answers under, when it is not the request's: a page shown again after a post

    @property
    def now(self) -> datetime:
        """Return the time of the site's clock."""
        return self.site.clock.now()

    @property
    def zone(self) -> ZoneInfo:
        """Return the zone of the brand; Tokyo without a brand."""
        return ZoneInfo(self.brand.zone if self.brand else "Asia/Tokyo")

    @property
    def translator(self) -> Translator:
        """Return the translator for the reader's language and zone."""
        return Translator(self.language, self.zone)

    def gettext(self, message: str, **values: object) -> str:
        """Return `message` in the reader's language, with its placeholders filled in."""
        return self.translator.gettext(message, **values)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session that reads."""
        with self.site.db.reading() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a session that commits at the end of the block."""
        with self.site.db.writing() as session:
            yield session

    def at(self, place: str) -> Self:
        """Return this request with the address of the page that answers it, from which the page's links are made; "" is the request's."""
        self.place = place
        return self

    def page(self, template: str, *, status: int = 200, **values: object) -> Response:
        """Return the page, or only the block that htmx asks for: the block named like the id of its target."""
        environment = self.site.pages[self.language]
        values = {**self._common_values(), **values}
        block = self._requested_block(environment, template) if status < 400 or status == 422 else None
        if block:
            values |= {"flash": self._flash()}
            html = render_block(environment, template, block, **values)
        else:
            values |= self._layout_values()
            html = environment.get_template(template).render(**values)
        headers = {"content-language": self.language, "vary": "Cookie, HX-Request, HX-Target"}
        response = HTMLResponse(html, status_code=status, headers=headers)
        flash = self._flash()
        if flash and escape(flash["text"]) in html:
            response.delete_cookie(FLASH)
        return response

    def go(self, to: str, message: str | None = None, kind: str = "good", **values: object) -> Response:
        """Return a 303 redirect to one of our own paths; `message` (a message id) is shown there once."""
        response: Response = RedirectResponse(to, status_code=303)
        if self.request.headers.get("hx-request"):
            response = Response(status_code=200, headers={"hx-redirect": to})
        return self._with_flash(response, message, kind, values)

    def go_in_block(self, to: str, message: str, kind: str = "good") -> Response:
        """Return a 303 redirect that a request of htmx follows itself, so that it gets the block that it asked for, with the message."""
        return self._with_flash(RedirectResponse(to, status_code=303), message, kind, {})

    def _with_flash(self, response: Response, message: str | None, kind: str, values: Mapping[str, object]) -> Response:
        if message:
            content = self.site.signer("flash").dumps([kind, message, dict(values)])
            response.set_cookie(FLASH, str(content), max_age=60, httponly=True, samesite="lax", secure=self.site.settings.secure_cookies)
        return response

    @property
    def session_token(self) -> str:
        """Return the token of this browser's session cookie; "" without one."""
        return self.request.cookies.get(self.site.session_cookie, "")

    def set_session_cookie(self, response: Response, token: str) -> None:
        """Let the browser keep this session."""
        response.set_cookie(
            self.site.session_cookie,
            token,
            max_age=int(partners.SIGNED_IN_FOR.total_seconds()),
            httponly=True,
            samesite="lax",
            secure=self.site.settings.secure_cookies,
            path="/",
        )

    def back(self, form: FormData, *paths: str) -> str:
        """Return the address in the form's field `back`, with its query, when its path is one of `paths`; else the first of `paths`."""
        wanted = form.get("back")
        is_known = isinstance(wanted, str) and local_path(wanted).partition("?")[0] in paths
        return local_path(str(wanted)) if is_known else paths[0]

    def address(self, **changes: object) -> str:
        """Return this page's address with some query parameters changed; None or "" removes a parameter."""
        path, _, query = self._current_address().partition("?")
        return with_query(path, [(name, value) for name, value in parse_qsl(query) if name not in changes], **changes)

    def _requested_block(self, environment: Environment, template: str) -> str | None:
        if self.request.headers.get("hx-request") != "true":
            return None
        name = self.request.headers.get("hx-target", "").rpartition("#")[2].replace("-", "_")
        return name if name in environment.get_template(template).blocks else None

    def _common_values(self) -> dict[str, object]:
        return {
            "visit": self,
            "viewer": self.viewer,
            "brand": self.brand,
            "lang": self.language,
            "translator": self.translator,
            "zone": self.zone,
            "now": self.now,
            "settings": self.site.settings,
            "address": self.address,
        }

    def _layout_values(self) -> dict[str, object]:
        return {"flash": self._flash(), "menu": self._menu(), "languages": i18n.NAMES, "here": self._current_address()}

    def _menu(self) -> list[menu.MenuItem]:
        if self.viewer is None:
            return []
        with self.reading() as session:
            return menu.menu_items(session, self.viewer, self.request.url.path, self.site.settings.mode, self.now)

    def _current_address(self) -> str:
        url = self.request.url
        if self.place:
            return self.place
        return url.path + (f"?{url.query}" if url.query else "") if self.request.method == "GET" else url.path

    def _flash(self) -> dict[str, str] | None:
        cookie = self.request.cookies.get(FLASH)
        if not cookie:
            return None
        try:
            kind, message, values = self.site.signer("flash").loads(cookie, max_age=60)
        except BadSignature:
            return None
        return {"kind": kind, "text": self.gettext(message, **values)}


@dataclass(slots=True)
class Visit(Guest):
    """One request of a signed-in user."""

    viewer: Viewer  # narrower than in Guest, and set once


def with_query(path: str, kept: Sequence[tuple[str, str]] = (), **changes: object) -> str:
    """Return the path with these query parameters; None and "" are left out."""
    query = urlencode([pair for pair in [*kept, *changes.items()] if pair[1] not in (None, "")])
    return path + (f"?{query}" if query else "")


def local_path(path: str) -> str:
    """Return `path` when it is a path of this site, else the start page's, so that no redirect leaves the site."""
    parts = urlsplit(path)
    safe = path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return path if safe and "\\" not in path and path.isprintable() else "/"
