"""Every route of the application against a table of verdicts: the roles that may call it, rows of others, and texts that are no ids."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlmodel import SQLModel

from distmark.journeys.table import Journey
from distmark.partners.model import Role
from distmark.partners.table import ApiToken
from distmark.segments.table import Segment
from distmark.settings import Mode
from distmark.sql import id_of
from distmark.web import pages
from distmark.web.api.viewer import api_token
from distmark.web.app import create_app
from tests import factories as make
from tests.web.conftest import SAME_SITE, PartnerPair, Side, make_side
from tests.web.routes import SIGNED_OUT, all_routes, routes_of

M, A, P, O = Role.marketer, Role.approver, Role.partner, Role.ops  # noqa: E741

# Route -> the roles that may call it. A new route is entered here, with the roles that its author means.
_TABLE: tuple[tuple[set[Role], tuple[str, ...]], ...] = (
    ({M, A, P, O}, ("today", "mailbox_list", "mailbox_page", "mailbox_frame")),
    ({M, A, P, O}, ("account_page", "change_password", "end_sessions")),
    ({M, O}, ("new_partner_page", "create_partner", "partner_page", "change_partner", "suspend_partner", "reopen_partner")),
    ({M, O}, ("invite_to_partner", "invite_person_again", "close_account", "reopen_account")),
    ({O}, ("brand_people_page", "invite_to_brand")),
    ({M, A, P, O}, ("access_page", "create_access", "revoke_access")),
    ({P, O}, ("finish_task", "contact_list", "contact_page", "contact_control", "enrollment_control", "enrollment_page")),
    ({P, O}, ("new_contact", "create_contact", "import_page", "import_file", "edit_page", "edit_contact", "record_consent")),
    ({P, O}, ("people_page", "add_people", "add_new", "decide", "confirm_page", "send")),
    ({P, O}, ("words_page", "agree_to_words", "save_blocks", "keep_words")),
    ({M, P, O}, ("store_partner_names",)),
    ({M, A, P, O}, ("partner_names",)),
    ({M, O}, ("campaign_names", "store_campaign_names", "brand_names", "store_brand_names")),
    ({P, O}, ("stop_journeys", "control_contact", "control_enrollment")),
    ({M, A, P, O}, ("campaign_list", "campaign_page", "campaign_control", "partner_list", "partner_control")),
    ({P, O}, ("preview_frame",)),
    ({M, A, P, O}, ("set_cohort", "control_campaign", "control_partner")),
    ({M, O}, ("new_campaign", "create_campaign", "brand_words", "store_brand_words", "control_journey", "control_version")),
    ({M, A, O}, ("journey_list", "journey_page", "messages_page", "message_frame", "compare")),
    ({M, A, O}, ("journey_control", "version_control")),
    ({M, O}, ("new_journey", "store_new", "edit_journey", "store", "submit")),
    ({M, O}, ("register", "retire", "move_page", "move_people", "choose")),
    ({M, A, O}, ("rehearsal_form", "begin_rehearsal", "rehearsal_page")),
    ({M, A, O}, ("stop_rehearsal", "go_on_with_rehearsal", "event_in_rehearsal")),
    ({A, O}, ("approval_list", "approval_page", "approve", "send_back")),
    ({M, A, P, O}, ("segment_list", "segment_page")),
    ({M, P, O}, ("new_segment", "create_segment", "change_segment", "change_members")),
    ({M, A, P, O}, ("results_list", "results_page")),
    ({O}, ("rates_page", "store_rate", "remove_rate")),
    ({M, O}, ("operations_page", "try_enrollments_again", "try_a_step_again")),
    ({M, P, O}, ("post_pause", "post_resume", "post_stop", "post_drain")),
    ({P, O}, ("post_events", "post_enrollments")),
)
ROLES = {name: roles for roles, names in _TABLE for name in names}


def demo_app(pair: PartnerPair) -> FastAPI:
    """The application as in a demo, which has all routes."""
    site = pair.app.state.site
    settings = site.settings.model_copy(update={"mode": Mode.demo})
    return create_app(settings, pair.db, site.clock)


def test_every_route_has_a_verdict_and_every_verdict_a_route(pair: PartnerPair):
    names = {route.name for route in routes_of(demo_app(pair))}

    assert {prefix for prefix, _route in all_routes(demo_app(pair))} == {"", "/t/{rehearsal}"}
    assert names == SIGNED_OUT | set(ROLES), "enter the new route in ROLES, with the roles that may call it"


def test_links_of_rehearsals_are_those_of_recipients(pair: PartnerPair):
    inside = {route.name for prefix, route in all_routes(pair.app) if prefix == "/t/{rehearsal}"}

    assert inside == {"open_pixel", "click", "unsubscribe_page", "unsubscribe_now", "resubscribe"}


@dataclass(frozen=True)
class Rows:
    """The ids of one side's rows, by the names that routes and forms give them."""

    ids: dict[str, object]

    def address(self, route: APIRoute) -> str:
        return re.sub(r"{(\w+)}", lambda match: str(self.ids.get(match[1], "x")), route.path)

    @property
    def fields(self) -> dict[str, str]:
        """The form fields that name rows."""
        named = {name.removesuffix("_id"): value for name, value in self.ids.items() if name.endswith("_id")}
        return {name: str(value) for name, value in {**named, "member": self.ids["member"], "to": 1}.items()}


