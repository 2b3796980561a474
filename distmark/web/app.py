"""The web application: its routes, its static files, and the answer to each error. Everything that it uses is passed in."""

from collections.abc import Callable

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from distmark.clock import Clock
from distmark.db import Database
from distmark.engine.version_moves import GatherFacts, known_facts
from distmark.errors import DistmarkError
from distmark.partners.model import Viewer
from distmark.settings import Mode, Settings
from distmark.web import errors, templating
from distmark.web.pages import PAGES, recipient
from distmark.web.pages import mailbox as mailbox_pages
from distmark.web.security import Guard, refuse_cross_site
from distmark.web.visit import Site, secret_of

STATIC = templating.TEMPLATES.parent / "static"


class Static(StaticFiles):
    """Static files, which browsers keep for an hour."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["cache-control"] = "public, max-age=3600"
        return response


def create_app(
    settings: Settings,
    db: Database,
    clock: Clock,
    *,
    register: Callable[[int, Viewer], str] | None = None,
    rehearse: Callable[[int], None] | None = None,
    gather_facts: GatherFacts = known_facts,
) -> FastAPI:
    """Return the application.

    `register` hands an approved version to Prefect and returns the deployment's id; `rehearse` runs a rehearsal, given its id;
    `gather_facts` returns the facts that a journey's conditions may look at.
    """
    app = FastAPI(
        title="distmark", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, dependencies=[Depends(refuse_cross_site)]
    )
    app.state.site = Site(
        settings=settings,
        db=db,
        clock=clock,
        secret=secret_of(settings),
        pages=templating.environments(),
        register=register,
        rehearse=rehearse,
        gather_facts=gather_facts,
    )
    app.add_middleware(Guard, secure=settings.secure_cookies, answer=errors.answer)
    app.mount("/static", Static(directory=STATIC), name="static")
    for router in PAGES:
        app.include_router(router)
    # Links in the messages of a rehearsal begin with its key; the rows that they lead to are in the rehearsal's sandbox.
    app.include_router(recipient.router, prefix="/t/{rehearsal}")
    if settings.mode is Mode.demo:
        app.include_router(mailbox_pages.router)
    _answer_errors(app)
    return app


def _answer_errors(app: FastAPI) -> None:
    app.add_exception_handler(DistmarkError, errors.on_domain_error)
    app.add_exception_handler(HTTPException, errors.on_http_error)
    app.add_exception_handler(RequestValidationError, errors.on_validation_error)
