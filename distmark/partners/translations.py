"""Names in other languages than the one in which a brand, partner or campaign wrote its own. Pure."""

from collections.abc import Mapping
from typing import Any, Protocol


class Translated(Protocol):
    """A row with texts in other languages: language -> attribute -> text."""

    translations: dict[str, Any]


def translated(row: Translated, name: str, lang: str) -> str:
    """Return the row's attribute in this language when somebody wrote it so, else as the row has it."""
    return str(of_language(row, lang).get(name) or getattr(row, name))


def of_language(row: Translated, lang: str) -> dict[str, str]:
    """Return the texts that were written for this language, by attribute."""
    texts = (row.translations or {}).get(lang, {})
    return {name: str(text) for name, text in texts.items() if text}


def with_texts(row: Translated, lang: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the row's translations with these texts of one language in them; an empty text removes the translation."""
    merged = {name: text for name, text in {**of_language(row, lang), **texts}.items() if text}
    others = {each: dict(of_language(row, each)) for each in row.translations or {} if each != lang}
    return others | ({lang: merged} if merged else {})
