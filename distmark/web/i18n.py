"""Languages: the choice of the reader's language, the translations of messages, and the way a language writes dates and numbers.

Message ids are English. `python -m distmark.web.i18n` updates the catalogues in `locale/` from templates and code.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from gettext import NullTranslations
from pathlib import Path
from zoneinfo import ZoneInfo

import phonenumbers
from babel.dates import format_date, get_timezone_name
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po
from babel.numbers import format_decimal, format_percent

from distmark.contacts.fields import REGION

LANGUAGES = ("ja", "en")
CJK_FROM = "\u2e80"  # letters from here on are East Asian
NAMES = {"ja": "日本語", "en": "English"}
HERE = Path(__file__).parent
LOCALE_DIR = HERE / "locale"
CATALOGUE = "LC_MESSAGES/messages.po"
METHODS = [("**.py", "python"), ("**.html", "jinja2")]
KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "N_": None}


def N_(text: str) -> str:
    """Mark `text` for extraction into the catalogues and return it unchanged; the page that shows it translates it."""
    return text


class Translations(NullTranslations):
    """The translations of one language, read from its .po file without compiling it. A message id without a translation is shown itself."""

    def __init__(self, language: str) -> None:
        super().__init__()
        with (LOCALE_DIR / language / CATALOGUE).open("rb") as file:
            self.catalogue = read_po(file, locale=language)
        self._plural = self.catalogue.plural_expr
        self._texts = {m.id if isinstance(m.id, str) else m.id[0]: m.string for m in self.catalogue if m.id and not m.fuzzy}

    def gettext(self, message: str) -> str:
        found = self._texts.get(message)
        return (found if isinstance(found, str) else next(iter(found or ()), "")) or message

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        found = self._texts.get(msgid1)
        if not isinstance(found, tuple | list) or not all(found):
            return msgid1 if n == 1 else msgid2
        return found[0] if len(found) == 1 or n == 1 else found[1]


@cache
def translations(language: str) -> Translations:
    """Return the translations of `language`, read once per process."""
    return Translations(language)


def choose_language(*, user: str | None, cookie: str | None, accept: str) -> str:
    """Return the language of the signed-in person, else of the cookie, else the best of Accept-Language, else Japanese."""
    for wanted in (user, cookie, *_accepted(accept)):
        if wanted in LANGUAGES:
            return wanted
    return LANGUAGES[0]


def _accepted(header: str) -> Iterable[str]:
    ranked = []
    for place, part in enumerate(header.split(",")[:20]):
        tag, _, quality = part.strip().partition(";q=")
        ranked.append((-_quality(quality), place, tag.split("-")[0].lower()))
    return [tag for worth, _, tag in sorted(ranked) if worth < 0]


def _quality(text: str) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 0.0


@dataclass(frozen=True, slots=True)
class Translator:
    """The language and time zone of a reader: translates messages, and writes dates, times and numbers."""

    language: str
    zone: ZoneInfo

    def gettext(self, message: str, **values: object) -> str:
        """Return `message` in this language, with its `%(name)s` placeholders filled in."""
        text = translations(self.language).gettext(message)
        return text % values if values else text

    def ngettext(self, one: str, many: str, n: int, **values: object) -> str:
        """Return the plural form for `n`, with `%(n)s` and the other placeholders filled in."""
        return translations(self.language).ngettext(one, many, n) % {"n": self.number(n), **values}

    def number(self, value: float) -> str:
        return str(format_decimal(value, locale=self.language))

    def percent(self, rate: float | None, digits: int = 1) -> str:
        """Return a rate from 0 to 1 as a percentage; a dash for None."""
        if rate is None:
            return "–"
        pattern = "#,##0." + "0" * digits + " %" if digits else "#,##0 %"
        return str(format_percent(rate, format=pattern, locale=self.language))

    def day(self, on: date) -> str:
        """Return the long form of a day: 2026年11月24日（火） / Tue 24 Nov 2026."""
        if self.language == "ja":
            return f"{on.year}年{on.month}月{on.day}日（{format_date(on, 'EEE', locale='ja')}）"
        return str(format_date(on, "EEE d MMM y", locale="en"))

    def short_day(self, on: date) -> str:
        """Return a day without its year: 11月24日（火） / Tue 24 Nov."""
        if self.language == "ja":
            return f"{on.month}月{on.day}日（{format_date(on, 'EEE', locale='ja')}）"
        return str(format_date(on, "EEE d MMM", locale="en"))

    def when(self, at: datetime, zone: ZoneInfo | None = None) -> str:
        """Return the full form of a time: day, time and the zone's name."""
        local = at.astimezone(zone or self.zone)
        gap = "" if self.language == "ja" else " "
        return f"{self.day(local.date())}{gap}{local:%H:%M}{self._brackets(self.zone_name(at, zone))}"

    def short(self, at: datetime, now: datetime | None = None) -> str:
        """Return the form of a time for tables: 11/24 09:00, with the year when it is not this year's. The page names the zone."""
        local = at.astimezone(self.zone)
        year = f"{local.year}/" if now is not None and now.astimezone(self.zone).year != local.year else ""
        if self.language == "ja":
            return f"{year}{local.month}/{local.day} {local:%H:%M}"
        return f"{local.day} {format_date(local.date(), 'MMM', locale='en')}{' ' + year[:-1] if year else ''}, {local:%H:%M}"

    def zone_name(self, at: datetime, zone: ZoneInfo | None = None) -> str:
        return str(get_timezone_name(at.astimezone(zone or self.zone), "long", locale=self.language))

    def joined(self, *sentences: str) -> str:
        """Return the sentences joined, with a space between them except in Japanese; empty ones are left out."""
        return ("" if self.language == "ja" else " ").join(sentence for sentence in sentences if sentence)

    def named(self, texts_by_language: dict[str, str]) -> str:
        """Return the text in this language from a {"ja": ..., "en": ...} table, else the first text of the table."""
        return texts_by_language.get(self.language) or next((text for text in texts_by_language.values() if text), "")

    def _brackets(self, text: str) -> str:
        return f"（{text}）" if self.language == "ja" else f" ({text})"


