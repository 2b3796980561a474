"""What the rooms below refuse, in Japanese. They word errors once, in English; `locale/ja/LC_MESSAGES/errors.po` has the Japanese of each.

In its message ids `{}` stands for what an error fills in. Words of ours that are filled in have the context "filled in".
"""

import re
from collections.abc import Mapping
from functools import cache

from babel.messages.pofile import read_po

from distmark.web.i18n import LOCALE_DIR

FILLED_IN = "filled in"


@cache
def errors() -> Mapping[str, str]:
    """Return each error's words with `{}` for what is filled in: English -> Japanese."""
    return _read(None)


@cache
def _filled_in() -> Mapping[str, str]:
    return _read(FILLED_IN)


def _read(context: str | None) -> Mapping[str, str]:
    with (LOCALE_DIR / "ja" / "LC_MESSAGES" / "errors.po").open("rb") as file:
        return {str(message.id): str(message.string) for message in read_po(file, locale="ja") if message.id and message.context == context}


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    ranked = sorted(errors().items(), key=lambda pair: -len(pair[0].replace("{}", "")))  # the most particular first
    return tuple((re.compile(re.escape(english).replace(r"\{\}", "(.*?)"), re.DOTALL), japanese) for english, japanese in ranked)


def in_japanese(message: str) -> str:
    """Return an error's message in Japanese; one that is not known stays as it is."""
    for pattern, japanese in _patterns():
        found = pattern.fullmatch(message)
        if found:
            return japanese.format(*(_filled_in().get(part, part) for part in found.groups()))
    return message
