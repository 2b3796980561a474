"""Partners and people from the first invitation on, by pages and real mail; passwords, and what a new one ends."""

import re
import smtplib
import threading
from asyncio import new_event_loop
from collections.abc import Callable, Iterator
from datetime import timedelta
from email import message_from_bytes
from email.policy import default
from html import unescape

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import col, select

from distmark.clock import FixedClock
from distmark.compliance.access import create_token
from distmark.compliance.table import AuditEntry
from distmark.db import Database
from distmark.mailbox.catcher import Catcher
from distmark.mailbox.store import MailboxStore
from distmark.partners.model import Role
from distmark.partners.service import active_viewer, sign_in
from distmark.partners.table import ApiToken, Brand, Partner, PasswordLink, SignIn, User
from distmark.settings import Settings
from tests.factories import NOW, PASSWORD, make_partner, make_user
from tests.web.conftest import RAISE, SAME_SITE, PartnerPair

SECRET = "correct horse battery"


@pytest.fixture
def mailbox(settings: Settings, tmp_path) -> Iterator[MailboxStore]:
    """The mail that a real SMTP server took from the site."""
    store, loop = MailboxStore(tmp_path / "mailbox.sqlite3"), new_event_loop()
    catcher = Catcher(store, port=0)
    loop.run_until_complete(catcher.start())
    settings.smtp_port = catcher.port
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield store
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(catcher.stop())
    loop.close()
    store.close()


def links(mailbox: MailboxStore) -> list[tuple[str, str]]:
    """Return the recipient and the path of the link of each mail, oldest first."""
    found = []
    for item in reversed(mailbox.page()):
        message = message_from_bytes(mailbox.raw(item.id), policy=default)
        text = message.get_body(("plain",)).get_content()
        found.append((message["to"].addresses[0].addr_spec, re.search(r"/password/\S+", text)[0]))
    return found


def visitor(app: FastAPI) -> TestClient:
    return TestClient(app, headers=SAME_SITE, follow_redirects=False, raise_server_exceptions=RAISE)


def stored(db: Database, model: type, *where: object) -> list:
    with db.reading() as session:
        return list(session.exec(select(model).where(*where).order_by(model.id)))


# --- from headquarters to the first partner -----------------------------------------------------------------------------------------------


def test_partner_made_by_the_brand_signs_in_by_the_link_of_the_mail_and_adds_a_contact(pair: PartnerPair, mailbox: MailboxStore):
    answer = pair.as_(Role.marketer).post(
        "/partners/new",
        data={
            "name": "Kato Insurance",
            "phone": "03-1234-5678",
            "person_name": "加藤 恵",
            "person_email": "Megumi@Kato.example",
            "language": "ja",
        },
    )
    (partner,) = stored(pair.db, Partner, Partner.name == "Kato Insurance")
    ((recipient, path),) = links(mailbox)

    megumi = visitor(pair.app)
    form = megumi.get(path)
    opened = megumi.post(path, data={"password": SECRET, "again": SECRET})
    added = megumi.post("/contacts/new", data={"last_name": "青木", "first_name": "翔", "email": "sho@example.com", "ground": "opt_in"})

    assert (answer.status_code, answer.headers["location"]) == (303, f"/partners/{partner.id}")
    assert (partner.key, partner.phone) == ("kato-insurance", "+81312345678")
    assert (recipient, "加藤 恵" in form.text) == ("megumi@kato.example", True)
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    assert megumi.get("/").status_code == 200
    assert added.status_code == 303
    assert megumi.get(f"/contacts/{pair.here.contact.id}").status_code == 404  # another partner's


def test_link_works_once_and_for_seven_days(pair: PartnerPair, mailbox: MailboxStore, clock: FixedClock):
    marketer = pair.as_(Role.marketer)
    for name in ("first", "late"):
        marketer.post(f"/partners/{pair.here.partner.id}/people", data={"name": name, "email": f"{name}@office.example"})
    (_, first), (_, late) = links(mailbox)

    used = [visitor(pair.app).post(first, data={"password": SECRET, "again": SECRET}).status_code for _ in range(2)]
    clock.move(timedelta(days=7, minutes=1))
    expired = visitor(pair.app).get(late)

    assert used == [303, 404]
    assert expired.status_code == 404
    assert "/forgotten" in expired.text


