"""The migrations make exactly the tables that the models say, on both databases."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Enum, inspect, text
from sqlmodel import SQLModel, col, select

import distmark.tables  # noqa: F401
from distmark.campaigns.table import Member, PartnerBlocks
from distmark.db import Database
from distmark.errors import SettingsError
from distmark.migrations import configuration, newest, require_newest, upgrade
from distmark.partners.table import Brand
from tests.factories import NOW, make_campaign, make_contact, make_enrollment, make_member, make_partner


def test_migrations_make_exactly_the_tables_of_the_models(empty_db: Database):
    upgrade(empty_db.url)

    with empty_db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_migrated_tables_have_the_same_indexes_and_constraints_by_name(empty_db: Database, db: Database):
    upgrade(empty_db.url)

    if empty_db.is_sqlite == db.is_sqlite:
        assert _names(empty_db) == _names(db)


def _names(database: Database) -> dict[str, set[str | None]]:
    found = inspect(database.engine)
    return {
        table: {
            *(index["name"] for index in found.get_indexes(table)),
            *(key["name"] for key in found.get_unique_constraints(table)),
            *(key["name"] for key in found.get_foreign_keys(table)),
            found.get_pk_constraint(table)["name"],
        }
        for table in found.get_table_names()
        if table != "alembic_version"
    }


def test_migrated_postgres_knows_every_word_of_every_enum(empty_db: Database):
    if empty_db.is_sqlite:
        pytest.skip("SQLite keeps enums as plain text")

    upgrade(empty_db.url)

    columns = [column.type for table in SQLModel.metadata.tables.values() for column in table.columns]
    wanted = {kind.name: list(kind.enums) for kind in columns if isinstance(kind, Enum)}
    found = {row["name"]: row["labels"] for row in inspect(empty_db.engine).get_enums()}  # type: ignore[attr-defined]
    assert found == wanted


def test_upgrading_again_changes_nothing_and_keeps_the_rows(empty_db: Database):
    """S6"""
    upgrade(empty_db.url)
    with empty_db.writing() as session:
        make_enrollment(session)

    upgrade(empty_db.url)

    with empty_db.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM enrollment")).scalar() == 1
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [newest()]


def test_words_written_before_words_had_a_language_get_that_of_their_reader_or_writer(db: Database):
    history = ScriptDirectory.from_config(configuration()).walk_revisions()
    (revision,) = [each for each in history if each.doc == "Words of partners by language, and the words that a partner sent with."]
    with db.writing() as session:
        campaign = make_campaign(session)
        partner = make_partner(session, session.get_one(Brand, campaign.brand_id), language="en")
        for language in ("ja", "en", "fr"):
            make_member(session, campaign, make_contact(session, partner, language=language), blocks={"note": "x"})
        make_member(session, campaign, make_contact(session, partner))
        session.add(PartnerBlocks(campaign_id=campaign.id, partner_id=partner.id, blocks={"note": "y"}, updated_at=NOW))

    with db.engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        revision.module.set_languages()

    with db.reading() as session:
        words = [row.blocks for row in session.exec(select(Member).order_by(col(Member.id)))]
        assert words == [{"ja": {"note": "x"}}, {"en": {"note": "x"}}, {"ja": {"note": "x"}}, {}]
        assert session.exec(select(PartnerBlocks)).one().blocks == {"en": {"note": "y"}}


def test_there_is_one_newest_revision():
    assert len(ScriptDirectory.from_config(configuration()).get_heads()) == 1


def test_upgrade_that_fails_leaves_nothing_behind(empty_db: Database):
    """S6"""
    with empty_db.engine.begin() as connection:
        connection.execute(text("CREATE TABLE metric_count (id INTEGER)"))  # in the way of a table in the middle

    with pytest.raises(Exception, match="metric_count"):
        upgrade(empty_db.url)

    assert inspect(empty_db.engine).get_table_names() == ["metric_count"]


def test_database_that_is_behind_is_named_as_such(empty_db: Database):
    with pytest.raises(SettingsError, match=f"at revision none, but this program needs {newest()}"):
        require_newest(empty_db)

    upgrade(empty_db.url)

    require_newest(empty_db)


def test_tables_that_no_migration_made_are_left_alone(db: Database):
    with pytest.raises(SettingsError, match="start with an empty database"):
        upgrade(db.url)


def test_contacts_of_before_are_found_in_searches_after_the_upgrade(empty_db: Database):
    upgrade(empty_db.url)
    with empty_db.writing() as session:
        contact = make_contact(session, last_name="髙橋", attributes={"フリガナ": "タカハシ"})
        written = contact.search_text
    with empty_db.engine.begin() as connection:
        connection.execute(text("UPDATE contact SET search_text = ''"))
        module = ScriptDirectory.from_config(configuration()).get_revision("0012").module

        module.fill(connection)

        assert connection.execute(text("SELECT search_text FROM contact")).scalars().all() == [written]
