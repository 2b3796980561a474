"""The database of an installation, made ready before its processes start."""

from pathlib import Path

from sqlalchemy import make_url

from distmark.machine.private import ensure_file, ensure_folder
from distmark.migrations import upgrade
from distmark.settings import Settings


def prepare_database(settings: Settings) -> tuple[int, ...]:
    """Bring every table to its newest revision; return no journey version, since none waits for its deployment."""
    ensure_folder(settings.data_dir)
    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and url.database:
        ensure_file(Path(url.database))  # SQLite gives the files beside it the same mode
    upgrade(settings.database)
    return ()
