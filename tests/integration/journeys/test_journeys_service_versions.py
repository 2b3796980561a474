"""Drafts, numbers and programs of journey versions."""

from datetime import datetime, timedelta

import pytest
from sqlmodel import select

from distmark.db import Database
from distmark.errors import InvalidInput, NotFound
from distmark.journeys import service as journeys
from distmark.journeys.findings import DefinitionError
from distmark.journeys.source import Source
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.partners.model import Role
from distmark.sql import id_of
from tests.factories import make_brand, make_partner, make_source, make_user, make_version, make_viewer


def _changed(source: Source, note: str = "x") -> Source:
    return Source(source.definition + f"# {note}\n", source.templates)


def test_first_draft_creates_the_journey_with_its_names(db: Database, now: datetime):
    with db.writing() as session:
        brand = make_brand(session, key="mirai")
        author = make_user(session, brand=brand)
        source = make_source("introduction", "mirai")

        version = journeys.save_draft(session, id_of(brand), source, author.id, now)

        journey = session.exec(select(Journey)).one()
        assert (version.number, version.status, version.author_id, version.created_at) == (1, VersionStatus.draft, author.id, now)
        assert version.content_hash == source.content_hash
        assert journeys.source_of(version) == source
        assert journey.name == {"ja": "資料のご案内", "en": "A short introduction"}
        assert journey.description == {"ja": "お電話のあとにお送りします", "en": "After a phone call"}


@pytest.mark.parametrize("status", list(VersionStatus))
def test_same_text_is_the_same_version_whatever_its_status(db: Database, now: datetime, status: VersionStatus):
    with db.writing() as session:
        brand = make_brand(session, key="mirai")
        source = make_source("introduction", "mirai")
        version = make_version(session, brand, source=source, status=status)

        assert journeys.save_draft(session, id_of(brand), source, None, now) is version
        assert version.status is status


def test_open_draft_is_replaced_by_the_next_text(db: Database, now: datetime):
    with db.writing() as session:
        brand = make_brand(session, key="mirai")
        source = make_source("introduction", "mirai")
        first = journeys.save_draft(session, id_of(brand), source, None, now)
        author = make_user(session, brand=brand)

        second = journeys.save_draft(session, id_of(brand), _changed(source), author.id, now + timedelta(hours=1))

        assert second.id == first.id
        assert (second.number, second.author_id, second.created_at) == (1, author.id, now + timedelta(hours=1))
        assert journeys.source_of(second) == Source(_changed(source).definition, source.templates)


@pytest.mark.parametrize("status", [status for status in VersionStatus if status is not VersionStatus.draft])
def test_text_that_left_the_desk_is_never_changed(db: Database, now: datetime, status: VersionStatus):
    with db.writing() as session:
        brand = make_brand(session, key="mirai")
        source = make_source("introduction", "mirai")
        old = make_version(session, brand, source=source, status=status)

        new = journeys.save_draft(session, id_of(brand), _changed(source), None, now)

        assert (old.number, new.number, new.status) == (1, 2, VersionStatus.draft)
        assert journeys.source_of(old) == source


def test_text_that_cannot_be_read_is_not_stored(db: Database, now: datetime):
    with db.writing() as session:
        brand = make_brand(session, key="mirai")

        with pytest.raises(DefinitionError):
            journeys.save_draft(session, id_of(brand), Source("key: [", {}), None, now)

        assert session.exec(select(Journey)).all() == []


def test_text_written_for_another_brand_is_refused(db: Database, now: datetime):
    with db.writing() as session:
        brand = make_brand(session, key="mirai")

        with pytest.raises(InvalidInput, match="has the brand other, but this is mirai"):
            journeys.save_draft(session, id_of(brand), make_source("introduction", "other"), None, now)


