"""The texts of pages in Japanese and English, the forms of dates and numbers, and readable colours."""

import ast
import re
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from distmark import enrollments as a_room
from distmark.campaigns.table import CampaignStatus, MemberStatus
from distmark.engagement.model import EventKind
from distmark.enrollments.model import EnrollmentStatus
from distmark.entries.model import EnrolVerdict
from distmark.journeys.outcomes import Outcome
from distmark.journeys.table import VersionStatus
from distmark.messages.model import MessageStatus
from distmark.partners.model import Role
from distmark.web import brand, i18n
from distmark.web import labels as tables
from distmark.web.error_translations import in_japanese, japanese_errors
from distmark.web.i18n import Translator

TOKYO = ZoneInfo("Asia/Tokyo")
ROOMS = Path(a_room.__file__).parent.parent
REACHED = ("campaigns", "compliance", "contacts", "enrollments", "messages", "metrics", "partners", "rehearsals", "web")
KINDS = {"Refused", "InvalidInput", "NotAllowed", "PrefectUnreachable"}


@pytest.mark.parametrize("language", i18n.LANGUAGES)
def test_every_string_in_templates_and_code_is_translated(language: str):
    words = i18n.translations(language)

    missing = []
    for message in i18n.extracted():
        if message.id:
            found = words.catalogue.get(message.id if isinstance(message.id, str) else message.id[0])
            strings = (found.string,) if found is not None and isinstance(found.string, str) else (found.string if found else ())
            if not strings or not all(strings):
                missing.append(message.id)

    assert missing == [], "run python -m distmark.web.i18n and translate these"


@pytest.mark.parametrize("language", i18n.LANGUAGES)
def test_every_translation_has_the_places_of_its_original(language: str):
    for message in i18n.translations(language).catalogue:
        ids = [message.id] if isinstance(message.id, str) else list(message.id)
        places = set(re.findall(r"%\((\w+)\)s", ids[-1]))
        for string in [message.string] if isinstance(message.string, str) else message.string:
            if message.id and string:
                assert set(re.findall(r"%\((\w+)\)s", string)) == places, message.id


def test_no_template_holds_words_outside_a_translation():
    templates = Path(i18n.HERE) / "templates"
    for path in templates.rglob("*.html"):
        text = re.sub(
            r"{%-? *trans\b.*?endtrans *-?%}|{{.*?}}|{%.*?%}|{#.*?#}|<[^>]*>", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL
        )
        words = set(re.findall(r"[A-Za-z]{3,}", text)) - {"journey", "yaml", "doctype", "html"}
        assert not words, f"{path.name}: {sorted(words)}"


def raised() -> list[str]:
    """Return the text of every error of the rooms that pages call; {} stands for a filled-in value."""
    found = []
    for room in REACHED:
        for path in (ROOMS / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS and node.args:
                    found += _text(node.args[0])
    return sorted(set(found))


def _text(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)]
    return []


@pytest.mark.parametrize("text", raised())
def test_every_refusal_exists_in_japanese(text: str):
    assert text in japanese_errors(), "add it to locale/ja/LC_MESSAGES/errors.po"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (Role, tables.ROLE),
        (CampaignStatus, tables.CAMPAIGN),
        (MemberStatus, tables.MEMBER),
        (VersionStatus, tables.VERSION),
        (EnrollmentStatus, tables.ENROLLMENT),
        (EnrolVerdict, tables.VERDICT),
        (Outcome, tables.OUTCOME),
        (MessageStatus, tables.MESSAGE),
        (EventKind, tables.EVENT),
    ],
)
def test_every_value_of_a_closed_set_has_words(values: type[StrEnum], words: dict[str, object]):
    assert set(values) <= set(words)


def test_refusal_keeps_what_was_filled_in():
    translated = in_japanese("The text is 320 characters long; at most 300 fit here. Shorten it by 20.")

    assert translated == "320 字あります。ここに入るのは 300 字までです。20 字減らしてください。"


def test_unknown_refusal_is_shown_as_it_is():
    assert in_japanese("Something new.") == "Something new."


TUESDAY = datetime(2026, 11, 24, 0, 30, tzinfo=UTC)  # 09:30 in Tokyo


@pytest.mark.parametrize(
    ("language", "written"),
    [("ja", "2026年11月24日（火）09:30（日本標準時）"), ("en", "Tue 24 Nov 2026 09:30 (Japan Standard Time)")],
)
def test_time_names_its_zone(language: str, written: str):
    assert Translator(language, TOKYO).when(TUESDAY) == written


@pytest.mark.parametrize(
    ("language", "at", "written"),
    [
        ("ja", TUESDAY, "11/24 09:30"),
        ("en", TUESDAY, "24 Nov, 09:30"),
        ("ja", datetime(2025, 12, 31, 15, 0, tzinfo=UTC), "1/1 00:00"),  # midnight in Tokyo is this year already
        ("ja", datetime(2025, 12, 31, 14, 59, tzinfo=UTC), "2025/12/31 23:59"),
        ("en", datetime(2025, 12, 31, 14, 59, tzinfo=UTC), "31 Dec 2025, 23:59"),
    ],
)
def test_short_time_shows_the_year_only_when_it_is_not_this_years(language: str, at: datetime, written: str):
    assert Translator(language, TOKYO).short(at, TUESDAY) == written


def test_day_and_numbers_are_written_as_the_language_writes_them():
    ja, en = Translator("ja", TOKYO), Translator("en", TOKYO)

    assert ja.day(date(2026, 11, 21)) == "2026年11月21日（土）"
    assert en.day(date(2026, 11, 21)) == "Sat 21 Nov 2026"
    assert ja.number(2184) == en.number(2184) == "2,184"
    assert ja.percent(0.1182) == "11.8 %"
    assert ja.percent(None) == "–"


@pytest.mark.parametrize(
    ("n", "ja", "en"),
    [(1, "1件の作業が期限を過ぎています。", "1 task is late."), (3, "3件の作業が期限を過ぎています。", "3 tasks are late.")],
)
def test_counts_take_the_plural_of_their_language(n: int, ja: str, en: str):
    assert Translator("ja", TOKYO).ngettext("%(n)s task is late.", "%(n)s tasks are late.", n) == ja
    assert Translator("en", TOKYO).ngettext("%(n)s task is late.", "%(n)s tasks are late.", n) == en


@pytest.mark.parametrize("colour", ["#0b6e69", "#ffd400", "#111111", "#ff0000", "#ffffff", "#7fffd4"])
def test_any_brand_colour_stays_readable_in_light_and_dark(colour: str):
    light, dark = (dict(re.findall(r"--([\w-]+):(#\w{6})", part)) for part in brand.stylesheet({"brand": colour}).split("@media"))

    for tokens, paper in ((light, brand.LIGHT_PAPER), (dark, brand.DARK_PAPER)):
        assert brand.contrast(tokens["brand"], paper) >= 4.5
        assert brand.contrast(tokens["on-brand"], tokens["brand"]) >= 4.5
        assert brand.contrast(tokens["brand-ink"], tokens["brand-soft"]) >= 4.5


@pytest.mark.parametrize("value", ["red", "#fff", "#0b6e69;}body{display:none}", "url(https://evil.example)", None, 7])
def test_anything_but_a_hex_colour_is_ignored(value: object):
    assert brand.stylesheet({"brand": value}) == brand.stylesheet({})
