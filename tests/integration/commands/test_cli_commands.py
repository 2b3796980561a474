"""The command line on both databases: journeys, contacts, campaigns, enrolling, results, and what each mistake is answered with."""

import json
from pathlib import Path

import pytest
from sqlmodel import select

from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.enrollments.table import Enrollment
from distmark.journeys.table import JourneyVersion, VersionStatus
from distmark.partners.model import Role
from distmark.partners.table import User
from distmark.settings import ROOT
from distmark.sql import id_of
from tests.command_line import Run
from tests.factories import TEMPLATES, make_brand, make_campaign, make_contact, make_partner, make_source, make_user, make_version

WELCOME = ROOT / "journey_defs" / "retirement-onboarding"


def write(folder: Path, key: str = "introduction", brand: str = "mirai-securities", journey: str | None = None) -> Path:
    """Write the small valid journey as files."""
    source = make_source(key, brand)
    folder = folder / "files"
    (folder / key / "messages").mkdir(parents=True)
    (folder / key / "journey.yaml").write_text(journey or source.definition, encoding="utf-8")
    for name, text in TEMPLATES.items():
        (folder / key / "messages" / name).write_text(text, encoding="utf-8")
    return folder / key


@pytest.fixture
def staffed(db: Database) -> Database:
    """A brand with a marketer, an approver and a partner with somebody who signs in."""
    with db.writing() as session:
        brand = make_brand(session, key="mirai-securities")
        make_user(session, Role.marketer, brand, email="marketer@mirai.example")
        make_user(session, Role.approver, brand, email="approver@mirai.example")
        make_user(session, Role.partner, partner=make_partner(session, brand, key="nagoya"), email="partner@mirai.example")
    return db


def version_of(db: Database) -> JourneyVersion:
    with db.reading() as session:
        return session.exec(select(JourneyVersion)).one()


def test_a_clean_journey_passes_the_check(run: Run, tmp_path: Path) -> None:
    ran = run("journeys", "check", write(tmp_path))

    assert (ran.code, ran.err) == (0, "")
    assert "1 journey checked: 0 errors" in ran.out


def test_a_folder_of_journeys_is_checked_whole(run: Run) -> None:
    ran = run("journeys", "check", ROOT / "journey_defs")

    assert ran.code == 0
    assert "6 journeys checked: 0 errors, 0 warnings." in ran.out


@pytest.mark.parametrize(
    ("old", "new", "step", "field", "says"),
    [
        ("send: email, message: welcome", "sned: email, message: welcome", "welcome", "sned", "kind"),
        ("clicked('welcome')", "cliked('welcome')", "engaged", "branch", "clicked"),
        ("message: welcome", "message: welcme", "welcome", "message", "welcme"),
        ("[personal_note, photo]", "[personal_note, foto]", "welcome", "editable", "photo"),
    ],
    ids=["step kind", "expression name", "template", "block"],
)
def test_each_error_is_named_by_file_line_step_and_field(
    run: Run, tmp_path: Path, old: str, new: str, step: str, field: str, says: str
) -> None:
    definition = make_source().definition.replace(old, new)
    line = next(number for number, text in enumerate(definition.splitlines(), 1) if new in text)

    ran = run("journeys", "check", write(tmp_path, journey=definition), "--json")

    assert ran.code == 1
    found = [row for row in ran.rows if row["severity"] == "error" and row["file"].endswith("journey.yaml") and row["line"] == line]
    assert found, ran.out
    assert set(found[0]) >= {"file", "line", "step", "field", "severity", "message", "hint"}
    assert (found[0]["step"], found[0]["field"].split(".")[0]) == (step, field)
    assert says in found[0]["message"] + found[0]["hint"]


def test_what_cannot_be_read_is_one_line_on_stderr(run: Run, tmp_path: Path) -> None:
    ran = run("journeys", "check", tmp_path / "nothing-here")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Error: ")
    assert "nothing-here" in ran.err
    assert len(ran.err.strip().splitlines()) == 1


