"""The routes of the application itself, however its routers are nested."""

from collections.abc import Iterable

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

# The routes that nobody needs to sign in for.
SIGNED_OUT = {
    "set_password_page", "set_password", "forgotten_page", "forgotten",
    "brand_css", "healthz", "readyz", "sign_in_page", "sign_in", "sign_out", "choose_language",
    "open_pixel", "click", "unsubscribe_page", "unsubscribe_now", "resubscribe",
}  # fmt: skip


def all_routes(app: FastAPI) -> list[tuple[str, APIRoute]]:
    """Return every route with the prefix of its address, also those that no list of pages names."""
    return routes_within(app.router.routes)


def routes_within(routes: Iterable[BaseRoute], prefix: str = "") -> list[tuple[str, APIRoute]]:
    found: list[tuple[str, APIRoute]] = []
    for each in routes:
        if isinstance(each, APIRoute):
            found.append((prefix, each))
        elif router := getattr(each, "original_router", None):
            found += routes_within(router.routes, prefix + each.include_context.prefix)
    return found


def routes_of(app: FastAPI) -> list[APIRoute]:
    """Return the routes without a prefix: those with one are the recipients' again, for rehearsals."""
    return [route for prefix, route in all_routes(app) if not prefix]
