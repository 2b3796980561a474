"""A Postgres server for one test session: its own folder, a Unix socket and no port, gone when the session ends."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from sqlalchemy import text

from distmark.db import Database
from tests.waiting import wait_until

START_SECONDS = 60
CHEAP = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "max_connections=100")
# Far cheaper than TRUNCATE, which makes new files for every table that refers to an emptied one. Without the role, foreign keys would
# ask for an order.
EMPTY = """
DO $$
DECLARE it record;
BEGIN
  PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
  SET LOCAL session_replication_role = replica;
  FOR it IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
    EXECUTE format('DELETE FROM %I', it.tablename);
  END LOOP;
  FOR it IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL LOOP
    EXECUTE format('ALTER SEQUENCE %I RESTART', it.sequencename);
  END LOOP;
END $$
"""
BLOCKED = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')
"""


class NoPostgres(Exception):
    """This machine has no Postgres server programs."""


class PostgresServer:
    """A running server; `url(name)` is the SQLAlchemy address of one of its databases."""

    def __init__(self, settings: Sequence[str] = CHEAP) -> None:
        self.settings = settings
        self.bin = _find_programs()
        self.user = _unprivileged_user()
        self.folder = Path(tempfile.mkdtemp(prefix="distmark-pg-", dir="/tmp"))
        self.process: subprocess.Popen[bytes] | None = None
        self._made = 0

    def start(self) -> None:
        """Make a cluster and wait until the server answers."""
        if self.user:
            shutil.chown(self.folder, self.user)
        self._run("initdb", "-D", self.folder / "data", "-U", "distmark", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        self.start_again()

    def start_again(self) -> None:
        """Run the server on its cluster, at the address it had before, and wait until it answers."""
        options = [part for setting in self.settings for part in ("-c", setting)]
        with (self.folder / "server.log").open("ab") as log:
            # Dies with this process even if that is killed: nothing is left running.
            guard = ["setpriv", "--pdeathsig", "INT", "--"] if shutil.which("setpriv") else []
            command = [*guard, str(self.bin / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder), *options]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._as_user())
        self._wait_until_it_answers()

    def kill(self) -> None:
        """The server and every process it made are killed -9, as when the machine loses its power, but for what the disk holds."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)  # else it makes more while we look
        for pid in _children_of(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait(20)

    def stop(self) -> None:
        """End the server and remove its folder, whatever state it is in."""
        try:
            if self.process and self.process.poll() is None:
                self.process.terminate() if self._answers() is None else self.process.send_signal(2)
                try:
                    self.process.wait(20)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait(20)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://distmark@/{name}?host={self.folder}"

    def create(self) -> str:
        """Make an empty database and return its name."""
        self._made += 1
        name = f"test_{self._made}"
        self.execute("CREATE DATABASE {}", name)
        return name

    def drop(self, name: str) -> None:
        """Remove a database, with whatever is still connected to it."""
        self.execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def empty(self, name: str) -> None:
        """Remove every row and start every id at 1; whoever is still connected is cut off first, since their locks would make us wait."""
        with self._connect(name) as connection:
            connection.execute(EMPTY)

    def execute(self, statement: LiteralString, *names: str) -> None:
        with self._connect() as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _connect(self, name: str = "postgres") -> "psycopg.Connection[Any]":
        return psycopg.connect(host=str(self.folder), user="distmark", dbname=name, autocommit=True)

    def _answers(self) -> str | None:
        try:
            with self._connect():
                return "yes"
        except psycopg.OperationalError:
            return None

    def _wait_until_it_answers(self) -> None:
        assert self.process is not None
        wait_until(lambda: self._answers() or self.process.poll() is not None, START_SECONDS, "The answer of Postgres")
        if self.process.poll() is not None:
            raise RuntimeError(f"Postgres ended as it started: {(self.folder / 'server.log').read_text(errors='replace')}")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self.bin / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False, **self._as_user())
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")

    def _as_user(self) -> dict[str, Any]:
        if not self.user:
            return {}
        account = pwd.getpwnam(self.user)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def wait_until_blocked(db: Database, work: "Future[Any]") -> None:
    """Return as soon as `work` waits for a lock of somebody else, rests before it looks for one again, or is over."""

    def blocked() -> bool:
        with db.reading() as session:
            return bool(session.execute(text(BLOCKED)).scalar_one())

    wait_until(lambda: work.done() or blocked(), what="Waiting for a lock")


def _children_of(pid: int) -> list[int]:
    # Not from `ps`, which a machine with nothing but Python, git and make may not have.
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _unprivileged_user() -> str | None:
    """Return who runs the server: Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return None
    known = {account.pw_name for account in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


def _find_programs() -> Path:
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    if pg_config := shutil.which("pg_config"):
        told = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        candidates.insert(0, Path(told))
    if initdb := shutil.which("initdb"):
        candidates.append(Path(initdb).parent)
    for folder in candidates:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise NoPostgres("No Postgres server programs (initdb, postgres) were found; install the package postgresql to run these tests.")