def person_name(language: str, last_name: str, first_name: str) -> str:
    """Return a person's name, with 様 to Japanese readers. Its letters decide the order: 鈴木 花子 and Anna Smith, to every reader."""
    family_first = any(letter >= CJK_FROM for letter in last_name + first_name)
    name = " ".join(part for part in ((last_name, first_name) if family_first else (first_name, last_name)) if part)
    return f"{name} 様" if language == "ja" else name


def phone_number(number: str) -> str:
    """Return a number in E.164 as people write it: 090-1234-5678, and one of another country +1 212-555-0100."""
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return number
    own = phonenumbers.region_code_for_number(parsed) == REGION
    form = phonenumbers.PhoneNumberFormat.NATIONAL if own else phonenumbers.PhoneNumberFormat.INTERNATIONAL
    return str(phonenumbers.format_number(parsed, form))


def extracted() -> Catalog:
    """Return every message id in the templates and code of this room."""
    catalogue = Catalog(project="distmark")
    options = {"**.html": {"extensions": "jinja2.ext.i18n", "trimmed": "true", "silent": "false"}}
    for file, line, message, comments, context in extract_from_dir(HERE, METHODS, options, keywords=KEYWORDS):
        catalogue.add(message, None, [(file, line)], auto_comments=comments, context=context)
    return catalogue


def update() -> None:
    """Update both catalogues: new message ids are added (in English with their own text as translation), unused ones are dropped."""
    wanted = extracted()
    for language in LANGUAGES:
        path = LOCALE_DIR / language / CATALOGUE
        path.parent.mkdir(parents=True, exist_ok=True)
        old = read_po(path.open("rb"), locale=language) if path.exists() else Catalog(locale=language)
        new = Catalog(locale=language, project="distmark", fuzzy=False, creation_date=old.creation_date)  # the same messages, the same file
        for message in sorted(wanted, key=lambda m: str(m.id)):
            if message.id:
                kept = old.get(message.id if isinstance(message.id, str) else message.id[0])
                string = kept.string if kept is not None and kept.string else (message.id if language == "en" else None)
                new.add(message.id, string, flags=message.flags - {"fuzzy"})
        with path.open("wb") as file:
            write_po(file, new, omit_header=False, width=120, sort_output=True, ignore_obsolete=True)


if __name__ == "__main__":
    update()
