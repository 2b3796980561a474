"""Errors of the rooms below in Japanese. The rooms word each error in English; `locale/ja/LC_MESSAGES/errors.po` translates it.

In the message ids of that file `{}` stands for a value that the error fills in. Values that are words of ours have the context "filled in".
"""

import re
from collections.abc import Mapping
from functools import cache

from babel.messages.pofile import read_po

from distmark.web.i18n import LOCALE_DIR

FILLED_IN = "filled in"


@cache
def japanese_errors() -> Mapping[str, str]:
    """Return the text of each error with `{}` for the filled-in values: English -> Japanese."""
    return _read(None)


@cache
def _filled_in() -> Mapping[str, str]:
    return _read(FILLED_IN)


def _read(context: str | None) -> Mapping[str, str]:
    with (LOCALE_DIR / "ja" / "LC_MESSAGES" / "errors.po").open("rb") as file:
        return {str(message.id): str(message.string) for message in read_po(file, locale="ja") if message.id and message.context == context}


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    # The text with most words of its own first: a general pattern would match a special one, too.
    ranked = sorted(japanese_errors().items(), key=lambda pair: -len(pair[0].replace("{}", "")))
    return tuple((re.compile(re.escape(english).replace(r"\{\}", "(.*?)"), re.DOTALL), japanese) for english, japanese in ranked)


def in_japanese(message: str) -> str:
    """Return an error's message in Japanese; a message without a translation stays as it is."""
    for pattern, japanese in _patterns():
        found = pattern.fullmatch(message)
        if found:
            return japanese.format(*(_filled_in().get(part, part) for part in found.groups()))
    return message
