"""Readiness: whether this installation can do its work now, found by doing a little of it."""

import os
import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy import text

from distmark.db import Database
from distmark.operations.table import WriteProbe
from distmark.sql import insert_into

ONLY_ROW = 1
PROBE_BYTES = 65_536  # SQLite's log has room for one row even when the disk has none for a message


def readiness(db: Database, data_dir: Path, now: datetime) -> dict[str, str]:
    """Return each part with "ok", or with the kind of error it gave: `database` is read, `writes` writes a row, `data_folder` a file."""
    parts: dict[str, Callable[[], None]] = {
        "database": lambda: _read(db),
        "writes": lambda: write_row(db, now),
        "data_folder": lambda: write_and_remove(data_dir),
    }
    return {name: _answer(probe) for name, probe in parts.items()}


def write_and_remove(folder: Path) -> None:
    """Write a small file in the folder and remove it. Errors: OSError, as on a full disk."""
    path = folder / f".probe-{secrets.token_hex(4)}"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(bytes(PROBE_BYTES))
    finally:
        path.unlink(missing_ok=True)


def _read(db: Database) -> None:
    with db.reading() as session:
        session.execute(text("SELECT 1"))


def write_row(db: Database, now: datetime) -> None:
    """Write a row. Errors: those of the database, as on a full disk or a replica that only reads."""
    with db.writing() as session:
        written = insert_into(session, WriteProbe).values(id=ONLY_ROW, at=now)
        session.execute(written.on_conflict_do_update(index_elements=["id"], set_={"at": now}))


def _answer(probe: Callable[[], None]) -> str:
    try:
        probe()
    except Exception as error:  # every error means the same to whoever asks: not now
        return type(error).__name__
    return "ok"
