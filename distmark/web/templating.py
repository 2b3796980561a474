"""The template environments of our pages, one per language, with their filters and globals."""

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from distmark.metrics.definitions import define
from distmark.partners.translations import translated
from distmark.web import i18n
from distmark.web.i18n import Translator
from distmark.web.icons import icon
from distmark.web.labels import TABLES, Label

TEMPLATES = Path(__file__).parent / "templates"


def environments() -> dict[str, Environment]:
    """Return the template environment of each language."""
    return {language: _environment(language) for language in i18n.LANGUAGES}


def _environment(language: str) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["ext.i18n.trimmed"] = True
    translations = i18n.translations(language)
    environment.install_gettext_translations(translations, newstyle=True)  # type: ignore[attr-defined]  # added by the extension
    environment.filters |= {
        "when": when,
        "short": short,
        "day": day,
        "number": number,
        "percent": percent,
        "named": named,
        "called": called,
        "person": person,
        "phone": phone,
    }
    environment.globals |= {
        "icon": icon,
        "definition": define,
        "language_names": i18n.NAMES,
        "chip": _chip_maker(translations),
        "gap": "" if language == "ja" else " ",
        **TABLES,
    }
    return environment


def _chip_maker(translations: i18n.Translations) -> Callable[[Label], Markup]:
    # A global, not a macro: a block that is rendered alone does not see the imports of its template.
    def chip(label: Label) -> Markup:
        """Return the label as a chip."""
        return Markup('<span class="chip{}">{}</span>').format(f" {label.chip}" if label.chip else "", translations.gettext(label.text))

    return chip


@pass_context
def when(context: Context, at: datetime | None) -> Markup:
    """Return the full form of a time, with its zone, as a <time> element."""
    return _time(at, _translator(context).when(at)) if at else Markup("–")


@pass_context
def short(context: Context, at: datetime | None) -> Markup:
    """Return a time in the form for tables; the full form is its title."""
    return _time(at, _translator(context).short(at, context["now"]), _translator(context).when(at)) if at else Markup("–")


@pass_context
def day(context: Context, on: date | None) -> str:
    return _translator(context).day(on) if on else "–"


@pass_context
def number(context: Context, value: float | None) -> str:
    return "–" if value is None else _translator(context).number(value)


@pass_context
def percent(context: Context, rate: float | None, digits: int = 1) -> str:
    return _translator(context).percent(rate, digits)


@pass_context
def named(context: Context, table: dict[str, str]) -> str:
    """Return the text in the reader's language from a {"ja": ..., "en": ...} table."""
    return _translator(context).named(table)


@pass_context
def called(context: Context, row: Any) -> str:
    """Return the name of a brand, partner or campaign in the reader's language, else as it was written."""
    return translated(row, "name", context["lang"])


@pass_context
def person(context: Context, contact: Any) -> str:
    """Return a contact's name as the reader's language orders it; without a name, the mail address, else the phone number."""
    name = i18n.person_name(context["lang"], contact.last_name, contact.first_name)
    return name if contact.last_name or contact.first_name else (contact.email or i18n.phone_number(contact.phone or "") or str(contact.id))


def phone(number: str | None) -> Markup:
    """Return a phone number as a link that dials it, written as people write it; nothing for None."""
    return Markup('<a class="tel" href="tel:{}">{}</a>').format(number, i18n.phone_number(number)) if number else Markup("")


def _time(at: datetime, shown: str, title: str = "") -> Markup:
    extra = Markup(' title="{}"').format(title) if title else Markup("")
    return Markup('<time datetime="{}"{}>{}</time>').format(at.isoformat(timespec="minutes"), extra, escape(shown))


def _translator(context: Context) -> Translator:
    translator: Translator = context["translator"]
    return translator