def rows_of(pair: PartnerPair, side: Side, campaign_id: int | None, version_id: int | None, key: str) -> Rows:
    with pair.db.writing() as session:
        user = make.make_user(session, Role.partner, partner=session.get_one(type(side.partner), side.partner.id))
        token = ApiToken(
            brand_id=side.partner.brand_id,
            partner_id=side.partner.id,
            user_id=id_of(user),
            name="cash desk",
            token_hash=secrets.token_hex(8),
            ending="abcd",
            created_at=make.NOW,
        )
        segment = Segment(
            brand_id=side.partner.brand_id, partner_id=side.partner.id, key=secrets.token_hex(8), name="gold", created_at=make.NOW
        )
        session.add_all((token, segment))
        session.flush()
        token_id, segment_id, user_id = token.id, segment.id, user.id
    return Rows(
        {
            "campaign_id": campaign_id,
            "contact_id": side.enrolled.id,
            "task_id": side.task.id,
            "partner_id": side.partner.id,
            "enrollment_id": side.enrollment.id,
            "version_id": version_id,
            "token_id": token_id,
            "segment_id": segment_id,
            "user_id": user_id,
            "member": side.member.id,
            "key": key,
            "number": 1,
            "test_key": "0" * 24,
            "token": "nothing",
            "link": "plans",
            "step_id": "welcome",
        }
    )


@pytest.fixture
def foreign(pair: PartnerPair) -> Rows:
    """The rows of another brand, as many as the pair's own."""
    with pair.db.writing() as session:
        campaign = session.get_one(type(pair.foreign), pair.foreign.id)
        brand = session.get_one(type(pair.brand), campaign.brand_id)
        version = make.make_version(session, brand)
        key = session.get_one(Journey, version.journey_id).key
        side = make_side(session, brand, version, campaign, "他社")
    return rows_of(pair, side, pair.foreign.id, version.id, key)


def own(pair: PartnerPair, side: Side) -> Rows:
    return rows_of(pair, side, pair.campaign.id, pair.version.id, pair.journey.key)


QUERY = {"contact": "1", "step": "welcome", "message": "welcome", "lang": "ja", "old": "1", "new": "1"}


def asked(client: TestClient, route: APIRoute, address: str, **options: object) -> int:
    method = "POST" if "POST" in route.methods else "GET"
    return client.request(method, address, **options).status_code


@pytest.mark.parametrize("role", list(Role))
def test_each_role_calls_exactly_the_routes_of_its_verdict(pair: PartnerPair, role: Role):
    client, rows = pair.as_(role), own(pair, pair.here)
    query = QUERY | {"contact": str(rows.ids["contact_id"])}

    wrong = {}
    for route in routes_of(pair.app):
        if route.name in SIGNED_OUT or route.path.startswith("/api/"):
            continue
        allowed = role in ROLES[route.name]
        if "POST" in route.methods and allowed:
            continue  # what it does is its page's test; here only that nobody else may
        status = asked(client, route, rows.address(route), params=query)
        if (status == 403) == allowed or status >= 500:
            wrong[route.name] = status
    assert wrong == {}


