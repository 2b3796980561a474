"""Running commands as a person at a terminal does."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distmark.cli import app
from distmark.console import guarded
from distmark.db import Database, get_database
from distmark.settings import get_settings


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def run(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run the command line on this test's database, as its entry point does."""
    monkeypatch.setenv("DISTMARK_DATABASE_URL", db.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("DISTMARK_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ran:
        for cached in (get_settings, get_database):
            cached.cache_clear()
        try:
            code = guarded(lambda: app([str(each) for each in arguments]))
        except SystemExit as stop:
            code = int(stop.code or 0)
        told = capsys.readouterr()
        if get_database.cache_info().currsize:
            get_database().close()
        return Ran(code, told.out, told.err)

    yield run
    for cached in (get_settings, get_database):
        cached.cache_clear()
