"""The templates of our pages: one environment per language, so that a template says only what is on the page."""

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from distmark.metrics.definitions import define
from distmark.web import i18n
from distmark.web.i18n import Tongue
from distmark.web.icons import icon
from distmark.web.labels import TABLES, Said

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
    words = i18n.words(language)
    environment.install_gettext_translations(words, newstyle=True)  # type: ignore[attr-defined]  # added by the extension
    environment.filters |= {
        "when": when,
        "short": short,
        "day": day,
        "number": number,
        "percent": percent,
        "named": named,
        "person": person,
    }
    environment.globals |= {
        "icon": icon,
        "definition": define,
        "language_names": i18n.NAMES,
        "chip": _chip_maker(words),
        "gap": "" if language == "ja" else " ",
        **TABLES,
    }
    return environment


def _chip_maker(words: i18n.Words) -> Callable[[Said], Markup]:
    # A global, not a macro: a block that is rendered alone sees no imports of its template.
    def chip(said: Said) -> Markup:
        """A value of a closed set as a quiet chip."""
        return Markup('<span class="chip{}">{}</span>').format(f" {said.chip}" if said.chip else "", words.gettext(said.words))

    return chip


@pass_context
def when(context: Context, at: datetime | None) -> Markup:
    """The full form of a time, with its zone, as a <time> element."""
    return _time(at, _tongue(context).when(at)) if at else Markup("–")


@pass_context
def short(context: Context, at: datetime | None) -> Markup:
    """The form for tables; the full form is its title."""
    return _time(at, _tongue(context).short(at, context["now"]), _tongue(context).when(at)) if at else Markup("–")


@pass_context
def day(context: Context, on: date | None) -> str:
    return _tongue(context).day(on) if on else "–"


@pass_context
def number(context: Context, value: float | None) -> str:
    return "–" if value is None else _tongue(context).number(value)


@pass_context
def percent(context: Context, rate: float | None, digits: int = 1) -> str:
    return _tongue(context).percent(rate, digits)


@pass_context
def named(context: Context, table: dict[str, str]) -> str:
    """The text in the reader's language from a {"ja": ..., "en": ...} table."""
    return _tongue(context).named(table)


@pass_context
def person(context: Context, contact: Any) -> str:
    """A contact's name in the order of the reader's language; else the mail address."""
    name = i18n.person_name(context["lang"], contact.last_name, contact.first_name)
    return name if contact.last_name or contact.first_name else (contact.email or contact.phone or str(contact.id))


def _time(at: datetime, shown: str, title: str = "") -> Markup:
    extra = Markup(' title="{}"').format(title) if title else Markup("")
    return Markup('<time datetime="{}"{}>{}</time>').format(at.isoformat(timespec="minutes"), extra, escape(shown))


def _tongue(context: Context) -> Tongue:
    tongue: Tongue = context["tongue"]
    return tongue
