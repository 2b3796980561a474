"""Secrets and files of the data folder: private from their first byte, whole, and the same for every process."""

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from distmark.machine import private
from distmark.machine.private import ensure_file, ensure_folder, is_private, keep_secret, write_file
from distmark.settings import Settings
from distmark.web.visit import secret_of


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "a.key"

    assert keep_secret(path) == keep_secret(path) == path.read_text()
    assert (mode_of(path), mode_of(path.parent)) == (0o600, 0o700)
    assert [each.name for each in path.parent.iterdir()] == ["a.key"]


def test_processes_that_make_a_secret_at_once_get_the_same(tmp_path: Path) -> None:
    numbers = count()
    with ThreadPoolExecutor(16) as threads:
        made = list(threads.map(lambda _: keep_secret(tmp_path / "a.key", lambda: f"secret-{next(numbers)}"), range(64)))

    assert len(set(made)) == 1


def test_a_secret_that_a_power_cut_left_empty_is_made_again(tmp_path: Path) -> None:
    """Signing with an empty key would let anybody sign in."""
    (tmp_path / "secret.key").touch()

    made = secret_of(Settings(_env_file=None, data_dir=tmp_path))

    assert len(made) > 40
    assert secret_of(Settings(_env_file=None, data_dir=tmp_path)) == made


def test_a_full_disk_leaves_no_half_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(private, "write_file", full)
        with pytest.raises(OSError, match="No space left"):
            keep_secret(tmp_path / "a.key")

    assert not (tmp_path / "a.key").exists()
    assert len(keep_secret(tmp_path / "a.key")) > 40


def test_a_secret_is_kept_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)

    assert keep_secret(tmp_path / "a.key") == keep_secret(tmp_path / "a.key")


def test_what_exists_keeps_its_mode_and_content(tmp_path: Path) -> None:
    file = tmp_path / "open"
    file.write_text("content")
    file.chmod(0o640)
    ensure_file(file)
    ensure_folder(tmp_path)

    assert (file.read_text(), mode_of(file), is_private(file)) == ("content", 0o640, False)


def test_a_file_is_written_whole_and_private(tmp_path: Path) -> None:
    write_file(tmp_path / "state.json", "one")
    write_file(tmp_path / "state.json", "two")

    assert (tmp_path / "state.json").read_text() == "two"
    assert is_private(tmp_path / "state.json")
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]