def test_second_invitation_ends_the_link_of_the_first(pair: PartnerPair, mailbox: MailboxStore):
    marketer = pair.as_(Role.marketer)
    marketer.post(f"/partners/{pair.here.partner.id}/people", data={"name": "Ken", "email": "ken@office.example"})
    (ken,) = stored(pair.db, User, User.email == "ken@office.example")

    marketer.post(f"/people/{ken.id}/invite")
    (_, first), (_, second) = links(mailbox)

    assert [visitor(pair.app).get(path).status_code for path in (first, second)] == [404, 200]


def test_account_is_made_and_said_when_the_mail_server_is_away(pair: PartnerPair, settings: Settings):
    settings.smtp_port = 1  # nothing listens there
    marketer = pair.as_(Role.marketer, "en")

    answer = marketer.post(f"/partners/{pair.here.partner.id}/people", data={"name": "Ken", "email": "ken@office.example"})
    page = marketer.get(answer.headers["location"])

    assert "the mail to ken@office.example could not be sent" in page.text
    assert "Invite again" in page.text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "名前がありません"),
        ({"name": "A", "email": "not an address"}, "メールアドレスとして読み取れません"),
        ({"name": "A", "phone": "12"}, "電話番号として読み取れません"),
        ({"name": "A", "zone": "Tokyo"}, "Asia/Tokyo のように"),
        ({"name": "A", "key": "Ｋato 1"}, "使えません"),
        ({"name": "A", "person_email": "nobody"}, "メールアドレスとして読み取れません"),
    ],
)
def test_mistake_in_a_new_partner_is_said_and_nothing_typed_is_lost(pair: PartnerPair, fields: dict[str, str], words: str):
    before = len(stored(pair.db, Partner))

    answer = pair.as_(Role.marketer).post("/partners/new", data={"office": "横浜支店"} | fields)

    assert answer.status_code == 422
    assert words in unescape(answer.text)
    assert "横浜支店" in answer.text
    assert len(stored(pair.db, Partner)) == before


def test_partners_of_one_name_get_keys_of_their_own(pair: PartnerPair):
    marketer = pair.as_(Role.marketer)
    for name in ("Kato", "KATO!", "加藤", "加藤"):
        marketer.post("/partners/new", data={"name": name})

    made = stored(pair.db, Partner, col(Partner.name).in_(["Kato", "KATO!", "加藤"]))

    assert [row.key for row in made] == ["kato", "kato-2", "partner", "partner-2"]


def test_address_that_has_an_account_is_refused_and_its_account_stays(pair: PartnerPair):
    marketer = pair.as_(Role.marketer, "en")
    marketer.post(f"/partners/{pair.here.partner.id}/people", data={"name": "Ken", "email": "ken@office.example"})

    answer = marketer.post(f"/partners/{pair.there.partner.id}/people", data={"name": "Other", "email": "KEN@office.example"})

    assert answer.status_code == 422
    assert "has an account already" in answer.text
    assert [row.name for row in stored(pair.db, User, User.email == "ken@office.example")] == ["Ken"]


# --- who may ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.approver, Role.partner])
def test_others_neither_see_nor_make_partners_and_people(pair: PartnerPair, role: Role):
    client = pair.as_(role)

    answers = [
        client.get("/partners/new"),
        client.post("/partners/new", data={"name": "A"}),
        client.get(f"/partners/{pair.here.partner.id}"),
        client.post(f"/partners/{pair.here.partner.id}/people", data={"name": "A", "email": "a@a.example"}),
        client.post(f"/partners/{pair.here.partner.id}/suspend"),
        client.get("/people"),
        client.post("/people", data={"name": "A", "email": "a@a.example", "role": "ops"}),
    ]

    assert {answer.status_code for answer in answers} == {403}


def test_marketer_makes_nobody_of_the_brand_and_closes_none(pair: PartnerPair):
    """Who writes journeys must not make an approver of their own."""
    pair.as_(Role.approver)
    (approver,) = stored(pair.db, User, User.role == Role.approver, User.brand_id == pair.brand.id)
    marketer = pair.as_(Role.marketer)

    made = marketer.post("/people", data={"name": "A", "email": "a@a.example", "role": "approver"})
    through_a_partner = marketer.post(
        f"/partners/{pair.here.partner.id}/people", data={"name": "A", "email": "a@a.example", "role": "approver"}
    )
    closed = marketer.post(f"/people/{approver.id}/close")

    assert (made.status_code, closed.status_code) == (403, 404)
    assert through_a_partner.status_code == 303
    assert [row.role for row in stored(pair.db, User, User.email == "a@a.example")] == [Role.partner]


