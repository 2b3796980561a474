"""The lock of a work queue: one worker process owns the queue at a time. Claims that a new owner finds are those of dead workers."""

import fcntl
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from distmark.db import Database


class QueueLock:
    """A lock that the operating system (SQLite) or the database (Postgres) releases when the process dies, however it dies."""

    def __init__(self, db: Database, queue: str, data_dir: Path) -> None:
        self._db, self._queue = db, queue
        self._path = data_dir / f"queue-{queue}.lock"
        self._file: IO[str] | None = None
        self._connection: Connection | None = None

    def acquire(self) -> bool:
        """Acquire the lock if it is free, and say whether this process holds it now."""
        return self._acquire_file() if self._db.is_sqlite else self._acquire_advisory()

    def is_held(self) -> bool:
        """Say whether this process still holds the lock. A database that restarted has released it."""
        if self._connection is None:
            return self._file is not None
        try:
            self._connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return False
        return True

    def release(self) -> None:
        """Release the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _acquire_file(self) -> bool:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = self._path.open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            return False
        self._file = handle
        return True

    def _acquire_advisory(self) -> bool:
        connection = self._db.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        name = {"name": f"distmark-queue:{self._queue}"}
        try:
            taken = connection.execute(text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))"), name).scalar_one()
        except SQLAlchemyError:
            connection.invalidate()
            raise
        if not taken:
            connection.close()
            return False
        self._connection = connection
        return True