def test_a_journey_goes_from_a_file_to_approval_by_two_people(run: Run, staffed: Database, tmp_path: Path) -> None:
    submitted = run("journeys", "submit", write(tmp_path), "--json")
    waiting = version_of(staffed)
    approved = run("journeys", "approve", "introduction", "--note", "fine", "--json")

    assert submitted.rows == [{"key": "introduction", "version": 1, "status": "submitted", "deployment": None, "id": waiting.id}]
    assert waiting.status is VersionStatus.submitted
    assert approved.rows[0]["status"] == "approved"
    with staffed.reading() as session:
        by = {user.id: user.email for user in session.exec(select(User))}
    version = version_of(staffed)
    assert (by[version.author_id], by[version.decided_by_id]) == ("marketer@mirai.example", "approver@mirai.example")


def test_an_approver_sends_a_version_back_with_a_reason(run: Run, staffed: Database, tmp_path: Path) -> None:
    run("journeys", "submit", write(tmp_path))

    without = run("journeys", "approve", "introduction", "--send-back")
    back = run("journeys", "approve", "introduction", "--send-back", "--note", "the footer is wrong")

    assert without.code == 1
    assert "reason" in without.err
    assert back.code == 0
    assert version_of(staffed).status is VersionStatus.sent_back


def test_nobody_approves_their_own_text(run: Run, staffed: Database, tmp_path: Path) -> None:
    with staffed.writing() as session:
        brand_id = session.exec(select(User.brand_id).limit(1)).one()
        ops = make_user(session, Role.ops, None, email="ops@mirai.example", brand_id=brand_id)
        ops.brand_id = brand_id
    run("journeys", "submit", write(tmp_path), "--as", "ops@mirai.example")

    ran = run("journeys", "approve", "introduction", "--as", "ops@mirai.example")

    assert ran.code == 1
    assert "somebody else must approve it" in ran.err
    assert version_of(staffed).status is VersionStatus.submitted


def test_a_journey_with_errors_cannot_be_submitted(run: Run, staffed: Database, tmp_path: Path) -> None:
    folder = write(tmp_path, journey=make_source().definition.replace("message: welcome", "message: welcme"))

    ran = run("journeys", "submit", folder)

    assert ran.code == 1
    assert "distmark journeys check" in ran.err
    with staffed.reading() as session:
        assert session.exec(select(JourneyVersion)).all() == []


def test_only_an_approved_version_is_registered(run: Run, staffed: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distmark.commands.journeys.point_prefect_here", lambda settings: None)
    run("journeys", "submit", write(tmp_path))

    ran = run("journeys", "register", "introduction")

    assert ran.code == 1
    assert "approved" in ran.err


def test_registering_without_prefect_says_so_and_changes_nothing(
    run: Run, staffed: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTMARK_PREFECT_API_URL", "http://127.0.0.1:9/api")
    run("journeys", "submit", write(tmp_path))
    run("journeys", "approve", "introduction")

    ran = run("journeys", "register", "introduction")

    assert ran.code == 1
    assert "Prefect does not answer at http://127.0.0.1:9/api" in ran.err
    assert version_of(staffed).status is VersionStatus.approved


def test_journeys_are_listed_with_their_newest_version(run: Run, staffed: Database, tmp_path: Path) -> None:
    run("journeys", "submit", write(tmp_path))

    assert run("journeys", "list", "--json").rows == [
        {
            "brand": "mirai-securities",
            "key": "introduction",
            "name": "資料のご案内",
            "version": 1,
            "status": "submitted",
            "registered": None,
        }
    ]


def test_a_stored_journey_is_shown_and_drawn(run: Run, staffed: Database, tmp_path: Path) -> None:
    run("journeys", "submit", write(tmp_path))

    shown, drawn = run("journeys", "show", "introduction", "--json"), run("journeys", "diagram", "introduction")
    pictured = run("journeys", "diagram", "introduction", "--svg", tmp_path / "introduction.svg")

    assert [step["id"] for step in shown.rows[0]["steps"]] == ["welcome", "time-to-read", "engaged", "call"]
    assert shown.rows[0]["versions"] == [{"number": 1, "status": "submitted", "deployment": None}]
    assert "time-to-read" in drawn.out
    assert pictured.code == 0
    assert (tmp_path / "introduction.svg").read_text(encoding="utf-8").startswith("<svg")


def test_a_file_needs_no_database_to_be_checked_drawn_and_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTMARK_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/nothing")

    asked = run("journeys", "when", WELCOME, "time-to-read", "--at", "2026-11-24T10:00", "--zone", "Asia/Tokyo", "--json")

    # Tuesday 10:00 and three days is Friday 10:00; the next 09:00 is Saturday's, 00:00 UTC.
    assert asked.rows[0]["due_at"] == "2026-11-28T00:00:00+00:00"
    assert asked.rows[0]["local"] == "2026-11-28T09:00:00+09:00"
    assert run("journeys", "diagram", WELCOME).code == run("journeys", "check", WELCOME).code == run("journeys", "schema").code == 0


def test_the_schema_is_one_json_document(run: Run) -> None:
    schema = json.loads(run("journeys", "schema").out)

    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"key", "name", "steps"} <= set(schema["properties"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("time-to-reed", "--at", "2026-11-24T10:00", "--zone", "Asia/Tokyo"), "time-to-read"),
        (("time-to-read", "--at", "tomorrow", "--zone", "Asia/Tokyo"), "tomorrow"),
        (("time-to-read", "--at", "2026-11-24T10:00", "--zone", "Asia/Nowhere"), "Asia/Nowhere"),
    ],
    ids=["step", "time", "zone"],
)
def test_a_question_that_cannot_be_answered_says_why(run: Run, arguments: tuple[str, ...], says: str) -> None:
    ran = run("journeys", "when", WELCOME, *arguments)

    assert ran.code == 1
    assert says in ran.err


