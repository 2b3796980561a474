"""`distmark partners` and `distmark people`: from an installation with one brand to partners whose people sign in."""

from distmark.compliance.accounts import set_password_by_link
from distmark.partners.model import Role
from distmark.partners.service import viewer_of
from distmark.partners.table import Brand, Partner
from tests import factories
from tests.command_line import Run
from tests.driver import Stage

SECRET = "correct horse battery"


def key_of_brand(stage: Stage) -> str:
    with stage.db.reading() as session:
        return session.get_one(Brand, stage.brand.id).key


def test_partner_is_added_with_its_first_person_whose_link_signs_in(run: Run, stage: Stage) -> None:
    made = run("partners", "add", "--name", "Kato Insurance", "--invite", "megumi@kato.example", "--person", "Megumi", "--json")
    link = made.rows[0]["link"]
    with stage.db.writing() as session:
        cookie = set_password_by_link(session, link.rpartition("/")[2], SECRET, stage.clock.now())
        viewer = viewer_of(session, cookie, stage.clock.now())
        partner = session.get_one(Partner, viewer.partner_id)

    assert (made.code, made.rows[0]["key"]) == (0, "kato-insurance")
    assert (viewer.name, partner.key) == ("Megumi", "kato-insurance")


def test_plain_answer_ends_with_the_link_alone_on_its_line(run: Run, stage: Stage) -> None:
    made = run("partners", "add", "--name", "Kato", "--invite", "megumi@kato.example")

    assert made.out.strip().splitlines()[-1].startswith("http")


def test_second_invitation_of_the_same_person_is_a_new_link(run: Run, stage: Stage) -> None:
    run("partners", "add", "--name", "Kato", "--invite", "megumi@kato.example")

    again = run("people", "invite", "megumi@kato.example", "--name", "Megumi", "--partner", "kato", "--json")
    listed = run("people", "list", "--partner", "kato", "--json")

    assert again.code == 0
    assert [(row["email"], row["state"]) for row in listed.rows] == [("megumi@kato.example", "invited")]


def test_partner_is_suspended_and_opened_again(run: Run, stage: Stage) -> None:
    run("partners", "add", "--name", "Kato")

    run("partners", "suspend", "kato")
    suspended = [row["state"] for row in run("partners", "list", "--json").rows if row["key"] == "kato"]
    run("partners", "reopen", "kato")
    opened = [row["state"] for row in run("partners", "list", "--json").rows if row["key"] == "kato"]

    assert (suspended, opened) == (["suspended"], ["active"])


def test_account_is_closed_and_opened_again(run: Run, stage: Stage) -> None:
    with stage.db.writing() as session:
        factories.make_user(session, Role.ops, session.get_one(Brand, stage.brand.id))
    run("people", "invite", "ken@brand.example", "--name", "Ken", "--role", "approver")

    closed = run("people", "close", "ken@brand.example")
    states = {row["email"]: row["state"] for row in run("people", "list", "--json").rows}
    reset = run("people", "reset", "ken@brand.example")
    opened = run("people", "reopen", "ken@brand.example")

    assert (closed.code, states["ken@brand.example"], reset.code, opened.code) == (0, "closed", 1, 0)


def test_role_that_does_not_fit_is_refused_with_what_to_give(run: Run, stage: Stage) -> None:
    with stage.db.writing() as session:
        factories.make_user(session, Role.ops, session.get_one(Brand, stage.brand.id))

    answer = run("people", "invite", "ken@brand.example", "--name", "Ken")

    assert answer.code != 0
    assert "--role" in answer.err


def test_init_makes_no_partners_person_without_a_partner(run: Run) -> None:
    answer = run(
        "init", "--brand", "b", "--brand-name", "B", "--legal-name", "B", "--address", "A", "--contact", "C", "--user", "a@a.example",
        "--name", "A", "--role", "partner", "--password-file", "-",
    )  # fmt: skip

    assert answer.code != 0
    assert "distmark partners add" in answer.err
