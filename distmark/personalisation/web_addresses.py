"""Web addresses as people paste them: cleaned of invisible characters, and refused when no browser could follow them."""

import html
import re
import unicodedata
from urllib.parse import quote, unquote, urlsplit

# A line break in an attribute, with the blanks that indent the next line.
_BREAKS = re.compile(r"[\t\r\n]+ *")
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_BAD_HOST = re.compile(r"[\s%<>\"'\\^`{|}]")
# `/c/TOKEN/link`, `/u/TOKEN` and `/o/TOKEN.gif`: the addresses that one message was given for one person.
_PERSONAL = re.compile(r"//[^\s/]+(?:/[^\s/?#]+){0,3}?/[cuo]/[A-Za-z0-9_-]{22}(?![A-Za-z0-9_-])")


def clean_url(url: str) -> str:
    """Return the address without line breaks, zero-width characters and blanks around it; blanks inside are percent-encoded."""
    seen = _INVISIBLE.sub("", _BREAKS.sub("", url)).strip()
    return "".join(letter if letter.isprintable() and not letter.isspace() else _encoded(letter) for letter in seen)


def _encoded(letter: str) -> str:
    return "" if unicodedata.category(letter) == "Cs" else quote(letter, safe="")


def is_web_url(url: str) -> bool:
    """Return whether `url` is an http(s) address with a host that a browser can look up."""
    if not url.lower().startswith(("https://", "http://")) or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return bool(host) and not _BAD_HOST.search(host or "")


def holds_personal_link(text: str) -> bool:
    """Return whether the text holds an address out of somebody's message: whoever follows it acts as the person it was sent to."""
    return any(_PERSONAL.search(form) for form in (text, html.unescape(text), unquote(html.unescape(text))))
