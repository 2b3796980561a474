"""The schema's history. `upgrade` brings a database to the newest revision; `python -m distmark.migrations TEXT` writes the next one."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from distmark.db import Database
from distmark.errors import SettingsError

FOLDER = Path(__file__).parent
# Any number that nothing else locks on: two processes that upgrade at once take turns.
UPGRADE_LOCK = 5_117_210_364


def upgrade(database_url: str) -> None:
    """Bring the database to the newest revision, all or nothing; doing it again changes nothing.

    SettingsError when it has tables that no migration made.
    """
    database = Database(database_url)
    try:
        with database.engine.execution_options(distmark_begin="IMMEDIATE").begin() as connection:
            if not database.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})
            _refuse_foreign_tables(connection)
            command.upgrade(configuration(connection), "head")
    finally:
        database.close()


def require_newest(database: Database) -> None:
    """Return when the database is at the newest revision; SettingsError says which it is at and what to do."""
    with database.engine.connect() as connection:
        found = revision_of(connection)
    if found != newest():
        raise SettingsError(
            f"The database is at revision {found or 'none'}, but this program needs {newest()}; upgrade the database first."
        )


def newest() -> str:
    """Return the newest revision that this program knows."""
    return str(ScriptDirectory.from_config(configuration()).get_current_head())


def revision_of(connection: Connection) -> str | None:
    """Return the database's revision, or None before the first upgrade."""
    return MigrationContext.configure(connection).get_current_revision()


def configuration(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration, working on `connection`."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _refuse_foreign_tables(connection: Connection) -> None:
    if revision_of(connection) is None and inspect(connection).has_table("brand"):
        raise SettingsError("The database has tables but no revision, so nobody can say what they lack; start with an empty database.")
