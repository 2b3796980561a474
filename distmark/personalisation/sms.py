"""The number of parts of a text message, on which its cost depends (3GPP TS 23.038: GSM-7 in 160/153 units, UCS-2 in 70/67)."""

from dataclasses import dataclass
from enum import StrEnum

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("\f^{}\\[~]|€")


class SmsEncoding(StrEnum):
    GSM_7 = "GSM-7"
    UCS_2 = "UCS-2"


_UNITS = {SmsEncoding.GSM_7: (160, 153), SmsEncoding.UCS_2: (70, 67)}
"Units in a message of one part, and in each part of a longer one (the rest joins the parts)."


@dataclass(frozen=True, slots=True)
class SmsParts:
    """`units` are septets in GSM-7 and 16-bit units in UCS-2; `parts` is what the carrier charges."""

    encoding: SmsEncoding
    units: int
    parts: int


def sms_parts(text: str) -> SmsParts:
    """Return how `text` will be encoded and cut; no character of two units is cut in half."""
    encoding = SmsEncoding.GSM_7 if all(letter in _BASIC or letter in _EXTENDED for letter in text) else SmsEncoding.UCS_2
    sizes = [_units(letter, encoding) for letter in text]
    single, joined = _UNITS[encoding]
    return SmsParts(encoding, sum(sizes), 1 if 0 < sum(sizes) <= single else _filled(sizes, joined))


def _units(letter: str, encoding: SmsEncoding) -> int:
    if encoding is SmsEncoding.GSM_7:
        return 2 if letter in _EXTENDED else 1
    return 2 if ord(letter) > 0xFFFF else 1


def _filled(sizes: list[int], room: int) -> int:
    parts, left = 0, 0
    for size in sizes:
        if size > left:
            parts, left = parts + 1, room
        left -= size
    return parts