def test_nobody_reaches_a_page_without_signing_in(pair: PartnerPair, guest: TestClient):
    rows = own(pair, pair.here)

    answers = {route.name: asked(guest, route, rows.address(route), params=QUERY) for route in routes_of(pair.app)}

    assert {name: status for name, status in answers.items() if name not in SIGNED_OUT and status not in (303, 401)} == {}


@pytest.mark.parametrize("role", [M, A, P, O])
def test_each_role_calls_exactly_the_api_of_its_verdict(pair: PartnerPair, guest: TestClient, role: Role):
    with pair.db.writing() as session:
        partner = session.get_one(type(pair.here.partner), pair.here.partner.id) if role is P else None
        user = make.make_user(session, role, session.get_one(type(pair.brand), pair.brand.id), partner)
    headers = {"authorization": f"Bearer {api_token(pair.app.state.site, id_of(user))}"}
    bodies = {
        "post_events": {"name": "booked", "contact_id": pair.here.contact.id},
        "post_enrollments": {"contacts": [{"id": pair.here.contact.id}]},
        "post_stop": {"contact": pair.here.contact.id, "reason": "as asked", "dry_run": True},
    }

    wrong = {}
    for route in routes_of(pair.app):
        if route.path.startswith("/api/"):
            body = bodies.get(route.name, {"contact": pair.here.contact.id, "dry_run": True})
            status = guest.post(route.path.replace("{key}", pair.journey.key), json=body, headers=headers).status_code
            if (status == 403) == (role in ROLES[route.name]) or status >= 500:
                wrong[route.name] = status
    assert wrong == {}


def rows_beyond(pair: PartnerPair, foreign: Rows) -> dict[str, list[str]]:
    """Every row of the other partner and of the other brand, as text."""
    beyond: dict[str, list[str]] = {}
    brand_id = pair.foreign.brand_id
    with pair.db.reading() as session:
        for name, table in SQLModel.metadata.tables.items():
            if "brand_id" in table.c or "partner_id" in table.c:
                columns = table.c
                whose = [columns.partner_id == pair.there.partner.id] if "partner_id" in columns else []
                whose += [columns.brand_id == brand_id] if "brand_id" in columns else []
                for condition in whose:
                    beyond.setdefault(name, []).extend(sorted(map(repr, session.execute(select(table).where(condition)).all())))
    return beyond


@pytest.mark.parametrize("role", list(Role))
def test_ids_of_others_are_answered_as_nothing_and_change_nothing_of_theirs(pair: PartnerPair, foreign: Rows, role: Role):
    mine, theirs = own(pair, pair.here), own(pair, pair.there)
    client = pair.as_(role)
    strangers = [foreign, theirs] if role is P else [foreign]
    before = rows_beyond(pair, foreign)

    found = {}
    for route in routes_of(pair.app):
        if route.name in SIGNED_OUT or route.path.startswith("/api/"):
            continue
        for rows in strangers:
            shared = rows is theirs and not re.search("contact_id|task_id|enrollment_id|token_id|partner_id|segment_id|user_id", route.path)
            if "{" in route.path and not shared:
                query = QUERY | {"contact": str(rows.ids["contact_id"])}
                status = asked(client, route, rows.address(route), params=query, **_form(route, rows.fields))
                if status not in (403, 404):
                    found[f"{route.name} at a stranger's address"] = status
            status = asked(client, route, mine.address(route), params=QUERY | rows.fields, **_form(route, rows.fields | {"reason": "x"}))
            if status >= 500:
                found[f"{route.name} with a stranger's rows in its form"] = status
    assert found == {}
    assert rows_beyond(pair, foreign) == before


def _form(route: APIRoute, fields: dict[str, str]) -> dict[str, object]:
    return {"data": {**fields, "action": "stop"}} if "POST" in route.methods else {}


