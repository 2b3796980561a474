"""Folders and files that only this user may read: the data folder, its database, and the secrets made in it."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600
PRIVATE_UMASK = 0o077  # what a process creates under it is private, whatever mode it asks for


def ensure_folder(path: Path) -> None:
    """Make the folder, readable by its owner only. A folder that exists keeps its mode: the operator may have chosen it."""
    path.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)


def ensure_file(path: Path) -> None:
    """Make an empty file, readable by its owner only. A file that exists keeps its mode and its content."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, FILE_MODE))


def write_file(path: Path, text: str) -> None:
    """Write the file whole, readable by its owner only: a reader sees the old or the new content."""
    fresh = path.with_name(f"{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def keep_secret(path: Path, make: Callable[[], str] = lambda: secrets.token_urlsafe(48)) -> str:
    """Return the secret in the file; made once, and readable by its owner only."""
    if not (known := read_secret(path)):
        ensure_folder(path.parent)
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        write_file(fresh, make())
        try:
            os.link(fresh, path)  # whole at once, and never over another process's secret
        except FileExistsError:
            if not read_secret(path):  # a power cut left an empty one
                fresh.replace(path)
        except OSError:  # a file system without hard links
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
        known = read_secret(path)
    return known


def read_secret(path: Path) -> str:
    """Return the secret in the file, "" when there is none."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def is_private(path: Path) -> bool:
    """Return whether nobody but the owner may read or write the path; True when it does not exist."""
    return not path.exists() or not path.stat().st_mode & PRIVATE_UMASK
