"""`distmark token`: made for a person, listed without the key, revoked."""

from datetime import UTC, datetime

import pytest
from sqlmodel import select

from distmark.partners.table import ApiToken, User
from distmark.partners.tokens import PREFIX, hash_of, viewer_of_token
from tests.command_line import Run
from tests.driver import Stage


def email_of(stage: Stage) -> str:
    with stage.db.reading() as session:
        return session.get_one(User, stage.viewer.user_id).email


def test_token_is_made_for_a_person_and_printed_once(run: Run, stage: Stage) -> None:
    made = run("token", "create", "booking system", "--as", email_of(stage), "--json")
    listed = run("token", "list", "--json")

    token = made.rows[0]["token"]
    assert token.startswith(PREFIX)
    assert [(row["name"], row["as"], row["state"]) for row in listed.rows] == [("booking system", email_of(stage), "in use")]
    assert token not in listed.out
    with stage.db.reading() as session:
        assert session.exec(select(ApiToken.token_hash)).one() == hash_of(token)
        holder = viewer_of_token(session, token, datetime.now(UTC))
        assert holder is not None
        assert (holder[0].user_id, holder[0].partner_id) == (stage.viewer.user_id, stage.partner.id)


def test_plain_answer_ends_with_the_token_alone_on_its_line(run: Run, stage: Stage) -> None:
    made = run("token", "create", "booking system", "--as", email_of(stage))

    assert made.out.strip().splitlines()[-1].startswith(PREFIX)


def test_revoked_token_opens_nothing(run: Run, stage: Stage) -> None:
    made = run("token", "create", "booking system", "--as", email_of(stage), "--json").rows[0]

    revoked = run("token", "revoke", made["id"])

    assert revoked.code == 0
    assert run("token", "list", "--json").rows[0]["state"] == "revoked"
    with stage.db.reading() as session:
        assert viewer_of_token(session, made["token"], datetime.now(UTC)) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("create", "x", "--as", "nobody@example.com"), "nobody@example.com"), (("revoke", "99"), "no token 99")],
)
def test_mistake_is_answered_with_what_to_do(run: Run, stage: Stage, arguments: tuple[str, ...], said: str) -> None:
    answer = run("token", *arguments)

    assert answer.code == 1
    assert said in answer.err