# --- texts that are no ids ----------------------------------------------------------------------------------------------------------------

AWKWARD = ["0", "-1", str(2**31), str(2**63), "9" * 5000, "²", "٣", "1e3", "%00", "1%00", "x"]


def form_fields() -> list[str]:
    """The names of all fields that any page reads from a form or query, from the text of the pages."""
    written = "\n".join(file.read_text(encoding="utf-8") for file in Path(pages.__file__).parent.glob("*.py"))
    return sorted({*re.findall(r'(?:text|numbers|upload)\(form, "([\w.]+)"', written), *re.findall(r'get(?:list)?\("(\w+)"', written)})


def test_fields_of_forms_are_found():
    assert {"contact", "member", "partner", "to", "version", "enrollment"} <= set(form_fields())


def awkward_requests(route: APIRoute, rows: Rows, text: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the requests of the route with `text` in the place of each of its parts."""
    plain = text.replace("%00", "\0")
    for part in re.findall(r"{(\w+)}", route.path):
        yield Rows(rows.ids | {part: text}).address(route), {}
    address = rows.address(route)
    for name in {field.alias for field in route.dependant.query_params} | {"partner", "member", "to", "lang"}:
        yield f"{address}?{name}={text}", {}
    if "POST" in route.methods:
        fields = dict.fromkeys(form_fields(), plain)
        yield address, {"data": fields}
        yield address, {"data": {**rows.fields, plain: "x"}}


@pytest.mark.parametrize("text", AWKWARD, ids=lambda text: text[:20])
def test_text_that_is_no_id_is_never_a_fault(pair: PartnerPair, text: str):
    rows = own(pair, pair.here)
    clients = {role: pair.as_(role) for role in (O, P)}

    faults = {}
    for route in routes_of(pair.app):
        client = clients[P] if O not in ROLES.get(route.name, {O}) else clients[O]
        for address, options in awkward_requests(route, rows, text):
            if "sign" in route.name or route.name == "choose_language":
                client = TestClient(pair.app, headers=SAME_SITE, follow_redirects=False, raise_server_exceptions=False)
            status = asked(client, route, address, **options)
            if status >= 500:
                faults[f"{route.name} {address[:80]} {str(options)[:60]}"] = status
    assert faults == {}


@pytest.mark.parametrize("header", ["cookie", "accept-language", "user-agent", "idempotency-key", "hx-target"])
def test_odd_header_is_never_a_fault(pair: PartnerPair, header: str):
    client, rows = pair.as_(O), own(pair, pair.here)
    values = {"cookie": 'distmark="\\000"; distmark_language="\\000"; distmark_flash="\\000"'}

    answers = {
        route.name: asked(
            client, route, rows.address(route), params=QUERY, headers={header: values.get(header, "\xff²" * 200).encode("latin-1")}
        )
        for route in routes_of(pair.app)
    }

    assert {name: status for name, status in answers.items() if status >= 500 and name != "readyz"} == {}


@pytest.mark.parametrize("path", ["/contacts", "/campaigns/{campaign}", "/campaigns/{campaign}/people", "/"])
@pytest.mark.parametrize("words", [1_000, 7_000])
def test_long_search_is_answered(pair: PartnerPair, path: str, words: int):
    answer = pair.as_().get(path.format(campaign=pair.campaign.id), params={"q": "a " * words})

    assert answer.status_code == 200


def test_static_files_have_no_null_in_their_names(guest: TestClient):
    assert guest.get("/static/app%00.css").status_code == 404


def test_fields_of_an_id_are_bounded_on_every_route(pair: PartnerPair):
    """A whole number that a route takes is an `Id`: 0 and 2^31 are refused before its view runs."""
    loose = []
    for route in routes_of(demo_app(pair)):
        for field in (*route.dependant.path_params, *route.dependant.query_params):
            values, problems = field.validate(str(2**31), {}, loc=("query", field.alias))
            if isinstance(values, int) and not isinstance(values, bool) and not problems:
                loose.append(f"{route.name}: {field.alias}")
    assert loose == []
