"""No page shows a word of the machine: every page, as every role, in both languages, over a brand in which much has happened."""

import html
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import Session, select

from distmark.clock import FixedClock
from distmark.contacts.consents import record_consent
from distmark.db import Database
from distmark.engagement.model import EventKind
from distmark.engagement.table import Event
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.partners.model import PERMISSIONS, Role
from distmark.settings import Settings
from distmark.tables import create_all
from distmark.web.app import create_app
from distmark.web.i18n import Translator
from distmark.web.status_text import condition_text, end_reason, event_name, readable_key
from tests.factories import NOW, PASSWORD
from tests.web import showcase
from tests.web.conftest import SAME_SITE, PartnerPair
from tests.web.routes import routes_of

# Panels of code and of operations: definitions, templates and their differences, names in code, and the errors that a server gave.
RAW = re.compile(
    r"<(code|pre|textarea|script|style|svg|ol class=\"excerpt\"|table class=\"(?:diff|changes)\")\b.*?</\w+>"
    r"|<span class=\"[^\"]*\bmono\b[^\"]*\">.*?</span>|<small class=\"[^\"]*\bmono\b[^\"]*\">.*?</small>",
    re.DOTALL,
)
MACHINE = {
    "snake case": r"\b[A-Za-z]\w*_\w+",
    "call": r"\b[a-z][a-z_]*\([^)\s]*\)",
    "attribute": r"\b(?:attribute|contact|partner|campaign|journey)[:.](?!yaml)\w+",
    "mail server": r"\b[245]\d\d[ -][245]\.\d+\.\d+",
    "value": r"(?<![\w-])(?:None|none(?! of)|null|True|False|nan|undefined)(?![\w-])",
}
ADDRESSES = re.compile(r"https?://\S+|\S+@\S+")


def visible(page: str) -> str:
    """The text of a page that a reader sees or hears, outside raw panels."""
    body = re.sub(r'<table class="(?:diff|changes)">.*?</table>', " ", page[page.find("<body") :], flags=re.DOTALL)
    body = re.sub(r'<ol class="excerpt">.*?</ol>', " ", body, flags=re.DOTALL)
    body = re.sub(r'<div class="finding .*?</div>', " ", body, flags=re.DOTALL)  # what the check says of a line of code
    body = RAW.sub(" ", body)
    heard = " | ".join(re.findall(r'(?:aria-label|title|placeholder|alt)="([^"]*)"', body))
    return ADDRESSES.sub(" ", html.unescape(re.sub(r"<[^>]*>", " | ", body) + " | " + heard))


def machine_words(page: str) -> set[str]:
    text = visible(page)
    return {found for pattern in MACHINE.values() for found in re.findall(pattern, text)}


@dataclass(frozen=True)
class Walked:
    """The application over the showcase, with the ids that fill its addresses."""

    app: FastAPI
    db: Database
    ids: dict[str, object]
    contacts: list[int]


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    folder = tmp_path_factory.mktemp("walked")
    settings = Settings(mode="demo", data_dir=folder, _env_file=None)
    db = Database(settings.database)
    create_all(db)
    show = showcase.build(db, folder)
    with db.writing() as session:
        contacts = _happenings(session, show.contact_id)
        enrollment_id = session.exec(select(Enrollment.id)).first()
    ids = {
        "campaign_id": show.campaign_id,
        "contact_id": show.contact_id,
        "version_id": show.submitted_id,
        "key": show.journey_key,
        "number": 2,
        "token": show.token,
        "enrollment_id": enrollment_id,
    }
    yield Walked(create_app(settings, db, FixedClock(NOW)), db, ids, contacts)
    db.close()


def _happenings(session: Session, contact_id: int) -> list[int]:
    """Let happen what servers, other systems and rules report in words of their own; return the ids of the contacts concerned."""
    first = session.exec(select(Message).where(Message.channel == "email").order_by(Message.id)).first()
    rows = session.exec(select(Message).where(Message.partner_id == first.partner_id).order_by(Message.id)).all()
    for row, status in zip(
        rows, (MessageStatus.bounced, MessageStatus.deferred, MessageStatus.uncertain, MessageStatus.sent), strict=False
    ):
        row.status, row.code = status, "550" if status is MessageStatus.bounced else "451" if status is MessageStatus.deferred else "250"
        row.detail = "550 5.1.1 user_unknown: mailbox_not_found" if status is MessageStatus.bounced else "451 4.7.1 try_again"
        session.add(row)
    for number, (kind, name, link) in enumerate(
        ((EventKind.custom, "visit_booked", None), (EventKind.converted, "joined_up", None), (EventKind.clicked, "", "price_list"))
    ):
        session.add(
            Event(
                brand_id=first.brand_id,
                partner_id=first.partner_id,
                contact_id=first.contact_id,
                enrollment_id=first.enrollment_id,
                kind=kind,
                name=name,
                link=link,
                at=NOW,
                received_at=NOW,
                natural_key=f"walked:{number}",
            )
        )
    for channel in ("open_tracking", "click_tracking"):
        record_consent(session, first.contact_id, channel, given=False, now=NOW)
    live = session.exec(select(Enrollment).where(Enrollment.partner_id == first.partner_id, Enrollment.status == "waiting")).all()
    for row, reason in zip(
        live, ("converted('joined_up')", "contact.renewal_date == today", "contact.renewal_date is missing"), strict=False
    ):
        row.status, row.outcome, row.reason, row.ended_at, row.due_at = EnrollmentStatus.ended, "exit", reason, NOW, None
        session.add(row)
    return sorted({first.contact_id, contact_id, *(row.contact_id for row in [*rows[:6], *live[:4]])})