def test_contacts_come_in_and_the_broken_line_is_named(run: Run, staffed: Database, tmp_path: Path) -> None:
    lines = ["姓,名,メール,メール同意", *(f"佐藤,{n},person{n}@example.com,yes" for n in range(15)), "田中,壊れ,not-an-address,yes"]
    (tmp_path / "people.csv").write_bytes("\n".join(lines).encode("cp932"))

    ran = run("contacts", "import", tmp_path / "people.csv", "--partner", "nagoya", "--json")

    report = ran.rows[0]
    assert ran.code == 0
    assert (report["created"], [each["line"] for each in report["rejected"]]) == (15, [17])


def test_a_dry_run_of_an_import_writes_nothing(run: Run, staffed: Database, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("email,last name\na@example.com,Sato\n", encoding="utf-8-sig")

    ran = run("contacts", "import", tmp_path / "people.csv", "--partner", "nagoya", "--dry-run")

    assert ran.code == 0
    assert "1 added" in ran.out
    with staffed.reading() as session:
        assert session.exec(select(Contact)).all() == []


@pytest.mark.parametrize(
    ("content", "partner", "says"),
    [(b"foo,bar\n1,2\n", "nagoya", "email"), (b"email\na@example.com\n", "osaka", "osaka"), (None, "nagoya", "people.csv")],
    ids=["no needed column", "no such partner", "no file"],
)
def test_an_import_that_cannot_begin_says_why(
    run: Run, staffed: Database, tmp_path: Path, content: bytes | None, partner: str, says: str
) -> None:
    if content is not None:
        (tmp_path / "people.csv").write_bytes(content)

    ran = run("contacts", "import", tmp_path / "people.csv", "--partner", partner)

    assert ran.code == 1
    assert says in ran.err


@pytest.fixture
def offered(staffed: Database) -> Database:
    """A registered journey, offered to all partners as `spring`, and two contacts of the partner, who agreed to mail."""
    from distmark.contacts.consents import record_consent
    from distmark.partners.table import Brand, Partner
    from tests.factories import NOW

    with staffed.writing() as session:
        brand = session.exec(select(Brand)).one()
        version = make_version(session, brand, source=make_source("introduction", brand.key))
        make_campaign(session, version, key="spring")
        partner = session.exec(select(Partner)).one()
        for email in ("a@example.com", "b@example.com"):
            contact = make_contact(session, partner, email=email)
            record_consent(session, id_of(contact), "email", given=True, now=NOW)
    return staffed


def test_contacts_are_enrolled_once_however_often_they_are_named(run: Run, offered: Database) -> None:
    first = run("enroll", "spring", "a@example.com", "--partner", "nagoya", "--json")
    again = run("enroll", "spring", "--all", "--partner", "nagoya", "--json")

    assert [row["verdict"] for row in first.rows] == ["enrolled"]
    assert sorted(row["verdict"] for row in again.rows) == ["already_in", "enrolled"]
    with offered.reading() as session:
        assert len(session.exec(select(Enrollment)).all()) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("winter", "a@example.com"), "no campaign winter"),
        (("spring", "nobody@example.com"), "nobody@example.com"),
        (("spring",), "--all"),
        (("spring", "a@example.com", "--as", "ghost@example.com"), "ghost@example.com"),
    ],
    ids=["campaign", "contact", "nobody", "user"],
)
def test_an_enrolment_that_cannot_be_says_why(run: Run, offered: Database, arguments: tuple[str, ...], says: str) -> None:
    ran = run("enroll", *arguments)

    assert ran.code == 1
    assert says in ran.err


