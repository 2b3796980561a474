"""Files by which a machine is known to the next start and to other commands: its state, its clock, its lock."""

import fcntl
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from distmark.clock import wall_now
from distmark.machine.private import write_file
from distmark.settings import Settings

STATE_FILE = "machine.json"
CLOCK_FILE = "clock.json"
LOCK_FILE = "machine.lock"
MAILBOX_FILE = "mailbox.sqlite3"
TOKYO = ZoneInfo("Asia/Tokyo")


def read_state(data_dir: Path) -> dict[str, Any]:
    """Return what the machine of this folder wrote down last; empty when it never ran."""
    return read_json(data_dir / STATE_FILE)


def is_running(data_dir: Path) -> bool:
    """Return whether the machine of this folder runs."""
    path = data_dir / LOCK_FILE
    if not path.exists():
        return False
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def resume_time(data_dir: Path) -> datetime:
    """Return where virtual time goes on: where it was, or 10:00 in Tokyo on the next weekday."""
    before = read_json(data_dir / CLOCK_FILE).get("virtual")
    if before:
        return datetime.fromisoformat(before)
    tomorrow = wall_now().astimezone(TOKYO).replace(hour=10, minute=0, second=0, microsecond=0) + timedelta(days=1)
    while tomorrow.weekday() > 4:
        tomorrow += timedelta(days=1)
    return tomorrow.astimezone(UTC)


def as_environment(settings: Settings, *, secrets: bool = True) -> dict[str, str]:
    """Return the settings as environment variables that give the same settings again."""
    values: dict[str, str] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        hidden = isinstance(value, SecretStr) or _has_password(value)
        if value is not None and (secrets or not hidden):
            values[f"DISTMARK_{name.upper()}"] = _as_text(value)
    return values


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _has_password(value: object) -> bool:
    return isinstance(value, str) and "://" in value and bool(urlsplit(value).password)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; empty when there is none, or when a power cut left half of one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to the file, whole: a reader sees the old or the new content."""
    write_file(path, json.dumps(content, ensure_ascii=False, indent=1))
