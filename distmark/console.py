"""The output of the command line: tables and progress for people, JSON for scripts, one clear line on stderr for errors."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import OperationalError, ProgrammingError

from distmark.errors import DistmarkError
from distmark.machine.parts import PartStatus
from distmark.machine.prefect import AUTH_FILE, prefect_auth
from distmark.machine.private import read_secret
from distmark.machine.state import is_running, read_state
from distmark.settings import Mode, Settings

WIDTH_IN_FILES = 140  # where no terminal says how wide it is


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH_IN_FILES
    return console


out = _console()
err = _console(stderr=True)

STATE_STYLE = {
    "starting": "yellow",
    "ready": "green",
    "ended": "bold red",
    "hung": "bold red",
    "failing": "bold red",
    "restarting": "yellow",
    "stopping": "yellow",
    "stopped": "dim",
}
PART_TITLE = {
    "data": "Tables and data",
    "registration": "Registration with Prefect",
    "server": "Prefect server",
    "catcher": "Mailbox (SMTP)",
    "web": "Web",
    "worker": "Journey worker",
    "leftovers": "Processes left over",
    "supervision": "Supervision",
}


def print_json(content: Any) -> None:
    """Print one JSON document on one line, in its own letters."""
    sys.stdout.write(json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=str) + "\n")
    sys.stdout.flush()


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], title: str = "", numbers: bool = False) -> Table:
    """Return a table for people. With `numbers` every column but the first is right-aligned."""
    made = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        made.add_column(heading, justify="right" if numbers and place else "left")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return made


def show(rows: Sequence[Mapping[str, Any]], headings: Mapping[str, str], *, as_json: bool, nothing: str) -> None:
    """Print rows: as JSON, one object a line, or as a table of the columns in `headings` (field -> heading)."""
    if as_json:
        for row in rows:
            print_json(row)
    elif rows:
        out.print(table(list(headings.values()), [[_plain(row[name]) for name in headings] for row in rows]))
    else:
        out.print(nothing)


def _plain(value: object) -> str:
    return "–" if value in (None, "") else str(value)


def status_line(status: PartStatus) -> str:
    """Return news of a process as one line."""
    return f"{PART_TITLE.get(status.part, status.part)}: {status.state}" + (f" ({status.detail})" if status.detail else "")


def addresses(settings: Settings) -> Table:
    """Return the table of the addresses at which an installation is reached."""
    web = f"http://{settings.host}:{settings.port}"
    rows = [("Web", web), ("Prefect dashboard", settings.dashboard_url), ("Dashboard sign-in", _dashboard_sign_in(settings))]
    if settings.mode is not Mode.production:
        rows += [("Mailbox", f"{web}/mailbox"), ("SMTP", f"{settings.smtp_host}:{settings.smtp_port}")]
    return table(("What", "Where"), rows)


def _dashboard_sign_in(settings: Settings) -> str:
    """Return the sign-in of the dashboard, without the operator's own password."""
    made = read_secret(settings.data_dir / AUTH_FILE)
    return made if made == prefect_auth(settings) else "the one of DISTMARK_PREFECT_AUTH"


class Board:
    """The state of the processes: a live picture on a terminal, one line per change elsewhere. Use as a context manager."""

    def __init__(self, console: Console = err) -> None:
        self.console = console
        self._statuses: dict[str, PartStatus] = {}
        self._note = ""
        self._lock = threading.Lock()
        self._live = (
            Live(console=console, refresh_per_second=8, transient=False, get_renderable=self._picture) if console.is_terminal else None
        )

    def __enter__(self) -> "Board":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show_status(self, status: PartStatus) -> None:
        """Show the state of a process."""
        with self._lock:
            self._statuses[status.part] = status
        if self._live is None:
            self.console.print(status_line(status), style=None)

    def note(self, text: str, *, keep: bool = False) -> None:
        """Show what is going on as a whole; where there is no live picture only what is to be kept is printed."""
        with self._lock:
            self._note = text
        if self._live is None and keep:
            self.console.print(text)

    def _picture(self) -> Table:
        with self._lock:
            statuses, note = list(self._statuses.values()), self._note
        grid = Table.grid(padding=(0, 2))
        for each in statuses:
            grid.add_row(
                Text(PART_TITLE.get(each.part, each.part)),
                Text(each.state, style=STATE_STYLE.get(each.state, "")),
                Text(each.detail, "dim"),
            )
        if note:
            grid.add_row(Text(note), "", "")
        return grid


def use_running_machine(data_dir: Path) -> None:
    """Settings that nobody gave are those of the machine that runs on this data folder, so that a second terminal sees the same."""
    if is_running(data_dir):
        for name, value in read_state(data_dir).get("environment", {}).items():
            os.environ.setdefault(name, value)


def guarded(run: Callable[[], None]) -> int:
    """Run a command and return its exit code: 1 and one line on stderr for what a person can mend."""
    try:
        run()
    except DistmarkError as error:
        return fail(str(error))
    except ValidationError as error:
        return fail("; ".join(_setting(problem) for problem in error.errors()))
    except (OperationalError, ProgrammingError) as error:
        return fail(_database_trouble(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def fail(message: str) -> int:
    """Print the error on stderr and return the exit code of failure."""
    err.print(Text.assemble(("Error: ", "bold red"), message))
    return 1


def _setting(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    name = f"The setting DISTMARK_{place.upper()} cannot be used: " if place else ""
    return f"{name}{problem['msg'].removeprefix('Value error, ')}"


def _database_trouble(error: Exception) -> str:
    words = str(getattr(error, "orig", error)).strip().splitlines()[0]
    missing = "no such table" in words or "does not exist" in words
    mend = "run `distmark init` to make or update its tables" if missing else "check DISTMARK_DATABASE_URL and that the server runs"
    return f"The database cannot be used ({words}): {mend}."
