"""Text as people type and paste it, cleaned in one way wherever it comes in: a form, a file, the API, the data of an event. Pure."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

UNSTORABLE = ("Cc", "Cs", "Co", "Cf")  # control characters, halves of characters, characters for private use, and marks that show nothing
# Letters that show nothing: fillers of Hangul, marks of Mongolian and Khmer, blank braille, the grapheme joiner.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u180f\u2800\u3164\uffa0")
_JOINERS = frozenset("\u200c\u200d")
# Unicode calls U+FA19 and U+795E (神) the same and normalises the first, but a name is written with one and not the other.
_OWN_FORMS = re.compile("([\uf900-\ufaff\U0002f800-\U0002fa1f]+)")


def tidy(value: str) -> str:
    """Return `value` on one line: in usual widths of kana and letters (NFKC), single-spaced, without characters that show nothing.

    Kanji that have a form of their own (髙, 﨑, U+FA19) stay as they are.
    """
    line = " ".join(value.split())
    if line.isascii():
        return " ".join(_printable(line).split())
    parts = _OWN_FORMS.split(_printable(line))
    return " ".join("".join(part if at % 2 else unicodedata.normalize("NFKC", part) for at, part in enumerate(parts)).split())


def clean(value: str) -> str:
    """Return `value` without characters that show nothing; its lines, spaces and widths stay as they are."""
    return "\n".join(_printable(line) for line in value.replace("\r\n", "\n").split("\n")).strip()


def clean_values(content: Any) -> Any:
    """Return JSON content with all its texts and names cleaned as by `clean`."""
    if isinstance(content, str):
        return clean(content)
    if isinstance(content, Mapping):
        return {clean(str(name)): clean_values(value) for name, value in content.items()}
    return [clean_values(value) for value in content] if isinstance(content, list | tuple) else content


def has_private_characters(value: str) -> bool:
    """Return whether `value` holds characters that only the computer that wrote it can show, such as self-made kanji."""
    return not value.isascii() and any(unicodedata.category(letter) == "Co" for letter in value)


def _printable(value: str) -> str:
    if value.isascii() and value.isprintable():
        return value
    return "".join(letter for at, letter in enumerate(value) if _is_kept(value, at, letter))


def _is_kept(value: str, at: int, letter: str) -> bool:
    if letter in _JOINERS:
        return _joins(value, at)
    return letter == "\t" or (unicodedata.category(letter) not in UNSTORABLE and letter not in _BLANK and not _is_no_character(letter))


def _is_no_character(letter: str) -> bool:
    # Others that this version of Python does not know yet are newer than it: kanji of names among them.
    return ord(letter) & 0xFFFE == 0xFFFE or "\ufdd0" <= letter <= "\ufdef"


def _joins(value: str, at: int) -> bool:
    """Return whether the joiner at this place joins two signs of one picture, or two letters of a script that needs joiners."""
    if not 0 < at < len(value) - 1:
        return False
    before, after = value[at - 1], value[at + 1]
    pictures = (unicodedata.category(before) in ("So", "Sk") or before == "\ufe0f") and unicodedata.category(after) in ("So", "Sm")
    return pictures or all("\u0600" <= letter <= "\u0dff" for letter in (before, after))
