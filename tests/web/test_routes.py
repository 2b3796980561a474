"""Every route: its permission, its headers, rows of its viewer alone, and GET requests that change nothing."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import event, select
from sqlmodel import SQLModel
from starlette.types import Message

from distmark.db import Database
from distmark.journeys.table import Journey
from distmark.partners.model import PERMISSIONS, Permission, Role
from distmark.web.api.viewer import api_token
from distmark.web.pages import mailbox
from distmark.web.pages.recipient import ForRecipients
from distmark.web.permissions import Anyone, Needs
from tests import factories as make
from tests.web.conftest import PartnerPair
from tests.web.routes import SIGNED_OUT, addresses, declared, routes

OWN_ACCOUNT = {"change_password", "end_sessions"}  # what everybody may do to their own


@pytest.mark.parametrize("route", routes(), ids=lambda route: route.name)
def test_every_route_declares_its_permission(route: APIRoute):
    found = declared(route)

    assert len(found) == 1, f"{route.path} must declare exactly one of needs(...), signed_in, anyone or api_viewer"
    assert isinstance(found[0], Anyone | ForRecipients) == (route.name in SIGNED_OUT)


def test_no_two_routes_share_a_name():
    names = [route.name for route in routes()]

    assert sorted(set(names)) == sorted(names)


def test_partner_finds_nothing_of_another_partner_or_brand_at_any_address(pair: PartnerPair):
    """S5: ids guessed in every address are answered as if there were nothing."""
    client = pair.as_()
    missing = {"contact": pair.there.contact.id, "step": "welcome", "message": "welcome", "lang": "ja", "old": 1, "new": 1}

    answers = {}
    for route, address in addresses(pair, of_other=True):
        for method in route.methods:
            answers[f"{method} {route.path}"] = client.request(method, address, params=missing if method == "GET" else None).status_code

    wrong = {route: status for route, status in answers.items() if status not in (401, 403, 404)}  # 401: the API takes no session
    open_to_all = {route: status for route, status in wrong.items() if "/results/" in route}  # counts only, of the partner's own rows
    assert set(wrong) == set(open_to_all)


@pytest.mark.parametrize(
    ("method", "path", "data"),
    [
        ("GET", "/campaigns/{campaign}?contact={contact}", None),
        ("GET", "/campaigns/{campaign}/preview.html?contact={contact}&step=welcome", None),
        ("POST", "/campaigns/{campaign}/people", {"contact": "{contact}"}),
        ("POST", "/campaigns/{campaign}/send", {"contact": "{contact}"}),
        ("POST", "/campaigns/{campaign}/blocks", {"contact": "{contact}", "block.personal_note": "x", "for": "one"}),
        ("POST", "/contacts/{own}/stop", {"enrollment": "{enrollment}", "action": "stop"}),
    ],
)
def test_partner_cannot_name_another_partners_rows_in_a_form(pair: PartnerPair, method, path, data):
    ids = {
        "campaign": pair.campaign.id,
        "contact": pair.there.contact.id,
        "own": pair.here.enrolled.id,
        "enrollment": pair.there.enrollment.id,
    }
    client = pair.as_()

    fields = {name: value.format(**ids) for name, value in (data or {}).items()}
    answer = client.request(method, path.format(**ids), data=fields or None)

    assert answer.status_code == 404
    with pair.db.reading() as session:
        assert session.get_one(type(pair.there.enrollment), pair.there.enrollment.id).status == "waiting"
        assert session.get_one(type(pair.there.member), pair.there.member.id).blocks == {}


def test_deciding_about_another_partners_member_changes_nothing(pair: PartnerPair):
    pair.as_().post(f"/campaigns/{pair.campaign.id}/decide", data={"member": str(pair.there.member.id), "action": "reject"})

    with pair.db.reading() as session:
        assert session.get_one(type(pair.there.member), pair.there.member.id).status == "pending"


def test_lists_hold_only_the_partners_own(pair: PartnerPair):
    with pair.db.writing() as session:
        stranger = session.get_one(type(pair.there.contact), pair.there.contact.id)
        stranger.last_name = "よその人"
        session.add(stranger)
    client = pair.as_()

    for path in (
        "/",
        "/contacts",
        f"/campaigns/{pair.campaign.id}",
        f"/campaigns/{pair.campaign.id}/people",
        f"/campaigns/{pair.campaign.id}/send",
    ):
        assert "よその人" not in client.get(path).text, path


@pytest.mark.parametrize("role", list(Role))
def test_each_role_reaches_exactly_the_pages_of_its_permissions(pair: PartnerPair, role: Role):
    client = pair.as_(role)
    params = {"contact": pair.here.contact.id, "step": "welcome", "message": "welcome", "lang": "ja", "old": 1, "new": 1}

    for route, address in addresses(pair, of_other=False):
        needed = declared(route)[0]
        if "GET" not in route.methods or not isinstance(needed, Needs):
            continue
        status = client.get(address, params=params).status_code
        allowed = needed.permission is None or needed.permission in PERMISSIONS[role]
        assert (status == 403) == (not allowed), f"{role} {route.path}: {status}"
        assert status in (200, 403), f"{role} {route.path}: {status}"


def test_looking_at_every_page_changes_nothing(pair: PartnerPair):
    """U1: a GET never changes state; only opens and clicks are recorded, at their own addresses."""
    before = _rows(pair)

    for role in Role:
        client = pair.as_(role)
        for route, address in addresses(pair, of_other=False):
            if "GET" in route.methods:
                client.get(
                    address,
                    params={"contact": pair.here.contact.id, "step": "welcome", "message": "welcome", "lang": "ja", "old": 1, "new": 1},
                )

    after = _rows(pair)
    assert {name for name in before if before[name] != after[name]} <= {"user_account", "sign_in"}  # the clients of this test


def _rows(pair: PartnerPair) -> dict[str, list[object]]:
    with pair.db.reading() as session:
        return {name: sorted(map(repr, session.execute(select(table)).all())) for name, table in SQLModel.metadata.tables.items()}


@pytest.mark.parametrize("path", ["/", "/sign-in", "/campaigns/{campaign}", "/u/nothing", "/nothing"])
def test_every_page_carries_the_security_headers(pair: PartnerPair, path):
    answer = pair.as_().get(path.format(campaign=pair.campaign.id))

    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.headers["x-request-id"]) == 16


def test_no_page_holds_inline_style_or_script(pair: PartnerPair):
    client = pair.as_(Role.ops)

    for route, address in addresses(pair, of_other=False):
        if "GET" in route.methods and not route.path.endswith(".html"):
            html = client.get(address, params={"old": 1, "new": 1}).text
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=)|javascript:", html), route.path


def test_mail_preview_is_a_sandboxed_document_that_only_our_pages_may_frame(pair: PartnerPair):
    answer = pair.as_().get(f"/campaigns/{pair.campaign.id}/preview.html?contact={pair.here.contact.id}&step=welcome")

    policy = answer.headers["content-security-policy"]
    assert answer.status_code == 200
    assert "sandbox" in policy
    assert "allow-scripts" not in policy
    assert "allow-same-origin" not in policy
    assert "frame-ancestors 'self'" in policy
    assert "img-src 'self' data:;" in policy  # remote images only by choice


def test_remote_images_are_shown_only_when_asked_for(pair: PartnerPair):
    address = f"/campaigns/{pair.campaign.id}/preview.html?contact={pair.here.contact.id}&step=welcome&images=true"

    assert "img-src data: https: http:" in pair.as_().get(address).headers["content-security-policy"]


@pytest.mark.parametrize(("language", "words"), [("ja", "ページが見つかりません"), ("en", "There is nothing here")])
def test_missing_page_says_what_to_do_in_the_readers_language(pair: PartnerPair, language, words):
    answer = pair.as_(language=language).get("/nowhere")

    assert answer.status_code == 404
    assert words in answer.text
    assert answer.headers["x-request-id"] in answer.text


def test_fault_of_ours_shows_the_number_that_is_in_the_log_and_no_detail(pair: PartnerPair, monkeypatch, caplog):
    from distmark.web.pages import campaigns

    monkeypatch.setattr(campaigns.campaigns, "list_campaigns", lambda *_: 1 / 0)

    answer = pair.as_().get("/campaigns")

    number = answer.headers["x-request-id"]
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in answer.text
    assert "システム側で問題が起きました" in answer.text
    assert number in answer.text
    assert [number in record.getMessage() for record in caplog.records if record.exc_info] == [True]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_fault_of_the_api_has_its_number_and_the_headers(pair: PartnerPair, guest, monkeypatch):
    from distmark.web.api import events

    with pair.db.writing() as session:
        user = make.make_user(session, Role.partner, partner=pair.here.partner)
    monkeypatch.setattr(events.engagement, "record_events", lambda *_, **__: 1 / 0)

    answer = guest.post(
        "/api/v1/events",
        json={"name": "x", "contact_id": 1},
        headers={"authorization": f"Bearer {api_token(pair.app.state.site, user.id)}"},
    )

    assert answer.status_code == 500
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("role", [Role.marketer, Role.approver])
def test_people_who_see_no_contacts_see_how_many_members_there_are_and_no_name(pair: PartnerPair, role: Role):
    client, contact = pair.as_(role), pair.here.contact

    pages = [
        client.get(f"/campaigns/{pair.campaign.id}{query}")
        for query in ("", f"?contact={contact.id}", "?q=鈴木", "?status=pending", f"/control?contact={contact.id}")
    ]
    frame = client.get(f"/campaigns/{pair.campaign.id}/preview.html?contact={contact.id}&step=welcome")

    assert [page.status_code for page in pages] == [200] * 5
    assert not any(name in page.text for page in pages for name in ("鈴木", "花子", "伊藤", str(contact.email)))
    assert "人数" in pages[0].text
    assert frame.status_code == 403


def test_names_of_another_partners_people_are_not_told(pair: PartnerPair):
    from distmark.partners.service import active_viewer, names_of_users

    with pair.db.writing() as session:
        mine, theirs = (make.make_user(session, Role.partner, partner=each.partner) for each in (pair.here, pair.there))
        of_brand = make.make_user(session, Role.approver, pair.brand)
        viewer = active_viewer(session, mine)

        assert set(names_of_users(session, viewer, [mine.id, theirs.id, of_brand.id])) == {mine.id, of_brand.id}


# --- the size of a request --------------------------------------------------------------------------------------------------------------


def pieces(count: int) -> Iterator[bytes]:
    """A body in pieces of one megabyte, without a declared length."""
    return (b"x" * 1024 * 1024 for _ in range(count))


async def test_body_for_the_api_is_not_read_without_a_token(app: FastAPI):
    answers: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        answers.append(message)

    headers = [(b"host", b"testserver"), (b"authorization", b"Bearer forged"), (b"content-length", b"1000000")]
    scope = {"type": "http", "method": "POST", "path": "/api/v1/events", "query_string": b"", "headers": headers, "root_path": ""}
    await app(scope | {"http_version": "1.1", "scheme": "http", "server": ("testserver", 80), "client": ("127.0.0.1", 1)}, receive, send)

    assert answers[0]["status"] == 401


@pytest.mark.parametrize("path", ["/api/v1/events", "/sign-in", "/contacts/new", "/u/token"])
def test_body_that_grows_too_large_is_refused(pair: PartnerPair, guest, path):
    with pair.db.writing() as session:
        user = make.make_user(session, Role.ops, pair.brand)
    headers = {"authorization": f"Bearer {api_token(pair.app.state.site, user.id)}", "content-type": "application/x-www-form-urlencoded"}
    client = pair.as_(Role.ops)

    answer = client.post(path, content=pieces(40), headers=headers)

    assert answer.status_code == (404 if path == "/u/token" else 413)


def test_refused_htmx_request_becomes_a_notice_instead_of_a_page_in_a_page(pair: PartnerPair):
    answer = pair.as_().get("/contacts/999999", headers={"hx-request": "true", "hx-target": "section#members"})

    assert answer.status_code == 404
    assert "<html" not in answer.text
    assert answer.headers["hx-retarget"] == "#notices"


def test_too_large_a_body_is_refused_before_it_is_read(pair: PartnerPair):
    answer = pair.as_().post("/contacts/import", content=b"x", headers={"content-length": str(64 * 1024 * 1024)})

    assert answer.status_code == 413


def test_mailbox_exists_only_in_a_demo(pair: PartnerPair):
    assert pair.as_().get("/mailbox").status_code == 404


def test_vendored_files_are_what_their_list_says():
    import hashlib
    from pathlib import Path

    static = Path(mailbox.__file__).parent.parent / "static"
    listed = (static / "VENDORED.md").read_text(encoding="utf-8")
    axe = Path(__file__).parent / "vendor" / "axe.min.js"

    assert hashlib.sha256((static / "htmx.min.js").read_bytes()).hexdigest() in listed
    assert hashlib.sha256(axe.read_bytes()).hexdigest() in listed


def test_ready_says_which_part_fails(guest, app: FastAPI, monkeypatch):
    well = {"status": "ok", "database": "ok", "writes": "ok", "data_folder": "ok"}
    assert guest.get("/healthz").json() == {"status": "ok"}
    assert guest.get("/readyz").json() == guest.get("/readyz").json() == well

    def broken():
        raise OSError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(app.state.site.db, "_read", broken)
        answer = guest.get("/readyz")

    assert (answer.status_code, answer.json()) == (503, {**well, "status": "not ready", "database": "OSError"})
    assert guest.get("/healthz").status_code == 200


def test_not_ready_while_the_database_takes_no_writes(guest, db: Database):
    def read_only(connection: Any, record: object) -> None:
        connection.execute("PRAGMA query_only = ON" if db.is_sqlite else "SET default_transaction_read_only = on")
        if not db.is_sqlite:
            connection.commit()

    event.listen(db.engine, "connect", read_only)
    db.engine.dispose()
    answer = guest.get("/readyz")
    event.remove(db.engine, "connect", read_only)
    db.engine.dispose()

    assert (answer.status_code, answer.json()["database"], answer.json()["writes"] != "ok") == (503, "ok", True)
    assert guest.get("/readyz").status_code == 200


def test_not_ready_while_the_data_folder_takes_no_file(guest, app: FastAPI, tmp_path, monkeypatch):
    (tmp_path / "a-file").write_text("")
    monkeypatch.setattr(app.state.site, "settings", app.state.site.settings.model_copy(update={"data_dir": tmp_path / "a-file"}))

    answer = guest.get("/readyz")

    assert (answer.status_code, answer.json()["writes"], answer.json()["data_folder"]) == (503, "ok", "NotADirectoryError")


def test_permissions_cover_every_write(pair: PartnerPair):
    for route in routes():
        needed = declared(route)[0]
        if route.methods & {"POST", "PUT", "DELETE"} and isinstance(needed, Needs) and route.name not in OWN_ACCOUNT:
            assert isinstance(needed.permission, Permission), f"{route.path} changes something and must name a permission"


def test_journey_offered_to_one_partner_is_nothing_to_another_at_any_door(pair: PartnerPair, guest):
    with pair.db.writing() as session:
        version = make.make_version(session, pair.brand)
        make.make_campaign(session, version, partner_id=pair.there.partner.id)
        key = session.get_one(Journey, version.journey_id).key
        user = make.make_user(session, Role.partner, partner=pair.here.partner)
    bearer = {"authorization": f"Bearer {api_token(pair.app.state.site, user.id)}"}
    client = pair.as_()

    answers = {
        "results": client.get(f"/results/{key}").status_code,
        "control": client.get(f"/journeys/{key}/control").status_code,
        "enter": guest.post(
            f"/api/v1/journeys/{key}/enrollments", json={"contacts": [{"id": pair.here.contact.id}]}, headers=bearer
        ).status_code,
        "pause": guest.post("/api/v1/control/pause", json={"journey": key}, headers=bearer).status_code,
    }

    assert set(answers.values()) <= {403, 404}, answers
    assert key not in client.get("/results").text
