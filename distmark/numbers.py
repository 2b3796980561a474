"""Numbers as people write them: full width, with thousands separators, with a currency before or behind, in 千, 万 and 億. Pure."""

import math
import re
import unicodedata

LONGEST_NUMBER = 40  # characters
MOST_DIGITS = 18

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_NUMBER = re.compile(rf"({_PLAIN}|\.\d+)(?:[eE]([+-]?\d{{1,2}}))?")
_IN_MYRIADS = re.compile(rf"(?:({_PLAIN})億)?(?:({_PLAIN})万)?(?:({_PLAIN})千)?({_PLAIN})?")
_UNITS = (10**8, 10**4, 10**3, 1)
_SIGNS = {"-": -1, "−": -1, "‐": -1, "–": -1, "△": -1, "▲": -1, "+": 1}
_CURRENCIES_BEFORE = ("¥", "\\", "$", "€", "£", "JPY", "USD", "EUR")
_CURRENCIES_BEHIND = ("円", "JPY", "USD", "EUR", "€")


def read_number(written: str) -> int | float | None:
    """Return the number that a text writes, such as 12,000, １２０００, ¥12,000, 12,000円, 1.2万 or ▲500; None when it is none.

    12,00 and 1.234,56 are none: what they mean depends on the country.
    """
    if len(written) > LONGEST_NUMBER:
        return None
    text = "".join(unicodedata.normalize("NFKC", written).split())
    sign, text = _signed(text)
    text = _without_currency(text)
    if sign == 1:
        sign, text = _signed(text)
    found = _value(text)
    return None if found is None else sign * found


def _signed(text: str) -> tuple[int, str]:
    return (_SIGNS[text[0]], text[1:]) if text[:1] in _SIGNS else (1, text)


def _without_currency(text: str) -> str:
    before = next((mark for mark in _CURRENCIES_BEFORE if text.upper().startswith(mark)), "")
    text = text[len(before) :]
    behind = next((mark for mark in _CURRENCIES_BEHIND if text.upper().endswith(mark)), "")
    return text[: len(text) - len(behind)]


def _value(text: str) -> int | float | None:
    if match := _NUMBER.fullmatch(text):
        return _as_number(match[1].replace(",", ""), int(match[2] or 0))
    match = _IN_MYRIADS.fullmatch(text) if text else None
    if match is None:
        return None
    parts = [_as_number(part.replace(",", ""), 0) for part in match.groups(default="0")]
    total = sum(unit * (part or 0) for unit, part in zip(_UNITS, parts, strict=True))
    return int(total) if float(total).is_integer() else total


def _as_number(digits: str, exponent: int) -> int | float | None:
    if len(digits.replace(".", "")) > MOST_DIGITS:
        return None
    if "." not in digits and not exponent:
        return int(digits)
    found = float(f"{digits}e{exponent}")
    return found if math.isfinite(found) else None
