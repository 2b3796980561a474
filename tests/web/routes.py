"""The routes of the application itself, however its routers are nested."""

import re
from collections.abc import Iterable, Iterator

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from distmark.web.api.viewer import ApiViewer
from distmark.web.pages import PAGES, mailbox
from distmark.web.pages.recipient import ForRecipients
from distmark.web.permissions import Anyone, Needs
from tests.web.conftest import PartnerPair

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


def routes() -> list[APIRoute]:
    return [route for router in (*PAGES, mailbox.router) for _prefix, route in routes_within(router.routes)]


def declared(route: APIRoute) -> list[object]:
    return [each.call for each in route.dependant.dependencies if isinstance(each.call, Needs | Anyone | ApiViewer | ForRecipients)]


def addresses(pair: PartnerPair, of_other: bool) -> Iterator[tuple[APIRoute, str]]:
    """Yield every route with an id in its address, filled in with ids of the partner's own rows, or of another partner's."""
    side = pair.there if of_other else pair.here
    ids = {
        "campaign_id": pair.foreign.id if of_other else pair.campaign.id,
        "contact_id": side.contact.id,
        "task_id": side.task.id,
        "partner_id": side.partner.id,
        "enrollment_id": side.enrollment.id,
        "version_id": pair.version.id,
        "key": pair.journey.key,
        "number": 1,
    }
    for route in routes():
        parts = re.findall(r"{(\w+)}", route.path)
        if parts and all(part in ids for part in parts) and route.name not in SIGNED_OUT:
            yield route, re.sub(r"{(\w+)}", lambda match: str(ids[match[1]]), route.path)
