"""Write the next revision: what the models have that the migrations do not make yet. Usage: python -m distmark.migrations TEXT."""

import sys
import tempfile
from pathlib import Path

from alembic import command

from distmark.db import Database
from distmark.migrations import FOLDER, configuration, upgrade


def write_revision(message: str) -> None:
    """Write a file in `versions/` that brings a database from the newest revision to the models; read it before you keep it."""
    number = len(list((FOLDER / "versions").glob("[0-9]*.py"))) + 1
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'newest.sqlite3'}"
        if number > 1:
            upgrade(url)
        database = Database(url)
        with database.engine.begin() as connection:
            config = configuration(connection)
            config.attributes["batch"] = number > 1
            command.revision(config, message, autogenerate=True, rev_id=f"{number:04d}")
        database.close()


if __name__ == "__main__":
    write_revision(" ".join(sys.argv[1:]) or "Change the schema")
