"""Facts about the repository itself: what every commit must keep true."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distmark.cli import app
from distmark.demo.brands import BRANDS
from distmark.journeys.checks.run import check
from distmark.journeys.definition import parse
from distmark.journeys.source import load_source, scan
from distmark.settings import ROOT, Settings

JOURNEYS = scan(ROOT / "journey_defs")
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".lock", ".mjml", ".html", ".css", ".js", ".po", ".cfg", ".ini", ".sh", ""}
# Where a lock file or a script would give away, or depend on, the place it was written at.
PLACES = re.compile(
    r"https?://[^\s\"']*/simple\b|pypi\.org|--index-url|--find-links|--extra-index|file:///(?:home|root|opt|work|Users)|(?<![\w.])/(?:home|Users|root|work)/\w"
)
PINNED = re.compile(r"[a-z0-9][a-z0-9._-]*==[^\s;]+(?: ; .+)?")


def committed() -> list[Path]:
    told = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if told.returncode:
        pytest.skip("Not a git checkout.")
    return [ROOT / name for name in told.stdout.decode().split("\0") if name]


def text_files() -> list[Path]:
    return [path for path in committed() if path.suffix in TEXT_SUFFIXES and path.is_file() and "vendor" not in path.parts]


@pytest.mark.parametrize("folder", JOURNEYS, ids=lambda folder: folder.name)
def test_every_journey_is_without_a_finding(folder: Path) -> None:
    assert [finding.line_of_text() for finding in check(load_source(folder))] == []


@pytest.mark.parametrize("folder", JOURNEYS, ids=lambda folder: folder.name)
def test_every_journey_is_named_like_its_folder_and_speaks_both_languages(folder: Path) -> None:
    definition = parse(load_source(folder))

    assert definition.key == folder.name
    assert set(definition.languages) == {"ja", "en"}


def test_the_demo_offers_every_journey() -> None:
    assert {brand.journey for brand in BRANDS} == {folder.name for folder in JOURNEYS}
    assert {brand.key for brand in BRANDS} == {parse(load_source(folder)).brand for folder in JOURNEYS}


def test_no_brand_looks_like_another() -> None:
    assert len({brand.colour for brand in BRANDS}) == len(BRANDS)


def test_no_committed_file_names_a_package_index_or_a_place_on_a_machine() -> None:
    told = []
    for path in text_files():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if PLACES.search(line) and path != Path(__file__):
                told.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")

    assert told == []


def test_the_lock_holds_nothing_but_names_versions_and_markers() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()

    assert [line for line in lines if not PINNED.fullmatch(line)] == []


def test_the_lock_pins_whatever_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {line.partition("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]

    names = {re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-").replace(".", "-") for requirement in asked}

    assert names - pinned == set()


def test_nothing_that_a_run_leaves_behind_is_committed() -> None:
    left = [
        path
        for path in committed()
        if {".distmark", ".venv", "__pycache__"} & set(path.parts) or path.suffix in (".sqlite3", ".db", ".log")
    ]

    assert left == []


def test_every_setting_is_explained_where_it_stands() -> None:
    source = (ROOT / "distmark" / "settings.py").read_text()
    plain = {"host", "port", "secure_cookies", "smtp_host", "smtp_port", "smtp_username", "smtp_password", "smtp_timeout_seconds"}
    plain |= {"mode", "data_dir", "journey_defs_dir", "work_pool", "system_pool", "work_queue", "prefect_api_url", "results_every_seconds"}
    plain |= {"smtp_connections", "mail_from", "clock_speed", "clock_wall_origin", "clock_origin"}

    silent = [name for name in Settings.model_fields if not re.search(rf"^    {name}: .*#", source, re.MULTILINE)]

    assert set(silent) - plain == set()


def commands() -> list[list[str]]:
    found: list[list[str]] = []
    for group in app.registered_groups:
        inner = group.typer_instance
        assert inner is not None
        found += [
            [str(group.name), str(each.name or each.callback.__name__.rstrip("_"))] for each in inner.registered_commands if each.callback
        ]
    return found + [[str(each.name)] for each in app.registered_commands]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_shows_an_example_of_itself(command: list[str]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"], terminal_width=200)

    assert shown.exit_code == 0
    assert f"Example: distmark {' '.join(command)}" in re.sub(r"\s+", " ", shown.output)


@pytest.mark.parametrize("target", ["demo", "test", "check", "bench", "lock", "clean"])
def test_make_knows_every_command_of_the_readme(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_gate_calls_check_tests_and_the_demo() -> None:
    gate = (ROOT / ".ci" / "run").read_text()

    calls = [line.split(maxsplit=2)[2] for line in gate.splitlines() if line.startswith("part ")]
    assert calls == ["make install packages", "make check", ".venv/bin/python .ci/gate.py", "make demo ONCE=1"]


def test_no_test_file_imports_another_test_file() -> None:
    imports = re.compile(
        r"^\s*(?:from tests\.(?:\w+\.)*test_\w+ import|from tests[.\w]* import test_|import tests\.(?:\w+\.)*test_)", re.MULTILINE
    )

    assert [path.name for path in (ROOT / "tests").rglob("*.py") if imports.search(path.read_text(encoding="utf-8"))] == []
