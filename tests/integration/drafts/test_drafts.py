"""Drafts: kept for one person at one place, until they are saved or too old."""

from datetime import datetime, timedelta

import pytest
from sqlmodel import Session, select

from distmark.db import Database
from distmark.drafts import service as drafts
from distmark.drafts.table import Draft
from distmark.errors import InvalidInput
from distmark.partners.model import Viewer
from tests.factories import make_brand, make_partner, make_viewer


@pytest.fixture
def viewer(db: Database) -> Viewer:
    with db.writing() as session:
        return make_viewer(session, partner=make_partner(session, make_brand(session)))


def fields_at(session: Session, viewer: Viewer, place: str) -> dict[str, str] | None:
    found = drafts.draft_of(session, viewer, place)
    return found.fields if found else None


def test_later_draft_takes_the_place_of_the_earlier_one(db: Database, viewer: Viewer, now: datetime):
    for text in ("一", "二"):
        with db.writing() as session:
            drafts.keep_draft(session, viewer, "words/1", {"note": text}, now)

    with db.reading() as session:
        assert fields_at(session, viewer, "words/1") == {"note": "二"}
        assert fields_at(session, viewer, "words/2") is None


def test_draft_is_its_writers_alone(db: Database, viewer: Viewer, now: datetime):
    with db.writing() as session:
        drafts.keep_draft(session, viewer, "words/1", {"note": "一"}, now)
        other = make_viewer(session, partner=make_partner(session))

        assert fields_at(session, other, "words/1") is None
        drafts.drop_draft(session, other, "words/1")
        assert fields_at(session, viewer, "words/1") == {"note": "一"}


def test_draft_without_fields_is_none(db: Database, viewer: Viewer, now: datetime):
    with db.writing() as session:
        drafts.keep_draft(session, viewer, "words/1", {"note": "一"}, now)
        drafts.keep_draft(session, viewer, "words/1", {}, now)

        assert fields_at(session, viewer, "words/1") is None


def test_old_drafts_are_forgotten(db: Database, viewer: Viewer, now: datetime):
    with db.writing() as session:
        drafts.keep_draft(session, viewer, "words/1", {"note": "一"}, now)

        drafts.keep_draft(session, viewer, "words/2", {"note": "二"}, now + drafts.KEPT_FOR + timedelta(seconds=1))

        assert [row.place for row in session.exec(select(Draft))] == ["words/2"]


def test_only_so_many_drafts_of_a_person_are_kept_the_newest_of_them(db: Database, viewer: Viewer, now: datetime, monkeypatch):
    monkeypatch.setattr(drafts, "MOST_DRAFTS", 3)
    for number in range(5):
        with db.writing() as session:
            drafts.keep_draft(session, viewer, f"words/{number}", {"note": "一"}, now + timedelta(seconds=number))

    with db.reading() as session:
        assert sorted(row.place for row in session.exec(select(Draft))) == ["words/2", "words/3", "words/4"]


def test_too_large_a_draft_is_refused(db: Database, viewer: Viewer, now: datetime):
    with db.writing() as session, pytest.raises(InvalidInput, match="characters"):
        drafts.keep_draft(session, viewer, "words/1", {"note": "あ" * 2_000_001}, now)