def test_operations_invites_and_closes_people_of_the_brand_but_not_itself(pair: PartnerPair, mailbox: MailboxStore):
    ops = pair.as_(Role.ops, "en")
    (own,) = stored(pair.db, User, User.role == Role.ops, User.brand_id == pair.brand.id)

    ops.post("/people", data={"name": "Aya", "email": "aya@brand.example", "role": "approver", "language": "en"})
    (aya,) = stored(pair.db, User, User.email == "aya@brand.example")
    ((_, path),) = links(mailbox)
    hers = visitor(pair.app)
    hers.post(path, data={"password": SECRET, "again": SECRET})
    open_before = hers.get("/approvals").status_code
    ops.post(f"/people/{aya.id}/close")
    itself = ops.post(f"/people/{own.id}/close")

    assert (open_before, hers.get("/approvals").status_code) == (200, 303)
    assert itself.status_code == 409
    assert "cannot close your own account" in itself.text


def test_people_and_partners_of_another_brand_are_not_there(pair: PartnerPair):
    foreign = pair.foreign
    with pair.db.writing() as session:
        theirs = make_partner(session, session.get_one(Brand, foreign.brand_id))
        person = make_user(session, Role.partner, partner=theirs)
        marketer = make_user(session, Role.marketer, session.get_one(Brand, foreign.brand_id))
        their_partner, their_people = theirs.id, [person.id, marketer.id]
    ops = pair.as_(Role.ops)

    answers = [ops.get(f"/partners/{their_partner}")]
    answers += [ops.post(f"/partners/{their_partner}{act}", data={"name": "X"}) for act in ("", "/suspend", "/reopen", "/people")]
    answers += [ops.post(f"/people/{user_id}/{act}") for user_id in their_people for act in ("close", "reopen", "invite")]

    assert {answer.status_code for answer in answers} == {404}
    assert [row.active for row in stored(pair.db, User, col(User.id).in_(their_people))] == [True, True]
    assert [(row.active, row.name == "X") for row in stored(pair.db, Partner, Partner.id == their_partner)] == [(True, False)]


def test_suspended_partner_signs_nobody_in_until_it_is_opened_again(pair: PartnerPair):
    partner, marketer = pair.as_(Role.partner), pair.as_(Role.marketer)

    marketer.post(f"/partners/{pair.here.partner.id}/suspend")
    suspended = partner.get("/").status_code
    invited = marketer.post(f"/partners/{pair.here.partner.id}/people", data={"name": "Ken", "email": "ken@office.example"})
    marketer.post(f"/partners/{pair.here.partner.id}/reopen")
    (user,) = stored(pair.db, User, User.partner_id == pair.here.partner.id)
    with pair.db.writing() as session:
        _, viewer = sign_in(session, user.email, PASSWORD, NOW)

    assert suspended == 303
    assert invited.status_code == 422
    assert viewer.partner_id == pair.here.partner.id


def test_every_act_is_in_the_trail_without_addresses(pair: PartnerPair, mailbox: MailboxStore):
    marketer = pair.as_(Role.marketer)
    marketer.post("/partners/new", data={"name": "Kato", "person_name": "Ken", "person_email": "ken@office.example"})
    (kato,) = stored(pair.db, Partner, Partner.key == "kato")
    marketer.post(f"/partners/{kato.id}", data={"name": "Kato", "office": "Yokohama"})
    marketer.post(f"/partners/{kato.id}/suspend")

    trail = stored(pair.db, AuditEntry, col(AuditEntry.subject_kind).in_(["partner", "user"]))

    assert [(row.subject_kind, row.action) for row in trail] == [
        ("partner", "created"),
        ("user", "invited"),
        ("partner", "changed"),
        ("partner", "suspended"),
    ]
    assert trail[2].detail == {"before": {"office": ""}}
    assert not any("ken@" in str(row.detail) for row in trail)


