"""Errors of the database tell what is wrong, and nothing of what was in the row: they are logged, and rows hold addresses and tokens."""

import logging

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from distmark.db import Database
from distmark.partners.table import User
from tests import factories as make

SECRET = "hanako.secret@example.com"


def test_broken_constraint_is_named_without_the_row(db: Database, caplog: pytest.LogCaptureFixture):
    with db.writing() as session:
        brand = make.make_brand(session)
        make.make_user(session, brand=brand, email=SECRET)

    with pytest.raises(DBAPIError) as caught, db.writing() as session:
        make.make_user(session, brand=session.get_one(type(brand), brand.id), email=SECRET)
    logging.getLogger("distmark.test").error("failed", exc_info=caught.value)

    assert "user_account" in str(caught.value)
    assert "secret" not in caplog.text
    assert "secret" not in str(caught.value) + repr(caught.value.orig)


def test_statement_that_cannot_run_is_told_without_its_parameters(db: Database, caplog: pytest.LogCaptureFixture):
    with pytest.raises(DBAPIError) as caught, db.reading() as session:
        session.execute(text("SELECT * FROM nowhere WHERE email = :email"), {"email": SECRET})
    logging.getLogger("distmark.test").error("failed", exc_info=caught.value)

    assert "secret" not in caplog.text


def test_not_null_tells_no_failing_row(db: Database):
    with db.writing() as session:
        user_id = make.make_user(session, email=SECRET).id

    with pytest.raises(DBAPIError) as caught, db.writing() as session:
        session.execute(text("UPDATE user_account SET name = NULL WHERE id = :id"), {"id": user_id})

    assert "name" in str(caught.value)
    assert "secret" not in str(caught.value)
    with db.reading() as session:
        assert session.get_one(User, user_id).email == SECRET