def test_a_campaign_is_made_and_listed(run: Run, offered: Database) -> None:
    made = run("campaigns", "create", "introduction", "autumn", "--name", "秋のご案内", "--partner", "nagoya", "--json")

    listed = {row["key"]: row for row in run("campaigns", "list", "--json").rows}

    assert made.code == 0
    assert listed["autumn"] == {
        "brand": "mirai-securities",
        "key": "autumn",
        "name": "秋のご案内",
        "journey": "introduction",
        "partner": "nagoya",
        "status": "open",
    }


def test_results_are_rolled_up_on_request(run: Run, offered: Database) -> None:
    run("enroll", "spring", "--all", "--partner", "nagoya")

    before, after = run("results", "introduction", "--json"), run("results", "introduction", "--refresh", "--json")

    assert before.rows[0]["totals"].get("entered", 0) == 0
    assert after.rows[0]["totals"]["entered"] == 2
    assert [step["id"] for step in after.rows[0]["steps"]][:2] == ["welcome", "time-to-read"]


def test_results_of_an_unknown_journey_say_where_to_look(run: Run, offered: Database) -> None:
    ran = run("results", "nothing")

    assert ran.code == 1
    assert "distmark journeys list" in ran.err


def test_a_wrong_setting_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTMARK_MODE", "production")
    monkeypatch.setenv("DISTMARK_CLOCK_SPEED", "60")

    ran = run("journeys", "list")

    assert ran.code == 1
    assert "DISTMARK_CLOCK_SPEED" in ran.err
    assert len(ran.err.strip().splitlines()) == 1


def test_a_database_without_tables_says_how_to_make_them(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTMARK_DATABASE_URL", f"sqlite:///{tmp_path / 'new.sqlite3'}")

    ran = run("journeys", "list")

    assert ran.code == 1
    assert "distmark init" in ran.err


def test_init_makes_the_tables_a_brand_and_its_first_user(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTMARK_DATABASE_URL", f"sqlite:///{tmp_path / 'new.sqlite3'}")
    monkeypatch.setenv("DISTMARK_PREFECT_API_URL", "http://127.0.0.1:9/api")
    (tmp_path / "password").write_text("a long enough password\n")
    about = (
        "--brand",
        "mirai-securities",
        "--brand-name",
        "Mirai",
        "--legal-name",
        "Mirai K.K.",
        "--address",
        "Tokyo",
        "--contact",
        "0120",
    )
    who = ("--user", "ops@mirai.example", "--name", "Mika", "--password-file", tmp_path / "password")

    ran, again = run("init", *about, *who), run("init", *about, *who)

    assert (ran.code, again.code) == (0, 0)
    assert "ops@mirai.example" in ran.out
    assert run("journeys", "list").code == 0


def test_init_without_a_terminal_asks_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTMARK_DATABASE_URL", f"sqlite:///{tmp_path / 'new.sqlite3'}")
    monkeypatch.setenv("DISTMARK_PREFECT_API_URL", "http://127.0.0.1:9/api")

    ran = run("init")

    assert ran.code == 0
    assert "Nobody can sign in yet" in ran.out


def test_a_command_that_does_not_exist_is_a_wrong_call(run: Run) -> None:
    assert run("jorneys", "list").code == 2