def _addresses(walked: Walked) -> Iterator[str]:
    for route in routes_of(walked.app):
        is_page = "GET" in route.methods and not route.path.endswith((".html", ".css", ".gif", ".png"))
        if not is_page or route.path.startswith(("/api", "/o/", "/c/", "/healthz", "/readyz")):
            continue
        for contact_id in walked.contacts if "{contact_id}" in route.path else [0]:
            ids = walked.ids | {"contact_id": contact_id}
            address = re.sub(r"{(\w+)}", lambda match, ids=ids: str(ids.get(match[1], 1)), route.path)
            yield address + ("?old=1&new=2" if route.name == "compare" else "")


def _client(walked: Walked, who: str, language: str) -> TestClient:
    client = TestClient(walked.app, headers=SAME_SITE, follow_redirects=False)
    assert client.post("/sign-in", data={"email": f"{who}@mirai.example", "password": PASSWORD, "next": "/"}).status_code == 303
    client.post("/language", data={"language": language, "next": "/"})
    return client


@pytest.mark.parametrize("language", ["ja", "en"])
@pytest.mark.parametrize("who", ["partner", "marketer", "approver", "ops"])
def test_no_page_shows_a_word_of_the_machine(walked: Walked, who: str, language: str):
    client = _client(walked, who, language)

    found = defaultdict(set)
    seen = 0
    for address in _addresses(walked):
        answer = client.get(address)
        seen += answer.status_code == 200
        for word in machine_words(answer.text):
            found[word].add(address)

    assert seen > 10
    assert dict(found) == {}


def test_words_of_the_machine_are_found_outside_raw_panels_only():
    page = "<body><p>550 5.1.1 no</p><b>visit_booked</b> <i>converted('x')</i><code>see_contacts</code><td>attribute:入会日</td>none</body>"

    assert machine_words(page) == {"550 5.1.1", "visit_booked", "converted('x')", "attribute:入会日", "none"}


@pytest.mark.parametrize("language", ["ja", "en"])
def test_columns_of_an_import_are_named_in_words(walked: Walked, language: str):
    client = _client(walked, "partner", language)
    file = "姓,メールアドレス,入会日,メール配信同意,誕生日\n高橋,t@example.jp,2026-01-01,はい,2000-13-40\n".encode()

    answer = client.post("/contacts/import", files={"file": ("list.csv", file)}, data={"ground": ""})
    if answer.status_code == 303:
        answer = client.get(answer.headers["location"])

    assert answer.status_code == 200
    assert "入会日" in answer.text
    assert machine_words(answer.text) == set()


@pytest.mark.parametrize("role", list(Role))
def test_refusal_names_the_permission_in_words(pair: PartnerPair, role: Role):
    for language in ("ja", "en"):
        client = pair.as_(role, language=language)
        for path in ("/contacts", "/rates", "/approvals", "/journeys", "/operations"):
            answer = client.get(path)
            if answer.status_code == 403:
                assert machine_words(answer.text) == set(), path
                if language == "ja":
                    assert not re.search(r"この操作（[a-z ]+）", answer.text)


def test_every_permission_has_words_in_japanese():
    from distmark.web.error_translations import in_japanese

    for permissions in PERMISSIONS.values():
        for permission in permissions:
            words = permission.replace("_", " ")
            assert words not in in_japanese(f"A (ops) may not {words}; ask an administrator of your brand for this role.")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("converted('joined_up')", "Converted: joined up"),
        ('clicked("price_list")', "Clicked: price list"),
        ("contact.city == 'x' and not opened('welcome')", ""),
        ("moved away", "moved away"),
        ("面談を予約", "面談を予約"),
    ],
)
def test_condition_as_a_reason_is_worded_or_left_out(reason: str, words: str):
    translator = Translator("en", NOW.tzinfo)

    assert end_reason(reason, translator) == words
    assert condition_text("contact.x > 1", translator) == ""


def test_event_without_a_name_of_its_own_is_written_without_underscores():
    assert event_name("visit_booked", Translator("ja", NOW.tzinfo)) == "visit booked"
    assert readable_key("throttle:from_x") == "throttle from x"
