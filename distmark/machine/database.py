"""The database of an installation, made ready before its processes start."""

from distmark.migrations import upgrade
from distmark.settings import Settings


def prepare_database(settings: Settings) -> tuple[int, ...]:
    """Bring every table to its newest revision; return no journey version, since none waits for its deployment."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database)
    return ()