# --- passwords ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def signed_in(pair: PartnerPair) -> Callable[[], TestClient]:
    """Returns a browser in which the same person has signed in with PASSWORD."""
    pair.as_(Role.marketer)
    (user,) = stored(pair.db, User, User.role == Role.marketer, User.brand_id == pair.brand.id)

    def browser() -> TestClient:
        client = visitor(pair.app)
        assert client.post("/sign-in", data={"email": user.email, "password": PASSWORD}).status_code == 303
        return client

    return browser


def test_new_password_ends_other_sessions_and_tokens_and_keeps_this_browser(pair: PartnerPair, signed_in: Callable[[], TestClient]):
    here, elsewhere = signed_in(), signed_in()
    (user,) = stored(pair.db, User, User.role == Role.marketer, User.brand_id == pair.brand.id)
    with pair.db.writing() as session:
        create_token(session, active_viewer(session, session.get_one(User, user.id)), "till", NOW)

    answer = here.post("/account/password", data={"present": PASSWORD, "password": SECRET, "again": SECRET})

    assert (answer.status_code, here.get("/account").status_code, elsewhere.get("/account").status_code) == (303, 200, 303)
    assert [row.revoked_at is not None for row in stored(pair.db, ApiToken)] == [True]
    assert visitor(pair.app).post("/sign-in", data={"email": user.email, "password": PASSWORD}).status_code == 422
    assert visitor(pair.app).post("/sign-in", data={"email": user.email, "password": SECRET}).status_code == 303


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"present": "wrong", "password": SECRET, "again": SECRET}, "現在のパスワードが違います"),
        ({"present": PASSWORD, "password": SECRET, "again": SECRET + "!"}, "一致しません"),
        ({"present": PASSWORD, "password": "short", "again": "short"}, "10文字以上"),
        ({"present": PASSWORD, "password": "aaaaaaaaaaaaaa", "again": "aaaaaaaaaaaaaa"}, "種類が少なすぎます"),
    ],
)
def test_password_that_cannot_be_used_changes_nothing(pair: PartnerPair, signed_in: Callable[[], TestClient], form: dict, words: str):
    answer = signed_in().post("/account/password", data=form)

    assert answer.status_code == 422
    assert words in answer.text
    assert signed_in().get("/account").status_code == 200


def test_other_browsers_are_signed_out_by_a_button(signed_in: Callable[[], TestClient]):
    here, elsewhere = signed_in(), signed_in()

    here.post("/account/sessions/end")

    assert (here.get("/account").status_code, elsewhere.get("/account").status_code) == (200, 303)


def test_forgotten_password_is_set_by_a_link_and_unknown_addresses_get_the_same_answer(pair: PartnerPair, mailbox: MailboxStore):
    pair.as_(Role.marketer)
    (user,) = stored(pair.db, User, User.role == Role.marketer, User.brand_id == pair.brand.id)
    browser = visitor(pair.app)

    known = browser.post("/forgotten", data={"email": user.email.upper()})
    unknown = browser.post("/forgotten", data={"email": "nobody@brand.example"})
    ((recipient, path),) = links(mailbox)
    browser.post(path, data={"password": SECRET, "again": SECRET})

    assert known.status_code == unknown.status_code == 200
    assert known.text.replace(user.email.upper(), "") == unknown.text.replace("nobody@brand.example", "")
    assert (recipient, browser.get("/account").status_code) == (user.email, 200)


def test_link_is_kept_as_a_hash_and_stands_in_no_log(pair: PartnerPair, mailbox: MailboxStore, caplog: pytest.LogCaptureFixture):
    pair.as_(Role.marketer).post(f"/partners/{pair.here.partner.id}/people", data={"name": "Ken", "email": "ken@office.example"})
    ((_, path),) = links(mailbox)

    (row,) = stored(pair.db, PasswordLink)

    assert path.rpartition("/")[2] not in str(row.model_dump())
    assert path.rpartition("/")[2] not in caplog.text
    assert "ken@office.example" not in caplog.text


def test_mail_server_of_these_tests_is_real(mailbox: MailboxStore, settings: Settings):
    with smtplib.SMTP("127.0.0.1", settings.smtp_port) as server:
        assert server.noop()[0] == 250


def test_closing_an_account_ends_its_sessions(pair: PartnerPair):
    pair.as_(Role.approver)
    (approver,) = stored(pair.db, User, User.role == Role.approver, User.brand_id == pair.brand.id)

    pair.as_(Role.ops).post(f"/people/{approver.id}/close")

    assert stored(pair.db, SignIn, SignIn.user_id == approver.id) == []
