"""The glossary against the code and the pages: every word exists, is translated as on the pages, and no retired synonym names anything."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

from distmark.web.i18n import CATALOGUE, LOCALE_DIR

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("distmark", "flows", "deployments")
WORDS, RETIRED = re.split(r"^## Words we do not use$", (ROOT / "distmark" / "GLOSSARY.md").read_text(encoding="utf-8"), flags=re.MULTILINE)


def _rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


TERMS = _rows(WORDS)
SYNONYMS = _rows(RETIRED)


def names_in(source: str) -> Iterator[str]:
    """Yield the names of the classes and functions that `source` defines, in snake case, without leading underscores."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", node.name.strip("_")).lower()


def is_named_by(name: str, synonym: str) -> bool:
    """Return whether `name` is the synonym, or begins with it as a whole word."""
    return name == synonym or name.startswith(synonym + "_")


def _named_things() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            where = str(path.relative_to(ROOT))
            if "migrations/versions" in where:
                continue
            yield where, path.stem
            for name in names_in(path.read_text(encoding="utf-8")):
                yield where, name


@pytest.mark.parametrize("row", TERMS, ids=lambda row: row[0])
def test_every_word_of_the_glossary_exists_in_code(row: list[str]) -> None:
    place = row[3].strip("`")
    module, _, symbol = place.rpartition(".")

    assert hasattr(importlib.import_module(module), symbol) or importlib.import_module(place)


def test_every_word_is_written_as_on_the_pages() -> None:
    with (LOCALE_DIR / "ja" / CATALOGUE).open("rb") as file:
        catalogue = read_po(file)
    wrong = [
        f"{word}: pages say {(message.string if message else None)!r}"
        for word, japanese, shown, *_ in TERMS
        if shown and ((message := catalogue.get(shown)) is None or str(message.string).replace(" %(id)s", "") != japanese)
    ]

    assert wrong == []


def test_every_line_of_the_glossary_is_whole_and_once() -> None:
    words = [row[0] for row in TERMS]

    assert len(words) == len(set(words))
    assert all(len(row) == 5 and row[0] and row[3] and row[4].endswith(".") for row in TERMS)
    assert all(bool(row[1]) == bool(row[2]) for row in TERMS)


def test_no_retired_synonym_names_a_module_class_or_function() -> None:
    found = [
        f"{where}: {name} (say: {instead})"
        for where, name in _named_things()
        for synonym, instead in SYNONYMS
        if is_named_by(name, synonym)
    ]

    assert found == []


@pytest.mark.parametrize(
    ("name", "synonym", "named"), [("door", "door", True), ("door_of", "door", True), ("indoor", "door", False), ("doors", "door", False)]
)
def test_synonym_is_found_as_a_whole_word_at_the_start(name: str, synonym: str, named: bool) -> None:
    assert is_named_by(name, synonym) is named