def test_draft_does_not_rename_a_journey_that_partners_see(db: Database, now: datetime):
    with db.writing() as session:
        brand = make_brand(session, key="mirai")
        source = make_source("introduction", "mirai")
        make_version(session, brand, source=source)

        journeys.save_draft(
            session, id_of(brand), Source(source.definition.replace("資料のご案内", "新しい名前"), source.templates), None, now
        )

        assert session.exec(select(Journey)).one().name["ja"] == "資料のご案内"


def test_same_key_of_two_brands_is_two_journeys(db: Database, now: datetime):
    with db.writing() as session:
        for key in ("mirai", "asahi"):
            brand = make_brand(session, key=key)
            journeys.save_draft(session, id_of(brand), make_source("introduction", key), None, now)

        assert len(session.exec(select(Journey)).all()) == 2


def test_versions_come_newest_first_and_the_newest_registered_is_for_entrants(db: Database):
    with db.writing() as session:
        first = make_version(session)
        journey = session.get_one(Journey, first.journey_id)
        second = make_version(session, journey=journey)
        third = make_version(session, journey=journey, status=VersionStatus.approved)
        fourth = make_version(session, journey=journey, status=VersionStatus.retired)

        assert journeys.versions_of(session, id_of(journey)) == [fourth, third, second, first]
        assert journeys.newest_registered(session, id_of(journey)) is second


def test_journey_without_a_registered_version_takes_nobody(db: Database):
    with db.writing() as session:
        version = make_version(session, status=VersionStatus.approved)

        assert journeys.newest_registered(session, version.journey_id) is None


def test_program_is_built_once_per_content_and_anew_for_a_changed_draft(db: Database, now: datetime):
    with db.writing() as session:
        brand = make_brand(session, key="mirai")
        source = make_source("introduction", "mirai")
        version_id = id_of(journeys.save_draft(session, brand.id or 0, source, None, now))
        program = journeys.program_of(session, version_id)

        assert journeys.program_of(session, version_id) is program
        assert program.first == "welcome"

        renamed = Source(source.definition.replace("time-to-read", "pause"), source.templates)
        journeys.save_draft(session, id_of(brand), renamed, None, now)
        assert "pause" in journeys.program_of(session, version_id).steps


def test_program_of_no_version_is_not_found(db: Database):
    with db.reading() as session, pytest.raises(NotFound):
        journeys.program_of(session, 7)


def test_partners_know_journeys_that_are_published_and_the_brand_all(db: Database):
    with db.writing() as session:
        brand = make_brand(session)
        published, draft = make_version(session, brand), make_version(session, brand, status=VersionStatus.draft)
        keys = {version.id: session.get_one(Journey, version.journey_id).key for version in (published, draft)}
        partner, marketer = make_viewer(session, partner=make_partner(session, brand)), make_viewer(session, Role.marketer, brand)

        assert {row.key for row in journeys.list_journeys(session, marketer)} == set(keys.values())
        assert [row.key for row in journeys.list_journeys(session, partner)] == [keys[published.id]]
        assert journeys.get_journey(session, marketer, keys[draft.id]).key == keys[draft.id]
        with pytest.raises(NotFound):
            journeys.get_journey(session, partner, keys[draft.id])
        with pytest.raises(NotFound):
            journeys.get_version(session, partner, id_of(draft))


def test_two_people_storing_at_once_get_two_numbers(db: Database, now: datetime):
    if db.is_sqlite:
        pytest.skip("SQLite lets one write at a time")
    from concurrent.futures import ThreadPoolExecutor

    with db.writing() as session:
        brand = make_brand(session, key="mirai")
        source = make_source("introduction", "mirai")
        make_version(session, brand, source=source, status=VersionStatus.sent_back)
        brand_id = id_of(brand)

    def store(note: int) -> int:
        with db.writing() as session:
            version = journeys.save_draft(session, brand_id, _changed(source, str(note)), None, now)
            version.status = VersionStatus.submitted
            return version.number

    with ThreadPoolExecutor(4) as pool:
        numbers = sorted(pool.map(store, range(4)))

    assert numbers == [2, 3, 4, 5]
    with db.reading() as session:
        assert len(session.exec(select(JourneyVersion)).all()) == 5
